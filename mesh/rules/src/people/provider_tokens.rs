//! When an OIDC provider is asked again about somebody, who asks it, and for how long what it said
//! counts while it is away. [`ledger::provider_tokens`](crate::ledger::provider_tokens) has the
//! records.

use std::collections::HashMap;
use std::time::Duration;

use crate::ledger::provider_tokens::ProviderToken;
use crate::words::moment::{Moment, Timestamp};
use crate::words::names::UserId;

/// How long a node has from its claim on until it sends the token. A claim that took longer to be
/// recorded is given back.
pub const BEGUN_WITHIN: Duration = Duration::from_secs(6);
/// How long the questions may take after that, all of them.
pub const ASKED_WITHIN: Duration = Duration::from_secs(12);
/// How long it may take to record the answer.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// After this time, as a node has seen it by its own clock, it takes the node that asks for dead. It
/// is longer than the others together, so that no two send one token, and no answer is lost.
pub const TAKEN_FOR_DEAD: Duration = Duration::from_secs(30);
/// How long a provider that has failed is left alone.
pub const PAUSE: Duration = Duration::from_secs(15);
/// The maximum number of claims that are watched.
const WATCHED: usize = 4096;

/// How often the provider is asked, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalTerms {
    /// For how long what it said is not asked for again.
    pub fresh: u64,
    /// For how long it counts while the provider does not answer.
    pub lasts: u64,
}

/// What is to be done before something counts that a user of the provider has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It counts.
    Counts,
    /// The provider is asked first, under a claim of this node.
    Ask,
    /// Another request asks. Its answer is waited for.
    Wait,
    /// The provider has refused them. They have to sign in there.
    Refuse,
}

/// See [`Step`]. `said` is how often the provider had vouched when the request began; `watched` is for
/// how long this node has seen the claim that there is.
pub fn step(
    token: &ProviderToken,
    said: u64,
    watched: Duration,
    now: Timestamp,
    terms: &RenewalTerms,
) -> Step {
    if token.ended {
        return Step::Refuse;
    }
    // what was said while the request waited is new enough, however short `fresh` is
    if token.said != said || now.0.saturating_sub(token.since.0) < terms.fresh {
        return Step::Counts;
    }
    match token.claimed {
        Some(_) if watched < TAKEN_FOR_DEAD => Step::Wait,
        _ => Step::Ask,
    }
}

/// Whether what the provider said last counts while it does not answer.
pub fn counts_without(token: &ProviderToken, now: Timestamp, terms: &RenewalTerms) -> bool {
    !token.ended && now.0.saturating_sub(token.since.0) < terms.lasts
}

/// What a node has seen of the provider, and of those that ask it.
#[derive(Debug, Default)]
pub struct Watch {
    claims: HashMap<UserId, (u64, Moment)>,
    paused: Option<Moment>,
}

impl Watch {
    /// For how long this node has seen the claim of a user's token. Clocks of nodes may differ, so the
    /// time in the claim decides nothing.
    pub fn look(&mut self, user: UserId, token: &ProviderToken, now: Moment) -> Duration {
        if token.claimed.is_none() {
            self.claims.remove(&user);
            return Duration::ZERO;
        }
        if self.claims.len() >= WATCHED && !self.claims.contains_key(&user) {
            self.claims.clear();
        }
        let seen = self.claims.entry(user).or_insert((token.number, now));
        if seen.0 != token.number {
            *seen = (token.number, now);
        }
        now.since(seen.1)
    }

    /// The provider did not answer as it should.
    pub fn handle_failure(&mut self, now: Moment) {
        self.paused = Some(now + PAUSE);
    }

    /// It has answered.
    pub fn handle_answer(&mut self) {
        self.paused = None;
    }

    /// Whether it is left alone now.
    pub fn is_paused(&self, now: Moment) -> bool {
        self.paused.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: RenewalTerms = RenewalTerms { fresh: 300_000, lasts: 3_600_000 };

    fn token(number: u64, claimed: bool) -> ProviderToken {
        ProviderToken {
            number,
            sealed: "sealed".into(),
            said: 7,
            since: Timestamp(1_000_000),
            claimed: claimed.then_some(Timestamp(1_000_001)),
            ended: false,
        }
    }

    fn after(age: u64) -> Timestamp {
        Timestamp(1_000_000 + age)
    }

    #[test]
    fn the_provider_is_asked_when_what_it_said_is_old_and_by_one_node() {
        let of = |token: &ProviderToken, said, watched, age| {
            step(token, said, Duration::from_secs(watched), after(age), &TERMS)
        };
        let (free, claimed) = (token(1, false), token(2, true));
        assert_eq!(of(&free, 7, 0, 0), Step::Counts);
        assert_eq!(of(&free, 7, 0, TERMS.fresh - 1), Step::Counts);
        assert_eq!(of(&free, 7, 0, TERMS.fresh), Step::Ask);
        assert_eq!(of(&claimed, 7, 0, TERMS.fresh - 1), Step::Counts);
        assert_eq!(of(&claimed, 7, 0, TERMS.fresh), Step::Wait);
        assert_eq!(of(&claimed, 7, 29, TERMS.fresh), Step::Wait);
        assert_eq!(of(&claimed, 7, 30, TERMS.fresh), Step::Ask, "its node is dead");
        assert_eq!(of(&free, 6, 0, TERMS.fresh), Step::Counts, "said while the request waited");
        let ended = ProviderToken { ended: true, ..token(3, false) };
        assert_eq!(of(&ended, 6, 0, 0), Step::Refuse);
        let each = RenewalTerms { fresh: 0, ..TERMS };
        assert_eq!(step(&free, 7, Duration::ZERO, after(0), &each), Step::Ask, "each time");
        assert_eq!(step(&free, 7, Duration::ZERO, Timestamp(5), &TERMS), Step::Counts, "clocks");
    }

    #[test]
    fn no_two_nodes_send_one_token() {
        assert!(BEGUN_WITHIN + ASKED_WITHIN + SETTLED_WITHIN < TAKEN_FOR_DEAD);
    }

    #[test]
    fn while_it_is_away_what_it_said_counts_for_a_time() {
        let free = token(1, false);
        assert!(counts_without(&free, after(TERMS.lasts - 1), &TERMS));
        assert!(!counts_without(&free, after(TERMS.lasts), &TERMS));
        let ended = ProviderToken { ended: true, ..free };
        assert!(!counts_without(&ended, after(0), &TERMS));
    }

    #[test]
    fn a_claim_is_watched_from_when_it_was_first_seen() {
        let mut watch = Watch::default();
        let (ann, bob, start) = (UserId(1), UserId(2), Moment::from_micros(0));
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.look(ann, &token(2, true), start), Duration::ZERO);
        assert_eq!(watch.look(ann, &token(2, true), later(9)), Duration::from_secs(9));
        assert_eq!(watch.look(bob, &token(2, true), later(9)), Duration::ZERO);
        assert_eq!(watch.look(ann, &token(3, true), later(9)), Duration::ZERO, "another claim");
        assert_eq!(watch.look(ann, &token(4, false), later(10)), Duration::ZERO);
        assert_eq!(watch.look(ann, &token(5, true), later(20)), Duration::ZERO);
        for n in 0..3 * WATCHED as u64 {
            watch.look(UserId(n), &token(2, true), later(21));
        }
        assert!(watch.claims.len() <= WATCHED);
        assert!(!watch.is_paused(start));
        watch.handle_failure(start);
        assert!(watch.is_paused(later(14)) && !watch.is_paused(later(15)));
        watch.handle_answer();
        assert!(!watch.is_paused(start));
    }
}
