DROP TABLE item_words;
DROP TABLE item_documents;
DROP EXTENSION IF EXISTS pg_trgm;
