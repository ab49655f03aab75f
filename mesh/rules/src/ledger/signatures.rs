//! Whom projects trust to sign, and what is known of the signatures of their images: records and
//! changes.
//!
//! An artifact of signatures that is pushed gets into a queue. The project's primary reads it,
//! verifies it against everything that the project trusts, and records what came of it with the
//! image that was signed. When a project trusts another key, all of its signatures are verified
//! again.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::level::Level;
use super::records::{Look, RecordError, TagRecord, decode, key as records_key};
use super::sign_log::{LogEntry, MeshKey, NotationIdentity};
use crate::policies::signatures::{
    Anchor, Evidence, Exemption, LONGEST_PEM, LONGEST_TEXT, MOST_SIGNERS, SignatureRecord, Signer,
    State, is_signer_name, tags_decide,
};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, ProjectName, RepositoryName, Tag};

/// The maximum number of artifacts of signatures that are kept of one image.
pub const MOST_EVIDENCE: usize = 64;
/// The maximum number of signatures that are kept of one image: each pull reads all of them.
pub const MOST_IN_ALL: usize = 128;
/// The maximum number of manifests of an index that are as good as the index, and of indexes that one
/// manifest is as good as.
pub const MOST_CHILDREN: usize = 200;
/// See [`MOST_CHILDREN`].
pub const MOST_PARENTS: usize = 16;
/// The longest time for which an image may be exempted.
pub const LONGEST_EXEMPTION: std::time::Duration = std::time::Duration::from_secs(90 * 86_400);

/// Whom a project trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The signers, in the order in which they were added.
    pub signers: Vec<Signer>,
    /// How often what signatures are verified against was changed.
    pub anchors: u64,
}

/// An artifact of signatures that is to be verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unverified {
    /// The repository.
    pub repository: RepositoryName,
    /// Its manifest.
    pub manifest: Digest,
    /// The tag that says what it is about, if it is not among the referrers.
    pub tag: Option<Tag>,
}

/// A change of what a project knows of signatures, by its primary. A variant's position is its number
/// in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureChange {
    /// What an artifact of signatures is worth.
    Verified {
        /// The repository.
        repository: RepositoryName,
        /// What it is about.
        subject: Digest,
        /// What the subject lists, if it is an index, at most [`MOST_CHILDREN`].
        children: Vec<Digest>,
        /// What was found. Its time is that of the entry, or when it was found first.
        evidence: Evidence,
        /// Its number in the queue, if it came from there.
        number: Option<u64>,
    },
    /// What waited in the queue is not there any more, or says nothing.
    Skip {
        /// The project.
        project: ProjectName,
        /// The number in the queue.
        number: u64,
    },
    /// Everything was verified against what the project trusted with this number.
    UpToDate {
        /// The project.
        project: ProjectName,
        /// See [`Trusted::anchors`].
        anchors: u64,
    },
    /// Adds a signer, or changes one.
    SetSigner {
        /// The project.
        project: ProjectName,
        /// The signer.
        signer: Box<Signer>,
        /// Whether there must be none of that name yet; otherwise there must be one.
        new: bool,
    },
    /// Removes a signer.
    RemoveSigner {
        /// The project.
        project: ProjectName,
        /// Its name.
        name: String,
    },
    /// Adds a key of the mesh, which signs from now on; the keys before it only verify.
    SetKey {
        /// The project.
        project: ProjectName,
        /// The key. Its version is one more than the last.
        key: Box<MeshKey>,
    },
    /// Something is signed with the project's key. Epoch and time are those of the command.
    Log(Box<LogEntry>),
    /// Serves an image without signatures for a while, or not any more.
    Exempt {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        digest: Digest,
        /// For how long and why; `None`: not any more.
        exemption: Option<Exemption>,
    },
    /// Gives the project's key certificates, with which it signs for notation, too.
    SetIdentity {
        /// The project.
        project: ProjectName,
        /// The certificates.
        identity: Box<NotationIdentity>,
        /// The authority's certificate, as PEM.
        authority: String,
    },
    /// Seals keys of the project anew. Nothing changes if one of them is another now.
    Reseal {
        /// The project.
        project: ProjectName,
        /// The keys, each with its version; 0 stands for that of the authority for notation.
        keys: Vec<Resealed>,
    },
    /// What the upstream has about an image that a proxy project has cached
    /// ([`cached_signatures`](super::cached_signatures)).
    FoundCached {
        /// The repository.
        repository: RepositoryName,
        /// The image.
        subject: Digest,
        /// What the image lists, if it is an index, at most [`MOST_CHILDREN`].
        children: Vec<Digest>,
        /// What was found. Its time is that of the entry, or when it was found first.
        evidence: Vec<Evidence>,
    },
    /// Nobody has cached these images any more, and what is known of them is forgotten.
    ForgetCached {
        /// The repository.
        repository: RepositoryName,
        /// The images, a limited number at a time.
        digests: Vec<Digest>,
    },
    /// Serves an index, and all that it lists, without signatures for a while.
    ExemptIndex {
        /// The repository.
        repository: RepositoryName,
        /// The index.
        digest: Digest,
        /// What it lists, at most [`MOST_CHILDREN`].
        children: Vec<Digest>,
        /// For how long and why.
        exemption: Exemption,
    },
}

