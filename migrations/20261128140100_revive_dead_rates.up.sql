SET LOCAL lock_timeout = '2s';

-- Until now the job of an interest rate was given up after ten refusals by the chain, and its rate was pending for good,
-- although its sender had been promised that it will be saved. Those jobs run again; only an operator ends them from now on.
UPDATE apalis.jobs AS job
SET status = 'Pending', run_at = now(), done_at = NULL, last_result = NULL, failures = 0, crashes = 0
FROM interest_rates AS rate
WHERE job.job_type = 'reconcile_rate' AND job.status = 'Killed' AND rate.state = 'pending'
  AND rate.id::text = substring(encode(job.job, 'escape') FROM '"id" *: *"([0-9a-f-]{36})"')
  AND coalesce(job.last_result ->> 'Err', '') <> 'cancelled by operator'
  AND NOT EXISTS (SELECT FROM apalis.jobs AS live
                  WHERE live.job_type = job.job_type AND live.idempotency_key = job.idempotency_key
                    AND live.status IN ('Pending', 'Running'));
