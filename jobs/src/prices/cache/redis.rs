//! The cache that all processes share, in Redis.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use super::{Cache, Entry, RETENTION};
use runtime::{
    clients::redis::{self, Broken, millis, script},
    error::causes,
};

/// The prefix of all keys. Its number changes with the form or the meaning of the stored data.
const PREFIX: &str = "millrace:2:price:";
const LOCK_PREFIX: &str = "millrace:2:price-turn:";
const LOCK_SCRIPT: &str = "local taken = {}
for at, key in ipairs(KEYS) do
  taken[at] = redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return taken";
/// Deletes only locks that this token still holds; an expired lock may belong to another process.
const UNLOCK_SCRIPT: &str = "for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 1";

/// A cache in Redis.
pub struct Redis {
    pub redis: redis::Redis,
}

fn lock_keys(keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{LOCK_PREFIX}{key}")).collect()
}

fn as_strs(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

/// Reads an entry. `None` when it is unreadable, such as one of another release.
fn parse_entry(text: Option<Vec<u8>>) -> Option<Arc<Entry>> {
    serde_json::from_slice(&text?).ok().map(Arc::new)
}

impl Cache for Redis {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Arc<Entry>>>, Broken>> {
        async move {
            let mut command = ::redis::cmd("MGET");
            keys.iter().for_each(|key| {
                command.arg(format!("{PREFIX}{key}"));
            });
            let found: Vec<Option<Vec<u8>>> = self.redis.execute(&command).await?;
            Ok(found.into_iter().map(parse_entry).collect())
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, entry: Arc<Entry>) -> BoxFuture<'a, Result<(), Broken>> {
        async move {
            let text = serde_json::to_vec(&*entry).map_err(|error| Broken(causes(&error)))?;
            let mut command = ::redis::cmd("SET");
            self.redis.execute(command.arg(format!("{PREFIX}{key}")).arg(text).arg("PX").arg(millis(RETENTION))).await
        }
        .boxed()
    }

    fn lock<'a>(&'a self, keys: &'a [String], token: u128, ttl: Duration) -> BoxFuture<'a, Result<Vec<bool>, Broken>> {
        async move {
            let keys = lock_keys(keys);
            self.redis.execute(script(LOCK_SCRIPT, &as_strs(&keys)).arg(token.to_string()).arg(millis(ttl))).await
        }
        .boxed()
    }

    fn unlock<'a>(&'a self, keys: &'a [String], token: u128) -> BoxFuture<'a, Result<(), Broken>> {
        async move {
            let keys = lock_keys(keys);
            self.redis.execute(script(UNLOCK_SCRIPT, &as_strs(&keys)).arg(token.to_string())).await
        }
        .boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }
}
