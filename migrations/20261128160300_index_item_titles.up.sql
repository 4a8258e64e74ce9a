SET LOCAL lock_timeout = '2s';

-- A hash: a title has up to 255 characters, and NFKC makes 18 of one; an entry of a B-tree ends at 2,704 bytes.
CREATE INDEX item_documents_title_key ON item_documents USING hash (title_key) WHERE title_key <> '';
