//! Names, parsed once at the boundary. The grammar of repositories and tags is the
//! distribution-spec's ("Pulling manifests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadName {
    problem: &'static str,
}

pub(crate) const fn bad(problem: &'static str) -> BadName {
    BadName { problem }
}

/// Makes a newtype around a checked string: ordered, serializable, built only by `FromStr`.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                $check(text)?;
                Ok($name(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name!(
    /// A project: the part of a repository's name before the first `/`.
    ProjectName,
    check_component
);
checked_name!(
    /// A repository, `project/path...`, at most 255 bytes.
    RepositoryName,
    check_repository
);
checked_name!(
    /// A tag: a movable name for a manifest within a repository.
    Tag,
    check_tag
);
checked_name!(
    /// A failure domain, for example `us-east-1`.
    Region,
    check_label
);
checked_name!(
    /// A node's name for people, for example `us-east-1-1`.
    NodeName,
    check_label
);

checked_name!(
    /// A user's name, with which they sign in.
    UserName,
    check_user
);
checked_name!(
    /// A robot's name, without the prefix and without its project.
    RobotName,
    check_robot
);

impl ProjectName {
    /// The length of its longest part. A project's name has only one part.
    pub fn longest_part(&self) -> usize {
        self.as_str().len()
    }
}

impl RepositoryName {
    /// The length of its longest part.
    pub fn longest_part(&self) -> usize {
        self.as_str().split('/').map(str::len).max().unwrap_or(0)
    }
}

/// Harbor's rule (`src/server/v2.0/handler/user.go`), and no colon: a password's header
/// (RFC 7617) ends a name with it. A robot's name has a `$`, so no user looks like one.
fn check_user(text: &str) -> Result<(), BadName> {
    if text.is_empty() || text.len() > 255 {
        return Err(bad("a user's name has 1 to 255 bytes"));
    }
    if text.trim() != text || text.chars().any(|c| c.is_control() || ",\"~#$%:".contains(c)) {
        return Err(bad(
            "a user's name has no space at its ends, no control character and none of , \" ~ # $ % :",
        ));
    }
    if text.chars().any(is_invisible) {
        return Err(bad(
            "a user's name has no character that cannot be seen: it would look like another",
        ));
    }
    if text == "anonymous" {
        return Err(bad("'anonymous' is what clients without a name are called"));
    }
    Ok(())
}

/// Whether a character is not seen, or changes how those around it are shown: Unicode's
/// `Default_Ignorable_Code_Point` and the controls of direction, and spaces other than the usual.
fn is_invisible(c: char) -> bool {
    let ignorable = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    ignorable || c != ' ' && c.is_whitespace()
}

/// Harbor's rule (`src/server/v2.0/handler/robot.go`).
fn check_robot(text: &str) -> Result<(), BadName> {
    if text.len() > 128 {
        return Err(bad("a robot's name has at most 128 characters"));
    }
    let joined = |c: char| ['.', '_', '-'].contains(&c);
    let fits = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if text.split(joined).all(fits) {
        return Ok(());
    }
    Err(bad("a robot's name is lower-case letters and digits, joined by '.', '_' or '-'"))
}

/// One path component: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn check_component(text: &str) -> Result<(), BadName> {
    const PROBLEM: BadName = bad(
        "a name's parts are lower-case letters and digits, joined by one '.', one or two '_', or '-'",
    );
    if text.is_empty() {
        return Err(bad("a name has an empty part"));
    }
    if text.len() > 255 {
        return Err(bad("a name's part is longer than 255 characters"));
    }
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let start = i;
        while i < bytes.len() && alnum(bytes[i]) {
            i += 1;
        }
        if i == start {
            return Err(PROBLEM);
        }
        if i == bytes.len() {
            return Ok(());
        }
        let separators = i;
        while i < bytes.len() && !alnum(bytes[i]) {
            i += 1;
        }
        let separator = &bytes[separators..i];
        let allowed = separator == b"."
            || separator == b"_"
            || separator == b"__"
            || separator.iter().all(|b| *b == b'-');
        if !allowed || i == bytes.len() {
            return Err(PROBLEM);
        }
    }
    Ok(())
}

fn check_repository(text: &str) -> Result<(), BadName> {
    if text.len() > 255 {
        return Err(bad("a repository's name is at most 255 characters long"));
    }
    if !text.contains('/') {
        return Err(bad("a repository is written project/name"));
    }
    text.split('/').try_for_each(check_component)
}

