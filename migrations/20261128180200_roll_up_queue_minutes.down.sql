-- The release before deletes minutes after 14 days and reads no older ones, so the hours are not moved back.
SET LOCAL lock_timeout = '2s';
DROP TABLE queue_hours;
