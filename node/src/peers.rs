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
use rules::names::{NodeId, OperationId};
use rules::records::Look;
use rules::wire::{Answer, Ask, Bulk, JoinGrant, JoinRequest, MAX_HAVE};
use tracing::{debug, info, warn};

use crate::copies::Copies;
use crate::flights::Flights;
use crate::outgoing::Outgoing;
use crate::proxies::Proxies;
use crate::store::Store;
use crate::writes::Writes;

/// The rooms that peers' questions go to.
pub struct Peers {
    /// Consensus, proposals, leases.
    pub ledger: Arc<Ledger>,
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
        match ask {
            Ask::Raft { kind, body } => self.ledger.answer_raft(kind, &body).await,
            Ask::Propose(envelope) => Answer::Proposed(self.ledger.propose_here(envelope, self.commit).await),
            Ask::ReadIndex => Answer::ReadIndex(self.ledger.read_index(Duration::from_secs(3)).await),
            Ask::Write(write) => Answer::Written(self.writes.commit_here(write).await),
            Ask::Have { digests, repository } => {
                if digests.len() > MAX_HAVE {
                    return Answer::Refused(format!("more than {MAX_HAVE} blobs in one question"));
                }
                let stock = digests.iter().map(|digest| self.store.stock(digest, repository.as_ref()));
                match stock.collect() {
                    Ok(stock) => Answer::Have(stock),
                    Err(error) => Answer::Refused(error.to_string()),
                }
            }
            Ask::Replicate { digest, sources, repository } => {
                let grant = repository.as_ref().map(|r| (r, self.grant));
                Answer::Replicated(self.flights.replicate(digest, sources, grant).await)
            }
            Ask::Resolve { repository, reference } => match reference.parse() {
                Ok(reference) => Answer::Resolved(self.proxies.resolve_here(&repository, &reference).await),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Ask::Revoke { repository, digest } => match self.store.revoke(digest, &repository).await {
                Ok(revoked) => Answer::Revoked(revoked),
                Err(error) => Answer::Refused(error.to_string()),
            },
            Ask::Join(request) => {
                debug!(%from, "a member asks to join again");
                self.let_in(request).await
            }
        }
    }

    async fn join(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Join(request) => self.let_in(request).await,
            _ => Answer::Refused("only a member may ask that".into()),
        }
    }

    async fn lease(&self, from: NodeId, send: SendStream, receive: RecvStream) {
        self.ledger.serve_lease(from, send, receive).await;
    }

    async fn bulk(&self, from: NodeId, bulk: Bulk, send: SendStream, receive: RecvStream) {
        let result = match bulk {
            Bulk::Fetch { digest, offset, fill, via, list, direct, class } => {
                let wanted = Wanted { digest, offset, fill, via, list, direct, class };
                self.outgoing.serve(from, wanted, send).await
            }
            Bulk::Copy { repository } => {
                self.copies.receive(from, repository, CopyIn::new(send, receive, self.rest)).await
            }
            Bulk::Snapshot(header) => self.ledger.receive_snapshot(&header, send, receive).await,
        };
        if let Err(error) = result {
            debug!(%from, %error, "bulk stream ended early");
        }
    }

    async fn datagram(&self, from: NodeId, data: Bytes) {
        self.members.handle_datagram(from, data).await;
    }
}

impl Peers {
    /// Lets a node in that shows a token's secret: its certificate is signed only after the ledger has used the invitation up.
    async fn let_in(&self, request: JoinRequest) -> Answer {
        let node = request.node.clone();
        let known = self
            .ledger
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
        match self.ledger.propose(OperationId(rand::random()), command, self.commit).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done => {
                    info!(name = %node.name, region = %node.region, at = clock::timestamp().0, "a node joined");
                    let nodes = self.ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
                    Answer::Joined(Ok(JoinGrant {
                        certificate,
                        authority: self.authority.certificate.clone(),
                        authority_key: self.authority.key.clone(),
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
