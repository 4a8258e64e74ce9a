SET LOCAL lock_timeout = '2s';

-- Misspelt words are found by the trigrams that they share with the word that was meant.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE item_documents (
    item_id     bigint PRIMARY KEY,      -- no foreign key: what remains of a removed item outlives its row
    version     bigint NOT NULL,         -- of the item: an older one never replaces a newer one
    removed     boolean NOT NULL,        -- a removed item keeps its version, so that a late put cannot bring it back
    title       text NOT NULL,
    description text,
    price_cents bigint,
    owner_id    bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    written_at  timestamptz NOT NULL DEFAULT now(),
    -- 'simple' takes words as they are: titles are names, in any language. 'english' would drop `The Who` altogether and
    -- cut words of other languages; Elasticsearch's standard analyzer does neither, so that both find the same.
    -- The first 100,000 characters: a tsvector ends at 1 MB, and no item must fail for its length.
    words       tsvector NOT NULL GENERATED ALWAYS AS (
                    setweight(to_tsvector('simple', left(title, 1000)), 'A')
                    || setweight(to_tsvector('simple', left(coalesce(description, ''), 100000)), 'B')) STORED,
    CONSTRAINT item_documents_removed_empty CHECK (NOT removed OR (title = '' AND description IS NULL))
);

-- Without the list of what is not yet merged: each search would read it. Writes come from jobs and can wait.
CREATE INDEX item_documents_words ON item_documents USING gin (words) WITH (fastupdate = off);
CREATE INDEX item_documents_removed ON item_documents (written_at) WHERE removed;

-- The words of all documents, each once, to correct a search by: a handful of index look-ups, and then a search for the
-- right words. Trigrams of whole titles instead took 451 ms for two words among 100,000 items, one of the words common.
CREATE TABLE item_words (
    word   text COLLATE "C" PRIMARY KEY,
    -- The word, and the word without each one of its letters. A misspelling by one letter, or by two that changed places,
    -- shares one of these with the right word; short ones, such as `mosue`, share too few trigrams to be found by them.
    shapes text[] NOT NULL
);
CREATE INDEX item_words_shapes ON item_words USING gin (shapes);
CREATE INDEX item_words_trigrams ON item_words USING gin (word gin_trgm_ops);
