//! Name resolution for callbacks: returns public addresses only, so that the checked address is the one that is connected to.
//!
//! A lookup occupies a thread until the system gives it up, also after the call that needed it has timed out. So there is one
//! lookup of a name at a time, and its result is used for a while.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{net::lookup_host, time::Instant};
use url::{Host, Url};

use super::public_address::{is_local_name, is_public};
use runtime::{clients::single_flight::SingleFlight, mutex::lock};

/// How long addresses are used. A receiver that moves is found again within this time.
const FRESH: Duration = Duration::from_secs(10);

/// Why a host is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RefusedHost {
    #[error("{0} is this machine; set CALLBACK_ALLOW_PRIVATE=true to allow it")]
    LocalName(String),
    #[error("{0} is not a public address; set CALLBACK_ALLOW_PRIVATE=true to allow it")]
    NotPublic(IpAddr),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("{0} cannot be resolved: {1}")]
    NotResolved(String, String),
}

/// Checks a host as far as it is known without a lookup. The parser of URLs has already turned every spelling of an IPv4
/// address, such as `2130706433`, `0177.0.0.1` or `0x7f.1`, into the address.
///
/// # Errors
/// When the host is an address that is not public, or a name of this machine.
pub(super) fn check_host(url: &Url) -> Result<(), RefusedHost> {
    match url.host() {
        Some(Host::Ipv4(address)) => check_address(address.into()),
        Some(Host::Ipv6(address)) => check_address(address.into()),
        Some(Host::Domain(name)) if is_local_name(name) => Err(RefusedHost::LocalName(name.to_owned())),
        Some(Host::Domain(_)) => Ok(()),
        None => Err(RefusedHost::NoAddress("the URL".into())),
    }
}

fn check_address(address: IpAddr) -> Result<(), RefusedHost> {
    if is_public(address) { Ok(()) } else { Err(RefusedHost::NotPublic(address)) }
}

/// Checks the addresses of a name. A name with one address that is not public is refused as a whole: the client tries them one
/// after the other.
fn check_addresses(name: &str, addresses: &[SocketAddr]) -> Result<(), RefusedHost> {
    if addresses.is_empty() {
        return Err(RefusedHost::NoAddress(name.to_owned()));
    }
    addresses.iter().try_for_each(|address| check_address(address.ip()))
}

/// The addresses of a name.
type Addresses = Arc<[SocketAddr]>;

/// Resolves the names of receivers. Clones share the results.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    /// Whether addresses may be those that are not public.
    allow_private: bool,
    lookups: SingleFlight<String, Result<Addresses, RefusedHost>>,
    /// The results, and when they were found. There are as many names as the configuration has.
    found: Mutex<HashMap<String, (Instant, Addresses)>>,
}

impl Resolver {
    /// Creates a resolver without results.
    pub(super) fn new(allow_private: bool) -> Self {
        Self(Arc::new(Shared { allow_private, lookups: SingleFlight::default(), found: Mutex::default() }))
    }

