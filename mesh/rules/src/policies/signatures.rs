//! Whether an image may be pulled, by who has signed it.
//!
//! A signature is verified once, by the project's primary, against everything that the project
//! trusts. The ledger keeps what came of it: who has signed which digest, in which form, under which
//! name. Every node decides from that, so a key that is revoked counts for nothing in the moment in
//! which the node hears of it, and nothing is verified again.
//!
//! Harbor asks only whether an accessory of the right type is there
//! (`src/server/middleware/contenttrust`). [`Policy::cosign`] and [`Policy::notation`] do that, for
//! those who come from there: **nothing is verified**, and whoever may push can make such an accessory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policies::selectors::Pattern;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::Tag;

mod deciding;
mod rule;
pub use deciding::{
    Context, Decision, LONGEST_WAIT, Refusal, changes_at, check, counts, decide, exempting, is_on,
    is_required, may_sign_here, tags_decide, unknown_in, without,
};
pub use rule::{
    Lacking, Named, Own, Rule, lacking, signed_ever, signed_under, unnamed, without_own,
};

/// The metadata of a project that this reads.
pub mod metadata {
    /// What becomes of images without the signatures that are required: `off`, `warn`, `enforce`.
    /// Not in Harbor.
    pub const MODE: &str = "signature_policy";
    /// Which signers are required, as in `ci,ci-old;mesh`: one of each list between the semicolons.
    /// Not in Harbor.
    pub const REQUIRE: &str = "signature_require";
    /// What of the name must be signed: `none`, `repository`, `tag`. Not in Harbor.
    pub const NAME: &str = "signature_name";
    /// Whether what a signed index lists is as good as signed: `"true"`, and if it is missing. Not in
    /// Harbor.
    pub const CHILDREN: &str = "signature_children";
    /// How many seconds a pull of what was pushed a moment ago waits for signatures. Not in Harbor.
    pub const WAIT: &str = "signature_wait";
    /// The name of this registry for clients, as in `registry.example.com`: the mesh signs images under
    /// it. Not in Harbor.
    pub const HOST: &str = "signature_host";
    /// Which tags the mesh signs by itself, as soon as the project's other rules are met: a pattern, as
    /// in `v*` or `**`. Not in Harbor.
    pub const AUTO: &str = "signature_auto";
    /// The status of a refusal: `403`, or `412` as in Harbor. Not in Harbor.
    pub const STATUS: &str = "signature_status";
    /// Whether an accessory of cosign must be there: `"true"`. Nothing is verified, as in Harbor.
    pub const HARBOR_COSIGN: &str = "enable_content_trust_cosign";
    /// Whether an accessory of notation must be there: `"true"`. Nothing is verified, as in Harbor.
    pub const HARBOR_NOTATION: &str = "enable_content_trust";
}

/// The predicate type of a bundle that is a signature of an image, and no other attestation.
pub const COSIGN_SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The name of the signer that stands for all of a project's own keys.
pub const MESH: &str = "mesh";
/// The maximum number of signers in a project.
pub const MOST_SIGNERS: usize = 50;
/// The maximum number of signatures of one manifest that are kept, and of one artifact that are read.
pub const MOST_SIGNATURES: usize = 64;
/// The maximum length of a certificate, a list of them, or a key, as PEM, in bytes.
pub const LONGEST_PEM: usize = 16 << 10;
/// The maximum length of a text that a signature or a person gives, in bytes.
pub const LONGEST_TEXT: usize = 512;

/// What a project trusts, by its content: SHA-256 of a key's SubjectPublicKeyInfo (as cosign's hint),
/// or of an authority's certificate, both in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AnchorId(pub [u8; 32]);

impl fmt::Display for AnchorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AnchorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Format {
    /// cosign's simple signing: a layer of the tag `sha256-….sig`.
    Cosign,
    /// The same as a referrer (cosign 2 with `--registry-referrers-mode=oci-1-1`).
    CosignReferrer,
    /// cosign's attestation: a layer of the tag `sha256-….att`.
    Attestation,
    /// A Sigstore bundle as a referrer.
    Bundle,
    /// A notation signature in a JSON web signature.
    NotationJws,
    /// A notation signature in COSE.
    NotationCose,
}

