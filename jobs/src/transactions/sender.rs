//! The sender of a webhook.

use std::{fmt, net::IpAddr, sync::Arc};

use queue::FairKey;

/// The sender of a webhook: quotas and the fair share of the queue distinguish them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Signed by the secret of this sender.
    Named(Arc<str>),
    /// Signed by a secret without a name. All such secrets belong to one sender.
    Signed,
    /// Not signed: the network of the client.
    Unsigned(Option<IpAddr>),
}

impl Sender {
    /// The name that is recorded with the transaction.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Named(name) => Some(name),
            Self::Signed | Self::Unsigned(_) => None,
        }
    }

    /// What the queue shares its slots by.
    pub(super) fn fair_key(&self) -> FairKey {
        FairKey::of(&self.to_string())
    }
}

/// A text that differs for each sender.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "sender {name}"),
            Self::Signed => f.write_str("signed"),
            Self::Unsigned(Some(network)) => write!(f, "network {network}"),
            Self::Unsigned(None) => f.write_str("network unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_sender_has_its_own_key() {
        let address = |text: &str| Sender::Unsigned(text.parse().ok());
        let senders = [
            Sender::Named("acme".into()),
            Sender::Named("signed".into()),
            Sender::Signed,
            address("10.0.0.1"),
            address("10.0.0.2"),
            address("unknown"),
        ];
        let keys: std::collections::HashSet<_> = senders.iter().map(Sender::fair_key).collect();
        assert_eq!(keys.len(), senders.len());
    }
}
