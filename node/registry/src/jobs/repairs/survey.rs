//! What is known of some blobs, and which of them too few regions keep.

use std::collections::{BTreeMap, BTreeSet};

use rules::blobs::holding::{Stock, Trouble};
use rules::members::keeper::missing_copies;
use rules::members::placement::Candidate;
use rules::words::digest::Digest;
use rules::words::names::{NodeId, Region};

use super::Done;

/// The number of short blobs on a page above which blobs that no replica has are not sought elsewhere:
/// where a disk was emptied that takes too long.
const SOUGHT: usize = 100;

/// The replicas, as far as copies are concerned.
#[derive(Default)]
pub(super) struct Situation {
    /// The replicas that are up and stay.
    pub(super) alive: Vec<Candidate>,
    /// Those of them that should be given no blob if others can take it, and why.
    pub(super) troubled: BTreeMap<NodeId, Trouble>,
    /// The replicas that are away, but not for so long that their copies count as gone.
    pub(super) away: Vec<Candidate>,
    /// The replicas that drain and are away, but not for so long that what only they have is given up.
    pub(super) drained: BTreeSet<NodeId>,
    /// The replica that is being removed, whose copies count for nothing.
    pub(super) leaving: Option<NodeId>,
    /// The regions whose replicas are all gone for so long that their copies count as gone.
    pub(super) lost: BTreeSet<Region>,
}

impl Situation {
    /// Notes in `done` of which replicas it is not known what they keep.
    pub(super) fn note(&self, done: &mut Done) {
        done.unsettled.extend(self.away.iter().map(|replica| replica.id).chain(self.leaving));
    }

    /// Whether a replica is away, and believed to keep what it kept.
    pub(super) fn is_away(&self, node: NodeId) -> bool {
        self.away.iter().any(|replica| replica.id == node)
    }

    /// The region of a replica that is up.
    pub(super) fn region_of(&self, node: NodeId) -> Option<&Region> {
        self.alive.iter().find(|replica| replica.id == node).map(|replica| &replica.region)
    }

    fn staying(&self) -> impl Iterator<Item = &Candidate> {
        self.alive.iter().chain(&self.away)
    }

    /// The number of regions that should have a blob.
    fn wanted(&self, durability: u32) -> usize {
        let regions: BTreeSet<&Region> = self.staying().map(|replica| &replica.region).collect();
        (durability as usize).min(regions.len())
    }

    /// The regions that are lost and should have a blob, if so many others keep it: no copy can be made
    /// there now.
    pub(super) fn lacking(&self, kept: usize, durability: u32) -> impl Iterator<Item = &Region> {
        let wanted = (durability as usize).min(self.wanted(u32::MAX) + self.lost.len());
        self.lost.iter().take(wanted.saturating_sub(kept))
    }

    /// The number of regions in which these nodes are, of those that count.
    pub(super) fn regions(&self, kept_by: &[NodeId]) -> usize {
        let keeps = |replica: &&Candidate| kept_by.contains(&replica.id);
        let regions: BTreeSet<&Region> =
            self.staying().filter(keeps).map(|replica| &replica.region).collect();
        regions.len()
    }

    /// Whether a blob is where it should be, if exactly these nodes keep it.
    pub(super) fn is_enough(&self, kept_by: &[NodeId], durability: u32) -> bool {
        let keeps = |replica: &&Candidate| kept_by.contains(&replica.id);
        self.alive.iter().any(|replica| keeps(&replica))
            && self.regions(kept_by) >= self.wanted(durability)
    }
}

/// What is known of some blobs.
#[derive(Default)]
pub(super) struct Survey {
    /// The replicas.
    pub(super) situation: Situation,
    /// What each replica that is up has of each blob.
    pub(super) stock: BTreeMap<NodeId, Vec<Stock>>,
    /// Of the blobs that nobody keeps, those that each replica knows to be damaged at its own.
    pub(super) damaged: BTreeMap<NodeId, BTreeSet<Digest>>,
    /// The nodes that kept each blob when it was last pushed or looked for, as the ledger has it.
    pub(super) kept_by: Vec<Vec<NodeId>>,
}

impl Survey {
    fn stock_of(&self, node: NodeId, at: usize) -> Option<&Stock> {
        self.stock.get(&node).and_then(|stock| stock.get(at))
    }

