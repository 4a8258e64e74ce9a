//! The sender of a webhook: who signed it, and how much it may send.

use std::sync::Arc;

use jobs::transactions::{
    Sender,
    signature::{self, SignatureHeaders},
    webhook_secret::WebhookSecret,
};
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};
use runtime::error::Error;
use time::OffsetDateTime;

use crate::{
    context::Context,
    problem::Problem,
    rate_limit::{Limit, LimitKey, Limits, client_network},
};

/// The scheme in `WWW-Authenticate`, which every 401 must have (RFC 9110 §15.5.2). Standard Webhooks names none.
const SCHEME: &str = "Signature";

/// Identifies senders and counts what they send. Clones share the counts.
#[derive(Clone)]
pub(super) struct Senders {
    secrets: Arc<[WebhookSecret]>,
    /// `WEBHOOK_QUOTA`
    quota: Option<Quota>,
}

/// What each sender may send.
#[derive(Clone)]
struct Quota {
    webhooks: Limit,
    /// What is given back of it. Without this limit, an overloaded process would not limit a sender at all: refused webhooks
    /// have appointments, which would be taken from other senders.
    refunds: Limit,
}

impl Quota {
    fn of(limits: &Limits) -> Option<Self> {
        let (webhooks, refunds) = limits.webhooks.clone().zip(limits.webhook_refunds.clone())?;
        Some(Self { webhooks, refunds })
    }
}

impl LimitKey for Sender {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Named(name) => ("sender ", &**name).write(to),
            Self::Signed => "signed".write(to),
            Self::Unsigned(network) => ("network ", *network).write(to),
        }
    }
}

impl Senders {
    pub(super) fn new(Context { config, limits, .. }: &Context<'_>) -> Self {
        Self { secrets: config.webhook.secrets.clone().into(), quota: Quota::of(limits) }
    }

    /// Checks the signature of a body, if one is required, and returns who sent it.
    ///
    /// # Errors
    /// 401 if the signature is missing or wrong.
    pub(super) fn identify(&self, request: &Request, body: &[u8]) -> Result<Sender, Problem> {
        Ok(match check_signature(&self.secrets, request, body)? {
            Some(WebhookSecret { sender: Some(name), .. }) => Sender::Named(name.clone()),
            Some(_) => Sender::Signed,
            None => Sender::Unsigned(client_network(request)),
        })
    }

    /// Counts `webhooks` of a sender, all or none.
    ///
    /// # Errors
    /// 429 if the sender has too little left of its quota, or if its whole quota is smaller.
    pub(super) async fn check_quota(&self, sender: &Sender, webhooks: u32) -> Result<(), Problem> {
        let Some(quota) = &self.quota else { return Ok(()) };
        let size = quota.webhooks.size();
        quota.webhooks.acquire_many(sender, webhooks).await.map_err(|problem| {
            if webhooks <= size {
                return problem;
            }
            // The usual sentence asks for a later try, which would be refused as well.
            problem.detail(format!(
                "The batch has {webhooks} rows and the quota allows at most {size} at once, so it must be split."
            ))
        })
    }

    /// Returns the result of recording webhooks that [`Self::check_quota`] has counted. If they were refused for the moment
    /// (503), the sender will send them again, so they do not count: up to one quota of them in a window.
    pub(super) async fn refund_refused<T>(
        &self,
        sender: &Sender,
        webhooks: u32,
        recorded: Result<T, Error>,
    ) -> Result<T, Error> {
        let is_refused = matches!(recorded, Err(Error::Overloaded(_) | Error::Unavailable(_)));
        if is_refused
            && let Some(quota) = &self.quota
            && quota.refunds.try_acquire_many(sender, webhooks).await
        {
            quota.webhooks.refund_many(sender, webhooks).await;
        }
        recorded
    }
}

