//! Runs the lease machines. A replica keeps one stream to the leader; the leader serves one stream
//! from each replica.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use quinn::{RecvStream, SendStream};
use rules::ledger::lease::Granter;
use rules::wire::{FromGranter, FromHolder};
use rules::words::moment::Moment;
use rules::words::names::{NodeId, Revision};
use tokio::sync::watch;
use tracing::{debug, info};

use super::Ledger;
use crate::links::{LinkError, read_message, write_message};
use ground::clock;
use ground::supervise::Tasks;

/// This node's leadership of one term.
pub(super) struct Term {
    pub(super) number: u64,
    pub(super) granter: Granter,
    pub(super) failover: rules::members::failover::Failover,
    pub(super) voters: rules::members::voters::Voters,
    pub(super) given_up: rules::ledger::leaving::GivenUp,
    /// How long the machine had been suspended at the last look, and the last acknowledgement
    /// before its last suspend. The consensus library's clock does not count suspends, so such an
    /// acknowledgement is older than it seems.
    suspended: Duration,
    acked_before_suspend: Option<Acked>,
}

/// When a majority last acknowledged this leader, on the consensus library's clock.
type Acked = openraft::TokioInstant;

/// Shorter suspends are ignored: the two clocks are read one after the other, so they differ by a
/// little.
const SUSPEND: Duration = Duration::from_millis(20);

/// The time between two looks at whether a holder is slow.
const RECALL_LOOK: Duration = Duration::from_millis(100);

pub(super) fn start(ledger: &Arc<Ledger>, tasks: &Tasks) {
    tasks.spawn("ledger.holder", hold(ledger.clone()));
    tasks.spawn("ledger.granter", grant(ledger.clone()));
}

