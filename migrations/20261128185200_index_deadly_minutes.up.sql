-- no-transaction
-- The new dead letters of a day come from the few minutes that have any.
CREATE INDEX CONCURRENTLY queue_minutes_dead ON queue_minutes (queue, minute) INCLUDE (dead) WHERE dead > 0;
