CREATE TABLE transactions (
    id                  uuid PRIMARY KEY,         -- ours, time-ordered; the job that processes the row has the same id
    transaction_id      text NOT NULL UNIQUE,     -- the sender's: what makes a repeated webhook harmless
    source_account      text NOT NULL,
    destination_account text NOT NULL,
    amount              numeric NOT NULL,         -- unconstrained keeps the digits that came in
    currency            text NOT NULL,
    status              text NOT NULL DEFAULT 'PROCESSING',
    error               text,
    created_at          timestamptz NOT NULL,
    due_at              timestamptz NOT NULL,     -- when processing is expected to have an answer
    processed_at        timestamptz,
    CONSTRAINT transactions_amount_bounded CHECK (amount > 0 AND amount < 1e12 AND scale(amount) <= 6),
    CONSTRAINT transactions_status_known CHECK (status IN ('PROCESSING', 'PROCESSED', 'FAILED')),
    CONSTRAINT transactions_settled_once CHECK ((status = 'PROCESSING') = (processed_at IS NULL)),
    CONSTRAINT transactions_failure_explained CHECK ((status = 'FAILED') = (error IS NOT NULL))
);

-- Newest first, within one status; a list over all of them merges the three.
CREATE INDEX transactions_newest ON transactions (status, created_at DESC, transaction_id DESC);

-- Webhooks that repeated an id with another payload: one row per payload, however often it came.
CREATE TABLE webhook_conflicts (
    transaction_id text NOT NULL REFERENCES transactions (transaction_id) ON DELETE CASCADE,
    payload        jsonb NOT NULL,
    digest         bytea NOT NULL, -- SHA-256 of the payload: a payload itself may exceed what an index row can hold
    fields         text[] NOT NULL,
    times          bigint NOT NULL DEFAULT 1,
    first_at       timestamptz NOT NULL DEFAULT now(),
    last_at        timestamptz NOT NULL DEFAULT now(),
    correlation_id text,
    PRIMARY KEY (transaction_id, digest)
);
