//! The address of an upstream, the names of its repositories there, and the addresses that a node
//! may connect to for it.
//!
//! A user who configures an upstream, and any upstream that redirects, makes this node connect to
//! an address of their choice from inside the operator's network. So every address is checked after
//! the name was resolved, and the connection goes to the checked address. A name that resolves to
//! another address a moment later (DNS rebinding) has no effect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::uri::{Authority, Scheme};
use http::{Uri, uri};
use rules::proxies::mirror::{DOCKER_HUB, DOCKER_HUB_NAMES};
use rules::words::names::{BadName, ProjectName, RepositoryName};

/// The host of Docker Hub's registry.
const HUB_REGISTRY: &str = "registry-1.docker.io";

/// The address of an upstream: `https://host[:port][/prefix]`, with its API at `/prefix/v2/`.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    hub: bool,
}

/// Why a text is not the address of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It is not a URL.
    #[error("an upstream is written https://host[:port][/path]")]
    Form,
    /// It uses another protocol.
    #[error("an upstream's URL must begin with http:// or https://")]
    Scheme,
    /// It contains a user name or password, which would end up in logs.
    #[error(
        "an upstream's URL must not contain a user name or a password; give the credentials separately"
    )]
    Credentials,
    /// It has a query.
    #[error("an upstream's URL must not have a query")]
    Query,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    /// Parses a URL, or only a host, which means https. All names of Docker Hub mean its registry.
    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let text = text.trim();
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let parts = whole.parse::<Uri>().map_err(|_| BadEndpoint::Form)?.into_parts();
        let scheme = parts.scheme.ok_or(BadEndpoint::Form)?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(BadEndpoint::Scheme);
        }
        let authority = parts.authority.ok_or(BadEndpoint::Form)?;
        if authority.as_str().contains('@') {
            return Err(BadEndpoint::Credentials);
        }
        let path = parts.path_and_query;
        if path.as_ref().is_some_and(|p| p.query().is_some()) {
            return Err(BadEndpoint::Query);
        }
        // such characters are in no repository's name, and some of them are blank, so the path
        // would not parse again
        if path.as_ref().is_some_and(|p| !p.path().is_ascii()) {
            return Err(BadEndpoint::Form);
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || !is_port_readable(&authority) {
            return Err(BadEndpoint::Form);
        }
        let port = authority.port_u16().filter(|port| *port != default_port(&scheme));
        if DOCKER_HUB_NAMES.contains(&host.as_str()) && port.is_none() {
            let authority = Authority::from_static(HUB_REGISTRY);
            return Ok(Endpoint { scheme, authority, prefix: String::new(), hub: true });
        }
        let authority = match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let authority = authority.parse().map_err(|_| BadEndpoint::Form)?;
        let mut prefix = path.as_ref().map_or("", |p| p.path()).trim_end_matches('/');
        while let Some(shorter) = prefix.strip_suffix("/v2") {
            prefix = shorter.trim_end_matches('/');
        }
        Ok(Endpoint { scheme, authority, prefix: prefix.to_owned(), hub: false })
    }
}

impl Endpoint {
    /// Whether it is Docker Hub.
    pub fn is_hub(&self) -> bool {
        self.hub
    }

