//! The decision about one pull.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{
    By, COSIGN_SIGNATURE, Exemption, Fault, Format, MESH, Mode, NameCheck, Policy, Seen,
    SignatureRecord, Signer, State, metadata,
};
use crate::policies::selectors::Pattern;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, Tag};

/// The longest that a pull may be made to wait for a signature. Clients give up after about a minute.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The maximum number of lists of signers that a policy requires, and of signers in one.
const MOST_REQUIRED: usize = 10;

/// Whether a project with this metadata has a [`Policy`].
pub fn is_on(entries: &BTreeMap<String, String>) -> bool {
    let is = |key: &str| entries.get(key).is_some_and(|value| value == "true");
    entries.get(metadata::MODE).is_some_and(|mode| mode != "off")
        || is(metadata::HARBOR_COSIGN)
        || is(metadata::HARBOR_NOTATION)
}

impl Policy {
    /// Whether it refuses images, and does not only warn.
    pub fn refuses(&self) -> bool {
        self.mode == Mode::Enforce || self.cosign || self.notation
    }

    /// The policy of a project with this metadata; `None` if everything passes. A value that cannot
    /// be read counts as the strictest: it is refused when it is written ([`check`]), so it came from
    /// an earlier build.
    pub fn of(entries: &BTreeMap<String, String>) -> Option<Self> {
        let entry = |key: &str| entries.get(key).map(String::as_str);
        let is = |key: &str, value: &str| entry(key) == Some(value);
        if !is_on(entries) {
            return None;
        }
        let mode = match entry(metadata::MODE) {
            None | Some("off") => Mode::Off,
            Some("warn") => Mode::Warn,
            Some(_) => Mode::Enforce,
        };
        Some(Policy {
            mode,
            require: entry(metadata::REQUIRE).map(required).unwrap_or_default(),
            name: match entry(metadata::NAME) {
                None | Some("none") => NameCheck::None,
                Some("repository") => NameCheck::Repository,
                Some(_) => NameCheck::Tag,
            },
            children: !is(metadata::CHILDREN, "false"),
            wait: entry(metadata::WAIT).and_then(seconds).unwrap_or_default(),
            as_harbor: is(metadata::STATUS, "412"),
            cosign: is(metadata::HARBOR_COSIGN, "true"),
            notation: is(metadata::HARBOR_NOTATION, "true"),
        })
    }
}

/// Lists of signers: `;` between lists of which each is required, `,` between those of which one is.
fn required(text: &str) -> Vec<Vec<String>> {
    let names = |list: &str| {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    text.split(';').map(names).filter(|list| !list.is_empty()).collect()
}

/// The first name in a value of [`metadata::REQUIRE`] that is no signer's.
pub fn unknown_in(text: &str, signers: &[Signer]) -> Option<String> {
    let is_known = |name: &String| {
        let is_it = |one: &Signer| one.name == *name || one.logged && name == MESH;
        signers.iter().any(is_it)
    };
    required(text).into_iter().flatten().find(|name| !is_known(name))
}

/// Whether a value of [`metadata::REQUIRE`] names this signer, and nobody of that name is left without it.
pub fn is_required(text: &str, signers: &[Signer], name: &str) -> bool {
    let left = without(signers, name, false);
    let named = |one: &&String| *one == name || *one == MESH;
    let is_known = |signers: &[Signer], one: &str| unknown_in(one, signers).is_none();
    let lists = required(text);
    lists.iter().flatten().filter(named).any(|one| is_known(signers, one) && !is_known(&left, one))
}

/// The signers when the one of this name is compromised, or there no more.
pub fn without(signers: &[Signer], name: &str, compromised: bool) -> Vec<Signer> {
    let mut left = signers.to_vec();
    if !compromised {
        left.retain(|signer| signer.name != name);
    }
    for signer in left.iter_mut().filter(|signer| signer.name == name) {
        signer.state = State::Revoked { at: Timestamp(0), compromised: true, why: String::new() };
    }
    left
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= LONGEST_WAIT)
}

