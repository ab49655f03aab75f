//! Answering peers. What is asked goes to the [`Service`] that the node hands in.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, Incoming, RecvStream, SendStream};
use rules::names::NodeId;
use rules::wire::{Answer, Ask, Bulk};
use rustls::pki_types::CertificateDer;
use tracing::{debug, warn};

use super::{Links, Open, read_message, write_message};
use crate::identity;
use crate::supervise::Tasks;

/// Who is at the other end: taken from its certificate. `None` is a node that has none yet and may only ask to join.
pub type Peer = Option<NodeId>;

/// What a node does when a peer asks.
pub trait Service: Send + Sync + 'static {
    /// Answers one question of a member.
    fn answer(&self, from: NodeId, ask: Ask) -> impl Future<Output = Answer> + Send;
    /// Answers a node that is no member yet.
    fn join(&self, ask: Ask) -> impl Future<Output = Answer> + Send;
    /// Serves a lease stream until it ends.
    fn lease(&self, from: NodeId, send: SendStream, receive: RecvStream) -> impl Future<Output = ()> + Send;
    /// Serves a bulk stream until it ends.
    fn bulk(&self, from: NodeId, bulk: Bulk, send: SendStream, receive: RecvStream) -> impl Future<Output = ()> + Send;
    /// Takes a datagram in.
    fn datagram(&self, from: NodeId, data: Bytes) -> impl Future<Output = ()> + Send;
}

/// Accepts connections until the group stops.
pub async fn serve<S: Service>(links: Arc<Links>, service: Arc<S>, tasks: Tasks) {
    while let Some(incoming) = links.endpoint.accept().await {
        let (links, service, inner) = (links.clone(), service.clone(), tasks.clone());
        tasks.spawn("links.connection", connection(links, incoming, service, inner));
    }
}

async fn connection<S: Service>(links: Arc<Links>, incoming: Incoming, service: Arc<S>, tasks: Tasks) {
    let handshake = async { links.accept(incoming)?.await };
    let connection = match handshake.await {
        Ok(connection) => connection,
        Err(error) => {
            debug!(%error, "handshake failed");
            return;
        }
    };
    let peer = peer_of(&connection);
    if let Some(from) = peer {
        let (datagrams, service) = (connection.clone(), service.clone());
        tasks.spawn("links.datagrams", async move {
            while let Ok(data) = datagrams.read_datagram().await {
                service.datagram(from, data).await;
            }
        });
    }
    while let Ok((send, receive)) = connection.accept_bi().await {
        let service = service.clone();
        tasks.spawn("links.stream", async move {
            if let Err(error) = stream(peer, send, receive, &*service).await {
                debug!(%error, "stream failed");
            }
        });
    }
}

async fn stream<S: Service>(
    peer: Peer,
    mut send: SendStream,
    mut receive: RecvStream,
    service: &S,
) -> Result<(), super::LinkError> {
    let open = match read_message::<Open>(&mut receive).await {
        Ok(open) => open,
        Err(super::LinkError::Message(error)) => {
            warn!(%error, "a peer's message was refused");
            return write_message(&mut send, &Answer::Refused(error.to_string())).await;
        }
        Err(error) => return Err(error),
    };
    match (peer, open) {
        (Some(from), Open::Ask(ask)) => {
            // a caller that went away need not be answered: drop the work with the stream
            let answer = tokio::select! {
                answer = service.answer(from, ask) => answer,
                _ = send.stopped() => return Ok(()),
            };
            write_message(&mut send, &answer).await?;
            let _ = send.finish();
        }
        (Some(from), Open::Lease) => service.lease(from, send, receive).await,
        (Some(from), Open::Bulk(bulk)) => service.bulk(from, bulk, send, receive).await,
        (None, Open::Ask(ask @ Ask::Join(_))) => {
            let answer = service.join(ask).await;
            write_message(&mut send, &answer).await?;
            let _ = send.finish();
            let _ = send.stopped().await;
        }
        (None, _) => warn!("a peer without a certificate asked for more than to join"),
    }
    Ok(())
}

/// The peer's id, from its certificate, which the handshake has checked against the mesh's CA.
fn peer_of(connection: &Connection) -> Peer {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    identity::node_of(chain.first()?)
}