impl Format {
    /// All.
    pub const ALL: [Format; 6] = [
        Format::Cosign,
        Format::CosignReferrer,
        Format::Attestation,
        Format::Bundle,
        Format::NotationJws,
        Format::NotationCose,
    ];

    /// Its word in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Cosign => "cosign",
            Format::CosignReferrer => "cosign-referrer",
            Format::Attestation => "cosign-attestation",
            Format::Bundle => "sigstore-bundle",
            Format::NotationJws => "notation-jws",
            Format::NotationCose => "notation-cose",
        }
    }

    /// Whether it lies behind a tag that is about its subject, and not among the referrers.
    pub fn is_tagged(self) -> bool {
        matches!(self, Format::Cosign | Format::Attestation)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Format::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| {
            let all = Format::ALL.map(Format::as_str).join(", ");
            format!("{text:?} is no form of signatures; there are {all}")
        })
    }
}

/// Who has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// Nobody whom the project trusts. What the signature says of its key is not verified.
    Unknown {
        /// The key that it claims to be by.
        hint: Option<AnchorId>,
    },
    /// A key.
    Key(AnchorId),
    /// Whoever has a certificate of this authority (notation).
    Certificate {
        /// The authority.
        root: AnchorId,
        /// The certificate's subject, as `CN=..,O=..,C=..` (RFC 4514).
        subject: String,
    },
    /// Whoever had this identity when it signed (Sigstore's keyless signatures).
    Identity {
        /// The authority that gave the certificate.
        root: AnchorId,
        /// Who vouched for the identity.
        issuer: String,
        /// The identity: a mail address or an URI.
        subject: String,
    },
}

impl By {
    /// The same, under another authority.
    pub fn under(&self, root: AnchorId) -> By {
        match self.clone() {
            By::Certificate { subject, .. } => By::Certificate { root, subject },
            By::Identity { issuer, subject, .. } => By::Identity { root, issuer, subject },
            other => other,
        }
    }
}

/// Why something that looks like a signature is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It is not as its form demands.
    Malformed(String),
    /// It is larger than what is read.
    TooLarge,
    /// It is of another digest.
    OtherDigest,
    /// The bytes are not what the signature is of.
    Wrong,
    /// A certificate does not lead to the authority, or is not for signing code.
    Chain(String),
    /// A blob of it is not there.
    Missing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(why) => write!(f, "it is malformed: {why}"),
            Fault::TooLarge => f.write_str("it is too large"),
            Fault::OtherDigest => f.write_str("it is a signature of another digest"),
            Fault::Wrong => f.write_str("it is not a signature of these bytes"),
            Fault::Chain(why) => write!(f, "its certificate is not accepted: {why}"),
            Fault::Missing => f.write_str("a blob of it is not there"),
        }
    }
}

/// What is known of one signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Its form.
    pub format: Format,
    /// Who has signed. Nobody is trusted if there is a fault.
    pub by: By,
    /// Why it counts for nothing.
    pub fault: Option<Fault>,
    /// What is attested, if it is an attestation (in-toto's predicate type).
    pub predicate: Option<String>,
    /// Under which name the image was signed (`docker-reference`), if it says so.
    pub reference: Option<String>,
    /// When it was signed, as it says.
    pub signed: Option<Timestamp>,
    /// After which time it counts for nothing: it says so, or its certificates end then.
    pub until: Option<Timestamp>,
    /// SHA-256 of the signed bytes.
    pub payload: Digest,
    /// What else was signed with it (`optional`, annotations), as far as it is short text.
    pub claims: BTreeMap<String, String>,
}

impl Signature {
    /// Whether it is by somebody whom the project trusts, or trusted.
    pub fn is_known(&self) -> bool {
        self.fault.is_none() && !matches!(self.by, By::Unknown { .. })
    }

    /// Whether the same was signed by the same in the same form.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.format, &self.by, &self.payload) == (other.format, &other.by, &other.payload)
            && self.fault == other.fault
    }
}

/// What was found in one artifact of signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The artifact's manifest.
    pub manifest: Digest,
    /// The tag that says what it is about, if it is not among the referrers.
    pub tag: Option<Tag>,
    /// Whether all its blobs are JSON, so that no runtime can unpack one as a layer.
    pub is_text: bool,
    /// Its signatures, at most [`MOST_SIGNATURES`].
    pub signatures: Vec<Seen>,
}

