//! Token buckets in Redis: how often one caller may do something, counted over all processes.

use std::time::Duration;

use redis::Cmd;

use super::redis::{Broken, Redis, script};

/// The time at which a bucket will be full again, in microseconds of Redis' own clock: those of the processes may differ.
/// It goes when the bucket is full, so whoever has been away costs no memory. A time beyond what an empty bucket can have
/// is one of a clock that was set back since, and counts as empty. Answers whether a token was taken, what is left of
/// them, and the microseconds until the bucket is full and until it has the next token.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local quota, token = tonumber(ARGV[1]), tonumber(ARGV[2])
local window = quota * token
local full = tonumber(redis.call('GET', KEYS[1]) or now) or now
full = math.min(math.max(full, now), now + window)
local taken = 0
if full + token <= now + window then
    taken = 1
    full = full + token
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
local left = math.floor((now + window - full) / token)
return {taken, left, full - now, math.max(0, full + token - now - window)}
";

/// Puts a token back into a bucket that is not full. One that would be full goes.
const GIVE_BACK: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or now) or now
full = full - tonumber(ARGV[2])
if full > now then
    redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
else
    redis.call('DEL', KEYS[1])
end
return 1
";

/// So many at once, and from then on evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How many in a window.
    pub quota: u32,
    /// How long it takes until an empty bucket is full again.
    pub window: Duration,
}

/// What came of taking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was one.
    pub granted: bool,
    /// How many are left.
    pub left: u32,
    /// Until the bucket is full again.
    pub full_in: Duration,
    /// Until it has a token; nothing, when it has one.
    pub next_in: Duration,
}

/// Takes a token out of the bucket of this key, by one script that nothing comes between.
///
/// # Errors
/// [`Broken`] when Redis does not answer: whoever asks counts for himself.
pub async fn take(redis: &Redis, key: &str, size: Size) -> Result<Taken, Broken> {
    let (taken, left, full_in, next_in) = redis.ask::<(u8, u32, u64, u64)>(&command(TAKE, key, size)).await?;
    Ok(Taken {
        granted: taken == 1,
        left,
        full_in: Duration::from_micros(full_in),
        next_in: Duration::from_micros(next_in),
    })
}

/// Puts a token back that was taken out of the bucket of this key.
///
/// # Errors
/// [`Broken`] when Redis does not answer.
pub async fn give_back(redis: &Redis, key: &str, size: Size) -> Result<(), Broken> {
    redis.ask::<u8>(&command(GIVE_BACK, key, size)).await.map(drop)
}

fn command(text: &str, key: &str, Size { quota, window }: Size) -> Cmd {
    let quota = quota.max(1);
    let token = (window.as_micros() / u128::from(quota)).max(1);
    let mut command = script(text, &[key]);
    command.arg(quota).arg(u64::try_from(token).unwrap_or(u64::MAX));
    command
}
