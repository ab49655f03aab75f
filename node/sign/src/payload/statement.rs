//! In-toto statements (in-toto/attestation `spec/v1/statement.md`).

use std::collections::BTreeMap;

use rules::policies::signatures::{COSIGN_SIGNATURE, Fault};
use rules::words::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Said, malformed, short};
use crate::json::{Unique, claims, time};

/// `_type` of the versions that are read; cosign 2's attestations are of the older one.
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// The annotation of a subject that is a time.
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: Option<Unique<String>>,
    #[serde(default)]
    annotations: Option<Unique<Value>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(rename = "_type")]
    kind: &'a str,
    subject: [WrittenSubject<'a>; 1],
    predicate_type: &'a str,
    predicate: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct WrittenSubject<'a> {
    digest: BTreeMap<&'a str, String>,
    annotations: &'a BTreeMap<String, String>,
}

/// Reads a statement whose signature is verified. One of its subjects must be `subject`.
pub(crate) fn read(payload: &[u8], subject: &Digest) -> Result<Said, Fault> {
    let read: Statement = serde_json::from_slice(payload).map_err(malformed)?;
    if !TYPES.contains(&read.kind.as_str()) {
        return Err(malformed(format!("its type is {:?}", read.kind)));
    }
    let (algorithm, hex) = (subject.algorithm().name(), subject.hex());
    let is_it = |one: &Subject| {
        let digests = one.digest.as_ref().map(|digests| &digests.0);
        digests.and_then(|digests| digests.get(algorithm)).is_some_and(|digest| *digest == hex)
    };
    let found = read.subject.into_iter().find(is_it).ok_or(Fault::OtherDigest)?;
    let predicate = short("its predicateType", read.predicate_type)?;
    let annotations = found.annotations.map(|annotations| annotations.0).unwrap_or_default();
    let signed = annotations.get(CREATED).and_then(Value::as_str).and_then(time);
    Ok(Said { predicate: Some(predicate), reference: None, signed, claims: claims(annotations) })
}

/// Writes cosign's signature of an image as a statement.
pub(crate) fn write(subject: &Digest, annotations: &BTreeMap<String, String>) -> Vec<u8> {
    let digest = BTreeMap::from([(subject.algorithm().name(), subject.hex())]);
    let written = Written {
        kind: TYPES[0],
        subject: [WrittenSubject { digest, annotations }],
        predicate_type: COSIGN_SIGNATURE,
        predicate: BTreeMap::new(),
    };
    serde_json::to_vec(&written).unwrap_or_default()
}
