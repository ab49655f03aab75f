//! Sigstore bundles (sigstore/protobuf-specs `sigstore_bundle.proto`, in protobuf's JSON) as cosign 3
//! writes them for images: one DSSE envelope with one signature, and what shows whose it is.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rules::policies::signatures::{AnchorId, Fault};
use serde::{Deserialize, Serialize};

use super::inclusion::Inclusion;
use super::keyless::{Entry, Material, Shown};
use super::number::Number;
use crate::certificates::path::MOST;
use crate::json::base64;
use crate::layers::{BUNDLE, is_bundle};
use crate::payload::dsse::{Envelope, Opened};
use crate::payload::malformed;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    verification_material: Beside,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Beside {
    #[serde(default)]
    public_key: Option<Hint>,
    #[serde(default)]
    certificate: Option<Raw>,
    #[serde(default, rename = "x509CertificateChain")]
    chain: Option<Chain>,
    #[serde(default)]
    tlog_entries: Option<Vec<Logged>>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<Raw>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logged {
    #[serde(default)]
    log_index: Number,
    log_id: LogId,
    #[serde(default)]
    integrated_time: Number,
    #[serde(default)]
    inclusion_promise: Option<Promise>,
    #[serde(default)]
    inclusion_proof: Option<Inclusion>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

#[derive(Deserialize, Serialize)]
struct Hint {
    #[serde(default)]
    hint: String,
}

/// A bundle that was read.
pub(crate) struct Bundle {
    /// The envelope.
    pub(crate) envelope: Opened,
    /// Its one signature.
    pub(crate) signature: Vec<u8>,
    /// The key that it claims to be by.
    pub(crate) hint: Option<AnchorId>,
    /// What a keyless signature has.
    pub(super) keyless: Result<Option<Material>, Fault>,
}

impl Bundle {
    /// Reads a bundle. Nothing of it is verified.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
        if !is_bundle(&written.media_type) {
            return Err(malformed(format!("its mediaType is {:?}", written.media_type)));
        }
        let envelope = written.dsse_envelope.ok_or_else(|| malformed("it has no DSSE envelope"))?;
        let mut envelope = envelope.open()?;
        let (Some(signature), true) = (envelope.signatures.pop(), envelope.signatures.is_empty())
        else {
            return Err(malformed("a bundle has exactly one signature"));
        };
        let beside = written.verification_material;
        let hint = beside.public_key.as_ref().and_then(|key| base64(&key.hint));
        let hint = hint.and_then(|hint| hint.try_into().ok()).map(AnchorId);
        // its first version had a promise only
        let may_lack =
            ["v0.1+json", "version=0.1"].iter().any(|end| written.media_type.ends_with(end));
        let lacks = if may_lack { Shown::Promised } else { Shown::Nothing };
        Ok(Bundle { envelope, signature, hint, keyless: beside.keyless(lacks) })
    }
}

impl Beside {
    fn keyless(self, lacks: Shown) -> Result<Option<Material>, Fault> {
        let chain = self.chain.map(|chain| chain.certificates).unwrap_or_default();
        let mut certificates =
            self.certificate.into_iter().chain(chain).take(MOST + 1).map(|raw| {
                base64(&raw.raw_bytes).ok_or_else(|| malformed("a certificate is no base64"))
            });
        let Some(leaf) = certificates.next().transpose()? else { return Ok(None) };
        let between = certificates.collect::<Result<_, _>>()?;
        // one entry is written; of more, the first counts that has a promise
        let entries = self.tlog_entries.unwrap_or_default();
        let promised = entries.into_iter().find_map(|one| {
            let promise = base64(&one.inclusion_promise.as_ref()?.signed_entry_timestamp)?;
            Some((promise, one))
        });
        let entry = promised.map(|(promise, one)| {
            let log = base64(&one.log_id.key_id).and_then(|id| id.try_into().ok());
            let (time, index) = (one.integrated_time.value(), one.log_index.value());
            let (Some(log), Some(time), Some(index)) = (log, time, index) else {
                return Err(malformed("the entry of the transparency log cannot be read"));
            };
            let log = AnchorId(log);
            let shown = one.inclusion_proof.map_or(lacks, Shown::Proof);
            Ok(Entry { body: one.canonicalized_body, time, index, log, promise, shown })
        });
        Ok(Some(Material { leaf, between, entry: entry.transpose()? }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct New {
    media_type: &'static str,
    verification_material: NewMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMaterial {
    public_key: Hint,
}

/// Writes a bundle of a signature with a key.
pub(crate) fn write(key: AnchorId, payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let hint = BASE64_STANDARD.encode(key.0);
    let new = New {
        media_type: BUNDLE,
        verification_material: NewMaterial { public_key: Hint { hint } },
        dsse_envelope: Envelope::of(payload, signature),
    };
    serde_json::to_vec(&new).unwrap_or_default()
}
