//! Rate limits: one token bucket per caller or address. With Redis, all processes share the buckets.

mod headers;
mod limit_key;
mod policy;
mod token_buckets;

use std::time::Duration;

use poem::http::{HeaderValue, StatusCode, header};
use runtime::clients::{
    bucket::{self, Taken},
    redis::Redis,
};

use self::token_buckets::TokenBuckets;
pub(crate) use self::{
    headers::{LimitHeaders, with_limit_headers},
    limit_key::{LimitKey, client_network},
    policy::Policy,
};
use crate::problem::{Problem, whole_seconds};

/// The limits of the API. Clones share them.
#[derive(Clone)]
pub struct Limits {
    /// `RATE_LIMIT`: the limit of the price routes, per credential.
    pub prices: Limit,
    /// `WEBHOOK_QUOTA`: the limit of the webhook routes, per sender; `None` without a limit.
    pub webhooks: Option<Limit>,
    /// The webhooks that are given back to [`Self::webhooks`], per sender: as many as it grants.
    pub webhook_refunds: Option<Limit>,
    /// The limit of the admin routes, per credential.
    pub admin: Limit,
    /// The limit of the operators' routes, per credential.
    pub operators: Limit,
    redis: Option<Redis>,
}

impl Limits {
    /// Limits that all processes with this Redis share. Without Redis, each process has its own limits.
    pub fn new(redis: Option<Redis>, prices: Policy, webhooks: Option<Policy>) -> Self {
        let limit = |policy| Limit { redis: redis.clone(), ..Limit::new(policy) };
        Self {
            prices: limit(prices),
            webhooks: webhooks.map(limit),
            webhook_refunds: webhooks.map(|policy| limit(Policy { name: "webhook-refunds", ..policy })),
            admin: limit(Policy::ADMIN),
            operators: limit(Policy::OPERATORS),
            redis,
        }
    }

    /// Creates another limit. Its policy needs a unique name.
    pub fn new_limit(&self, policy: Policy) -> Limit {
        Limit { redis: self.redis.clone(), ..Limit::new(policy) }
    }
}

/// A rate limit with a token bucket for each key, such as a caller or an address. Clones share it.
///
/// While Redis is unreachable, each process continues with its own count, which includes the tokens that Redis granted to
/// it. So limits apply at all times, at most one quota per process, and no request fails because of Redis.
#[derive(Clone)]
pub struct Limit {
    policy: Policy,
    buckets: TokenBuckets,
    redis: Option<Redis>,
}

impl Limit {
    /// A limit of this process alone, with full buckets.
    pub fn new(policy: Policy) -> Self {
        Self { policy, buckets: TokenBuckets::new(policy.size()), redis: None }
    }

    /// The tokens of a full bucket.
    pub fn size(&self) -> u32 {
        self.policy.quota
    }

    /// Takes one token from the bucket of this key. The response reports the remaining tokens, with any status.
    ///
    /// # Errors
    /// 429 when the bucket is empty.
    pub async fn acquire(&self, key: impl LimitKey) -> Result<(), Problem> {
        self.acquire_many(key, 1).await
    }

    /// Takes this number of tokens, or none. More than [`Self::size`] are never granted.
    ///
    /// # Errors
    /// 429 when the bucket has fewer. `Retry-After` is the time until it has as many, or until it is full.
    pub async fn acquire_many(&self, key: impl LimitKey, tokens: u32) -> Result<(), Problem> {
        let taken = self.acquire_for_digest(limit_key::digest(&key), tokens).await;
        let Policy { name, quota, window } = self.policy;
        let policy = format!("\"{name}\";q={quota};w={}", window.as_secs());
        let state = format!("\"{name}\";r={};t={}", taken.left, whole_seconds(self.one_more_in(&taken)));
        headers::record(policy, state, taken.granted);
        if taken.granted {
            return Ok(());
        }
        let seconds = whole_seconds(if tokens > self.size() { taken.full_in } else { taken.next_in });
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.");
        Err(problem.header(header::RETRY_AFTER, HeaderValue::from(seconds)))
    }

    /// The time until the bucket has one token more than now; zero if it is full.
    fn one_more_in(&self, taken: &Taken) -> Duration {
        let Policy { quota, window, .. } = self.policy;
        let others_missing = quota.saturating_sub(taken.left.saturating_add(1));
        taken.full_in.saturating_sub(window / quota.max(1) * others_missing)
    }

    /// Takes this number of tokens, or none, and returns whether it did. The response reports nothing about that.
    pub async fn try_acquire_many(&self, key: impl LimitKey, tokens: u32) -> bool {
        self.acquire_for_digest(limit_key::digest(&key), tokens).await.granted
    }

    /// Returns a token that was acquired with this key.
    pub async fn refund(&self, key: impl LimitKey) {
        self.refund_many(key, 1).await;
    }

