-- The name of the secret that signed the webhook, such as acme in WEBHOOK_SECRET=acme:whsec_…; NULL for a transaction that
-- was not signed, or was signed with a secret without a name. Callbacks, quotas and the fair share go by it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE transactions ADD COLUMN sender text COLLATE "C";