fn check_tag(text: &str) -> Result<(), BadName> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match text.as_bytes() {
        [first, rest @ ..]
            if word(*first)
                && rest.len() < 128
                && rest.iter().all(|b| word(*b) || *b == b'.' || *b == b'-') =>
        {
            Ok(())
        }
        _ => Err(bad(
            "a tag is 1 to 128 letters, digits, '_', '.', '-', and does not start with '.' or '-'",
        )),
    }
}

fn check_label(text: &str) -> Result<(), BadName> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ok = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        Ok(())
    } else {
        Err(bad("a region or node name is 1 to 63 lower-case letters, digits and inner '-'"))
    }
}

impl RepositoryName {
    /// The part after the project: the repository's name at an upstream.
    pub fn within_project(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, rest)| rest)
    }

    /// The project it belongs to.
    pub fn project(&self) -> ProjectName {
        // check_repository has seen a '/' and has checked the part before it
        ProjectName(self.0.split('/').next().unwrap_or_default().into())
    }
}

/// How a client refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reference {
    /// By a tag, which can move.
    Tag(Tag),
    /// By its digest.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.contains(':') {
            return text
                .parse()
                .map(Reference::Digest)
                .map_err(|_| bad("the digest is malformed or of another algorithm"));
        }
        text.parse().map(Reference::Tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A node's identity. It is chosen once when the node joins, is bound to its mesh certificate, and
/// is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The name in the node's certificate, which binds the id to the peer.
    pub fn certificate_name(self) -> String {
        format!("node-{self}.mesh.atoll")
    }

    /// Parses a [`NodeId::certificate_name`].
    pub fn from_certificate_name(name: &str) -> Option<Self> {
        let hex = name.strip_prefix("node-")?.strip_suffix(".mesh.atoll")?;
        if hex.len() != 16 {
            return None;
        }
        u64::from_str_radix(hex, 16).ok().map(NodeId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

impl FromStr for NodeId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        u64::from_str_radix(text, 16).map(NodeId).map_err(|_| bad("a node id is 16 hex digits"))
    }
}

/// A project's number in Harbor's API. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProjectId(pub u64);

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An upstream's number in Harbor's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpstreamId(pub u64);

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a scanner, which is random. It is written as a UUID, as Harbor writes it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ScannerId(pub u128);

impl ScannerId {
    /// The engine that is built in.
    pub const NATIVE: ScannerId = ScannerId(0x0000_0000_0000_4000_8000_0000_0000_a701);
    /// Whether it is part of every mesh, so that it is not registered and cannot be removed.
    pub fn is_built_in(self) -> bool {
        self == ScannerId::NATIVE
    }
}

impl fmt::Display for ScannerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            n >> 80 & 0xffff,
            n >> 64 & 0xffff,
            n >> 48 & 0xffff,
            n & 0xffff_ffff_ffff
        )
    }
}

impl FromStr for ScannerId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let digits = text.replace('-', "");
        let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let id = plain.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(ScannerId);
        id.filter(|id| id.to_string() == text.to_ascii_lowercase())
            .ok_or_else(|| bad("a scanner's number is a UUID"))
    }
}

/// A label's number in Harbor's API. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelId(pub u64);

/// A user's number in Harbor's API. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserId(pub u64);

/// A robot's number in Harbor's API. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RobotId(pub u64);

/// The number of a trust rule. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrustId(pub u64);

/// The number of a group. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// The number of a membership in Harbor's API. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// A job's number. It begins with the time at which the job was asked for, so that numbers are in
/// the order of their jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

impl JobId {
    /// The bits at the end that are nothing in new numbers.
    const SPARE: u32 = 5;
    /// The first number that JavaScript, and so many clients of JSON, cannot tell from its neighbours.
    const INEXACT: u64 = 1 << 53;

    /// The number of a job that is asked for at `at`. `dice` tells apart those of one millisecond.
    pub fn new(at: Timestamp, dice: u16) -> Self {
        let dice = u64::from(dice) >> Self::SPARE << Self::SPARE;
        JobId((at.0 << 16) | dice)
    }

    /// The number for clients that read JSON's numbers as doubles: below 2^53 for jobs that were
    /// asked for before the year 2109. That of a job of an earlier build is the job's own, which is
    /// larger. It is in the order of jobs among those of this build.
    pub fn number(self) -> u64 {
        let short = self.0 >> Self::SPARE;
        match short << Self::SPARE == self.0 && short < Self::INEXACT {
            true => short,
            false => self.0,
        }
    }

