//! What a project trusts: checked when it is written, and read once before many signatures.

use std::collections::{BTreeMap, BTreeSet};

use rules::policies::signatures::{Anchor, AnchorId, By, LONGEST_PEM, LONGEST_TEXT, Signer};

use crate::certificates::Certificate;
use crate::json::is_short;
pub use crate::keys::BadKey;
use crate::keys::{self, PublicKey};

/// The label of a public key in PEM.
const PUBLIC_KEY: &str = "PUBLIC KEY";
/// The label of a certificate in PEM.
const CERTIFICATE: &str = "CERTIFICATE";
/// The maximum number of certificates in one list.
const MOST_CERTIFICATES: usize = 16;
/// The maximum number of subjects of one authority.
const MOST_SUBJECTS: usize = 16;
/// What notation writes before a subject in its trust policies.
const SUBJECT_PREFIX: &str = "x509.subject:";

/// Why a certificate does not count behind which a compromised signer stands.
pub(crate) const COMPROMISED: &str = "it is of a signer that is compromised";

/// Why something cannot be trusted. The text is for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnchor {
    /// Longer than what is kept.
    #[error("at most {LONGEST_PEM} bytes of PEM are kept")]
    TooLong,
    /// Not PEM.
    #[error("it is no PEM: {0}")]
    Pem(String),
    /// PEM of something else.
    #[error("PEM of a {expected} is needed, and this is one of a {found}")]
    Label {
        /// What is needed.
        expected: &'static str,
        /// What it says to be.
        found: String,
    },
    /// A private key.
    #[error(
        "this is a private key, which nobody should have seen: replace it, and give the public key"
    )]
    Private,
    /// There must be one, or at least one.
    #[error("{0}")]
    Number(&'static str),
    /// Not a key that counts.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// Not a certificate that counts.
    #[error("certificate {number}: {why}")]
    Certificate {
        /// Its place in the list, from 1 on.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Not a subject.
    #[error("subject {0:?}: write parts as in \"C=DE, O=Example, CN=signer\"")]
    Subject(String),
    /// Not an identity.
    #[error("{0}")]
    Identity(String),
}

/// The blocks of a PEM text, all of which must have this label.
fn blocks(text: &str, expected: &'static str) -> Result<Vec<Vec<u8>>, BadAnchor> {
    if text.len() > LONGEST_PEM {
        return Err(BadAnchor::TooLong);
    }
    let blocks = pem::parse_many(text).map_err(|error| BadAnchor::Pem(error.to_string()))?;
    let check = |block: pem::Pem| match block.tag() {
        tag if tag == expected => Ok(block.into_contents()),
        tag if tag.contains("PRIVATE KEY") => Err(BadAnchor::Private),
        tag => Err(BadAnchor::Label { expected, found: tag.chars().take(64).collect() }),
    };
    blocks.into_iter().map(check).collect()
}

/// PEM with lines of 64 characters.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

fn public_key(text: &str) -> Result<(AnchorId, PublicKey, String), BadAnchor> {
    let Ok([der]) = <[Vec<u8>; 1]>::try_from(blocks(text, PUBLIC_KEY)?) else {
        return Err(BadAnchor::Number("PEM of exactly one public key is needed"));
    };
    let key = PublicKey::of(&der)?;
    if matches!(key, PublicKey::P521(_)) {
        return Err(BadKey::Kind.into());
    }
    let der = key.spki()?;
    Ok((keys::id(&der), key, to_pem(PUBLIC_KEY, &der)))
}

/// A public key as PEM: P-256, P-384, RSA of 2048 to 8192 bits, or Ed25519.
pub fn key(pem: &str) -> Result<Anchor, BadAnchor> {
    public_key(pem).map(|(id, _, pem)| Anchor::Key { id, pem })
}

/// Certificates as PEM, each once, and the same as it is kept.
fn certificates(text: &str) -> Result<(Vec<Certificate>, String), BadAnchor> {
    let (mut read, mut written) = (Vec::<Certificate>::new(), String::new());
    for (at, der) in blocks(text, CERTIFICATE)?.into_iter().enumerate() {
        let certificate = Certificate::read(&der)
            .map_err(|why| BadAnchor::Certificate { number: at + 1, why })?;
        if !read.iter().any(|one| one.id == certificate.id) {
            written.push_str(&to_pem(CERTIFICATE, &der));
            read.push(certificate);
        }
    }
    if read.len() > MOST_CERTIFICATES {
        return Err(BadAnchor::Number("a list has at most 16 certificates"));
    }
    Ok((read, written))
}

/// Certificates as PEM, as they are written there.
pub(crate) fn chain_of(text: &str) -> Result<Vec<Vec<u8>>, BadAnchor> {
    blocks(text, CERTIFICATE)
}

/// A notation trust store: certificates of authorities (or of single signers) as PEM, those of
/// timestamp authorities (RFC 3161; may be empty), and subjects that are trusted, each as in
/// `C=DE, O=Example` (with notation's `x509.subject:` before it or not). No subject: all.
///
/// Whether certificates were revoked (CRL, OCSP) is asked nowhere: revoke the signer instead.
pub fn authority(
    pem: &str,
    timestamps_pem: &str,
    subjects: &[String],
) -> Result<Anchor, BadAnchor> {
    let (read, pem) = certificates(pem)?;
    if read.is_empty() {
        return Err(BadAnchor::Number("PEM of at least one certificate is needed"));
    }
    let (_, timestamps) = certificates(timestamps_pem)?;
    if subjects.len() > MOST_SUBJECTS {
        return Err(BadAnchor::Number("an authority has at most 16 subjects"));
    }
    let subjects = subjects.iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
    Ok(Anchor::Authority { ids: ids(&read), pem, timestamps, subjects })
}

/// The ids of the keys of what is trusted: of a key itself, or those of an authority's certificates. A
/// key has one id, in whatever form it came. Empty if nothing can be read.
pub fn keys_of(anchor: &Anchor) -> BTreeSet<AnchorId> {
    match anchor {
        Anchor::Key { pem, .. } => public_key(pem).map(|(id, ..)| id).into_iter().collect(),
        Anchor::Authority { pem, .. } | Anchor::Keyless { pem, .. } => {
            let read = certificates(pem).map(|(read, _)| read).unwrap_or_default();
            read.iter().map(|certificate| certificate.key_id).collect()
        }
    }
}

/// The one of these signers that is compromised and whose key this is, or is of.
pub fn compromised<'a>(anchor: &Anchor, signers: &'a [Signer]) -> Option<&'a Signer> {
    let keys = keys_of(anchor);
    let is_key = |anchor: &Anchor| matches!(anchor, Anchor::Key { .. });
    signers.iter().filter(|signer| signer.state.is_compromised()).find(|signer| {
        // two authorities may have identities that have nothing to do with each other
        (is_key(anchor) || is_key(&signer.anchor)) && !keys.is_disjoint(&keys_of(&signer.anchor))
    })
}

