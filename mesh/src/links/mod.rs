//! QUIC links between nodes: mutual TLS under the mesh's CA. A peer's id and role come from its
//! certificate, never from its messages.
//!
//! Nothing that a peer sends is decoded before it is known who sends it and how long a message of
//! its kind may be ([`serve`]). The dialling side checks the certificate that answers, too:
//! messages for replicas are not sent to an edge that listens at a replica's address.
//!
//! Each peer has three connections, dialled on demand: one for the consensus and read leases, one
//! for gossip and all other questions, and one for bulk (blobs, snapshots). So questions that wait
//! for their answers use up no streams that heartbeats need, and a blob's flow control and losses
//! delay neither. Every call has its own deadline, because the connection of a killed peer looks
//! open until its idle timeout. The deadline does not include the time that the bytes of a large
//! message need ([`wire::transfer_time`]).

mod congestion;
mod frame;
mod line;
mod path;
mod serve;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream,
    TransportConfig,
};
use rules::ledger::level::Level;
use rules::ledger::records::Role;
use rules::members::door::{Doorkeeper, DoorkeeperTerms, Known, REMOVED, Shown, Standing};
use rules::wire::questions::Question;
use rules::wire::{self, Answer, Ask, BadMessage, Bulk, Open};
use rules::words::names::NodeId;

pub use frame::{
    begin_frame, finish_frame, finish_message, read_message, read_message_within, write_frame,
    write_message,
};
pub use line::Line;
pub use serve::{Guest, Service, serve};
pub use tls::{CongestionControl, Demand, ask_to_join};

use crate::identity::{Identity, IdentityError};

/// What the node's records say about peers.
pub trait Judge: std::fmt::Debug + Send + Sync + 'static {
    /// What is known of `node` now.
    fn known(&self, node: NodeId) -> Known;
    /// The certificates (PEM) of the mesh's authorities. Empty until there is a second one.
    fn authorities(&self) -> Vec<String>;
    /// The address of `node`, if it is listed.
    fn address_of(&self, node: NodeId) -> Option<SocketAddr>;
}

/// For a process without records, such as `atoll invite`: a certificate counts for what it shows.
const NO_RECORDS: Known = Known {
    role: None,
    removed: false,
    nothing_known: true,
    level: Level::FIRST,
    pin: None,
    authority: 0,
    trusted_from: 0,
};

/// Why a peer did not answer. Unless the variant says otherwise, the peer may have acted on the
/// request.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No address of the node is known.
    #[error("no address is known for node {0}")]
    Unknown(NodeId),
    /// The node cannot be reached; nothing was sent.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// The cause.
        reason: String,
    },
    /// The connection or stream broke.
    #[error("the link broke: {0}")]
    Broken(String),
    /// The deadline passed.
    #[error("no answer in time")]
    Deadline,
    /// The answer could not be read, or did not fit the question.
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(String),
}

