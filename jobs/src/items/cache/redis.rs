//! The cache that all processes share, in Redis.

use std::{sync::Arc, time::Duration};

use ::redis::{Cmd, FromRedisValue};
use uuid::Uuid;

use super::{
    super::item::ItemId,
    entry::{CacheError, Entry, LEASE_TTL, Lease, Lookup},
};
use runtime::clients::redis::{self, millis};

/// The TTL of entries. It limits how long an item may be outdated if both the write's own removal and its indexing
/// job's removal are lost.
pub const TTL: Duration = Duration::from_secs(60);
/// The same for ids that do not exist.
const ABSENT_TTL: Duration = Duration::from_secs(3);
/// An entry is a hash with the body `b`, which is empty if there is no such item. A lease is a hash with its number
/// `l`, which begins with the number of the process. A lease of the same process is replaced.
const LEASE_SCRIPT: &str = "local held = redis.call('HGET', KEYS[1], 'b')
if held then return {1, held} end
local lease = redis.call('HGET', KEYS[1], 'l')
if lease and string.sub(lease, 1, #ARGV[3]) ~= ARGV[3] then return {0, ''} end
redis.call('HSET', KEYS[1], 'l', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {2, ''}";
const FILL_SCRIPT: &str = "if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'b', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// A cache in Redis.
pub struct Redis {
    redis: redis::Redis,
    /// Random; the upper half of the number of each lease of this process.
    process: u64,
}

/// The Redis key of an item. The number changes with the format of the stored body.
fn key(id: ItemId) -> String {
    format!("millrace:1:item:{id}")
}

fn script(text: &str, id: ItemId) -> Cmd {
    redis::script(text, &[&key(id)])
}

/// A lease as it is stored: the number of its process, and 16 further digits.
fn stored(lease: Lease) -> String {
    format!("{lease:032x}")
}

/// Parses a stored body; `None` if it cannot be parsed, such as one of another release.
fn parse(body: &[u8]) -> Option<Entry> {
    if body.is_empty() { Some(None) } else { serde_json::from_slice(body).ok().map(|item| Some(Arc::new(item))) }
}

impl Redis {
    /// The cache in this Redis.
    pub fn new(redis: redis::Redis) -> Self {
        Self { redis, process: Uuid::new_v4().as_u64_pair().0 }
    }

    async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheError> {
        Ok(self.redis.execute(command).await?)
    }

    pub(super) async fn peek(&self, id: ItemId) -> Result<Lookup, CacheError> {
        let body: Option<Vec<u8>> = self.send(::redis::cmd("HGET").arg(key(id)).arg("b")).await?;
        Ok(body.and_then(|body| parse(&body)).map_or(Lookup::Missed, Lookup::Hit))
    }

    pub(super) async fn lease(&self, id: ItemId) -> Result<Lookup, CacheError> {
        let lease = (Lease::from(self.process) << 64) | Lease::from(Uuid::new_v4().as_u64_pair().0);
        let mut command = script(LEASE_SCRIPT, id);
        command.arg(stored(lease)).arg(millis(LEASE_TTL)).arg(format!("{:016x}", self.process));
        let (kind, body): (u8, Vec<u8>) = self.send(&command).await?;
        Ok(match kind {
            1 => parse(&body).map_or(Lookup::Missed, Lookup::Hit),
            2 => Lookup::Leased(lease),
            _ => Lookup::Missed,
        })
    }

    pub(super) async fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> Result<bool, CacheError> {
        let ttl = if entry.is_some() { TTL } else { ABSENT_TTL };
        let body = match entry {
            Some(item) => serde_json::to_vec(&*item).map_err(|error| CacheError(error.to_string()))?,
            None => Vec::new(),
        };
        self.send(script(FILL_SCRIPT, id).arg(stored(lease)).arg(body).arg(millis(ttl))).await
    }

    pub(super) async fn remove(&self, id: ItemId) -> Result<(), CacheError> {
        self.send(::redis::cmd("DEL").arg(key(id))).await
    }
}
