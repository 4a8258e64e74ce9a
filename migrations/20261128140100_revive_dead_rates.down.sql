SET LOCAL lock_timeout = '2s';

-- Nothing to undo: the jobs that wait again are what the release before runs as well.
SELECT 1;
