//! Keys of rate limits: equal in every process for the same caller, and hashed, so that Redis stores no key or address.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv6Addr},
};

use poem::Request;
use sha2::{Digest, Sha256};

use crate::{
    auth::{Caller, Key},
    client_address,
};

/// The key of a token bucket, such as a caller or an address.
pub trait LimitKey {
    /// Writes bytes that are unique in the limit and equal in all processes and versions.
    fn write(&self, to: &mut Vec<u8>);
}

impl LimitKey for Caller {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Key(Key::Api) => to.extend(b"key api"),
            Self::Key(Key::Admin) => to.extend(b"key admin"),
            Self::Key(Key::Viewer) => to.extend(b"key viewer"),
            Self::User(user) => to.extend(format!("user {}", user.0).bytes()),
            Self::Subject(subject) => to.extend(format!("subject {subject}").bytes()),
        }
    }
}

impl LimitKey for str {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.bytes());
    }
}

impl<A: LimitKey, B: LimitKey> LimitKey for (A, B) {
    fn write(&self, to: &mut Vec<u8>) {
        self.0.write(to);
        self.1.write(to);
    }
}

impl LimitKey for Option<IpAddr> {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(
            self.map_or(Ipv6Addr::UNSPECIFIED, |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            })
            .octets(),
        );
    }
}

impl<T: LimitKey + ?Sized> LimitKey for &T {
    fn write(&self, to: &mut Vec<u8>) {
        (**self).write(to);
    }
}

/// The hash of a key. Only the hash is stored, because addresses are personal data.
pub(super) fn digest(key: &(impl LimitKey + ?Sized)) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(64);
    key.write(&mut bytes);
    Sha256::digest(&bytes).into()
}

/// The name of a bucket in Redis. It contains half of the hash, which is enough to be unique.
pub(super) fn redis_key(policy: &str, digest: &[u8; 32]) -> String {
    let mut key = format!("millrace:limit:{policy}:");
    for byte in digest.iter().take(16) {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// The client's network, which limits use as a key. Forwarding headers are read only from trusted proxies: any other
/// client could forge them.
pub(crate) fn client_network(request: &Request) -> Option<IpAddr> {
    client_address::of(request).map(network_of)
}

/// The IPv4 address, or the /64 network of an IPv6 address: one customer usually has all its addresses.
fn network_of(address: IpAddr) -> IpAddr {
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

    use jobs::users::UserId;

    use super::*;

    #[test]
    fn an_ipv6_network_is_one_key() {
        for (address, network) in [
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(address.parse().map(network_of), network.parse(), "{address}");
        }
        let forwarded = Request::builder().header("x-forwarded-for", "1.1.1.1").finish();
        assert_eq!(client_network(&forwarded), None, "only the peer counts, and this request has none");
    }

    #[test]
    fn callers_have_distinct_and_stable_keys() {
        let callers = [
            Caller::Key(Key::Api),
            Caller::Key(Key::Admin),
            Caller::User(UserId(7)),
            Caller::User(UserId(70)),
            Caller::Subject("7".into()),
            Caller::Subject("key api".into()),
        ];
        let keys: HashSet<_> = callers.iter().map(|caller| redis_key("prices", &digest(caller))).collect();
        assert_eq!(keys.len(), callers.len());
        let ada = redis_key("login-account", &digest("ada@example.com"));
        assert_eq!(ada, "millrace:limit:login-account:b5fc85e55755f9e0d030a10ab4429b6b");
    }
}