    fn found(&self) -> MutexGuard<'_, HashMap<String, (Instant, Addresses)>> {
        lock(&self.0.found)
    }

    /// The result of a lookup, while it is fresh.
    fn known(&self, name: &str) -> Option<Addresses> {
        self.found().get(name).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, addresses)| addresses.clone())
    }

    /// The addresses of a name, without a lookup if they are known. Failures are not kept.
    ///
    /// # Errors
    /// When the name has no address, or one that is not allowed.
    async fn addresses(&self, name: String) -> Result<Addresses, RefusedHost> {
        if !self.0.allow_private && is_local_name(&name) {
            return Err(RefusedHost::LocalName(name));
        }
        if let Some(known) = self.known(&name) {
            return Ok(known);
        }
        let lookup = {
            let (resolver, name) = (self.clone(), name.clone());
            move || async move { resolver.look_up(name).await }
        };
        let found = self.0.lookups.join(name.clone(), lookup).await;
        found.unwrap_or_else(|| Err(RefusedHost::NotResolved(name, "the lookup panicked".into())))
    }

    async fn look_up(&self, name: String) -> Result<Addresses, RefusedHost> {
        // The client replaces the port by that of the URL.
        let found = lookup_host((name.as_str(), 0)).await;
        let found = found.map_err(|error| RefusedHost::NotResolved(name.clone(), error.to_string()))?;
        let addresses: Addresses = found.collect();
        if addresses.is_empty() || !self.0.allow_private {
            check_addresses(&name, &addresses)?;
        }
        self.found().insert(name, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, name) = (self.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let addresses = resolver.addresses(name).await?;
            Ok(Box::new(Vec::from(&*addresses).into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
        let found = Resolver::new(false).resolve(name.parse().expect("a name")).await;
        found.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn names_of_this_machine_are_refused_without_a_lookup() {
        for name in ["localhost", "localhost.", "receiver.LOCALHOST"] {
            let error = resolve(name).await.expect_err(name);
            assert!(error.starts_with(name) && error.contains("is this machine"), "{error}");
        }
    }

    /// A text that is an address is resolved without a name server.
    #[tokio::test]
    async fn addresses_are_checked_after_the_lookup() {
        assert_eq!(resolve("8.8.8.8").await, Ok(vec![SocketAddr::from(([8, 8, 8, 8], 0))]));
        for name in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00:ec2::254"] {
            let error = resolve(name).await.expect_err(name);
            assert!(error.starts_with(&format!("{name} is not a public address")), "{error}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_found_where_they_are_allowed() {
        let local = Resolver::new(true).addresses("localhost".into()).await.expect("this machine");
        assert!(!local.is_empty() && local.iter().all(|address| address.ip().is_loopback()), "{local:?}");
    }

    #[tokio::test]
    async fn addresses_are_used_for_a_while_and_failures_are_not() {
        let (resolver, at) = (Resolver::new(false), |last: u8| SocketAddr::from(([8, 8, 8, last], 0)));
        assert!(resolver.addresses("10.1.2.3".into()).await.is_err());
        assert!(resolver.found().is_empty());
        let name = "8.8.8.8";
        assert_eq!(resolver.addresses(name.into()).await.as_deref(), Ok(&[at(8)][..]));
        let set_found = |when: Instant| resolver.found().insert(name.into(), (when, Arc::from([at(9)])));
        set_found(Instant::now());
        assert_eq!(resolver.addresses(name.into()).await.as_deref(), Ok(&[at(9)][..]));
        set_found(Instant::now().checked_sub(FRESH).expect("a machine that runs for longer"));
        assert_eq!(resolver.addresses(name.into()).await.as_deref(), Ok(&[at(8)][..]), "it is looked up again");
    }

    #[test]
    fn one_private_address_refuses_the_whole_name() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 0)).collect()
        };
        let check = |texts: &[&str]| check_addresses("r.example", &addresses(texts));
        assert_eq!(check(&["8.8.8.8", "2606:4700:4700::1111"]), Ok(()));
        let refused = Err(RefusedHost::NotPublic(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(check(&["8.8.8.8", "10.0.0.1"]), refused);
        assert_eq!(check(&["10.0.0.1", "8.8.8.8"]), refused);
        assert_eq!(check(&[]), Err(RefusedHost::NoAddress("r.example".into())));
    }

    #[test]
    fn literal_hosts_are_checked_in_every_spelling() {
        for host in
            ["127.0.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
        {
            let url = Url::parse(&format!("http://{host}:8000/hook")).expect("a URL");
            assert!(matches!(check_host(&url), Err(RefusedHost::NotPublic(_))), "{host}");
        }
        let url = |host: &str| Url::parse(&format!("https://{host}/")).expect("a URL");
        assert!(matches!(check_host(&url("localhost.")), Err(RefusedHost::LocalName(_))));
        for host in ["8.8.8.8", "[2606:4700:4700::1111]", "receiver.example.com"] {
            assert_eq!(check_host(&url(host)), Ok(()), "{host}");
        }
    }
}