impl LinkError {
    fn broken(error: impl std::fmt::Display) -> Self {
        LinkError::Broken(error.to_string())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Class {
    Consensus,
    Control,
    Bulk,
}

impl Class {
    const ALL: [Class; 3] = [Class::Consensus, Class::Control, Class::Bulk];
}

/// The priority of streams of the consensus with more than a few packets. Heartbeats, votes and
/// leases overtake them; other streams have priority 0.
const LARGE: i32 = -1;

/// All links of this node.
pub struct Links {
    me: NodeId,
    endpoint: Endpoint,
    shows: Mutex<(quinn::ServerConfig, quinn::ClientConfig)>,
    judge: tls::JudgeCell,
    door: Arc<Mutex<Doorkeeper>>,
    congestion: CongestionControl,
    addresses: Mutex<HashMap<NodeId, SocketAddr>>,
    connections: Mutex<HashMap<(NodeId, Class), Connection>>,
    dialling: Mutex<HashMap<(NodeId, Class), Turn>>,
    lines: Mutex<HashMap<NodeId, Line>>,
    /// Whether a replica has said that this node was removed.
    removed: tokio::sync::watch::Sender<bool>,
}

/// Whether the replica at the other end has closed a connection because this node was removed. An
/// edge is not believed: it knows the present members only, and takes all others for removed.
fn says_removed(connection: &Connection) -> bool {
    let of_replica =
        serve::shown_by(connection).is_some_and(|shown| shown.role == Some(Role::Replica));
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => {
            of_replica && close.reason == REMOVED.as_bytes()
        }
        _ => false,
    }
}

/// The right to dial. One task holds it and dials; others wait, and then find the connection.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// The number of streams that may be opened before it is known who dials. It is more than the one
/// stream that a stranger may use, because a member sends its first questions all at once.
const STRANGERS_STREAMS: u32 = 16;
/// The number of bytes that may be in flight from the peer before that.
const STRANGERS_WINDOW: u32 = 256 << 10;

/// The reason with which a node that stops closes its connections.
const LEAVING: &[u8] = b"leaving";

/// How long a dial may take.
const DIAL: Duration = Duration::from_millis(1500);

impl Links {
    /// Binds `listen` (UDP) and can dial from now on; [`serve`] answers peers.
    pub fn open(
        identity: &Identity,
        listen: SocketAddr,
        congestion: CongestionControl,
    ) -> Result<Arc<Self>, IdentityError> {
        let judge = tls::JudgeCell::default();
        let (server, client) = tls::configs(identity, &judge)?;
        let endpoint = tls::endpoint(identity, server.clone(), listen)?;
        Ok(Arc::new(Links {
            me: identity.node,
            endpoint,
            shows: Mutex::new((server, client)),
            judge,
            door: Arc::new(Mutex::new(Doorkeeper::new(DoorkeeperTerms::default()))),
            congestion,
            addresses: Mutex::default(),
            connections: Mutex::default(),
            dialling: Mutex::default(),
            lines: Mutex::default(),
            removed: tokio::sync::watch::Sender::new(false),
        }))
    }

    /// From now on a peer's standing depends on `judge`'s records. Call this once. Before that, a
    /// certificate counts for what it shows.
    pub fn judge_by(&self, judge: Arc<dyn Judge>) {
        self.judge.set(Some(judge));
    }

    /// What a peer may do that shows this certificate.
    pub fn standing(&self, shown: &Shown) -> Standing {
        rules::members::door::standing(shown, &self.known(shown.node))
    }

    /// What the records say about `node`.
    pub fn known(&self, node: NodeId) -> Known {
        self.judge.get().map_or(NO_RECORDS, |judge| judge.known(node))
    }

    /// Completes when a replica has said that this node was removed from the mesh.
    pub async fn removed(&self) {
        if self.removed.subscribe().wait_for(|removed| *removed).await.is_err() {
            std::future::pending().await
        }
    }

    /// The address of `node` in the records.
    pub fn recorded_address(&self, node: NodeId) -> Option<SocketAddr> {
        self.judge.get().and_then(|judge| judge.address_of(node))
    }

    /// Closes all connections to a node that is no longer a member.
    pub fn shut_out(&self, node: NodeId) {
        self.addresses.lock().remove(&node);
        self.forget_connections(node);
    }

    /// Shows another certificate in every handshake from now on. Requests on open connections
    /// continue to their end. Later requests use new connections, because peers on old ones would
    /// still see the old certificate.
    pub fn show(&self, identity: &Identity) -> Result<(), IdentityError> {
        let (server, client) = tls::configs(identity, &self.judge)?;
        self.endpoint.set_server_config(Some(server.clone()));
        *self.shows.lock() = (server, client);
        self.connections.lock().clear();
        Ok(())
    }

