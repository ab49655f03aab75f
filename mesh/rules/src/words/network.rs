//! Networks of IP addresses, as in `10.0.0.0/8`.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use crate::words::names::{BadName, bad};

/// A network of IP addresses. A single address is a network, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address that is written as an IPv6 one (`::ffff:1.2.3.4`)
    /// counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = (number(self.address), number(address.to_canonical()));
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        let rest = whole - u32::from(self.bits);
        self.address.is_ipv4() == address.to_canonical().is_ipv4()
            && own.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

impl FromStr for Network {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let wrong = bad("a network is an IP address, or an IP address and a number of bits");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong.clone())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(wrong)?,
            None => most,
        };
        Ok(Network { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Whether `address` is in one of the networks that are `trusted`.
pub fn is_trusted(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The client behind a request that came from `peer`, with these values of `X-Forwarded-For`, the
/// first one first. Only proxies that are `trusted` are believed: each adds the address from which
/// it got the request at the end, so the client is the last address that no trusted proxy has.
pub fn client_behind(trusted: &[Network], peer: IpAddr, forwarded: &[&str]) -> IpAddr {
    let mut client = peer.to_canonical();
    let said = forwarded.iter().rev().flat_map(|value| value.rsplit(','));
    for said in said {
        if !is_trusted(trusted, client) {
            break;
        }
        // what is no address was not written by a proxy that is worth its trust
        let Some(before) = address(said.trim()) else { break };
        client = before.to_canonical();
    }
    client
}

/// An address, perhaps with a port, as proxies write them.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<core::net::SocketAddr>().ok().map(|address| address.ip());
    text.trim_matches(['[', ']']).parse().ok().or_else(with_port)
}

/// Whether this names a host, perhaps with a port (RFC 9110 section 7.2), so that it can be a part of a
/// URL and means the same to everybody: no user, no path, no other characters.
pub fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("address", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    port && !host.is_empty() && host.len() <= 255 && host.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let has = |net: &str, address: &str| network(net).contains(address.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.4"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1") && has("::/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "2001:db9::1"));
        assert!(has("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(has("10.0.0.0/31", "10.0.0.1") && !has("10.0.0.0/31", "10.0.0.2"));
        for bad in ["", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!(network("10.0.0.1").to_string(), "10.0.0.1/32");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = [network("10.0.0.0/8"), network("192.168.7.7")];
        let client = |peer: &str, forwarded: &[&str]| {
            client_behind(&trusted, peer.parse().unwrap(), forwarded).to_string()
        };
        assert_eq!(client("10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 1.2.3.4"]),
            "1.2.3.4",
            "the rest is the client's word"
        );
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.0.0.2"]), "1.2.3.4");
        assert_eq!(client("9.9.9.9", &["1.2.3.4"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(
            client_behind(&[], "10.0.0.1".parse().unwrap(), &["1.2.3.4"]).to_string(),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_at_most_a_port() {
        for good in [
            "a",
            "registry.example.com",
            "a:5000",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:443",
            "a:",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a/b",
            "me@a",
            "a b",
            "a\"b",
            "a,b",
            "a:b",
            "a:99999",
            "a:1:2",
            "[::1",
            "[x]",
            "[::1]x",
            "::1",
            "a\\b",
            "a?b",
            "a#b",
            "a%2fb",
            "\u{e9}.example",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
