-- The counts of repeated webhooks are lost.
SET LOCAL lock_timeout = '2s';
DROP TABLE webhook_replays;
