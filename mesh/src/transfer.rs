//! Blobs between nodes, as streams. This module only moves and counts bytes; what is stored, and
//! where, is up to the node.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use rules::blobs::flight::Claim;
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::blobs::uploads::{RelayedStep, StepDone, UploadRefusal};
use rules::wire::{BodyEnd, Bulk, CopyEnd, Fetched, LARGEST};
use rules::words::digest::{ContentHash, Digest};
use rules::words::names::{NodeId, RepositoryName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::links::{
    Line, LinkError, Links, begin_frame, finish_message, read_message, write_message,
};

/// The maximum number of bytes in one piece on a stream.
const PIECE: usize = 256 << 10;

/// How many times as long a less urgent transfer may be silent, because it waits behind pulls:
/// enough for 16 MiB of a pull to leave the send buffer.
const STANDS_BACK: u32 = 8;

/// How long a peer may take to begin, and how long a stream may make no progress.
#[derive(Clone, Copy, Debug)]
pub struct TransferTerms {
    /// The maximum time to the first byte.
    pub first_byte: Duration,
    /// The maximum time between two bytes of an upload that is copied out, and of a peer that reads
    /// bytes.
    pub stall: Duration,
    /// The maximum time between two bytes of a peer that sends a blob for which a client waits.
    pub source_stall: Duration,
}

/// A blob that is arriving from a peer.
pub struct Fetch {
    receive: RecvStream,
    patience: Duration,
    /// The number of nodes that pass the bytes on, between one that holds the blob (or the
    /// upstream) and this one: 0 if the peer holds it.
    pub behind: u8,
    /// What the peer says about the blob. Nothing of it was checked.
    pub claim: Claim,
}

/// A request for a blob.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The blob.
    pub digest: Digest,
    /// The first byte wanted.
    pub offset: u64,
    /// Whether the peer should fetch the blob itself if it lacks it.
    pub fill: bool,
    /// The proxy repository whose upstream has it, if no node does.
    pub via: Option<RepositoryName>,
    /// Whether the peer should send the list of the blob's groups.
    pub list: bool,
    /// Whether the peer must send the blob itself and name no other node.
    pub direct: bool,
    /// The purpose.
    pub class: Class,
}

/// A peer's answer to a fetch.
pub enum Fetching {
    /// The blob arrives.
    Found(Fetch),
    /// Another node passes it on.
    Elsewhere(NodeId),
    /// The peer does not have it.
    Missing,
}

/// Asks `from` for a blob. The bytes come as the peer sends them, and the caller checks them.
pub async fn fetch(
    links: &Links,
    from: NodeId,
    wanted: Wanted,
    terms: TransferTerms,
) -> Result<Fetching, LinkError> {
    let Wanted { digest, offset, fill, via, list, direct, class } = wanted;
    let ask = Bulk::Fetch { digest, offset, fill, via, list, direct, class };
    let begin = async {
        let (mut send, mut receive) = links.open_bulk(from, ask, terms.first_byte).await?;
        let _ = send.finish();
        let length = begin_frame(&mut receive, LARGEST).await?;
        Ok::<_, LinkError>((receive, length))
    };
    let (mut receive, length) =
        tokio::time::timeout(terms.first_byte, begin).await.map_err(|_| LinkError::Deadline)??;
    // a transfer without a waiting client is delayed behind more urgent ones; that is not silence
    let patience = if class == Class::Pull { 1 } else { STANDS_BACK };
    let between = (terms.source_stall * patience).min(terms.stall);
    // a large blob's list of groups takes a while
    match finish_message(&mut receive, length, between).await? {
        Fetched::Found { size, content, list, behind } => {
            let claim = Claim { size, content, list: list.map(serde_bytes::ByteBuf::into_vec) };
            // the node nearest to a source that stalls must have time to replace it first
            let patience = (between * (1 + u32::from(behind))).min(terms.stall);
            Ok(Fetching::Found(Fetch { receive, patience, behind, claim }))
        }
        Fetched::Elsewhere(node) => Ok(Fetching::Elsewhere(node)),
        Fetched::Missing => Ok(Fetching::Missing),
    }
}

impl Fetch {
    /// The next bytes; `None` at the end. Fails with [`LinkError::Deadline`] if the stream makes no
    /// progress for longer than the terms allow.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let chunk = tokio::time::timeout(self.patience, self.receive.read_chunk(PIECE, true)).await;
        let chunk = chunk
            .map_err(|_| LinkError::Deadline)?
            .map_err(|e| LinkError::Broken(e.to_string()))?;
        Ok(chunk.map(|c| c.bytes))
    }
}

/// The serving end of a fetch. If it is dropped before [`Serve::finish`], the stream is reset, so
/// that a short stream never looks complete.
pub struct Serve {
    send: SendStream,
    line: Line,
    class: Class,
    stall: Duration,
    finished: bool,
}