/// A key that is sealed anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// The version of the project's key, or 0 for its authority for notation.
    pub version: u32,
    /// As it was.
    pub was: ByteBuf,
    /// As it becomes.
    pub becomes: ByteBuf,
}

impl SignatureChange {
    /// The project.
    pub fn project(&self) -> ProjectName {
        match self {
            SignatureChange::Verified { repository, .. }
            | SignatureChange::FoundCached { repository, .. }
            | SignatureChange::ForgetCached { repository, .. }
            | SignatureChange::Exempt { repository, .. }
            | SignatureChange::ExemptIndex { repository, .. } => repository.project(),
            SignatureChange::Log(entry) => entry.repository.project(),
            SignatureChange::Skip { project, .. }
            | SignatureChange::SetKey { project, .. }
            | SignatureChange::SetIdentity { project, .. }
            | SignatureChange::Reseal { project, .. }
            | SignatureChange::UpToDate { project, .. }
            | SignatureChange::SetSigner { project, .. }
            | SignatureChange::RemoveSigner { project, .. } => project.clone(),
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            SignatureChange::Verified { .. } | SignatureChange::FoundCached { .. } => {
                "record_signatures"
            }
            SignatureChange::ForgetCached { .. } => "forget_signatures",
            SignatureChange::Skip { .. } => "skip_signatures",
            SignatureChange::UpToDate { .. } => "signatures_up_to_date",
            SignatureChange::SetSigner { .. } => "set_signer",
            SignatureChange::RemoveSigner { .. } => "remove_signer",
            SignatureChange::SetKey { .. } => "set_signing_key",
            SignatureChange::Log(_) => "log_signature",
            SignatureChange::Exempt { .. } | SignatureChange::ExemptIndex { .. } => {
                "exempt_from_signatures"
            }
            SignatureChange::SetIdentity { .. } => "set_notation_identity",
            SignatureChange::Reseal { .. } => "reseal_signing_keys",
        }
    }

    /// The minimum feature level at which it may be proposed.
    pub fn level(&self) -> Level {
        match self {
            SignatureChange::SetIdentity { .. } | SignatureChange::Reseal { .. } => Level::SIGNING,
            SignatureChange::FoundCached { .. }
            | SignatureChange::ForgetCached { .. }
            | SignatureChange::ExemptIndex { .. } => Level::CACHED_SIGNATURES,
            _ => Level::SIGNATURES,
        }
    }
}

