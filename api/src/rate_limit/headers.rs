//! What answers say of the limits that their requests were counted by: a refused login needs it more than a good one.

use std::cell::RefCell;

use poem::{
    Response,
    http::{HeaderName, HeaderValue},
};

use super::{POLICY_HEADER, STATE_HEADER};

tokio::task_local! {
    /// The policies and states of the request that this task answers, in the order in which they were counted. Not data
    /// of the request: a handler has it to read only, and would have to remember to say what it has counted.
    static TOLD: RefCell<Vec<(String, String)>>;
}

/// The headers about the limits that a request was counted by.
#[derive(Debug, Default)]
pub struct LimitHeaders(Vec<(String, String)>);

/// Remembers what a limit has to say. Outside of [`telling`] nothing hears it.
pub(super) fn tell(policy: String, state: String) {
    let _ = TOLD.try_with(|told| told.borrow_mut().push((policy, state)));
}

/// Runs a handler, and returns its result with the headers of all limits that it has asked.
pub async fn telling<T>(answering: impl Future<Output = T>) -> (T, LimitHeaders) {
    let with_told = async {
        let answer = answering.await;
        (answer, LimitHeaders(TOLD.try_with(RefCell::take).unwrap_or_default()))
    };
    TOLD.scope(RefCell::default(), with_told).await
}

impl LimitHeaders {
    /// Adds it to the answer, whatever its status is. One that says something itself, which a refusal does, stays as it is.
    pub fn add_to(self, response: &mut Response) {
        if self.0.is_empty() || response.headers().contains_key(POLICY_HEADER) {
            return;
        }
        let (policies, states): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        for (name, items) in [(POLICY_HEADER, policies), (STATE_HEADER, states)] {
            insert(response, name, &items.join(", "));
        }
    }
}

fn insert(response: &mut Response, name: HeaderName, text: &str) {
    // A name in quotes and digits are always valid in a header.
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}
