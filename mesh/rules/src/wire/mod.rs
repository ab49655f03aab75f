//! Messages between nodes, without their transport. A message is encoded with postcard, after a
//! version byte. A node that receives another version says so and closes the connection.
//!
//! There is a file for each family. All messages have one address: `wire::NAME`.

mod ask;
mod blobs;
mod caches;
mod collecting;
mod frames;
mod jobs;
mod joining;
mod kinds;
mod ledger;
mod looking;
mod people;
mod proxies;
pub mod questions;
mod sealing;
mod upkeep;

use serde::Serialize;

pub use ask::{Answer, Ask};
pub use blobs::{BodyEnd, Bulk, CopyEnd, DAMAGED, Fetched, MAX_HAVE};
pub use caches::{CacheAnswer, CacheAsk, CacheResolution};
pub use collecting::{CollectionAnswer, CollectionAsk};
pub use frames::{HEAD, LARGEST, SMALL, transfer_time};
pub use jobs::{JobAsk, JobReport, LOG_LINE, LOG_LINES, PROGRESS};
pub use joining::{JoinGrant, JoinRequest, SECRET};
pub use kinds::{Kind, NotRead, Open, decode_join, edges_answer};
pub use ledger::{
    AuditedWrite, FromGranter, FromHolder, NoLedger, PlainWrite, Proposed, Pushed, Write,
    WriteError, WriteKind,
};
pub use looking::{Changed, Changes, Found, Lookup, MAX_QUESTIONS, Query};
pub use people::{Credentials, Verdict};
pub use proxies::{Listing, ReferrersPage, Referring, Resolution, Sought, TagsPage};
pub use sealing::{SealingAnswer, SealingAsk};
pub use upkeep::UpkeepAsk;

/// The version of the protocol.
pub const VERSION: u8 = 3;

/// Encodes a message after the version byte.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // plain data without maps of unknown length: postcard cannot fail on it
    postcard::to_extend(message, vec![VERSION]).unwrap_or_default()
}

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Another version of the protocol.
    #[error(
        "the peer speaks version {0} of the mesh protocol, this node {VERSION}: upgrade the older one"
    )]
    Version(u8),
    /// The bytes are not a message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Decodes what [`encode`] wrote.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BadMessage> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            postcard::from_bytes(body).map_err(|e| BadMessage::Malformed(e.to_string()))
        }
        Some((version, _)) => Err(BadMessage::Version(*version)),
        None => Err(BadMessage::Malformed("empty".into())),
    }
}
