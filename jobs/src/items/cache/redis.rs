//! The cache that all processes share, in Redis.

use std::{sync::Arc, time::Duration};

use ::redis::{Cmd, FromRedisValue};
use futures_util::{FutureExt, future::BoxFuture};
use uuid::Uuid;

use super::{super::item::ItemId, Broken, Cache, Entry, LEASE, Lease, Looked};
use crate::remote::redis::{self, millis};

/// How long entries live: as long as one may be shown after a write whose drop was lost together with its process and
/// the worker's repetition of it.
pub const LIFE: Duration = Duration::from_secs(60);
/// As [`LIFE`], of ids that do not exist.
const LIFE_OF_NOTHING: Duration = Duration::from_secs(3);
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
    pub redis: redis::Redis,
}

impl Redis {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Broken> {
        Ok(self.redis.execute(command).await?)
    }
}

/// The key of an item. The number changes with the form of what is stored.
fn key(id: ItemId) -> String {
    format!("millrace:1:item:{id}")
}

fn script(text: &str, id: ItemId) -> Cmd {
    redis::script(text, &[&key(id)])
}

/// What a body says; one that cannot be read, as of another release, says nothing.
fn read(body: &[u8]) -> Option<Entry> {
    if body.is_empty() { Some(None) } else { serde_json::from_slice(body).ok().map(|item| Some(Arc::new(item))) }
}

impl Cache for Redis {
    fn peek(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>> {
        async move {
            let body: Option<Vec<u8>> = self.ask(::redis::cmd("HGET").arg(key(id)).arg("b")).await?;
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
        async move { self.ask(::redis::cmd("DEL").arg(key(id))).await }.boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }
}
