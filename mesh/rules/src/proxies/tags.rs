//! Lists of tags that another registry gave: one page for a client, and pages that are remembered.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::Tag;

/// At most `limit` of `tags`, and after which tag the next page begins if there are more. Some
/// registries ignore `n` or `last` and give the whole list each time, each time in another order:
/// then the page is one of the list in lexical order (distribution-spec), behind `last`. They are
/// known by more than `limit` tags, or by `last` itself, which no page may contain. Any other list
/// stays as it came.
pub fn page(mut tags: Vec<Tag>, limit: usize, last: Option<&str>) -> (Vec<Tag>, Option<Tag>) {
    let last = last.filter(|last| tags.iter().any(|tag| tag.as_str() == *last));
    if tags.len() <= limit && last.is_none() {
        return (tags, None);
    }
    tags.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    tags.retain(|tag| last.is_none_or(|last| tag.as_str() > last));
    let more = tags.len() > limit;
    tags.truncate(limit);
    let next = tags.last().filter(|_| more).cloned();
    (tags, next)
}

/// What was answered lately, within a number of bytes.
#[derive(Debug)]
pub struct RecentAnswers<K, V> {
    most: usize,
    size: usize,
    known: HashMap<K, Recent<V>>,
}

#[derive(Debug)]
struct Recent<V> {
    answer: V,
    until: Moment,
    size: usize,
}

impl<K: Clone + Eq + Hash, V> RecentAnswers<K, V> {
    /// Nothing yet. At most `most` bytes are remembered, as [`RecentAnswers::remember`] is told.
    pub fn new(most: usize) -> Self {
        RecentAnswers { most, size: 0, known: HashMap::new() }
    }

    /// The answer to `question`, while it counts.
    pub fn get(&self, now: Moment, question: &K) -> Option<&V> {
        let recent = self.known.get(question)?;
        (now < recent.until).then_some(&recent.answer)
    }

    /// Remembers an answer of `size` bytes for `time`; instead of it others are forgotten if there
    /// is no room: first those that count no more, then those that count shortest. An answer that
    /// is larger than all the room is not remembered.
    pub fn remember(&mut self, now: Moment, question: K, answer: V, size: usize, time: Duration) {
        self.forget(&question);
        if time.is_zero() || size > self.most {
            return;
        }
        if self.size + size > self.most {
            let mut ends: Vec<(Moment, K)> =
                self.known.iter().map(|(known, recent)| (recent.until, known.clone())).collect();
            ends.sort_by_key(|(until, _)| *until);
            for (until, known) in ends {
                if until > now && self.size + size <= self.most {
                    break;
                }
                self.forget(&known);
            }
        }
        self.size += size;
        self.known.insert(question, Recent { answer, until: now + time, size });
    }

    /// Nothing is remembered any more.
    pub fn forget_all(&mut self) {
        self.known.clear();
        self.size = 0;
    }

    fn forget(&mut self, question: &K) {
        if let Some(recent) = self.known.remove(question) {
            self.size -= recent.size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_page_of_a_list_that_came_whole_is_what_the_client_asked_for() {
        let all = || tags(&["a", "b", "c"]);
        assert_eq!(page(all(), 10, None), (all(), None));
        assert_eq!(page(all(), 3, None), (all(), None));
        assert_eq!(page(all(), 2, None), (tags(&["a", "b"]), Some("b".parse().unwrap())));
        assert_eq!(page(all(), 2, Some("b")), (tags(&["c"]), None));
        assert_eq!(page(all(), 2, Some("c")), (tags(&[]), None));
        // the upstream began behind it, or `last` is a word of its own
        assert_eq!(page(all(), 2, Some("0")).0, tags(&["a", "b"]));
        assert_eq!(page(all(), 0, None), (tags(&[]), None));
        // in another order each time, of which nothing may be lost
        let b = Some("b".parse().unwrap());
        assert_eq!(page(tags(&["c", "b", "a"]), 2, None), (tags(&["a", "b"]), b));
        assert_eq!(page(tags(&["b", "c", "a"]), 2, Some("b")), (tags(&["c"]), None));
        assert_eq!(page(tags(&["c", "a"]), 2, None), (tags(&["c", "a"]), None), "as it came");
    }

    #[test]
    fn an_answer_counts_for_its_time_and_the_latest_one_counts() {
        let mut recent = RecentAnswers::new(100);
        recent.remember(at(0), "a", 1, 10, Duration::from_secs(5));
        assert_eq!((recent.get(at(4), &"a"), recent.get(at(5), &"a")), (Some(&1), None));
        recent.remember(at(4), "a", 2, 10, Duration::from_secs(5));
        assert_eq!(recent.get(at(8), &"a"), Some(&2));
        recent.remember(at(8), "a", 3, 10, Duration::ZERO);
        assert_eq!(recent.get(at(8), &"a"), None, "what counts no time replaces what was known");
        recent.remember(at(8), "b", 4, 101, Duration::from_secs(5));
        assert_eq!(recent.get(at(8), &"b"), None, "too large");
        recent.remember(at(8), "b", 5, 100, Duration::from_secs(5));
        recent.forget_all();
        assert_eq!((recent.get(at(8), &"b"), recent.size), (None, 0));
    }

    #[test]
    fn those_that_count_shortest_make_room() {
        let mut recent = RecentAnswers::new(30);
        for (name, time) in [("over", 1), ("long", 60), ("short", 10)] {
            recent.remember(at(0), name, (), 10, Duration::from_secs(time));
        }
        recent.remember(at(2), "new", (), 20, Duration::from_secs(5));
        let there = ["over", "long", "short", "new"].map(|name| recent.get(at(2), &name).is_some());
        assert_eq!(there, [false, true, false, true]);
    }

    proptest! {
        #[test]
        fn no_more_is_remembered_than_there_is_room_for(
            answers in proptest::collection::vec((0u8..8, 0usize..50, 0u64..20), 0..60)
        ) {
            let mut recent = RecentAnswers::new(100);
            for (i, (question, size, time)) in answers.into_iter().enumerate() {
                recent.remember(at(i as u64), question, (), size, Duration::from_secs(time));
                prop_assert!(recent.size <= 100);
                prop_assert_eq!(recent.size, recent.known.values().map(|r| r.size).sum::<usize>());
            }
        }

        #[test]
        fn pages_of_a_whole_list_make_up_the_list(
            names in proptest::collection::btree_set("[a-z]{1,3}", 0..30), limit in 1usize..9,
            turn in 0usize..30
        ) {
            let all: Vec<Tag> = names.iter().map(|name| name.parse().unwrap()).collect();
            let (mut came, mut last) = (Vec::new(), None::<Tag>);
            loop {
                let mut whole = all.clone();
                whole.rotate_left((turn * came.len()) % all.len().max(1));
                let (tags, next) = page(whole, limit, last.as_ref().map(Tag::as_str));
                prop_assert!(tags.len() <= limit);
                came.extend(tags);
                match next {
                    Some(next) => last = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(came, all);
        }
    }
}
