//! The consensus's messages over the links: questions on the control connection, and snapshots on
//! the bulk connection ([`carried`]; before level 8 as files, [`arrival`]).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::impls::BasicNode;
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quinn::{RecvStream, SendStream};
use rules::ledger::level::Level;
use rules::wire::{Answer, Bulk, questions};
use rules::words::names::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::appending::{self, APPEND_ENTRIES, Appended, Reply, unreachable};
use super::arrival::{self, Announced, Arrivals, Header};
use super::carried::{self, Carried, Held, Snapshot};
use super::returning::Witness;
use super::state::{FOR_ANOTHER, Raft, StateMachine};
use super::types::{Consensus, Vote};
use crate::links::{LinkError, Links, read_message, write_message};

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const TRANSFER: u8 = 4;

/// How long the stream for a snapshot may take to open.
const OPEN: Duration = Duration::from_secs(3);
/// How long a snapshot that has arrived may take to be installed.
const INSTALL: Duration = Duration::from_secs(1800);
/// How long a snapshot may take to arrive and be installed. It ends much sooner when nothing
/// arrives any more.
const SNAPSHOT: Duration = Duration::from_secs(12 * 3600);

/// Creates a [`Network`] for each peer.
pub(super) struct Factory {
    pub(super) links: Arc<Links>,
    pub(super) machine: StateMachine,
    pub(super) witness: Witness,
}

impl RaftNetworkFactory<Consensus> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Network {
        if let Ok(address) = node.addr.parse() {
            self.links.know(NodeId(target), address);
        }
        Network {
            links: self.links.clone(),
            machine: self.machine.clone(),
            witness: self.witness.clone(),
            to: NodeId(target),
        }
    }
}

/// The connection to one peer.
pub(super) struct Network {
    links: Arc<Links>,
    machine: StateMachine,
    witness: Witness,
    to: NodeId,
}

