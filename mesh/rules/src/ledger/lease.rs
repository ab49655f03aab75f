//! Read leases: local reads are never stale, and a write is acknowledged only when every reader
//! will show it.
//!
//! After Moraru et al., "Paxos Quorum Leases" (2014). Two rules must hold for the clocks. A lease
//! ends at its replica (which counts from when it asked) before the leader counts it as ended (from
//! when it granted, plus a margin for clocks that run at different rates). A new leader releases
//! nothing before every lease of earlier terms has ended.
//!
//! [`Granter`] is the leader's side and [`Holder`] a replica's. [`Unreleased`] is what a replica
//! has applied but may not show yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::{NodeId, Revision};

/// How long leases last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// A lease's length as its replica counts it.
    pub duration: Duration,
}

impl LeaseTerms {
    /// A lease's length as the leader counts it: a tenth and 20 ms longer, which covers any two
    /// clocks that drift less than that.
    pub fn as_leader_counts(&self) -> Duration {
        self.duration + self.duration / 10 + Duration::from_millis(20)
    }
}

/// What a leader grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// The request that it answers; the lease runs from when that was asked.
    pub request: u64,
    /// The revision that the replica must have applied before it reads.
    pub must_apply: Revision,
    /// The revision that every lease holder has applied: changes up to here may be shown.
    pub released: Revision,
}

/// The leader's side, for one term. Each term begins with [`Granter::begin`].
#[derive(Clone, Debug)]
pub struct Granter {
    terms: LeaseTerms,
    drained: Moment,
    own_entry: Option<Revision>,
    leader_until: Moment,
    handing_over: bool,
    applied: Revision,
    released: Revision,
    holders: BTreeMap<NodeId, HolderBook>,
    targets: BTreeMap<NodeId, Revision>,
    recalled: BTreeMap<NodeId, Moment>,
    /// When each replica that keeps up last asked for a lease, whether it got one or not.
    kept_up: BTreeMap<NodeId, Moment>,
}

#[derive(Clone, Copy, Debug)]
struct HolderBook {
    /// The last request of this holder, whether it was granted or not.
    request: u64,
    ends: Moment,
    applied: Revision,
    /// What the holder has not applied yet, and since when that is waited for.
    awaited: Option<(Revision, Moment)>,
}

impl HolderBook {
    fn note_applied(&mut self, applied: Revision) {
        self.applied = self.applied.max(applied);
        if self.awaited.is_some_and(|(revision, _)| self.applied >= revision) {
            self.awaited = None;
        }
    }
}

/// How long writes wait for one holder before its lease is asked back. A commit on a slow but
/// working disk, behind the longest way between two regions, takes less.
const PATIENCE: Duration = Duration::from_millis(600);

/// How long a node whose lease was asked back gets no other: a disk that was slow once will most
/// likely be slow again.
const SITS_OUT: Duration = Duration::from_secs(10);

impl Granter {
    /// Begins a term at `now`. Leases of earlier terms may still run, so nothing is released until
    /// they have all ended.
    pub fn begin(terms: LeaseTerms, now: Moment) -> Self {
        Granter {
            terms,
            drained: now + terms.as_leader_counts(),
            own_entry: None,
            leader_until: now,
            handing_over: false,
            applied: Revision(0),
            released: Revision(0),
            holders: BTreeMap::new(),
            targets: BTreeMap::new(),
            recalled: BTreeMap::new(),
            kept_up: BTreeMap::new(),
        }
    }

    /// Begins the first term of a new ledger: there are no earlier leases to wait for.
    pub fn begin_first(terms: LeaseTerms, now: Moment) -> Self {
        Granter { drained: now, ..Granter::begin(terms, now) }
    }

    /// A majority has confirmed this leader until `until`. `own_entry` is the first entry of this
    /// term that this process has proposed. An entry that was on disk when the process started does
    /// not count, even if it is of the same term: the disk may lack entries that were committed
    /// before.
    pub fn handle_confirmed(&mut self, until: Moment, own_entry: Option<Revision>) {
        self.leader_until = self.leader_until.max(until);
        self.own_entry = self.own_entry.or(own_entry);
    }

    /// This leader has applied up to `applied`.
    pub fn handle_applied(&mut self, applied: Revision) {
        self.applied = self.applied.max(applied);
    }

    /// Leadership is about to be handed over. Nothing is granted any more in this term.
    pub fn hand_over(&mut self) {
        self.handing_over = true;
    }

