//! Questions that are under way: each is asked once, however many want the answer.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::sync::watch;

/// The answer to a question that is under way; `None` until it is there.
pub(crate) type Heard<A> = watch::Receiver<Option<A>>;

/// Where the answer is put.
pub(crate) type Answering<A> = watch::Sender<Option<A>>;

/// The questions that are under way, a limited number.
pub(crate) struct UnderWay<Q, A> {
    most: usize,
    all: HashMap<Q, Heard<A>>,
}

impl<Q: Clone + Eq + Hash, A> UnderWay<Q, A> {
    /// None yet, and at most so many.
    pub(crate) fn new(most: usize) -> Self {
        UnderWay { most, all: HashMap::new() }
    }

    /// Where the answer to `question` will be. With the end to put it into, if nobody asks yet: the
    /// caller has to. `None` while as many are asked as may be.
    pub(crate) fn join(&mut self, question: &Q) -> Option<(Heard<A>, Option<Answering<A>>)> {
        let known = self.all.get(question);
        // one that ended without an answer was cut off
        if let Some(heard) = known.filter(|heard| heard.has_changed().is_ok()) {
            return Some((heard.clone(), None));
        }
        if known.is_none() && self.all.len() >= self.most {
            return None;
        }
        let (answer, heard) = watch::channel(None);
        self.all.insert(question.clone(), heard.clone());
        Some((heard, Some(answer)))
    }

    /// Nobody asks `question` any more.
    pub(crate) fn leave(&mut self, question: &Q) {
        self.all.remove(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_once_and_only_so_many_at_a_time() {
        const AT_A_TIME: usize = 8;
        let question = |n: usize| format!("x={n}");
        let mut under_way = UnderWay::new(AT_A_TIME);
        let mut asked = Vec::new();
        for n in 0..AT_A_TIME {
            let (_, unasked) = under_way.join(&question(n)).expect("there is room");
            asked.push(unasked.expect("nobody asks it yet"));
        }
        assert!(under_way.join(&question(AT_A_TIME)).is_none(), "one too many");
        // those that are under way are joined, also now
        let (heard, unasked) = under_way.join(&question(7)).expect("it is under way");
        assert!(unasked.is_none(), "it is asked already");
        asked[7].send_replace(Some(3));
        assert_eq!(*heard.borrow(), Some(3));
        // whoever asked it is gone: the next one asks
        drop(asked.pop());
        let last = under_way.join(&question(AT_A_TIME - 1)).expect("it has its place");
        assert!(last.1.is_some(), "nobody asks it any more");
        assert!(under_way.join(&question(AT_A_TIME)).is_none(), "still one too many");
        under_way.leave(&question(0));
        assert!(under_way.join(&question(AT_A_TIME)).is_some(), "one place is free");
    }
}
