//! Redis, shared by whatever keeps something in it: waited for briefly, and left alone for a while after a failure.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Client, Cmd, FromRedisValue, aio::ConnectionManager, aio::ConnectionManagerConfig};
use url::Url;

use super::breaker::Breaker;
use crate::{config::EnvReader, error::Error};

/// A healthy Redis answers within a millisecond; a request does not wait longer than this for one that is not.
const PATIENCE: Duration = Duration::from_millis(100);
/// After a failure Redis is left alone for this long, and then asked by one request at a time.
const PAUSE: Duration = Duration::from_secs(1);

/// Where Redis is; it may hold a password, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Reads `REDIS_URL`: the Redis that all processes share; unset means none.
    pub fn read(vars: &mut EnvReader) -> Option<Self> {
        vars.read("REDIS_URL", None, |text| Self::parse(text).map(Some))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") => url.has_host(),
            Ok(url) => matches!(url.scheme(), "redis+unix" | "unix"),
            Err(_) => false,
        };
        // The client judges the rest, such as the number of the database.
        if known && Client::open(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err("must be a Redis URL, such as redis://:password@localhost:6379/0, or rediss:// for TLS".into())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(…)")
    }
}

/// Redis cannot be asked now. Its caller does without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("Redis: {0}")]
pub struct Broken(pub String);

/// One connection to Redis. Clones share it, and what is known of its health.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    breaker: Arc<Breaker>,
    patience: Duration,
}

impl Redis {
    /// Prepares a connection, which is made when it is first needed.
    ///
    /// # Errors
    /// When the URL is none of Redis'.
    pub fn start(url: &RedisUrl) -> Result<Self, Error> {
        Self::patient(url, PATIENCE)
    }

    /// As [`Redis::start`], but an answer is waited for this long.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn patient(url: &RedisUrl, patience: Duration) -> Result<Self, Error> {
        // The URL may hold a password: the error says nothing but its kind.
        let wrong = |error: redis::RedisError| Error::Internal(format!("REDIS_URL: {:?}", error.kind()));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience))
            // The breaker decides when to try again.
            .set_number_of_retries(1);
        let client = Client::open(url.0.as_str()).map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, breaker: Arc::new(Breaker::new(PAUSE)), patience })
    }

    /// Sends a command, unless the last one failed a moment ago.
    ///
    /// # Errors
    /// [`Broken`] when there is no answer in time, which is a tenth of a second, or none was waited for.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Broken> {
        if !self.breaker.allows() {
            return Err(Broken("left alone after a failure".into()));
        }
        let mut connection = self.connection.clone();
        // Around all of it: the manager waits for a connection that is being made before its own limits begin.
        let answer = tokio::time::timeout(self.patience, command.query_async::<T>(&mut connection)).await;
        let error = match answer {
            Ok(Ok(answer)) => {
                self.breaker.answered();
                return Ok(answer);
            }
            Ok(Err(error)) => format!("{:?}: {error}", error.kind()),
            Err(_elapsed) => "no answer".into(),
        };
        if self.breaker.failed() {
            tracing::warn!(error, "Redis does not answer; we do without it");
        }
        Err(Broken(error))
    }
}

/// A script in Redis, which runs as a whole or not at all, on these keys.
pub fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}

/// For the times that scripts and expiries take.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_of_redis_and_prints_none() {
        for right in
            ["redis://localhost", "redis://:secret@h:6379/1", "rediss://u:secret@h/0", "unix:///run/redis.sock"]
        {
            let url = RedisUrl::parse(right).unwrap_or_else(|error| panic!("{right}: {error}"));
            assert!(!format!("{url:?}").contains("secret"));
        }
        for wrong in ["localhost:6379", "http://secret@localhost", "redis://", "redis://:secret@h/x", "secret"] {
            let error = RedisUrl::parse(wrong).expect_err(wrong);
            assert!(error.contains("redis://") && !error.contains("secret"), "{error}");
        }
    }
}
