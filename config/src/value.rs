//! The values that an operator writes, from text and back: durations, sizes, addresses, names,
//! URLs, log levels.
//!
//! Each parser accepts one spelling. For anything else it says what is wrong and what to write.
//! Units are required, because `30` means seconds to one reader and milliseconds to another.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use rules::people::configurations::is_issuer;
use rules::words::names::{BadName, ProjectName, RepositoryName, Tag};
use rules::words::network::Network;

/// Why a text is not a valid value: the problem and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Fault {
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `700ms`, `2s`, `5m`, `1h`: a whole number and one unit.
pub(crate) fn duration(text: &str, example: Duration) -> Result<Duration, Fault> {
    match amount(text, &DURATION_UNITS) {
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => {
            let remedy = format!(
                "write e.g. {} (a whole number and ms, s, m or h)",
                written_duration(example)
            );
            Err(Fault::new(format!("'{text}' is not a duration"), remedy))
        }
    }
}

/// `512KiB`, `4MiB`: a whole number and one binary unit.
pub(crate) fn size(text: &str, example: u64) -> Result<u64, Fault> {
    amount(text, &SIZE_UNITS).ok_or_else(|| {
        let remedy =
            format!("write e.g. {} (a whole number and B, KiB, MiB or GiB)", written_size(example));
        Fault::new(format!("'{text}' is not a size"), remedy)
    })
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest spelling that [`duration`] reads back. Fractions of a millisecond are dropped.
pub(crate) fn written_duration(duration: Duration) -> String {
    written_amount(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS, "0s")
}

/// The shortest spelling that [`size`] reads back.
pub(crate) fn written_size(bytes: u64) -> String {
    written_amount(bytes, &SIZE_UNITS, "0B")
}

fn written_amount(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    let largest = units.iter().rev().find(|(_, factor)| amount.is_multiple_of(*factor));
    largest.map_or_else(|| zero.to_owned(), |(unit, factor)| format!("{}{unit}", amount / factor))
}

/// `10.0.0.11:7946`, `[2001:db8::11]:7946`: an IP address and a port, never a host name.
pub(crate) fn address(text: &str, example: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let remedy = format!("write an IP address and a port, e.g. {example}");
        Fault::new(format!("'{text}' is not an address"), remedy)
    })
}

/// A whole number without sign, separator or unit.
pub(crate) fn count(text: &str, example: u64) -> Result<u64, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        Fault::new(
            format!("'{text}' is not a whole number"),
            format!("write digits only, e.g. {example}"),
        )
    })
}

/// The name of a node or a region: 1 to 63 of `a-z`, `0-9` and `-`, with no hyphen at either end.
/// It is a DNS label, because names become part of host names and certificates.
pub(crate) fn name(text: &str, example: &str) -> Result<String, Fault> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=63).contains(&text.len())
        || !text.bytes().all(allowed)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err(Fault::new(
            format!("'{text}' is not a name"),
            format!("use 1 to 63 of a-z, 0-9 and -, with no - at either end, e.g. {example}"),
        ));
    }
    Ok(text.to_owned())
}

/// `https://registry.example.com`: a scheme, a host and an optional port, with nothing after them.
pub(crate) fn origin(text: &str) -> Result<String, Fault> {
    const EXAMPLE: &str = "https://registry.example.com";
    let fault =
        |problem: &str, remedy: String| Err(Fault::new(format!("'{text}' {problem}"), remedy));
    let Some(authority) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))
    else {
        return fault("does not start with http:// or https://", format!("write e.g. {EXAMPLE}"));
    };
    if let Some(end) = authority.find(['/', '?', '#']) {
        let kept = &text[..text.len() - authority.len() + end];
        return fault(
            "has a path, and clients only ever use /v2/ at the root",
            format!("write {kept}"),
        );
    }
    if !is_authority(authority) {
        return fault(
            "has no valid host and port",
            format!("write e.g. {EXAMPLE} or http://10.0.0.11:5000"),
        );
    }
    Ok(text.to_owned())
}

/// `docker.io`, `registry.example.com:5000`: a registry as written in names of images, in lower
/// case.
pub(crate) fn registry(text: &str) -> Result<String, Fault> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) || !is_authority(text) {
        let remedy = "write a host and perhaps a port in lower case, e.g. docker.io or registry.example.com:5000";
        return Err(Fault::new(format!("'{text}' is not a registry's name"), remedy));
    }
    Ok(text.to_owned())
}