/// As a replica: keeps a lease stream to the current leader.
async fn hold(ledger: Arc<Ledger>) {
    let stopping = ledger.stopping.subscribe();
    while !*stopping.borrow() {
        match ledger.leader() {
            // while it is quiet nothing that it has counts
            Some(leader) if leader != ledger.me && !*ledger.quiet.borrow() => {
                if let Err(error) = hold_from(&ledger, leader).await {
                    debug!(%leader, %error, "lease stream ended");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => {
                ledger.leader_changes(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn hold_from(ledger: &Ledger, leader: NodeId) -> Result<(), LinkError> {
    let (mut send, mut receive) = ledger.links.open_lease(leader, Duration::from_secs(1)).await?;
    let (messages, mut incoming) = tokio::sync::mpsc::channel(64);
    let reader = async {
        loop {
            let message = read_message::<FromGranter>(&mut receive).await?;
            if messages.send(message).await.is_err() {
                return Ok(());
            }
        }
    };
    let writer = async {
        let mut applied = ledger.applied.clone();
        let mut roster = ledger.members.changes();
        let mut stopping = ledger.stopping.subscribe();
        let mut renewals = tokio::time::interval(ledger.terms.renew_every);
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = renewals.tick() => {
                    if ledger.leader() != Some(leader) {
                        return Ok(());
                    }
                    renew(ledger, &mut send).await?;
                }
                () = stopping.wait_for(|stops| *stops).map(|_| ()) => {
                    return give_back(ledger, &mut send).await;
                }
                _ = roster.changed() => renew(ledger, &mut send).await?,
                changed = applied.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let revision = *applied.borrow_and_update();
                    write_message(&mut send, &FromHolder::Applied(revision)).await?;
                }
                message = incoming.recv() => match message {
                    Some(FromGranter::Grant(grant)) => {
                        ledger.holder.lock().handle_grant(grant);
                        ledger.note_released(grant.released);
                    }
                    Some(FromGranter::Released(released)) => {
                        ledger.holder.lock().handle_released(released);
                        ledger.note_released(released);
                    }
                    Some(FromGranter::NoGrant) => {}
                    Some(FromGranter::Recall) => {
                        debug!(%leader, "this node is slow, and gives its read lease back");
                        metrics::counter!("atoll_lease_recalls_total").increment(1);
                        give_back(ledger, &mut send).await?;
                    }
                    None => return Ok(()),
                },
            }
        }
    };
    let result: Result<(), LinkError> = tokio::select! {
        result = reader => result,
        result = writer => result,
    };
    result
}

/// Requests a lease and reports which nodes this node sees as down. It includes itself if it cannot
/// write.
pub(super) async fn renew(ledger: &Ledger, send: &mut SendStream) -> Result<(), LinkError> {
    let request = ledger.holder.lock().ask(clock::now());
    let applied = ledger.applied_now();
    let mut down = ledger.members.down();
    if ledger.is_doubtful() {
        down.insert(ledger.me); // as its own report
    }
    write_message(send, &FromHolder::Renew { request, applied, down }).await
}

/// Gives the lease back, so that no write waits for this node.
async fn give_back(ledger: &Ledger, send: &mut SendStream) -> Result<(), LinkError> {
    let request = ledger.holder.lock().give_back();
    write_message(send, &FromHolder::Return(request)).await
}

/// As the leader: keeps the granter informed, and tells all replicas what is released.
async fn grant(ledger: Arc<Ledger>) {
    let mut applied = ledger.applied.clone();
    loop {
        ledger.update_term();
        let wait = ledger.next_grant_timeout();
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = ledger.leader_changes(wait) => {}
        }
    }
}

impl Ledger {
    /// Updates [`Term`] from what the consensus says about this node's leadership.
    fn update_term(&self) {
        let now = clock::now();
        let leads = self.is_leader();
        let applied = self.applied_now();
        let mut guard = self.term.lock();
        let term = &mut *guard;
        let Some(number) = leads else {
            if term.take().is_some() {
                info!("this node no longer leads the ledger");
            }
            return;
        };
        if term.as_ref().is_none_or(|t| t.number != number) {
            info!(term = number, "this node leads the ledger");
            metrics::counter!("atoll_ledger_terms_led_total").increment(1);
            let first = number == 1 && self.born_here.load(std::sync::atomic::Ordering::SeqCst);
            let lease = self.terms.lease;
            let granter =
                if first { Granter::begin_first(lease, now) } else { Granter::begin(lease, now) };
            let failover = rules::members::failover::Failover::new(self.terms.failover);
            let voters = rules::members::voters::Voters::new(self.terms.voters);
            let suspended = clock::suspended();
            *term = Some(Term {
                number,
                granter,
                failover,
                voters,
                given_up: rules::ledger::leaving::GivenUp::default(),
                suspended,
                acked_before_suspend: None,
            });
        }
        let Some(term) = term.as_mut() else { return };
        let (until, own_entry) = self.confirmation(now, term);
        term.granter.handle_confirmed(until, own_entry);
        term.granter.handle_applied(applied);
        let released = term.granter.released(now);
        drop(guard);
        self.note_released(released);
    }

    /// Until when a majority has confirmed this leader, and the first entry of its term that this
    /// process has proposed.
    fn confirmation(&self, now: Moment, term: &mut Term) -> (Moment, Option<Revision>) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let suspended = clock::suspended();
        if suspended > term.suspended + SUSPEND {
            info!("this machine was suspended: leadership has to be confirmed anew");
            term.acked_before_suspend = metrics.last_quorum_acked.as_ref().map(|acked| **acked);
        }
        term.suspended = suspended;
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        // followers promise not to vote for another node within the election timeout after the last
        // heartbeat that they received
        let promise = self.terms.election_min * 8 / 10;
        let until = if voters == [self.me.0] {
            now + promise
        } else {
            match metrics.last_quorum_acked {
                Some(acked) if term.acked_before_suspend != Some(*acked) => {
                    (now + promise) - acked.elapsed()
                }
                _ => Moment::from_micros(0),
            }
        };
        (until, self.log.opened(term.number, self.me).map(Revision))
    }

    /// Whether this node leads and has applied an entry that it has proposed since it started.
    /// Until then it may lack entries that other nodes already know.
    pub(super) fn is_open(&self) -> bool {
        self.update_term();
        self.term.lock().as_ref().is_some_and(|term| term.granter.is_open())
    }

    fn next_grant_timeout(&self) -> Duration {
        let now = clock::now();
        let next = self.term.lock().as_ref().and_then(|term| term.granter.next_timeout(now));
        next.map_or(Duration::from_millis(100), |at| at.since(now))
            .clamp(Duration::from_millis(1), Duration::from_millis(100))
    }

    /// Serves a replica's lease stream until it ends.
    pub async fn serve_lease(&self, from: NodeId, mut send: SendStream, mut receive: RecvStream) {
        let (messages, mut incoming) = tokio::sync::mpsc::channel(64);
        let reader = async move {
            while let Ok(message) = read_message::<FromHolder>(&mut receive).await {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
            // the writer still reads what has arrived, such as a lease that goes back, and ends
            drop(messages);
            std::future::pending().await
        };
        let writer = async {
            let mut released: watch::Receiver<Revision> = self.released.subscribe();
            let mut looks = tokio::time::interval(RECALL_LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let answer = tokio::select! {
                    _ = looks.tick() => self.recalls(from).then_some(FromGranter::Recall),
                    message = incoming.recv() => match message {
                        Some(message) => self.handle_holder(from, message),
                        None => return,
                    },
                    changed = released.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let revision = *released.borrow_and_update();
                        self.term.lock().is_some().then_some(FromGranter::Released(revision))
                    }
                };
                let Some(answer) = answer else { continue };
                if write_message(&mut send, &answer).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reader => {}
            () = writer => {}
        }
    }

    /// Whether `node` may get a lease: not if it was removed, or leaves and votes no more. As long
    /// as it votes, its lease shows that it is live, and the change of voters may need its vote.
    fn may_hold(&self, node: NodeId) -> bool {
        let leaves = self.leaving_now().contains(&node) && !self.voters().contains(&node);
        !leaves && !self.links.known(node).removed
    }

    fn recalls(&self, from: NodeId) -> bool {
        let now = clock::now();
        self.term.lock().as_mut().is_some_and(|term| term.granter.recalls(now, from))
    }

    fn handle_holder(&self, from: NodeId, message: FromHolder) -> Option<FromGranter> {
        let now = clock::now();
        let may_hold = self.may_hold(from);
        self.update_term();
        let mut guard = self.term.lock();
        let Some(term) = guard.as_mut() else { return Some(FromGranter::NoGrant) };
        let answer = match message {
            FromHolder::Renew { applied, .. } if !may_hold => {
                term.granter.handle_report(from, applied);
                Some(FromGranter::NoGrant)
            }
            FromHolder::Renew { request, applied, down } => {
                let cannot_write = down.contains(&from);
                term.failover.handle_view(now, from, down);
                if cannot_write {
                    term.granter.handle_report(from, applied);
                    return Some(FromGranter::NoGrant);
                }
                let grant = term.granter.handle_renewal(now, from, request, applied);
                Some(grant.map_or(FromGranter::NoGrant, FromGranter::Grant))
            }
            FromHolder::Applied(applied) => {
                term.granter.handle_report(from, applied);
                None
            }
            FromHolder::Return(request) => {
                term.granter.handle_return(from, request);
                None
            }
        };
        let released = term.granter.released(now);
        drop(guard);
        self.note_released(released);
        answer
    }
}
