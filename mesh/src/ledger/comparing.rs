//! Whether this node has the same records as the other replicas, and what it does if not.
//!
//! Every [`LOOK`], each replica asks the others for the fingerprint of their records at a revision
//! that it has applied, and judges its own (`rules::ledger::fingerprint`). A node whose records
//! differ from those that count answers no fresh read, proposes nothing, gets no lease, and hands
//! its tasks over, like one that cannot write. It takes the records of a node that has the right
//! ones, applies to them what it has applied since, and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quinn::{RecvStream, SendStream};
use rules::ledger::fingerprint::{self, Verdict};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Role};
use rules::wire::Bulk;
use rules::wire::questions::Fingerprint;
use rules::words::names::{NodeId, Revision};
use serde::de::DeserializeOwned;
use tracing::{error, info, warn};

use super::Ledger;
use super::arrival::{self, Announced, Header};
use super::carried::{self, Carried, Held};
use super::database::other;
use super::state::{FOR_ANOTHER, Replaced};
use crate::links::{LinkError, read_message, write_message};
use ground::supervise::Tasks;

/// The time between two comparisons.
const LOOK: Duration = Duration::from_secs(10);
/// The same until a node has been compared once since its start.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// The maximum time between two rebuilds of a node that differs after each.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// How long the other replicas get to apply what they are asked about.
const APPLY: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ASK: Duration = Duration::from_secs(2);
/// How long a node waits until it has applied as much as the records that it was sent.
const CATCH_UP: Duration = Duration::from_secs(30);
/// How long the records of another node may take to arrive. It ends much sooner when nothing
/// arrives any more.
const ARRIVE: Duration = Duration::from_secs(12 * 3600);

/// What `status` shows of the last comparison.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The revision at which the records were compared; `None` before the first time.
    pub at: Option<Revision>,
    /// Whether this node's records are those that count; `None` if too few have answered.
    pub same: Option<bool>,
    /// The replicas whose records are not like this node's.
    pub others: BTreeSet<NodeId>,
}

pub(super) fn start(ledger: &Arc<Ledger>, tasks: &Tasks) {
    tasks.spawn("ledger.comparing", compare(ledger.clone()));
}

async fn compare(ledger: Arc<Ledger>) {
    let (mut pause, mut rest) = (FIRST_LOOK, LOOK);
    loop {
        tokio::time::sleep(pause).await;
        ledger.arrivals.earlier.expire();
        pause = match ledger.judge().await {
            None | Some(Verdict::Unknown(_)) => FIRST_LOOK,
            Some(Verdict::Same(_)) => {
                rest = LOOK;
                LOOK
            }
            Some(Verdict::Differs(right)) => {
                if let Err(reason) = ledger.rebuild(&right).await {
                    error!(%reason, "the records could not be rebuilt yet");
                    FIRST_LOOK
                } else if rest == LOOK {
                    rest *= 2;
                    FIRST_LOOK
                } else {
                    // what was taken did not help; whatever the reason is, other nodes must not
                    // send their records all the time
                    rest = (rest * 2).min(LONGEST_REST);
                    rest
                }
            }
        };
    }
}

