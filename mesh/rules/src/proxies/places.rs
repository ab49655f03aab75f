//! Places in which clients' questions are asked: shared by projects, and within a project by clients,
//! so that neither a slow upstream nor an eager client leaves others none.

use std::collections::BTreeMap;

use super::budget::may_have_one_more;

/// How many questions there may be.
#[derive(Clone, Copy, Debug)]
pub struct PlaceTerms {
    /// Those that wait or are asked.
    pub all: usize,
    /// Those of one project.
    pub of_a_project: usize,
    /// Those that are asked at a time.
    pub at_a_time: usize,
    /// Those of one project.
    pub of_a_project_at_a_time: usize,
}

/// Questions that wait, and those that are asked. Each has a number.
#[derive(Debug)]
pub struct Places<P, C> {
    terms: PlaceTerms,
    last: u64,
    /// The first first.
    questions: BTreeMap<u64, Question<P, C>>,
}

#[derive(Debug)]
struct Question<P, C> {
    project: P,
    client: C,
    is_asked: bool,
}

impl<P: Clone + PartialEq, C: Clone + PartialEq> Places<P, C> {
    /// Nobody asks anything yet.
    pub fn new(terms: PlaceTerms) -> Self {
        Places { terms, last: 0, questions: BTreeMap::new() }
    }

    /// A question of this client about this project: its number, or `None` if the client, or all
    /// clients of the project together, have as many as they may have.
    pub fn enter(&mut self, project: &P, client: &C) -> Option<u64> {
        let PlaceTerms { all, of_a_project, .. } = self.terms;
        let mine = self.count(|one| one.project == *project && one.client == *client);
        let of_project = self.count(|one| one.project == *project);
        let fits = may_have_one_more(mine, of_project, of_a_project)
            && may_have_one_more(of_project, self.questions.len(), all);
        fits.then(|| {
            self.last += 1;
            let (project, client) = (project.clone(), client.clone());
            self.questions.insert(self.last, Question { project, client, is_asked: false });
            self.last
        })
    }

    /// The questions whose turn it is now: they are asked until they [leave](Places::leave).
    pub fn begin(&mut self) -> Vec<u64> {
        let PlaceTerms { at_a_time, of_a_project_at_a_time, .. } = self.terms;
        let waiting: Vec<u64> =
            self.questions.iter().filter(|(_, one)| !one.is_asked).map(|(at, _)| *at).collect();
        let mut begun = Vec::new();
        for number in waiting {
            let Some(Question { project, client, .. }) = self.questions.get(&number) else {
                continue;
            };
            let asked = self.count(|one| one.is_asked);
            let of_project = self.count(|one| one.is_asked && one.project == *project);
            let mine =
                self.count(|one| one.is_asked && one.project == *project && one.client == *client);
            let fits = may_have_one_more(mine, of_project, of_a_project_at_a_time)
                && may_have_one_more(of_project, asked, at_a_time);
            if let Some(one) = self.questions.get_mut(&number).filter(|_| fits) {
                one.is_asked = true;
                begun.push(number);
            }
        }
        begun
    }

    /// This question has its answer, or nobody waits for one.
    pub fn leave(&mut self, number: u64) {
        self.questions.remove(&number);
    }

    fn count(&self, is_such: impl Fn(&Question<P, C>) -> bool) -> usize {
        self.questions.values().filter(|one| is_such(one)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: PlaceTerms =
        PlaceTerms { all: 256, of_a_project: 64, at_a_time: 16, of_a_project_at_a_time: 4 };

    /// Asks as often as it may.
    fn fill(places: &mut Places<u8, u8>, project: u8, client: u8) -> usize {
        std::iter::from_fn(|| places.enter(&project, &client)).count()
    }

    #[test]
    fn a_client_that_asks_without_end_leaves_others_of_its_project_places() {
        let mut places = Places::new(TERMS);
        assert_eq!(fill(&mut places, 1, 1), 32);
        assert_eq!(places.begin(), [1, 2], "half of those that are asked at a time");
        let late = places.enter(&1, &2).expect("another client has a place");
        assert_eq!(places.begin(), [late], "and its turn, though many came before it");
        let third = places.enter(&1, &3).expect("and so has a third");
        assert_eq!(places.begin(), [third]);
        // four are asked
        let fourth = places.enter(&1, &4).expect("there are more to wait in");
        assert!(places.begin().is_empty());
        places.leave(1);
        assert_eq!(places.begin(), [fourth], "who has none comes before who has one");
        places.leave(fourth);
        assert!(places.begin().is_empty(), "one place is for who has none");
        places.leave(late);
        assert_eq!(places.begin(), [3], "and then it is the turn of who came first");
    }

    #[test]
    fn slow_upstreams_leave_other_projects_places() {
        let mut places = Places::new(TERMS);
        for project in 0..5 {
            for client in 0..9 {
                fill(&mut places, project, client);
            }
        }
        assert!(places.questions.len() < TERMS.all, "whoever comes later may wait");
        places.begin();
        let asked = places.count(|one| one.is_asked);
        assert!(asked < TERMS.at_a_time, "{asked}");
        let late = places.enter(&9, &1).expect("a project of which nobody has asked yet");
        assert_eq!(places.begin(), [late], "has its turn at once");
    }

    proptest! {
        #[test]
        fn no_bound_is_passed_and_all_have_their_turn(
            steps in prop::collection::vec((0..5_u8, 0..4_u8, any::<bool>()), 1..300),
        ) {
            let mut places = Places::new(TERMS);
            let mut asked = Vec::new();
            for (project, client, ends) in steps {
                places.enter(&project, &client);
                asked.extend(places.begin());
                if ends && !asked.is_empty() {
                    places.leave(asked.remove(0));
                }
                prop_assert!(asked.len() <= TERMS.at_a_time);
                for project in 0..5 {
                    let at_a_time = places.count(|one| one.is_asked && one.project == project);
                    prop_assert!(at_a_time <= TERMS.of_a_project_at_a_time);
                    prop_assert!(places.count(|one| one.project == project) <= TERMS.of_a_project);
                }
            }
            while !places.questions.is_empty() {
                asked.extend(places.begin());
                prop_assert!(!asked.is_empty(), "something waits for nothing");
                asked.drain(..).for_each(|number| places.leave(number));
            }
        }
    }
}
