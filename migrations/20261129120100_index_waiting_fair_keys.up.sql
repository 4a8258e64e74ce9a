-- no-transaction
-- A claim steps from key to key, and reads the first due jobs of each. Ordered by due time alone, it would read the whole backlog of
-- the first key to find the second.
CREATE INDEX CONCURRENTLY jobs_ready_by_key ON apalis.jobs (job_type, priority, fair_key, run_at)
    WHERE status = 'Pending' AND fair_key IS NOT NULL;
