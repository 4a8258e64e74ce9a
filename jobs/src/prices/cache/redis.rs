//! The cache that all processes share, in Redis.

use std::{sync::Arc, time::Duration};

use ::redis::Cmd;

use super::entry::{Entry, RETENTION};
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
#[derive(Clone)]
pub struct Redis(pub redis::Redis);

impl Redis {
    pub(super) async fn get(&self, keys: &[String]) -> Result<Vec<Option<Arc<Entry>>>, Broken> {
        let mut command = ::redis::cmd("MGET");
        command.arg(with_prefix(PREFIX, keys));
        let found: Vec<Option<Vec<u8>>> = self.0.execute(&command).await?;
        // An entry may be unreadable, such as one of another release.
        Ok(found.into_iter().map(|text| serde_json::from_slice(&text?).ok().map(Arc::new)).collect())
    }

    pub(super) async fn put(&self, key: &str, entry: &Entry) -> Result<(), Broken> {
        let text = serde_json::to_vec(entry).map_err(|error| Broken(causes(&error)))?;
        let mut command = ::redis::cmd("SET");
        self.0.execute(command.arg(format!("{PREFIX}{key}")).arg(text).arg("PX").arg(millis(RETENTION))).await
    }

    pub(super) async fn lock(&self, keys: &[String], token: u128, ttl: Duration) -> Result<Vec<bool>, Broken> {
        self.0.execute(lock_script(LOCK_SCRIPT, keys, token).arg(millis(ttl))).await
    }

    pub(super) async fn unlock(&self, keys: &[String], token: u128) -> Result<(), Broken> {
        self.0.execute(&lock_script(UNLOCK_SCRIPT, keys, token)).await
    }
}

fn lock_script(text: &str, keys: &[String], token: u128) -> Cmd {
    let keys = with_prefix(LOCK_PREFIX, keys);
    let mut command = script(text, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    command.arg(token.to_string());
    command
}

fn with_prefix(prefix: &str, keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("{prefix}{key}")).collect()
}
