//! Which cached manifests a node evicts. It has a limited number for each project, so that a flood
//! of manifests of one project leaves the others theirs, and a limited number of bytes for all. The
//! least recently used go first, and so does what nobody has used for long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use crate::words::moment::Timestamp;

/// The part of a cache's budget that manifests may take.
const PART: u64 = 16;

/// How much a node caches of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShelfTerms {
    /// The maximum number for each project.
    pub each: usize,
    /// The maximum number of bytes of all; `None` means no limit.
    pub bytes: Option<u64>,
}

impl ShelfTerms {
    /// Terms for a cache of `budget` bytes, of which manifests may take a part.
    pub fn within(budget: Option<u64>, each: usize) -> Self {
        ShelfTerms { each, bytes: budget.map(|budget| budget / PART) }
    }
}

/// The manifests that a node has cached, by project (`P`) and place (`K`).
#[derive(Clone, Debug)]
pub struct Shelf<P, K> {
    terms: ShelfTerms,
    bytes: u64,
    projects: HashMap<P, OfProject<K>>,
    /// After how long without a use a project's manifests are evicted. Those of other projects are not
    /// evicted because of their age.
    unused: BTreeMap<P, Duration>,
}

#[derive(Clone, Debug)]
struct OfProject<K> {
    known: HashMap<K, OnShelf>,
    order: BTreeSet<(Timestamp, K)>,
}

#[derive(Clone, Copy, Debug)]
struct OnShelf {
    size: u64,
    used: Timestamp,
}

impl<P: Clone + Eq + Hash + Ord, K: Clone + Eq + Hash + Ord> Shelf<P, K> {
    /// Nothing is cached.
    pub fn new(terms: ShelfTerms) -> Self {
        Shelf { terms, bytes: 0, projects: HashMap::new(), unused: BTreeMap::new() }
    }

    /// From now on each project's manifests are evicted after so long without a use.
    pub fn keep_for(&mut self, unused: BTreeMap<P, Duration>) {
        self.unused = unused;
    }

    /// The number of all bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of manifests.
    pub fn manifests(&self) -> usize {
        self.projects.values().map(|of| of.known.len()).sum()
    }

    /// A manifest was cached, or cached again: then it was used at the later of the two times.
    pub fn add(&mut self, project: P, place: K, size: u64, used: Timestamp) {
        let used = self.used(&project, &place).map_or(used, |before| before.max(used));
        self.remove(&project, &place);
        let new = || OfProject { known: HashMap::new(), order: BTreeSet::new() };
        let of = self.projects.entry(project).or_insert_with(new);
        of.order.insert((used, place.clone()));
        of.known.insert(place, OnShelf { size, used });
        self.bytes += size;
    }

    /// When a manifest was last used, if it is cached.
    pub fn used(&self, project: &P, place: &K) -> Option<Timestamp> {
        Some(self.projects.get(project)?.known.get(place)?.used)
    }

    /// A manifest was used. If the clock was set back, the older time is ignored.
    pub fn touch(&mut self, project: &P, place: &K, now: Timestamp) {
        let Some(of) = self.projects.get_mut(project) else { return };
        if let Some(item) = of.known.get_mut(place)
            && item.used < now
        {
            of.order.remove(&(item.used, place.clone()));
            item.used = now;
            of.order.insert((now, place.clone()));
        }
    }

    /// A manifest is gone.
    pub fn remove(&mut self, project: &P, place: &K) {
        let Some(of) = self.projects.get_mut(project) else { return };
        if let Some(item) = of.known.remove(place) {
            of.order.remove(&(item.used, place.clone()));
            self.bytes -= item.size;
        }
        if of.known.is_empty() {
            self.projects.remove(project);
        }
    }

    /// Up to `limit` manifests of projects that are not in `there`, to be evicted.
    pub fn of_others(&self, there: &BTreeSet<P>, limit: usize) -> Vec<K> {
        let others = self.projects.iter().filter(|(project, _)| !there.contains(project));
        others.flat_map(|(_, of)| of.known.keys()).take(limit).cloned().collect()
    }

    /// The manifests to evict now. This does not change the shelf: call [`Shelf::remove`] for each
    /// that is gone.
    pub fn victims(&self, now: Timestamp) -> Vec<K> {
        let mut left = self.bytes;
        let mut victims = Vec::new();
        let mut others = BTreeSet::new();
        for (project, of) in &self.projects {
            let surplus = of.known.len().saturating_sub(self.terms.each);
            let unused = self.unused.get(project);
            let oldest = unused.map_or(0, |after| now.0.saturating_sub(after.as_millis() as u64));
            for (at, (used, place)) in of.order.iter().enumerate() {
                if at < surplus || used.0 < oldest {
                    left -= of.known[place].size;
                    victims.push(place.clone());
                } else {
                    others.insert((*used, of.known[place].size, place));
                }
            }
        }
        for (_, size, place) in others {
            if self.terms.bytes.is_none_or(|most| left <= most) {
                break;
            }
            left -= size;
            victims.push(place.clone());
        }
        victims
    }

