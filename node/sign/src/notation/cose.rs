//! COSE_Sign1 (RFC 9052) as notation writes it (notaryproject/specifications
//! `signature-envelope-cose.md`).

use coset::cbor::value::Value;
use coset::iana::{Algorithm as Registered, EnumI64, HeaderParameter};
use coset::{
    CoseSign1, Header, Label, RegisteredLabel, RegisteredLabelWithPrivate, TaggedCborSerializable,
};
use rules::policies::signatures::Fault;
use rules::words::moment::Timestamp;

use super::opened::{EXPIRY, Opened, SIGNING_SCHEME, SIGNING_TIME, TIMESTAMP, Terms};
use crate::certificates::chain::LONGEST;
use crate::json::seconds;
use crate::keys::Algorithm;
use crate::payload::malformed;

/// The tag of a time in seconds (RFC 8949 section 3.4.2).
const EPOCH: u64 = 1;

/// Takes an envelope apart; beside it is its protected header.
pub(super) fn open(bytes: &[u8]) -> Result<(Opened, Header), Fault> {
    let written = CoseSign1::from_tagged_slice(bytes)
        .map_err(|error| malformed(format!("it is no COSE_Sign1: {error}")))?;
    let signed = written.tbs_data(&[]);
    let payload = written.payload.ok_or_else(|| malformed("it has no payload"))?;
    let chain = Label::Int(HeaderParameter::X5Chain.to_i64());
    let chain = match find(&written.unprotected, &chain) {
        Some(Value::Array(list)) => list.iter().take(LONGEST + 1).map(bytes_of).collect(),
        Some(one @ Value::Bytes(_)) => bytes_of(one).map(|der| vec![der]),
        _ => None,
    };
    let timestamp = find(&written.unprotected, &Label::Text(TIMESTAMP.into()));
    let opened = Opened {
        signed,
        signature: written.signature,
        chain: chain.ok_or_else(|| malformed("it has no chain of certificates"))?,
        timestamp: timestamp.and_then(bytes_of),
        payload,
    };
    Ok((opened, written.protected.header))
}

/// Reads the protected header.
pub(super) fn terms(header: &Header) -> Result<Terms, Fault> {
    let algorithm = match header.alg {
        Some(RegisteredLabelWithPrivate::Assigned(Registered::ES256)) => Algorithm::Es256,
        Some(RegisteredLabelWithPrivate::Assigned(Registered::ES384)) => Algorithm::Es384,
        Some(RegisteredLabelWithPrivate::Assigned(Registered::ES512)) => Algorithm::Es512,
        Some(RegisteredLabelWithPrivate::Assigned(Registered::PS256)) => Algorithm::Ps256,
        Some(RegisteredLabelWithPrivate::Assigned(Registered::PS384)) => Algorithm::Ps384,
        Some(RegisteredLabelWithPrivate::Assigned(Registered::PS512)) => Algorithm::Ps512,
        _ => return Err(malformed("its algorithm is not known")),
    };
    let Some(RegisteredLabel::Text(content_type)) = header.content_type.clone() else {
        return Err(malformed("it has no content type"));
    };
    let critical = header.crit.iter().map(|one| match one {
        RegisteredLabelWithPrivate::Text(name) => name.clone(),
        RegisteredLabelWithPrivate::Assigned(number) => number.to_i64().to_string(),
        RegisteredLabelWithPrivate::PrivateUse(number) => number.to_string(),
    });
    let text = |name: &str| find(header, &Label::Text(name.into()));
    let Some(Value::Text(scheme)) = text(SIGNING_SCHEME) else {
        return Err(malformed("it has no signing scheme"));
    };
    let signed = text(SIGNING_TIME).ok_or_else(|| malformed("it has no signing time"))?;
    Ok(Terms {
        algorithm,
        content_type,
        scheme: scheme.clone(),
        critical: critical.collect(),
        signed: time(signed)?,
        expiry: text(EXPIRY).map(time).transpose()?,
    })
}

fn find<'a>(header: &'a Header, label: &Label) -> Option<&'a Value> {
    header.rest.iter().find(|(name, _)| name == label).map(|(_, value)| value)
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    value.as_bytes().cloned()
}

fn time(value: &Value) -> Result<Timestamp, Fault> {
    let number = match value {
        Value::Tag(EPOCH, inner) => {
            inner.as_integer().and_then(|number| i64::try_from(number).ok())
        }
        _ => None,
    };
    number.map(seconds).ok_or_else(|| malformed("a time of it is no number of seconds"))
}
