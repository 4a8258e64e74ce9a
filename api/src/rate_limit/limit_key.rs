//! Who is counted: the same bytes for the same caller in every process, and never a key or an address itself.

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

/// What a limit counts by.
pub trait Counted {
    /// Bytes that no other caller of the limit has, in any process and version.
    fn write(&self, to: &mut Vec<u8>);
}

impl Counted for Caller {
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Key(Key::Api) => to.extend(b"key api"),
            Self::Key(Key::Admin) => to.extend(b"key admin"),
            Self::User(user) => to.extend(format!("user {}", user.0).bytes()),
            Self::Subject(subject) => to.extend(format!("subject {subject}").bytes()),
        }
    }
}

impl Counted for str {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.bytes());
    }
}

impl Counted for String {
    fn write(&self, to: &mut Vec<u8>) {
        self.as_str().write(to);
    }
}

impl Counted for Option<IpAddr> {
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

impl<T: Counted + ?Sized> Counted for &T {
    fn write(&self, to: &mut Vec<u8>) {
        (**self).write(to);
    }
}

/// The hash of a caller, which is all that is kept: addresses of people are not for Redis.
pub(super) fn digest(caller: &(impl Counted + ?Sized)) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(64);
    caller.write(&mut bytes);
    Sha256::digest(&bytes).into()
}

/// The key of a bucket in Redis. Half of the hash tells callers apart.
pub(super) fn key(policy: &str, digest: &[u8; 32]) -> String {
    let mut key = format!("millrace:limit:{policy}:");
    for byte in digest.iter().take(16) {
        // Infallible: writing to a String.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// The address that a request is counted by. What the request says of itself counts only where a trusted proxy says it:
/// a caller could say anything.
pub fn address(request: &Request) -> Option<IpAddr> {
    client_address::of(request).map(network)
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

    use jobs::users::UserId;

    use super::*;

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

    #[test]
    fn callers_differ_and_their_keys_stay_the_same_for_ever() {
        let callers = [
            Caller::Key(Key::Api),
            Caller::Key(Key::Admin),
            Caller::User(UserId(7)),
            Caller::User(UserId(70)),
            Caller::Subject("7".into()),
            Caller::Subject("key api".into()),
        ];
        let keys: HashSet<_> = callers.iter().map(|caller| key("prices", &digest(caller))).collect();
        assert_eq!(keys.len(), callers.len());
        let ada = key("login-account", &digest("ada@example.com"));
        assert_eq!(ada, "millrace:limit:login-account:b5fc85e55755f9e0d030a10ab4429b6b");
    }
}
