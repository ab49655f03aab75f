//! When to pause requests to an upstream, and how long its answers are used. There are three parts,
//! without sockets or clocks:
//!
//! - [`retry_after`] parses how long an upstream asks to wait.
//! - [`Gate`] keeps such pauses. There is one for each upstream, and [`Upstream`](super::Upstream)
//!   asks it before every request.
//! - [`Answers`] remembers the digests of tags, and what was missing, so that most pulls need no
//!   request to the upstream. It belongs to the caller: the project's primary has one for the whole
//!   mesh.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rules::words::moment::{Moment, Timestamp};

use super::Resolved;

/// The first pause after a limit without a `Retry-After`. It doubles with each further limit.
const PAUSE: Duration = Duration::from_secs(5);
/// The maximum pause: a wrong or hostile `Retry-After` must not close an upstream for good.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a `Retry-After` asks to wait. It is a number of seconds, or an HTTP date, which is
/// compared with the upstream's own `Date` if there is one.
pub fn retry_after(value: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(LONGEST));
    }
    let at = |text: &str| {
        let since_epoch = httpdate::parse_http_date(text.trim())
            .ok()?
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?;
        u64::try_from(since_epoch.as_millis()).ok()
    };
    let now = date.and_then(at).unwrap_or(now.0);
    Some(Duration::from_millis(at(value)?.saturating_sub(now)).min(LONGEST))
}

/// The kinds of requests that limits distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A manifest, which Docker Hub and similar registries count.
    Manifest,
    /// A blob, as part of a pull that has begun.
    Blob,
}

/// Whether an upstream may be asked. A limit on manifests leaves blobs open: registries count
/// manifests, and a client that has a manifest must get its blobs, or its pull fails.
#[derive(Debug, Default)]
pub struct Gate {
    manifests: Option<Moment>,
    blobs: Option<Moment>,
    in_a_row: u32,
}

impl Gate {
    /// Whether `ask` may be asked now; otherwise the error says when.
    pub fn admit(&self, now: Moment, ask: Ask) -> Result<(), Moment> {
        let closed = match ask {
            Ask::Manifest => self.manifests,
            Ask::Blob => self.blobs,
        };
        match closed.filter(|until| now < *until) {
            Some(until) => Err(until),
            None => Ok(()),
        }
    }

    /// How long nothing may be asked; zero if something may.
    pub fn closed_for(&self, now: Moment) -> Duration {
        self.manifests.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// The upstream asked for a pause: for manifests only if `ask` is a manifest, otherwise for
    /// everything (a blob; or `None`, for a login or a 503). Returns when the pause ends.
    pub fn handle_limit(
        &mut self,
        now: Moment,
        ask: Option<Ask>,
        wait: Option<Duration>,
    ) -> Moment {
        // of all requests that were under way when the limit came, only the first counts
        if self.admit(now, Ask::Manifest).is_ok() {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let doubled = PAUSE.saturating_mul(1 << self.in_a_row.saturating_sub(1).min(10));
        let until = now + wait.unwrap_or(doubled).min(LONGEST);
        let later = |closed: &mut Option<Moment>| *closed = (*closed).max(Some(until));
        later(&mut self.manifests);
        if ask != Some(Ask::Manifest) {
            later(&mut self.blobs);
        }
        until
    }

    /// The upstream answered `ask`. Answers to blobs during a limit on manifests say nothing about
    /// manifests.
    pub fn handle_answer(&mut self, ask: Ask) {
        if ask == Ask::Manifest {
            self.in_a_row = 0;
        }
    }
}

/// How long answers are used.
#[derive(Clone, Copy, Debug)]
pub struct AnswerTerms {
    /// How long a tag's digest is used before the upstream is asked again.
    pub found: Duration,
    /// How long it is remembered that something is missing or denied.
    pub missing: Duration,
    /// The time between a failure and the next attempt: a dead upstream must not cost every pull
    /// its deadline.
    pub retry: Duration,
    /// The maximum number of answers that are remembered for each project, so that questions about
    /// one do not push out what is known of another.
    pub most: usize,
}

/// How to answer a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With this; the upstream need not be asked.
    Fresh(Resolved),
    /// It was missing a moment ago.
    Missing,
    /// It was denied a moment ago, for this reason.
    Denied(Arc<str>),
    /// With this, marked as old, because the upstream failed a moment ago.
    Stale(Resolved),
    /// Ask the upstream. `known` is the answer in case that fails.
    Ask {
        /// The last known answer.
        known: Option<Resolved>,
    },
}

#[derive(Debug)]
enum Said {
    Found(Resolved),
    Missing,
    Denied(Arc<str>),
}

/// An upstream's recent answers.
#[derive(Debug)]
pub struct Answers {
    terms: AnswerTerms,
    /// By project, then by repository and reference.
    known: HashMap<String, HashMap<(String, String), Known>>,
}

#[derive(Debug)]
struct Known {
    answer: Said,
    at: Moment,
    failed: Option<Moment>,
}

impl Answers {
    /// No answers yet.
    pub fn new(terms: AnswerTerms) -> Self {
        Answers { terms, known: HashMap::new() }
    }

