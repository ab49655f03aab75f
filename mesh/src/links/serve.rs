//! Answers peers. Questions go to the [`Service`] that the node passes in. Which peer may ask what
//! is decided before a message is decoded ([`rules::members::door`], [`rules::wire::Kind`]).

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use rules::members::door::{Doorkeeper, Knock, Shown, Standing};
use rules::wire::{self, Answer, Ask, Bulk, HEAD, JoinRequest, Kind, LARGEST, Open, SMALL};
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::frame::{STALLED, begin_frame, fill_frame};
use super::{LEAVING, LinkError, Links, write_frame, write_message};
use crate::identity;
use ground::clock;
use ground::supervise::Tasks;

/// What a node does with the requests of its peers.
pub trait Service: Send + Sync + 'static {
    /// Answers one question of a member.
    fn answer(&self, from: Guest, ask: Ask) -> impl Future<Output = Answer> + Send;
    /// Answers a node that wants to join.
    fn join(&self, request: JoinRequest) -> impl Future<Output = Answer> + Send;
    /// Serves a lease stream of a replica until it ends.
    fn lease(
        &self,
        from: NodeId,
        send: SendStream,
        receive: RecvStream,
    ) -> impl Future<Output = ()> + Send;
    /// Appends the entries of the ledger's leader, in the order of its stream, until that ends.
    fn append(
        &self,
        from: NodeId,
        send: SendStream,
        receive: RecvStream,
    ) -> impl Future<Output = ()> + Send;
    /// Serves a bulk stream until it ends.
    fn bulk(
        &self,
        from: Guest,
        bulk: Bulk,
        send: SendStream,
        receive: RecvStream,
    ) -> impl Future<Output = ()> + Send;
    /// A member has said that it stops.
    fn left(&self, node: NodeId);
    /// Handles a datagram of a replica.
    fn datagram(&self, from: NodeId, data: Bytes) -> impl Future<Output = ()> + Send;
}

/// A peer whose certificate was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The peer's id.
    pub node: NodeId,
    /// What it may do; never [`Standing::Nobody`].
    pub standing: Standing,
    /// The sha256 of its public key.
    pub key: Digest,
}

/// How long a handshake, and the one message of a stranger, may take.
const STRANGER: Duration = Duration::from_secs(5);
/// How long a stranger may wait for its answer: a majority has to write the join.
const JOINING: Duration = Duration::from_secs(30);
/// How long a member may take to read an answer: the largest one, over a slow link.
const TAKEN: Duration = Duration::from_secs(120);
/// The time between two checks whether a connection's peer may still be connected.
const LOOK: Duration = Duration::from_secs(2);
/// The maximum number of open connections of one member: two of its own, those of processes that
/// act for it (`atoll invite`), and old ones that it has not given up yet. The oldest is closed
/// first.
const OPEN: usize = 16;
/// The maximum number of bytes of one replica's messages in memory: enough for one message of the
/// consensus of the maximum length and the next one. The same number applies to all other messages.
const OF_REPLICA: usize = 2 * LARGEST;
/// The same for an edge.
const OF_EDGE: usize = 4 << 20;
/// The maximum number of bytes of answers that an edge may leave untaken: the largest answer, and
/// some of what edges usually ask for.
const ANSWERS_OF_EDGE: usize = LARGEST + (24 << 20);

/// The number of streams that a peer may have open, and the number of bytes that may be in flight
/// from it (the receive window), once it is known.
struct Room {
    streams: u32,
    window: u32,
}

const FOR_REPLICA: Room = Room { streams: 1024, window: 64 << 20 };
const FOR_EDGE: Room = Room { streams: 256, window: 8 << 20 };

/// The limits for each member over all its connections.
#[derive(Default)]
struct Hall {
    /// By node and whether it is a replica: a node that becomes known as a replica gets a replica's
    /// limits.
    guests: Mutex<HashMap<(NodeId, bool), Bounds>>,
}

struct Bounds {
    connections: VecDeque<Connection>,
    held: Held,
}

/// What one member has in use.
#[derive(Clone)]
struct Held {
    /// Bytes of consensus messages.
    consensus: Arc<Semaphore>,
    /// Bytes of all other messages that are not small.
    others: Arc<Semaphore>,
    /// Open streams of the consensus and of read leases.
    consensus_streams: Arc<Semaphore>,
    /// All other open streams, whatever the size of their messages.
    streams: Arc<Semaphore>,
    /// Bytes of answers that are not small and that the peer has not taken yet.
    answers: Arc<Semaphore>,
}

/// The maximum number of open streams of the consensus from one replica. A leader has a few of
/// them open: heartbeats, entries, votes and a lease.
const CONSENSUS_STREAMS: usize = 256;