impl Evidence {
    /// Whether one of its signatures is by somebody whom the project trusts, or trusted.
    pub fn is_known(&self) -> bool {
        self.signatures.iter().any(|seen| seen.signature.is_known())
    }
}

/// A signature, and since when the mesh knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was verified first. A signature that was verified before its key was replaced stays
    /// good.
    pub at: Timestamp,
    /// Its number in the project's sign log, if that has it.
    pub logged: Option<u64>,
    /// The signature.
    pub signature: Signature,
}

/// An order of somebody to serve an image without signatures for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemption {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: String,
    /// Whose order it is.
    pub by: String,
}

/// What is known of the signatures of one manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureRecord {
    /// What was found in each artifact of signatures, the first first.
    pub evidence: Vec<Evidence>,
    /// The signed or exempted indexes of the repository that list this manifest.
    pub parents: Vec<Digest>,
    /// What this manifest lists, if it is a signed or exempted index.
    pub children: Vec<Digest>,
    /// Whether it is served without signatures for a while.
    pub exempt: Option<Exemption>,
}

/// Whether a signer may have this name.
pub fn is_signer_name(name: &str) -> bool {
    let fits =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// What makes a signer known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anchor {
    /// A public key.
    Key {
        /// Its id.
        id: AnchorId,
        /// The key, as PEM (SubjectPublicKeyInfo).
        pem: String,
    },
    /// A notation trust store: certificates of authorities.
    Authority {
        /// The ids of the certificates.
        ids: Vec<AnchorId>,
        /// The certificates, as PEM.
        pem: String,
        /// Certificates of timestamp authorities (RFC 3161), as PEM; may be empty.
        timestamps: String,
        /// Which subjects are trusted: each a list of `C=..,O=..` that must all be in the subject.
        /// Empty: all.
        subjects: Vec<String>,
    },
    /// Keyless signatures of a Fulcio.
    Keyless {
        /// The ids of Fulcio's certificates.
        ids: Vec<AnchorId>,
        /// Fulcio's certificates, as PEM.
        pem: String,
        /// The public key of Rekor, as PEM; may be empty.
        rekor: String,
        /// Who vouches for the identity.
        issuer: String,
        /// A pattern that the identity fits, `*` for anything.
        subject: String,
    },
}

impl Anchor {
    /// Whether it is the same as another, in whatever form that is written: the key; or certificates of
    /// the same authorities, and the same identities.
    pub fn is_same(&self, other: &Anchor) -> bool {
        let set = |ids: &[AnchorId]| ids.iter().copied().collect::<BTreeSet<_>>();
        match (self, other) {
            (Anchor::Key { id, .. }, Anchor::Key { id: other, .. }) => id == other,
            (
                Anchor::Authority { ids, subjects, .. },
                Anchor::Authority { ids: others, subjects: other_subjects, .. },
            ) => {
                let parts = |subjects: &[String]| {
                    subjects.iter().map(|one| deciding::parts(one)).collect::<BTreeSet<_>>()
                };
                set(ids) == set(others) && parts(subjects) == parts(other_subjects)
            }
            (
                Anchor::Keyless { ids, issuer, subject, .. },
                Anchor::Keyless {
                    ids: others, issuer: other_issuer, subject: other_subject, ..
                },
            ) => set(ids) == set(others) && (issuer, subject) == (other_issuer, other_subject),
            _ => false,
        }
    }
}

/// Whether a signer counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Published, and not used yet: it counts for nothing.
    Pending,
    /// It counts, and it is the one that signs.
    Active,
    /// It counts; it signs nothing new.
    VerifyOnly,
    /// It does not count any more.
    Revoked {
        /// When it was revoked.
        at: Timestamp,
        /// Whether others may have it: then nothing counts that it has signed. Otherwise what the
        /// mesh had verified before stays good.
        compromised: bool,
        /// Why, in words.
        why: String,
    },
}

impl State {
    /// Whether nothing counts that a signer in this state has signed, for good.
    pub fn is_compromised(&self) -> bool {
        matches!(self, State::Revoked { compromised: true, .. })
    }

