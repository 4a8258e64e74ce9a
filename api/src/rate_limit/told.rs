//! What successful answers say of the limits that their requests were counted by.

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

/// Remembers what a limit has to say. Outside of [`telling`] nobody hears it.
pub(super) fn tell(policy: String, state: String) {
    let _ = TOLD.try_with(|told| told.borrow_mut().push((policy, state)));
}

/// Lets the answer say what all limits that were asked for it have to say; one that says something itself, which a
/// refusal does, stays as it is.
///
/// # Errors
/// Those of `answering`.
pub async fn telling<E>(answering: impl Future<Output = Result<Response, E>>) -> Result<Response, E> {
    let with_told = async {
        let mut response = answering.await?;
        let told = TOLD.try_with(RefCell::take).unwrap_or_default();
        if !told.is_empty() && !response.headers().contains_key(POLICY_HEADER) {
            let (policies, states): (Vec<_>, Vec<_>) = told.into_iter().unzip();
            for (name, items) in [(POLICY_HEADER, policies), (STATE_HEADER, states)] {
                insert(&mut response, name, &items.join(", "));
            }
        }
        Ok(response)
    };
    TOLD.scope(RefCell::default(), with_told).await
}

fn insert(response: &mut Response, name: HeaderName, text: &str) {
    // A name in quotes and digits are always valid in a header.
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}