    /// How to answer a question about `reference`, a tag or a digest, in `repository`.
    pub fn decide(&self, now: Moment, repository: &str, reference: &str) -> Decision {
        let known = self.known.get(project_of(repository));
        let key = (repository.to_owned(), reference.to_owned());
        let Some(known) = known.and_then(|known| known.get(&key)) else {
            return Decision::Ask { known: None };
        };
        let age = now.since(known.at);
        match &known.answer {
            Said::Missing if age < self.terms.missing => Decision::Missing,
            Said::Denied(why) if age < self.terms.missing => Decision::Denied(why.clone()),
            Said::Missing | Said::Denied(_) => Decision::Ask { known: None },
            Said::Found(resolved) if age < self.terms.found => Decision::Fresh(resolved.clone()),
            Said::Found(resolved)
                if known.failed.is_some_and(|failed| now.since(failed) < self.terms.retry) =>
            {
                Decision::Stale(resolved.clone())
            }
            Said::Found(resolved) => Decision::Ask { known: Some(resolved.clone()) },
        }
    }

    /// The upstream answered with a digest, or that there is none.
    pub fn handle_answer(
        &mut self,
        now: Moment,
        repository: &str,
        reference: &str,
        answer: Option<Resolved>,
    ) {
        self.remember(now, repository, reference, answer.map_or(Said::Missing, Said::Found));
    }

    /// The upstream denied access, as some registries do for things that do not exist. This is
    /// remembered as long as a miss, and replaces the known answer. If cached content is still
    /// served, call [`Answers::handle_failure`] instead.
    pub fn handle_denial(&mut self, now: Moment, repository: &str, reference: &str, why: Arc<str>) {
        self.remember(now, repository, reference, Said::Denied(why));
    }

    fn remember(&mut self, now: Moment, repository: &str, reference: &str, answer: Said) {
        let key = (repository.to_owned(), reference.to_owned());
        let known = self.known.entry(project_of(repository).to_owned()).or_default();
        if known.len() >= self.terms.most && !known.contains_key(&key) {
            forget(known, now, self.terms);
        }
        known.insert(key, Known { answer, at: now, failed: None });
    }

    /// The upstream failed. The known answer is still used, as stale after its time.
    pub fn handle_failure(&mut self, now: Moment, repository: &str, reference: &str) {
        let known = self.known.get_mut(project_of(repository));
        let key = (repository.to_owned(), reference.to_owned());
        if let Some(known) = known.and_then(|known| known.get_mut(&key)) {
            known.failed = Some(now);
        }
    }