    /// Whether this leader has applied an entry of its own, and so everything that was committed
    /// before it.
    pub fn is_open(&self) -> bool {
        self.own_entry.is_some_and(|own| self.applied >= own)
    }

    /// Whether this leader may answer reads and grant leases at `now`.
    pub fn may_lead(&self, now: Moment) -> bool {
        !self.handing_over && now < self.leader_until && self.is_open()
    }

    /// A replica renews and has applied `applied`. It gets a lease if this leader may grant and the
    /// replica keeps up: it must have applied what this leader had applied at the replica's
    /// previous request. At its first request it must have applied everything. So a replica that
    /// falls behind delays writers for one lease only, however often it asks, and one that is still
    /// catching up does not delay them. After a recall it gets none for a while.
    pub fn handle_renewal(
        &mut self,
        now: Moment,
        node: NodeId,
        request: u64,
        applied: Revision,
    ) -> Option<Grant> {
        if let Some(book) = self.holders.get_mut(&node) {
            book.note_applied(applied);
            book.request = request;
        }
        let target = self.targets.insert(node, self.applied).unwrap_or(self.applied);
        if applied >= target {
            self.kept_up.insert(node, now);
        }
        self.recalled.retain(|_, at| now.since(*at) < SITS_OUT);
        let sits_out = self.recalled.contains_key(&node);
        if !self.may_lead(now) || applied < target || sits_out {
            return None;
        }
        let ends = now + self.terms.as_leader_counts();
        let book = HolderBook { request, ends, applied, awaited: None };
        let book = self.holders.entry(node).or_insert(book);
        book.ends = book.ends.max(ends);
        Some(Grant { request, must_apply: self.applied, released: self.released })
    }

    /// A replica has applied `applied`. It does not ask for a longer lease.
    pub fn handle_report(&mut self, node: NodeId, applied: Revision) {
        if let Some(book) = self.holders.get_mut(&node) {
            book.note_applied(applied);
        }
    }

    /// A replica gives its lease back, and has made `request` as its last one. It reads nothing by
    /// a lease any more, so no write waits for it. A message of an earlier process of the same
    /// replica names another request and is ignored.
    pub fn handle_return(&mut self, node: NodeId, request: u64) {
        if self.holders.get(&node).is_some_and(|book| book.request == request) {
            self.holders.remove(&node);
        }
    }

    /// Whether writes have waited for this holder for so long that its lease should be asked back.
    /// It says so once for each recall. Until the holder answers, its lease counts.
    pub fn recalls(&mut self, now: Moment, node: NodeId) -> bool {
        let Some(book) = self.holders.get_mut(&node) else { return false };
        if book.applied < self.applied && book.awaited.is_none() {
            book.awaited = Some((self.applied, now));
        }
        let slow = book.awaited.is_some_and(|(_, since)| now.since(since) >= PATIENCE);
        slow && self.recalled.insert(node, now).is_none_or(|at| now.since(at) >= SITS_OUT)
    }

    /// The revision that is released at `now`. It never goes back.
    pub fn released(&mut self, now: Moment) -> Revision {
        self.holders.retain(|_, book| book.ends > now);
        if now >= self.drained {
            let held_back = self.holders.values().map(|b| b.applied).min().unwrap_or(self.applied);
            self.released = self.released.max(held_back.min(self.applied));
        }
        self.released
    }

    /// When [`Granter::released`] may grow without a further event; `None` if nothing is held back.
    pub fn next_timeout(&self, now: Moment) -> Option<Moment> {
        if self.released >= self.applied {
            return None;
        }
        if now < self.drained {
            return Some(self.drained);
        }
        self.holders.values().filter(|b| b.applied < self.applied).map(|b| b.ends).min()
    }

    /// The nodes that have shown, within a lease's length, that they are there and keep up: those that
    /// hold a lease, and those that asked for one. A node whose lease was asked back gets no other for a
    /// while. It is not lost for that.
    pub fn renewing(&self, now: Moment) -> BTreeSet<NodeId> {
        let recent = |at: &Moment| now.since(*at) < self.terms.as_leader_counts();
        let kept_up = self.kept_up.iter().filter(|(_, at)| recent(at)).map(|(node, _)| *node);
        self.holders(now).into_keys().chain(kept_up).collect()
    }

    /// The nodes that hold a lease at `now`, and what each has applied.
    pub fn holders(&self, now: Moment) -> BTreeMap<NodeId, Revision> {
        self.holders.iter().filter(|(_, b)| b.ends > now).map(|(n, b)| (*n, b.applied)).collect()
    }
}

