-- Nothing: `millrace reindex` of the earlier release adds them again.
SELECT;