/// Checks a value that a client wrote under one of [`metadata`]'s keys. The error is a sentence.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    let one_of = |words: &[&str]| match words.contains(&value) {
        true => Ok(()),
        false => Err(format!("metadata.{key} is one of: {}", words.join(", "))),
    };
    match key {
        metadata::MODE => one_of(&["off", "warn", "enforce"]),
        metadata::NAME => one_of(&["none", "repository", "tag"]),
        metadata::HOST if !is_host(value) => Err(format!(
            "metadata.{key} is a host, with a port if there is one: registry.example.com:5000"
        )),
        metadata::AUTO => Pattern::new(value)
            .map(drop)
            .map_err(|why| format!("metadata.{key} is a pattern of tags, as in v* or **: {why}")),
        metadata::STATUS => one_of(&["403", "412"]),
        metadata::CHILDREN | metadata::HARBOR_COSIGN | metadata::HARBOR_NOTATION => {
            one_of(&["true", "false"])
        }
        metadata::WAIT if seconds(value).is_none() => {
            let most = LONGEST_WAIT.as_secs();
            Err(format!("metadata.{key} is a number of seconds, at most {most}"))
        }
        metadata::REQUIRE => {
            let lists = required(value);
            let fits = !lists.is_empty()
                && lists.len() <= MOST_REQUIRED
                && lists.iter().all(|list| list.len() <= MOST_REQUIRED)
                && lists.iter().flatten().all(|name| super::is_signer_name(name));
            let said = "names signers as in \"ci,ci-old;mesh\": one of each list between the \
                        semicolons is required";
            if fits { Ok(()) } else { Err(format!("metadata.{key} {said}")) }
        }
        _ => Ok(()),
    }
}

/// Whether this can stand before the first slash of an image's name.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let part = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 255
        && host.split('.').all(part)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// What a pull asks for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The repository.
    pub repository: &'a RepositoryName,
    /// Whether the repository is another registry's, which has it under its name without the project:
    /// whoever signs there signs that.
    pub cached: bool,
    /// The tag, if it asks by tag.
    pub tag: Option<&'a Tag>,
    /// If it asks by digest: the tags that name the image now, or an index that lists it. They are
    /// needed only if [`tags_decide`].
    pub tags: &'a [Tag],
    /// When the image was pushed.
    pub pushed: Timestamp,
    /// The time of the node that decides.
    pub now: Timestamp,
}

/// What becomes of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The image is served.
    Pass,
    /// It is served although signatures are lacking.
    Warn(Refusal),
    /// The pull may wait so long for signatures; if they do not come, it is refused for this.
    Wait(Duration, Refusal),
    /// It is refused.
    Refuse(Refusal),
}

/// Why signatures are not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing of Harbor's type is there.
    Absent(&'static str),
    /// There is no signature.
    Unsigned,
    /// Signatures are there, and none counts for what is required. What is wrong with each, each once.
    Insufficient {
        /// The lists of which no signer has signed; empty if any signer would do.
        missing: Vec<String>,
        /// What is wrong with the signatures that do not count.
        wrong: Vec<String>,
    },
}

impl Refusal {
    /// A word for metrics and machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Absent(_) => "absent",
            Refusal::Unsigned => "unsigned",
            Refusal::Insufficient { .. } => "insufficient",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Absent(tool) => write!(f, "The image is not signed by {tool}."),
            Refusal::Unsigned => f.write_str("it is not signed"),
            Refusal::Insufficient { missing, wrong } => {
                if missing.is_empty() {
                    f.write_str("no signature of it counts")?;
                } else {
                    write!(f, "a signature by {} is missing", missing.join(", and one by "))?;
                }
                if wrong.is_empty() { Ok(()) } else { write!(f, " ({})", wrong.join("; ")) }
            }
        }
    }
}

/// Decides about one pull. `own` is what is known of the image's signatures, `parents` of those of
/// indexes that list it.
pub fn decide(
    policy: &Policy,
    signers: &[Signer],
    own: &SignatureRecord,
    parents: &[SignatureRecord],
    context: &Context<'_>,
) -> Decision {
    if exempting(own, parents, context.now).is_some() {
        return Decision::Pass;
    }
    let refusal = match lacking(policy, signers, own, parents, context) {
        Ok(()) => return Decision::Pass,
        Err(refusal) => refusal,
    };
    let demanded = policy.mode == Mode::Enforce || matches!(refusal, Refusal::Absent(_));
    if !demanded {
        return Decision::Warn(refusal);
    }
    let end = context.pushed.0.saturating_add(policy.wait.as_millis() as u64);
    match end.checked_sub(context.now.0).filter(|left| *left > 0) {
        // a clock that is behind makes nobody wait longer than the policy says
        Some(left) => Decision::Wait(Duration::from_millis(left).min(policy.wait), refusal),
        None => Decision::Refuse(refusal),
    }
}