impl Ledger {
    /// Whether this node's records are known to be wrong.
    pub(super) fn differs(&self) -> bool {
        self.differs.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// The fingerprint of this node's records at `revision`, if it is known.
    pub fn fingerprint(&self, revision: Revision) -> Option<fingerprint::Fingerprint> {
        self.machine.fingerprint(revision)
    }

    /// Compares this node's records with the other replicas'. `None` if it has applied nothing, or
    /// there is no other.
    async fn judge(&self) -> Option<Verdict> {
        let (at, mine) = self.machine.newest_fingerprint();
        let nodes = self.view().and_then(|view| view.nodes()).unwrap_or_default();
        let replicas = nodes.iter().filter(|node| node.role == Role::Replica && node.id != self.me);
        let down = self.members.down();
        let others: Vec<NodeId> =
            replicas.map(|node| node.id).filter(|node| !down.contains(node)).collect();
        if at == Revision(0) || others.is_empty() {
            return None;
        }
        tokio::time::sleep(APPLY).await;
        let asked = others.into_iter().map(|node| async move {
            let said = self.links.ask(node, Fingerprint { at }, ASK).await;
            Some((node, said.ok().flatten()?))
        });
        let said: BTreeMap<NodeId, _> = join_all(asked).await.into_iter().flatten().collect();
        let verdict = fingerprint::judge(self.me, mine, &said, &self.voters(), self.leader());
        let (same, others) = match &verdict {
            Verdict::Same(others) => (Some(true), others.clone()),
            Verdict::Differs(right) => {
                let wrong = said.keys().filter(|node| right.contains(node));
                (Some(false), wrong.copied().collect())
            }
            Verdict::Unknown(others) => (None, others.clone()),
        };
        let before = std::mem::replace(
            &mut *self.comparison.lock(),
            Comparison { at: Some(at), same, others: others.clone() },
        );
        match &verdict {
            Verdict::Same(_) => self.differs.store(false, std::sync::atomic::Ordering::SeqCst),
            Verdict::Differs(right) => {
                self.differs.store(true, std::sync::atomic::Ordering::SeqCst);
                metrics::counter!("atoll_ledger_differed_total").increment(1);
                error!(
                    revision = at.0,
                    ?right,
                    "this node's records are not those of the other replicas; it takes theirs"
                );
            }
            Verdict::Unknown(_) => {}
        }
        if same != Some(false) && !others.is_empty() && before.others != others {
            warn!(
                revision = at.0,
                ?others,
                judged = same.is_some(),
                "these replicas have other records than this node"
            );
        }
        Some(verdict)
    }

    /// Takes the records of one of the nodes that have the `right` ones.
    async fn rebuild(&self, right: &BTreeSet<NodeId>) -> Result<(), String> {
        let mut reason = "no node could be asked".to_owned();
        for node in right.iter().copied().filter(|node| *node != self.me) {
            let taken = tokio::time::timeout(ARRIVE, self.rebuild_from(node)).await;
            match taken.unwrap_or_else(|_| Err("its records did not arrive in time".into())) {
                Ok(replaced) => {
                    let Replaced { only_here, only_there, changed, examples } = replaced;
                    warn!(
                        %node, only_here, only_there, changed, ?examples,
                        "this node has the records of another now"
                    );
                    return Ok(());
                }
                Err(why) => reason = format!("from {node}: {why}"),
            }
        }
        Err(reason)
    }

    async fn rebuild_from(&self, node: NodeId) -> Result<Replaced, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (meta, state, _arrived) = if self.links.known(node).level < Level::RANGES {
            let opened = self.links.open_bulk(node, Bulk::Records, ASK).await;
            let (_send, mut receive) = opened.map_err(|error| text(&error))?;
            let header: Header = heard(&mut receive).await?;
            let arrived =
                self.arrivals.take(&header, &mut receive).await.map_err(|error| text(&error))?;
            (header.meta, Carried::File(arrived.path().into()), Some(arrived))
        } else {
            let opened = self.links.open_bulk(node, Bulk::Ranges, ASK).await;
            let (mut send, mut receive) = opened.map_err(|error| text(&error))?;
            let Announced { meta, fingerprint, .. } = heard(&mut receive).await?;
            let base = self.machine.held().map_err(|error| text(&error))?;
            let file = self.arrivals.nameless().map_err(|error| text(&error))?;
            let (earlier, streams) = (&self.arrivals.earlier, (&mut send, &mut receive));
            let never = std::future::pending();
            let taken = carried::take(base, fingerprint, earlier, file, streams, never).await;
            let taken = taken.map_err(|error| text(&error))?;
            (meta, Carried::Arrived(Box::new(taken)), None)
        };
        let until = meta.last_log_id.map_or(Revision(0), |id| Revision(id.index));
        let mut applied = self.applied.clone();
        let caught_up = applied.wait_for(|applied| *applied >= until);
        match tokio::time::timeout(CATCH_UP, caught_up).await {
            Ok(Ok(_)) => {}
            _ => return Err("this node does not apply the log".into()),
        }
        let rebuilt = self.machine.rebuild(self.log.clone(), meta, state).await;
        rebuilt.map_err(|error| text(&error))?.ok_or_else(|| "it has applied more".into())
    }

    /// Answers [`Bulk::Records`]: sends this node's records as a file, one receiver at a time.
    pub async fn send_records(&self, mut send: SendStream) -> Result<(), LinkError> {
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let Some((held, _turn)) = self.records_to_send(&mut send).await? else { return Ok(()) };
        let vote = super::types::Vote::new(0, self.me.0);
        let name = format!("{FOR_ANOTHER}comparing");
        let (header, file) =
            arrival::open_written(&self.machine, vote, held, name).await.map_err(|e| broken(&e))?;
        let encoded = postcard::to_stdvec(&header).map_err(|e| broken(&e))?;
        write_message(&mut send, &Ok::<Vec<u8>, String>(encoded)).await?;
        arrival::send(file, header.length, send).await.map_err(|e| broken(&other(e)))
    }

    /// Answers [`Bulk::Ranges`]: sends the records that the receiver does not have, one receiver at
    /// a time.
    pub async fn send_ranges(
        &self,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), LinkError> {
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let Some((held, _turn)) = self.records_to_send(&mut send).await? else { return Ok(()) };
        let vote = super::types::Vote::new(0, self.me.0);
        let (meta, fingerprint) = (held.meta.clone(), held.fingerprint);
        let announced = postcard::to_stdvec(&Announced { vote, meta, fingerprint });
        let announced = announced.map_err(|e| broken(&e))?;
        write_message(&mut send, &Ok::<Vec<u8>, String>(announced)).await?;
        carried::give(held, send, &mut receive).await
    }

    /// This node's records, and the turn to send them. `None` if it refused on `send`.
    async fn records_to_send(
        &self,
        send: &mut SendStream,
    ) -> Result<Option<(Held, tokio::sync::MutexGuard<'_, ()>)>, LinkError> {
        let refuse = |why: &str| Err::<Vec<u8>, String>(why.to_owned());
        let Ok(turn) = self.sending_records.try_lock() else {
            write_message(send, &refuse("it sends its records to another node")).await?;
            return Ok(None);
        };
        if self.differs() {
            write_message(send, &refuse("its own records are wrong")).await?;
            return Ok(None);
        }
        info!("another node takes this node's records");
        let held = self.machine.held().map_err(|e| LinkError::Broken(e.to_string()))?;
        Ok(Some((held, turn)))
    }
}

/// Reads the answer before the records: their description, or why there are none.
async fn heard<T: DeserializeOwned>(receive: &mut RecvStream) -> Result<T, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let heard = read_message::<Result<Vec<u8>, String>>(receive).await;
    let described = heard.map_err(|error| text(&error))??;
    postcard::from_bytes(&described).map_err(|error| text(&error))
}
