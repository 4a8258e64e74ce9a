//! Rate-limit headers of responses: `RateLimit-Policy` and `RateLimit`, for every limit that counted the request.

use std::cell::RefCell;

use poem::{
    Response,
    http::{HeaderName, HeaderValue},
};

/// Both headers are defined in the IETF's draft-ietf-httpapi-ratelimit-headers.
const POLICY_HEADER: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE_HEADER: HeaderName = HeaderName::from_static("ratelimit");

tokio::task_local! {
    /// The policies and states of the current request, in counting order.
    ///
    /// They are not request data: a handler can only read that, and would have to return what it has counted.
    static RECORDED: RefCell<Vec<(String, String)>>;
}

/// The rate-limit headers of one response.
#[derive(Debug, Default)]
pub(crate) struct LimitHeaders(Vec<(String, String)>);

/// Records the policy and state of a limit for the current request. A refusal replaces those of all limits that granted it.
/// Outside [`with_limit_headers`] this does nothing.
pub(super) fn record(policy: String, state: String, granted: bool) {
    let _ = RECORDED.try_with(|recorded| {
        let mut recorded = recorded.borrow_mut();
        if !granted {
            recorded.clear();
        }
        recorded.push((policy, state));
    });
}

/// Runs a handler. Returns its output and the headers of all limits that counted the request.
pub(crate) async fn with_limit_headers<T>(handler: impl Future<Output = T>) -> (T, LimitHeaders) {
    let recording = async {
        let output = handler.await;
        (output, LimitHeaders(RECORDED.try_with(RefCell::take).unwrap_or_default()))
    };
    RECORDED.scope(RefCell::default(), recording).await
}

impl LimitHeaders {
    /// Adds the headers to a response of any status.
    pub(crate) fn add_to(self, response: &mut Response) {
        let (policies, states): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        for (name, items) in [(POLICY_HEADER, policies), (STATE_HEADER, states)] {
            // Quoted names and digits are always valid header values.
            if let Ok(value) = HeaderValue::from_str(&items.join(", "))
                && !items.is_empty()
            {
                response.headers_mut().insert(name, value);
            }
        }
    }
}