/// A repository of this mesh and a tag.
pub(crate) fn image(text: &str) -> Result<(RepositoryName, Tag), Fault> {
    let remedy = "write a repository of this mesh and a tag, e.g. library/trivy-db:2";
    let wrong = |why: String| Fault::new(format!("'{text}' is not an image: {why}"), remedy);
    let (name, tag) = text.rsplit_once(':').ok_or_else(|| wrong("it has no tag".into()))?;
    Ok((
        name.parse().map_err(|e: BadName| wrong(e.to_string()))?,
        tag.parse().map_err(|e: BadName| wrong(e.to_string()))?,
    ))
}

/// Registries, separated by commas.
pub(crate) fn registries(text: &str) -> Result<Vec<String>, Fault> {
    text.split(',').map(|one| registry(one.trim())).collect()
}

/// What ends the names of nodes in their certificates of the mesh. A certificate for clients must
/// not have such a name.
const NAMES_OF_NODES: &str = ".mesh.atoll";

/// DNS names and IP addresses, separated by commas, that a certificate is for.
pub(crate) fn hosts(text: &str) -> Result<Vec<String>, Fault> {
    let one = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) if text.ends_with(NAMES_OF_NODES) => Err(Fault::new(
            format!("'{text}' is a name that only nodes have among themselves"),
            "write the name by which clients know this node, e.g. registry.example.com",
        )),
        Err(_) => domain(text),
    };
    text.split(',').map(|text| one(text.trim())).collect()
}

/// Networks, separated by commas.
pub(crate) fn networks(text: &str) -> Result<Vec<Network>, Fault> {
    let one = |text: &str| {
        text.parse().map_err(|_| {
            let problem = format!("'{text}' is neither an IP address nor a network");
            Fault::new(problem, "write e.g. 10.0.0.0/8, 192.168.1.5")
        })
    };
    text.split(',').map(|text| one(text.trim())).collect()
}

/// The word for no issuer at all.
pub(crate) const NO_ISSUER: &str = "none";

/// Issuers of tokens, separated by commas: URLs, and beginnings of URLs that end with `/*`.
pub(crate) fn issuers(text: &str) -> Result<Vec<String>, Fault> {
    let one = |text: &str| match is_issuer(text) && !text.trim_end_matches("/*").contains('*') {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(
            format!("'{text}' is no issuer"),
            "write URLs with https://, e.g. https://gitlab.example.com, or what they begin with, \
             e.g. https://oidc.eks.eu-west-1.amazonaws.com/*; write none for no issuer",
        )),
    };
    match text {
        NO_ISSUER => Ok(vec![]),
        text => text.split(',').map(|text| one(text.trim())).collect(),
    }
}

/// What robots' names begin with. It has a sign that no user's name has, so no user looks like a
/// robot.
pub(crate) fn robot_prefix(text: &str) -> Result<String, Fault> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "$#~_-.@".contains(c);
    if (1..=32).contains(&text.len()) && text.chars().all(fits) && text.contains(['$', '#', '~']) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("'{text}' could be the beginning of a user's name"),
        "use 1 to 32 letters, digits and signs, among them $, # or ~, e.g. robot$",
    ))
}

/// `mirror.example.com`: a domain, in lower case and without a port.
pub(crate) fn domain(text: &str) -> Result<String, Fault> {
    match registry(text) {
        Ok(domain) if !domain.contains([':', '[']) => Ok(domain),
        _ => Err(Fault::new(
            format!("'{text}' is not a domain"),
            "write it in lower case, e.g. mirror.example.com",
        )),
    }
}

/// The name of a project.
pub(crate) fn project(text: &str) -> Result<ProjectName, Fault> {
    text.parse().map_err(|error| {
        Fault::new(
            format!("'{text}' is not a project's name: {error}"),
            "write the name of a proxy project, e.g. hub",
        )
    })
}

/// `host`, `host:port`, `10.0.0.11:5000` or `[2001:db8::11]:5000`, with a port to which clients can
/// connect.
fn is_authority(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        let bare = rest.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        return bare || authority.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    }
    let (host, port) =
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let label = |l: &str| {
        !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let digits = |p: &str| p.bytes().all(|b| b.is_ascii_digit());
    host.split('.').all(label)
        && port.is_none_or(|p| digits(p) && p.parse::<u16>().is_ok_and(|p| p != 0))
}

/// A level (`info`) or `tracing` filter directives (`info,mesh::ledger=debug`). Every directive
/// must contain a level: a bare word that is not a level would be taken for a target, so `verbose`
/// would silence the log.
pub(crate) fn log_level(text: &str) -> Result<String, Fault> {
    for directive in split_outside_braces(text) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
        let known = ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|l| l.eq_ignore_ascii_case(level));
        if !known || directive.chars().any(char::is_control) {
            return Err(Fault::new(
                format!("'{directive}' has no log level"),
                "write off, error, warn, info, debug or trace, alone or after a target, e.g. info,mesh::ledger=debug",
            ));
        }
    }
    Ok(text.to_owned())
}

fn split_outside_braces(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
}

