SET LOCAL lock_timeout = '2s';

-- Every average that was submitted, whichever storage keeps it: recorded before anything is sent to a chain.
CREATE TABLE interest_rates (
    id              uuid PRIMARY KEY DEFAULT uuid_v7(),
    backend         text NOT NULL,                 -- which STORAGE_BACKEND keeps it
    rate            numeric(39, 18) NOT NULL,
    assets          jsonb NOT NULL,                -- as submitted: [{"id", "interest_rate": "digits"}]
    idempotency_key text,
    state           text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    saved_at        timestamptz,                   -- when the storage had it: on a chain, the time of its block
    CONSTRAINT interest_rates_not_negative CHECK (rate >= 0),
    CONSTRAINT interest_rates_backend_known CHECK (backend IN ('postgres', 'smart_contract')),
    CONSTRAINT interest_rates_state_known CHECK (state IN ('pending', 'saved', 'withdrawn')),
    CONSTRAINT interest_rates_saved_once CHECK ((state = 'saved') = (saved_at IS NOT NULL)),
    CONSTRAINT interest_rates_key_bounded CHECK (char_length(idempotency_key) BETWEEN 1 AND 255)
);

CREATE UNIQUE INDEX interest_rates_submitted_once ON interest_rates (idempotency_key, backend)
    WHERE idempotency_key IS NOT NULL;

-- The history, and its newest: for a literal backend only.
CREATE INDEX interest_rates_in_postgres ON interest_rates (id) WHERE backend = 'postgres';