    /// Whether a member is known to be at `address`.
    fn knows(&self, address: IpAddr) -> bool {
        self.addresses.lock().values().any(|known| known.ip() == address)
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The address on which this node listens.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// `node` listens at `address` from now on.
    pub fn know(&self, node: NodeId, address: SocketAddr) {
        let before = self.addresses.lock().insert(node, address);
        if before.is_some_and(|b| b != address) {
            self.forget_connections(node);
        }
    }

    /// Uses new connections to `node` from now on, because it says that it began anew. It may have
    /// restarted: then it resets the old ones as soon as it hears of them. Or it was only thought
    /// dead for a moment: then what is under way there goes on to its end. Consensus does not wait
    /// to learn which.
    pub fn renew_connections(&self, node: NodeId) {
        for class in Class::ALL {
            let old = self.connections.lock().remove(&(node, class));
            if let (Some(old), Class::Consensus) = (old, class) {
                old.close(0u32.into(), b"superseded");
            }
        }
    }

    /// Closes the connections to `node`, because it is elsewhere now or is no member any more.
    fn forget_connections(&self, node: NodeId) {
        for class in Class::ALL {
            if let Some(connection) = self.connections.lock().remove(&(node, class)) {
                connection.close(0u32.into(), b"superseded");
            }
        }
    }

    fn cached(&self, node: NodeId, class: Class) -> Option<Connection> {
        let mut connections = self.connections.lock();
        match connections.get(&(node, class)) {
            Some(connection) if connection.close_reason().is_none() => Some(connection.clone()),
            Some(closed) => {
                if says_removed(closed) {
                    self.removed.send_replace(true);
                }
                connections.remove(&(node, class));
                None
            }
            None => None,
        }
    }

    async fn connection(&self, node: NodeId, class: Class) -> Result<Connection, LinkError> {
        if let Some(connection) = self.cached(node, class) {
            return Ok(connection);
        }
        let turn = self.dialling.lock().entry((node, class)).or_default().clone();
        let _turn = turn.lock().await;
        if let Some(connection) = self.cached(node, class) {
            return Ok(connection);
        }
        // the records list a node as soon as it is a member; other known addresses are for nodes
        // that are not listed here yet
        let told = self.addresses.lock().get(&node).copied();
        let address = self.recorded_address(node).or(told).ok_or(LinkError::Unknown(node))?;
        let unreachable = |reason: String| LinkError::Unreachable { node, reason };
        let mut config = self.shows.lock().1.clone();
        config.transport_config(self.dialled(address));
        let dial = self
            .endpoint
            .connect_with(config, address, &node.certificate_name())
            .map_err(|e| unreachable(e.to_string()))?;
        let connection = match tokio::time::timeout(DIAL, dial).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("{address} did not answer"))),
        };
        // the handshake has proved the peer's id; its certificate and the records say whether it is
        // still valid, and for which role
        let standing = serve::shown_by(&connection).map(|shown| self.standing(&shown));
        match standing {
            Some(Standing::Replica | Standing::Edge) => {}
            Some(Standing::Nobody(reason)) => return Err(unreachable(reason.into())),
            Some(Standing::RenewOnly) => {
                return Err(unreachable("its certificate has to be renewed first".into()));
            }
            None => return Err(unreachable("its certificate is not one of a node".into())),
        }
        self.connections.lock().insert((node, class), connection.clone());
        Ok(connection)
    }

    /// The transport settings of a connection to `address` that this node dials. The peer opens no
    /// streams on it.
    fn dialled(&self, address: SocketAddr) -> Arc<TransportConfig> {
        let mut transport = tls::transport(self.congestion, path::largest_payload(address));
        transport.max_concurrent_bidi_streams(0u32.into());
        // nothing is read there, but without a buffer quinn would not send datagrams either
        transport.datagram_receive_buffer_size(Some(16 << 10));
        Arc::new(transport)
    }

    /// Accepts a peer's handshake.
    fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        let mut config = self.shows.lock().0.clone();
        let mut transport =
            tls::transport(self.congestion, path::largest_payload(incoming.remote_address()));
        // until it is known who dials; `serve` then raises the limits for a member
        transport.max_concurrent_bidi_streams(STRANGERS_STREAMS.into());
        transport.receive_window(STRANGERS_WINDOW.into());
        config.transport_config(Arc::new(transport));
        incoming.accept_with(Arc::new(config))
    }

    async fn open_stream(
        &self,
        to: NodeId,
        class: Class,
        open: &Open,
        body: &[u8],
    ) -> Result<(SendStream, RecvStream), LinkError> {
        let connection = self.connection(to, class).await?;
        let for_edges = match open {
            Open::Ask(ask) => wire::edges_answer(ask),
            Open::Lease | Open::Append => false,
            Open::Bulk(bulk) => matches!(bulk, Bulk::Fetch { .. }),
        };
        if !for_edges {
            let is_replica = serve::shown_by(&connection).is_some_and(|shown| match shown.role {
                Some(role) => role == Role::Replica,
                None => self.standing(&shown) == Standing::Replica,
            });
            if !is_replica {
                return Err(LinkError::Refused(
                    "it shows no replica's certificate, and this is not for others".into(),
                ));
            }
        }
        let (mut send, receive) = connection.open_bi().await.map_err(LinkError::broken)?;
        if class == Class::Consensus && body.len() > wire::SMALL {
            let _ = send.set_priority(LARGE);
        }
        write_frame(&mut send, body).await?;
        Ok((send, receive))
    }

    /// Sends a question to `to`, and waits for the answer for at most `deadline`. The time that
    /// question and answer need on a slow path comes on top of it ([`wire::transfer_time`]).
    pub async fn ask<Q: Question>(
        &self,
        to: NodeId,
        question: Q,
        deadline: Duration,
    ) -> Result<Q::Answer, LinkError> {
        let ask = question.into_ask();
        let largest = ask.largest_answer();
        let class = if matches!(ask, Ask::Raft { .. }) { Class::Consensus } else { Class::Control };
        let open = Open::Ask(ask);
        let body = wire::encode(&open);
        let begin = async {
            let (mut send, mut receive) = self.open_stream(to, class, &open, &body).await?;
            let _ = send.finish();
            let length = begin_frame(&mut receive, largest).await?;
            Ok::<_, LinkError>((receive, length))
        };
        let patience = deadline + wire::transfer_time(body.len());
        let (mut receive, length) =
            tokio::time::timeout(patience, begin).await.map_err(|_| LinkError::Deadline)??;
        let patience = frame::STALLED.max(deadline) + wire::transfer_time(length);
        let answer = finish_message(&mut receive, length, frame::STALLED);
        match tokio::time::timeout(patience, answer).await.map_err(|_| LinkError::Deadline)?? {
            Answer::Refused(reason) => Err(LinkError::Refused(reason)),
            answer => Q::read(answer)
                .ok_or_else(|| LinkError::broken("the answer is to another question")),
        }
    }

    /// Opens a lease stream to the ledger's leader.
    pub async fn open_lease(
        &self,
        to: NodeId,
        deadline: Duration,
    ) -> Result<(SendStream, RecvStream), LinkError> {
        self.open_by(to, Class::Consensus, Open::Lease, deadline).await
    }

    /// Opens a stream for entries of the ledger's log. Only the leader does.
    pub async fn open_append(
        &self,
        to: NodeId,
        deadline: Duration,
    ) -> Result<(SendStream, RecvStream), LinkError> {
        let (send, receive) = self.open_by(to, Class::Consensus, Open::Append, deadline).await?;
        let _ = send.set_priority(LARGE);
        Ok((send, receive))
    }

    /// Opens a bulk stream.
    pub async fn open_bulk(
        &self,
        to: NodeId,
        bulk: Bulk,
        deadline: Duration,
    ) -> Result<(SendStream, RecvStream), LinkError> {
        self.open_by(to, Class::Bulk, Open::Bulk(bulk), deadline).await
    }

    async fn open_by(
        &self,
        to: NodeId,
        class: Class,
        open: Open,
        deadline: Duration,
    ) -> Result<(SendStream, RecvStream), LinkError> {
        let body = wire::encode(&open);
        tokio::time::timeout(deadline, self.open_stream(to, class, &open, &body))
            .await
            .map_err(|_| LinkError::Deadline)?
    }

    /// Sends a datagram if there is a connection. Otherwise the datagram is lost, which gossip
    /// tolerates; returns false, and the caller may [`Links::warm`] the link.
    pub fn datagram(&self, to: NodeId, data: Bytes) -> bool {
        match self.cached(to, Class::Control) {
            Some(connection) => match connection.send_datagram(data) {
                Ok(()) => true,
                Err(error) => {
                    if matches!(error, quinn::SendDatagramError::TooLarge) {
                        metrics::counter!("atoll_datagrams_too_large_total").increment(1);
                    }
                    true
                }
            },
            None => false,
        }
    }

    /// The line of blob streams to `node`.
    pub fn line(&self, node: NodeId) -> Line {
        self.lines.lock().entry(node).or_default().clone()
    }

    /// Dials `to`, so that the next datagram has a connection.
    pub async fn warm(&self, to: NodeId) {
        let _ = self.connection(to, Class::Control).await;
    }

    /// The measured round trip to `node`, if it is connected.
    pub fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.cached(node, Class::Control).map(|c| c.rtt())
    }

    /// Closes all connections, and waits until the peers have been told. The records are let go of
    /// after that: they hold the links in turn, and their files are closed when nobody holds them.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), LEAVING);
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
        self.judge.set(None);
    }
}

