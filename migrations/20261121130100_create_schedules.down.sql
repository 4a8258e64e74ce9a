SET LOCAL lock_timeout = '2s';

DROP TABLE schedule_fires;
DROP TABLE schedules;
