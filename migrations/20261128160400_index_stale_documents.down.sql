SET LOCAL lock_timeout = '2s';

DROP INDEX item_documents_stale;
