//! The cache that all processes share, in Redis.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use super::{Cache, Entry, KEPT};
use crate::remote::redis::{self, Broken, millis, script};

/// The number changes with the form or the meaning of what is stored.
const PREFIX: &str = "millrace:2:price:";
const LOCK_PREFIX: &str = "millrace:2:price-turn:";
const TAKE: &str = "local taken = {}
for at, key in ipairs(KEYS) do
  taken[at] = redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
end
return taken";
/// Only what is still ours: a turn that lasted too long may be somebody else's by now.
const GIVE_BACK: &str = "for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
return 1";

/// A cache in Redis.
pub struct Redis {
    pub redis: redis::Redis,
}

fn turns(keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{LOCK_PREFIX}{key}")).collect()
}

fn texts(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

/// What a text says; one that cannot be read, as of another release, says nothing.
fn read(text: Option<Vec<u8>>) -> Option<Arc<Entry>> {
    serde_json::from_slice(&text?).ok().map(Arc::new)
}

impl Cache for Redis {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Arc<Entry>>>, Broken>> {
        async move {
            let mut command = ::redis::cmd("MGET");
            keys.iter().for_each(|key| {
                command.arg(format!("{PREFIX}{key}"));
            });
            let found: Vec<Option<Vec<u8>>> = self.redis.ask(&command).await?;
            Ok(found.into_iter().map(read).collect())
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, entry: Arc<Entry>) -> BoxFuture<'a, Result<(), Broken>> {
        async move {
            let text = serde_json::to_vec(&*entry).map_err(|error| Broken(error.to_string()))?;
            let mut command = ::redis::cmd("SET");
            self.redis.ask(command.arg(format!("{PREFIX}{key}")).arg(text).arg("PX").arg(millis(KEPT))).await
        }
        .boxed()
    }

    fn take<'a>(&'a self, keys: &'a [String], token: u128, life: Duration) -> BoxFuture<'a, Result<Vec<bool>, Broken>> {
        async move {
            let keys = turns(keys);
            self.redis.ask(script(TAKE, &texts(&keys)).arg(token.to_string()).arg(millis(life))).await
        }
        .boxed()
    }

    fn give_back<'a>(&'a self, keys: &'a [String], token: u128) -> BoxFuture<'a, Result<(), Broken>> {
        async move {
            let keys = turns(keys);
            self.redis.ask(script(GIVE_BACK, &texts(&keys)).arg(token.to_string())).await
        }
        .boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }
}