/// Why a signer cannot be as somebody wants it. A sentence for the caller.
pub fn check_signer(signer: &Signer) -> Result<(), String> {
    if !is_signer_name(&signer.name) {
        return Err("a signer's name has 1 to 64 of a-z, 0-9, -, _ and .".into());
    }
    let (pems, texts): (Vec<&String>, Vec<&String>) = match &signer.anchor {
        Anchor::Key { pem, .. } => (vec![pem], vec![]),
        Anchor::Authority { pem, timestamps, subjects, .. } => {
            (vec![pem, timestamps], subjects.iter().collect())
        }
        Anchor::Keyless { pem, rekor, issuer, subject, .. } => {
            (vec![pem, rekor], vec![issuer, subject])
        }
    };
    if pems.iter().any(|pem| pem.len() > LONGEST_PEM) {
        return Err(format!("a key or a list of certificates has at most {LONGEST_PEM} bytes"));
    }
    let mut texts = texts.into_iter().chain(&signer.predicates);
    if texts.clone().count() > 40 || texts.any(|text| !is_short(text)) {
        return Err(format!(
            "a signer has at most 40 subjects and types of predicates, each of 1 to {LONGEST_TEXT} \
             bytes without control characters"
        ));
    }
    if signer.not_before.zip(signer.not_after).is_some_and(|(from, to)| from >= to) {
        return Err("a signer cannot end to count before it begins to".into());
    }
    if let State::Revoked { why, .. } = &signer.state
        && !(why.is_empty() || is_short(why))
    {
        return Err(format!("a reason has at most {LONGEST_TEXT} bytes and no control characters"));
    }
    Ok(())
}

/// Whether a text is short enough to be kept, and shows as it is.
pub fn is_short(text: &str) -> bool {
    !text.trim().is_empty()
        && (1..=LONGEST_TEXT).contains(&text.len())
        && !text.chars().any(char::is_control)
}

/// Keys of signatures in the map.
pub mod key {
    use super::*;

    /// What is known of the signatures of an image.
    pub fn signatures(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [b"$s", repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
    /// What is known of the signatures of a project's images.
    pub fn signatures_of(project: &ProjectName) -> Vec<u8> {
        [b"$s", project.as_str().as_bytes(), b"/"].concat()
    }
    /// What is known of the signatures of a repository's images.
    pub fn signatures_in(repository: &RepositoryName) -> Vec<u8> {
        [b"$s", repository.as_str().as_bytes(), b"\0"].concat()
    }
    /// The repository and digest in a key of [`signatures`].
    pub fn signed(key: &[u8]) -> Option<(RepositoryName, Digest)> {
        let rest = key.strip_prefix(b"$s")?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((name, Digest::from_key(&rest[end + 1..]).ok()?))
    }
    /// Whom a project trusts.
    pub fn trusted(project: ProjectId) -> Vec<u8> {
        [b"$t", &project.0.to_be_bytes()[..]].concat()
    }
    /// An artifact of signatures that is to be verified.
    pub fn unverified(project: ProjectId, number: u64) -> Vec<u8> {
        [b"$e", &project.0.to_be_bytes()[..], &number.to_be_bytes()].concat()
    }
    /// What is to be verified of one project.
    pub fn unverified_of(project: ProjectId) -> Vec<u8> {
        [b"$e", &project.0.to_be_bytes()[..]].concat()
    }
    /// What is to be verified in all projects.
    pub fn all_unverified() -> Vec<u8> {
        b"$e".to_vec()
    }
    /// The project and number in a key of [`unverified`].
    pub fn queued(key: &[u8]) -> Option<(ProjectId, u64)> {
        let (project, number) = key.strip_prefix(b"$e")?.split_at_checked(8)?;
        let project = u64::from_be_bytes(project.try_into().ok()?);
        Some((ProjectId(project), u64::from_be_bytes(number.try_into().ok()?)))
    }
    /// The number of the last artifact that was to be verified.
    pub fn last_unverified() -> Vec<u8> {
        b"$l".to_vec()
    }
    /// Against which trust all of a project was verified.
    pub fn up_to_date(project: ProjectId) -> Vec<u8> {
        [b"$u", &project.0.to_be_bytes()[..]].concat()
    }
    /// Whether a record decides about unsigned images: a change of one is counted.
    pub fn is_of_verdicts(key: &[u8]) -> bool {
        key.starts_with(b"$s") || key.starts_with(b"$t")
    }
}

/// What decides about a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whom the project trusts.
    pub signers: Vec<Signer>,
    /// What is known of the image's own signatures.
    pub own: SignatureRecord,
    /// What is known of those of signed or exempted indexes that list it.
    pub parents: Vec<SignatureRecord>,
    /// The tags that name it now, or one of these indexes. They were read only if they decide.
    pub tags: Option<Vec<Tag>>,
}

impl Facts {
    /// The tags that name the image, as far as they decide.
    pub fn tags(&self) -> &[Tag] {
        self.tags.as_deref().unwrap_or_default()
    }