/// A replica's side.
#[derive(Clone, Debug)]
pub struct Holder {
    terms: LeaseTerms,
    last_request: u64,
    asked: BTreeMap<u64, Moment>,
    ends: Moment,
    must_apply: Revision,
    released: Revision,
}

impl Holder {
    /// A replica without a lease.
    pub fn new(terms: LeaseTerms) -> Self {
        Holder {
            terms,
            last_request: 0,
            asked: BTreeMap::new(),
            ends: Moment::from_micros(0),
            must_apply: Revision(0),
            released: Revision(0),
        }
    }

    /// Starts a renewal at `now`. Returns the number of the request, to be sent with the revision
    /// that the replica has applied. The numbers grow with the clock, so that a process that starts
    /// again uses none of those before.
    pub fn ask(&mut self, now: Moment) -> u64 {
        let expired = now - self.terms.duration;
        self.asked.retain(|_, at| *at > expired);
        self.last_request = (self.last_request + 1).max(now.as_micros());
        self.asked.insert(self.last_request, now);
        self.last_request
    }

    /// Gives the lease back: from now on this replica may not read by it, and grants that are still
    /// on their way count for nothing. Returns the number of the last request, which the leader
    /// must be told.
    pub fn give_back(&mut self) -> u64 {
        self.asked.clear();
        self.ends = Moment::from_micros(0);
        self.last_request
    }

    /// A grant arrived. It is ignored unless it answers a request that was made within a lease's
    /// length.
    pub fn handle_grant(&mut self, grant: Grant) {
        self.released = self.released.max(grant.released);
        if let Some(asked) = self.asked.remove(&grant.request) {
            self.ends = self.ends.max(asked + self.terms.duration);
            self.must_apply = self.must_apply.max(grant.must_apply);
        }
    }

    /// The leader says how far it has released.
    pub fn handle_released(&mut self, released: Revision) {
        self.released = self.released.max(released);
    }

    /// Whether a replica that has applied `applied` may answer from its own state at `now`.
    pub fn may_read(&self, now: Moment, applied: Revision) -> bool {
        now < self.ends && applied >= self.must_apply
    }

    /// When the lease ends.
    pub fn ends(&self) -> Moment {
        self.ends
    }

    /// The revision up to which changes may be shown.
    pub fn released(&self) -> Revision {
        self.released
    }
}

/// The keys and prefixes that were read for an answer. If any of them changed after what is
/// released, the answer waits.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Keys that were looked up.
    pub keys: BTreeSet<Vec<u8>>,
    /// Prefixes that were scanned.
    pub prefixes: BTreeSet<Vec<u8>>,
}

/// The changes that a replica has applied but may not show yet.
#[derive(Clone, Debug, Default)]
pub struct Unreleased {
    floor: Revision,
    changed: BTreeMap<Vec<u8>, Revision>,
}

impl Unreleased {
    /// A replica starts with `applied` on disk. It cannot know how much of that was released.
    pub fn after_restart(applied: Revision) -> Self {
        Unreleased { floor: applied, changed: BTreeMap::new() }
    }

    /// Entry `revision` changed `keys`.
    pub fn note(&mut self, revision: Revision, keys: BTreeSet<Vec<u8>>) {
        for key in keys {
            self.changed.insert(key, revision);
        }
    }

    /// The whole state was replaced at `revision`, for example by a snapshot.
    pub fn note_all(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
    }

    /// Everything up to `released` may be shown.
    pub fn forget(&mut self, released: Revision) {
        self.changed.retain(|_, revision| *revision > released);
    }

