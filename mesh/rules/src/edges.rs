//! What an edge may answer from the ledger records that it has kept, without asking a replica.
//!
//! An edge holds no lease. For each pull it asks the nearest replica what the tag names. Access and
//! all other records may be up to `access_age` old. When no replica can be reached, it uses what it
//! has kept for up to `alone_for`, and says how old that is. What it knows about people counts for
//! `access_age` then, too: whoever was locked out of the mesh is locked out here after that time. What
//! decides about vulnerable or unsigned images it reads again when a replica says that it has changed
//! ([`told`](crate::ledger::told)). What has changed and could not be read again
//! lets nothing pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::cached::Owner;
use crate::ledger::records::{EDGES, Look, Project, RecordError, key};
use crate::ledger::{scanners, scanning, sign_log};
use crate::proxies::proxy::patterns;
use crate::wire::{Changed, Changes, Found, Query};
use crate::words::names::ProjectName;

/// How long an edge may use what it has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeTerms {
    /// For access, projects and manifests by digest, as if they were fresh. While no replica can be
    /// reached, for what is known about people.
    pub access_age: Duration,
    /// For all other records, while no replica can be reached.
    pub alone_for: Duration,
}

impl EdgeTerms {
    /// Whether something about people may be used while no replica can be reached, although `kept`
    /// is all that is known of it.
    pub fn believes(&self, kept: &Known) -> bool {
        kept.age().is_some_and(|age| age <= self.access_age.min(self.alone_for))
    }
}

/// How sure something is that was kept and of whose changes replicas tell: what is about people, and
/// what decides about vulnerable or unsigned images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// How long ago it was asked for; `None` if nobody knows.
    pub asked: Option<Duration>,
    /// How long ago a replica said how often such records had been changed; `None` if none has.
    pub heard: Option<Duration>,
    /// Whether it may have changed since it was asked for.
    pub superseded: bool,
}

impl Known {
    /// For how long it may have been wrong: since it was asked for, or since a replica said later
    /// that nothing had changed. `None` if nobody knows: whether that was later is not known, either.
    pub fn age(&self) -> Option<Duration> {
        let asked = self.asked?;
        match self.heard {
            Some(heard) if !self.superseded => Some(asked.min(heard)),
            _ => Some(asked),
        }
    }
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
    /// The same, but a replica has said before that it has changed since it was kept. It still counts
    /// against an image, and for none.
    Superseded(Duration),
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
    /// How long ago the answer was right; `None` if nobody knows, because the clock was set back since.
    pub age: Option<Duration>,
    /// Whether the answer was a record. If there was none, a replica is asked each time, so that
    /// what was just pushed is found.
    pub something: bool,
    /// Whether a replica has said since that records of this kind have changed: those of people, or
    /// what decides about vulnerable images.
    pub superseded: bool,
    /// How sure the answer is, if it is about people.
    pub of_people: Option<Known>,
    /// How sure it is, if it decides about vulnerable or unsigned images.
    pub of_verdicts: Option<Known>,
}

/// How to answer `query`. `kept` is the kept answer, if there is one; `alone` means that no replica
/// can be reached now.
pub fn usable(query: &Query, kept: Option<Remembered>, alone: bool, terms: &EdgeTerms) -> Use {
    match (kept, alone) {
        (Some(kept), _)
            if kept.something
                && !kept.superseded
                && kept.age.is_some_and(|age| age <= terms.access_age)
                && !always_asked(query) =>
        {
            Use::Remembered
        }
        (_, false) => Use::Ask,
        (Some(Remembered { of_people: Some(known), .. }), true) if terms.believes(&known) => {
            Use::Aged(known.age().unwrap_or_default())
        }
        (Some(Remembered { age, superseded, of_people: None, of_verdicts, .. }), true) => {
            let known = of_verdicts.map_or(age, |known| known.age());
            match known.unwrap_or_default() {
                age if age > terms.alone_for => Use::CutOff,
                age if superseded => Use::Superseded(age),
                age => Use::Aged(age),
            }
        }
        (_, true) => Use::CutOff,
    }
}

/// Whether an edge may read records of the table that `query` is about. The mesh's own record,
/// invitations and users of before accounts hold secrets. Accounts, robots and members are told one
/// by one, to whom knows their number, and without secrets.
pub fn may_look(query: &Query) -> bool {
    match query {
        Query::Key(key) if sign_log::key::is_sealed(key) || scanners::key::is_for_replicas(key) => {
            false
        }
        Query::Key(key) => matches!(key.first(), Some(b'A' | b'M' | b'R' | b'$')) || is_open(key),
        // a blob is told to whom knows its digest
        // one project's groups, and the groups of one user
        Query::Scan { prefix, .. } if matches!(prefix.first(), Some(b'B' | b'H')) => {
            prefix.len() == 9
        }
        Query::Scan { prefix, .. } if scanning::key::followed().contains(prefix) => true,
        Query::Scan { prefix, .. } => is_open(prefix) && prefix.first() != Some(&b'b'),
    }
}

