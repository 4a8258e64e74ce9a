//! How often something may be tried: by one address for one account, by one address, and for one account.

use std::{net::IpAddr, time::Duration};

use jobs::users::Email;
use poem::Request;

use crate::{
    problem::Problem,
    rate_limit::{Limit, LimitKey, Limits, Policy, client_network},
};

/// What a guesser gets from one address, and a household or an office needs.
const PER_ADDRESS: u32 = 60;
/// What a guesser gets from any number of addresses; people do not mistype more often.
const PER_ACCOUNT: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// How often something may be tried.
#[derive(Clone)]
pub struct Attempts {
    by_pair: Limit,
    by_address: Limit,
    by_account: Limit,
}

/// An attempt that was counted.
pub struct Attempt<'a> {
    limit: &'a Limit,
    pair: Pair,
}

/// Whose attempts at which account.
#[derive(Clone)]
struct Pair {
    address: Option<IpAddr>,
    account: String,
}

impl LimitKey for Pair {
    fn write(&self, to: &mut Vec<u8>) {
        self.address.write(to);
        self.account.write(to);
    }
}

impl Attempts {
    /// Limits with these names: by pair, by address, by account. A pair has fewer tokens than an account, so that one
    /// address cannot use up what the account has.
    pub fn new(limits: &Limits, [pair, address, account]: [&'static str; 3], per_pair: u32) -> Self {
        let limit = |name, quota| limits.new_limit(Policy { name, quota, window: WINDOW });
        Self {
            by_pair: limit(pair, per_pair),
            by_address: limit(address, PER_ADDRESS),
            by_account: limit(account, PER_ACCOUNT),
        }
    }

    /// Counts an attempt. By the pair first: an address that is over that limit can use up neither what the account has
    /// left nor what its other users have. By the address next, for the same reason.
    ///
    /// # Errors
    /// 429, when one of the limits is reached.
    pub async fn count(&self, request: &Request, email: &Email) -> Result<Attempt<'_>, Problem> {
        let pair = Pair { address: client_network(request), account: email.key() };
        self.by_pair.acquire(&pair).await?;
        let attempt = Attempt { limit: &self.by_pair, pair };
        let others = async {
            self.by_address.acquire(attempt.pair.address).await?;
            self.by_account.acquire(&attempt.pair.account).await
        };
        match others.await {
            Ok(_) => Ok(attempt),
            Err(refused) => {
                attempt.take_back().await;
                Err(refused)
            }
        }
    }
}

impl Attempt<'_> {
    /// It was no wrong guess: the pair may try as often as before.
    pub async fn take_back(self) {
        self.limit.refund(&self.pair).await;
    }
}