    /// Returns this number of tokens that were acquired with this key. A bucket never has more than its quota.
    pub async fn refund_many(&self, key: impl LimitKey, tokens: u32) {
        let digest = limit_key::digest(&key);
        self.buckets.refund(digest, tokens);
        if let Some(redis) = &self.redis {
            let key = limit_key::redis_key(self.policy.name, &digest);
            // If Redis fails here, the bucket still refills with time.
            let _ = bucket::return_tokens(redis, &key, self.policy.size(), tokens).await;
        }
    }

    async fn acquire_for_digest(&self, digest: [u8; 32], tokens: u32) -> Taken {
        let Some(redis) = &self.redis else { return self.buckets.acquire(digest, tokens) };
        let key = limit_key::redis_key(self.policy.name, &digest);
        match bucket::take_tokens(redis, &key, self.policy.size(), tokens).await {
            Ok(taken) => {
                if taken.granted {
                    // Counted here too, for the time when Redis is unreachable.
                    self.buckets.acquire(digest, tokens);
                }
                taken
            }
            Err(_unreachable) => self.buckets.acquire(digest, tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use poem::{Response, error::ResponseError};

    use super::*;

    /// The clock of these tests stands still, so that no token refills on a machine that stalls.
    fn limit() -> Limit {
        Limit::new(Policy { name: "login", quota: 6, window: Duration::from_secs(60) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_has_retry_after() {
        let limit = limit();
        while limit.acquire("ada").await.is_ok() {}
        let (problem, limits) = with_limit_headers(limit.acquire("ada")).await;
        let problem = problem.expect_err("empty");
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        let mut response = problem.as_response();
        limits.add_to(&mut response);
        assert_eq!(response.header("retry-after"), Some("10"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"login\";q=6;w=60"));
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=0;t=10"));
    }

    #[tokio::test(start_paused = true)]
    async fn more_tokens_than_the_quota_are_refused_until_the_bucket_is_full() {
        let limit = limit();
        let refusal = async || {
            let (problem, limits) = with_limit_headers(limit.acquire_many("ada", 7)).await;
            let mut response = problem.expect_err("more than the quota").as_response();
            limits.add_to(&mut response);
            let header = |name: &str| response.header(name).unwrap_or_default().to_owned();
            (response.status().as_u16(), header("retry-after"), header("ratelimit"))
        };
        assert_eq!(refusal().await, (429, "1".into(), "\"login\";r=6;t=1".into()), "full: waiting does not help");
        limit.acquire_many("ada", 2).await.expect("two tokens");
        assert_eq!(refusal().await, (429, "20".into(), "\"login\";r=4;t=10".into()), "a fifth token comes after 10 s");
        limit.acquire_many("ada", 4).await.expect("a refusal costs no token");
        assert_eq!(refusal().await, (429, "60".into(), "\"login\";r=0;t=10".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refunded_token_can_be_acquired_again() {
        let limit = limit();
        for _ in 0..100 {
            limit.acquire("ada").await.expect("a token");
            limit.refund("ada").await;
        }
        limit.refund("bob").await;
        let acquire_all = async |caller: &str| {
            let mut acquired = 0;
            while limit.acquire(caller).await.is_ok() {
                acquired += 1;
            }
            acquired
        };
        assert_eq!((acquire_all("ada").await, acquire_all("bob").await), (6, 6), "at most one quota");
        limit.refund_many("ada", 4).await;
        assert_eq!(acquire_all("ada").await, 4);
        limit.refund_many("ada", 100).await;
        assert_eq!(acquire_all("ada").await, 6, "no more than the quota");
    }

    #[tokio::test(start_paused = true)]
    async fn every_response_reports_the_remaining_tokens() {
        let limit = limit();
        let response_after = async |acquisitions: usize| {
            let limit = limit.clone();
            let (result, limits) = with_limit_headers(async move {
                for _ in 0..acquisitions {
                    limit.acquire("ada").await?;
                }
                Ok::<_, Problem>(Response::default())
            })
            .await;
            let mut response = result.unwrap_or_else(|problem| problem.as_response());
            limits.add_to(&mut response);
            response
        };
        let response = response_after(1).await;
        assert_eq!(response.header("ratelimit-policy"), Some("\"login\";q=6;w=60"));
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=5;t=10"));
        let response = response_after(2).await;
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=4;t=10, \"login\";r=3;t=10"));
        let response = response_after(0).await;
        assert!(response.header("ratelimit").is_none(), "no limit counted the request");
        tokio::time::advance(Duration::from_secs(4)).await;
        let response = response_after(1).await;
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=2;t=6"), "a part of the next token is there");
        let refused = response_after(3).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("ratelimit"), Some("\"login\";r=0;t=6"), "a refusal reports only its own limit");
    }
}
