-- Webhooks that repeat an id with the same payload, for the timeline of their transaction: how often, and when. Only senders
-- that repeat have rows. There is no foreign key, because no transaction is deleted; its check would write to the row of the
-- transaction while a worker settles it.
SET LOCAL lock_timeout = '2s';
CREATE TABLE webhook_replays (
    transaction_id text COLLATE "C" PRIMARY KEY,     -- transactions.transaction_id
    times          bigint NOT NULL,
    first_at       timestamptz NOT NULL DEFAULT now(),
    last_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhook_replays_counted CHECK (times > 0)
) WITH (fillfactor = 50);                            -- the same few rows are updated again and again, in place
