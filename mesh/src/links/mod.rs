//! QUIC links between nodes: mutual TLS under the mesh's CA, every peer's id taken from its certificate and never from what it says.
//!
//! Each peer is dialled on demand, twice: one connection for control (consensus, gossip, questions), one for bulk (blobs, snapshots), so that a blob's
//! flow control and losses do not delay a heartbeat. Every call carries its own deadline: a killed peer's connection looks open until its idle timeout.

mod congestion;
mod frame;
mod line;
mod path;
mod serve;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connecting, Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, TransportConfig};
use rules::names::NodeId;
use rules::wire::{self, Answer, Ask, BadMessage, Bulk};
use serde::{Deserialize, Serialize};

pub use frame::{MAX_FRAME, begin_frame, finish_message, read_frame, read_message, write_frame, write_message};
pub use line::Line;
pub use serve::{Peer, Service, serve};
pub use tls::{CongestionControl, ask_to_join};

use crate::identity::{Identity, IdentityError};

/// How a stream begins: what it is for.
#[derive(Serialize, Deserialize)]
enum Open {
    Ask(Ask),
    Lease,
    Bulk(Bulk),
}

/// Why a peer did not answer. Unless it says otherwise the peer may have acted all the same.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody told where this node is.
    #[error("no address is known for node {0}")]
    Unknown(NodeId),
    /// It cannot be reached; nothing was sent.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The connection or stream broke.
    #[error("the link broke: {0}")]
    Broken(String),
    /// The deadline passed.
    #[error("no answer in time")]
    Deadline,
    /// It answered something else.
    #[error(transparent)]
    Message(#[from] BadMessage),
    /// It refused.
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
    Control,
    Bulk,
}

/// All links of this node.
pub struct Links {
    me: NodeId,
    endpoint: Endpoint,
    server: quinn::ServerConfig,
    client: quinn::ClientConfig,
    congestion: CongestionControl,
    addresses: Mutex<HashMap<NodeId, SocketAddr>>,
    connections: Mutex<HashMap<(NodeId, Class), Connection>>,
    dialling: Mutex<HashMap<(NodeId, Class), Turn>>,
    lines: Mutex<HashMap<NodeId, Line>>,
}

/// Whoever holds it dials; the others wait and find the connection.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// How long a dial may take.
const DIAL: Duration = Duration::from_millis(1500);

impl Links {
    /// Binds `listen` (UDP) and is ready to dial; [`serve`] answers.
    pub fn open(
        identity: &Identity,
        listen: SocketAddr,
        congestion: CongestionControl,
    ) -> Result<Arc<Self>, IdentityError> {
        let (server, client) = tls::configs(identity)?;
        let endpoint = tls::endpoint(identity, server.clone(), listen)?;
        Ok(Arc::new(Links {
            me: identity.node,
            endpoint,
            server,
            client,
            congestion,
            addresses: Mutex::default(),
            connections: Mutex::default(),
            dialling: Mutex::default(),
            lines: Mutex::default(),
        }))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Where this node listens.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Node `node` listens at `address`, from now on.
    pub fn know(&self, node: NodeId, address: SocketAddr) {
        let before = self.addresses.lock().insert(node, address);
        if before.is_some_and(|b| b != address) {
            self.forget_connections(node);
        }
    }

    /// Drops cached connections to `node`: it has restarted, or looks dead.
    pub fn forget_connections(&self, node: NodeId) {
        for class in [Class::Control, Class::Bulk] {
            if let Some(connection) = self.connections.lock().remove(&(node, class)) {
                connection.close(0u32.into(), b"superseded");
            }
        }
    }

    fn cached(&self, node: NodeId, class: Class) -> Option<Connection> {
        let mut connections = self.connections.lock();
        match connections.get(&(node, class)) {
            Some(connection) if connection.close_reason().is_none() => Some(connection.clone()),
            Some(_) => {
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
        let address = self.addresses.lock().get(&node).copied().ok_or(LinkError::Unknown(node))?;
        let unreachable = |reason: String| LinkError::Unreachable { node, reason };
        let mut config = self.client.clone();
        config.transport_config(self.transport(address));
        let dial = self
            .endpoint
            .connect_with(config, address, &node.certificate_name())
            .map_err(|e| unreachable(e.to_string()))?;
        let connection = match tokio::time::timeout(DIAL, dial).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable(format!("{address} did not answer"))),
        };
        self.connections.lock().insert((node, class), connection.clone());
        Ok(connection)
    }

    /// How packets are sent to `address`.
    fn transport(&self, address: SocketAddr) -> Arc<TransportConfig> {
        tls::transport(self.congestion, path::largest_payload(address))
    }

    /// Takes a peer's handshake in.
    fn accept(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        let mut config = self.server.clone();
        config.transport_config(self.transport(incoming.remote_address()));
        incoming.accept_with(Arc::new(config))
    }

    async fn open_stream(&self, to: NodeId, class: Class, open: &Open) -> Result<(SendStream, RecvStream), LinkError> {
        let connection = self.connection(to, class).await?;
        let (mut send, receive) = connection.open_bi().await.map_err(LinkError::broken)?;
        write_frame(&mut send, &wire::encode(open)).await?;
        Ok((send, receive))
    }

    /// Asks `to`, and waits for its answer at most `deadline`.
    pub async fn ask(&self, to: NodeId, ask: Ask, deadline: Duration) -> Result<Answer, LinkError> {
        let open = Open::Ask(ask);
        let exchange = async {
            let (mut send, mut receive) = self.open_stream(to, Class::Control, &open).await?;
            let _ = send.finish();
            match read_message(&mut receive).await? {
                Answer::Refused(reason) => Err(LinkError::Refused(reason)),
                answer => Ok(answer),
            }
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Deadline),
        }
    }

