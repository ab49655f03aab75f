//! What upstreams said that they do not have. It is believed for a while, so that one client that
//! asks for it again and again costs the upstream one question.
//!
//! The memory is bounded for each project, so that questions about one project cannot push out what
//! is remembered of another.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::ProjectName;

/// Recent denials, by project. The oldest of a project makes room for its next.
#[derive(Debug)]
pub struct Denials<K> {
    each: usize,
    projects: HashMap<ProjectName, OfProject<K>>,
}

#[derive(Debug)]
struct OfProject<K> {
    /// The latest denial of each: its number, and until when it counts.
    latest: HashMap<K, (u64, Moment)>,
    /// In the order in which they came. A thing denied twice is here twice; the number tells which
    /// of the two is the latest, as both may count until the same moment.
    order: VecDeque<(K, u64, Moment)>,
    next: u64,
}

impl<K: Clone + Eq + Hash> Denials<K> {
    /// Nothing was denied yet. At most `each` denials are remembered for a project.
    pub fn new(each: usize) -> Self {
        Denials { each, projects: HashMap::new() }
    }

    /// The upstream of `project` denied `what`. This counts for `time`.
    pub fn remember(&mut self, now: Moment, project: &ProjectName, what: K, time: Duration) {
        if time.is_zero() || self.each == 0 {
            return;
        }
        let new = || OfProject { latest: HashMap::new(), order: VecDeque::new(), next: 0 };
        let of = self.projects.entry(project.clone()).or_insert_with(new);
        let (number, until) = (of.next, now + time);
        of.next += 1;
        of.latest.insert(what.clone(), (number, until));
        of.order.push_back((what, number, until));
        let over = |(_, _, until): &(K, u64, Moment)| *until <= now;
        while of.order.len() > self.each || of.order.front().is_some_and(over) {
            let Some((oldest, number, _)) = of.order.pop_front() else { break };
            // it may have been denied again since
            if of.latest.get(&oldest).is_some_and(|(latest, _)| *latest == number) {
                of.latest.remove(&oldest);
            }
        }
    }

    /// Whether the upstream of `project` denied `what` a moment ago.
    pub fn stands(&self, now: Moment, project: &ProjectName, what: &K) -> bool {
        let latest = self.projects.get(project).and_then(|of| of.latest.get(what));
        latest.is_some_and(|(_, until)| now < *until)
    }

    /// Forgets all.
    pub fn forget_all(&mut self) {
        self.projects.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_denial_counts_for_its_time_and_in_its_project() {
        let [hub, other]: [ProjectName; 2] = ["hub", "other"].map(|name| name.parse().unwrap());
        let (mut denials, time) = (Denials::new(10), Duration::from_secs(5));
        denials.remember(at(0), &hub, "a", time);
        assert!(denials.stands(at(4), &hub, &"a"));
        assert!(!denials.stands(at(5), &hub, &"a"), "it is over");
        assert!(!denials.stands(at(4), &other, &"a") && !denials.stands(at(4), &hub, &"b"));
        denials.remember(at(4), &hub, "a", time);
        denials.remember(at(6), &hub, "b", time);
        assert!(denials.stands(at(8), &hub, &"a"), "the later denial counts");
        denials.remember(at(6), &hub, "c", Duration::ZERO);
        assert!(!denials.stands(at(6), &hub, &"c"), "nothing is believed for no time");
        denials.forget_all();
        assert!(!denials.stands(at(8), &hub, &"a"));
    }

    #[test]
    fn what_is_denied_again_in_the_same_moment_is_not_forgotten_with_its_first_denial() {
        let hub: ProjectName = "hub".parse().unwrap();
        let (mut denials, time) = (Denials::new(2), Duration::from_secs(5));
        for what in ["a", "b", "a"] {
            denials.remember(at(0), &hub, what, time);
        }
        assert!(denials.stands(at(0), &hub, &"a") && denials.stands(at(0), &hub, &"b"));
    }

    proptest! {
        #[test]
        fn one_project_has_a_bounded_part_and_leaves_others_theirs(
            asked in proptest::collection::vec((0u16..50, 0u64..3), 1..200)
        ) {
            let [hub, quiet]: [ProjectName; 2] = ["hub", "quiet"].map(|name| name.parse().unwrap());
            let (mut denials, mut now) = (Denials::new(8), 0);
            denials.remember(at(0), &quiet, 7, Duration::from_secs(10_000));
            for (what, step) in asked {
                now += step;
                denials.remember(at(now), &hub, what, Duration::from_secs(20));
                prop_assert!(denials.stands(at(now), &hub, &what));
                let of = &denials.projects[&hub];
                prop_assert!(of.order.len() <= 8 && of.latest.len() <= of.order.len());
            }
            prop_assert!(denials.stands(at(now), &quiet, &7));
        }
    }
}
