SET LOCAL lock_timeout = '2s';

-- Computes all words anew, which takes a minute for a million documents.
ALTER TABLE item_documents DROP COLUMN analysed;
ALTER TABLE item_documents DROP COLUMN title_key;
ALTER TABLE item_documents DROP COLUMN words;
ALTER TABLE item_documents ADD COLUMN words tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', left(title, 1000)), 'A')
    || setweight(to_tsvector('simple', left(coalesce(description, ''), 100000)), 'B')) STORED;
CREATE INDEX item_documents_words ON item_documents USING gin (words) WITH (fastupdate = off);