/// The earliest moment after `now` at which time alone may change what [`decide`] says of a pull that it
/// lets pass; `None` if there is none.
pub fn changes_at(
    signers: &[Signer],
    own: &SignatureRecord,
    parents: &[SignatureRecord],
    now: Timestamp,
) -> Option<Timestamp> {
    let ends = signers.iter().flat_map(|signer| [signer.not_before, signer.not_after]);
    let records = || std::iter::once(own).chain(parents);
    let expired = records().flat_map(|record| &record.evidence).flat_map(|one| &one.signatures);
    let expired = expired.map(|seen| seen.signature.until);
    let exempt = records().map(|record| record.exempt.as_ref().map(|exemption| exemption.until));
    ends.chain(expired).chain(exempt).flatten().filter(|moment| *moment > now).min()
}

/// The exemption by which an image passes now: its own, or that of an index that lists it, whose place
/// in `parents` is told. It does not matter whether it would inherit signatures.
pub fn exempting<'a>(
    own: &'a SignatureRecord,
    parents: &'a [SignatureRecord],
    now: Timestamp,
) -> Option<(Option<usize>, &'a Exemption)> {
    let own = own.exempt.iter().map(|exemption| (None, exemption));
    let of_parents = parents.iter().enumerate();
    let of_parents = of_parents.filter_map(|(at, one)| Some((Some(at), one.exempt.as_ref()?)));
    own.chain(of_parents).find(|(_, exemption)| now < exemption.until)
}

/// Whether a signer's new signature of this image would count, as far as its name and the time go.
pub fn may_sign_here(signer: &Signer, context: &Context<'_>) -> bool {
    let repository = context.repository.as_str();
    let inside = repository.split_once('/').map_or(repository, |(_, rest)| rest);
    let fits = |pattern: &Pattern, tag: Option<&Tag>| match tag {
        Some(tag) => pattern.matches(tag.as_str()),
        None => {
            context.tags.is_empty() || context.tags.iter().any(|tag| pattern.matches(tag.as_str()))
        }
    };
    matches!(signer.state, State::Active | State::VerifyOnly)
        && !(signer.logged && signer.state == State::VerifyOnly)
        && signer.not_before.is_none_or(|from| from <= context.now)
        && signer.not_after.is_none_or(|end| context.now < end)
        && signer.repositories.as_ref().is_none_or(|pattern| pattern.matches(inside))
        && signer.tags.as_ref().is_none_or(|pattern| fits(pattern, context.tag))
}

/// Whether a pull by digest depends on the tags that name the image: a signer who may sign some tags only
/// has signed it, and the signature names none.
pub fn tags_decide(signers: &[Signer], own: &SignatureRecord, parents: &[SignatureRecord]) -> bool {
    let narrow: Vec<&Signer> = signers.iter().filter(|signer| signer.tags.is_some()).collect();
    let all = std::iter::once(own).chain(parents).flat_map(|record| &record.evidence);
    let mut all = all.flat_map(|one| &one.signatures).map(|seen| &seen.signature);
    !narrow.is_empty()
        && all.any(|one| {
            let names_a_tag = |text: &String| Reference::of(text).tag.is_some();
            !one.reference.as_ref().is_some_and(names_a_tag)
                && narrow.iter().any(|signer| signer.is(&one.by))
        })
}