/// The links of a node of the mesh that has this CA, on a free port of loopback.
#[cfg(test)]
pub(crate) fn open_for_tests(
    authority: &crate::identity::Authority,
    node: NodeId,
    congestion: CongestionControl,
) -> Arc<Links> {
    let candidate = crate::identity::Candidate::generate(node).unwrap();
    let role = rules::ledger::records::Role::Replica;
    let certificate =
        authority.sign(node, role, &candidate.request, ground::clock::timestamp()).unwrap();
    let identity = Identity { node, certificate, key: candidate.key, authority: authority.clone() };
    Links::open(&identity, (std::net::Ipv4Addr::LOCALHOST, 0).into(), congestion).unwrap()
}

/// Both ends of a bulk connection between two nodes that know each other.
#[cfg(test)]
pub(crate) async fn connect_for_tests(
    here: &Links,
    there: &Links,
) -> (quinn::Connection, quinn::Connection) {
    let accepted =
        async { there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(here.connection(there.me(), Class::Bulk), accepted);
    (dialled.unwrap(), accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Authority;

    #[tokio::test]
    async fn packets_grow_to_what_the_way_takes() {
        let authority = Authority::generate().unwrap();
        let [here, there] = [1, 2]
            .map(|node| open_for_tests(&authority, NodeId(node), CongestionControl::Delivery));
        here.know(there.me(), there.local_address().unwrap());
        let accepted =
            async { there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap() };
        let (dialled, accepted) = tokio::join!(here.connection(there.me(), Class::Bulk), accepted);
        let grown = async {
            for connection in [dialled.unwrap(), accepted] {
                while connection.stats().path.current_mtu < path::LARGEST {
                    // a probe goes out when something else does
                    let _ = connection.send_datagram(Bytes::from_static(b"anything"));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), grown)
            .await
            .expect("loopback takes large packets");
    }

    #[tokio::test]
    async fn a_link_is_under_the_congestion_control_that_was_chosen() {
        let authority = Authority::generate().unwrap();
        for chosen in [CongestionControl::Delivery, CongestionControl::Cubic] {
            let [here, there] = [1, 2].map(|node| open_for_tests(&authority, NodeId(node), chosen));
            here.know(there.me(), there.local_address().unwrap());
            let accepted = async {
                there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap()
            };
            let (dialled, accepted) =
                tokio::join!(here.connection(there.me(), Class::Bulk), accepted);
            for connection in [dialled.unwrap(), accepted] {
                let is_cubic =
                    connection.congestion_state().into_any().is::<quinn::congestion::Cubic>();
                assert_eq!(is_cubic, chosen == CongestionControl::Cubic);
            }
        }
    }
}
