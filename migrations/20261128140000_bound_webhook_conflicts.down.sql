SET LOCAL lock_timeout = '2s';

DROP TABLE webhook_conflict_totals;
