//! Reads that are never stale.
//!
//! A read uses a consistent view of this node's records. If the node has no read lease (and does
//! not lead with a confirmed one), it first asks the leader which revision it must have applied. If
//! what was read changed after the released revision, the answer waits for the release, so no two
//! readers see new and then old records. The answer is marked as possibly stale only if no leader
//! can be reached.

use std::cell::RefCell;
use std::time::Duration;

use rules::ledger::lease::Touched;
use rules::ledger::records::{Pair, ReadRecords, RecordError};
use rules::wire::NoLedger;
use rules::wire::questions::ReadIndex;
use rules::words::names::Revision;
use tracing::debug;

use super::state::View;
use super::{LeaseState, Ledger};
use ground::clock;

/// Whether every other node would give the same answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Linearizable.
    Fresh,
    /// From this node's own records, because no leader could be reached, or because these records
    /// are known to be wrong.
    Stale,
}

/// A view that records what was read from it.
pub struct Reading {
    view: View,
    touched: RefCell<Touched>,
}

impl ReadRecords for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        self.touched.borrow_mut().keys.insert(key.to_vec());
        self.view.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        self.touched.borrow_mut().prefixes.insert(prefix.to_vec());
        self.view.scan(prefix, after, limit)
    }
}

/// How long a reader waits for the leader before it reads from this node's own records.
const ASK: Duration = Duration::from_millis(1000);
/// How long a node that knows no leader, or one that cannot say, waits for another answer. Edges and
/// clients wait meanwhile.
const UNHEARD: Duration = Duration::from_millis(300);
/// The time between two questions.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a reader waits for a release: a little longer than a lease, the maximum delay by a
/// holder that is silent.
const RELEASE: Duration = Duration::from_millis(3500);
/// How long this node does not ask again after a question has failed, so that a node that is cut
/// off answers at once. It does ask again when another node leads. When a lease arrives, reads are
/// fresh without a question.
const GIVE_UP: Duration = Duration::from_secs(3);

impl Ledger {
    /// How this node answers reads now.
    pub fn lease_state(&self) -> LeaseState {
        if self.differs() {
            return LeaseState::None;
        }
        let now = clock::now();
        if self.term.lock().as_ref().is_some_and(|term| term.granter.may_lead(now)) {
            return LeaseState::Leader;
        }
        let applied = self.applied_now();
        if self.holder.lock().may_read(now, applied) { LeaseState::Held } else { LeaseState::None }
    }

    /// Runs `read` on fresh records, if that is possible.
    pub async fn read<T>(
        &self,
        read: impl Fn(&Reading) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), RecordError> {
        let mut freshness = Freshness::Fresh;
        let mut leased = self.lease_state() != LeaseState::None;
        if !leased && !self.catch_up().await {
            freshness = Freshness::Stale;
        }
        let end = clock::now() + RELEASE;
        loop {
            let (value, needs) = self.read_here(&read)?;
            // The lease has to cover the moment at which the records were read. It may have ended
            // since it was looked at, or gone back to the leader.
            if leased && self.lease_state() == LeaseState::None {
                leased = false;
                if self.catch_up().await {
                    continue;
                }
                freshness = Freshness::Stale;
            }
            let Some(needed) = needs.filter(|_| freshness == Freshness::Fresh) else {
                return Ok((value, freshness));
            };
            metrics::counter!("atoll_reads_waiting_for_release_total").increment(1);
            if self.await_release(needed, end.since(clock::now())).await {
                return Ok((value, Freshness::Fresh));
            }
            if clock::now() >= end
                || self.lease_state() != LeaseState::None
                || !self.catch_up().await
            {
                return Ok((value, Freshness::Stale));
            }
        }
    }

    /// Runs `read` on this node's own records. Also returns the revision that must be released
    /// before the answer may be shown.
    fn read_here<T>(
        &self,
        read: impl Fn(&Reading) -> Result<T, RecordError>,
    ) -> Result<(T, Option<Revision>), RecordError> {
        let reading = Reading { view: self.view()?, touched: RefCell::default() };
        let value = read(&reading)?;
        let released = self.released_now();
        let needs = self.unreleased.lock().needs(&reading.touched.borrow(), released);
        Ok((value, needs))
    }

    /// Waits until `needed` is known to be released here.
    async fn await_release(&self, needed: Revision, deadline: Duration) -> bool {
        let mut released = self.released.subscribe();
        // without a lease this node is not told of releases, and has to ask again
        let deadline =
            if self.lease_state() == LeaseState::None { Duration::ZERO } else { deadline };
        let wait = async { released.wait_for(|r| *r >= needed).await.is_ok() };
        tokio::time::timeout(deadline, wait).await.unwrap_or(false)
    }

    /// Asks the leader which revision this node must have applied, and waits until it has. Fails if
    /// that takes longer than [`ASK`].
    async fn catch_up(&self) -> bool {
        let (leader, until) = *self.unreachable.lock();
        if self.differs() || (self.leader() == leader && clock::now() < until) {
            return false;
        }
        let caught = tokio::time::timeout(ASK, self.catch_up_patiently()).await.unwrap_or(false);
        if !caught {
            *self.unreachable.lock() = (self.leader(), clock::now() + GIVE_UP);
        }
        caught
    }

    /// Ends early if the leader cannot be reached, or this node hears of none.
    async fn catch_up_patiently(&self) -> bool {
        let (begun, mut hint) = (clock::now(), None);
        loop {
            let Some(leader) = hint.or_else(|| self.leader()) else {
                // this node may have just started; an election takes longer than an edge waits
                self.leader_changes(UNHEARD).await;
                if self.leader().is_none() {
                    return false;
                }
                continue;
            };
            let answer = if leader == self.me {
                self.read_index(ASK).await
            } else {
                match self.links.ask(leader, ReadIndex {}, ASK).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        debug!(%error, "the ledger's leader cannot be asked");
                        return false;
                    }
                }
            };
            match answer {
                Ok(index) => {
                    self.note_released(index);
                    let mut applied = self.applied.clone();
                    return applied.wait_for(|a| *a >= index).await.is_ok();
                }
                Err(NoLedger::NotLeader(Some(next))) if next != leader && hint.is_none() => {
                    hint = Some(next);
                    continue;
                }
                // a leader cannot say while voters change, or while a majority is slow to answer
                Err(_) if clock::now().since(begun) >= UNHEARD => return false,
                Err(_) => hint = None,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Everything up to `released` may be shown here from now on.
    pub(super) fn note_released(&self, released: Revision) {
        let grown = self.released.send_if_modified(|known| {
            let grows = released > *known;
            *known = released.max(*known);
            grows
        });
        if grown {
            self.unreleased.lock().forget(released);
        }
    }
}
