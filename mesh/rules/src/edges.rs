//! What an edge may answer from the ledger records that it has kept, without asking a replica.
//!
//! An edge holds no lease. For each pull it asks the nearest replica what the tag names. Access and
//! all other records may be up to `access_age` old. When no replica can be reached, it uses what it
//! has kept for up to `alone_for`, and says how old that is.

use std::time::Duration;

use crate::ledger::records::key;
use crate::wire::{Found, Query};

/// How long an edge may use what it has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeTerms {
    /// For access, projects and manifests by digest, as if they were fresh.
    pub access_age: Duration,
    /// For all records, while no replica can be reached.
    pub alone_for: Duration,
}

/// How to answer a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// With what was kept, as if it were fresh.
    Remembered,
    /// With what a replica answers.
    Ask,
    /// With what was kept, and its age, because no replica can be reached.
    Aged(Duration),
    /// Not at all: nothing was kept, or it is too old.
    CutOff,
}

/// Whether a replica is asked each time: for tags, and for lists of tags, repositories and
/// referrers. These change, and a pull depends on them.
fn always_asked(query: &Query) -> bool {
    match query {
        Query::Key(key) => key.first() == Some(&b't'),
        Query::Scan { prefix, .. } => matches!(prefix.first(), Some(b't' | b'r' | b'y')),
    }
}

/// An answer that an edge has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// How long ago the answer was right.
    pub age: Duration,
    /// Whether the answer was a record. If there was none, a replica is asked each time, so that
    /// what was just pushed is found.
    pub something: bool,
    /// Whether the answer is about people, and people's records have changed since.
    pub superseded: bool,
}

/// How to answer `query`. `kept` is the kept answer, if there is one; `alone` means that no replica
/// can be reached now.
pub fn usable(query: &Query, kept: Option<Remembered>, alone: bool, terms: &EdgeTerms) -> Use {
    match (kept, alone) {
        (Some(kept), _)
            if kept.something
                && !kept.superseded
                && kept.age <= terms.access_age
                && !always_asked(query) =>
        {
            Use::Remembered
        }
        (_, false) => Use::Ask,
        (Some(Remembered { age, .. }), true) if age <= terms.alone_for => Use::Aged(age),
        (_, true) => Use::CutOff,
    }
}

/// Whether an edge may read records of the table that `query` is about. The mesh's own record,
/// invitations and users of before accounts hold secrets. Accounts, robots and members are told one
/// by one, to whom knows their number, and without secrets.
pub fn may_look(query: &Query) -> bool {
    match query {
        Query::Key(key) => matches!(key.first(), Some(b'A' | b'M' | b'R')) || is_open(key),
        Query::Scan { prefix, .. } => is_open(prefix),
    }
}

/// What is so as long as no replica has ever answered `query`; `None` if that must be asked. Replicas
/// of builds without these tables refuse them, and edges are upgraded before replicas: there are no
/// keys then, and nothing of people has changed. The edge asks for them by itself all the time.
pub fn until_told(query: &Query) -> Option<Found> {
    let of_people = |place: &[u8]| {
        let tables = [key::token_keys(), key::people_version(), key::pins(), key::authorities()];
        tables.iter().any(|t| place.starts_with(t))
    };
    match query {
        Query::Key(place) => of_people(place).then_some(Found::Value(None)),
        Query::Scan { prefix, .. } => of_people(prefix).then(|| Found::Pairs(Vec::new())),
    }
}

fn is_open(key: &[u8]) -> bool {
    let open = [b'p', b'y', b't', b'm', b'l', b'b', b'r', b's', b'n', b'K', b'V', b'P', b'C'];
    key.first().is_some_and(|table| open.contains(table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::names::{ProjectId, RobotId, UserId};
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
        Some(Remembered { age: Duration::from_secs(seconds), something: true, superseded: false })
    }

    #[test]
    fn a_tag_is_asked_each_time_and_access_only_now_and_then() {
        let second = aged(1);
        assert_eq!(usable(&tag(), second, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), second, false, &TERMS), Use::Remembered);
        assert_eq!(usable(&project(), aged(31), false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), None, false, &TERMS), Use::Ask);
        let nothing = Some(Remembered { age: Duration::ZERO, something: false, superseded: false });
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
    fn what_was_kept_of_people_before_a_change_is_asked_for_again_while_somebody_answers() {
        let account = Query::Key(key::account(UserId(7)));
        let kept = |superseded| {
            Some(Remembered { age: Duration::from_secs(1), something: true, superseded })
        };
        assert_eq!(usable(&account, kept(false), false, &TERMS), Use::Remembered);
        assert_eq!(usable(&account, kept(true), false, &TERMS), Use::Ask);
        let alone = usable(&account, kept(true), true, &TERMS);
        assert_eq!(alone, Use::Aged(Duration::from_secs(1)));
    }

    #[test]
    fn people_are_told_one_by_one() {
        let (user, project) = (UserId(7), ProjectId(3));
        let one = [key::account(user), key::robot(RobotId(7)), key::member(project, user)];
        for place in one {
            assert!(may_look(&Query::Key(place.clone())));
            assert!(!may_look(&Query::scan(&place[..1], None, 1)), "nobody lists them");
        }
        assert!(may_look(&Query::scan(&key::token_keys(), None, 9)));
        for place in [key::user_name(&"ann".parse().unwrap()), key::robot_name("ci")] {
            assert!(!may_look(&Query::Key(place)));
        }
    }

    #[test]
    fn a_replica_of_a_build_without_accounts_is_not_asked_for_them() {
        let keys = Query::scan(&key::token_keys(), None, 9);
        assert_eq!(until_told(&keys), Some(Found::Pairs(vec![])));
        for place in [key::people_version(), key::token_key(7)] {
            assert_eq!(until_told(&Query::Key(place)), Some(Found::Value(None)));
        }
        for asked in [tag(), project(), Query::Key(key::account(UserId(7)))] {
            assert_eq!(until_told(&asked), None);
        }
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
