SET LOCAL lock_timeout = '2s';

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email         text NOT NULL,               -- as its owner writes it
    full_name     text NOT NULL,
    password_hash text NOT NULL,               -- Argon2id as a PHC string: parameters and salt are part of it
    role          text NOT NULL DEFAULT 'user',
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_role_known CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_password_hashed CHECK (password_hash LIKE '$argon2id$%')
);

-- One account for an address, however it is capitalised; of two that register at once, this index refuses one.
CREATE UNIQUE INDEX users_email_once ON users (lower(email));
