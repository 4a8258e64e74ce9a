//! The Redis connection: short time-outs, and a circuit breaker after a failure.

use std::{sync::Arc, time::Duration};

use redis::{Client, Cmd, FromRedisValue, aio::ConnectionManager, aio::ConnectionManagerConfig};
use url::Url;

use super::breaker::Breaker;
use crate::{
    config::EnvReader,
    error::{Error, causes},
    secret::Secret,
};

/// The time-out of a command. A healthy Redis responds within 1 ms.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long commands are refused after a failure. Then one request at a time probes Redis.
const PAUSE: Duration = Duration::from_secs(1);

/// The URL of Redis. It may contain a password, so it is never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl(Secret<String>);

impl RedisUrl {
    /// Reads `REDIS_URL`. Unset means that no Redis is used.
    pub fn read(vars: &mut EnvReader) -> Option<Self> {
        vars.read("REDIS_URL", None, |text| Self::parse(text).map(Some))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let known = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") => url.has_host(),
            Ok(url) => matches!(url.scheme(), "redis+unix" | "unix"),
            Err(_) => false,
        };
        // The client checks the rest, such as the number of the database.
        if known && Client::open(text).is_ok() {
            return Ok(Self(Secret::new(text)));
        }
        Err("must be a Redis URL, such as redis://:password@localhost:6379/0, or rediss:// for TLS".into())
    }
}

/// Redis is unavailable. The caller continues without it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("Redis: {0}")]
pub struct Broken(pub String);

/// A connection to Redis. Clones share the connection and its circuit breaker.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    breaker: Arc<Breaker>,
    timeout: Duration,
}

impl Redis {
    /// Prepares a connection, which is opened by the first command.
    ///
    /// # Errors
    /// The URL is not a Redis URL.
    pub fn start(url: &RedisUrl) -> Result<Self, Error> {
        Self::with_timeout(url, TIMEOUT)
    }

    /// Like [`Redis::start`], with another time-out than the default of 100 ms.
    ///
    /// # Errors
    /// [`Error::Internal`] when the client rejects the URL.
    pub fn with_timeout(url: &RedisUrl, timeout: Duration) -> Result<Self, Error> {
        // The URL may contain a password, so the message contains only the kind of the error.
        let wrong = |error: redis::RedisError| Error::Internal(format!("REDIS_URL: {:?}", error.kind()));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            // The circuit breaker decides when to try again.
            .set_number_of_retries(1);
        let client = Client::open(url.0.expose()).map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, breaker: Arc::new(Breaker::new(PAUSE)), timeout })
    }

    /// Executes a command, unless the circuit breaker is open.
    ///
    /// # Errors
    /// [`Broken`] when Redis does not respond within the time-out, or when the circuit breaker is open.
    pub async fn execute<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Broken> {
        if !self.breaker.allows() {
            return Err(Broken("circuit breaker open after a failure".into()));
        }
        let mut connection = self.connection.clone();
        // The time-out covers the connection as well: the manager waits for a new connection before its own limits
        // begin.
        let response = tokio::time::timeout(self.timeout, command.query_async::<T>(&mut connection)).await;
        let error = match response {
            Ok(Ok(value)) => {
                self.breaker.record_success();
                return Ok(value);
            }
            Ok(Err(error)) => format!("{:?}: {}", error.kind(), causes(&error)),
            Err(_elapsed) => "no response in time".into(),
        };
        if self.breaker.record_failure() {
            tracing::warn!(error, "Redis does not respond; continuing without it");
        }
        Err(Broken(error))
    }
}

/// A Lua script over these keys. Redis runs it atomically.
pub fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}

/// A duration in milliseconds, as scripts and expiries take it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_urls_are_read_and_never_printed() {
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
