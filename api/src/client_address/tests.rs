//! Tests: which forwarding headers are trusted, and forged headers.

use hostile::proptest::prelude::*;
use poem::http::HeaderValue;

use super::*;

fn trusted(text: &str) -> TrustedProxies {
    let mut vars = EnvReader::from_pairs(&[("TRUSTED_PROXIES", text)]);
    let proxies = TrustedProxies::read(&mut vars);
    vars.finish(proxies).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The client's address of a request from `peer` with these headers. 10.0.0.0/8 and 2001:db8:1::/48 are trusted.
fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a header"));
    }
    let peer: IpAddr = peer.parse().expect("an address");
    trusted("10.0.0.0/8, 2001:db8:1::/48").client(peer, &map).to_string()
}

#[test]
fn hops_are_read_from_the_right() {
    for (line, expected) in [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("6.6.6.6,203.0.113.7 , 10.0.0.2,10.0.0.3", "203.0.113.7"),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8:9::7", "2001:db8:9::7"),
        ("[2001:db8:9::7]:4711", "2001:db8:9::7"),
        ("2001:db8:9::7, 2001:db8:1::5", "2001:db8:9::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, unknown", "10.0.0.1"),
        ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
        ("", "10.0.0.1"),
        ("6.6.6.6,", "10.0.0.1"),
        ("203.0.113.7é", "10.0.0.1"),
    ] {
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", line)]), expected, "{line}");
    }
    let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "10.0.0.2")];
    assert_eq!(client("10.0.0.1", &lines), "203.0.113.7", "several lines are one list");
}

#[test]
fn parses_forwarded_as_in_rfc_7239() {
    for (line, expected) in [
        ("for=203.0.113.7", "203.0.113.7"),
        ("For=\"203.0.113.7:4711\";proto=https;by=10.0.0.1", "203.0.113.7"),
        ("by=10.0.0.1;; FOR=203.0.113.7;", "203.0.113.7"),
        ("for=\"[2001:db8:9::7]:4711\"", "2001:db8:9::7"),
        ("for=6.6.6.6, for=203.0.113.7;proto=http, for=10.0.0.2", "203.0.113.7"),
        ("for=203.0.113.7;host=\"a,b;for=6.6.6.6\"", "203.0.113.7"),
        ("for=203.0.113.7, for=_hidden", "10.0.0.1"),
        ("for=unknown", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
        ("for=\"203.0.113.\\7\"", "203.0.113.7"),
    ] {
        assert_eq!(client("10.0.0.1", &[("forwarded", line)]), expected, "{line}");
    }
}

#[test]
fn a_forged_header_does_not_set_the_address() {
    for (case, headers) in [
        ("a quote that hides what follows", &[("forwarded", "for=6.6.6.6;x=\", for=203.0.113.7")][..]),
        ("a quote that the proxy's quote closes", &[("forwarded", "for=6.6.6.6;x=\", for=\"[2001:db8:9::7]\"")]),
        ("a quote that is escaped", &[("forwarded", "for=6.6.6.6;x=\"\\, for=\"203.0.113.7\"")]),
        ("an open quote", &[("forwarded", "for=\"6.6.6.6, for=203.0.113.7")]),
        ("two headers that disagree", &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.7")]),
    ] {
        assert_eq!(client("10.0.0.1", headers), "10.0.0.1", "{case}");
    }
    let agreed = [("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "6.6.6.6, 203.0.113.7")];
    assert_eq!(client("10.0.0.1", &agreed), "203.0.113.7");
    assert_eq!(
        client("203.0.113.9", &[("x-forwarded-for", "6.6.6.6")]),
        "203.0.113.9",
        "headers of an untrusted peer are ignored"
    );
}

#[test]
fn reads_networks_and_addresses() {
    assert_eq!(trusted("127.0.0.1"), trusted("127.0.0.1/32"));
    assert!(!TrustedProxies::default().trusts(IpAddr::from([127, 0, 0, 1])), "unset trusts no address");
    for wrong in ["10.0.0.0/33", "proxy.example.com", "10.0.0.0/8,", "10.0.0", "*"] {
        let mut vars = EnvReader::from_pairs(&[("TRUSTED_PROXIES", wrong)]);
        TrustedProxies::read(&mut vars);
        let problem = vars.finish(()).expect_err(wrong).to_string();
        assert!(problem.starts_with("TRUSTED_PROXIES: must be networks"), "{wrong}: {problem}");
    }
}

const CORPUS: &str = include_str!("../../../tests/corpora/forwarded.txt");
const GRAMMAR: &str = "(for=)?\"?(\\[[0-9a-f:]{0,12}\\]|[0-9]{1,3}(\\.[0-9]{1,3}){3})(:[0-9a-z_]{0,6})?\"?([,;] ?(for|by)=[0-9.\"\\\\]{0,9}){0,2}";

/// A client writes what it likes before the entry that its proxy appends. It cannot choose its address by that.
#[test]
fn hostile_headers_do_not_hide_what_the_proxy_appends() -> Result<(), hostile::Failure> {
    hostile::check_text(CORPUS, GRAMMAR, |forged| {
        let own = ["203.0.113.7", "10.0.0.1"];
        for (name, line) in [
            ("x-forwarded-for", format!("{forged}, 203.0.113.7")),
            ("forwarded", format!("{forged}, for=203.0.113.7")),
            ("forwarded", format!("{forged}, for=\"203.0.113.7:4711\";proto=https")),
        ] {
            if HeaderValue::from_str(&line).is_err() {
                continue;
            }
            let found = client("10.0.0.1", &[(name, &line)]);
            prop_assert!(own.contains(&&*found), "{}: {}", line, found);
            // A line that is not ASCII is not read at all.
            let must_be_read = name == "x-forwarded-for" && line.is_ascii();
            prop_assert!(!must_be_read || found == own[0], "{}: {}", line, found);
        }
        Ok(())
    })
}

#[test]
fn hostile_hops_are_addresses_with_a_port_or_refused() -> Result<(), hostile::Failure> {
    hostile::check_text(
        CORPUS,
        "(\\[[0-9a-f:]{1,12}\\]|[0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-f:]{1,12})(:[0-9a-z_]{0,6})?",
        |hop| {
            let Some(address) = parse_node(hop) else { return Ok(()) };
            // `node-port` of RFC 7239: digits, or a name that begins with an underscore.
            let is_port = |port: &str| match port.strip_prefix('_') {
                Some(name) => {
                    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
                }
                None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
            };
            let plain: Option<IpAddr> = hop.parse().ok();
            let with_port = || {
                let (host, _) = hop.rsplit_once(':').filter(|(_, port)| is_port(port))?;
                let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                v6.map_or_else(|| host.parse().ok().map(IpAddr::V4), |host| host.parse().ok().map(IpAddr::V6))
            };
            let bracketed = || Some(IpAddr::V6(hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?));
            prop_assert_eq!(
                plain.or_else(bracketed).or_else(with_port).map(|found| found.to_canonical()),
                Some(address)
            );
            Ok(())
        },
    )
}
