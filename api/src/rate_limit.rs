//! How often one caller may do something: a token bucket for each, in a table that never grows.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use poem::{
    Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
};

use crate::problem::Problem;

/// Of the IETF's draft-ietf-httpapi-ratelimit-headers.
const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE_HEADER: HeaderName = HeaderName::from_static("ratelimit");
/// Buckets of one limit: half a mebibyte. Two callers with one bucket share its tokens. Which ones these are changes
/// with every start, so nobody can aim at another's bucket; with a thousand callers at once, it happens to 1.5 % of them.
const BUCKETS: usize = 1 << 16;

/// So many at once, and from then on evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What the headers call it.
    pub name: &'static str,
    /// How many in a window.
    pub quota: u32,
    /// How long it takes until an empty bucket is full again.
    pub window: Duration,
}

/// A limit on each of any number of callers. Clones share it.
///
/// A bucket is one number: the time at which it will be full again. So a caller who has been away for a window is the
/// same as one who never came, and nothing needs to be cleaned up.
#[derive(Clone)]
pub struct Limit {
    policy: Policy,
    buckets: Arc<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

/// The bucket is empty for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty(Duration);

impl Limit {
    /// A limit, with nothing used up.
    pub fn new(policy: Policy) -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { policy, buckets, hasher: RandomState::new(), start: Instant::now() }
    }

    /// Takes one token of this caller's.
    ///
    /// # Errors
    /// 429, when none is left.
    pub fn take(&self, caller: impl Hash) -> Result<(), Problem> {
        self.take_at(caller, self.start.elapsed()).map_err(|empty| self.refused(empty))
    }

    fn take_at(&self, caller: impl Hash, now: Duration) -> Result<(), Empty> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (now, window) = (nanos(now), nanos(self.policy.window));
        let token = window / u64::from(self.policy.quota.max(1));
        let at = self.hasher.hash_one(caller) as usize % BUCKETS;
        // The index is within the table by its remainder.
        let Some(bucket) = self.buckets.get(at) else { return Ok(()) };
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(token);
            (full_at <= now.saturating_add(window)).then_some(full_at)
        });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let again_at = full_at.saturating_add(token).saturating_sub(window);
                Err(Empty(Duration::from_nanos(again_at.saturating_sub(now))))
            }
        }
    }

    fn refused(&self, Empty(rest): Empty) -> Problem {
        let Policy { name, quota, window } = self.policy;
        let seconds = (rest.as_secs() + u64::from(rest.subsec_nanos() > 0)).max(1);
        let policy = format!("\"{name}\";q={quota};w={}", window.as_secs());
        let state = format!("\"{name}\";r=0;t={seconds}");
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.")
            .header(header::RETRY_AFTER, HeaderValue::from(seconds));
        for (header, text) in [(POLICY_HEADER, policy), (STATE_HEADER, state)] {
            // A name in quotes and digits are always valid in a header.
            if let Ok(value) = HeaderValue::from_str(&text) {
                problem = problem.header(header, value);
            }
        }
        problem
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({:?})", self.policy)
    }
}

/// Where a request comes from: the other end of the connection, whatever the request says of itself, since whoever is
/// limited could say anything.
pub fn address(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|peer| network(peer.ip()))
}

/// An address of IPv4; of IPv6 the network, of which one customer has all the addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use poem::error::ResponseError;

    use super::*;

    fn limit() -> Limit {
        Limit::new(Policy { name: "login", quota: 6, window: Duration::from_secs(60) })
    }

    #[test]
    fn a_quota_at_once_and_then_evenly() {
        let limit = limit();
        let take = |millis: u64| limit.take_at("ada", Duration::from_millis(millis));
        for now in [0, 0, 1, 2, 3, 3] {
            assert_eq!(take(now), Ok(()));
        }
        assert_eq!(take(4), Err(Empty(Duration::from_millis(9_996))));
        assert_eq!(take(9_999), Err(Empty(Duration::from_millis(1))));
        assert_eq!(take(10_000), Ok(()));
        assert!(take(10_001).is_err(), "what is refused costs nothing, and what is granted costs one");
        assert_eq!((0..10).filter(|_| take(600_000).is_ok()).count(), 6, "never more than a quota");
    }

    #[test]
    fn callers_have_buckets_of_their_own() {
        let limit = limit();
        let now = Duration::from_secs(1);
        while limit.take_at("ada", now).is_ok() {}
        let others = (0..100).filter(|other| limit.take_at(other, now).is_ok()).count();
        assert!(others >= 98, "{others} of 100");
        let places: HashSet<_> = (0..10).map(|_| Limit::new(limit.policy).hasher.hash_one("ada")).collect();
        assert!(places.len() > 1, "where a bucket is must not be known");
    }

    #[test]
    fn many_at_once_get_no_more_than_a_quota() {
        let limit = limit();
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| limit.take_at("ada", Duration::ZERO).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 6);
    }

    #[test]
    fn says_when_to_come_back() {
        let limit = limit();
        while limit.take("ada").is_ok() {}
        let problem = limit.take("ada").expect_err("empty");
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        let response = problem.as_response();
        assert_eq!(response.header("retry-after"), Some("10"));
        assert_eq!(response.header("ratelimit-policy"), Some("\"login\";q=6;w=60"));
        assert_eq!(response.header("ratelimit"), Some("\"login\";r=0;t=10"));
    }

    #[test]
    fn a_customer_has_one_address() {
        for (address, counted) in [
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(address.parse().map(network), counted.parse(), "{address}");
        }
        let forwarded = Request::builder().header("x-forwarded-for", "1.1.1.1").finish();
        assert_eq!(address(&forwarded), None, "the peer's, which this one has not");
    }
}
