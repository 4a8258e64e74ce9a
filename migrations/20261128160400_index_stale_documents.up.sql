SET LOCAL lock_timeout = '2s';

-- Documents whose words are to be computed: empty but for a while after an update, so that a worker can ask every minute.
CREATE INDEX item_documents_stale ON item_documents (item_id) WHERE analysed < version AND NOT removed;
