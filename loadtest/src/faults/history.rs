//! What clients saw of tags, and whether one order of all operations explains it.
//!
//! Each tag is a register. An operation is called and answered at places in one order that all
//! clients share; one without an answer, or with a refusal that does not say what became of it, may
//! take effect at any time after its call, or never. `todc-utils` (Wing and Gong's search with
//! Lowe's memory of what was tried) says whether the history is linearizable.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::stage::locked;

/// Which of the prepared manifests a tag has.
pub(crate) type Value = u16;

/// So many operations on a tag may be without an answer: each doubles what the search must try.
const MOST_OPEN: usize = 6;
/// So many operations a tag may have: the search takes the square of it.
const MOST: usize = 250;

/// What a client did, with what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It read this, or that there is none.
    Read(Option<Value>),
    /// It was told that this is written.
    Wrote(Value),
    /// It was told that the tag was there and is deleted.
    Deleted,
    /// It wanted to delete the tag and was told that there is none.
    NotThere,
    /// It was not told whether the deletion took effect.
    MayBeDeleted,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    called: u64,
    /// Nothing: it may take effect at any time after the call.
    answered: Option<u64>,
    done: Done,
}

/// The histories of all tags of a trial.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    clock: AtomicU64,
    tags: Mutex<BTreeMap<String, Vec<Operation>>>,
    /// How often a tag's name was given up for a new one.
    generations: Mutex<BTreeMap<usize, usize>>,
}

/// How many operations there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) unknown: usize,
}

impl Histories {
    /// A moment in the order of all clients. To be taken before a request is sent.
    pub(crate) fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// The tag that stands for a slot now. One with too many operations, or too many that are open,
    /// is left alone.
    pub(crate) fn tag(&self, slot: usize) -> String {
        let mut generations = locked(&self.generations);
        let generation = generations.entry(slot).or_default();
        let name = |generation: &usize| format!("slot{slot}-{generation}");
        if let Some(so_far) = locked(&self.tags).get(&name(generation)) {
            let open = so_far.iter().filter(|operation| operation.answered.is_none()).count();
            if open >= MOST_OPEN || so_far.len() >= MOST {
                *generation += 1;
            }
        }
        name(generation)
    }

    /// An operation that was called at `called` has been answered now.
    pub(crate) fn answered(&self, tag: &str, called: u64, done: Done) {
        self.note(tag, Operation { called, answered: Some(self.now()), done });
    }

    /// An operation that was called at `called` was not answered, or not in a way that says what
    /// became of it.
    pub(crate) fn open(&self, tag: &str, called: u64, done: Done) {
        self.note(tag, Operation { called, answered: None, done });
    }

    fn note(&self, tag: &str, operation: Operation) {
        locked(&self.tags).entry(tag.to_owned()).or_default().push(operation);
    }

    /// The tags that were used.
    pub(crate) fn tags(&self) -> Vec<String> {
        locked(&self.tags).keys().cloned().collect()
    }

    /// How many operations there were.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in locked(&self.tags).values().flatten() {
            match operation {
                Operation { answered: None, .. } => counts.unknown += 1,
                Operation { done: Done::Read(_), .. } => counts.reads += 1,
                _ => counts.writes += 1,
            }
        }
        counts
    }

    /// Each tag that no order explains, with its operations.
    pub(crate) fn violations(&self) -> Vec<String> {
        let tags = locked(&self.tags);
        let wrong = tags.iter().filter(|(_, operations)| !is_linearizable(operations));
        wrong
            .map(|(tag, operations)| format!("no order explains tag {tag}: {}", told(operations)))
            .collect()
    }
}

fn told(operations: &[Operation]) -> String {
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|operation| operation.called);
    let told = sorted.iter().map(|Operation { called, answered, done }| match answered {
        Some(answered) => format!("[{called}-{answered}] {done:?}"),
        None => format!("[{called}-?] {done:?}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// A tag of a repository.
struct Tag;

impl Specification for Tag {
    type State = Option<Value>;
    type Operation = Done;

    fn init() -> Self::State {
        None
    }

    fn apply(done: &Done, state: &Self::State) -> (bool, Self::State) {
        match done {
            Done::Read(value) => (value == state, *state),
            Done::Wrote(value) => (true, Some(*value)),
            Done::Deleted => (state.is_some(), None),
            Done::NotThere => (state.is_none(), None),
            Done::MayBeDeleted => (true, None),
        }
    }
}

fn is_linearizable(operations: &[Operation]) -> bool {
    let mut events = Vec::new();
    for (process, Operation { called, answered, done }) in operations.iter().enumerate() {
        events.push((*called, process, Action::Call(*done)));
        events.push((answered.unwrap_or(u64::MAX), process, Action::Response(*done)));
    }
    if events.is_empty() {
        return true; // the library has no empty histories
    }
    events.sort_by_key(|(at, ..)| *at);
    let actions = events.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<Tag>::is_linearizable(History::from_actions(actions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(operations: &[(u64, Option<u64>, Done)]) -> bool {
        let operation = |&(called, answered, done)| Operation { called, answered, done };
        is_linearizable(&operations.iter().map(operation).collect::<Vec<_>>())
    }

    #[test]
    fn what_was_acknowledged_is_read() {
        assert!(of(&[(0, Some(1), Done::Wrote(1)), (2, Some(3), Done::Read(Some(1)))]));
        assert!(!of(&[(0, Some(1), Done::Wrote(1)), (2, Some(3), Done::Read(None))]));
        let back = [
            (0, Some(1), Done::Wrote(1)),
            (2, Some(3), Done::Wrote(2)),
            (4, Some(5), Done::Read(Some(1))),
        ];
        assert!(!of(&back), "A, B, A");
    }

    #[test]
    fn what_was_not_answered_may_have_happened_or_not() {
        let begun = (0, None, Done::Wrote(1));
        assert!(of(&[begun, (2, Some(3), Done::Read(None))]));
        assert!(of(&[begun, (2, Some(3), Done::Read(Some(1)))]));
        assert!(of(&[begun, (2, Some(3), Done::Read(None)), (4, Some(5), Done::Read(Some(1)))]));
        let gone = [begun, (2, Some(3), Done::Read(Some(1))), (4, Some(5), Done::Read(None))];
        assert!(!of(&gone), "it takes effect once");
    }

    #[test]
    fn a_deletion_is_told_once() {
        let wrote = (0, Some(1), Done::Wrote(1));
        assert!(of(&[wrote, (2, Some(3), Done::Deleted), (4, Some(5), Done::NotThere)]));
        assert!(!of(&[wrote, (2, Some(3), Done::NotThere)]), "it worked, and 404 was said");
        assert!(!of(&[wrote, (2, Some(3), Done::Deleted), (4, Some(5), Done::Deleted)]));
        assert!(of(&[wrote, (2, None, Done::MayBeDeleted), (4, Some(5), Done::Read(Some(1)))]));
    }

    #[test]
    fn a_tag_with_too_many_open_operations_is_left_alone() {
        let histories = Histories::default();
        for _ in 0..MOST_OPEN {
            assert_eq!(histories.tag(3), "slot3-0");
            histories.open("slot3-0", histories.now(), Done::Wrote(1));
        }
        assert_eq!(histories.tag(3), "slot3-1");
        assert_eq!(histories.counts().unknown, MOST_OPEN);
    }
}
