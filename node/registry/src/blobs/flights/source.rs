//! The sources of a blob's bytes: peers and upstreams.

use bytes::Bytes;
use mesh::links::LinkError;
use mesh::transfer;
use rules::blobs::flight::Claim;
use rules::wire::DAMAGED;

use upstream::{BlobStream, UpstreamError};

/// Bytes are written and published in pieces of about this size.
const PIECE: usize = 256 << 10;

/// A blob that is arriving from one source.
pub(super) enum Incoming {
    Peer(transfer::Fetch),
    Upstream(Box<BlobStream>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Peer(#[from] LinkError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Incoming {
    pub(super) fn claim(&mut self) -> Claim {
        match self {
            Incoming::Peer(fetch) => {
                std::mem::replace(&mut fetch.claim, Claim { size: 0, content: None, list: None })
            }
            Incoming::Upstream(stream) => Claim { size: stream.size, content: None, list: None },
        }
    }

    pub(super) fn behind(&self) -> u8 {
        match self {
            Incoming::Peer(fetch) => fetch.behind,
            Incoming::Upstream(_) => 0,
        }
    }

    /// Whether the source knows its copy to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        matches!(self, Incoming::Peer(fetch) if fetch.behind == DAMAGED)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        match self {
            Incoming::Peer(fetch) => Ok(fetch.next().await?),
            Incoming::Upstream(stream) => Ok(stream.next().await?),
        }
    }
}

/// The bytes that have arrived, and what follows them.
pub(super) struct Batch {
    pub(super) pieces: Vec<Bytes>,
    pub(super) then: Then,
}

pub(super) enum Then {
    More,
    End,
    Broke(FetchError),
}

/// Takes the bytes that have arrived, up to about [`PIECE`]. Waits only until there are some.
pub(super) async fn next_batch(fetch: &mut Incoming) -> Batch {
    let mut pieces = Vec::new();
    let mut length = 0;
    let then = loop {
        if length >= PIECE {
            break Then::More;
        }
        let next = if pieces.is_empty() {
            fetch.next().await
        } else {
            match futures::FutureExt::now_or_never(fetch.next()) {
                Some(next) => next,
                None => break Then::More,
            }
        };
        match next {
            Ok(Some(bytes)) => {
                length += bytes.len();
                pieces.push(bytes);
            }
            Ok(None) => break Then::End,
            Err(error) => break Then::Broke(error),
        }
    };
    Batch { pieces, then }
}
