SET LOCAL lock_timeout = '2s';
UPDATE apalis.jobs SET status = 'Killed' WHERE status = 'Cancelled';
ALTER TABLE queues DROP COLUMN cancelled;