fn ids(certificates: &[Certificate]) -> Vec<AnchorId> {
    certificates.iter().map(|certificate| certificate.id).collect()
}

/// Parts with a type and a value, `,` between them, as they are kept.
fn subject(text: &str) -> Result<String, BadAnchor> {
    let trimmed = text.trim();
    let trimmed = trimmed.strip_prefix(SUBJECT_PREFIX).unwrap_or(trimmed).trim();
    let (mut start, mut escaped, mut parts) = (0, false, Vec::new());
    for (at, character) in trimmed.char_indices() {
        if character == ',' && !escaped {
            parts.push(&trimmed[start..at]);
            start = at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    parts.push(&trimmed[start..]);
    let is_type = |kind: &str| !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric());
    let part = |part: &&str| {
        let (kind, value) = part.split_once('=')?;
        let (kind, value) = (kind.trim(), value.trim());
        let fits = is_type(kind) && !value.is_empty();
        fits.then(|| format!("{}={value}", kind.to_ascii_uppercase()))
    };
    let parts: Option<Vec<String>> = parts.iter().map(part).collect();
    match parts {
        Some(parts) if is_short(text) => Ok(parts.join(",")),
        _ => Err(BadAnchor::Subject(text.chars().take(64).collect())),
    }
}

/// Keyless signatures: Fulcio's certificates as PEM, Rekor's public key as PEM (without it a signature
/// counts only as long as its certificate is valid, which is minutes), who vouches for the identity
/// (the OIDC issuer), and a pattern that the identity must fit (`*` is anything).
pub fn keyless(
    fulcio_pem: &str,
    rekor_pem: &str,
    issuer: &str,
    subject: &str,
) -> Result<Anchor, BadAnchor> {
    let (read, pem) = certificates(fulcio_pem)?;
    if read.is_empty() {
        return Err(BadAnchor::Number("PEM of at least one certificate of Fulcio is needed"));
    }
    let rekor = match rekor_pem.trim() {
        "" => String::new(),
        text => public_key(text)?.2,
    };
    let check = |what: &str, text: &str| match text {
        "" => Err(BadAnchor::Identity(format!("the {what} is missing"))),
        text if is_short(text) => Ok(text.to_owned()),
        _ => Err(BadAnchor::Identity(format!(
            "the {what} is longer than {LONGEST_TEXT} bytes, or has control characters"
        ))),
    };
    Ok(Anchor::Keyless {
        ids: ids(&read),
        pem,
        rekor,
        issuer: check("issuer", issuer)?,
        subject: check("pattern of the identity", subject)?,
    })
}

/// A notation trust store.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) timestamps: Vec<Certificate>,
}

