SET LOCAL lock_timeout = '2s';

-- What all writings of an address have in common, computed by the program (`text::account_key`): PostgreSQL's lower()
-- depends on its version and on the locale of the database, and knows neither `İ` nor two encodings of one accent.
-- Null in rows of an earlier release until `millrace migrate` or a worker has computed it; null for good only where two
-- accounts of before have one key. Those without are compared by lower(email), as before.
ALTER TABLE users ADD COLUMN email_key text COLLATE "C";
