//! Entries on their way to a follower, in one stream: the leader sends the next message while
//! earlier ones are not answered yet, so a round trip does not limit how many entries it can commit
//! a second, and a small entry behind a large one waits only for that one's bytes.
//!
//! The stream keeps the order that the consensus library requires. Messages in it are the library's
//! requests, and answers have the order of the requests. If anything goes wrong, the stream ends,
//! and the library begins another one from the last entry that was answered.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use ground::clock;
use openraft::errors::{RPCError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use quinn::{RecvStream, SendStream};
use rules::ledger::appending::UnderWay;
use rules::wire::{LARGEST, SMALL, transfer_time};
use rules::words::moment::Moment;
use rules::words::names::NodeId;
use tokio::sync::{Semaphore, mpsc};

use super::log::consecutive;
use super::state::Raft;
use super::types::Consensus;
use crate::links::{LinkError, Links, begin_frame, finish_frame, write_frame};

/// How long the answer to a message with entries may take, beside the time that its bytes need.
pub(super) const APPEND_ENTRIES: Duration = Duration::from_secs(3);

/// An answer on the links. An error is a sentence.
pub(super) type Reply<T> = Result<T, String>;

/// An answer, as the consensus library takes it.
pub(super) type Appended = Result<StreamAppendResult<Consensus>, RPCError<Consensus>>;

/// The number of bytes of requests that a follower keeps in memory. A larger request is taken when
/// there is no other.
const AT_FOLLOWER: usize = 16 << 20;
/// How long the leader may take to read an answer.
const TAKEN: Duration = Duration::from_secs(30);

/// Sends the requests of `input` to `to`. A request without entries that comes before all others
/// goes by itself: heartbeats are such requests.
pub(super) fn send<'s, N, S>(
    links: Arc<Links>,
    to: NodeId,
    network: &'s mut N,
    input: S,
    option: RPCOption,
) -> BoxStream<'s, Appended>
where
    N: RaftNetworkV2<Consensus>,
    S: Stream<Item = AppendEntriesRequest<Consensus>> + Send + Unpin + 'static,
{
    let sender = Sender {
        links,
        to,
        network,
        input: Some(input),
        option,
        writes: None,
        reading: None,
        under_way: UnderWay::default(),
    };
    let answers = stream::unfold(Some(sender), |sender| async move {
        let mut sender = sender?;
        let answer = sender.next().await?;
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(sender)))
    });
    answers.boxed()
}

pub(super) fn unreachable(error: impl std::fmt::Display) -> Unreachable<Consensus> {
    Unreachable::new(&io::Error::other(error.to_string()))
}

/// The answer to a request, with the stream for the next one.
type Reading = BoxFuture<'static, (RecvStream, Result<Vec<u8>, LinkError>)>;

struct Sender<'s, N, S> {
    links: Arc<Links>,
    to: NodeId,
    network: &'s mut N,
    /// `None` after its end.
    input: Option<S>,
    option: RPCOption,
    writes: Option<SendStream>,
    reading: Option<Reading>,
    under_way: UnderWay,
}