    fn keeps(&self, node: NodeId, at: usize) -> bool {
        self.stock_of(node, at).is_some_and(|stock| stock.held.is_some() && !stock.cached)
    }

    fn caches(&self, node: NodeId, at: usize) -> bool {
        self.stock_of(node, at).is_some_and(|stock| stock.held.is_some() && stock.cached)
    }

    /// The blobs of which no replica has a copy that counts, and the replicas that have another one:
    /// it is cached, or damaged.
    pub(super) fn doubtful(&self, digests: &[Digest]) -> BTreeMap<NodeId, Vec<Digest>> {
        let mut doubtful = BTreeMap::<NodeId, Vec<Digest>>::new();
        for (at, digest) in digests.iter().enumerate() {
            if self.stock.keys().any(|node| self.keeps(*node, at)) {
                continue;
            }
            for node in self.stock.keys().filter(|node| self.caches(**node, at)) {
                doubtful.entry(*node).or_default().push(*digest);
            }
        }
        doubtful
    }

    fn is_damaged(&self, node: NodeId, digest: &Digest) -> bool {
        self.damaged.get(&node).is_some_and(|damaged| damaged.contains(digest))
    }

    /// Of the blobs of which the ledger does not say who keeps them now: who does, with the copies that
    /// were `made`. A replica that did not say anything is believed.
    pub(super) fn news(
        &self,
        digests: &[Digest],
        made: &BTreeMap<Digest, BTreeSet<NodeId>>,
    ) -> Vec<(Digest, Vec<NodeId>)> {
        let asked = |node: &NodeId| self.situation.alive.iter().any(|one| one.id == *node);
        let mut news = Vec::new();
        for (at, digest) in digests.iter().enumerate() {
            let recorded: BTreeSet<NodeId> = self.kept_by[at].iter().copied().collect();
            let silent = recorded.iter().copied().filter(|node| !asked(node));
            let alive = self.situation.alive.iter().map(|one| one.id);
            let mut now: BTreeSet<NodeId> =
                alive.filter(|node| self.keeps(*node, at)).chain(silent).collect();
            now.extend(made.get(digest).into_iter().flatten());
            if now != recorded {
                news.push((*digest, now.into_iter().collect()));
            }
        }
        news
    }
}

/// A blob that too few regions keep.
pub(super) struct Short {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) sources: Vec<NodeId>,
    pub(super) to: Vec<NodeId>,
    /// All sources are damaged, or there are none. If they are at different places, they make a whole
    /// copy together, and an edge may have one; otherwise the blob is lost.
    pub(super) damaged: bool,
}

/// The blobs that too few regions keep, and where copies of them go. A replica that is away is
/// believed to keep what it kept when it was pushed, and its region is one that the project can
/// have: who was away is noted in `done`, so the look is repeated. Blobs that no replica has are
/// counted and named there, too.
pub(super) fn find_short(
    digests: &[Digest],
    survey: &Survey,
    durability: u32,
    done: &mut Done,
) -> Vec<Short> {
    let Situation { alive, away, troubled, .. } = &survey.situation;
    survey.situation.note(done);
    let wanted = survey.situation.wanted(durability);
    let mut all_short = Vec::new();
    for (at, digest) in digests.iter().enumerate() {
        done.checked += 1;
        let kept_here = alive.iter().filter(|c| survey.keeps(c.id, at));
        let kept_away = away.iter().filter(|c| survey.kept_by[at].contains(&c.id));
        let have: BTreeSet<&Region> = kept_here.chain(kept_away).map(|c| &c.region).collect();
        let cached = alive.iter().map(|c| c.id).filter(|id| survey.caches(*id, at)).collect();
        // one that leaves may still be a source
        let has = |node: &NodeId| survey.keeps(*node, at) || survey.caches(*node, at);
        let sources: Vec<NodeId> = survey.stock.keys().copied().filter(has).collect();
        if sources.is_empty() {
            let drained = &survey.situation.drained;
            let waits_for =
                survey.kept_by[at].iter().copied().filter(|node| drained.contains(node));
            let waits_for: Vec<NodeId> = waits_for.collect();
            if !waits_for.is_empty() {
                done.only_at.extend(waits_for);
            } else if done.unsettled.is_empty() {
                let to = missing_copies(digest, have, &cached, alive, troubled, wanted);
                // an edge may have it
                if all_short.len() < SOUGHT && !to.is_empty() {
                    all_short.push(Short { digest: *digest, size: 0, sources, to, damaged: true });
                } else {
                    done.lost.add(*digest);
                    done.says(format!("{digest}: no replica that is up has it"));
                }
            }
            continue;
        }
        let kept = have.len();
        let damaged = sources.iter().all(|node| survey.is_damaged(*node, digest));
        let to = missing_copies(digest, have, &cached, alive, troubled, wanted);
        let held = sources.iter().find_map(|node| survey.stock_of(*node, at)?.held);
        let size = held.map_or(0, |held| held.size);
        done.lacks(survey.situation.lacking(kept + to.len(), durability), size);
        if !to.is_empty() {
            done.short += 1;
            for region in to.iter().filter_map(|node| survey.situation.region_of(*node)) {
                done.lag.add(region, size);
            }
            all_short.push(Short { digest: *digest, size, sources, to, damaged });
        }
    }
    all_short
}

