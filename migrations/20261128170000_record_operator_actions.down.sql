SET LOCAL lock_timeout = '2s';
DROP VIEW paused_queues;
ALTER TABLE queues DROP COLUMN paused_by, DROP COLUMN resume_at;
DROP TABLE operator_actions;