impl Network {
    async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        kind: u8,
        question: &Q,
        deadline: Duration,
    ) -> Result<R, RPCError<Consensus>> {
        let failed = |e: String| RPCError::Unreachable(unreachable(e));
        let body = postcard::to_stdvec(question).map_err(|e| failed(e.to_string()))?;
        match self.links.ask(self.to, questions::Raft { kind, body }, deadline).await {
            Ok(bytes) => {
                let reply: Reply<R> =
                    postcard::from_bytes(&bytes).map_err(|e| failed(e.to_string()))?;
                reply.map_err(failed)
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Consensus>, LinkError> {
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let Carried::Here(held) = snapshot.snapshot else {
            return Err(broken(&"only this node's own records are sent"));
        };
        let mut receive = if self.links.known(self.to).level < Level::RANGES {
            self.send_file(vote, *held).await?
        } else {
            let (meta, fingerprint) = (held.meta.clone(), held.fingerprint);
            let announced = postcard::to_stdvec(&Announced { vote, meta, fingerprint });
            let bulk = Bulk::State(announced.map_err(|e| broken(&e))?);
            let (send, mut receive) = self.links.open_bulk(self.to, bulk, OPEN).await?;
            carried::give(*held, send, &mut receive).await?;
            receive
        };
        let installed = read_message::<Reply<SnapshotResponse<Consensus>>>(&mut receive);
        let installed = tokio::time::timeout(INSTALL, installed).await;
        installed.map_err(|_| LinkError::Deadline)??.map_err(LinkError::Refused)
    }

    /// For a peer that may be of an earlier build: as a file, which is written for it.
    async fn send_file(&self, vote: Vote, held: Held) -> Result<RecvStream, LinkError> {
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let name = format!("{FOR_ANOTHER}{}", self.to);
        let (header, file) =
            arrival::open_written(&self.machine, vote, held, name).await.map_err(|e| broken(&e))?;
        let encoded = postcard::to_stdvec(&header).map_err(|e| broken(&e))?;
        let bulk = Bulk::Snapshot(encoded);
        let (send, receive) = self.links.open_bulk(self.to, bulk, OPEN).await?;
        arrival::send(file, header.length, send).await.map_err(|e| broken(&e))?;
        Ok(receive)
    }
}

impl RaftNetworkV2<Consensus> for Network {
    type SnapshotData = Carried;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Consensus>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Consensus>, RPCError<Consensus>> {
        // heartbeats have their own worker, so a long message may take longer than their interval
        let deadline = if request.entries.is_empty() {
            option.hard_ttl()
        } else {
            option.hard_ttl().max(APPEND_ENTRIES)
        };
        self.call(APPEND, &request, deadline).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Consensus>>>
    where
        S: Stream<Item = AppendEntriesRequest<Consensus>> + Send + Unpin + 'static,
    {
        if self.links.known(self.to).level < Level::STREAMS {
            return stream_append_sequential(self, input, option);
        }
        let appended = appending::send(self.links.clone(), self.to, self, input, option);
        Box::pin(async move { Ok(appended) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        let term = request.vote.leader_id().term;
        let answer: VoteResponse<Consensus> = self.call(VOTE, &request, option.hard_ttl()).await?;
        if answer.vote_granted {
            self.witness.voted(self.to, term);
        }
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Consensus>,
        option: RPCOption,
    ) -> Result<VoteResponse<Consensus>, RPCError<Consensus>> {
        self.call(PRE_VOTE, &request, option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Consensus>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Consensus>, RPCError<Consensus>> {
        self.call(TRANSFER, &request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        let sent = async {
            let sent = tokio::time::timeout(SNAPSHOT, self.send_snapshot(vote, snapshot)).await;
            sent.unwrap_or(Err(LinkError::Deadline))
        };
        // a leader that was deposed stops: the next one goes on with what has arrived
        let sent = std::pin::pin!(sent);
        match futures::future::select(sent, std::pin::pin!(cancel)).await {
            futures::future::Either::Left((Ok(response), _)) => Ok(response),
            futures::future::Either::Left((Err(error), _)) => {
                tracing::warn!(to = %self.to, %error, "the ledger's records did not get there; they are sent again");
                Err(StreamingError::Unreachable(unreachable(error)))
            }
            futures::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

/// Whether a message asks for this node's vote.
pub(super) fn asks_for_a_vote(kind: u8) -> bool {
    matches!(kind, VOTE | PRE_VOTE)
}

/// Answers a peer's message.
pub(super) async fn answer(raft: &Raft, kind: u8, body: &[u8]) -> Answer {
    fn reply<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Answer {
        match postcard::to_stdvec(&result.map_err(|e| e.to_string())) {
            Ok(bytes) => Answer::Raft(bytes),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
    macro_rules! handle {
        ($method:ident) => {
            match postcard::from_bytes(body) {
                Ok(request) => reply(raft.$method(request).await),
                Err(error) => Answer::Refused(error.to_string()),
            }
        };
    }
    match kind {
        APPEND => match appending::read_append(body) {
            Ok(request) => reply(raft.append_entries(request).await),
            Err(error) => Answer::Refused(error),
        },
        VOTE => handle!(vote),
        PRE_VOTE => handle!(pre_vote),
        TRANSFER => handle!(handle_transfer_leader),
        _ => Answer::Refused(format!("consensus message {kind} is of a newer version")),
    }
}

/// For `fuzz/`: reads `body` as each message of the consensus that a peer may send.
#[cfg(fuzzing)]
pub fn read_consensus(body: &[u8]) {
    let _ = postcard::from_bytes::<AppendEntriesRequest<Consensus>>(body);
    let _ = postcard::from_bytes::<AppendEntriesResponse<Consensus>>(body);
    let _ = postcard::from_bytes::<VoteRequest<Consensus>>(body);
    let _ = postcard::from_bytes::<VoteResponse<Consensus>>(body);
    let _ = postcard::from_bytes::<TransferLeaderRequest<Consensus>>(body);
    let _ = postcard::from_bytes::<Header>(body);
    let _ = postcard::from_bytes::<Announced>(body);
    carried::read_messages(body);
    let _ = postcard::from_bytes::<Reply<SnapshotResponse<Consensus>>>(body);
}

/// Receives a snapshot and installs it if it is complete. If it is not, the sender is told so and
/// tries again.
pub(super) async fn receive_snapshot(
    raft: &Raft,
    arrivals: &Arrivals,
    header: &[u8],
    send: &mut SendStream,
    receive: &mut RecvStream,
) -> Result<(), LinkError> {
    let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
    let header: Header = postcard::from_bytes(header).map_err(|e| broken(&e))?;
    let installed: Reply<SnapshotResponse<Consensus>> = match arrivals.take(&header, receive).await
    {
        Ok(arrived) => {
            tracing::info!(bytes = header.length, "a snapshot of the ledger arrived");
            let state = Carried::File(arrived.path().into());
            let snapshot = Snapshot { meta: header.meta, snapshot: state };
            install(raft, arrivals, header.vote, snapshot).await
        }
        Err(error) => Err(broke(&error)),
    };
    write_message(send, &installed).await?;
    let _ = send.finish();
    Ok(())
}

/// Receives a state in ranges and installs it if it is complete. If it is not, what has arrived
/// counts when a sender tries again.
pub(super) async fn receive_state(
    raft: &Raft,
    machine: &StateMachine,
    arrivals: &Arrivals,
    announced: &[u8],
    send: &mut SendStream,
    receive: &mut RecvStream,
) -> Result<(), LinkError> {
    let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
    let Announced { vote, meta, fingerprint } =
        postcard::from_bytes(announced).map_err(|e| broken(&e))?;
    let Some(turn) = arrivals.latest.begin(vote).await else {
        return Err(broken(&"a later leader sends its records"));
    };
    let base = machine.held().map_err(|e| broken(&e))?;
    let file = arrivals.nameless().map_err(|e| broken(&e))?;
    let (earlier, streams) = (&arrivals.earlier, (&mut *send, receive));
    let taken = carried::take(base, fingerprint, earlier, file, streams, turn.superseded()).await;
    let installed: Reply<SnapshotResponse<Consensus>> = match taken {
        Ok(arrived) => {
            tracing::info!(
                received = arrived.received,
                lacked = arrived.stored(),
                ranges = arrived.pieces.len(),
                "the ledger's records arrived from the leader"
            );
            let snapshot = Snapshot { meta, snapshot: Carried::Arrived(Box::new(arrived)) };
            install(raft, arrivals, vote, snapshot).await
        }
        Err(error) => Err(broke(&error)),
    };
    write_message(send, &installed).await?;
    let _ = send.finish();
    Ok(())
}

/// Makes a state that has arrived this node's own.
async fn install(
    raft: &Raft,
    arrivals: &Arrivals,
    vote: Vote,
    snapshot: Snapshot,
) -> Reply<SnapshotResponse<Consensus>> {
    let installed = raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?;
    arrivals.note_installed();
    Ok(installed)
}

/// Says that a snapshot did not arrive completely.
fn broke(error: &dyn std::fmt::Display) -> String {
    tracing::warn!(%error, "a snapshot of the ledger did not arrive whole; its sender tries again");
    metrics::counter!("atoll_ledger_snapshots_broken_total").increment(1);
    error.to_string()
}
