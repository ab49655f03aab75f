//! Conditions of a write (RFC 9110 section 13.1): a writer says what a tag or digest must name for
//! its write to happen. They are part of the command and judged where it is applied: of two
//! writers that expect the same, the ledger lets one win.

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::names::Reference;

/// What a reference must name before a write, and what it must not name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precondition {
    /// The reference that the request is about.
    pub of: Reference,
    /// `If-Match`: one of these.
    pub is: Option<Named>,
    /// `If-None-Match`: none of these.
    pub is_not: Option<Named>,
}

/// What a condition lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Named {
    /// Whatever there is: `*`.
    Anything,
    /// Manifests with these digests.
    These(Vec<Digest>),
}

impl Named {
    fn has(&self, digest: &Digest) -> bool {
        match self {
            Named::Anything => true,
            Named::These(digests) => digests.contains(digest),
        }
    }
}

impl Precondition {
    /// That the reference names nothing.
    pub fn absent(of: Reference) -> Self {
        Precondition { of, is: None, is_not: Some(Named::Anything) }
    }

    /// That the reference names this manifest.
    pub fn names(of: Reference, digest: Digest) -> Self {
        Precondition { of, is: Some(Named::These(vec![digest])), is_not: None }
    }

    /// Whether the write may happen. `current` is what the reference names now; `None` if it names
    /// nothing.
    pub fn holds(&self, current: Option<&Digest>) -> bool {
        let named = |by: &Named| current.is_some_and(|digest| by.has(digest));
        self.is.as_ref().is_none_or(named) && !self.is_not.as_ref().is_some_and(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_compares_what_is_named_now_with_what_is_expected() {
        let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let these = |digests: &[Digest]| Some(Named::These(digests.to_vec()));
        let any = Some(Named::Anything);
        // is, is not; holds for: nothing, a, b
        let table = [
            (None, None, [true, true, true]),
            (these(&[a]), None, [false, true, false]),
            (these(&[a, b]), None, [false, true, true]),
            (these(&[]), None, [false, false, false]),
            (any.clone(), None, [false, true, true]),
            (None, any.clone(), [true, false, false]),
            (None, these(&[a]), [true, false, true]),
            (None, these(&[]), [true, true, true]),
            (any.clone(), these(&[a]), [false, false, true]),
            (these(&[a]), any, [false, false, false]),
        ];
        for (is, is_not, holds) in table {
            let of = Reference::Digest(a);
            let precondition = Precondition { of, is, is_not };
            for (current, expected) in [None, Some(&a), Some(&b)].into_iter().zip(holds) {
                assert_eq!(precondition.holds(current), expected, "{precondition:?} {current:?}");
            }
        }
    }
}
