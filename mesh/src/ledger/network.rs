//! The consensus's messages over the links: questions on the control connection, and snapshots as
//! file streams on the bulk connection ([`arrival`]).

use std::path::PathBuf;
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
use super::arrival::{self, Arrivals, Header};
use super::state::Raft;
use super::types::{Consensus, Snapshot, Vote};
use crate::links::{LinkError, Links, read_message, write_message};

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const TRANSFER: u8 = 4;

/// How long a snapshot may take to arrive and be installed.
const SNAPSHOT: Duration = Duration::from_secs(600);

/// Creates a [`Network`] for each peer.
pub(super) struct Factory(pub(super) Arc<Links>);

impl RaftNetworkFactory<Consensus> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Network {
        if let Ok(address) = node.addr.parse() {
            self.0.know(NodeId(target), address);
        }
        Network { links: self.0.clone(), to: NodeId(target) }
    }
}

/// The connection to one peer.
pub(super) struct Network {
    links: Arc<Links>,
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
        let (header, file) =
            arrival::open(vote, &snapshot.snapshot).await.map_err(|e| broken(&e))?;
        let encoded = postcard::to_stdvec(&header).map_err(|e| broken(&e))?;
        let (send, mut receive) =
            self.links.open_bulk(self.to, Bulk::Snapshot(encoded), Duration::from_secs(3)).await?;
        arrival::send(file, header.length, send).await.map_err(|e| broken(&e))?;
        read_message::<Reply<SnapshotResponse<Consensus>>>(&mut receive)
            .await?
            .map_err(LinkError::Refused)
    }
}

impl RaftNetworkV2<Consensus> for Network {
    type SnapshotData = PathBuf;

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
        self.call(VOTE, &request, option.hard_ttl()).await
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
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        match tokio::time::timeout(SNAPSHOT, self.send_snapshot(vote, snapshot)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(StreamingError::Unreachable(unreachable(error))),
            Err(_) => {
                Err(StreamingError::Unreachable(unreachable("the snapshot did not arrive in time")))
            }
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
        APPEND => handle!(append_entries),
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
            let snapshot = Snapshot { meta: header.meta, snapshot: arrived.path().into() };
            raft.install_full_snapshot(header.vote, snapshot).await.map_err(|e| e.to_string())
        }
        Err(error) => {
            tracing::warn!(%error, "a snapshot of the ledger did not arrive whole; its sender tries again");
            metrics::counter!("atoll_ledger_snapshots_broken_total").increment(1);
            Err(error.to_string())
        }
    };
    write_message(send, &installed).await?;
    let _ = send.finish();
    Ok(())
}
