-- Callbacks on settlement: each row is a message that is POSTed to a receiver until it responds with 2xx. The row, and the
-- job that sends it, are written in the transaction that settles. The id is that of the settlement: the `webhook-id` of every
-- try, and the id of the job. Rows are updated once in most cases, when they are delivered.
SET LOCAL lock_timeout = '2s';
CREATE TABLE callbacks (
    id             uuid PRIMARY KEY,             -- version 7, by the database's clock
    transaction_id uuid NOT NULL,                -- transactions.id; no foreign key, because no transaction is deleted
    destination    text COLLATE "C" NOT NULL,    -- the sender; '' for the URL of all senders without one of their own
    kind           text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    attempts       int NOT NULL DEFAULT 0,       -- requests that were sent
    delivered_at   timestamptz,
    gave_up_at     timestamptz,                  -- when its job became a dead letter, or was cancelled
    last_status    int,                          -- of the last response; NULL without one
    last_error     text,
    CONSTRAINT callbacks_kind_known CHECK (kind IN ('transaction.processed', 'transaction.failed')),
    CONSTRAINT callbacks_attempts_not_negative CHECK (attempts >= 0),
    CONSTRAINT callbacks_status_of_http CHECK (last_status BETWEEN 100 AND 999),
    CONSTRAINT callbacks_ended_once CHECK (delivered_at IS NULL OR gave_up_at IS NULL)
);
-- The timeline of a transaction.
CREATE INDEX callbacks_of_transaction ON callbacks (transaction_id);
-- How many callbacks wait for each destination. It has no entry of those that have ended.
CREATE INDEX callbacks_waiting ON callbacks (destination) WHERE delivered_at IS NULL AND gave_up_at IS NULL;

-- Destinations with a problem. One without a row has none.
CREATE TABLE callback_destinations (
    name             text COLLATE "C" PRIMARY KEY,
    failing_since    timestamptz,                -- the first failure since the last success
    disabled_at      timestamptz,                -- since then nothing is sent; an operator enables it again
    disabled_because text,
    CONSTRAINT callback_destinations_disabling_explained CHECK ((disabled_at IS NULL) = (disabled_because IS NULL))
);