    /// Its word in APIs.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::VerifyOnly => "verify-only",
            State::Revoked { compromised: true, .. } => "compromised",
            State::Revoked { compromised: false, .. } => "superseded",
        }
    }
}

/// Somebody whose signatures a project trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Its name in the project.
    pub name: String,
    /// What makes it known.
    pub anchor: Anchor,
    /// The forms that are accepted; empty: all.
    pub formats: Vec<Format>,
    /// The attestations that count as signatures of an image; empty: only cosign's signatures do.
    pub predicates: Vec<String>,
    /// The repositories that it may sign, without the project; `None`: all.
    pub repositories: Option<Pattern>,
    /// The tags that it may sign; `None`: all.
    pub tags: Option<Pattern>,
    /// Whether its signatures count only if the project's sign log has them: it is a key of the mesh.
    pub logged: bool,
    /// Since when it counts.
    pub not_before: Option<Timestamp>,
    /// Until when it counts.
    pub not_after: Option<Timestamp>,
    /// Whether it counts.
    pub state: State,
}

/// What becomes of an image without the signatures that are required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It is served.
    #[default]
    Off,
    /// It is served; a log and a counter tell.
    Warn,
    /// It is refused.
    Enforce,
}

impl Mode {
    /// Its word in APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Warn => "warn",
            Mode::Enforce => "enforce",
        }
    }
}

/// What of the name must be signed with the digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameCheck {
    /// Nothing.
    #[default]
    None,
    /// The repository. Bundles have no name and do not count.
    Repository,
    /// The repository, and the tag if the image is pulled by tag.
    Tag,
}

impl Policy {
    /// The policy that demands nothing, for who wants to know what signatures are worth.
    pub const NOTHING: Policy = Policy {
        mode: Mode::Off,
        require: Vec::new(),
        name: NameCheck::None,
        children: true,
        wait: Duration::ZERO,
        as_harbor: false,
        cosign: false,
        notation: false,
    };
}

impl Signer {
    /// What the mesh itself signs with in a project: it counts for everything there, and only with an
    /// entry in the sign log.
    pub fn of_the_mesh(name: String, anchor: Anchor) -> Self {
        Signer {
            name,
            anchor,
            formats: Vec::new(),
            predicates: Vec::new(),
            repositories: None,
            tags: None,
            logged: true,
            not_before: None,
            not_after: None,
            state: State::Active,
        }
    }

    /// What it is, in a line for people.
    pub fn describe(&self) -> String {
        let anchor = match &self.anchor {
            Anchor::Key { id, .. } => format!("key {id}"),
            Anchor::Authority { ids, subjects, .. } => {
                let ids: Vec<String> = ids.iter().map(AnchorId::to_string).collect();
                format!("authority {} for {}", ids.join(" "), subjects.join(" or "))
            }
            Anchor::Keyless { issuer, subject, .. } => format!("{subject} of {issuer}"),
        };
        let why = match &self.state {
            State::Revoked { why, .. } if !why.is_empty() => format!(": {why}"),
            _ => String::new(),
        };
        format!("{anchor}, {}{why}", self.state.as_str())
    }
}

/// Whether an artifact of this type is one of signatures or attestations.
pub fn is_evidence(artifact_type: Option<&str>) -> bool {
    artifact_type.is_some_and(|one| {
        one.starts_with("application/vnd.dev.sigstore.bundle.")
            || one == "application/vnd.dev.cosign.artifact.sig.v1+json"
            || one == "application/vnd.cncf.notary.signature"
    })
}

/// What a project demands. It is made from the project's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of an image without them.
    pub mode: Mode,
    /// Names of signers: one signature of each list is required. Empty: one of any signer.
    pub require: Vec<Vec<String>>,
    /// What of the name must be signed.
    pub name: NameCheck,
    /// Whether a manifest is as good as a signed index of its repository that lists it.
    pub children: bool,
    /// How long a pull waits for a signature.
    pub wait: Duration,
    /// Whether Harbor's status is answered (412), and not 403.
    pub as_harbor: bool,
    /// Whether an accessory of cosign must be there, whoever made it.
    pub cosign: bool,
    /// Whether an accessory of notation must be there, whoever made it.
    pub notation: bool,
}
