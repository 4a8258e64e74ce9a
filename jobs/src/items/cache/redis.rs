//! The cache that all processes share, in Redis: waited for briefly, and left alone for a while after a failure.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use redis::{Client, Cmd, FromRedisValue, aio::ConnectionManager, aio::ConnectionManagerConfig};
use uuid::Uuid;

use super::{
    super::{breaker::Breaker, item::ItemId},
    Broken, Cache, Entry, LEASE, Lease, Looked,
};
use crate::error::Error;

/// How long entries live: as long as one may be shown after a write whose drop was lost together with its process and
/// the worker's repetition of it.
pub const LIFE: Duration = Duration::from_secs(60);
/// As [`LIFE`], of ids that do not exist.
const LIFE_OF_NOTHING: Duration = Duration::from_secs(3);
/// A healthy Redis answers within a millisecond; a request does not wait longer than this for one that is not.
const PATIENCE: Duration = Duration::from_millis(100);

/// After a failure Redis is left alone for this long, and then asked by one request at a time.
const PAUSE: Duration = Duration::from_secs(1);

/// An entry is a hash with the body `b`, empty when there is no such item; a lease one with its number `l`.
const TAKE: &str = "local held = redis.call('HGET', KEYS[1], 'b')
if held then return {1, held} end
if redis.call('HSETNX', KEYS[1], 'l', ARGV[1]) == 0 then return {0, ''} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {2, ''}";
const FILL: &str = "if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'b', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// A cache in Redis.
pub struct Redis {
    connection: ConnectionManager,
    breaker: Breaker,
}

impl Redis {
    /// Prepares a connection, which is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none of Redis'.
    pub fn start(url: &str) -> Result<Self, Error> {
        // The URL may hold a password: the error says nothing but its kind.
        let wrong = |error: redis::RedisError| Error::Internal(format!("REDIS_URL: {:?}", error.kind()));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            // The breaker decides when to try again.
            .set_number_of_retries(1);
        let client = Client::open(url).map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, breaker: Breaker::new(PAUSE) })
    }

    /// Sends a command, unless the last one failed a moment ago.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Broken> {
        if !self.breaker.allows() {
            return Err(Broken("Redis is left alone after a failure".into()));
        }
        let mut connection = self.connection.clone();
        // Around all of it: the manager waits for a connection that is being made before its own limits begin.
        let answer = tokio::time::timeout(PATIENCE, command.query_async::<T>(&mut connection)).await;
        let error = match answer {
            Ok(Ok(answer)) => {
                self.breaker.answered();
                return Ok(answer);
            }
            Ok(Err(error)) => format!("{:?}: {error}", error.kind()),
            Err(_elapsed) => "no answer".into(),
        };
        if self.breaker.failed() {
            tracing::warn!(error, "Redis does not answer; items are read without it");
        }
        Err(Broken(error))
    }
}

/// The key of an item. The number changes with the form of what is stored.
fn key(id: ItemId) -> String {
    format!("millrace:1:item:{id}")
}

fn script(text: &str, id: ItemId) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(1).arg(key(id));
    command
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a body says; one that cannot be read, as of another release, says nothing.
fn read(body: &[u8]) -> Option<Entry> {
    if body.is_empty() { Some(None) } else { serde_json::from_slice(body).ok().map(|item| Some(Arc::new(item))) }
}

impl Cache for Redis {
    fn peek(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>> {
        async move {
            let body: Option<Vec<u8>> = self.ask(redis::cmd("HGET").arg(key(id)).arg("b")).await?;
            Ok(body.and_then(|body| read(&body)).map_or(Looked::Missed, Looked::Hit))
        }
        .boxed()
    }

    fn lease(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>> {
        async move {
            let lease = Uuid::new_v4().as_u128();
            let (kind, body): (u8, Vec<u8>) =
                self.ask(script(TAKE, id).arg(lease.to_string()).arg(millis(LEASE))).await?;
            Ok(match kind {
                1 => read(&body).map_or(Looked::Missed, Looked::Hit),
                2 => Looked::Leased(lease),
                _ => Looked::Missed,
            })
        }
        .boxed()
    }

    fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> BoxFuture<'_, Result<bool, Broken>> {
        async move {
            let life = if entry.is_some() { LIFE } else { LIFE_OF_NOTHING };
            let body = match entry {
                Some(item) => serde_json::to_vec(&*item).map_err(|error| Broken(error.to_string()))?,
                None => Vec::new(),
            };
            self.ask(script(FILL, id).arg(lease.to_string()).arg(body).arg(millis(life))).await
        }
        .boxed()
    }

    fn forget(&self, id: ItemId) -> BoxFuture<'_, Result<(), Broken>> {
        async move { self.ask(redis::cmd("DEL").arg(key(id))).await }.boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }
}