fn lacking(
    policy: &Policy,
    signers: &[Signer],
    own: &SignatureRecord,
    parents: &[SignatureRecord],
    context: &Context<'_>,
) -> Result<(), Refusal> {
    let inherited = parents.iter().filter(|_| policy.children);
    let all = std::iter::once(own).chain(inherited).flat_map(|record| &record.evidence);
    let all: Vec<&Seen> = all.flat_map(|one| &one.signatures).collect();
    // what Harbor counts is the artifact's own, whoever made it
    let present = |formats: &[Format]| {
        let mut own = own.evidence.iter().flat_map(|one| &one.signatures);
        own.any(|seen| formats.contains(&seen.signature.format))
    };
    if policy.cosign && !present(&[Format::Cosign, Format::CosignReferrer, Format::Bundle]) {
        return Err(Refusal::Absent("cosign"));
    }
    if policy.notation && !present(&[Format::NotationJws, Format::NotationCose]) {
        return Err(Refusal::Absent("notation"));
    }
    if policy.mode == Mode::Off {
        return Ok(());
    }
    let (mut good, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    for seen in &all {
        match counts(policy, signers, seen, context) {
            Ok(names) => good.extend(names),
            Err(why) => drop(wrong.insert(why)),
        }
    }
    let missing =
        policy.require.iter().filter(|list| !list.iter().any(|name| good.contains(&**name)));
    let missing: Vec<String> = missing.map(|list| list.join(" or ")).collect();
    if !good.is_empty() && missing.is_empty() {
        return Ok(());
    }
    if all.is_empty() {
        return Err(Refusal::Unsigned);
    }
    Err(Refusal::Insufficient { missing, wrong: wrong.into_iter().take(5).collect() })
}

/// The signers of whom this signature is one that counts, or what is wrong with it.
pub fn counts<'a>(
    policy: &Policy,
    signers: &'a [Signer],
    seen: &Seen,
    context: &Context<'_>,
) -> Result<Vec<&'a str>, String> {
    let signature = &seen.signature;
    if let Some(fault) = &signature.fault {
        return Err(match (fault, &signature.by) {
            (Fault::OtherDigest, _) => "a signature is of another digest".into(),
            (fault, _) => format!("a {} signature does not count: {fault}", signature.format),
        });
    }
    if let By::Unknown { hint } = &signature.by {
        return Err(match hint {
            Some(hint) => format!("the key {} is not trusted", &hint.to_string()[..16]),
            None => format!("a {} signature is by nobody who is trusted", signature.format),
        });
    }
    // what others say of the same key, or of the same identity, makes it no better
    let ended = signers.iter().filter(|signer| signer.state.is_compromised());
    if let Some(signer) = ended.into_iter().find(|signer| signer.is(&signature.by)) {
        return Err(signer.revoked());
    }
    if signature.until.is_some_and(|until| context.now >= until) {
        return Err(match signature.until {
            Some(until) => format!("a signature has expired on {until}"),
            None => "a signature has expired".into(),
        });
    }
    let (mut good, mut wrong) = (Vec::new(), None);
    for signer in signers.iter().filter(|signer| signer.is(&signature.by)) {
        match signer.accepts(policy, seen, context) {
            Ok(()) => {
                good.push(&*signer.name);
                // whatever the number of its key
                if signer.logged {
                    good.push(MESH);
                }
            }
            Err(why) => wrong = Some(why),
        }
    }
    match (good.is_empty(), wrong) {
        (false, _) => Ok(good),
        (true, Some(why)) => Err(why),
        (true, None) => Err("a signer is not trusted any more".into()),
    }
}

impl Signer {
    /// Whether the signature is by this signer.
    pub fn is(&self, by: &By) -> bool {
        use super::Anchor;
        match (&self.anchor, by) {
            (Anchor::Key { id, .. }, By::Key(key)) => id == key,
            (Anchor::Authority { ids, subjects, .. }, By::Certificate { root, subject }) => {
                ids.contains(root)
                    && (subjects.is_empty() || subjects.iter().any(|one| has_all(subject, one)))
            }
            (
                Anchor::Keyless { ids, issuer: by, subject: pattern, .. },
                By::Identity { root, issuer, subject },
            ) => ids.contains(root) && by == issuer && fits(pattern, subject),
            _ => false,
        }
    }

    /// That it is revoked, in words.
    fn revoked(&self) -> String {
        match &self.state {
            State::Revoked { why, .. } if !why.is_empty() => {
                format!("the signer {} is revoked: {why}", self.name)
            }
            _ => format!("the signer {} is revoked", self.name),
        }
    }