    /// Opens a lease stream to the ledger's leader.
    pub async fn open_lease(&self, to: NodeId, deadline: Duration) -> Result<(SendStream, RecvStream), LinkError> {
        tokio::time::timeout(deadline, self.open_stream(to, Class::Control, &Open::Lease))
            .await
            .map_err(|_| LinkError::Deadline)?
    }

    /// Opens a bulk stream.
    pub async fn open_bulk(
        &self,
        to: NodeId,
        bulk: Bulk,
        deadline: Duration,
    ) -> Result<(SendStream, RecvStream), LinkError> {
        tokio::time::timeout(deadline, self.open_stream(to, Class::Bulk, &Open::Bulk(bulk)))
            .await
            .map_err(|_| LinkError::Deadline)?
    }

    /// Sends a datagram if there is a connection. If there is none it is lost, which gossip tolerates; returns false, and the caller may
    /// [`Links::warm`] the link.
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

    /// The line of the streams of blobs to `node`.
    pub fn line(&self, node: NodeId) -> Line {
        self.lines.lock().entry(node).or_default().clone()
    }

    /// Dials `to`, so that the next datagram has a way.
    pub async fn warm(&self, to: NodeId) {
        let _ = self.connection(to, Class::Control).await;
    }

    /// The measured round trip to `node`, if it is connected.
    pub fn round_trip(&self, node: NodeId) -> Option<Duration> {
        self.cached(node, Class::Control).map(|c| c.rtt())
    }

    /// Closes everything and lets the close reach the peers.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), b"leaving");
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
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
    let certificate = authority.sign(node, &candidate.request).unwrap();
    let identity = Identity { node, certificate, key: candidate.key, authority: authority.clone() };
    Links::open(&identity, (std::net::Ipv4Addr::LOCALHOST, 0).into(), congestion).unwrap()
}

/// Both ends of a bulk connection between two nodes that know each other.
#[cfg(test)]
pub(crate) async fn connect_for_tests(here: &Links, there: &Links) -> (quinn::Connection, quinn::Connection) {
    let accepted = async { there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap() };
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
        let [here, there] = [1, 2].map(|node| open_for_tests(&authority, NodeId(node), CongestionControl::Delivery));
        here.know(there.me(), there.local_address().unwrap());
        let accepted = async { there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap() };
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
        tokio::time::timeout(Duration::from_secs(60), grown).await.expect("loopback takes large packets");
    }

    #[tokio::test]
    async fn a_link_is_under_the_congestion_control_that_was_chosen() {
        let authority = Authority::generate().unwrap();
        for chosen in [CongestionControl::Delivery, CongestionControl::Cubic] {
            let [here, there] = [1, 2].map(|node| open_for_tests(&authority, NodeId(node), chosen));
            here.know(there.me(), there.local_address().unwrap());
            let accepted = async { there.accept(there.endpoint.accept().await.unwrap()).unwrap().await.unwrap() };
            let (dialled, accepted) = tokio::join!(here.connection(there.me(), Class::Bulk), accepted);
            for connection in [dialled.unwrap(), accepted] {
                let is_cubic = connection.congestion_state().into_any().is::<quinn::congestion::Cubic>();
                assert_eq!(is_cubic, chosen == CongestionControl::Cubic);
            }
        }
    }
}