impl<N, S> Sender<'_, N, S>
where
    N: RaftNetworkV2<Consensus>,
    S: Stream<Item = AppendEntriesRequest<Consensus>> + Send + Unpin + 'static,
{
    /// The next answer; `None` when there are no more requests.
    async fn next(&mut self) -> Option<Appended> {
        let failed = |error: &dyn std::fmt::Display| Some(Err(unreachable(error).into()));
        loop {
            if self.input.is_none() && self.under_way.is_empty() {
                return None;
            }
            let deadline = self.under_way.deadline(self.patience());
            tokio::select! {
                (receive, answer) = answered(&mut self.reading) => {
                    self.reading = Some(Box::pin(read(receive)));
                    let answer = match answer {
                        Ok(answer) => answer,
                        Err(error) => return failed(&error),
                    };
                    self.under_way.handle_answer(clock::now());
                    return match postcard::from_bytes::<Reply<StreamAppendResult<Consensus>>>(&answer) {
                        Ok(Ok(result)) => Some(Ok(result)),
                        Ok(Err(reason)) => failed(&reason),
                        Err(error) => failed(&error),
                    };
                }
                request = asked(&mut self.input), if self.under_way.may_send() => {
                    let Some(request) = request else {
                        self.input = None;
                        continue;
                    };
                    if self.writes.is_none() && request.entries.is_empty() {
                        return Some(self.send_alone(request).await);
                    }
                    if let Err(error) = self.send(request).await {
                        return failed(&error);
                    }
                }
                () = until(deadline) => return failed(&LinkError::Deadline),
            }
        }
    }

    /// How long an answer may take with what is under way now.
    fn patience(&self) -> Duration {
        APPEND_ENTRIES + transfer_time(self.under_way.bytes())
    }

    /// Sends a request outside of a stream, and waits for its answer.
    async fn send_alone(&mut self, request: AppendEntriesRequest<Consensus>) -> Appended {
        let before = request.prev_log_id;
        let answer = self.network.append_entries(request, self.option.clone()).await?;
        Ok(answer.into_stream_result(before, before))
    }

    async fn send(&mut self, request: AppendEntriesRequest<Consensus>) -> Result<(), LinkError> {
        let broken = |e: postcard::Error| LinkError::Broken(e.to_string());
        let body = postcard::to_stdvec(&request).map_err(broken)?;
        drop(request);
        let writes = match &mut self.writes {
            Some(writes) => writes,
            none => {
                let (writes, answers) = self.links.open_append(self.to, APPEND_ENTRIES).await?;
                self.reading = Some(Box::pin(read(answers)));
                none.insert(writes)
            }
        };
        self.under_way.handle_sent(clock::now(), body.len());
        let patience = APPEND_ENTRIES + transfer_time(self.under_way.bytes());
        tokio::time::timeout(patience, write_frame(writes, &body))
            .await
            .map_err(|_| LinkError::Deadline)?
    }
}

async fn read(mut receive: RecvStream) -> (RecvStream, Result<Vec<u8>, LinkError>) {
    let answer = frame(&mut receive, SMALL).await;
    (receive, answer)
}

/// Waits for the answer that is being read, if a stream is open.
async fn answered(reading: &mut Option<Reading>) -> (RecvStream, Result<Vec<u8>, LinkError>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// Waits for the next request; `None` after the last.
async fn asked<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now())).await,
        None => std::future::pending().await,
    }
}

/// Reads a frame of at most `largest` bytes.
async fn frame(receive: &mut RecvStream, largest: usize) -> Result<Vec<u8>, LinkError> {
    let length = begin_frame(receive, largest).await?;
    finish_frame(receive, length).await
}

/// Reads a leader's request. One whose entries do not follow each other, or what is before them, is
/// none: the consensus library takes that for granted.
pub(super) fn read_append(body: &[u8]) -> Result<AppendEntriesRequest<Consensus>, String> {
    let request: AppendEntriesRequest<Consensus> =
        postcard::from_bytes(body).map_err(|e| e.to_string())?;
    let first = request.prev_log_id.map_or(0, |before| before.index + 1);
    let indices = request.entries.iter().map(|entry| entry.log_id.index);
    if consecutive(Some(first), indices) {
        Ok(request)
    } else {
        Err("the entries of this message do not follow each other".into())
    }
}

/// Appends what arrives in a stream until it ends, and answers each request in its order.
pub(super) async fn receive(
    raft: &Raft,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), LinkError> {
    // each request keeps its part of the memory until it is answered
    let memory = Arc::new(Semaphore::new(AT_FOLLOWER));
    let (hold, mut held) = mpsc::unbounded_channel();
    let requests = stream::unfold((receive, hold), move |(mut receive, hold)| {
        let memory = memory.clone();
        async move {
            let length = begin_frame(&mut receive, LARGEST).await.ok()?;
            let part = u32::try_from(length.min(AT_FOLLOWER)).ok()?;
            hold.send(memory.acquire_many_owned(part).await.ok()?).ok()?;
            let body = finish_frame(&mut receive, length).await.ok()?;
            let request = read_append(&body).ok()?;
            Some((request, (receive, hold)))
        }
    });
    let mut answers = pin!(raft.stream_append(requests));
    while let Some(answer) = answers.next().await {
        let answer: Reply<StreamAppendResult<Consensus>> = answer.map_err(|e| e.to_string());
        let body = postcard::to_stdvec(&answer).map_err(|e| LinkError::Broken(e.to_string()))?;
        tokio::time::timeout(TAKEN, write_frame(&mut send, &body))
            .await
            .map_err(|_| LinkError::Deadline)??;
        let _ = held.try_recv();
    }
    let _ = send.finish();
    Ok(())
}
