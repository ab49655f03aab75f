//! Answers the requests of peers. Gossip, consensus, leases and membership are handled here;
//! everything else is passed to the rooms above.

mod joining;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use rules::blobs::uploads::RelayedStep;
use rules::ledger::command::Outcome;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, ReadRecords, Role, key};
use rules::ledger::trust::LookForTrust;
use rules::wire::{Answer, Ask, Bulk, JoinRequest, NoLedger, transfer_time};
use rules::words::moment::Moment;
use rules::words::names::{NodeId, RepositoryName};
use tracing::{debug, warn};

use crate::identity::Own;
use crate::ledger::Ledger;
use crate::links::{Guest, LinkError, Links, Service};
use crate::members::Members;
use crate::sealing;
use crate::secrets::Secrets;
use crate::transfer::{CopyIn, RelayIn, Wanted};

/// How long a majority may take to say which revision this node must have applied.
const READ_INDEX: Duration = Duration::from_secs(3);

/// What the rooms above do with requests of peers.
pub trait Rooms: Send + Sync + 'static {
    /// Answers one question of a member that is not about the mesh itself.
    fn answer(&self, from: Guest, ask: Ask) -> impl Future<Output = Answer> + Send;
    /// Sends a blob to a member.
    fn fetch(
        &self,
        from: Guest,
        wanted: Wanted,
        send: SendStream,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Receives a copy of an upload from a replica.
    fn copy(
        &self,
        from: NodeId,
        repository: RepositoryName,
        copy: CopyIn,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Takes a step of an upload of this node, which came to another replica.
    fn upload(
        &self,
        step: RelayedStep,
        relay: RelayIn,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Deadlines for requests of peers; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTerms {
    /// The deadline of a write.
    pub commit: Duration,
    /// How long an upload may rest between two requests of its client.
    pub rest: Duration,
}

/// A node as its peers see it.
pub struct MeshService<R> {
    /// `None` at an edge.
    ledger: Option<Arc<Ledger>>,
    members: Arc<Members>,
    /// Has the authority that signs the certificates of nodes that join.
    own: Arc<Own>,
    /// Holds the keys that replicas hand each other.
    secrets: Arc<Secrets>,
    links: Arc<Links>,
    terms: ServiceTerms,
    rooms: R,
    /// When each node last reported on itself.
    introduced: Mutex<HashMap<NodeId, Moment>>,
}

impl<R: Rooms> MeshService<R> {
    /// With the rooms above; `ledger` is `None` at an edge.
    pub fn new(
        ledger: Option<Arc<Ledger>>,
        members: Arc<Members>,
        own: Arc<Own>,
        secrets: Arc<Secrets>,
        links: Arc<Links>,
        terms: ServiceTerms,
        rooms: R,
    ) -> Arc<Self> {
        Arc::new(MeshService {
            ledger,
            members,
            own,
            secrets,
            links,
            terms,
            rooms,
            introduced: Mutex::default(),
        })
    }

    /// Has the key of a listed node recorded, if there is none yet.
    async fn know_key(&self, ledger: &Ledger, guest: Guest) {
        let unknown = ledger.view().and_then(|view| {
            let listed = view.get(&key::node(guest.node))?.is_some();
            Ok(listed && view.level()? >= Level::TRUST && view.pin(guest.node)?.is_none())
        });
        if matches!(unknown, Ok(true))
            && let Err(error) = sealing::pin_node(ledger, guest.node, guest.key).await
        {
            debug!(node = %guest.node, error, "the key of a node could not be recorded yet");
        }
    }

    /// `edge` reports that it is up. The answer says which replicas, and which edges of its own
    /// region, are up.
    fn present(&self, ledger: &Ledger, edge: NodeId) -> Answer {
        let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
        let Some(asker) = nodes.iter().find(|node| node.id == edge) else {
            return Answer::Refused("this edge is not listed here yet".into());
        };
        self.members.handle_present(edge);
        let concern =
            |node: &&NodeRecord| node.role == Role::Replica || node.region == asker.region;
        let concerned: BTreeSet<NodeId> =
            nodes.iter().filter(concern).map(|node| node.id).collect();
        let of = |all: BTreeSet<NodeId>| all.intersection(&concerned).copied().collect();
        Answer::Present { up: of(self.members.up()), down: of(self.members.down()) }
    }
}

impl<R: Rooms> Service for MeshService<R> {
    async fn answer(&self, from: Guest, ask: Ask) -> Answer {
        let Some(ledger) = &self.ledger else { return self.rooms.answer(from, ask).await };
        match ask {
            Ask::Raft { kind, body } => ledger.answer_raft(kind, &body).await,
            Ask::Propose(envelope) => {
                let recovers = envelope.command.name() == "recover_password";
                let patience = self.terms.commit + transfer_time(envelope.command.payload());
                let proposed = ledger.propose_here(envelope, patience).await;
                // what is not known to have failed may have taken effect
                let failed = match &proposed {
                    Ok(done) => done.outcome != Outcome::Done,
                    Err(NoLedger::NotLeader(_)) => true,
                    Err(_) => false,
                };
                if recovers && !failed {
                    tracing::warn!(from = %from.node, "a password is set from the disk of a replica");
                }
                Answer::Proposed(proposed)
            }
            Ask::ReadIndex => Answer::ReadIndex(ledger.read_index(READ_INDEX).await),
            Ask::Introduce(record) => self.introduce(ledger, from.node, record).await,
            Ask::Join(_) => Answer::Joined(Err("this node is a member already".into())),
            Ask::Renew { certificate_request } => {
                Answer::Renewed(self.renew(ledger, from.node, &certificate_request))
            }
            Ask::Present => {
                self.know_key(ledger, from).await;
                self.present(ledger, from.node)
            }
            Ask::Sealing(ask) => {
                sealing::answer(&self.secrets, ledger, &self.links, from.node, ask).await
            }
            Ask::Returned { shown, step } => {
                Answer::Returned(ledger.witness(from.node, shown, step).await)
            }
            Ask::Fingerprint(at) => Answer::Fingerprint(ledger.fingerprint(at)),
            Ask::Announce(edges) => {
                self.members.handle_announced(from.node, edges);
                Answer::Announced
            }
            ask => self.rooms.answer(from, ask).await,
        }
    }

    async fn join(&self, request: JoinRequest) -> Answer {
        match &self.ledger {
            Some(ledger) => self.let_in(ledger, request).await,
            None => Answer::Refused(
                "this node is an edge, which cannot admit nodes; ask a replica".into(),
            ),
        }
    }

    async fn lease(&self, from: NodeId, send: SendStream, receive: RecvStream) {
        if let Some(ledger) = &self.ledger {
            ledger.serve_lease(from, send, receive).await;
        }
    }

    async fn append(&self, from: NodeId, send: SendStream, receive: RecvStream) {
        if let Some(ledger) = &self.ledger
            && let Err(error) = ledger.receive_entries(send, receive).await
        {
            debug!(%from, %error, "a stream of the ledger's entries ended early");
        }
    }

    async fn bulk(&self, from: Guest, bulk: Bulk, send: SendStream, receive: RecvStream) {
        let guest = from;
        let from = from.node;
        let result = match (bulk, &self.ledger) {
            (Bulk::Fetch { digest, offset, fill, via, list, direct, class }, _) => {
                let wanted = Wanted { digest, offset, fill, via, list, direct, class };
                self.rooms.fetch(guest, wanted, send).await
            }
            (Bulk::Copy { repository }, Some(_)) => {
                self.rooms.copy(from, repository, CopyIn::new(send, receive, self.terms.rest)).await
            }
            (Bulk::Snapshot(header), Some(ledger)) => {
                ledger.receive_snapshot(&header, send, receive).await
            }
            (Bulk::State(announced), Some(ledger)) => {
                ledger.receive_state(&announced, send, receive).await
            }
            (Bulk::Records, Some(ledger)) => ledger.send_records(send).await,
            (Bulk::Ranges, Some(ledger)) => ledger.send_ranges(send, receive).await,
            (Bulk::Upload(step), Some(_)) => {
                self.rooms.upload(step, RelayIn::new(send, receive, self.terms.rest)).await
            }
            (_, None) => {
                warn!(%from, "a stream for replicas only was refused");
                return;
            }
        };
        if let Err(error) = result {
            debug!(%from, %error, "bulk stream ended early");
        }
    }

    fn left(&self, node: NodeId) {
        self.members.handle_left(node);
    }

    async fn datagram(&self, from: NodeId, data: Bytes) {
        self.members.handle_datagram(from, data).await;
    }
}
