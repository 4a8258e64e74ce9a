DROP TABLE webhook_conflicts;
DROP TABLE transactions;
