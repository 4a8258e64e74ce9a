-- Running jobs that an operator wants to end. A table of its own and no column of apalis.jobs: it is empty nearly
-- always, so that workers look at it for nothing, and claims and results carry nothing of it. No foreign key either:
-- that would be looked up for each job that retention removes. Workers remove what is over.
CREATE TABLE cancellations (
    job_id       text PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now()
);
