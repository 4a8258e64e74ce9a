SET LOCAL lock_timeout = '2s';

CREATE TABLE items (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never given twice: a deleted one stays unknown
    owner_id    bigint NOT NULL REFERENCES users (id),
    title       text NOT NULL,
    description text,
    price_cents bigint,
    version     bigint NOT NULL DEFAULT 1, -- counts the writes; caches and indexes never let a smaller one win
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT items_title_bounded CHECK (char_length(title) BETWEEN 1 AND 255),
    CONSTRAINT items_description_bounded CHECK (char_length(description) <= 10000),
    CONSTRAINT items_price_not_negative CHECK (price_cents >= 0),
    CONSTRAINT items_version_counts CHECK (version >= 1)
);

-- What the foreign key asks when a user goes.
CREATE INDEX items_of_owner ON items (owner_id);
