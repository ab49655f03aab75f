//! DSSE envelopes (secure-systems-lab/dsse `envelope.md`, `protocol.md`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rules::policies::signatures::Fault;
use serde::{Deserialize, Serialize};

use super::malformed;
use crate::json::base64;

/// The type of a payload that is an in-toto statement.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The maximum number of signatures of one envelope.
const MOST: usize = 16;

/// An envelope as it is written.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Deserialize, Serialize)]
struct Signed {
    sig: String,
}

/// An envelope that was read.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The payload.
    pub(crate) payload: Vec<u8>,
    /// The signed bytes.
    pub(crate) signed: Vec<u8>,
    /// The signatures, at least one.
    pub(crate) signatures: Vec<Vec<u8>>,
}

impl Envelope {
    /// An envelope with one signature.
    pub(crate) fn of(payload: &[u8], signature: &[u8]) -> Self {
        Envelope {
            payload: BASE64_STANDARD.encode(payload),
            payload_type: IN_TOTO.into(),
            signatures: vec![Signed { sig: BASE64_STANDARD.encode(signature) }],
        }
    }

    /// Reads an envelope of an in-toto statement. Nothing of it is verified.
    pub(crate) fn open(&self) -> Result<Opened, Fault> {
        if self.payload_type != IN_TOTO {
            return Err(malformed(format!("its payloadType is {:?}", self.payload_type)));
        }
        if !(1..=MOST).contains(&self.signatures.len()) {
            return Err(malformed(format!("it has {} signatures", self.signatures.len())));
        }
        let payload = base64(&self.payload).ok_or_else(|| malformed("its payload is no base64"))?;
        let signatures = self
            .signatures
            .iter()
            .map(|one| base64(&one.sig).ok_or_else(|| malformed("its signature is no base64")));
        let signatures = signatures.collect::<Result<_, _>>()?;
        let signed = to_sign(&payload);
        Ok(Opened { payload, signed, signatures })
    }
}

/// The bytes that are signed for an in-toto statement (DSSE's PAE).
pub(crate) fn to_sign(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