/// Checks the signature over the raw bytes, before they are parsed as JSON. Returns the secret that signed them; `None` if
/// signatures are not required.
fn check_signature<'s>(
    secrets: &'s [WebhookSecret],
    request: &Request,
    body: &[u8],
) -> Result<Option<&'s WebhookSecret>, Problem> {
    if secrets.is_empty() {
        return Ok(None);
    }
    let unauthorized = |why: String| {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, why);
        problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(SCHEME))
    };
    // An empty header counts as missing, as in the libraries of Standard Webhooks.
    let lines = |name: &'static str| {
        let lines: Vec<_> = request.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let is_missing = lines.iter().all(|line| line.trim_ascii().is_empty());
        if is_missing { Err(unauthorized(format!("{name} is missing"))) } else { Ok(lines) }
    };
    // Of two ids or timestamps it is unknown which one is signed. Several signatures are allowed.
    let only = |name: &'static str| match lines(name)?[..] {
        [line] => Ok(line),
        _ => Err(unauthorized(format!("{name} must be given once"))),
    };
    let (id, timestamp) = (only("webhook-id")?, only("webhook-timestamp")?);
    let signatures = lines("webhook-signature")?.join(&b' ');
    let signed = SignatureHeaders { id, timestamp, signature: &signatures };
    let keys = secrets.iter().map(|secret| secret.secret.expose());
    let signer = signature::verify(signed, body, keys, OffsetDateTime::now_utc());
    Ok(secrets.get(signer.map_err(|error| unauthorized(error.to_string()))?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::secret::Secret;

    use super::*;
    use crate::rate_limit::Policy;

    #[tokio::test]
    async fn refused_webhooks_are_given_back_up_to_one_quota() {
        let policy = Policy { name: "webhooks", quota: 3, window: Duration::from_secs(3600) };
        let limits = Limits::new(None, policy, Some(policy));
        let senders = Senders { secrets: Arc::from([]), quota: Quota::of(&limits) };
        let send = async |name: &str, webhooks: u32, result: Result<(), Error>| {
            let sender = Sender::Named(name.into());
            let counted = senders.check_quota(&sender, webhooks).await;
            if counted.is_ok() {
                assert_eq!(senders.refund_refused(&sender, webhooks, result.clone()).await.is_ok(), result.is_ok());
            }
            counted.is_ok()
        };
        let refused = || Err(Error::Overloaded(Duration::from_secs(1)));
        for (name, result) in [("done", Ok(())), ("internal", Err(Error::Internal("a fault".into())))] {
            assert!(send(name, 3, result.clone()).await, "{name}");
            assert!(!send(name, 1, result).await, "{name} counts");
        }
        assert!(send("acme", 2, refused()).await && send("acme", 1, Err(Error::Unavailable("away".into()))).await);
        assert!(send("acme", 3, refused()).await, "all three were given back, and no further ones are");
        assert!(!send("acme", 1, refused()).await, "an overload does not lift the quota");
        assert!(send("beta", 2, refused()).await && send("beta", 2, refused()).await);
        assert!(!send("beta", 2, Ok(())).await, "a batch is given back as a whole or not at all");
        assert!(send("beta", 1, Ok(())).await);
    }

    #[test]
    fn a_secret_requires_signatures() {
        let secrets = [WebhookSecret { sender: None, secret: Secret::new([7; 24]) }];
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let signed = |timestamp: i64, signature: &str| {
            let request =
                Request::builder().header("webhook-id", "m").header("webhook-timestamp", timestamp.to_string());
            request.header("webhook-signature", signature).finish()
        };
        assert!(matches!(check_signature(&[], &Request::default(), b"{}"), Ok(None)));
        for (request, why) in [
            (Request::default(), "webhook-id is missing"),
            (signed(now, "v1,AAAA"), "webhook-signature does not match"),
            (signed(now - 3600, "v1,AAAA"), "webhook-timestamp is more than 5 minutes from now"),
        ] {
            let problem = check_signature(&secrets, &request, b"{}").expect_err(why);
            assert_eq!(problem.to_string(), format!("401 Unauthorized: {why}"));
            assert_eq!(problem.to_response(None).header("www-authenticate"), Some("Signature"), "{why}");
        }
    }
}