/// A Fulcio and its Rekor.
#[derive(Debug)]
pub(crate) struct Fulcio {
    pub(crate) certificates: Vec<Certificate>,
    /// Rekor's key and its id.
    pub(crate) rekor: Option<(AnchorId, PublicKey)>,
}

/// What a project trusts, read for many signatures.
#[derive(Debug, Default)]
pub struct Anchors {
    keys: BTreeMap<AnchorId, PublicKey>,
    authorities: Vec<Authority>,
    fulcios: Vec<Fulcio>,
    /// Signers that are compromised, with the ids of their keys.
    compromised: Vec<(Signer, BTreeSet<AnchorId>)>,
}

impl Anchors {
    /// Reads them. One that cannot be read is left out: it was checked when it was written.
    pub fn of(anchors: &[Anchor]) -> Self {
        let mut read = Anchors::default();
        for anchor in anchors {
            match anchor {
                // earlier builds took the id of the form in which a key came
                Anchor::Key { id, pem } => {
                    if let Ok((_, key, _)) = public_key(pem) {
                        read.keys.insert(*id, key);
                    }
                }
                Anchor::Authority { pem, timestamps, .. } => {
                    if let (Ok((certificates, _)), Ok((timestamps, _))) =
                        (certificates(pem), certificates(timestamps))
                    {
                        read.authorities.push(Authority { certificates, timestamps });
                    }
                }
                Anchor::Keyless { pem, rekor, .. } => {
                    let key = match rekor.as_str() {
                        "" => Ok(None),
                        text => public_key(text).map(|(id, key, _)| Some((id, key))),
                    };
                    if let (Ok((certificates, _)), Ok(rekor)) = (certificates(pem), key) {
                        read.fulcios.push(Fulcio { certificates, rekor });
                    }
                }
            }
        }
        read
    }

    /// Reads what these signers are. Of those that are compromised it is known in whatever certificate
    /// their keys and identities come.
    pub fn of_signers(signers: &[Signer]) -> Self {
        let all: Vec<Anchor> = signers.iter().map(|signer| signer.anchor.clone()).collect();
        let ended = signers.iter().filter(|signer| signer.state.is_compromised());
        let compromised = ended.map(|signer| (signer.clone(), keys_of(&signer.anchor))).collect();
        Anchors { compromised, ..Anchors::of(&all) }
    }

    /// Whether a compromised signer stands behind a signature with these certificates, and the ledger
    /// cannot see it in `by`: one of them has the compromised key, or is another certificate of an
    /// authority of which this identity is compromised.
    pub(crate) fn is_compromised(&self, by: &By, certificates: &[&Certificate]) -> bool {
        self.compromised.iter().any(|(signer, keys)| {
            let mut of_it = certificates.iter().filter(|one| keys.contains(&one.key_id));
            let is_there = of_it.next().is_some();
            match &signer.anchor {
                Anchor::Key { .. } => is_there,
                Anchor::Authority { ids, .. } | Anchor::Keyless { ids, .. } => {
                    let under = |root: &AnchorId| signer.is(&by.under(*root));
                    is_there && !signer.is(by) && ids.first().is_some_and(under)
                }
            }
        })
    }

    /// The notation trust stores.
    pub(crate) fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// Each Fulcio.
    pub(crate) fn fulcios(&self) -> &[Fulcio] {
        &self.fulcios
    }

    /// The trusted key that made this signature.
    pub(crate) fn key_of(&self, signed: &[u8], signature: &[u8]) -> Option<AnchorId> {
        let made = self.keys.iter().find(|(_, key)| key.verifies(signed, signature));
        made.map(|(id, _)| *id)
    }

    /// Whether a key is trusted.
    pub(crate) fn has_key(&self, id: &AnchorId) -> bool {
        self.keys.contains_key(id)
    }
}
