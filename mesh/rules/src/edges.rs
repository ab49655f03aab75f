//! What an edge may answer from what it has kept of the ledger's records, without asking a replica.
//!
//! An edge holds no lease. It asks the nearest replica what a tag names each time it is asked;
//! access and everything else may be as old as `access_age`. Cut off from every replica it goes on
//! with what it has kept, for as long as `alone_for`, and says how old that is.

use std::time::Duration;

use crate::wire::Query;

/// How long what was kept may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeTerms {
    /// Access, projects, manifests by digest: as if they were fresh.
    pub access_age: Duration,
    /// Anything, while no replica can be reached.
    pub alone_for: Duration,
}

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What is remembered is as good as fresh.
    Remembered,
    /// A replica has to be asked.
    Ask,
    /// What was kept, saying that it is this old: no replica can be asked.
    Aged(Duration),
    /// Nothing was kept, or it is too old: the edge cannot answer.
    CutOff,
}

/// Tables whose records change under their names and are what a pull is about: tags, lists of tags,
/// of repositories and of referrers.
fn always_asked(query: &Query) -> bool {
    match query {
        Query::Key(key) => key.first() == Some(&b't'),
        Query::Scan { prefix, .. } => matches!(prefix.first(), Some(b't' | b'r' | b'y')),
    }
}

/// An answer that an edge has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// How long ago it was right.
    pub age: Duration,
    /// Whether there was anything. That there was nothing is asked again each time: what was just
    /// pushed must be found.
    pub something: bool,
}

/// What to do with `query`, of which `kept` was kept, if anything; `alone`: no replica can be
/// reached now.
pub fn usable(query: &Query, kept: Option<Remembered>, alone: bool, terms: &EdgeTerms) -> Use {
    match (kept, alone) {
        (Some(kept), _)
            if kept.something && kept.age <= terms.access_age && !always_asked(query) =>
        {
            Use::Remembered
        }
        (_, false) => Use::Ask,
        (Some(Remembered { age, .. }), true) if age <= terms.alone_for => Use::Aged(age),
        (_, true) => Use::CutOff,
    }
}

/// Whether an edge may read records of the table that `query` is about. Users, invitations and the
/// mesh's own record hold secrets.
pub fn may_look(query: &Query) -> bool {
    let table = match query {
        Query::Key(key) => key.first(),
        Query::Scan { prefix, .. } => prefix.first(),
    };
    matches!(table, Some(b'p' | b'y' | b't' | b'm' | b'l' | b'b' | b'r' | b's' | b'n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::key;
    use proptest::prelude::*;

    const TERMS: EdgeTerms =
        EdgeTerms { access_age: Duration::from_secs(30), alone_for: Duration::from_secs(3600) };

    fn tag() -> Query {
        Query::Key(key::tag(&"demo/a".parse().unwrap(), &"v1".parse().unwrap()))
    }

    fn project() -> Query {
        Query::Key(key::project(&"demo".parse().unwrap()))
    }

    fn aged(seconds: u64) -> Option<Remembered> {
        Some(Remembered { age: Duration::from_secs(seconds), something: true })
    }

    #[test]
    fn a_tag_is_asked_each_time_and_access_only_now_and_then() {
        let second = aged(1);
        assert_eq!(usable(&tag(), second, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), second, false, &TERMS), Use::Remembered);
        assert_eq!(usable(&project(), aged(31), false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), None, false, &TERMS), Use::Ask);
        let nothing = Some(Remembered { age: Duration::ZERO, something: false });
        assert_eq!(usable(&project(), nothing, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), nothing, true, &TERMS), Use::Aged(Duration::ZERO));
    }

    #[test]
    fn alone_it_says_how_old_things_are_and_stops_after_a_while() {
        let age = Duration::from_secs(100);
        assert_eq!(usable(&tag(), aged(100), true, &TERMS), Use::Aged(age));
        assert_eq!(usable(&tag(), aged(3601), true, &TERMS), Use::CutOff);
        assert_eq!(usable(&tag(), None, true, &TERMS), Use::CutOff);
    }

    #[test]
    fn secrets_are_not_shown() {
        for key in [
            key::mesh(),
            key::user("admin"),
            key::invitation(&crate::words::digest::Digest::sha256(b"x")),
            Vec::new(),
        ] {
            assert!(!may_look(&Query::Key(key.clone())));
            assert!(!may_look(&Query::Scan { prefix: key, after: None, limit: 1 }));
        }
        assert!(may_look(&tag()) && may_look(&project()));
    }

    proptest! {
        #[test]
        fn nothing_older_than_allowed_is_ever_used(age in 0u64..10_000, alone in any::<bool>(), tagged in any::<bool>()) {
            let query = if tagged { tag() } else { project() };
            let kept = aged(age);
            let age = Duration::from_secs(age);
            match usable(&query, kept, alone, &TERMS) {
                Use::Remembered => prop_assert!(age <= TERMS.access_age && !tagged),
                Use::Aged(told) => prop_assert!(alone && told == age && age <= TERMS.alone_for),
                Use::Ask => prop_assert!(!alone),
                Use::CutOff => prop_assert!(alone && age > TERMS.alone_for),
            }
        }
    }
}
