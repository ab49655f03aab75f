//! Signatures of notation, by a key of the mesh with certificates that an authority has issued for it.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rules::policies::signatures::AnchorId;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde_json::{Map, Value, json};

use super::{Claims, Made, NOTHING, SigningKey};
use crate::anchor::{BadAnchor, chain_of, to_pem};
use crate::certificates::chain::Chain;
use crate::layers::{EMPTY, JWS, MANIFEST, NOTATION};
use crate::payload::statement::CREATED;
use crate::union::descriptor;

/// The annotation that names the certificates, for whoever looks for a signature of theirs.
const THUMBPRINTS: &str = "io.cncf.notary.x509chain.thumbprint#S256";

/// Certificates of a key: from its own to one that has signed itself.
#[derive(Debug)]
pub struct Identity {
    chain: Chain,
}

impl Identity {
    /// Reads the certificates of `key` as PEM, its own first, as notation demands them (see
    /// [`anchor::authority`](crate::anchor::authority)).
    ///
    /// # Errors
    /// If they are no such chain, or are of another key.
    pub fn read(pem: &str, key: &SigningKey) -> Result<Self, BadAnchor> {
        let wrong = |why: String| BadAnchor::Certificate { number: 1, why };
        let chain = Chain::read(&chain_of(pem)?).map_err(wrong)?;
        // a signature shows it, whatever form the certificate has the key in
        let signature = key.sign_fixed(b"is it this key?");
        match chain.leaf().key.verifies_envelope(b"is it this key?", &signature) {
            true => Ok(Identity { chain }),
            false => Err(wrong("it is of another key".into())),
        }
    }

    /// The id of the authority: of the last certificate.
    pub fn authority(&self) -> AnchorId {
        self.chain.certificates().last().unwrap_or(self.chain.leaf()).id
    }

    /// The authority's certificate as PEM.
    pub fn authority_pem(&self) -> String {
        let last = self.chain.certificates().last().unwrap_or(self.chain.leaf());
        to_pem("CERTIFICATE", &last.der)
    }

    /// The subject of the key's certificate, as [`By::Certificate`] has it.
    ///
    /// [`By::Certificate`]: rules::policies::signatures::By::Certificate
    pub fn subject(&self) -> &str {
        &self.chain.leaf().subject
    }

    /// From when to when a signature counts that has no timestamp.
    pub fn validity(&self) -> (Timestamp, Timestamp) {
        self.chain.validity()
    }
}

/// A JSON web signature, in a referrer of the image. The same claims make the same bytes. What else is
/// said (`optional`) is what `notation verify --user-metadata NAME=TEXT` asks for; the image's name is
/// no part of this format.
pub fn notation(key: &SigningKey, identity: &Identity, claims: &Claims) -> Made {
    let at = Timestamp(claims.timestamp.0 / 1000 * 1000).to_string();
    let protected = json!({
        "alg": "ES256",
        "crit": ["io.cncf.notary.signingScheme"],
        "cty": "application/vnd.cncf.notary.payload.v1+json",
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": at,
    });
    let subject = json!({
        "mediaType": claims.subject_media_type,
        "digest": claims.subject.to_string(),
        "size": claims.subject_size,
    });
    let mut target = subject.clone();
    if !claims.optional.is_empty() {
        let optional = claims.optional.iter();
        let optional = optional.map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        target["annotations"] = Value::Object(optional.collect::<Map<_, _>>());
    }
    let payload = json!({"targetArtifact": target});
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (protected, payload) =
        (encode(protected.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
    let signed = format!("{protected}.{payload}");
    let certificates = identity.chain.certificates();
    let chain: Vec<String> =
        certificates.iter().map(|one| BASE64_STANDARD.encode(&one.der)).collect();
    let envelope = json!({
        "payload": payload,
        "protected": protected,
        "header": {"x5c": chain, "io.cncf.notary.signingAgent": "atoll"},
        "signature": encode(&key.sign_fixed(signed.as_bytes())),
    });
    let envelope = envelope.to_string().into_bytes();
    let thumbprints: Vec<String> = certificates.iter().map(|one| one.id.to_string()).collect();
    let mut config = descriptor(EMPTY, NOTHING);
    config["data"] = BASE64_STANDARD.encode(NOTHING).into();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": NOTATION,
        "config": config,
        "layers": [descriptor(JWS, &envelope)],
        "subject": subject,
        "annotations": {THUMBPRINTS: json!(thumbprints).to_string(), CREATED: at},
    });
    Made {
        blobs: vec![envelope, NOTHING.to_vec()],
        manifest: manifest.to_string().into_bytes(),
        payload: Digest::sha256(signed.as_bytes()),
    }
}
