//! The client's IP address: that of the peer, or the address that a trusted proxy reports.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use poem::{
    Request,
    http::{HeaderMap, HeaderName, header},
};
use runtime::config::EnvReader;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `TRUSTED_PROXIES`: the networks of proxies whose forwarding headers are trusted. Clones share the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// The client's address, stored in a request by [`TrustedProxies::set_client_address`].
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

    /// Stores the client's address in a request, if trusted proxies are configured.
    pub fn set_client_address(&self, request: &mut Request) {
        if self.0.is_empty() {
            return;
        }
        if let Some(peer) = peer_address(request) {
            let client = self.client(peer, request.headers());
            request.set_data(ClientAddress(client));
        }
    }

    /// The nearest address that is not a trusted proxy. Hops are read from the right: a trusted proxy appends its entry, and
    /// the client controls everything to the left of it.
    ///
    /// A proxy that writes one of the two headers may forward the client's version of the other one. If the headers
    /// disagree, both are ignored and the proxy's own address is used.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let resolve = |name: &HeaderName, hops: fn(&str) -> Vec<Option<IpAddr>>| {
            let mut lines = headers.get_all(name).iter().peekable();
            lines.peek()?;
            let hops = lines.flat_map(|line| line.to_str().map_or_else(|_| vec![None], hops));
            Some(self.nearest_untrusted(peer, &hops.collect::<Vec<_>>()))
        };
        match (resolve(&header::FORWARDED, parse_forwarded), resolve(&X_FORWARDED_FOR, parse_x_forwarded_for)) {
            (Some(one), Some(other)) if one != other => peer,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => peer,
        }
    }

    /// Follows the hops while they are trusted; stops at a hop that cannot be parsed.
    fn nearest_untrusted(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
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

/// The client's address of a request.
pub(crate) fn of(request: &Request) -> Option<IpAddr> {
    forwarded_address(request).or_else(|| peer_address(request))
}

/// The client's address for the log. `None` without trusted proxies, which keeps the log line short.
pub(crate) fn forwarded_address(request: &Request) -> Option<IpAddr> {
    request.data::<ClientAddress>().map(|ClientAddress(client)| *client)
}

/// The address of the connection's peer.
fn peer_address(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|peer| peer.ip().to_canonical())
}

/// The hops of an `X-Forwarded-For` header, from left to right.
fn parse_x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(|hop| parse_node(hop.trim())).collect()
}

/// The `for` values of a `Forwarded` header (RFC 7239), from left to right.
fn parse_forwarded(line: &str) -> Vec<Option<IpAddr>> {
    split_unquoted(line, ',').into_iter().map(parse_element).collect()
}

/// The `for` value of one element. All pairs must be well-formed: a quote that a client opens in one pair would otherwise
/// hide what the proxy adds after it.
fn parse_element(element: &str) -> Option<IpAddr> {
    let pair = |pair: &str| {
        let (name, value) = pair.trim().split_once('=').filter(|(name, _)| is_token(name))?;
        unquote(value).map(|value| (name.to_ascii_lowercase(), value))
    };
    let pairs = split_unquoted(element, ';').into_iter().filter(|pair| !pair.trim().is_empty());
    let pairs: Vec<_> = pairs.map(pair).collect::<Option<_>>()?;
    pairs.iter().find(|(name, _)| name == "for").and_then(|(_, value)| parse_node(value))
}

/// Whether a name is a token (RFC 9110 §5.6.2).
fn is_token(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// Splits at a separator outside quotes.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                parts.extend(text.get(start..at));
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// The content of a token or quoted string, else `None`. A forged opening quote makes the proxy's entry neither of them.
fn unquote(value: &str) -> Option<String> {
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

/// Parses an address with or without a port. Obfuscated names such as `unknown` and `_proxy7` contain no address.
fn parse_node(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let has_valid_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            address.parse().ok().filter(|_| has_valid_port).map(IpAddr::V6)
        }
        None => text.parse().ok().or_else(|| {
            let (address, port) = text.split_once(':')?;
            address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
        }),
    };
    address.map(|address| address.to_canonical())
}

/// `node-port` of RFC 7239: digits, or an obfuscated name, which begins with an underscore.
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests;