/// Whether the edge with this name may serve the project.
pub fn may_serve(project: &Project, edge: &str) -> bool {
    let Some(list) = project.metadata.get(EDGES) else { return true };
    patterns(list).unwrap_or_default().iter().any(|pattern| fast_glob::glob_match(pattern, edge))
}

/// Leaves out of an answer to the edge with this name what projects have that it may not serve. The
/// projects themselves stay: the edge has to tell its clients why.
pub fn withhold<R: Look + ?Sized>(
    records: &R,
    edge: &str,
    query: &Query,
    found: &mut Found,
) -> Result<(), RecordError> {
    let mut decided: BTreeMap<ProjectName, bool> = BTreeMap::new();
    let mut may_see = |place: &[u8]| {
        let Owner::Project(name) = Owner::of(place) else { return Ok(true) };
        if let Some(decided) = decided.get(&name) {
            return Ok(*decided);
        }
        let may = records.project(&name)?.is_none_or(|project| may_serve(&project, edge));
        decided.insert(name, may);
        Ok::<_, RecordError>(may)
    };
    match (query, found) {
        (Query::Key(place), Found::Value(value)) if value.is_some() && !may_see(place)? => {
            *value = None;
        }
        (_, Found::Pairs(pairs)) => {
            let mut seen = Vec::with_capacity(pairs.len());
            for pair in pairs.drain(..) {
                if may_see(&pair.0)? {
                    seen.push(pair);
                }
            }
            *pairs = seen;
        }
        _ => {}
    }
    Ok(())
}

/// What the edge with this name is told of changes: of what decides about pulls, and of what is gone.
pub fn told<R: Look + ?Sized>(
    records: &R,
    edge: &str,
    verdicts: (u64, Option<BTreeSet<Vec<u8>>>),
    gone: (u64, Option<BTreeSet<Vec<u8>>>),
) -> Result<Changes, RecordError> {
    let mut withheld = BTreeSet::new();
    let mut told = |(number, changed): (u64, Option<BTreeSet<Vec<u8>>>)| {
        let Some(changed) = changed else { return Ok(Changed { number, keys: None }) };
        let mut keys = Vec::with_capacity(changed.len());
        for place in changed {
            if let Owner::Project(name) = Owner::of(&place)
                && records.project(&name)?.is_some_and(|project| !may_serve(&project, edge))
            {
                withheld.insert(name);
            } else if may_look(&Query::Key(place.clone())) {
                keys.push(place.into());
            }
        }
        Ok::<_, RecordError>(Changed { number, keys: Some(keys) })
    };
    let (verdicts, gone) = (told(verdicts)?, told(gone)?);
    Ok(Changes { verdicts, gone, withheld })
}

/// What is so as long as no replica has ever answered `query`; `None` if that must be asked. Replicas
/// of builds without these tables refuse them, and edges are upgraded before replicas: there are no
/// keys then, and nothing of people has changed. The edge asks for them by itself all the time. The
/// mesh's feature level no edge is told: it takes it for the first.
pub fn until_told(query: &Query) -> Option<Found> {
    let is_newer = |place: &[u8]| {
        let tables = [
            key::token_keys(),
            key::people_version(),
            key::pins(),
            key::authorities(),
            key::groups_used(),
        ];
        tables.iter().chain(&scanning::key::followed()).any(|table| place.starts_with(table))
    };
    match query {
        Query::Key(place) if *place == key::level() => Some(Found::Value(None)),
        Query::Key(place) => is_newer(place).then_some(Found::Value(None)),
        Query::Scan { prefix, .. } => is_newer(prefix).then(|| Found::Pairs(Vec::new())),
    }
}