    /// Whether anything is held back.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// The revision that must be released before an answer made from `touched` may be shown; `None`
    /// if it may be shown now.
    pub fn needs(&self, touched: &Touched, released: Revision) -> Option<Revision> {
        let keys = touched.keys.iter().filter_map(|key| self.changed.get(key)).copied();
        let scanned = touched.prefixes.iter().flat_map(|prefix| {
            self.changed
                .range(prefix.clone()..)
                .take_while(move |(k, _)| k.starts_with(prefix))
                .map(|(_, r)| *r)
        });
        keys.chain(scanned).chain([self.floor]).max().filter(|needed| *needed > released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: LeaseTerms = LeaseTerms { duration: Duration::from_secs(2) };

    fn at(ms: u64) -> Moment {
        Moment::from_micros(1_000_000_000 + ms * 1000)
    }

    fn leader() -> Granter {
        let mut granter = Granter::begin_first(TERMS, at(0));
        granter.handle_confirmed(at(60_000), Some(Revision(1)));
        granter.handle_applied(Revision(1));
        granter
    }

    #[test]
    fn a_write_is_released_when_every_holder_has_applied_it() {
        let mut granter = leader();
        let grant = granter.handle_renewal(at(0), NodeId(2), 1, Revision(1)).unwrap();
        assert_eq!(grant.must_apply, Revision(1));
        granter.handle_applied(Revision(2));
        assert_eq!(granter.released(at(10)), Revision(1));
        granter.handle_report(NodeId(2), Revision(2));
        assert_eq!(granter.released(at(20)), Revision(2));
    }

    #[test]
    fn a_silent_holder_costs_one_lease_and_no_more() {
        let mut granter = leader();
        granter.handle_renewal(at(0), NodeId(2), 1, Revision(1));
        granter.handle_applied(Revision(2));
        let wait = granter.next_timeout(at(10)).unwrap();
        assert!(wait > at(2000) && wait < at(2300));
        assert_eq!(granter.released(wait), Revision(2));
        assert_eq!(granter.next_timeout(wait), None);
    }

    #[test]
    fn a_replica_that_does_not_keep_up_holds_nobody_up() {
        let mut granter = leader();
        assert!(
            granter.handle_renewal(at(0), NodeId(3), 1, Revision(0)).is_none(),
            "still catching up"
        );
        assert!(granter.handle_renewal(at(0), NodeId(2), 1, Revision(1)).is_some());
        granter.handle_applied(Revision(2));
        assert!(
            granter.handle_renewal(at(500), NodeId(2), 2, Revision(1)).is_some(),
            "it may be on its way"
        );
        assert!(granter.handle_renewal(at(1000), NodeId(2), 3, Revision(1)).is_none(), "it is not");
        assert_eq!(granter.released(at(2000)), Revision(1));
        assert_eq!(granter.released(at(2800)), Revision(2));
        assert!(
            granter.handle_renewal(at(3000), NodeId(2), 4, Revision(2)).is_some(),
            "it is back"
        );
    }

    #[test]
    fn a_new_leader_releases_nothing_before_older_leases_have_ended() {
        let mut granter = Granter::begin(TERMS, at(0));
        granter.handle_confirmed(at(60_000), Some(Revision(5)));
        granter.handle_applied(Revision(5));
        assert_eq!(granter.released(at(2000)), Revision(0));
        assert_eq!(granter.released(at(2300)), Revision(5));
    }

    #[test]
    fn no_grant_without_a_confirmed_term_nor_while_handing_over() {
        let mut granter = Granter::begin(TERMS, at(0));
        assert!(granter.handle_renewal(at(1), NodeId(2), 1, Revision(0)).is_none());
        granter.handle_confirmed(at(1000), Some(Revision(5)));
        assert!(
            granter.handle_renewal(at(1), NodeId(2), 1, Revision(5)).is_none(),
            "own entry not applied yet"
        );
        granter.handle_applied(Revision(5));
        assert!(granter.handle_renewal(at(1), NodeId(2), 1, Revision(5)).is_some());
        assert!(
            granter.handle_renewal(at(1001), NodeId(2), 2, Revision(5)).is_none(),
            "no longer confirmed"
        );
        granter.handle_confirmed(at(5000), None);
        granter.hand_over();
        assert!(granter.handle_renewal(at(1002), NodeId(2), 3, Revision(5)).is_none());
    }

    #[test]
    fn a_replica_counts_from_when_it_asked_and_needs_what_the_grant_names() {
        let mut holder = Holder::new(TERMS);
        let request = holder.ask(at(0));
        holder.handle_grant(Grant { request, must_apply: Revision(7), released: Revision(6) });
        assert!(!holder.may_read(at(1), Revision(6)));
        assert!(holder.may_read(at(1999), Revision(7)));
        assert!(!holder.may_read(at(2000), Revision(7)));
        holder.handle_grant(Grant { request, must_apply: Revision(7), released: Revision(7) });
        assert!(!holder.may_read(at(2000), Revision(7)), "one request gives one lease");
    }

    #[test]
    fn a_lease_that_is_given_back_holds_up_no_write_and_opens_no_read() {
        let (mut granter, mut holder) = (leader(), Holder::new(TERMS));
        let mut renew = |granter: &mut Granter, ms| {
            let request = holder.ask(at(ms));
            granter.handle_renewal(at(ms), NodeId(2), request, Revision(1)).unwrap()
        };
        let grant = renew(&mut granter, 0);
        let late = renew(&mut granter, 1);
        holder.handle_grant(grant);
        assert!(holder.may_read(at(2), Revision(1)));
        let request = holder.give_back();
        assert!(!holder.may_read(at(2), Revision(1)));
        holder.handle_grant(late);
        assert!(!holder.may_read(at(3), Revision(1)), "it was on its way when the lease went back");
        granter.handle_applied(Revision(2));
        granter.handle_return(NodeId(2), request - 1);
        assert_eq!(granter.released(at(10)), Revision(1), "the word of an earlier process");
        granter.handle_return(NodeId(2), request);
        assert_eq!(granter.released(at(10)), Revision(2));
    }

    #[test]
    fn a_process_that_starts_again_makes_no_request_of_the_one_before() {
        let mut before = Holder::new(TERMS);
        let last = (0..100).map(|_| before.ask(at(0))).last().unwrap();
        assert!(Holder::new(TERMS).ask(at(1)) > last);
    }

    #[test]
    fn a_node_that_sits_out_and_keeps_up_is_not_lost() {
        let (mut granter, [well, lags]) = (leader(), [NodeId(2), NodeId(3)]);
        for node in [well, lags] {
            assert!(granter.handle_renewal(at(0), node, 1, Revision(1)).is_some());
        }
        granter.handle_applied(Revision(2));
        assert!(!granter.recalls(at(0), well) && granter.recalls(at(600), well));
        granter.handle_return(well, 1);
        for (number, ms) in (600..9_600).step_by(500).enumerate() {
            granter.handle_applied(Revision(2 + number as u64));
            for (node, applied) in [(well, 2 + number as u64), (lags, 1)] {
                granter.handle_renewal(at(ms), node, 2 + number as u64, Revision(applied));
            }
        }
        assert!(granter.holders(at(9_600)).is_empty(), "neither has a lease");
        assert_eq!(granter.renewing(at(9_600)), BTreeSet::from([well]));
        assert!(granter.renewing(at(12_000)).is_empty(), "it asks no more");
    }

    #[test]
    fn a_holder_that_is_slow_is_asked_once_for_its_lease_and_then_sits_out() {
        let mut granter = leader();
        assert!(!granter.recalls(at(0), NodeId(2)), "it holds none");
        granter.handle_renewal(at(0), NodeId(2), 1, Revision(1)).unwrap();
        granter.handle_applied(Revision(2));
        assert!(!granter.recalls(at(10), NodeId(2)));
        granter.handle_applied(Revision(9));
        granter.handle_report(NodeId(2), Revision(2));
        assert!(!granter.recalls(at(650), NodeId(2)), "it keeps up, as writes go on");
        assert!(!granter.recalls(at(1240), NodeId(2)));
        assert!(granter.recalls(at(1260), NodeId(2)));
        assert!(!granter.recalls(at(1300), NodeId(2)), "it was asked already");
        assert_eq!(granter.released(at(1300)), Revision(2), "its lease counts until it answers");
        granter.handle_return(NodeId(2), 1);
        assert_eq!(granter.released(at(1300)), Revision(9));
        for ms in [1500, 5000, 11_000] {
            assert!(granter.handle_renewal(at(ms), NodeId(2), ms, Revision(9)).is_none());
        }
        assert!(granter.handle_renewal(at(11_300), NodeId(2), 12, Revision(9)).is_some());
    }

    #[test]
    fn an_answer_waits_for_the_release_of_what_it_shows() {
        let mut unreleased = Unreleased::default();
        unreleased.note(Revision(5), [b"ta".to_vec()].into());
        let touch = |key: &[u8]| Touched { keys: [key.to_vec()].into(), prefixes: BTreeSet::new() };
        assert_eq!(unreleased.needs(&touch(b"ta"), Revision(4)), Some(Revision(5)));
        assert_eq!(unreleased.needs(&touch(b"tb"), Revision(4)), None);
        let scan = Touched { keys: BTreeSet::new(), prefixes: [b"t".to_vec()].into() };
        assert_eq!(unreleased.needs(&scan, Revision(4)), Some(Revision(5)));
        assert_eq!(unreleased.needs(&scan, Revision(5)), None);
        assert_eq!(
            Unreleased::after_restart(Revision(9)).needs(&touch(b"x"), Revision(8)),
            Some(Revision(9))
        );
    }
}