    /// Whether it uses https.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether `other` is the same server: the same scheme, host and port, with any path.
    pub fn is_at(&self, other: &Endpoint) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }

    /// `host[:port]`; the port is left out if it is the scheme's default.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The registry's name in images (`docker.io`, `host[:port]`), if this is the whole registry:
    /// with a prefix it is only a part.
    pub fn registry(&self) -> Option<String> {
        match (self.hub, self.prefix.as_str()) {
            (true, _) => Some(DOCKER_HUB.to_owned()),
            (false, "") => Some(self.authority.to_string()),
            (false, _) => None,
        }
    }

    /// The name of `repository` at the upstream: names with one part are in `library/` at Docker
    /// Hub. At other upstreams a repository's name may have one part.
    pub fn repository(&self, repository: &str) -> Result<String, BadName> {
        if repository.contains('/') {
            repository.parse::<RepositoryName>()?;
            return Ok(repository.to_owned());
        }
        repository.parse::<ProjectName>()?;
        Ok(if self.hub { format!("library/{repository}") } else { repository.to_owned() })
    }

    /// The URL of `/v2/{path}`; `path` consists of checked names.
    pub(super) fn url(&self, path: &str) -> Result<Uri, http::Error> {
        uri::Builder::new()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}/v2/{path}", self.prefix))
            .build()
    }

    /// Whether `url` is at this server: the same scheme, host and port.
    pub(super) fn serves(&self, url: &Uri) -> bool {
        let port = self.authority.port_u16().unwrap_or(default_port(&self.scheme));
        url.scheme() == Some(&self.scheme)
            && url.host().is_some_and(|host| host.eq_ignore_ascii_case(self.authority.host()))
            && url.port_u16().unwrap_or(default_port(&self.scheme)) == port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The default port of a scheme.
pub(super) fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTP { 80 } else { 443 }
}

/// Whether the port, if there is one, is a valid number: `Uri` accepts `host:99999` and then
/// reports no port.
pub(super) fn is_port_readable(authority: &Authority) -> bool {
    authority.port_u16().is_some() || authority.as_str().ends_with(authority.host())
}

/// The addresses that may be connected to for an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressRule {
    /// Private networks: RFC 1918, carrier-grade NAT, unique-local, link-local.
    pub allow_private: bool,
    /// This machine, for `atoll up` and tests.
    pub allow_loopback: bool,
}

/// The kinds of address that the rule distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    Loopback,
    /// Cloud metadata, multicast, reserved: never allowed, because no registry is there.
    Never,
}

impl AddressRule {
    /// Whether `address`, to which a name was resolved, may be connected to.
    pub fn permits(self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Private => self.allow_private,
            Reach::Loopback => self.allow_loopback,
            Reach::Never => false,
        }
    }
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// By the IANA registry of special-purpose addresses, and the addresses where clouds give out
/// credentials.
fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127, ..] => Reach::Loopback,
        // metadata: link-local (all clouds; AWS ECS at 169.254.170), Alibaba's, Azure's wire
        // server, Oracle's is in 192.0.0
        [169, 254, 169 | 170, _] | [100, 100, 100, 200] | [168, 63, 129, 16] => Reach::Never,
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [198, 18 | 19, ..] => Reach::Private,
        [0, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Reach::Never,
        _ => Reach::Public,
    }
}

