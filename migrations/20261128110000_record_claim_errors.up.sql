-- Why a worker cannot claim, by queue, written with its heartbeat: {"queue": {"error": text, "since": time}}. NULL while
-- its claims succeed. Without it, `millrace jobs show` said that a due job waits for a free slot while every claim failed.
SET LOCAL lock_timeout = '2s';
ALTER TABLE apalis.workers ADD COLUMN claim_errors jsonb;
