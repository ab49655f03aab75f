//! Steps of uploads that another node has: a load balancer may send each request of a client to
//! another node. The request is passed on to the node that has the upload's bytes, which its id
//! names, and the answer is passed back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh::links::LinkError;
use mesh::transfer::{RelayIn, RelayOut, TransferTerms, relay};
use rules::blobs::uploads::{RelayedStep, StepDone, UploadRefusal};
use rules::ledger::records::{Look, Role};
use rules::wire::BodyEnd;
use rules::words::names::NodeId;

use super::receiving::{Becomes, NotTaken, Pieces};
use super::sessions::Sessions;
use crate::view::neighbours::Neighbours;

/// The uploads of all nodes.
pub struct Uploads {
    /// Those of this node.
    pub sessions: Arc<Sessions>,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Deadlines of bytes between nodes.
    pub terms: TransferTerms,
}

impl Uploads {
    /// Takes a step of an upload, here or at the node that has it. If that node is gone, the upload
    /// is unknown, so that the client begins again.
    pub async fn step<B: Pieces>(
        &self,
        step: RelayedStep,
        body: &mut B,
        becomes: Becomes,
    ) -> Result<StepDone, NotTaken<B::Error>> {
        let home = step.id.home;
        if home == self.neighbours.me {
            return self.sessions.step(&step, body, becomes).await;
        }
        let is_replica = |node: NodeId| {
            let nodes = self.neighbours.nodes();
            nodes.iter().any(|known| known.id == node && known.role == Role::Replica)
        };
        if !is_replica(home) || self.neighbours.members.down().contains(&home) {
            return Err(UploadRefusal::Unknown.into());
        }
        metrics::counter!("atoll_uploads_relayed_total").increment(1);
        tokio::select! {
            relayed = self.pass_on(step, body) => relayed,
            () = self.neighbours.members.until_down(home) => Err(UploadRefusal::Unknown.into()),
        }
    }

    async fn pass_on<B: Pieces>(
        &self,
        step: RelayedStep,
        body: &mut B,
    ) -> Result<StepDone, NotTaken<B::Error>> {
        let home = step.id.home;
        let lost = |error: LinkError| {
            let name = self.neighbours.name_of(home);
            UploadRefusal::Unavailable(format!(
                "{name}, which has this upload, cannot be reached: {error}"
            ))
        };
        let begun = relay(&self.neighbours.links, step, self.terms).await;
        let (mut out, answer) = begun.map_err(lost)?;
        let patience = answer.patience();
        // one future from the beginning to the end: what it has read must not be lost
        let mut answer = pin!(answer.read());
        let sent = tokio::select! {
            biased;
            // it may refuse before it has read the body
            early = &mut answer => return Ok(early.map_err(lost)??),
            sent = send(body, &mut out) => sent,
        };
        let broken = match sent {
            Ok(()) => LinkError::Deadline,
            // the node may have answered, and does not read further
            Err(NotSent::Link(error)) => error,
            Err(NotSent::Body(error)) => {
                let _ = out.end(BodyEnd::Broken).await;
                return Err(NotTaken::Body(error));
            }
        };
        match tokio::time::timeout(patience, answer).await {
            Ok(answered) => Ok(answered.map_err(lost)??),
            Err(_) => Err(lost(broken).into()),
        }
    }

    /// Takes a step of an upload of this node, which came to another one. That node has checked
    /// that its caller may push.
    pub async fn receive(
        &self,
        step: RelayedStep,
        mut relay: RelayIn,
        grant: Duration,
    ) -> Result<(), LinkError> {
        let becomes = self.neighbours.records.view().and_then(|view| {
            let project = view.project(&step.repository.project())?;
            let project = project.filter(|p| p.upstream.is_none());
            let of = |project| Becomes::of(&*view, &project, step.step.sealed(), grant);
            project.map(of).transpose()
        });
        let taken = match becomes {
            Ok(Some(becomes)) => self.sessions.step(&step, &mut Relayed(&mut relay), becomes).await,
            Ok(None) => Err(UploadRefusal::Unknown.into()),
            Err(error) => Err(UploadRefusal::Failed(error.to_string()).into()),
        };
        let answer = taken.map_err(|why| match why {
            NotTaken::Refused(refusal) => refusal,
            NotTaken::Body(_) => UploadRefusal::BrokenOff,
        });
        relay.answer(&answer).await
    }
}

/// Why a body was not sent on.
enum NotSent<E> {
    Body(E),
    Link(LinkError),
}

async fn send<B: Pieces>(body: &mut B, out: &mut RelayOut) -> Result<(), NotSent<B::Error>> {
    while let Some(bytes) = body.next().await.map_err(NotSent::Body)? {
        out.send(&bytes).await.map_err(NotSent::Link)?;
        metrics::counter!("atoll_link_bytes_sent_total").increment(bytes.len() as u64);
    }
    out.end(BodyEnd::Whole).await.map_err(NotSent::Link)
}

/// A body that another node passes on.
struct Relayed<'a>(&'a mut RelayIn);

impl Pieces for Relayed<'_> {
    type Error = LinkError;

    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let piece = self.0.next().await?;
        let length = piece.as_ref().map_or(0, Bytes::len) as u64;
        metrics::counter!("atoll_link_bytes_received_total").increment(length);
        Ok(piece)
    }
}