/// One of several words.
pub(crate) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        Fault::new(
            format!("'{text}' is not a choice here"),
            format!("write {}", words.join(" or ")),
        )
    })
}

/// A path of at least one character, without unprintable characters.
pub(crate) fn path(text: &str, example: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Fault::new(format!("{text:?} is not a path"), format!("write e.g. {example}")));
    }
    Ok(text.into())
}

/// A label in a PKCS#11 token: at most 32 bytes for tokens, and no longer for keys.
pub(crate) fn label(text: &str, example: &str) -> Result<String, Fault> {
    if !(1..=32).contains(&text.len()) || text.chars().any(char::is_control) {
        return Err(Fault::new(
            format!("{text:?} is not a label"),
            format!("write 1 to 32 bytes, e.g. {example}"),
        ));
    }
    Ok(text.to_owned())
}

/// A name of another system's: 1 to 2048 printable characters without blanks.
pub(crate) fn word(text: &str, example: &str) -> Result<String, Fault> {
    if !(1..=2048).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::new(
            format!("{text:?} is not a name here"),
            format!("write e.g. {example}, without blanks"),
        ));
    }
    Ok(text.to_owned())
}

/// A YAML scalar that reads back as `text`: plain if that is safe, otherwise in double quotes.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if first && text.chars().all(plain) && !text.eq_ignore_ascii_case("null") {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            // escaped, because YAML folds some of these and editors hide others
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_value_without_its_unit_is_refused() {
        for text in [
            "",
            "5",
            "1.5s",
            "-1s",
            "s",
            "1 s",
            "2sec",
            "1h30m",
            "99999999999999999999ms",
            "18446744073709551615h",
        ] {
            assert!(duration(text, SECOND).is_err(), "{text}");
        }
        for text in ["", "4", "4MB", "4 MiB", "4mib", "KiB", "18446744073709551615GiB"] {
            assert!(size(text, 1).is_err(), "{text}");
        }
    }

    #[test]
    fn the_remedy_shows_the_spelling() {
        let fault = duration("abc", Duration::from_millis(400)).unwrap_err();
        assert_eq!(fault.problem, "'abc' is not a duration");
        assert!(fault.remedy.starts_with("write e.g. 400ms"), "{}", fault.remedy);
    }

    #[test]
    fn a_public_url_is_scheme_host_and_port() {
        for text in [
            "http://a",
            "https://r.example.com",
            "https://r:5000",
            "http://10.0.0.1:80",
            "https://[::1]",
            "http://[::1]:5000",
        ] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
        for text in [
            "r.example.com",
            "ftp://r",
            "https://",
            "https://r/",
            "https://r/v2/",
            "https://r?x",
            "https://u@r",
            "https://r:",
            "https://r:0",
            "https://r:70000",
            "https://a..b",
            "http://[::1",
            "http://[r]",
            "HTTPS://r",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
        assert_eq!(origin("https://r:5000/v2/").unwrap_err().remedy, "write https://r:5000");
    }

    #[test]
    fn a_log_directive_carries_its_level() {
        for text in
            ["info", "WARN", "info,mesh::ledger=debug", "off,node[pull{repository=a,b}]=trace"]
        {
            assert_eq!(log_level(text).as_deref(), Ok(text));
        }
        for text in ["", "verbose", "info,", "mesh=loud", "mesh"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back(milliseconds in any::<u64>()) {
            let written = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&written_duration(written), SECOND), Ok(written));
        }

        #[test]
        fn a_size_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(size(&written_size(bytes), 1), Ok(bytes));
        }

        #[test]
        fn an_address_reads_back(written in any::<SocketAddr>().prop_filter("no flow info in text", |a| match a {
            SocketAddr::V6(a) => a.flowinfo() == 0,
            SocketAddr::V4(_) => true,
        })) {
            prop_assert_eq!(address(&written.to_string(), ""), Ok(written));
        }

        #[test]
        fn a_name_is_a_dns_label(text in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            prop_assert_eq!(name(&text, ""), Ok(text));
        }

        #[test]
        fn no_text_breaks_a_parser(text in any::<String>()) {
            let _ = (duration(&text, SECOND), size(&text, 1), address(&text, ""), count(&text, 1));
            let _ = (name(&text, ""), origin(&text), log_level(&text), path(&text, ""));
        }

        #[test]
        fn a_quoted_text_reads_back(text in any::<String>()) {
            let document = format!("a: {}\n", quoted(&text));
            let node = crate::tree::read(&document).unwrap();
            let crate::tree::Kind::Mapping(entries) = node.kind else { panic!("{document}") };
            prop_assert!(matches!(&entries[0].1.kind, crate::tree::Kind::Text(t) if *t == text), "{:?}", entries);
        }
    }
}