impl Hall {
    /// Adds a connection of `guest`. If there are too many, the oldest is closed.
    fn enter(&self, guest: Guest, connection: &Connection, room: &Room) -> Held {
        let is_replica = guest.standing == Standing::Replica;
        let bytes = if is_replica { OF_REPLICA } else { OF_EDGE };
        let permits = |count: usize| Arc::new(Semaphore::new(count));
        let mut guests = self.guests.lock();
        let bounds = guests.entry((guest.node, is_replica)).or_insert_with(|| Bounds {
            connections: VecDeque::new(),
            held: Held {
                consensus: permits(bytes),
                others: permits(bytes),
                consensus_streams: permits(CONSENSUS_STREAMS),
                streams: permits(room.streams as usize * 2),
                answers: permits(if is_replica { Semaphore::MAX_PERMITS } else { ANSWERS_OF_EDGE }),
            },
        });
        bounds.connections.retain(|c| c.close_reason().is_none());
        bounds.connections.push_back(connection.clone());
        if bounds.connections.len() > OPEN
            && let Some(oldest) = bounds.connections.pop_front()
        {
            oldest.close(0u32.into(), b"too many connections");
        }
        bounds.held.clone()
    }
}

/// A place among the strangers. It is given back when the peer is known or gone.
struct Place {
    door: Arc<Mutex<Doorkeeper>>,
    address: IpAddr,
    member: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.lock().handle_left(self.address, self.member);
    }
}

/// Accepts connections until the group stops.
pub async fn serve<S: Service>(links: Arc<Links>, service: Arc<S>, tasks: Tasks) {
    let hall = Arc::new(Hall::default());
    while let Some(incoming) = links.endpoint.accept().await {
        let Some((incoming, place)) = knock(&links, incoming) else { continue };
        let (links, service, hall, inner) =
            (links.clone(), service.clone(), hall.clone(), tasks.clone());
        tasks.spawn("links.connection", connection(links, incoming, place, service, hall, inner));
    }
}

/// Decides whether a handshake may begin. This costs only a look into a table.
fn knock(links: &Links, incoming: Incoming) -> Option<(Incoming, Place)> {
    let address = incoming.remote_address().ip();
    let (member, proven) = (links.knows(address), incoming.remote_address_validated());
    let knock = links.door.lock().handle_knock(clock::now(), address, member, proven);
    match knock {
        Knock::Admit => Some((incoming, Place { door: links.door.clone(), address, member })),
        Knock::Prove => {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            None
        }
        Knock::Refuse => {
            metrics::counter!("atoll_links_refused_total").increment(1);
            incoming.refuse();
            None
        }
    }
}

async fn connection<S: Service>(
    links: Arc<Links>,
    incoming: Incoming,
    place: Place,
    service: Arc<S>,
    hall: Arc<Hall>,
    tasks: Tasks,
) {
    let handshake = async { links.accept(incoming)?.await };
    let connection = match timeout(STRANGER, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            debug!(%error, "handshake failed");
            return;
        }
        Err(_) => {
            debug!("a handshake took too long");
            return;
        }
    };
    let Some(shown) = shown_by(&connection) else {
        if let Err(error) = stranger(&connection, &*service).await {
            debug!(%error, "a stranger was refused");
        }
        connection.close(0u32.into(), b"");
        return;
    };
    let standing = links.standing(&shown);
    if let Standing::Nobody(reason) = standing {
        warn!(node = %shown.node, reason, "a node was turned away");
        metrics::counter!("atoll_links_refused_total").increment(1);
        connection.close(0u32.into(), reason.as_bytes());
        return;
    }
    drop(place);
    let guest = Guest { node: shown.node, standing, key: shown.key };
    let room = if standing == Standing::Replica { FOR_REPLICA } else { FOR_EDGE };
    let held = hall.enter(guest, &connection, &room);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(room.streams));
    connection.set_receive_window(VarInt::from_u32(room.window));
    let (datagrams, heard, hearing) = (connection.clone(), service.clone(), links.clone());
    tasks.spawn("links.datagrams", async move {
        while let Ok(data) = datagrams.read_datagram().await {
            // only replicas gossip: an edge, a removed node, or one with an expired certificate has
            // no say in who is alive
            if shown_by(&datagrams)
                .is_some_and(|shown| hearing.standing(&shown) == Standing::Replica)
            {
                heard.datagram(shown.node, data).await;
            }
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept_bi() => accepted,
            // connections last for long, with blobs and leases
            () = tokio::time::sleep(LOOK) => {
                if let Some(Standing::Nobody(reason)) = shown_by(&connection).map(|shown| links.standing(&shown)) {
                    connection.close(0u32.into(), reason.as_bytes());
                    return;
                }
                continue;
            }
        };
        let (send, receive) = match accepted {
            Ok(streams) => streams,
            Err(quinn::ConnectionError::ApplicationClosed(close)) if close.reason == LEAVING => {
                service.left(shown.node);
                return;
            }
            Err(_) => return,
        };
        // checked for each stream: the node may have been removed, or its certificate may have
        // expired
        let standing = links.standing(&shown_by(&connection).unwrap_or(shown));
        if let Standing::Nobody(reason) = standing {
            connection.close(0u32.into(), reason.as_bytes());
            return;
        }
        let guest = Guest { node: shown.node, standing, key: shown.key };
        let (service, held) = (service.clone(), held.clone());
        tasks.spawn("links.stream", async move {
            if let Err(error) = stream(guest, send, receive, &*service, &held).await {
                debug!(%error, "stream failed");
            }
        });
    }
}