    /// The same without exemptions: what is served in an emergency is no better for that.
    pub fn without_exemptions(mut self) -> Self {
        self.own.exempt = None;
        self.parents.iter_mut().for_each(|parent| parent.exempt = None);
        self
    }
}

/// Typed reading of signatures.
pub trait LookForSignatures: Look {
    /// What is known of the signatures of an image.
    fn signatures_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<SignatureRecord, RecordError> {
        Ok(self.record(&key::signatures(repository, digest))?.unwrap_or_default())
    }
    /// Whom a project trusts.
    fn trusted(&self, project: ProjectId) -> Result<Trusted, RecordError> {
        Ok(self.record(&key::trusted(project))?.unwrap_or_default())
    }
    /// Against which trust all of a project was verified; `None` if it never was.
    fn verified_against(&self, project: ProjectId) -> Result<Option<u64>, RecordError> {
        self.record(&key::up_to_date(project))
    }
    /// The tags that name a manifest now.
    fn tags_naming(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Tag>, RecordError> {
        // edges are told no level, and have no index of tags by their manifests
        if self.level()? >= Level::CACHES {
            let named = records_key::all_named(repository, digest);
            let places = self.scan(&named, None, usize::MAX)?;
            let tag = |place: &[u8]| std::str::from_utf8(&place[named.len()..]).ok()?.parse().ok();
            return Ok(places.iter().filter_map(|(place, _)| tag(place)).collect());
        }
        let mut found = Vec::new();
        for (place, record) in self.scan(&records_key::tags(repository), None, usize::MAX)? {
            if decode::<TagRecord>(&record)?.digest == *digest {
                found.extend(records_key::tag_of(&place).parse::<Tag>());
            }
        }
        Ok(found)
    }
    /// What decides about a pull of an image.
    fn signature_facts(
        &self,
        project: ProjectId,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Facts, RecordError> {
        let own = self.signatures_of(repository, digest)?;
        let signers = self.trusted(project)?.signers;
        let mut parents = Vec::new();
        for parent in own.parents.iter().take(MOST_PARENTS) {
            parents.push(self.signatures_of(repository, parent)?);
        }
        Ok(Facts { signers, own, parents, tags: None })
    }
    /// What decides about a pull by digest of an image of a project that caches no registry: the tags
    /// that name it, too.
    fn signature_facts_by_digest(
        &self,
        project: ProjectId,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Facts, RecordError> {
        let mut facts = self.signature_facts(project, repository, digest)?;
        if tags_decide(&facts.signers, &facts.own, &facts.parents) {
            let mut tags = self.tags_naming(repository, digest)?;
            for parent in facts.own.parents.iter().take(MOST_PARENTS) {
                tags.extend(self.tags_naming(repository, parent)?);
            }
            facts.tags = Some(tags);
        }
        Ok(facts)
    }
}

impl<R: Look + ?Sized> LookForSignatures for R {}

/// Whether another signer has room. Those that are compromised take none, up to as many again: they
/// stay for good.
pub fn has_room(trusted: &Trusted, level: Level) -> bool {
    let all = trusted.signers.len();
    let compromised = trusted.signers.iter().filter(|signer| signer.state.is_compromised()).count();
    match level >= Level::COMPROMISED {
        true => all - compromised.min(MOST_SIGNERS) < MOST_SIGNERS,
        false => all < MOST_SIGNERS,
    }
}

/// Why the key of a compromised signer cannot be replaced.
pub const KEEPS_ITS_KEY: &str = "a signer that is compromised keeps what it was, so that nobody trusts that again; add another one";

/// Whether a time is one until which an image may be exempted at `now`.
pub fn may_exempt(until: Timestamp, now: Timestamp) -> bool {
    now < until && until.0 - now.0 <= LONGEST_EXEMPTION.as_millis() as u64
}