impl Serve {
    /// Takes the stream on which a [`Bulk::Fetch`] came. Among the streams of one line, the more
    /// urgent class goes first.
    pub fn new(send: SendStream, line: Line, class: Class, stall: Duration) -> Self {
        Serve { send, line, class, stall, finished: false }
    }

    /// Says that the blob is not here.
    pub async fn missing(mut self) -> Result<(), LinkError> {
        write_message(&mut self.send, &Fetched::Missing).await?;
        self.finish();
        Ok(())
    }

    /// Names the node that passes the blob on.
    pub async fn elsewhere(mut self, node: NodeId) -> Result<(), LinkError> {
        write_message(&mut self.send, &Fetched::Elsewhere(node)).await?;
        self.finish();
        Ok(())
    }

    /// Describes the whole blob; its bytes follow.
    pub async fn found(
        &mut self,
        size: u64,
        content: Option<ContentHash>,
        list: Option<Vec<u8>>,
        behind: u8,
    ) -> Result<(), LinkError> {
        let list = list.map(serde_bytes::ByteBuf::from);
        write_message(&mut self.send, &Fetched::Found { size, content, list, behind }).await?;
        // the bytes have low priority, but not the announcement: without it the asking node would
        // take this one for silent
        let _ = self.send.set_priority(self.class.priority());
        Ok(())
    }

    /// Completes when the peer wants no more bytes.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.send.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Sends the next bytes. Fails if the peer reads none for longer than the stall time.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        let write = self.line.write(self.class, self.send.write_chunk(bytes));
        match tokio::time::timeout(self.stall, write).await {
            Ok(result) => result.map_err(|e| LinkError::Broken(e.to_string())),
            Err(_) => Err(LinkError::Deadline),
        }
    }

    /// Ends the stream: all bytes were sent.
    pub fn finish(mut self) {
        self.finished = true;
        let _ = self.send.finish();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if !self.finished {
            // quinn would finish a dropped stream as if it were complete
            let _ = self.send.reset(1u32.into());
        }
    }
}

/// Bytes of an upload on their way to a peer, in pieces with their lengths.
struct PiecesOut {
    send: SendStream,
    line: Line,
    stall: Duration,
}

impl PiecesOut {
    async fn send(&mut self, bytes: &Bytes) -> Result<(), LinkError> {
        let write = async {
            for piece in bytes.chunks(PIECE) {
                let length = (piece.len() as u32).to_be_bytes();
                let write = async {
                    self.send.write_all(&length).await?;
                    self.send.write_all(piece).await
                };
                self.line.write(Class::Copy, write).await?;
            }
            Ok::<_, quinn::WriteError>(())
        };
        match tokio::time::timeout(self.stall, write).await {
            Ok(result) => result.map_err(|e| LinkError::Broken(e.to_string())),
            Err(_) => Err(LinkError::Deadline),
        }
    }

    async fn end<T: Serialize>(&mut self, end: &T) -> Result<(), LinkError> {
        self.send
            .write_all(&0u32.to_be_bytes())
            .await
            .map_err(|e| LinkError::Broken(e.to_string()))?;
        write_message(&mut self.send, end).await?;
        let _ = self.send.finish();
        Ok(())
    }
}

/// The next part of what comes in pieces.
pub enum Piece<T> {
    /// Bytes of an upload.
    Bytes(Bytes),
    /// Their end.
    End(T),
}

/// The receiving end of [`PiecesOut`].
struct PiecesIn {
    receive: RecvStream,
    stall: Duration,
}

impl PiecesIn {
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Piece<T>, LinkError> {
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let read = async {
            let mut length = [0; 4];
            self.receive.read_exact(&mut length).await.map_err(|e| broken(&e))?;
            match u32::from_be_bytes(length) as usize {
                0 => Ok(Piece::End(read_message(&mut self.receive).await?)),
                length if length > PIECE => {
                    Err(LinkError::Broken(format!("a piece of {length} bytes is too long")))
                }
                length => {
                    let mut piece = vec![0; length];
                    self.receive.read_exact(&mut piece).await.map_err(|e| broken(&e))?;
                    Ok(Piece::Bytes(piece.into()))
                }
            }
        };
        tokio::time::timeout(self.stall, read).await.map_err(|_| LinkError::Deadline)?
    }
}

/// An upload that is copied to a peer while it arrives.
pub struct CopyOut {
    pieces: PiecesOut,
    receive: RecvStream,
}

impl CopyOut {
    /// Begins a copy to `to`.
    pub async fn begin(
        links: &Links,
        to: NodeId,
        repository: RepositoryName,
        terms: TransferTerms,
    ) -> Result<Self, LinkError> {
        let (send, receive) =
            links.open_bulk(to, Bulk::Copy { repository }, terms.first_byte).await?;
        let _ = send.set_priority(Class::Copy.priority());
        let pieces = PiecesOut { send, line: links.line(to), stall: terms.stall };
        Ok(CopyOut { pieces, receive })
    }

