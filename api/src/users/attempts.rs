//! Rate limits of logins and registrations: per network address and account, per address, and per account.

use std::{net::IpAddr, time::Duration};

use jobs::users::Email;
use poem::Request;

use crate::{
    problem::Problem,
    rate_limit::{Limit, Limits, Policy, client_network},
};

/// Attempts a minute from one address: few for guessing passwords, enough for a household or an office.
const PER_ADDRESS: u32 = 60;
/// Attempts a minute for one account from all addresses together. It limits distributed guessing; people mistype less
/// often.
const PER_ACCOUNT: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// The three rate limits of one operation.
#[derive(Clone)]
pub(super) struct Attempts {
    by_pair: Limit,
    by_address: Limit,
    by_account: Limit,
}

/// A counted attempt, which can be refunded.
pub(super) struct Attempt<'a> {
    limit: &'a Limit,
    address: Option<IpAddr>,
    account: String,
}

impl Attempts {
    /// Limits with these names: by pair, by address, by account. A pair's quota is below an account's, so that one
    /// address cannot use up the account's quota.
    pub(super) fn new(limits: &Limits, [pair, address, account]: [&'static str; 3], per_pair: u32) -> Self {
        let limit = |name, quota| limits.new_limit(Policy { name, quota, window: WINDOW });
        Self {
            by_pair: limit(pair, per_pair),
            by_address: limit(address, PER_ADDRESS),
            by_account: limit(account, PER_ACCOUNT),
        }
    }

    /// Counts an attempt against the pair, then the address, then the account. The order protects the shared quotas: a
    /// pair over its limit consumes neither of them, and an address over its limit does not consume the account's.
    ///
    /// # Errors
    /// 429 if one of the limits is reached.
    pub(super) async fn count(&self, request: &Request, email: &Email) -> Result<Attempt<'_>, Problem> {
        let (address, account) = (client_network(request), email.key());
        self.by_pair.acquire((address, account.as_str())).await?;
        let address_and_account = async {
            self.by_address.acquire(address).await?;
            self.by_account.acquire(account.as_str()).await
        };
        let counted = address_and_account.await;
        let attempt = Attempt { limit: &self.by_pair, address, account };
        if let Err(problem) = counted {
            attempt.refund().await;
            return Err(problem);
        }
        Ok(attempt)
    }
}

impl Attempt<'_> {
    /// Gives the attempt back to the pair's limit. For attempts that were not a failed guess.
    pub(super) async fn refund(self) {
        self.limit.refund((self.address, self.account.as_str())).await;
    }
}