    fn accepts(&self, policy: &Policy, seen: &Seen, context: &Context<'_>) -> Result<(), String> {
        let (name, signature) = (&self.name, &seen.signature);
        match &self.state {
            State::Active | State::VerifyOnly => {}
            State::Pending => return Err(format!("the signer {name} is pending")),
            State::Revoked { at, compromised: false, .. } if seen.at < *at => {}
            State::Revoked { .. } => return Err(self.revoked()),
        }
        if self.logged && seen.logged.is_none() {
            return Err(format!("the sign log has no such signature by {name}"));
        }
        if self.not_before.is_some_and(|from| context.now < from) {
            return Err(format!("the signer {name} does not count yet"));
        }
        if let Some(end) = self.not_after.filter(|end| context.now >= *end) {
            return Err(format!("the signer {name} counted until {end}"));
        }
        if !self.formats.is_empty() && !self.formats.contains(&signature.format) {
            return Err(format!("the signer {name} does not sign as {}", signature.format));
        }
        let attests = match &signature.predicate {
            // a plain signature is none of the attestations that this signer makes
            None => self.predicates.is_empty(),
            Some(predicate) if self.predicates.is_empty() => predicate == COSIGN_SIGNATURE,
            Some(predicate) => self.predicates.contains(predicate),
        };
        if !attests && signature.predicate.is_none() {
            return Err(format!("the signer {name} attests, and a plain signature is none"));
        }
        if let (false, Some(predicate)) = (attests, &signature.predicate) {
            return Err(format!("an attestation of {predicate} by {name} is no signature"));
        }
        let repository = context.repository.as_str();
        let inside = repository.split_once('/').map_or(repository, |(_, rest)| rest);
        if self.repositories.as_ref().is_some_and(|pattern| !pattern.matches(inside)) {
            return Err(format!("the signer {name} does not sign this repository"));
        }
        let signed = signature.reference.as_deref().map(Reference::of);
        let tag = context.tag.map(Tag::as_str);
        if let Some(pattern) = &self.tags {
            // a pull by digest says nothing of a tag: it is the one that was signed, or one of those that
            // name the image now
            match tag.or(signed.and_then(|signed| signed.tag)) {
                Some(tag) if !pattern.matches(tag) => {
                    return Err(format!("the signer {name} does not sign the tag {tag}"));
                }
                Some(_) => {}
                // the upstream's tags are not known
                None if context.cached => {}
                None if context.tags.iter().any(|tag| pattern.matches(tag.as_str())) => {}
                None => {
                    return Err(format!(
                        "the signer {name} signs the tags {} only, and none of these names the image",
                        pattern.written()
                    ));
                }
            }
        }
        let Some(signed) = signed else {
            return match policy.name {
                NameCheck::None => Ok(()),
                _ => Err(format!("a signature by {name} says no name")),
            };
        };
        let named = if context.cached { inside } else { repository };
        if policy.name != NameCheck::None && signed.repository != named {
            return Err(format!("{name} has signed it under another name"));
        }
        if policy.name == NameCheck::Tag && tag.is_some() && signed.tag != tag {
            return Err(format!("{name} has signed it under another tag"));
        }
        Ok(())
    }
}

/// A signed `HOST/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Clone, Copy)]
struct Reference<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn of(text: &'a str) -> Self {
        let text = text.split_once('@').map_or(text, |(name, _)| name);
        let path = text.split_once('/').map_or("", |(_, path)| path);
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        Reference { repository, tag }
    }
}

/// Whether a subject (`CN=..,O=..`) has all parts of `wanted`.
fn has_all(subject: &str, wanted: &str) -> bool {
    let (subject, wanted) = (parts(subject), parts(wanted));
    !wanted.is_empty() && wanted.is_subset(&subject)
}

/// The parts of a subject, in whatever order and with whatever spaces between them it is written.
pub(super) fn parts(subject: &str) -> BTreeSet<String> {
    let parts = split_unescaped(subject);
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

/// The parts between commas without a backslash before them.
fn split_unescaped(text: &str) -> Vec<String> {
    let (mut parts, mut escaped) = (vec![String::new()], false);
    for character in text.chars() {
        if character == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
        escaped = character == '\\' && !escaped;
    }
    parts
}

/// Whether an identity fits a pattern in which `*` is anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
