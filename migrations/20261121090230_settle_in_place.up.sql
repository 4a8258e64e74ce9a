-- A settlement becomes a HOT update: it changes no column of an index nor of an index's predicate, and finds room on the
-- page of the row, so that it writes one row version and nothing else. With the claims and results of jobs on one page,
-- too, the WAL of a transaction in its whole life falls from 3,110 bytes to about 2,000, and the database's share of a
-- drain from 33 to 24 microseconds. Old processes go on beside new ones; only their lists sort what they read.
SET LOCAL lock_timeout = '2s';

-- Three versions in its life: it waits, runs, is done. On one page the WAL of both updates is their difference:
-- 1,977 -> 1,490 bytes a job. Pages from before stay as full as they are.
ALTER TABLE apalis.jobs SET (fillfactor = 40);
-- Two versions: recorded, settled. One statement settles up to 500 rows, so all of a page at once, and nothing can be
-- cleared away between them: both versions of all must fit. At 60, 66 % of such settlements were HOT, with 248 bytes of
-- WAL each; at 50, 96 % and 139; at 45 all of them and 127. And the table is no larger for it: 356 bytes a settled row,
-- where 60 ended with 360, once the others had gone to pages of their own.
ALTER TABLE transactions SET (fillfactor = 45);

-- Lists are in the order of the id, which is that of creation. Processed ones are nearly all, those that are processing
-- have a job that waits or runs; only failed ones need an index. Its predicate is on the error, which is NULL before and
-- after a success: one on the status would change with every settlement.
DROP INDEX transactions_newest;
CREATE INDEX transactions_failed ON transactions (id) WHERE error IS NOT NULL;