    /// Sends the next bytes of the upload.
    pub async fn send(&mut self, bytes: &Bytes) -> Result<(), LinkError> {
        self.pieces.send(bytes).await
    }

    /// Names the digest of the upload. Returns once the peer holds it: hash checked, fsynced.
    pub async fn seal(mut self, digest: Digest) -> Result<Held, LinkError> {
        let deadline = self.pieces.stall;
        let end = async {
            self.pieces.end(&CopyEnd::Seal(digest)).await?;
            read_message::<Result<Held, String>>(&mut self.receive)
                .await?
                .map_err(LinkError::Refused)
        };
        tokio::time::timeout(deadline, end).await.map_err(|_| LinkError::Deadline)?
    }

    /// Ends the copy early; the peer drops it.
    pub async fn abandon(mut self) {
        let end = self.pieces.end(&CopyEnd::Abandon);
        let _ = tokio::time::timeout(Duration::from_secs(1), end).await;
    }
}

/// The receiving end of a copy.
pub struct CopyIn {
    send: SendStream,
    pieces: PiecesIn,
}

impl CopyIn {
    /// Takes the streams on which a [`Bulk::Copy`] came. `stall` is how long an upload may rest
    /// between two of its requests.
    pub fn new(send: SendStream, receive: RecvStream, stall: Duration) -> Self {
        CopyIn { send, pieces: PiecesIn { receive, stall } }
    }

    /// The next piece.
    pub async fn next(&mut self) -> Result<Piece<CopyEnd>, LinkError> {
        self.pieces.next().await
    }

    /// Answers a sealed copy.
    pub async fn answer(mut self, result: Result<Held, String>) -> Result<(), LinkError> {
        write_message(&mut self.send, &result).await?;
        let _ = self.send.finish();
        Ok(())
    }
}

/// A client's request that is passed on to the node that has its upload: the way of the body.
pub struct RelayOut(PiecesOut);

/// The way back of the answer, which may come before all of the body was sent.
pub struct RelayAnswer {
    receive: RecvStream,
    stall: Duration,
}

/// Passes a step on to the node that has the upload.
pub async fn relay(
    links: &Links,
    step: RelayedStep,
    terms: TransferTerms,
) -> Result<(RelayOut, RelayAnswer), LinkError> {
    let to = step.id.home;
    let (send, receive) = links.open_bulk(to, Bulk::Upload(step), terms.first_byte).await?;
    let _ = send.set_priority(Class::Copy.priority());
    let pieces = PiecesOut { send, line: links.line(to), stall: terms.stall };
    Ok((RelayOut(pieces), RelayAnswer { receive, stall: terms.stall }))
}

impl RelayOut {
    /// Sends the next bytes of the body.
    pub async fn send(&mut self, bytes: &Bytes) -> Result<(), LinkError> {
        self.0.send(bytes).await
    }

    /// Ends the body.
    pub async fn end(&mut self, end: BodyEnd) -> Result<(), LinkError> {
        self.0.end(&end).await
    }
}

impl RelayAnswer {
    /// How long the answer may take once all of the body was sent.
    pub fn patience(&self) -> Duration {
        self.stall
    }

    /// The answer. Waits without a deadline, because the body may take long. A part of it is lost if
    /// this is dropped before it completes.
    pub async fn read(mut self) -> Result<Result<StepDone, UploadRefusal>, LinkError> {
        read_message(&mut self.receive).await
    }
}

/// The receiving end of a relayed request.
pub struct RelayIn {
    send: SendStream,
    pieces: PiecesIn,
    ended: bool,
}

impl RelayIn {
    /// Takes the streams on which a [`Bulk::Upload`] came. `stall` is the maximum time between two
    /// pieces of the body. The node that passes it on ends one that its client does not send.
    pub fn new(send: SendStream, receive: RecvStream, stall: Duration) -> Self {
        RelayIn { send, pieces: PiecesIn { receive, stall }, ended: false }
    }

    /// The next bytes of the body; `None` at its end. Fails if it does not come to its end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        if self.ended {
            return Ok(None);
        }
        match self.pieces.next().await? {
            Piece::Bytes(bytes) => Ok(Some(bytes)),
            Piece::End(BodyEnd::Whole) => {
                self.ended = true;
                Ok(None)
            }
            Piece::End(BodyEnd::Broken) => Err(LinkError::Broken("the client broke off".into())),
        }
    }

    /// Answers.
    pub async fn answer(
        mut self,
        answer: &Result<StepDone, UploadRefusal>,
    ) -> Result<(), LinkError> {
        write_message(&mut self.send, answer).await?;
        let _ = self.send.finish();
        // a stream that is dropped unread looks to the sender as if the answer were lost
        let _ = self.pieces.receive.stop(0u32.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
