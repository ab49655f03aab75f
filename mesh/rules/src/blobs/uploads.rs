//! Uploads in several requests: what each request asks, whether it may, and how it ended. A request
//! may come to another node than the one that has the upload's bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::names::{NodeId, RepositoryName};

/// The id of an upload: a random number, and the node that has its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UploadId {
    random: u128,
    /// The node that has its bytes.
    pub home: NodeId,
}

impl UploadId {
    /// An id for an upload of `home`. `random` must not be guessable.
    pub fn new(random: u128, home: NodeId) -> Self {
        UploadId { random, home }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}{:016x}", self.random, self.home.0)
    }
}

/// The text is not an upload's id, so there is no such upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an upload")]
pub struct NoUploadId;

impl FromStr for UploadId {
    type Err = NoUploadId;

    fn from_str(text: &str) -> Result<Self, NoUploadId> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 48 || !text.bytes().all(hex) {
            return Err(NoUploadId);
        }
        let (random, home) = text.split_at(32);
        let random = u128::from_str_radix(random, 16).map_err(|_| NoUploadId)?;
        let home = u64::from_str_radix(home, 16).map_err(|_| NoUploadId)?;
        Ok(UploadId { random, home: NodeId(home) })
    }
}

/// Where a request says that its bytes belong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// After those that are there.
    Next,
    /// From the first to the last of these, counted from 0. `last + 1 == first` means none.
    At {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// It says it in a way that cannot be read.
    Unreadable(String),
}

impl Place {
    /// The maximum length of an unreadable header that is repeated to the client.
    const REPEATED: usize = 100;

    /// Reads a `Content-Range`. The specification writes `first-last`, HTTP `bytes first-last/all`;
    /// both are taken.
    pub fn read(header: &str) -> Self {
        let spec = header.trim();
        let spec = spec.strip_prefix("bytes ").unwrap_or(spec).trim();
        let spec = spec.split('/').next().unwrap_or(spec);
        let parsed = spec.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        });
        match parsed {
            Some((first, last)) if last >= first || last.checked_add(1) == Some(first) => {
                Place::At { first, last }
            }
            _ => Place::Unreadable(spec.chars().take(Self::REPEATED).collect()),
        }
    }
}

/// The body of a request, as it is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where its bytes belong.
    pub place: Place,
    /// Their number.
    pub length: Option<u64>,
}

impl Chunk {
    /// Whether these bytes may follow the `written` ones that are there (distribution-spec "Pushing
    /// a blob in chunks").
    pub fn check(&self, written: u64) -> Result<(), UploadRefusal> {
        let out_of_order = |message| Err(UploadRefusal::OutOfOrder { message, written });
        match &self.place {
            Place::Next => Ok(()),
            Place::Unreadable(spec) => out_of_order(format!(
                "the Content-Range '{spec}' cannot be read; it is written first-last"
            )),
            Place::At { first, .. } if *first != written => out_of_order(format!(
                "the chunk begins at {first}, but the upload has {written} bytes"
            )),
            Place::At { first, last } => {
                // it may be 2^64 bytes long
                let announced = u128::from(*last) + 1 - u128::from(*first);
                match self.length {
                    Some(length) if u128::from(length) != announced => Err(UploadRefusal::Length),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// What a request asks of an open upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Add the body (PATCH).
    Add(Chunk),
    /// Add the body, and make all of it the blob with this digest (PUT).
    Finish(Chunk, Digest),
    /// Say how much is there (GET).
    Show,
    /// Give it up (DELETE).
    Cancel,
}

impl Step {
    /// The digest of the blob that it makes, if it makes one.
    pub fn sealed(&self) -> Option<&Digest> {
        match self {
            Step::Finish(_, digest) => Some(digest),
            Step::Add(_) | Step::Show | Step::Cancel => None,
        }
    }
}

/// A step of an upload that another node has. The body follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedStep {
    /// The repository of the request, in which the caller may push.
    pub repository: RepositoryName,
    /// The upload.
    pub id: UploadId,
    /// The step.
    pub step: Step,
}

/// What a step has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepDone {
    /// The upload is open, and has so many bytes.
    Open(u64),
    /// It is a blob: hashed, fsynced and granted in its repository.
    Blob,
    /// It was given up.
    GivenUp,
}

/// Why a step was not taken, by what the client can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UploadRefusal {
    /// Begin again.
    #[error(
        "no such upload; it has ended or expired, or the node that had it is gone: begin again"
    )]
    Unknown,
    /// Another request is writing it, and bytes still arrive.
    #[error("another request is writing this upload")]
    Busy,
    /// Another request has taken it, because no bytes arrived.
    #[error("another request has taken over this upload")]
    TakenOver,
    /// The maximum number of uploads is open.
    #[error("{0} uploads are open on this node, the most that uploads.max_open allows")]
    TooMany(u64),
    /// The bytes do not follow those that are there.
    #[error("{message}")]
    OutOfOrder {
        /// What is wrong.
        message: String,
        /// The number of bytes that are there.
        written: u64,
    },
    /// The announced lengths differ.
    #[error("the Content-Length and the Content-Range differ")]
    Length,
    /// The bytes have another digest. The upload has ended.
    #[error("the bytes hash to {actual}, not to {expected}")]
    Digest {
        /// The expected digest.
        expected: Box<Digest>,
        /// The actual digest.
        actual: Box<Digest>,
    },
    /// The request's body did not come to its end at the node that has the upload.
    #[error("the request's body broke off")]
    BrokenOff,
    /// Try again, perhaps at another node: a full disk, or a node that cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of the node that has the upload.
    #[error("{0}")]
    Failed(String),
    /// It does not fit into the project's quota. The upload has ended.
    #[error("{0}")]
    OverQuota(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_must_begin_where_the_upload_ends_and_be_as_long_as_it_says() {
        let check = |range: &str, length, written| {
            Chunk { place: Place::read(range), length }.check(written)
        };
        for range in ["5-9", "bytes 5-9", " bytes 5-9/20 ", "5-9/*"] {
            assert_eq!(check(range, Some(5), 5), Ok(()), "{range}");
            assert_eq!(check(range, None, 5), Ok(()), "{range}");
            assert_eq!(check(range, Some(4), 5), Err(UploadRefusal::Length), "{range}");
            let refused = check(range, Some(5), 4);
            assert!(
                matches!(refused, Err(UploadRefusal::OutOfOrder { written: 4, .. })),
                "{range}"
            );
        }
        assert_eq!(check("0-0", Some(1), 0), Ok(()));
        assert_eq!(check("5-4", Some(0), 5), Ok(()), "nothing, as some clients write it");
        assert_eq!(check("0-18446744073709551615", None, 0), Ok(()));
        for range in ["", "-", "a-b", "9-5", "5", "5-", "-5", "18446744073709551616-1", "1-2-3"] {
            let refused = check(range, None, 5);
            assert!(matches!(refused, Err(UploadRefusal::OutOfOrder { .. })), "{range}");
        }
        assert_eq!(Chunk { place: Place::Next, length: Some(7) }.check(5), Ok(()));
    }

    proptest! {
        #[test]
        fn an_id_reads_back_and_names_its_node(random: u128, home: u64) {
            let id = UploadId::new(random, NodeId(home));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,60}", hex in "[0-9a-fA-F]{40,50}") {
            let _ = Place::read(&text);
            prop_assert!(text.parse::<UploadId>().is_err() || text.len() == 48);
            if let Ok(id) = hex.parse::<UploadId>() {
                prop_assert_eq!(id.to_string(), hex);
            }
        }
    }
}
