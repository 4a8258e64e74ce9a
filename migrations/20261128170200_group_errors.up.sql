-- Jobs with the same last error, apart from numbers, ids and quoted parts, have the same group. The worker computes it
-- when it writes the error. NULL for jobs that failed before this release.
SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.jobs ADD COLUMN error_group text;
