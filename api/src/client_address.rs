//! Which address a request comes from: the peer's, or behind a trusted proxy the one that this proxy names.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jobs::config::EnvReader;
use poem::{
    Request,
    http::{HeaderMap, HeaderName, header},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `TRUSTED_PROXIES`: the networks whose word on their clients is taken. Clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// What [`TrustedProxies::adopt`] leaves with a request.
#[derive(Debug, Clone, Copy)]
struct ClientAddress(IpAddr);

impl TrustedProxies {
    /// Reads `TRUSTED_PROXIES`: networks and addresses, separated by commas.
    pub fn read(vars: &mut EnvReader) -> Self {
        vars.read("TRUSTED_PROXIES", Self::default(), |text| {
            let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
            let networks = text.split(',').map(|text| network(text.trim())).collect::<Option<Arc<[IpNet]>>>();
            networks.map(Self).ok_or_else(|| {
                "must be networks in CIDR notation or addresses, separated by commas, such as \
                 TRUSTED_PROXIES=10.0.0.0/8,192.168.1.7"
                    .into()
            })
        })
    }

    /// Leaves the client's address with a request, where there are proxies.
    pub fn adopt(&self, request: &mut Request) {
        if self.0.is_empty() {
            return;
        }
        if let Some(peer) = peer(request) {
            let client = self.client(peer, request.headers());
            request.set_data(ClientAddress(client));
        }
    }

    /// The nearest address that is not a trusted proxy's. Hops are read from the right, since everything to the left of
    /// what a trusted proxy has added is the client's own word.
    ///
    /// A proxy that writes one of the two headers may pass the other one on as its client sent it. So where both are
    /// there and disagree neither is believed, and the proxy itself is counted.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let resolve = |name: &HeaderName, hops: fn(&str) -> Vec<Option<IpAddr>>| {
            let mut lines = headers.get_all(name).iter().peekable();
            lines.peek()?;
            let hops = lines.flat_map(|line| line.to_str().map_or_else(|_| vec![None], hops));
            Some(self.nearest(peer, &hops.collect::<Vec<_>>()))
        };
        match (resolve(&header::FORWARDED, forwarded), resolve(&X_FORWARDED_FOR, x_forwarded_for)) {
            (Some(one), Some(other)) if one != other => peer,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => peer,
        }
    }

    /// Goes from hop to hop while they are trusted; a hop that cannot be read ends the way.
    fn nearest(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut client = peer;
        for hop in hops.iter().rev() {
            match hop {
                Some(address) if self.trusts(client) => client = *address,
                _ => break,
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address that a request comes from.
pub fn of(request: &Request) -> Option<IpAddr> {
    behind_proxies(request).or_else(|| peer(request))
}

/// The same where there are proxies, for the log; without any the line stays as short as it was.
pub fn behind_proxies(request: &Request) -> Option<IpAddr> {
    request.data::<ClientAddress>().map(|ClientAddress(client)| *client)
}

/// The other end of the connection.
fn peer(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|peer| peer.ip().to_canonical())
}

/// The hops of an `X-Forwarded-For`, from left to right.
fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|hop| node(hop.trim())).collect()
}

/// The `for` of each element of a `Forwarded` (RFC 7239), from left to right.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    split_unquoted(line, ',').into_iter().map(forwarded_for).collect()
}

/// The `for` of one element. All of its pairs must be well-formed: a quote that a client has opened in one of them swallows
/// what the proxy adds after it.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pair = |pair: &str| {
        let (name, value) = pair.trim().split_once('=')?;
        unquoted(value).map(|value| (name.to_ascii_lowercase(), value))
    };
    let pairs = split_unquoted(element, ';').into_iter().filter(|pair| !pair.trim().is_empty());
    let pairs: Vec<_> = pairs.map(pair).collect::<Option<_>>()?;
    pairs.iter().find(|(name, _)| name == "for").and_then(|(_, value)| node(value))
}

/// Splits at a mark that is outside of quotes.
fn split_unquoted(text: &str, mark: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == mark && !quoted => {
                parts.extend(text.get(from..at));
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(text.get(from..));
    parts
}

/// The content of a token or of a quoted string; `None` for what is neither, which a forged opening quote makes of what a
/// proxy adds after it.
fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else { return (!value.contains('"')).then(|| value.to_owned()) };
    let (mut content, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => content.push(characters.next()?),
            c => content.push(c),
        }
    }
    characters.next().is_none().then_some(content)
}

/// An address with or without a port. Names that hide one, such as `unknown` and `_proxy7`, have none.
fn node(text: &str) -> Option<IpAddr> {
    let is_port = |text: &str| text.strip_prefix(':').is_some_and(|port| !port.is_empty());
    let address = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => address.parse().ok().filter(|_| port.is_empty() || is_port(port)).map(IpAddr::V6),
        None => text.parse().ok().or_else(|| text.split_once(':')?.0.parse().ok().map(IpAddr::V4)),
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
