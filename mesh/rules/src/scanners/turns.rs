//! Which of the scans that wait are begun next.

use std::collections::{BTreeMap, VecDeque};

use crate::words::names::{ProjectName, ScannerId};

/// Which of the waiting scans are begun if `at_a_time` may run. `projects` are how many run of each
/// already, and those that wait, in their order. The project with the fewest comes next; among
/// equals, the first. The last place is not for one project alone, unless it is the only place: slow
/// images of one project do not stop those of others.
pub fn take_turns<T>(mut projects: Vec<(usize, VecDeque<T>)>, at_a_time: usize) -> Vec<T> {
    let most = at_a_time.saturating_sub(1).max(1);
    let running: usize = projects.iter().map(|(running, _)| running).sum();
    let mut begun = Vec::new();
    while running + begun.len() < at_a_time {
        let waits = projects.iter_mut().filter(|(run, waits)| *run < most && !waits.is_empty());
        let Some((running, waiting)) = waits.min_by_key(|(running, _)| *running) else { break };
        begun.extend(waiting.pop_front());
        *running += 1;
    }
    begun
}

/// The scans of one project that wait.
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    /// The project.
    pub project: ProjectName,
    /// Its scanner.
    pub scanner: ScannerId,
    /// How many run.
    pub running: usize,
    /// Those that wait, in their order.
    pub scans: VecDeque<T>,
}

/// The same where projects have several scanners: each scanner has as many places, so that a slow one
/// keeps nobody waiting but those who have chosen it. `last` has the project that each has served last;
/// that one comes last now.
pub fn take_turns_of_each<T>(
    mut projects: Vec<Waiting<T>>,
    last: &mut BTreeMap<ScannerId, ProjectName>,
    at_a_time: usize,
) -> Vec<(ScannerId, T)> {
    projects.sort_by(|one, other| one.project.cmp(&other.project));
    let mut scanners: BTreeMap<ScannerId, Vec<Waiting<T>>> = BTreeMap::new();
    for waiting in projects {
        scanners.entry(waiting.scanner).or_default().push(waiting);
    }
    let mut begun = Vec::new();
    for (scanner, mut projects) in scanners {
        let after = projects.partition_point(|one| Some(&one.project) <= last.get(&scanner));
        projects.rotate_left(after);
        let queue = |one: Waiting<T>| {
            let scans = one.scans.into_iter().map(|scan| (one.project.clone(), scan)).collect();
            (one.running, scans)
        };
        for (project, scan) in take_turns(projects.into_iter().map(queue).collect(), at_a_time) {
            last.insert(scanner, project);
            begun.push((scanner, scan));
        }
    }
    begun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_with_many_images_leaves_room_for_the_others() {
        let queue = |name: &str, count: usize| (0..count).map(|n| format!("{name}{n}")).collect();
        let turns = |projects: Vec<(usize, VecDeque<String>)>, most| take_turns(projects, most);
        let waiting = || vec![(0, queue("a", 9)), (0, queue("b", 1)), (0, queue("c", 2))];
        assert_eq!(turns(waiting(), 4), ["a0", "b0", "c0", "a1"]);
        assert_eq!(turns(waiting(), 2), ["a0", "b0"]);
        assert_eq!(turns(waiting(), 1), ["a0"]);
        assert_eq!(turns(vec![(2, queue("a", 9)), (0, queue("b", 3))], 5), ["b0", "b1", "a0"]);
        assert_eq!(turns(vec![(0, queue("a", 9)), (0, queue("b", 0))], 3), ["a0", "a1"]);
        assert!(turns(vec![(1, queue("a", 9))], 2).is_empty(), "one place is for others");
        assert!(turns(vec![(1, queue("a", 9)), (0, queue("b", 9))], 1).is_empty());
        assert!(turns(vec![], 3).is_empty());
    }

    #[test]
    fn a_slow_scanner_keeps_only_its_own_projects_waiting() {
        let (slow, built_in) = (ScannerId(7), ScannerId::NATIVE);
        let waiting = |name: &str, scanner, running, count: usize| Waiting {
            project: name.parse().unwrap(),
            scanner,
            running,
            scans: (0..count).map(|n| format!("{name}{n}")).collect(),
        };
        let mut last = BTreeMap::new();
        let mut turns = |projects, most| {
            let begun = take_turns_of_each(projects, &mut last, most);
            begun.into_iter().map(|(_, scan)| scan).collect::<Vec<_>>()
        };
        // both places of the slow one are taken
        let all = || {
            vec![
                waiting("aa", slow, 1, 9),
                waiting("bb", built_in, 0, 1),
                waiting("cc", slow, 1, 9),
                waiting("dd", built_in, 0, 9),
            ]
        };
        assert_eq!(turns(all(), 2), ["bb0", "dd0"]);
        let one = vec![waiting("aa", slow, 0, 9), waiting("dd", built_in, 1, 9)];
        assert_eq!(turns(one, 2), ["aa0"], "one place of each is for others");
        // with one place each, the projects of a scanner follow each other, whatever another does
        let all = || {
            vec![
                waiting("aa", slow, 0, 9),
                waiting("cc", slow, 0, 9),
                waiting("bb", built_in, 0, 9),
                waiting("dd", built_in, 0, 9),
            ]
        };
        assert_eq!(turns(all(), 1), ["cc0", "bb0"]);
        assert_eq!(turns(all(), 1), ["aa0", "dd0"]);
        assert_eq!(turns(all(), 1), ["cc0", "bb0"]);
    }
}
