//! Envelopes of notation (notaryproject/specifications `signature-specification.md`): who has signed is
//! said by a chain of certificates, which must lead to one in a trust store.
//!
//! Not asked is whether a certificate was revoked (CRL, OCSP): that needs a network. The signing scheme
//! `notary.x509.signingAuthority` and critical attributes of plugins are not known, and signatures that
//! need them count for nothing.

mod cose;
mod jws;
mod opened;

use std::collections::BTreeMap;

use rules::policies::signatures::{By, Fault};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::anchor::{Anchors, Authority, COMPROMISED};
use crate::certificates::chain::Chain;
use crate::certificates::{Certificate, timestamp};
use crate::json::{Unique, claims};
use crate::keys::Algorithm;
use crate::layers::JWS;
use crate::payload::{Said, Verdict, is_of, malformed, short};

use opened::{EXPIRY, Opened, SIGNING_SCHEME, Terms};

/// The content type of what is signed.
const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
/// The only signing scheme that is known.
const SCHEME: &str = "notary.x509";

/// What is signed beside the payload.
enum Headers {
    Jws(Vec<u8>),
    Cose(Box<coset::Header>),
}

impl Headers {
    fn read(&self, key: Option<Algorithm>) -> Result<Terms, Fault> {
        let terms = match self {
            Headers::Jws(json) => jws::terms(json)?,
            Headers::Cose(header) => cose::terms(header)?,
        };
        if Some(terms.algorithm) != key {
            return Err(malformed(format!(
                "its algorithm {} is not the one of its key",
                terms.algorithm.name()
            )));
        }
        if terms.content_type != PAYLOAD {
            return Err(malformed(format!("its content type is {:?}", terms.content_type)));
        }
        if terms.scheme != SCHEME {
            return Err(malformed(format!("its signing scheme {:?} is not known", terms.scheme)));
        }
        let is_critical = |name: &str| terms.critical.iter().any(|one| one == name);
        if let Some(name) =
            terms.critical.iter().find(|one| ![SIGNING_SCHEME, EXPIRY].contains(&one.as_str()))
        {
            return Err(malformed(format!("it demands that {name:?} is understood")));
        }
        if !is_critical(SIGNING_SCHEME) || (terms.expiry.is_some() && !is_critical(EXPIRY)) {
            return Err(malformed("its scheme or its expiry is not marked as critical"));
        }
        if terms.expiry.is_some_and(|expiry| expiry <= terms.signed) {
            return Err(malformed("it expires before it was signed"));
        }
        Ok(terms)
    }
}

/// The signature of an envelope: a verdict for each trust store that has a certificate of its chain.
pub(crate) fn envelope(
    media_type: &str,
    bytes: &[u8],
    subject: &Digest,
    anchors: &Anchors,
) -> Vec<Verdict> {
    let opened = match media_type {
        JWS => jws::open(bytes).map(|(opened, header)| (opened, Headers::Jws(header))),
        _ => cose::open(bytes).map(|(opened, header)| (opened, Headers::Cose(Box::new(header)))),
    };
    let judged = opened.and_then(|(opened, headers)| judge(&opened, &headers, subject, anchors));
    judged.unwrap_or_else(|fault| vec![Verdict::faulty(fault)])
}

fn judge(
    opened: &Opened,
    headers: &Headers,
    subject: &Digest,
    anchors: &Anchors,
) -> Result<Vec<Verdict>, Fault> {
    let payload = Digest::sha256(&opened.signed);
    let leaf = opened.chain.first().ok_or_else(|| malformed("it has no certificate"))?;
    let leaf = Certificate::read(leaf).map_err(Fault::Chain)?;
    if !leaf.key.verifies_envelope(&opened.signed, &opened.signature) {
        return Err(Fault::Wrong);
    }
    let faulty = |fault| Verdict { payload: Some(payload), ..Verdict::faulty(fault) };
    let chain = match Chain::read(&opened.chain) {
        Ok(chain) => chain,
        Err(why) => return Ok(vec![faulty(Fault::Chain(why))]),
    };
    let mut verdicts = Vec::<Verdict>::new();
    for authority in anchors.authorities() {
        let of_chain = chain
            .certificates()
            .iter()
            .rev()
            .find(|one| authority.certificates.iter().any(|trusted| trusted.id == one.id));
        let Some(root) = of_chain.map(|one| one.id) else { continue };
        let verdict = match read(opened, headers, subject, &chain, authority) {
            Ok((said, until)) => {
                let by = By::Certificate { root, subject: chain.leaf().subject.clone() };
                let certificates: Vec<&Certificate> = chain.certificates().iter().collect();
                if anchors.is_compromised(&by, &certificates) {
                    verdicts.push(faulty(Fault::Chain(COMPROMISED.into())));
                    continue;
                }
                Verdict { until, ..Verdict::known(by, Ok(said), payload) }
            }
            Err(fault) => faulty(fault),
        };
        // two signers that trust the same authority in the same way
        let is_there = |one: &Verdict| {
            one.by == verdict.by && one.until == verdict.until && one.fault == verdict.fault
        };
        if !verdicts.iter().any(is_there) {
            verdicts.push(verdict);
        }
    }
    if verdicts.is_empty() {
        let root = chain.certificates().last().map(|root| root.id);
        verdicts.push(Verdict::unknown(root, Some(payload)));
    }
    Ok(verdicts)
}

/// What the envelope says, and until when it counts: for ever, if that is not limited.
fn read(
    opened: &Opened,
    headers: &Headers,
    subject: &Digest,
    chain: &Chain,
    authority: &Authority,
) -> Result<(Said, Option<Timestamp>), Fault> {
    let terms = headers.read(chain.leaf().key.algorithm())?;
    short("its certificate's subject", chain.leaf().subject.clone())?;
    let (from, end) = chain.validity();
    let stamped = opened.timestamp.as_ref().and_then(|token| {
        let (early, late) =
            timestamp::verify(token, &opened.signature, &authority.timestamps).ok()?;
        (early >= from && late <= end).then_some(())
    });
    if stamped.is_none() && terms.signed < from {
        return Err(Fault::Chain("a certificate was not valid yet when it was signed".into()));
    }
    // with a timestamp it does not matter that certificates end
    let end = stamped.is_none().then_some(end);
    let until = terms.expiry.into_iter().chain(end).min();
    let mut said = payload(&opened.payload, subject)?;
    said.signed = Some(terms.signed);
    Ok((said, until))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Payload {
    target_artifact: Target,
}

#[derive(Deserialize)]
struct Target {
    digest: String,
    #[serde(default)]
    annotations: Option<Unique<Value>>,
}

fn payload(bytes: &[u8], subject: &Digest) -> Result<Said, Fault> {
    let read: Payload = serde_json::from_slice(bytes).map_err(malformed)?;
    is_of(&read.target_artifact.digest, subject)?;
    let annotations: BTreeMap<String, Value> =
        read.target_artifact.annotations.map(|all| all.0).unwrap_or_default();
    Ok(Said { claims: claims(annotations), ..Said::default() })
}

/// Reads all of an envelope, whoever has signed it.
#[cfg(fuzzing)]
pub(crate) fn read_all(media_type: &str, bytes: &[u8], subject: &Digest) {
    let _ = (jws::terms(bytes), payload(bytes, subject));
    if media_type != JWS
        && let Ok((_, header)) = cose::open(bytes)
    {
        let _ = Headers::Cose(Box::new(header)).read(Some(Algorithm::Es256));
    }
}