    /// Whether anything must be evicted for its number or its bytes. This is quick to find out.
    pub fn is_overfull(&self) -> bool {
        self.terms.bytes.is_some_and(|most| self.bytes > most)
            || self.projects.values().any(|of| of.known.len() > self.terms.each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    fn shelf(each: usize, bytes: Option<u64>) -> Shelf<&'static str, u32> {
        Shelf::new(ShelfTerms { each, bytes })
    }

    #[test]
    fn the_least_recently_used_of_a_project_goes_and_no_other_projects() {
        let mut shelf = shelf(2, None);
        shelf.add("quiet", 1, 10, Timestamp(1));
        for n in 2..=4 {
            shelf.add("busy", n, 10, Timestamp(u64::from(n)));
        }
        shelf.touch(&"busy", &2, Timestamp(9));
        assert!(shelf.is_overfull());
        assert_eq!(shelf.victims(Timestamp(9)), [3]);
        shelf.remove(&"busy", &3);
        assert!(!shelf.is_overfull());
        assert_eq!(
            (shelf.victims(Timestamp(9)), shelf.bytes(), shelf.manifests()),
            (vec![], 30, 3)
        );
    }

    #[test]
    fn of_all_projects_the_least_recently_used_goes_for_the_bytes() {
        let mut shelf = shelf(9, Some(25));
        shelf.add("a", 1, 10, Timestamp(3));
        shelf.add("b", 2, 10, Timestamp(1));
        shelf.add("b", 3, 10, Timestamp(2));
        assert_eq!(shelf.victims(Timestamp(3)), [2]);
        assert_eq!(ShelfTerms::within(Some(160), 1).bytes, Some(10));
        assert_eq!(ShelfTerms::within(None, 1).bytes, None);
    }

    #[test]
    fn what_nobody_uses_goes_and_what_is_used_stays() {
        let mut shelf = shelf(9, None);
        shelf.keep_for([("a", Duration::from_millis(30 * DAY))].into());
        shelf.add("a", 1, 10, Timestamp(0));
        shelf.add("a", 2, 10, Timestamp(0));
        shelf.add("for good", 3, 10, Timestamp(0));
        shelf.touch(&"a", &2, Timestamp(DAY));
        assert_eq!(shelf.victims(Timestamp(30 * DAY)), Vec::<u32>::new());
        assert_eq!(shelf.victims(Timestamp(30 * DAY + 1)), [1]);
        // the clock was set back
        assert_eq!(shelf.victims(Timestamp(0)), Vec::<u32>::new());
        shelf.add("a", 1, 10, Timestamp(2 * DAY));
        shelf.add("a", 1, 10, Timestamp(DAY));
        assert_eq!(shelf.used(&"a", &1), Some(Timestamp(2 * DAY)), "the later use counts");
    }

    #[test]
    fn what_belongs_to_no_project_any_more_is_named() {
        let mut shelf = shelf(9, None);
        for n in 0..4 {
            shelf.add(if n < 3 { "gone" } else { "there" }, n, 1, Timestamp(1));
        }
        assert_eq!(shelf.of_others(&["there"].into(), 2).len(), 2);
        let mut all = shelf.of_others(&["there"].into(), 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn after_the_victims_are_gone_all_limits_hold_and_no_more_goes_than_must(
            steps in proptest::collection::vec((0usize..3, 0u32..20, 1u64..50, 0u64..4), 1..120),
            each in 1usize..8,
            most in 0u64..300,
        ) {
            let mut shelf = shelf(each, Some(most));
            let names = ["a", "b", "c"];
            let mut now = 0;
            for (project, place, size, step) in steps {
                now += step;
                shelf.add(names[project], place * 3 + project as u32, size, Timestamp(now));
                let victims = shelf.victims(Timestamp(now));
                prop_assert_eq!(victims.is_empty(), !shelf.is_overfull());
                for victim in victims {
                    shelf.remove(&names[victim as usize % 3], &victim);
                }
                prop_assert!(shelf.bytes() <= most && !shelf.is_overfull());
                for of in shelf.projects.values() {
                    prop_assert!(of.known.len() <= each);
                    prop_assert_eq!(of.known.len(), of.order.len());
                }
                let sum: u64 = shelf.projects.values().flat_map(|of| of.known.values()).map(|i| i.size).sum();
                prop_assert_eq!(sum, shelf.bytes());
            }
        }
    }
}