/// Reads the one message of a peer without a certificate.
async fn stranger<S: Service>(connection: &Connection, service: &S) -> Result<(), LinkError> {
    let heard = async {
        let (send, mut receive) = connection.accept_bi().await.map_err(LinkError::broken)?;
        let length = begin_frame(&mut receive, SMALL).await?;
        let mut body = Vec::new();
        fill_frame(&mut receive, &mut body, length, STRANGER).await?;
        Ok::<_, LinkError>((send, body))
    };
    let (mut send, body) = timeout(STRANGER, heard).await.map_err(|_| LinkError::Deadline)??;
    let answer = match wire::decode_join(&body) {
        Ok(request) => {
            timeout(JOINING, service.join(request)).await.map_err(|_| LinkError::Deadline)?
        }
        Err(error) => Answer::Refused(error.to_string()),
    };
    write_message(&mut send, &answer).await?;
    let _ = send.finish();
    let _ = timeout(STRANGER, send.stopped()).await;
    Ok(())
}

async fn stream<S: Service>(
    from: Guest,
    mut send: SendStream,
    mut receive: RecvStream,
    service: &S,
    held: &Held,
) -> Result<(), LinkError> {
    let length = begin_frame(&mut receive, LARGEST).await?;
    let mut body = Vec::new();
    fill_frame(&mut receive, &mut body, length.min(HEAD), STALLED).await?;
    let admitted = Kind::of(&body).map_err(wire::NotRead::from).and_then(|kind| {
        kind.admit(from.standing, length)?;
        Ok(kind)
    });
    let kind = match admitted {
        Ok(kind) => kind,
        Err(error) => {
            warn!(from = %from.node, %error, "a peer's message was not read");
            metrics::counter!("atoll_messages_refused_total").increment(1);
            let _ = receive.stop(0u32.into());
            write_message(&mut send, &Answer::Refused(error.to_string())).await?;
            let _ = send.finish();
            return Ok(());
        }
    };
    // Both are held as long as the message is in memory. What the consensus waits for is never
    // taken by other questions, however many of them wait for their answers. The connection reads
    // on while a stream waits here, because heartbeats of an earlier build are on the same one.
    let (bytes, streams) = if kind.is_consensus() {
        (&held.consensus, &held.consensus_streams)
    } else {
        (&held.others, &held.streams)
    };
    let _place = streams.clone().acquire_owned().await.map_err(LinkError::broken)?;
    let _memory = reserve(bytes, length).await?;
    fill_frame(&mut receive, &mut body, length, STALLED).await?;
    let open = match wire::decode::<Open>(&body) {
        Ok(open) => open,
        Err(error) => {
            warn!(from = %from.node, %error, "a peer's message was refused");
            return write_message(&mut send, &Answer::Refused(error.to_string())).await;
        }
    };
    drop(body);
    match open {
        Open::Ask(ask) => {
            // a caller that went away needs no answer: the work is dropped with the stream
            let answer = tokio::select! {
                answer = service.answer(from, ask) => answer,
                _ = send.stopped() => return Ok(()),
            };
            let mut encoded = wire::encode(&answer);
            drop(answer);
            // a peer that does not read its answers must not keep them in memory here
            let room = room_for(&held.answers, encoded.len());
            if room.is_none() {
                metrics::counter!("atoll_messages_refused_total").increment(1);
                encoded = wire::encode(&Answer::Refused(
                    "this node has not taken the large answers of before yet".into(),
                ));
            }
            timeout(TAKEN, write_frame(&mut send, &encoded))
                .await
                .map_err(|_| LinkError::Deadline)??;
            let _ = send.finish();
        }
        Open::Lease => service.lease(from.node, send, receive).await,
        Open::Append => service.append(from.node, send, receive).await,
        Open::Bulk(bulk) => service.bulk(from, bulk, send, receive).await,
    }
    Ok(())
}

/// Room for an answer of `length` bytes until the peer has taken it; `None` if there is none. Small
/// ones do not count, because the number of streams bounds them.
fn room_for(answers: &Arc<Semaphore>, length: usize) -> Option<Option<OwnedSemaphorePermit>> {
    if length <= SMALL {
        return Some(None);
    }
    let permits = u32::try_from(length).ok()?;
    answers.clone().try_acquire_many_owned(permits).ok().map(Some)
}

/// Waits until the peer's limit allows `length` more bytes. Small messages do not count, because
/// the number of streams bounds them.
async fn reserve(
    bytes: &Arc<Semaphore>,
    length: usize,
) -> Result<Option<OwnedSemaphorePermit>, LinkError> {
    if length <= SMALL {
        return Ok(None);
    }
    let permits = u32::try_from(length).map_err(LinkError::broken)?;
    bytes.clone().acquire_many_owned(permits).await.map(Some).map_err(LinkError::broken)
}

/// What the peer's certificate shows now; `None` if it has no certificate. The handshake has
/// checked it against the mesh's CA.
pub(super) fn shown_by(connection: &Connection) -> Option<Shown> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity::shown(chain.first()?, clock::timestamp())
}

#[cfg(test)]
mod tests;
