//! What the feature can be told.

use std::fmt;

use url::Url;

use crate::config::Vars;

/// How items are kept at hand.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `REDIS_URL`: the cache that all processes share; unset means one in each process.
    pub redis: Option<RedisUrl>,
}

/// Where Redis is; it may hold a password, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The text, for the client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(…)")
    }
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut Vars) -> Self {
        Self { redis: vars.read("REDIS_URL", None, |text| redis_url(text).map(Some)) }
    }
}

fn redis_url(text: &str) -> Result<RedisUrl, String> {
    let known = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "redis" | "rediss") => url.has_host(),
        Ok(url) => matches!(url.scheme(), "redis+unix" | "unix"),
        Err(_) => false,
    };
    // The client judges the rest, such as the number of the database.
    if known && redis::Client::open(text).is_ok() {
        return Ok(RedisUrl(text.to_owned()));
    }
    Err("must be a Redis URL, such as redis://:password@localhost:6379/0, or rediss:// for TLS".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_of_redis_and_prints_none() {
        for right in
            ["redis://localhost", "redis://:secret@h:6379/1", "rediss://u:secret@h/0", "unix:///run/redis.sock"]
        {
            let url = redis_url(right).unwrap_or_else(|error| panic!("{right}: {error}"));
            assert!(!format!("{url:?}").contains("secret"));
        }
        for wrong in ["localhost:6379", "http://secret@localhost", "redis://", "redis://:secret@h/x", "secret"] {
            let error = redis_url(wrong).expect_err(wrong);
            assert!(error.contains("redis://") && !error.contains("secret"), "{error}");
        }
    }
}
