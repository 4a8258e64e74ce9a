SET LOCAL lock_timeout = '2s';
DROP VIEW estimated_depths;