    /// Forgets all answers.
    pub fn forget_all(&mut self) {
        self.known.clear();
    }
}

/// The project of a repository: the part before the first `/`.
fn project_of(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

/// Makes room: removes expired misses first, then the oldest quarter.
fn forget(known: &mut HashMap<(String, String), Known>, now: Moment, terms: AnswerTerms) {
    known.retain(|_, known| {
        matches!(known.answer, Said::Found(_)) || now.since(known.at) < terms.missing
    });
    if known.len() < terms.most {
        return;
    }
    let mut ages: Vec<_> = known.values().map(|known| known.at).collect();
    ages.sort_unstable();
    let oldest = ages.get(ages.len() / 4).copied().unwrap_or(now);
    known.retain(|_, known| known.at > oldest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rules::words::digest::Digest;

    const TERMS: AnswerTerms = AnswerTerms {
        found: Duration::from_secs(60),
        missing: Duration::from_secs(10),
        retry: Duration::from_secs(5),
        most: 8,
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn resolved(name: &str) -> Resolved {
        Resolved { digest: Digest::sha256(name.as_bytes()), media_type: "x/y".into(), size: 1 }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_by_the_upstreams_own_clock() {
        let ours = Timestamp(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        let read = |value: &str, date: Option<&str>| {
            retry_after(value, date, ours).map(|wait| wait.as_secs())
        };
        assert_eq!(read(" 120 ", None), Some(120));
        assert_eq!(read("99999999999999999999999", None), Some(3600));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT", None), Some(60));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:50:37 GMT", Some("Sun, 06 Nov 1994 08:50:07 GMT")),
            Some(30)
        );
        assert_eq!(read("Sun, 06 Nov 1994 08:49:00 GMT", None), Some(0));
        assert_eq!(read("Sat, 06 Nov 2094 08:49:00 GMT", None), Some(3600));
        for nonsense in ["", "-1", "1.5", "soon", "+3"] {
            assert_eq!(read(nonsense, None), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_limit_on_manifests_leaves_blobs_open_and_any_other_closes_both() {
        let mut gate = Gate::default();
        assert_eq!(
            gate.handle_limit(at(0), Some(Ask::Manifest), Some(Duration::from_secs(30))),
            at(30)
        );
        assert_eq!(gate.admit(at(29), Ask::Manifest), Err(at(30)));
        assert_eq!(gate.admit(at(29), Ask::Blob), Ok(()));
        assert_eq!(gate.admit(at(30), Ask::Manifest), Ok(()));
        assert_eq!([0, 29, 30, 31].map(|now| gate.closed_for(at(now)).as_secs()), [30, 1, 0, 0]);
        gate.handle_limit(at(40), None, Some(Duration::from_secs(5)));
        assert_eq!(gate.admit(at(44), Ask::Blob), Err(at(45)));
        assert_eq!(gate.admit(at(44), Ask::Manifest), Err(at(45)));
    }

    #[test]
    fn pauses_double_until_the_upstream_answers_and_a_short_one_does_not_cut_a_long_one() {
        let mut gate = Gate::default();
        assert_eq!(gate.handle_limit(at(0), Some(Ask::Manifest), None), at(5));
        assert_eq!(gate.handle_limit(at(1), Some(Ask::Manifest), None), at(6));
        assert_eq!(gate.handle_limit(at(6), Some(Ask::Manifest), None), at(16));
        gate.handle_answer(Ask::Manifest);
        assert_eq!(gate.handle_limit(at(20), Some(Ask::Manifest), None), at(25));
        gate.handle_limit(at(20), Some(Ask::Manifest), Some(Duration::from_secs(100)));
        gate.handle_limit(at(21), Some(Ask::Manifest), Some(Duration::from_secs(1)));
        assert_eq!(gate.admit(at(50), Ask::Manifest), Err(at(120)));
    }

    #[test]
    fn a_tag_is_fresh_then_asked_for_and_stale_after_a_failure() {
        let mut answers = Answers::new(TERMS);
        assert_eq!(answers.decide(at(0), "a", "1"), Decision::Ask { known: None });
        answers.handle_answer(at(0), "a", "1", Some(resolved("x")));
        assert_eq!(answers.decide(at(59), "a", "1"), Decision::Fresh(resolved("x")));
        assert_eq!(answers.decide(at(60), "a", "1"), Decision::Ask { known: Some(resolved("x")) });
        answers.handle_failure(at(61), "a", "1");
        assert_eq!(answers.decide(at(65), "a", "1"), Decision::Stale(resolved("x")));
        assert_eq!(answers.decide(at(66), "a", "1"), Decision::Ask { known: Some(resolved("x")) });
        answers.handle_answer(at(66), "a", "1", Some(resolved("y")));
        assert_eq!(answers.decide(at(67), "a", "1"), Decision::Fresh(resolved("y")));
        assert_eq!(answers.decide(at(67), "b", "1"), Decision::Ask { known: None });
    }

    #[test]
    fn what_was_missing_is_asked_for_again_before_long() {
        let mut answers = Answers::new(TERMS);
        answers.handle_answer(at(0), "a", "1", None);
        answers.handle_failure(at(1), "a", "1");
        assert_eq!(answers.decide(at(9), "a", "1"), Decision::Missing);
        assert_eq!(answers.decide(at(10), "a", "1"), Decision::Ask { known: None });
    }

    #[test]
    fn what_was_denied_is_asked_for_again_before_long() {
        let mut answers = Answers::new(TERMS);
        answers.handle_answer(at(0), "a", "1", Some(resolved("x")));
        answers.handle_denial(at(60), "a", "1", "403".into());
        answers.handle_failure(at(61), "a", "1");
        assert_eq!(answers.decide(at(69), "a", "1"), Decision::Denied("403".into()));
        assert_eq!(answers.decide(at(70), "a", "1"), Decision::Ask { known: None });
    }

    proptest! {
        #[test]
        fn no_retry_after_makes_it_panic_or_wait_too_long(value in ".{0,40}", date in proptest::option::of(".{0,40}"), now in any::<u64>()) {
            prop_assert!(retry_after(&value, date.as_deref(), Timestamp(now)).is_none_or(|wait| wait <= LONGEST));
        }

        #[test]
        fn a_gate_never_admits_before_the_time_it_named(limits in proptest::collection::vec((0u64..100, proptest::option::of(0u64..9999), 0u8..3), 1..30)) {
            let mut gate = Gate::default();
            let (mut now, mut named) = (0, at(0));
            for (step, wait, ask) in limits {
                now += step;
                let ask = [Some(Ask::Manifest), Some(Ask::Blob), None][ask as usize];
                named = named.max(gate.handle_limit(at(now), ask, wait.map(Duration::from_secs)));
                prop_assert_eq!(gate.admit(named, Ask::Manifest), Ok(()));
                if named > at(now) {
                    prop_assert_eq!(gate.admit(at(now), Ask::Manifest), Err(named));
                }
            }
        }

        #[test]
        fn memory_is_bounded_and_the_newest_answer_is_in_it(tags in proptest::collection::vec((0u32..40, 0u64..5, any::<bool>()), 1..80)) {
            let mut answers = Answers::new(TERMS);
            let mut now = 0;
            answers.handle_answer(at(0), "quiet/a", "1", Some(resolved("y")));
            for (tag, step, found) in tags {
                now += step;
                answers.handle_answer(at(now), "a", &tag.to_string(), found.then(|| resolved("x")));
                prop_assert!(answers.known["a"].len() <= TERMS.most);
                let other = answers.decide(at(0), "quiet/a", "1");
                prop_assert_eq!(other, Decision::Fresh(resolved("y")), "another project's");
                let asks = matches!(answers.decide(at(now), "a", &tag.to_string()), Decision::Ask { .. });
                prop_assert!(!asks);
            }
        }
    }
}
