//! What this node does when another asks: the one place where links meet the rooms.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use mesh::identity::Authority;
use mesh::ledger::Ledger;
use mesh::links::{Guest, Service};
use mesh::members::Members;
use mesh::transfer::{CopyIn, Wanted};
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::{Build, Level};
use rules::ledger::records::{Invitation, Look, NodeRecord, ReadRecords, Role, key};
use rules::wire::{Answer, Ask, Bulk, JoinGrant, JoinRequest, MAX_HAVE};
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::{NodeId, OperationId, RepositoryName};
use tracing::{debug, info, warn};

use registry::blobs::copies::Copies;
use registry::blobs::flights::Flights;
use registry::blobs::outgoing::Outgoing;
use registry::blobs::rechecks::Rechecks;
use registry::jobs::preheats::Preheats;
use registry::people::Access;
use registry::proxies::resolving::Proxies;
use registry::view::look;
use registry::view::neighbours::Neighbours;
use registry::writes::Writes;
use store::Store;

/// The longest certificate request that is looked at, in bytes.
const MAX_CERTIFICATE_REQUEST: usize = 8 << 10;

/// Between two entries of the ledger for what one node says of itself.
const INTRODUCED_EVERY: Duration = Duration::from_secs(1);

/// The rooms that peers' questions go to.
pub struct Peers {
    /// Consensus, proposals, leases; an edge has none.
    pub ledger: Option<Arc<Ledger>>,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Whose credentials edges were shown.
    pub access: Arc<Access>,
    /// Gossip.
    pub members: Arc<Members>,
    /// What is held.
    pub store: Arc<Store>,
    /// What is arriving.
    pub flights: Arc<Flights>,
    /// Blobs to peers.
    pub outgoing: Outgoing,
    /// Copies of uploads.
    pub copies: Arc<Copies>,
    /// Writes of projects whose primary this node is.
    pub writes: Arc<Writes>,
    /// Upstreams of projects whose primary this node is.
    pub proxies: Arc<Proxies>,
    /// Looks at copies that peers complain of.
    pub rechecks: Arc<Rechecks>,
    /// What is fetched before anyone asks for it.
    pub preheats: Arc<Preheats>,
    /// Signs those who may join.
    pub authority: Authority,
    /// How long an upload may rest between two requests.
    pub rest: Duration,
    /// How long a grant lasts.
    pub grant: Duration,
    /// How long a write may take.
    pub commit: Duration,
    /// Who told of itself lately.
    pub introduced: Mutex<HashMap<NodeId, Moment>>,
}

