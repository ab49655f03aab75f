//! What is signed: cosign's simple signing, and in-toto statements in DSSE envelopes.

pub(crate) mod dsse;
pub(crate) mod simple;
pub(crate) mod statement;

use std::collections::BTreeMap;

use rules::policies::signatures::{AnchorId, By, Fault, LONGEST_TEXT};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;

use crate::json::is_short;

/// What a payload says, after its signature was verified and its digest is the right one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// In-toto's predicate type.
    pub(crate) predicate: Option<String>,
    /// `docker-reference`.
    pub(crate) reference: Option<String>,
    /// When it was signed.
    pub(crate) signed: Option<Timestamp>,
    /// What else it says.
    pub(crate) claims: BTreeMap<String, String>,
}

/// What came of one signature.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Who has signed.
    pub(crate) by: By,
    /// Why it counts for nothing.
    pub(crate) fault: Option<Fault>,
    /// What it says, if its signer is known.
    pub(crate) said: Said,
    /// After which time it counts for nothing.
    pub(crate) until: Option<Timestamp>,
    /// SHA-256 of the signed bytes, if they could be read.
    pub(crate) payload: Option<Digest>,
}

impl Verdict {
    /// Not as its form demands, or not there.
    pub(crate) fn faulty(fault: Fault) -> Self {
        Verdict { fault: Some(fault), ..Verdict::unknown(None, None) }
    }

    /// By nobody who is trusted.
    pub(crate) fn unknown(hint: Option<AnchorId>, payload: Option<Digest>) -> Self {
        let by = By::Unknown { hint };
        Verdict { by, fault: None, said: Said::default(), until: None, payload }
    }

    /// By somebody: what the payload says counts, if it is as it should be.
    pub(crate) fn known(by: By, said: Result<Said, Fault>, payload: Digest) -> Self {
        let (said, fault) = match said {
            Ok(said) => (said, None),
            Err(fault) => (Said::default(), Some(fault)),
        };
        Verdict { by, fault, said, until: None, payload: Some(payload) }
    }
}

/// A malformed payload.
pub(crate) fn malformed(why: impl std::fmt::Display) -> Fault {
    // serde_json quotes what it does not know, and terminals obey control characters
    let why = why.to_string().replace(char::is_control, "\u{fffd}");
    let end = (0..=why.len().min(LONGEST_TEXT)).rev().find(|at| why.is_char_boundary(*at));
    Fault::Malformed(why[..end.unwrap_or(0)].to_owned())
}

/// A text of at most [`LONGEST_TEXT`] bytes, without control characters.
pub(crate) fn short(what: &str, text: String) -> Result<String, Fault> {
    match is_short(&text) {
        true => Ok(text),
        false => Err(malformed(format!(
            "{what} is longer than {LONGEST_TEXT} bytes, or has control characters"
        ))),
    }
}

/// Whether what a payload names is the subject.
pub(crate) fn is_of(named: &str, subject: &Digest) -> Result<(), Fault> {
    match named.parse::<Digest>() {
        Ok(named) if named == *subject => Ok(()),
        Ok(_) => Err(Fault::OtherDigest),
        Err(error) => Err(malformed(format!("{named:?}: {error}"))),
    }
}
