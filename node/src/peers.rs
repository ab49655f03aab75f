//! What this node does when another asks: the one place where links meet the rooms.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh::clock;
use mesh::identity::Authority;
use mesh::ledger::Ledger;
use mesh::links::Service;
use mesh::members::Members;
use mesh::transfer::{CopyIn, Wanted};
use quinn::{RecvStream, SendStream};
use rules::command::{Command, Outcome};
use rules::digest::Digest;
use rules::names::{NodeId, OperationId, RepositoryName};
use rules::records::{Look, NodeRecord, Role};
use rules::wire::{Answer, Ask, Bulk, JoinGrant, JoinRequest, MAX_HAVE};
use tracing::{debug, info, warn};

use crate::access::Access;
use crate::copies::Copies;
use crate::flights::Flights;
use crate::neighbours::Neighbours;
use crate::outgoing::Outgoing;
use crate::preheats::Preheats;
use crate::proxies::Proxies;
use crate::rechecks::Rechecks;
use crate::records::look;
use crate::store::Store;
use crate::writes::Writes;

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
}

impl Service for Peers {
    async fn answer(&self, from: NodeId, ask: Ask) -> Answer {
        if self.neighbours.is_removed(from) {
            return Answer::Refused("this node was taken out of the mesh".into());
        }
        if !for_edges(&ask) && self.neighbours.role_of(from) == Some(Role::Edge) {
            warn!(%from, "an edge asked for what only replicas may");
            return Answer::Refused("an edge may not ask that".into());
        }
        let Some(ledger) = &self.ledger else { return self.answer_as_edge(ask) };
        match ask {
            Ask::Raft { kind, body } => ledger.answer_raft(kind, &body).await,
            Ask::Propose(envelope) => Answer::Proposed(ledger.propose_here(envelope, self.commit).await),
            Ask::ReadIndex => Answer::ReadIndex(ledger.read_index(Duration::from_secs(3)).await),
            Ask::Write(write) => Answer::Written(self.writes.commit_here(write).await),
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()),
            Ask::Recheck(digest) => self.recheck(digest),
            Ask::Spare { upstream, everything, millis } => {
                self.proxies.spare(upstream, everything, Duration::from_millis(millis));
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
            Ask::Join(request) => {
                debug!(%from, "a member asks to join again");
                self.let_in(ledger, request).await
            }
        }
    }

    async fn join(&self, ask: Ask) -> Answer {
        match (ask, &self.ledger) {
            (Ask::Join(request), Some(ledger)) => self.let_in(ledger, request).await,
            (Ask::Join(_), None) => Answer::Refused("this node is an edge, which lets nobody in; ask a replica".into()),
            _ => Answer::Refused("only a member may ask that".into()),
        }
    }

    async fn lease(&self, from: NodeId, send: SendStream, receive: RecvStream) {
        if let Some(ledger) = &self.ledger
            && self.neighbours.role_of(from) != Some(Role::Edge)
            && !self.neighbours.is_removed(from)
        {
            ledger.serve_lease(from, send, receive).await;
        }
    }

    async fn bulk(&self, from: NodeId, bulk: Bulk, send: SendStream, receive: RecvStream) {
        if self.neighbours.is_removed(from) {
            return;
        }
        let replicas_only = self.ledger.is_none() || self.neighbours.role_of(from) == Some(Role::Edge);
        if replicas_only && !matches!(bulk, Bulk::Fetch { .. }) {
            warn!(%from, "a stream for replicas only was refused");
            return;
        }
        let result = match bulk {
            Bulk::Fetch { digest, offset, fill, via, list, direct, class } => {
                let wanted = Wanted { digest, offset, fill, via, list, direct, class };
                self.outgoing.serve(from, wanted, send).await
            }
            Bulk::Copy { repository } => {
                self.copies.receive(from, repository, CopyIn::new(send, receive, self.rest)).await
            }
            Bulk::Snapshot(header) => match &self.ledger {
                Some(ledger) => ledger.receive_snapshot(&header, send, receive).await,
                None => return,
            },
        };
        if let Err(error) = result {
            debug!(%from, %error, "bulk stream ended early");
        }
    }

    async fn datagram(&self, from: NodeId, data: Bytes) {
        self.members.handle_datagram(from, data).await;
    }
}

/// What an edge may ask of others.
fn for_edges(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::Have { .. }
            | Ask::Recheck(_)
            | Ask::Spare { .. }
            | Ask::Look(_)
            | Ask::Identify(_)
            | Ask::Token { .. }
            | Ask::Introduce(_)
            | Ask::Resolve { .. }
            | Ask::Referrers { .. }
            | Ask::Join(_)
    )
}

impl Peers {
    /// An edge answers what it holds, and nothing else.
    fn answer_as_edge(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Have { digests, repository } => self.have(&digests, repository.as_ref()),
            Ask::Recheck(digest) => self.recheck(digest),
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

    /// An edge tells where it is now: of itself only, and its role stays what it joined with.
    async fn introduce(&self, ledger: &Ledger, from: NodeId, record: NodeRecord) -> Answer {
        if record.id != from {
            return Answer::Refused("a node may only tell of itself".into());
        }
        let command = Command::MoveNode { node: record };
        match ledger.propose(OperationId(rand::random()), command, self.commit).await {
            Ok(proposed) if proposed.outcome == Outcome::Done => Answer::Introduced,
            Ok(proposed) => Answer::Refused(format!("the ledger answered {:?}", proposed.outcome)),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// Lets a node in that shows a token's secret: its certificate is signed only after the ledger has used the invitation up.
    async fn let_in(&self, ledger: &Ledger, request: JoinRequest) -> Answer {
        let node = request.node.clone();
        let known = ledger
            .view()
            .and_then(|view| view.record::<rules::records::NodeRecord>(&rules::records::key::node(node.id)));
        if !matches!(known, Ok(None)) {
            return Answer::Joined(Err("a node with this identity is a member already".into()));
        }
        let certificate = match self.authority.sign(node.id, &request.certificate_request) {
            Ok(certificate) => certificate,
            Err(error) => return Answer::Joined(Err(error.to_string())),
        };
        let secret_hash = Digest::sha256(&request.secret);
        let command = Command::Join { secret_hash, node: node.clone() };
        match ledger.propose(OperationId(rand::random()), command, self.commit).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done => {
                    info!(name = %node.name, region = %node.region, at = clock::timestamp().0, "a node joined");
                    let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
                    Answer::Joined(Ok(JoinGrant {
                        certificate,
                        authority: self.authority.certificate.clone(),
                        authority_key: (node.role == Role::Replica).then(|| self.authority.key.clone()),
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
