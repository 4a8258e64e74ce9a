//! Token buckets in Redis: one rate limit per caller, shared by all processes.

use std::time::Duration;

use redis::Cmd;

use super::redis::{Broken, Redis, script};

/// Takes tokens, all or none. A bucket is stored as one number: when it will be full again, in microseconds of Redis' clock,
/// because the clocks of the processes may differ. The key expires when the bucket is full, so an idle caller costs no
/// memory. A stored time further ahead than an empty bucket allows means that the clock was set back; the bucket then
/// counts as empty. Returns whether the tokens were taken, how many are left, the microseconds until the bucket is full,
/// and those until it has as many tokens as were requested.
const TAKE_SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local quota, token = tonumber(ARGV[1]), tonumber(ARGV[2])
local window, cost = quota * token, token * tonumber(ARGV[3])
local full = tonumber(redis.call('GET', KEYS[1]) or now) or now
full = math.min(math.max(full, now), now + window)
local taken = 0
if full + cost <= now + window then
    taken = 1
    full = full + cost
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
local left = math.floor((now + window - full) / token)
return {taken, left, full - now, math.max(0, full + cost - now - window)}
";

/// Returns tokens to a bucket. A bucket that becomes full is deleted.
const RETURN_SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or now) or now
full = full - tonumber(ARGV[2]) * tonumber(ARGV[3])
if full > now then
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
else
    redis.call('DEL', KEYS[1])
end
return 1
";

/// The size of a bucket: `quota` requests at once, refilled evenly over `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Requests per window.
    pub quota: u32,
    /// The time in which an empty bucket becomes full.
    pub window: Duration,
}

/// The result of taking tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether they were taken.
    pub granted: bool,
    /// Tokens left.
    pub left: u32,
    /// The time until the bucket is full.
    pub full_in: Duration,
    /// The time until the bucket has as many tokens as were requested; zero if it has them now.
    pub next_in: Duration,
}

/// Takes tokens from the bucket under `key`, all or none, atomically in one script.
///
/// # Errors
/// [`Broken`] when Redis does not respond. The caller then limits by its own count.
pub async fn take_tokens(redis: &Redis, key: &str, size: Size, tokens: u32) -> Result<Taken, Broken> {
    let command = command(TAKE_SCRIPT, key, size, tokens);
    let (taken, left, full_in, next_in) = redis.execute::<(u8, u32, u64, u64)>(&command).await?;
    Ok(Taken {
        granted: taken == 1,
        left,
        full_in: Duration::from_micros(full_in),
        next_in: Duration::from_micros(next_in),
    })
}

/// Returns tokens that [`take_tokens`] took from the bucket under `key`.
///
/// # Errors
/// [`Broken`] when Redis does not respond.
pub async fn return_tokens(redis: &Redis, key: &str, size: Size, tokens: u32) -> Result<(), Broken> {
    redis.execute::<u8>(&command(RETURN_SCRIPT, key, size, tokens)).await.map(drop)
}

fn command(text: &str, key: &str, Size { quota, window }: Size, tokens: u32) -> Cmd {
    let quota = quota.max(1);
    let token = (window.as_micros() / u128::from(quota)).max(1);
    let mut command = script(text, &[key]);
    command.arg(quota).arg(u64::try_from(token).unwrap_or(u64::MAX)).arg(tokens);
    command
}
