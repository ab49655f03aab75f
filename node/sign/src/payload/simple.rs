//! cosign's simple signing (`specs/SIGNATURE_SPEC.md`; containers/image
//! `signature/internal/sigstore_payload.go`, which reads it as strictly).

use std::collections::BTreeMap;

use rules::policies::signatures::Fault;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Said, is_of, malformed, short};
use crate::json::{Unique, claims, seconds};

/// `critical.type` of a signature of an image.
const TYPE: &str = "cosign container image signature";
/// The claim that is a time.
const TIMESTAMP: &str = "timestamp";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical<String>,
    #[serde(default)]
    optional: Option<Unique<Value>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Critical<T> {
    identity: Identity<T>,
    image: Image<T>,
    #[serde(rename = "type")]
    kind: T,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Identity<T> {
    #[serde(rename = "docker-reference")]
    reference: T,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Image<T> {
    #[serde(rename = "docker-manifest-digest")]
    digest: T,
}

#[derive(Serialize)]
struct Written<'a> {
    critical: Critical<&'a str>,
    optional: BTreeMap<&'a str, Value>,
}

/// Reads a payload whose signature is verified. It must be of `subject`.
pub(crate) fn read(payload: &[u8], subject: &Digest) -> Result<Said, Fault> {
    let read: Payload = serde_json::from_slice(payload).map_err(malformed)?;
    if read.critical.kind != TYPE {
        return Err(malformed(format!("its type is {:?}", read.critical.kind)));
    }
    is_of(&read.critical.image.digest, subject)?;
    let reference = short("its docker-reference", read.critical.identity.reference)?;
    let optional = read.optional.map(|optional| optional.0).unwrap_or_default();
    let signed = optional.get(TIMESTAMP).and_then(Value::as_i64).map(seconds);
    Ok(Said {
        predicate: None,
        reference: Some(reference).filter(|reference| !reference.is_empty()),
        signed,
        claims: claims(optional),
    })
}

/// Writes a payload.
pub(crate) fn write(
    reference: &str,
    subject: &Digest,
    claims: &BTreeMap<String, String>,
    at: Timestamp,
) -> Vec<u8> {
    let mut optional: BTreeMap<&str, Value> =
        claims.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))).collect();
    optional.insert(TIMESTAMP, (at.0 / 1000).into());
    let digest = subject.to_string();
    let critical = Critical {
        identity: Identity { reference },
        image: Image { digest: digest.as_str() },
        kind: TYPE,
    };
    serde_json::to_vec(&Written { critical, optional }).unwrap_or_default()
}
