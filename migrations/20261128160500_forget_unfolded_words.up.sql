SET LOCAL lock_timeout = '2s';

-- No document has these words once its own are computed anew: they would only be in the way of those that are meant.
DELETE FROM item_words WHERE octet_length(word) <> char_length(word);
