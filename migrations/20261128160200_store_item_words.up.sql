SET LOCAL lock_timeout = '2s';

-- The words of a document are computed by the program (`search::analysis`) from now on: to_tsvector() keeps `12/13` and
-- `shop.example.com` as one word each, cannot cut Chinese, and knows neither diacritics nor width. What an earlier
-- release computed stays until a worker has computed it anew, so that every item is found meanwhile.
ALTER TABLE item_documents ALTER COLUMN words DROP EXPRESSION;
ALTER TABLE item_documents ALTER COLUMN words SET DEFAULT '';
-- The words of the title, with a blank between two: an item whose title is the search comes first.
ALTER TABLE item_documents ADD COLUMN title_key text COLLATE "C" NOT NULL DEFAULT '';
-- The version of the item whose words these are. Behind `version` in rows that an earlier release wrote.
ALTER TABLE item_documents ADD COLUMN analysed bigint NOT NULL DEFAULT 0;