#[cfg(test)]
mod tests {
    use rules::blobs::holding::Held;
    use rules::ledger::jobs::RunEnd;
    use rules::ledger::records::Role;
    use rules::words::digest::ContentHash;

    use super::*;

    fn candidate(id: u64, region: &str) -> Candidate {
        Candidate { id: NodeId(id), region: region.parse().unwrap(), role: Role::Replica }
    }

    fn kept() -> Stock {
        let held = Some(Held { size: 4, content: ContentHash::of(b"four") });
        Stock { held, cached: false, granted: false }
    }

    fn situation(alive: Vec<Candidate>, away: Vec<Candidate>) -> Situation {
        Situation { alive, away, ..Situation::default() }
    }

    const NONE: Stock = Stock { held: None, cached: false, granted: false };

    fn name(node: NodeId) -> String {
        format!("node-{}", node.0)
    }

    #[test]
    fn what_is_short_gets_copies_what_is_lost_is_named_and_cached_copies_do_not_count() {
        let digests = [b"safe", b"once", b"soft", b"lost"].map(|text| Digest::sha256(text));
        let cached = Stock { cached: true, ..kept() };
        let survey = Survey {
            situation: situation(
                vec![candidate(1, "a"), candidate(2, "b"), candidate(3, "c")],
                vec![],
            ),
            stock: [
                (NodeId(1), vec![kept(), kept(), cached, NONE]),
                (NodeId(2), vec![kept(), NONE, NONE, NONE]),
                (NodeId(3), vec![NONE, NONE, cached, NONE]),
            ]
            .into(),
            kept_by: vec![vec![NodeId(1), NodeId(9)]; 4],
            ..Survey::default()
        };
        let mut done = Done::default();
        let mut short = find_short(&digests, &survey, 2, &mut done);
        let sought = short.pop().expect("an edge may have what no replica has");
        assert!(sought.sources.is_empty() && sought.damaged && sought.to.len() == 2);
        done.lost.add(sought.digest);
        assert_eq!((done.checked, done.short, sought.digest), (4, 2, digests[3]));
        let lacks: u64 =
            done.lag.show().as_object().unwrap().values().filter_map(|r| r["bytes"].as_u64()).sum();
        assert_eq!(lacks, 12, "three copies of four bytes: {:?}", done.lag);
        assert_eq!((short[0].digest, &short[0].sources[..]), (digests[1], &[NodeId(1)][..]));
        assert!(short[0].to.len() == 1 && short[0].to[0] != NodeId(1));
        let to: BTreeSet<NodeId> = short[1].to.iter().copied().collect();
        assert_eq!(to, [NodeId(1), NodeId(3)].into(), "no byte has to move");
        assert!(matches!(done.end(name), RunEnd::Hopeless(why) if why.contains("1 blobs")));
        let mut more = Done::default();
        assert_eq!(find_short(&digests[..1], &survey, 5, &mut more)[0].to, [NodeId(3)]);
        assert!(matches!(more.end(name), RunEnd::Done(_)));
    }

