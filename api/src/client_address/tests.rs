//! Tests: which forwarding headers are trusted, and forged headers.

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
