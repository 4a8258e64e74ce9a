SET LOCAL lock_timeout = '2s';
DROP TABLE replayed_jobs;
DROP TABLE replays;