    /// The job that [`JobId::number`] gives this number. A number that it gives to none is that of
    /// no job.
    pub fn of_number(number: u64) -> Self {
        match number < Self::INEXACT {
            true => JobId(number << Self::SPARE),
            false => JobId(number),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let number = u64::from_str_radix(text, 16);
        number.map(JobId).map_err(|_| bad("a job's number is of hexadecimal digits"))
    }
}

/// The number of a primary's term for one project. It only grows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a new project.
    pub const FIRST: Epoch = Epoch(1);

    /// The next epoch. This is the only way to make another epoch.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    /// The number, for people and metrics.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A position in the ledger's log. A record that changed at revision r was changed by entry r.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

/// The idempotency key of a command. The first proposer chooses it at random, and retries keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u128);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_jobs_number_is_exact_in_json_and_names_that_job() {
        // in January of 2109
        let last = Timestamp(4_387_000_000_000);
        for at in [Timestamp(1_800_000_000_000), last] {
            for dice in [0, 1, 31, 32, 4711, u16::MAX] {
                let id = JobId::new(at, dice);
                assert!(id.number() < 1 << 53, "{id}");
                assert_eq!(JobId::of_number(id.number()), id);
            }
            assert!(JobId::new(at, u16::MAX) < JobId::new(Timestamp(at.0 + 1), 0), "in order");
            // those of earlier builds had dice of any kind
            let odd = JobId((at.0 << 16) | 7);
            assert_eq!((odd.number(), JobId::of_number(odd.0)), (odd.0, odd));
        }
        assert_ne!(JobId::new(last, 64), JobId::new(last, 128), "the dice tell them apart");
    }

    #[test]
    fn a_users_name_is_what_is_seen() {
        for good in ["ann", "Ann Lee", "müller", "李雷", "a@b.example"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for c in
            ['\u{200b}', '\u{200d}', '\u{202e}', '\u{feff}', '\u{ad}', '\u{a0}', '\u{e0041}', '\n']
        {
            assert!(format!("ad{c}min").parse::<UserName>().is_err(), "{:x}", c as u32);
        }
    }

    #[test]
    fn repositories_follow_the_spec() {
        for good in ["demo/app", "a/b/c", "demo/a__b", "demo/a--b", "demo/a.b_c-d", "demo/0"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "demo",
            "demo/",
            "/demo",
            "demo//a",
            "Demo/a",
            "demo/..",
            "demo/a..b",
            "demo/a___b",
            "demo/-a",
            "demo/a-",
            "demo/%2e%2e",
            "demo/a\0",
            "",
            "../etc/passwd",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert!(format!("demo/{}", "a".repeat(251)).parse::<RepositoryName>().is_err());
        assert_eq!("demo/a/b".parse::<RepositoryName>().unwrap().project().as_str(), "demo");
    }

    #[test]
    fn tags_follow_the_spec() {
        for good in ["1", "latest", "v1.2-rc_3", "_x"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_name_gives_the_id_back() {
        let id = NodeId(0xdead_beef_0000_0001);
        assert_eq!(NodeId::from_certificate_name(&id.certificate_name()), Some(id));
        assert_eq!(NodeId::from_certificate_name("node-1.mesh.atoll"), None);
    }

    proptest! {
        #[test]
        fn the_component_check_equals_the_specs_expression(text in "[a-c0._/-]{0,12}") {
            // the expression of the spec, by hand: parts of [a-z0-9]+ joined by '.', '_', '__' or
            // '-'s
            fn component(s: &str) -> bool {
                let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                let parts: Vec<&str> = s.split(|c| !alnum(c)).filter(|p| !p.is_empty()).collect();
                let seps: Vec<&str> = s.split(alnum).filter(|p| !p.is_empty()).collect();
                !parts.is_empty() && s.starts_with(alnum) && s.ends_with(alnum)
                    && seps.iter().all(|p| matches!(*p, "." | "_" | "__") || p.chars().all(|c| c == '-'))
            }
            let expected = text.contains('/') && text.split('/').all(component);
            prop_assert_eq!(text.parse::<RepositoryName>().is_ok(), expected);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,300}") {
            let _ = text.parse::<RepositoryName>();
            let _ = text.parse::<Tag>();
            let _ = text.parse::<Reference>();
            let _ = text.parse::<Region>();
        }
    }
}
