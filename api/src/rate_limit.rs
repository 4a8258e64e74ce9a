//! How often one caller may do something: a token bucket for each, shared through Redis by all processes where there is one.

mod caller;
mod policy;
mod table;
mod told;

use std::{fmt, time::Duration};

use jobs::remote::{
    bucket::{self, Taken},
    redis::Redis,
};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};

use self::table::Table;
pub use self::{
    caller::{Counted, address},
    policy::Policy,
    told::{LimitHeaders, telling},
};
use crate::problem::Problem;

/// Of the IETF's draft-ietf-httpapi-ratelimit-headers.
const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE_HEADER: HeaderName = HeaderName::from_static("ratelimit");

/// The limits of one system. Clones share them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of the price routes, each credential for itself: `RATE_LIMIT`.
    pub prices: Limit,
    /// Of the admin routes, each credential for itself.
    pub admin: Limit,
    redis: Option<SharedRedis>,
}

impl Limits {
    /// Limits that all processes with this Redis share; without one, each process has its own.
    pub fn new(redis: Option<Redis>, prices: Policy) -> Self {
        let redis = redis.map(SharedRedis);
        let limit = |policy| Limit { redis: redis.clone(), ..Limit::new(policy) };
        Self { prices: limit(prices), admin: limit(Policy::ADMIN), redis }
    }

    /// A further limit; the name of its policy is its own.
    pub fn limit(&self, policy: Policy) -> Limit {
        Limit { redis: self.redis.clone(), ..Limit::new(policy) }
    }
}

/// A limit on each of any number of callers. Clones share it.
///
/// While Redis does not answer, each process counts for itself, and begins with what it has granted before: callers are
/// limited all the time, to at most a quota for each process, and no request fails for that.
#[derive(Clone)]
pub struct Limit {
    policy: Policy,
    table: Table,
    redis: Option<SharedRedis>,
}

#[derive(Clone)]
struct SharedRedis(Redis);

/// What is left of a caller's tokens, once one has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// How many.
    pub left: u32,
}

impl Limit {
    /// A limit of this process alone, with nothing used up.
    pub fn new(policy: Policy) -> Self {
        Self { policy, table: Table::new(policy.size()), redis: None }
    }

    /// Takes one token of this caller's. The answer to the request says what is left, whatever its status is.
    ///
    /// # Errors
    /// 429, when none is left.
    pub async fn take(&self, caller: impl Counted) -> Result<Allowed, Problem> {
        let taken = self.ask(caller::digest(&caller)).await;
        let seconds = if taken.left == 0 { taken.next_in } else { taken.full_in };
        let seconds = whole_seconds(seconds);
        let Policy { name, quota, window } = self.policy;
        let policy = format!("\"{name}\";q={quota};w={}", window.as_secs());
        let state = format!("\"{name}\";r={};t={seconds}", taken.left);
        if taken.granted {
            told::tell(policy, state);
            return Ok(Allowed { left: taken.left });
        }
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.")
            .header(header::RETRY_AFTER, HeaderValue::from(seconds));
        for (header, text) in [(POLICY_HEADER, policy), (STATE_HEADER, state)] {
            // A name in quotes and digits are always valid in a header.
            if let Ok(value) = HeaderValue::from_str(&text) {
                problem = problem.header(header, value);
            }
        }
        Err(problem)
    }

    /// Gives a token back that this caller has taken.
    pub async fn give_back(&self, caller: impl Counted) {
        let caller = caller::digest(&caller);
        self.table.give_back(caller);
        if let Some(SharedRedis(redis)) = &self.redis {
            // Without an answer the token comes back with time.
            let _ = bucket::return_token(redis, &caller::key(self.policy.name, &caller), self.policy.size()).await;
        }
    }

    async fn ask(&self, caller: [u8; 32]) -> Taken {
        let Some(SharedRedis(redis)) = &self.redis else { return self.table.take(caller) };
        match bucket::take_token(redis, &caller::key(self.policy.name, &caller), self.policy.size()).await {
            Ok(taken) => {
                if taken.granted {
                    // For the time when Redis is gone.
                    self.table.take(caller);
                }
                taken
            }
            Err(_broken) => self.table.take(caller),
        }
    }
}

/// Rounded up: whoever comes back then finds a token.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({:?})", self.policy)
    }
}

impl fmt::Debug for SharedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(…)")
    }
}

#[cfg(test)]
mod tests {
    use poem::{Response, error::ResponseError};

    use super::*;

    fn limit() -> Limit {
        Limit::new(Policy { name: "login", quota: 6, window: Duration::from_secs(60) })
    }

    #[tokio::test]
    async fn says_when_to_come_back() {
        let limit = limit();
        while limit.take("ada").await.is_ok() {}
        let problem = limit.take("ada").await.expect_err("empty");
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        let response = problem.as_response();
        assert_eq!(response.header("retry-after"), Some("10"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"login\";q=6;w=60"));
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=0;t=10"));
    }

    #[tokio::test]
    async fn a_token_that_is_given_back_can_be_taken_again() {
        let limit = limit();
        for _ in 0..100 {
            limit.take("ada").await.expect("a token");
            limit.give_back("ada").await;
        }
        limit.give_back("bob").await;
        let taken = async |caller: &str| {
            let mut taken = 0;
            while limit.take(caller).await.is_ok() {
                taken += 1;
            }
            taken
        };
        assert_eq!((taken("ada").await, taken("bob").await), (6, 6), "never more than a quota");
    }

    #[tokio::test]
    async fn every_answer_says_what_is_left() {
        let limit = limit();
        let response_to = async |asked: usize| {
            let limit = limit.clone();
            let (answer, limits) = telling(async move {
                for _ in 0..asked {
                    limit.take("ada").await?;
                }
                Ok::<_, Problem>(Response::default())
            })
            .await;
            let mut response = answer.unwrap_or_else(|problem| problem.as_response());
            limits.add_to(&mut response);
            response
        };
        let response = response_to(1).await;
        assert_eq!(response.header("ratelimit-policy"), Some("\"login\";q=6;w=60"));
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=5;t=10"));
        let response = response_to(2).await;
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=4;t=20, \"login\";r=3;t=30"));
        let response = response_to(0).await;
        assert!(response.header("ratelimit").is_none(), "nothing was counted");
        let refused = response_to(4).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("ratelimit"), Some("\"login\";r=0;t=10"), "a refusal speaks of its own limit");
    }
}
