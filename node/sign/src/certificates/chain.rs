//! Chains of certificates as notation demands them (notaryproject/specifications
//! `signature-specification.md`, "Certificate Requirements"; notation-core-go
//! `x509/codesigning_cert_validations.go`).

use rules::words::moment::Timestamp;

use super::Certificate;

/// The maximum number of certificates in a chain.
pub(crate) const LONGEST: usize = 10;

/// A chain from the certificate that signed to one that has signed itself.
#[derive(Debug)]
pub(crate) struct Chain {
    certificates: Vec<Certificate>,
}

impl Chain {
    /// Reads a chain and checks it, except for its times. The error is the end of a sentence.
    pub(crate) fn read(ders: &[Vec<u8>]) -> Result<Self, String> {
        if !(1..=LONGEST).contains(&ders.len()) {
            return Err(format!("the chain has {} certificates", ders.len()));
        }
        let certificates = ders.iter().map(|der| Certificate::read(der));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        check(&certificates)?;
        Ok(Chain { certificates })
    }

    /// The certificate that signed.
    pub(crate) fn leaf(&self) -> &Certificate {
        // read() has refused an empty chain
        &self.certificates[0]
    }

    /// All, the one that signed first.
    pub(crate) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// From when to when all of them are valid.
    pub(crate) fn validity(&self) -> (Timestamp, Timestamp) {
        let all = &self.certificates;
        let from = all.iter().map(|one| one.not_before).max().unwrap_or_default();
        let until = all.iter().map(|one| one.not_after).min().unwrap_or_default();
        (from, until)
    }
}

fn check(chain: &[Certificate]) -> Result<(), String> {
    let (Some(leaf), Some(root)) = (chain.first(), chain.last()) else {
        return Err("the chain is empty".into());
    };
    if !root.is_issued_by(root) {
        return Err("the chain does not end in a certificate that has signed itself".into());
    }
    for pair in chain.windows(2) {
        let [one, next] = pair else { continue };
        if one.is_issued_by(one) {
            return Err("a certificate before the last has signed itself".into());
        }
        if !one.is_issued_by(next) {
            return Err("a certificate is not issued by the next one".into());
        }
    }
    for (below, authority) in chain.iter().skip(1).enumerate() {
        may_issue(authority, below)?;
    }
    may_sign(leaf)
}

/// `below` is the number of authorities between it and the leaf.
fn may_issue(authority: &Certificate, below: usize) -> Result<(), String> {
    let Some(limit) = authority.authority else {
        return Err("a certificate that has issued another is no authority's".into());
    };
    if limit.is_some_and(|limit| below > limit as usize) {
        return Err("the chain is longer than an authority allows".into());
    }
    match authority.usage {
        Some((usage, true)) if usage.signs_certificates => Ok(()),
        _ => Err("an authority's key may not sign certificates".into()),
    }
}

fn may_sign(leaf: &Certificate) -> Result<(), String> {
    if leaf.authority.is_some() {
        return Err("an authority's certificate signs no images".into());
    }
    match leaf.usage {
        Some((usage, true)) if usage.signs && !usage.other => {}
        _ => return Err("the key may do something else than sign, or may not sign".into()),
    }
    match leaf.purposes {
        Some((purposes, _)) if purposes.excluded || purposes.time_stamping => {
            Err("the certificate is for something else than signing code".into())
        }
        Some((purposes, _)) if !purposes.code_signing => {
            Err("the certificate is not for signing code".into())
        }
        _ => Ok(()),
    }
}
