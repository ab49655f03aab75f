//! JSON web signatures (RFC 7515, flattened JSON) as notation writes them
//! (notaryproject/specifications `signature-envelope-jws.md`).

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rules::policies::signatures::Fault;
use serde::Deserialize;

use super::opened::{Opened, Terms};
use crate::certificates::chain::LONGEST;
use crate::json::{base64, time};
use crate::keys::Algorithm;
use crate::payload::malformed;

#[derive(Deserialize)]
struct Written {
    payload: String,
    protected: String,
    header: Unprotected,
    signature: String,
}

#[derive(Deserialize)]
struct Unprotected {
    x5c: Vec<String>,
    #[serde(default, rename = "io.cncf.notary.timestampSignature")]
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    cty: String,
    crit: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(default, rename = "io.cncf.notary.signingTime")]
    signed: Option<String>,
    #[serde(default, rename = "io.cncf.notary.expiry")]
    expiry: Option<String>,
}

/// Takes an envelope apart; beside it is its protected header.
pub(super) fn open(bytes: &[u8]) -> Result<(Opened, Vec<u8>), Fault> {
    let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
    let decode = |what: &str, text: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text);
        bytes.map_err(|_| malformed(format!("its {what} is no base64url")))
    };
    let chain = written
        .header
        .x5c
        .iter()
        .take(LONGEST + 1)
        .map(|text| base64(text).ok_or_else(|| malformed("a certificate is no base64")));
    let timestamp = match written.header.timestamp.as_deref() {
        None | Some("") => None,
        Some(text) => Some(base64(text).ok_or_else(|| malformed("its timestamp is no base64"))?),
    };
    let header = decode("protected header", &written.protected)?;
    let opened = Opened {
        signed: format!("{}.{}", written.protected, written.payload).into_bytes(),
        signature: decode("signature", &written.signature)?,
        chain: chain.collect::<Result<_, _>>()?,
        timestamp,
        payload: decode("payload", &written.payload)?,
    };
    Ok((opened, header))
}

/// Reads the protected header.
pub(super) fn terms(json: &[u8]) -> Result<Terms, Fault> {
    let read: Protected = serde_json::from_slice(json).map_err(malformed)?;
    let algorithm = Algorithm::ALL.into_iter().find(|one| one.name() == read.alg);
    let moment = |text: &str| time(text).ok_or_else(|| malformed(format!("{text:?} is no time")));
    let signed = read.signed.ok_or_else(|| malformed("it has no signing time"))?;
    Ok(Terms {
        algorithm: algorithm
            .ok_or_else(|| malformed(format!("its algorithm {:?} is not known", read.alg)))?,
        content_type: read.cty,
        scheme: read.scheme,
        critical: read.crit,
        signed: moment(&signed)?,
        expiry: read.expiry.as_deref().map(moment).transpose()?,
    })
}