/// Only 2000::/3 is the public internet. Addresses that contain an IPv4 address are judged by that.
fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        // mapped; NAT64
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            inner(high, low)
        }
        // 6to4
        [0x2002, high, low, ..] => inner(high, low),
        // AWS's services within an instance, metadata among them
        [0xfd00, 0xec2, ..] => Reach::Never,
        [0xfc00..=0xfdff, ..] | [0xfe80..=0xfeff, ..] => Reach::Private,
        // IETF protocols (Teredo, ORCHID), documentation
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Never,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn every_name_of_docker_hub_means_its_registry_and_its_library() {
        for text in [
            "docker.io",
            "https://docker.io:443",
            "https://index.docker.io/v1/",
            "https://hub.docker.com",
            "https://Docker.IO/",
        ] {
            let hub = endpoint(text);
            assert_eq!(hub.to_string(), "https://registry-1.docker.io");
            assert_eq!(hub.repository("alpine").unwrap(), "library/alpine");
            assert_eq!(hub.repository("grafana/loki").unwrap(), "grafana/loki");
        }
        assert_eq!(endpoint("ghcr.io").repository("alpine").unwrap(), "alpine");
        assert!(!endpoint("docker.io.example").is_hub());
    }

    #[test]
    fn a_url_keeps_its_port_and_prefix_and_may_end_in_v2() {
        let url = |text: &str| endpoint(text).url("a/b/manifests/1").unwrap().to_string();
        assert_eq!(url("http://localhost:5000"), "http://localhost:5000/v2/a/b/manifests/1");
        assert_eq!(url("https://r.example:443/v2/"), "https://r.example/v2/a/b/manifests/1");
        assert_eq!(
            url("https://r.example/artifactory/x"),
            "https://r.example/artifactory/x/v2/a/b/manifests/1"
        );
        assert_eq!(
            url("https://[2001:db8::1]:8443"),
            "https://[2001:db8::1]:8443/v2/a/b/manifests/1"
        );
    }

    #[test]
    fn what_is_no_address_of_a_registry_is_refused_with_the_reason() {
        let problem = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert_eq!(problem(""), BadEndpoint::Form);
        assert_eq!(problem("https://a b"), BadEndpoint::Form);
        assert_eq!(problem("https://:80"), BadEndpoint::Form);
        assert_eq!(problem("https://r.example:99999"), BadEndpoint::Form);
        assert_eq!(problem("ftp://r.example"), BadEndpoint::Scheme);
        assert_eq!(problem("https://me:secret@r.example"), BadEndpoint::Credentials);
        assert_eq!(problem("https://r.example/?x=1"), BadEndpoint::Query);
        assert_eq!(problem("https://r.example/v2\u{2028}/v2"), BadEndpoint::Form);
        for name in ["", "/", "../x", "A", "a//b", "a/../b", "a?b", "a/b#c"] {
            assert!(endpoint("r.example").repository(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_same_server_is_scheme_host_and_port() {
        let r = endpoint("https://R.example");
        for (url, same) in [
            ("https://r.example/x", true),
            ("https://r.EXAMPLE:443/x?y", true),
            ("http://r.example/x", false),
            ("https://r.example:444/", false),
            ("https://r.example.evil/", false),
        ] {
            assert_eq!(r.serves(&url.parse().unwrap()), same, "{url}");
        }
    }

    #[test]
    fn addresses_are_judged_by_where_they_lead() {
        let table = [
            (
                Reach::Public,
                "1.1.1.1 9.255.255.255 172.32.0.1 100.128.0.1 2606:4700::1111 64:ff9b::101:101",
            ),
            (
                Reach::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 169.254.1.1 198.18.0.1",
            ),
            (
                Reach::Private,
                "fc00::1 fd12:3456::1 fe80::1 fec0::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::",
            ),
            (Reach::Loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1"),
            (
                Reach::Never,
                "0.0.0.0 169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192",
            ),
            (
                Reach::Never,
                "224.0.0.1 255.255.255.255 240.0.0.1 203.0.113.1 ::ffff:169.254.169.254",
            ),
            (Reach::Never, ":: fd00:ec2::254 ff02::1 2001:db8::1 2001::1 ::127.0.0.1 4000::1"),
        ];
        for (expected, addresses) in table {
            for address in addresses.split(' ') {
                assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn each_permission_opens_its_own_addresses_alone() {
        let rule = |allow_private, allow_loopback| AddressRule { allow_private, allow_loopback };
        let permits = |rule: AddressRule, address: &str| rule.permits(address.parse().unwrap());
        assert!(permits(rule(true, false), "10.0.0.1") && !permits(rule(true, false), "127.0.0.1"));
        assert!(permits(rule(false, true), "::1") && !permits(rule(false, true), "192.168.0.1"));
        assert!(!permits(rule(true, true), "169.254.169.254"));
        assert!(permits(AddressRule::default(), "8.8.8.8"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_reads_reads_again(text in "(https?://)?[a-z.:0-9]{0,12}(/v2|/|/a|\\PC){0,6}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }

        #[test]
        fn a_v4_address_is_not_laundered_by_writing_it_as_v6(bits in any::<u32>()) {
            let address = Ipv4Addr::from(bits);
            prop_assert_eq!(reach_v6(address.to_ipv6_mapped()), reach_v4(address));
        }
    }
}