    /// Such a blob was once tried again for ever, and no metric said that it was lost.
    #[test]
    fn what_is_damaged_wherever_it_is_is_told_from_what_is_cached() {
        let digests = [b"bad here and there", b"bad, and one sound", b"bad, and one cache"];
        let digests = digests.map(|text| Digest::sha256(text));
        let soft = Stock { cached: true, ..kept() };
        let [one, two] = [NodeId(1), NodeId(2)];
        let mut survey = Survey {
            situation: situation(vec![candidate(1, "a"), candidate(2, "b")], vec![]),
            stock: [(one, vec![soft; 3]), (two, vec![soft, kept(), soft])].into(),
            kept_by: vec![vec![one, two]; 3],
            ..Survey::default()
        };
        // nobody is asked about what is safe
        let doubtful = [(one, vec![digests[0], digests[2]]), (two, vec![digests[0], digests[2]])];
        assert_eq!(survey.doubtful(&digests), doubtful.into());
        survey.damaged =
            [(one, [digests[0], digests[2]].into()), (two, [digests[0]].into())].into();
        let short = find_short(&digests, &survey, 2, &mut Done::default());
        assert_eq!(short.iter().map(|short| short.digest).collect::<Vec<_>>(), digests);
        assert_eq!(
            short.iter().map(|short| short.damaged).collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    /// Such a repair once said that all was done, and that what the replica has was lost; and
    /// nothing looked again when it was back.
    #[test]
    fn a_replica_that_is_away_for_a_moment_lowers_nothing_and_loses_nothing() {
        let digests = [b"here", b"away", b"mine"].map(|text| Digest::sha256(text));
        let mut survey = Survey {
            situation: situation(
                vec![candidate(1, "a"), candidate(2, "b")],
                vec![candidate(3, "c")],
            ),
            stock: [(NodeId(1), vec![kept(), NONE, kept()]), (NodeId(2), vec![kept(), NONE, NONE])]
                .into(),
            kept_by: vec![vec![NodeId(1)], vec![NodeId(3)], vec![NodeId(1), NodeId(3)]],
            ..Survey::default()
        };
        let mut done = Done::default();
        assert!(find_short(&digests, &survey, 2, &mut done).is_empty(), "it has the other copy");
        assert_eq!(done.lost.count(), 0);
        let why = |done: &Done| match done.end(name) {
            RunEnd::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(&done).contains("node-3"), "{}", why(&done));
        let mut done = Done::default();
        let short = find_short(&digests, &survey, 3, &mut done);
        assert_eq!(
            (short.len(), short[0].digest, &short[0].to[..]),
            (1, digests[2], &[NodeId(2)][..])
        );
        why(&done);

        // it is being removed: what it has counts for nothing, but may be copied
        let third = vec![NONE, kept(), kept()];
        survey.situation.away.clear();
        (survey.situation.leaving, survey.stock) = (
            Some(NodeId(3)),
            std::mem::take(&mut survey.stock).into_iter().chain([(NodeId(3), third)]).collect(),
        );
        let mut done = Done::default();
        let short = find_short(&digests, &survey, 2, &mut done);
        assert_eq!(short.iter().map(|short| short.digest).collect::<Vec<_>>(), digests[1..]);
        assert_eq!(short[0].sources, [NodeId(3)]);
        why(&done);
    }
    #[test]
    fn what_the_ledger_says_is_enough_if_it_names_enough_regions_and_one_that_is_up() {
        let up = vec![candidate(1, "a"), candidate(2, "a"), candidate(3, "b")];
        let situation = situation(up, vec![candidate(4, "c")]);
        let enough = |kept_by: &[u64], durability| {
            let kept_by: Vec<NodeId> = kept_by.iter().map(|node| NodeId(*node)).collect();
            situation.is_enough(&kept_by, durability)
        };
        assert!(enough(&[1, 3], 2) && enough(&[1, 4], 2) && enough(&[2], 1));
        assert!(!enough(&[1, 2], 2), "one region");
        assert!(!enough(&[1, 9], 2), "a node that is no member");
        assert!(!enough(&[4], 1), "nobody can be asked for it");
        assert!(enough(&[1, 3, 4], 5) && !enough(&[1, 3], 5), "as many regions as there are");
    }

    /// What only such a replica had was counted as lost while it was switched off.
    #[test]
    fn what_only_a_replica_has_that_drains_and_is_away_is_waited_for() {
        let digests = [b"there", b"gone "].map(|text| Digest::sha256(text));
        let mut survey = Survey {
            situation: situation(vec![candidate(1, "a"), candidate(2, "b")], vec![]),
            stock: [(NodeId(1), vec![NONE; 2]), (NodeId(2), vec![NONE; 2])].into(),
            kept_by: vec![vec![NodeId(3)], vec![NodeId(1)]],
            ..Survey::default()
        };
        survey.situation.drained = [NodeId(3)].into();
        let sought = |survey: &Survey, done: &mut Done| {
            let short = find_short(&digests, survey, 2, done).into_iter();
            short.map(|short| short.digest).collect::<Vec<_>>()
        };
        let mut done = Done::default();
        assert_eq!(sought(&survey, &mut done), [digests[1]], "nobody can have this one");
        let end = done.end(name);
        assert!(matches!(&end, RunEnd::Failed(why) if why.contains("only at node-3")), "{end:?}");
        survey.situation.drained.clear();
        assert_eq!(sought(&survey, &mut Done::default()), digests, "it is away for long");
    }

    /// Such a repair asked the same full replica each time, and was never done.
    #[test]
    fn a_replica_that_is_full_gets_no_copy_if_another_region_can_take_it() {
        let digests: Vec<Digest> = (0..20_u8).map(|n| Digest::sha256(&[n])).collect();
        let up = vec![candidate(1, "a"), candidate(2, "b"), candidate(3, "c")];
        let stock = |node: u64| if node == 1 { kept() } else { NONE };
        let mut survey = Survey {
            situation: situation(up, vec![]),
            stock: (1..4).map(|node| (NodeId(node), vec![stock(node); 20])).collect(),
            kept_by: vec![vec![NodeId(1)]; 20],
            ..Survey::default()
        };
        survey.situation.troubled = [(NodeId(2), Trouble::Full { free: 0 })].into();
        let to = |durability| {
            let short = find_short(&digests, &survey, durability, &mut Done::default());
            short.into_iter().map(|short| short.to).collect::<Vec<_>>()
        };
        assert!(to(2).iter().all(|to| to == &[NodeId(3)]), "{:?}", to(2));
        assert!(to(3).iter().all(|to| to == &[NodeId(3), NodeId(2)]), "{:?}", to(3));
    }

    /// Such a repair once said that all was done, and no metric said otherwise.
    #[test]
    fn what_a_lost_region_should_have_is_told_though_no_copy_can_be_made() {
        let digest = Digest::sha256(b"blob");
        let mut survey = Survey {
            situation: situation(vec![candidate(1, "a"), candidate(2, "b")], vec![]),
            stock: [(NodeId(1), vec![kept()]), (NodeId(2), vec![kept()])].into(),
            kept_by: vec![vec![NodeId(1), NodeId(2)]],
            ..Survey::default()
        };
        survey.situation.lost = ["c", "d"].map(|name| name.parse().unwrap()).into();
        for (durability, lost) in [(2, 0), (3, 1), (5, 2)] {
            let mut done = Done::default();
            assert!(find_short(&[digest], &survey, durability, &mut done).is_empty());
            assert_eq!(done.unreachable, lost, "{durability}: {:?}", done.lag);
            let end = done.end(name);
            assert!(
                matches!(&end, RunEnd::Done(said) if said.contains("lost") == (lost > 0)),
                "{end:?}"
            );
        }
        assert!(survey.situation.is_enough(&[NodeId(1), NodeId(2)], 3));
    }

    #[test]
    fn the_ledger_hears_who_keeps_a_blob_if_it_says_something_else() {
        let digests = [b"as it says", b"another on", b"by a copy ", b"was lost  "];
        let digests = digests.map(|text| Digest::sha256(text));
        let [one, two, away, draining] = [1, 2, 3, 4].map(NodeId);
        let survey = Survey {
            situation: situation(
                vec![candidate(1, "a"), candidate(2, "b")],
                vec![candidate(3, "c")],
            ),
            stock: [
                (one, vec![kept(), kept(), kept(), NONE]),
                (two, vec![kept(), kept(), Stock { cached: true, ..kept() }, NONE]),
            ]
            .into(),
            kept_by: vec![vec![two, one], vec![one, away, draining], vec![one], vec![one, away]],
            ..Survey::default()
        };
        let made = [(digests[2], [two].into())].into();
        let said = survey.news(&digests, &made);
        assert_eq!(
            said,
            [
                (digests[1], vec![one, two, away, draining]),
                (digests[2], vec![one, two]),
                (digests[3], vec![away]),
            ]
        );
    }
}