impl Service for Peers {
    async fn answer(&self, from: Guest, ask: Ask) -> Answer {
        let Some(ledger) = &self.ledger else { return self.answer_as_edge(ask) };
        let from = from.node;
        match ask {
            Ask::Raft { kind, body } => ledger.answer_raft(kind, &body).await,
            Ask::Propose(envelope) => Answer::Proposed(ledger.propose_here(envelope, self.commit).await),
            Ask::ReadIndex => Answer::ReadIndex(ledger.read_index(Duration::from_secs(3)).await),
            Ask::Write(write) => Answer::Written(self.writes.commit_here(write).await),
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()),
            Ask::Recheck(digest) => self.recheck(digest),
            Ask::Spare { upstream, everything, millis } => {
                self.proxies.upstreams().spare(upstream, everything, Duration::from_millis(millis));
                Answer::Spared
            }
            Ask::Look(questions) => match look(ledger, &questions).await {
                Ok((found, fresh)) => Answer::Look(found, fresh),
                Err(reason) => Answer::Refused(reason),
            },
            Ask::Identify(credentials) => match self.access.identify(credentials).await {
                Ok(verdict) => Answer::Identified(verdict),
                Err(_) => Answer::Refused("the credentials could not be checked".into()),
            },
            Ask::Token { name, password, scopes } => match self.access.token_for(&name, &password, &scopes).await {
                Ok(signed) => Answer::Token(signed),
                Err(_) => Answer::Refused("the token could not be signed".into()),
            },
            Ask::Introduce(record) => self.introduce(ledger, from, record).await,
            Ask::Replicate { digest, sources, repository } => {
                let grant = repository.as_ref().map(|r| (r, self.grant));
                Answer::Replicated(self.flights.replicate(digest, sources, grant).await)
            }
            Ask::Resolve { repository, reference } => match reference.parse() {
                Ok(reference) => Answer::Resolved(self.proxies.resolve_here(&repository, &reference).await),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Ask::Referrers { repository, subject, query } => {
                Answer::Referring(self.proxies.referrers_here(&repository, &subject, &query).await)
            }
            Ask::Revoke { repository, digest } => match self.store.revoke(digest, &repository).await {
                Ok(revoked) => Answer::Revoked(revoked),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Ask::Preheat { digest, via } => Answer::Preheated(self.preheats.fetch_here(digest, via).await),
            Ask::Join(_) => Answer::Joined(Err("this node is a member already".into())),
            Ask::Renew { certificate_request } => Answer::Renewed(self.renew(from, &certificate_request)),
            Ask::Present => self.present(from),
            Ask::Announce(edges) => {
                self.members.handle_announced(from, edges);
                Answer::Announced
            }
            Ask::Build => self.build(),
        }
    }

    async fn join(&self, request: JoinRequest) -> Answer {
        match &self.ledger {
            Some(ledger) => self.let_in(ledger, request).await,
            None => Answer::Refused("this node is an edge, which lets nobody in; ask a replica".into()),
        }
    }

    async fn lease(&self, from: NodeId, send: SendStream, receive: RecvStream) {
        if let Some(ledger) = &self.ledger {
            ledger.serve_lease(from, send, receive).await;
        }
    }

    async fn bulk(&self, from: Guest, bulk: Bulk, send: SendStream, receive: RecvStream) {
        let from = from.node;
        let result = match (bulk, &self.ledger) {
            (Bulk::Fetch { digest, offset, fill, via, list, direct, class }, _) => {
                let wanted = Wanted { digest, offset, fill, via, list, direct, class };
                self.outgoing.serve(from, wanted, send).await
            }
            (Bulk::Copy { repository }, Some(_)) => {
                self.copies.receive(from, repository, CopyIn::new(send, receive, self.rest)).await
            }
            (Bulk::Snapshot(header), Some(ledger)) => ledger.receive_snapshot(&header, send, receive).await,
            (Bulk::Copy { .. } | Bulk::Snapshot(_), None) => {
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

impl Peers {
    /// An edge answers what it holds, and nothing else.
    fn answer_as_edge(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()),
            Ask::Recheck(digest) => self.recheck(digest),
            Ask::Build => self.build(),
            _ => Answer::Refused("this node is an edge, which has no ledger; ask a replica".into()),
        }
    }

    fn recheck(&self, digest: Digest) -> Answer {
        self.rechecks.complained(digest);
        Answer::Rechecking
    }

    fn have(&self, digests: &[Digest], repository: Option<&RepositoryName>) -> Answer {
        if digests.len() > MAX_HAVE {
            return Answer::Refused(format!("more than {MAX_HAVE} blobs in one question"));
        }
        match digests.iter().map(|digest| self.store.stock(digest, repository)).collect() {
            Ok(stock) => Answer::Have(stock),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// Which build this is, and the level that it has applied.
    fn build(&self) -> Answer {
        let level = self.neighbours.records.view().and_then(|view| view.level()).unwrap_or(Level::FIRST);
        Answer::Build(Build::of_this(env!("CARGO_PKG_VERSION"), level))
    }

    /// Edge `edge` is there, and hears who else is: replicas, and the edges of its own region.
    fn present(&self, edge: NodeId) -> Answer {
        let nodes = self.neighbours.nodes();
        let Some(asker) = nodes.iter().find(|node| node.id == edge) else {
            return Answer::Refused("this edge is not listed here yet".into());
        };
        self.members.handle_present(edge);
        let concern = |node: &&NodeRecord| node.role == Role::Replica || node.region == asker.region;
        let concerned: BTreeSet<NodeId> = nodes.iter().filter(concern).map(|node| node.id).collect();
        let of = |all: BTreeSet<NodeId>| all.intersection(&concerned).copied().collect();
        Answer::Present { up: of(self.members.up()), down: of(self.members.down()) }
    }

    /// Signs the certificate of a member anew, with the role that the ledger has for it.
    fn renew(&self, node: NodeId, request: &str) -> Result<String, String> {
        if request.len() > MAX_CERTIFICATE_REQUEST {
            return Err("the certificate request is too long".into());
        }
        let record = self.neighbours.records.view().and_then(|view| view.record::<NodeRecord>(&key::node(node)));
        let Ok(Some(record)) = record else { return Err("the ledger does not list this node".into()) };
        let certificate = self.authority.sign(node, record.role, request, clock::timestamp());
        let certificate = certificate.map_err(|e| e.to_string())?;
        info!(name = %record.name, role = record.role.name(), "a member's certificate was renewed");
        Ok(certificate)
    }

    /// Whether `node` may have another entry of the ledger for what it says of itself: one in [`INTRODUCED_EVERY`].
    fn may_introduce(&self, node: NodeId) -> bool {
        let now = clock::now();
        let mut introduced = self.introduced.lock();
        introduced.retain(|_, at| now.since(*at) < INTRODUCED_EVERY);
        let first = !introduced.contains_key(&node);
        introduced.entry(node).or_insert(now);
        first
    }

    /// A node tells where it is now: of itself only, and its role stays what it joined with.
    async fn introduce(&self, ledger: &Ledger, from: NodeId, record: NodeRecord) -> Answer {
        if record.id != from {
            return Answer::Refused("a node may only tell of itself".into());
        }
        if let Err(reason) = record.check() {
            return Answer::Refused(reason.into());
        }
        let known = self.neighbours.records.view().and_then(|view| view.record::<NodeRecord>(&key::node(from)));
        if matches!(&known, Ok(Some(known)) if *known == record) {
            return Answer::Introduced;
        }
        if !self.may_introduce(from) {
            return Answer::Refused("this node told of itself a moment ago; ask again later".into());
        }
        let command = Command::MoveNode { node: record };
        match ledger.propose(OperationId(rand::random()), command, self.commit).await {
            Ok(proposed) if proposed.outcome == Outcome::Done => Answer::Introduced,
            Ok(proposed) => Answer::Refused(format!("the ledger answered {:?}", proposed.outcome)),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// Lets a node in that shows a token's secret. The invitation is looked at before anything is proposed: what a stranger makes up must cost no entry of
    /// the ledger. The certificate is given out only after the ledger has used the invitation up.
    async fn let_in(&self, ledger: &Ledger, request: JoinRequest) -> Answer {
        let node = request.node.clone();
        let secret_hash = Digest::sha256(request.secret.expose());
        let read = ledger.read(|records| {
            Ok((
                records.record::<Invitation>(&key::invitation(&secret_hash))?,
                records.get(&key::node(node.id))?.is_some() || records.get(&key::removed(node.id))?.is_some(),
            ))
        });
        let (invitation, used) = match read.await {
            Ok((found, _)) => found,
            Err(error) => return Answer::Joined(Err(error.to_string())),
        };
        if let Err(reason) = Invitation::lets_in(invitation.as_ref(), node.role, clock::timestamp()) {
            warn!(name = %node.name, reason, "a node was not let in");
            metrics::counter!("atoll_joins_refused_total").increment(1);
            return Answer::Joined(Err(reason));
        }
        if used {
            return Answer::Joined(Err(
                "a node with this identity is or was a member; join with an empty data_dir".into()
            ));
        }
        let certificate =
            match self.authority.sign(node.id, node.role, &request.certificate_request, clock::timestamp()) {
                Ok(certificate) => certificate,
                Err(error) => return Answer::Joined(Err(error.to_string())),
            };
        let command = Command::Join { secret_hash, node: node.clone() };
        match ledger.propose(OperationId(rand::random()), command, self.commit).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done => {
                    info!(name = %node.name, region = %node.region, at = clock::timestamp().0, "a node joined");
                    let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
                    Answer::Joined(Ok(JoinGrant {
                        certificate,
                        authority: self.authority.certificate.clone(),
                        authority_key: (node.role == Role::Replica).then(|| self.authority.key.as_str().into()),
                        nodes,
                    }))
                }
                Outcome::Refused(reason) => {
                    warn!(name = %node.name, reason, "a node was not let in");
                    Answer::Joined(Err(reason))
                }
                other => Answer::Joined(Err(format!("the ledger answered {other:?}"))),
            },
            Err(error) => Answer::Joined(Err(error.to_string())),
        }
    }
}
