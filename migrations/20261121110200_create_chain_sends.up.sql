SET LOCAL lock_timeout = '2s';

-- What was signed for a chain. A row is committed before its bytes are sent, so that whoever finds it later can tell
-- what became of them.
CREATE TABLE chain_sends (
    rate_id  uuid NOT NULL REFERENCES interest_rates (id),
    number   integer NOT NULL,                     -- counts the sends of one rate
    contract text NOT NULL,
    sender   text NOT NULL,
    nonce    bigint NOT NULL,
    hash     bytea NOT NULL,
    raw      bytea NOT NULL,                       -- the signed transaction: sending it again is the same transaction
    max_fee  text NOT NULL,                        -- wei per gas, up to 128 bits
    priority text NOT NULL,
    sent_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rate_id, number)
);
