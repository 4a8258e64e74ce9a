//! Public addresses: which IP addresses belong to the internet, by IANA's registries of special purposes (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are no receiver's: each with the length of its prefix.
const SPECIAL_V4: [([u8; 4], u32); 17] = [
    // This host on this network; Linux connects 0.0.0.0 to itself.
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    // Shared by providers and their customers (CGNAT).
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    // The host of a virtual machine in Azure, with its metadata. The address is a public one, and the same everywhere.
    ([168, 63, 129, 16], 32),
    // Link-local, with the metadata services of clouds.
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    // IETF protocol assignments.
    ([192, 0, 0, 0], 24),
    // Documentation, as are 198.51.100.0/24 and 203.0.113.0/24.
    ([192, 0, 2, 0], 24),
    // The former relays of 6to4.
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    // Benchmarks.
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast.
    ([224, 0, 0, 0], 4),
    // Reserved.
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Networks within 2000::/3, the global unicast addresses of IPv6, that are no receiver's.
const SPECIAL_V6: [([u16; 2], u32); 4] = [
    // IETF protocol assignments, with Teredo (2001::/32), benchmarks and ORCHID: an address may contain an IPv4 address.
    ([0x2001, 0], 23),
    // Documentation, as is 3fff::/20.
    ([0x2001, 0xdb8], 32),
    // 6to4: the address contains an IPv4 address.
    ([0x2002, 0], 16),
    ([0x3fff, 0], 20),
];

/// NAT64 (RFC 6052): the last 32 bits are the IPv4 address that the gateway connects to.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether an address is reachable from everywhere, so that its owner is the receiver and not a part of our network.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !SPECIAL_V4.iter().any(|(network, length)| is_within(bits, u32::from(Ipv4Addr::from(*network)), *length))
}

/// Only 2000::/3 is public. That excludes loopback, addresses of IPv4 in their mapped and compatible forms, unique local,
/// link-local, site-local and multicast addresses, and what has no purpose yet.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, .., seventh, eighth] = address.segments();
    if address.segments()[..6] == NAT64 {
        return is_public_v4(Ipv4Addr::from(join(seventh, eighth)));
    }
    let bits = join(first, second);
    let is_special = SPECIAL_V6.iter().any(|([high, low], length)| is_within(bits, join(*high, *low), *length));
    first >> 13 == 0b001 && !is_special
}

/// Whether the first `length` bits are those of a network; a length of 1 to 32.
fn is_within(bits: u32, network: u32, length: u32) -> bool {
    (bits ^ network) >> (32 - length) == 0
}

fn join(high: u16, low: u16) -> u32 {
    (u32::from(high) << 16) | u32::from(low)
}

/// Whether a host name means this machine, so that no lookup is needed to refuse it (RFC 6761, section 6.3).
pub(super) fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: bool, addresses: &[&str]) {
        for text in addresses {
            assert_eq!(is_public(text.parse().expect("an address")), expected, "{text}");
        }
    }

    #[test]
    fn special_addresses_of_ipv4_are_refused_up_to_their_ends() {
        check(
            false,
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.0",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.255",
                "168.63.129.16",
                "169.254.0.0",
                "169.254.169.254",
                "169.254.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.0.0.0",
                "192.0.0.255",
                "192.0.2.1",
                "192.88.99.1",
                "192.168.0.0",
                "192.168.255.255",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.7",
                "203.0.113.7",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.254",
                "255.255.255.255",
            ],
        );
        check(
            true,
            &[
                "1.0.0.0",
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "168.63.129.17",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.0.3.0",
                "192.88.98.255",
                "192.88.100.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "198.51.101.0",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
            ],
        );
    }

    #[test]
    fn special_addresses_of_ipv6_are_refused_with_those_that_contain_ipv4() {
        check(
            false,
            &[
                "::",
                "::1",
                // IPv4-compatible, IPv4-mapped and IPv4-translated.
                "::7f00:1",
                "::8.8.8.8",
                "::ffff:127.0.0.1",
                "::ffff:8.8.8.8",
                "::ffff:0:8.8.8.8",
                // NAT64 is judged by the IPv4 address; the prefixes for local use are refused.
                "64:ff9b::127.0.0.1",
                "64:ff9b::10.0.0.1",
                "64:ff9b::a9fe:a9fe",
                "64:ff9b::168.63.129.16",
                "64:ff9b:1::8.8.8.8",
                "64:ff9c::8.8.8.8",
                "100::1",
                "1fff:ffff::1",
                // Teredo, benchmarks, ORCHID, documentation, 6to4.
                "2001::1",
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:1ff:ffff::1",
                "2001:db8::1",
                "2001:db8:ffff::1",
                "2002:7f00:1::",
                "2002:808:808::1",
                "3fff::1",
                "3fff:fff:ffff::1",
                "4000::1",
                "5f00::1",
                "fc00::1",
                "fd00:ec2::254",
                "fdff:ffff::1",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "ff00::1",
                "ff02::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
        );
        check(
            true,
            &[
                "64:ff9b::8.8.8.8",
                "2000::1",
                "2001:200::1",
                "2001:4860:4860::8888",
                "2001:db7:ffff::1",
                "2001:db9::1",
                "2003::1",
                "2606:4700:4700::1111",
                "2a00:1450:4001::1",
                "3ffe::1",
                "3fff:1000::1",
            ],
        );
    }

    #[test]
    fn names_of_this_machine_are_known_in_every_spelling() {
        for name in ["localhost", "LOCALHOST", "localhost.", "localhost..", "a.localhost", "A.b.LocalHost."] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["localhost.example.com", "notlocalhost", "localhosts", "example.com", ""] {
            assert!(!is_local_name(name), "{name}");
        }
    }
}
