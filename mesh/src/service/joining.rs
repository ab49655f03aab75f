//! Admits new nodes, and records what members say of themselves.

use std::time::Duration;

use ground::clock;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::Level;
use rules::ledger::records::{Invitation, Look, NodeRecord, ReadRecords, Role, key};
use rules::ledger::trust::LookForTrust;
use rules::wire::{Answer, JoinGrant, JoinRequest};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId};
use tracing::{info, warn};

use super::{MeshService, Rooms};
use crate::identity::{certificate_der, shown};
use crate::ledger::Ledger;
use crate::sealing;

/// The maximum length of a certificate request in bytes.
const MAX_CERTIFICATE_REQUEST: usize = 8 << 10;

/// The minimum time between two ledger entries for what one node says of itself.
const INTRODUCED_EVERY: Duration = Duration::from_secs(1);

impl<R: Rooms> MeshService<R> {
    /// Signs a new certificate for a member, with the role that the ledger has for it.
    pub(super) fn renew(
        &self,
        ledger: &Ledger,
        node: NodeId,
        request: &str,
    ) -> Result<String, String> {
        if request.len() > MAX_CERTIFICATE_REQUEST {
            return Err("the certificate request is too long".into());
        }
        let record = ledger.view().and_then(|view| view.record::<NodeRecord>(&key::node(node)));
        let Ok(Some(record)) = record else {
            return Err("the ledger does not list this node".into());
        };
        let certificate =
            self.own.get().authority.sign(node, record.role, request, clock::timestamp());
        let certificate = certificate.map_err(|e| e.to_string())?;
        info!(name = %record.name, role = record.role.name(), "a member's certificate was renewed");
        Ok(certificate)
    }

    /// Has the key of a node that was just let in recorded. If that fails, it is done when the node
    /// connects.
    async fn know_new(&self, ledger: &Ledger, node: NodeId, certificate: &str) {
        let level = ledger.view().and_then(|view| view.level());
        let shown = certificate_der(certificate).ok().and_then(|c| shown(&c, clock::timestamp()));
        if let (Ok(level), Some(shown)) = (level, shown)
            && level >= Level::TRUST
            && let Err(error) = sealing::pin_node(ledger, node, shown.key).await
        {
            warn!(%node, error, "the key of a new node could not be recorded yet");
        }
    }

    /// Whether `node` may cause another ledger entry for what it says of itself: one in
    /// [`INTRODUCED_EVERY`].
    fn may_introduce(&self, node: NodeId) -> bool {
        let now = clock::now();
        let mut introduced = self.introduced.lock();
        introduced.retain(|_, at| now.since(*at) < INTRODUCED_EVERY);
        let first = !introduced.contains_key(&node);
        introduced.entry(node).or_insert(now);
        first
    }

    /// A node reports its address and other details. It may only do so for itself, and its role
    /// stays as it joined.
    pub(super) async fn introduce(
        &self,
        ledger: &Ledger,
        from: NodeId,
        record: NodeRecord,
    ) -> Answer {
        if record.id != from {
            return Answer::Refused("a node may only report on itself".into());
        }
        if let Err(reason) = record.check() {
            return Answer::Refused(reason.into());
        }
        let known = ledger.view().and_then(|view| view.record::<NodeRecord>(&key::node(from)));
        if matches!(&known, Ok(Some(known)) if *known == record) {
            return Answer::Introduced;
        }
        if !self.may_introduce(from) {
            return Answer::Refused(
                "this node reported on itself a moment ago; try again later".into(),
            );
        }
        let command = Command::MoveNode { node: record };
        match ledger.propose(OperationId(rand::random()), command, self.terms.commit).await {
            Ok(proposed) if proposed.outcome == Outcome::Done => Answer::Introduced,
            Ok(proposed) => Answer::Refused(format!("the ledger answered {:?}", proposed.outcome)),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// Admits a node that shows a token's secret. The invitation is checked before anything is
    /// proposed, so that made-up requests of strangers cost no ledger entries. The certificate is
    /// issued only after the ledger has recorded the use of the invitation.
    pub(super) async fn let_in(&self, ledger: &Ledger, request: JoinRequest) -> Answer {
        let node = request.node.clone();
        let secret_hash = Digest::sha256(request.secret.expose());
        let read = ledger.read(|records| {
            Ok((
                records.record::<Invitation>(&key::invitation(&secret_hash))?,
                records.get(&key::node(node.id))?.is_some()
                    || records.get(&key::removed(node.id))?.is_some(),
            ))
        });
        let (invitation, used) = match read.await {
            Ok((found, _)) => found,
            Err(error) => return Answer::Joined(Err(error.to_string())),
        };
        if let Err(reason) = Invitation::lets_in(invitation.as_ref(), node.role, clock::timestamp())
        {
            warn!(name = %node.name, reason, "a node was not let in");
            metrics::counter!("atoll_joins_refused_total").increment(1);
            return Answer::Joined(Err(reason));
        }
        if used {
            return Answer::Joined(Err(
                "a node with this identity is or was a member; join with an empty data_dir".into(),
            ));
        }
        let authority = self.own.get().authority;
        let trusted_from = ledger.view().and_then(|view| view.trusted_from());
        if trusted_from.is_ok_and(|from| authority.version() < from) {
            return Answer::Joined(Err(
                "the mesh is about to have another authority; try again in a moment".into(),
            ));
        }
        let certificate = match authority.sign(
            node.id,
            node.role,
            &request.certificate_request,
            clock::timestamp(),
        ) {
            Ok(certificate) => certificate,
            Err(error) => return Answer::Joined(Err(error.to_string())),
        };
        let command = Command::Join { secret_hash, node: node.clone() };
        match ledger.propose(OperationId(rand::random()), command, self.terms.commit).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::Done => {
                    self.know_new(ledger, node.id, &certificate).await;
                    info!(name = %node.name, region = %node.region, at = clock::timestamp().0, "a node joined");
                    let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
                    Answer::Joined(Ok(JoinGrant {
                        certificate,
                        authority: authority.certificate.clone(),
                        authority_key: (node.role == Role::Replica)
                            .then(|| authority.key.as_str().into()),
                        nodes,
                    }))
                }
                Outcome::Refused(mut reason) => {
                    let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
                    if nodes.iter().any(|one| one.name == node.name) {
                        reason += &format!(
                            "; if that node is gone for good, `atoll remove {}` at another one frees its name",
                            node.name
                        );
                    }
                    warn!(name = %node.name, reason, "a node was not let in");
                    Answer::Joined(Err(reason))
                }
                other => Answer::Joined(Err(format!("the ledger answered {other:?}"))),
            },
            Err(error) => Answer::Joined(Err(error.to_string())),
        }
    }
}
