//! Answering peers. What is asked goes to the [`Service`] that the node hands in; who may ask what
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
use rules::words::names::NodeId;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::frame::{STALLED, begin_frame, fill_frame};
use super::{LEAVING, LinkError, Links, write_message};
use crate::identity;
use ground::clock;
use ground::supervise::Tasks;

/// What a node does when a peer asks.
pub trait Service: Send + Sync + 'static {
    /// Answers one question of a member.
    fn answer(&self, from: Guest, ask: Ask) -> impl Future<Output = Answer> + Send;
    /// Answers a node that is no member yet and wants to be one.
    fn join(&self, request: JoinRequest) -> impl Future<Output = Answer> + Send;
    /// Serves a lease stream of a replica until it ends.
    fn lease(
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
    /// A member has said that it goes.
    fn left(&self, node: NodeId);
    /// Takes a datagram of a replica in.
    fn datagram(&self, from: NodeId, data: Bytes) -> impl Future<Output = ()> + Send;
}

/// A peer whose certificate was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Who it is.
    pub node: NodeId,
    /// How far it may go: never [`Standing::Nobody`].
    pub standing: Standing,
}

/// How long a handshake may take, and a stranger's one message.
const STRANGER: Duration = Duration::from_secs(5);
/// How long a stranger may wait for its answer: a join is written by a majority.
const JOINING: Duration = Duration::from_secs(30);
/// How long a member may take to read an answer: the largest, over a slow link.
const TAKEN: Duration = Duration::from_secs(120);
/// Between two looks whether a connection's peer still counts.
const LOOK: Duration = Duration::from_secs(2);
/// So many connections of one member are open at a time: two, those of the processes that act for
/// it (`atoll invite`), and what it has not yet given up. The oldest goes first.
const OPEN: usize = 16;
/// So many bytes of messages of one replica may be in memory at a time: one of the consensus as
/// long as there are, and the next; the same for all else.
const OF_REPLICA: usize = 2 * LARGEST;
/// The same of an edge.
const OF_EDGE: usize = 4 << 20;

/// How many streams a peer may have open, and how many bytes may be on their way to it, before and
/// after it is known.
struct Room {
    streams: u32,
    window: u32,
}

const FOR_REPLICA: Room = Room { streams: 1024, window: 64 << 20 };
const FOR_EDGE: Room = Room { streams: 256, window: 8 << 20 };

/// What is bounded for each member over all its connections.
#[derive(Default)]
struct Hall {
    /// A node that is known as a replica now, and was not before, gets a replica's bounds.
    guests: Mutex<HashMap<(NodeId, bool), Bounds>>,
}

struct Bounds {
    connections: VecDeque<Connection>,
    held: Held,
}

/// What one member may hold at a time.
#[derive(Clone)]
struct Held {
    /// Bytes of messages of the consensus.
    consensus: Arc<Semaphore>,
    /// Bytes of all other messages that are not small.
    others: Arc<Semaphore>,
    /// Streams, small messages or not.
    streams: Arc<Semaphore>,
}

impl Hall {
    /// Takes a connection of `guest` in; the oldest of too many is closed.
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
                streams: permits(room.streams as usize * 2),
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

/// A place at the door, given back when the peer is known or gone.
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

/// Lets a handshake begin, or not. Costs nothing but a look at a table.
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
            debug!(%error, "a stranger was sent away");
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
    let guest = Guest { node: shown.node, standing };
    let room = if standing == Standing::Replica { FOR_REPLICA } else { FOR_EDGE };
    let held = hall.enter(guest, &connection, &room);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(room.streams));
    connection.set_receive_window(VarInt::from_u32(room.window));
    let (datagrams, heard, hearing) = (connection.clone(), service.clone(), links.clone());
    tasks.spawn("links.datagrams", async move {
        while let Ok(data) = datagrams.read_datagram().await {
            // gossip is between replicas: an edge has no say in who is alive, nor has who was taken
            // out or whose certificate has ended
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
            // what runs on a connection runs for long: blobs, leases
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
        // looked at anew for each: a node may have been taken out, or its certificate may have
        // ended
        let standing = links.standing(&shown_by(&connection).unwrap_or(shown));
        if let Standing::Nobody(reason) = standing {
            connection.close(0u32.into(), reason.as_bytes());
            return;
        }
        let guest = Guest { node: shown.node, standing };
        let Ok(place) = held.streams.clone().acquire_owned().await else { return };
        let (service, held) = (service.clone(), held.clone());
        tasks.spawn("links.stream", async move {
            if let Err(error) = stream(guest, send, receive, &*service, &held).await {
                debug!(%error, "stream failed");
            }
            drop(place);
        });
    }
}

/// Hears the one message of a peer that has no certificate.
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
    // held for as long as what was read is in memory
    let _memory =
        reserve(if kind.is_consensus() { &held.consensus } else { &held.others }, length).await?;
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
            // a caller that went away need not be answered: drop the work with the stream
            let answer = tokio::select! {
                answer = service.answer(from, ask) => answer,
                _ = send.stopped() => return Ok(()),
            };
            // a peer that does not take its answer does not keep it in memory here
            timeout(TAKEN, write_message(&mut send, &answer))
                .await
                .map_err(|_| LinkError::Deadline)??;
            let _ = send.finish();
        }
        Open::Lease => service.lease(from.node, send, receive).await,
        Open::Bulk(bulk) => service.bulk(from, bulk, send, receive).await,
    }
    Ok(())
}

/// Waits until the peer's messages leave room for `length` bytes more. What is small counts as
/// nothing: the number of streams bounds it.
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

/// What the peer's certificate shows now. The handshake has checked it against the mesh's CA.
/// `None`: it has none.
pub(super) fn shown_by(connection: &Connection) -> Option<Shown> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity::shown(chain.first()?, clock::timestamp())
}