fn is_open(key: &[u8]) -> bool {
    let open = b"pytmlbrsnKVPCF#";
    key.first().is_some_and(|table| open.contains(table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::provider_tokens;
    use crate::ledger::records::{MemoryRecords, WriteRecords, encode};
    use crate::proxies::proxy::ProxyRules;
    use crate::words::moment::Timestamp;
    use crate::words::names::{Epoch, NodeId, ProjectId, RobotId, UserId};
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
        let age = Some(Duration::from_secs(seconds));
        let (of_people, of_verdicts) = (None, None);
        Some(Remembered { age, something: true, superseded: false, of_people, of_verdicts })
    }

    /// Asked for and heard of so many seconds ago.
    fn known(asked: u64, heard: Option<u64>, superseded: bool) -> Known {
        let heard = heard.map(Duration::from_secs);
        Known { asked: Some(Duration::from_secs(asked)), heard, superseded }
    }

    #[test]
    fn a_tag_is_asked_each_time_and_access_only_now_and_then() {
        let second = aged(1);
        assert_eq!(usable(&tag(), second, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), second, false, &TERMS), Use::Remembered);
        assert_eq!(usable(&project(), aged(31), false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), None, false, &TERMS), Use::Ask);
        let nothing = aged(0).map(|kept| Remembered { something: false, ..kept });
        assert_eq!(usable(&project(), nothing, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), nothing, true, &TERMS), Use::Aged(Duration::ZERO));
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_dated_is_asked_for_and_nobody_is_believed_by_it() {
        let unknown = aged(0).map(|kept| Remembered { age: None, ..kept });
        assert_eq!(usable(&project(), unknown, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), unknown, true, &TERMS), Use::Aged(Duration::ZERO));
        let of_people = Known { asked: None, heard: None, superseded: false };
        let person = unknown.map(|kept| Remembered { of_people: Some(of_people), ..kept });
        assert_eq!(usable(&project(), person, false, &TERMS), Use::Ask);
        assert_eq!(usable(&project(), person, true, &TERMS), Use::CutOff);
        let since = Known { heard: Some(Duration::from_secs(5)), ..of_people };
        let person = unknown.map(|kept| Remembered { of_people: Some(since), ..kept });
        assert_eq!(usable(&project(), person, true, &TERMS), Use::CutOff);
    }

    #[test]
    fn a_project_chooses_which_edges_may_serve_it_and_others_are_told_nothing_of_what_it_has() {
        let mut records = MemoryRecords::default();
        let mut put = |name: &str, edges: Option<&str>| {
            let metadata = edges.map(|edges| (EDGES.to_owned(), edges.to_owned()));
            let project = Project {
                id: ProjectId(1),
                name: name.parse().unwrap(),
                public: false,
                durability: 1,
                home: NodeId(1),
                primary: NodeId(1),
                epoch: Epoch::FIRST,
                created: Timestamp(0),
                upstream: None,
                proxy: ProxyRules::default(),
                metadata: metadata.into_iter().collect(),
            };
            records.put(&key::project(&project.name), &encode(&project).unwrap()).unwrap();
            project
        };
        let open = put("open", None);
        let shops = put("shops", Some("shop-*, lab"));
        let none = put("none", Some(""));
        for (edge, may) in [("shop-7", true), ("lab", true), ("lab-2", false), ("office", false)] {
            assert_eq!(may_serve(&shops, edge), may, "{edge}");
            assert!(may_serve(&open, edge) && !may_serve(&none, edge));
        }
        let place = |name: &str| key::repository(&name.parse().unwrap());
        let all = ["none/a", "open/a", "shops/a"].map(place);
        let answered = |edge: &str, query: &Query, found: Found| {
            let mut found = found;
            withhold(&records, edge, query, &mut found).unwrap();
            found
        };
        let pairs = |places: &[&Vec<u8>]| {
            let pair = |place: &&Vec<u8>| ((*place).clone().into(), vec![1].into());
            Found::Pairs(places.iter().map(pair).collect())
        };
        let scan = Query::scan(&key::repositories(), None, 9);
        let whole = pairs(&[&all[0], &all[1], &all[2]]);
        assert_eq!(answered("office", &scan, whole.clone()), pairs(&[&all[1]]));
        assert_eq!(answered("shop-7", &scan, whole), pairs(&[&all[1], &all[2]]));
        let value = || Found::Value(Some(vec![1].into()));
        let one = |place: &Vec<u8>| Query::Key(place.clone());
        assert_eq!(answered("office", &one(&all[2]), value()), Found::Value(None));
        assert_eq!(answered("lab", &one(&all[2]), value()), value());
        assert_eq!(answered("office", &one(&key::project(&shops.name)), value()), value());
        let blobs = Query::scan(b"b", None, 9);
        assert!(!may_look(&blobs), "a list of all blobs would tell their digests");
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
            let of_people = Some(known(1, Some(0), superseded));
            aged(1).map(|kept| Remembered { superseded, of_people, ..kept })
        };
        assert_eq!(usable(&account, kept(false), false, &TERMS), Use::Remembered);
        assert_eq!(usable(&account, kept(true), false, &TERMS), Use::Ask);
        let alone = usable(&account, kept(true), true, &TERMS);
        assert_eq!(alone, Use::Aged(Duration::from_secs(1)));
    }

    #[test]
    fn alone_it_believes_what_it_knows_of_people_for_no_longer_than_access_may_be_old() {
        let account = Query::Key(key::account(UserId(7)));
        let kept = |known: Known| {
            let (age, superseded) = (known.asked, known.superseded);
            let of_people = Some(known);
            Some(Remembered { age, something: true, superseded, of_people, of_verdicts: None })
        };
        // asked for long ago; but a replica said a moment ago that nothing had changed
        let sure = known(3000, Some(30), false);
        let lately = Use::Aged(Duration::from_secs(30));
        assert_eq!(usable(&account, kept(sure), true, &TERMS), lately);
        for doubtful in
            [known(3000, Some(31), false), known(3000, Some(1), true), known(31, None, false)]
        {
            assert_eq!(usable(&account, kept(doubtful), true, &TERMS), Use::CutOff);
            assert_eq!(usable(&account, kept(doubtful), false, &TERMS), Use::Ask);
        }
        assert_eq!(
            usable(&project(), aged(3000), true, &TERMS),
            Use::Aged(Duration::from_secs(3000))
        );
        let never = EdgeTerms { alone_for: Duration::ZERO, ..TERMS };
        assert!(!never.believes(&known(1, None, false)), "it may not be alone at all");
    }

    #[test]
    fn a_verdict_of_before_a_change_is_asked_for_again_and_alone_it_counts_against_an_image_only() {
        let image = "demo/a".parse().unwrap();
        let digest = crate::words::digest::Digest::sha256(b"x");
        let scan = Query::Key(scanning::key::scan(&image, &digest));
        let kept = |asked, heard, superseded| {
            let of_verdicts = Some(known(asked, heard, superseded));
            aged(asked).map(|kept| Remembered { superseded, of_verdicts, ..kept })
        };
        let now = |kept| usable(&scan, kept, false, &TERMS);
        assert_eq!(now(kept(5, Some(1), false)), Use::Remembered);
        assert_eq!(now(kept(5, Some(1), true)), Use::Ask);
        let alone = |kept| usable(&scan, kept, true, &TERMS);
        let seconds = Duration::from_secs;
        assert_eq!(alone(kept(5, Some(1), true)), Use::Superseded(seconds(5)));
        // it was asked for long ago; but a replica said a moment ago that it had not changed
        assert_eq!(alone(kept(5000, Some(1), false)), Use::Aged(seconds(1)));
        assert_eq!(alone(kept(50, None, false)), Use::Aged(seconds(50)));
        assert_eq!(alone(kept(5, None, false)), Use::Remembered);
        assert_eq!(alone(kept(5000, Some(3601), false)), Use::CutOff);
        assert_eq!(alone(kept(5000, Some(1), true)), Use::CutOff, "nobody confirmed that");
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
        for one in [key::belonging(user), key::group_members(project)] {
            assert!(may_look(&Query::scan(&one, None, 9)));
            assert!(!may_look(&Query::scan(&one[..1], None, 9)), "nobody lists them");
        }
        assert!(may_look(&Query::scan(&key::groups_used(), None, 1)));
        for place in [key::user_name(&"ann".parse().unwrap()), key::robot_name("ci")] {
            assert!(!may_look(&Query::Key(place)));
        }
    }

    #[test]
    fn a_replica_of_a_build_without_accounts_is_not_asked_for_them() {
        let [database, verdicts] = scanning::key::followed();
        for table in [key::token_keys(), key::groups_used(), database, verdicts] {
            let scan = Query::scan(&table, None, 9);
            assert!(may_look(&scan));
            assert_eq!(until_told(&scan), Some(Found::Pairs(vec![])));
        }
        for place in [key::people_version(), key::token_key(7)] {
            assert_eq!(until_told(&Query::Key(place)), Some(Found::Value(None)));
        }
        for asked in [tag(), project(), Query::Key(key::account(UserId(7)))] {
            assert_eq!(until_told(&asked), None);
        }
        let level = Query::Key(key::level());
        assert_eq!((until_told(&level), may_look(&level)), (Some(Found::Value(None)), false));
    }

    #[test]
    fn secrets_are_not_shown() {
        for key in [
            key::mesh(),
            key::user("admin"),
            key::configurations(),
            key::cli_secret(UserId(7)),
            provider_tokens::key::token(UserId(7)),
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
                Use::Superseded(_) => prop_assert!(false, "it was kept as no verdict"),
            }
        }
    }
}
