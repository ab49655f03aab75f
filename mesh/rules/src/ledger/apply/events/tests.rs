use std::collections::BTreeMap;

use super::*;
use crate::ledger::apply::apply;
use crate::ledger::command::{Envelope, NewProject};
use crate::ledger::people::{RobotTerms, TrustTerms};
use crate::ledger::precondition::{Named, Precondition};
use crate::ledger::records::{MemoryRecords, ReadRecords, Role, User};
use crate::proxies::proxy::ProxyChange;
use crate::words::digest::Digest;
use crate::words::names::{Epoch, OperationId, Revision};
use crate::words::roles::ProjectRole;

struct Ledger {
    records: MemoryRecords,
    revision: u64,
}

fn ann() -> Actor {
    Actor { name: "ann".into(), address: Some([192, 0, 2, 7].into()) }
}

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

impl Ledger {
    /// A mesh at the level of events.
    fn new() -> Self {
        let mut ledger = Ledger { records: MemoryRecords::default(), revision: 0 };
        let user = User { password_hash: "the-secret".into(), administrator: true };
        ledger.run(Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("admin".into(), user),
            nodes: vec![NodeRecord {
                id: NodeId(1),
                name: "one".parse().unwrap(),
                region: "r".parse().unwrap(),
                role: Role::Replica,
                address: ([127, 0, 0, 1], 7946).into(),
                url: "http://127.0.0.1:5000".into(),
            }],
        });
        let raise = Command::RaiseLevel { level: Level::EVENTS, token_secret: vec![1].into() };
        ledger.run(raise.audited(ann()));
        ledger
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.revision += 1;
        let operation = OperationId(u128::from(self.revision) << 64);
        let envelope = Envelope { operation, at: Timestamp(self.revision), command };
        apply(&mut self.records, Revision(self.revision), &envelope).unwrap()
    }

    fn by_ann(&mut self, command: Command) -> Outcome {
        self.run(command.audited(ann()))
    }

    /// The newest first, each in words.
    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        self.records
            .newest_events(|_, event| {
                let Event { by, operation, resource_type, resource, refused, .. } = event;
                let refused = refused.map(|why| format!(" ({why})")).unwrap_or_default();
                told.push(format!("{} {operation} {resource_type} {resource}{refused}", by.name));
                true
            })
            .unwrap();
        told
    }

    fn last(&self) -> String {
        self.told().first().cloned().unwrap_or_default()
    }
}

fn create() -> Command {
    Command::CreateProject(NewProject {
        name: demo(),
        public: true,
        durability: 1,
        home: NodeId(1),
        upstream: None,
        proxy: ProxyChange::default(),
        metadata: Default::default(),
    })
}

fn push(tag: &str) -> Command {
    let digest = Digest::sha256(b"m");
    Command::PutManifest(NewManifest {
        epoch: Epoch::FIRST,
        repository: "demo/app".parse().unwrap(),
        digest,
        media_type: "m".into(),
        bytes: b"m".to_vec(),
        tags: vec![tag.parse().unwrap()],
        blobs: Vec::new(),
        subject: None,
    })
}

#[test]
fn who_changes_the_keys_of_a_trust_rule_is_recorded_from_its_level_on() {
    let mut ledger = Ledger::new();
    let people = |change| Command::People(Box::new(change));
    let terms = RobotTerms {
        description: String::new(),
        expires: None,
        days: -1,
        disabled: false,
        grants: vec![],
    };
    let name = "ci".parse().unwrap();
    let secret_hash = vec![1; 32].into();
    let robot = PeopleChange::CreateRobot { name, project: None, terms, secret_hash };
    assert_eq!(ledger.by_ann(people(robot)), Outcome::Done);
    let robot = ledger.records.robot_named("ci").unwrap().unwrap().id;
    let terms = TrustTerms {
        issuer: "https://issuer".into(),
        audience: "atoll".into(),
        subject: "job:*".into(),
        claims: Default::default(),
    };
    ledger.by_ann(people(PeopleChange::AddTrust { robot, terms, keys: "{}".into() }));
    let id = ledger.records.trusts_of(robot).unwrap()[0].id;
    let set = || people(PeopleChange::SetTrustKeys { robot, id, keys: "{}".into() });
    assert_eq!(ledger.by_ann(set()), Outcome::Done);
    assert_eq!(ledger.last(), "ann create trust https://issuer for ci", "as builds before do");
    let raise = Command::RaiseLevel { level: Level::DISCOVERY, token_secret: vec![].into() };
    ledger.by_ann(raise);
    assert_eq!(ledger.by_ann(set()), Outcome::Done);
    assert_eq!(ledger.last(), "ann update trust keys of a rule for ci");
}

#[test]
fn each_change_says_who_did_what_in_the_order_of_the_log() {
    let mut ledger = Ledger::new();
    let people = |change| Command::People(Box::new(change));
    ledger.by_ann(create());
    ledger.by_ann(create());
    ledger.by_ann(push("1"));
    ledger.by_ann(people(PeopleChange::CreateUser {
        name: "bob".parse().unwrap(),
        email: String::new(),
        real_name: String::new(),
        comment: String::new(),
        password_hash: "the-secret".into(),
        administrator: false,
    }));
    let bob = ledger.records.account_named(&"bob".parse().unwrap()).unwrap().unwrap().id;
    let project = ledger.records.project(&demo()).unwrap().unwrap();
    let role = ProjectRole::Developer;
    ledger.by_ann(people(PeopleChange::AddMember { project: project.id, user: bob, role }));
    let member = ledger.records.members(project.id).unwrap()[0].id;
    ledger.by_ann(people(PeopleChange::RemoveMember { project: project.id, id: member }));
    ledger.by_ann(people(PeopleChange::CreateRobot {
        name: "ci".parse().unwrap(),
        project: Some(project.id),
        terms: RobotTerms {
            description: String::new(),
            expires: None,
            days: -1,
            disabled: false,
            grants: Vec::new(),
        },
        secret_hash: b"the-secret".to_vec().into(),
    }));
    ledger.by_ann(people(PeopleChange::DeleteUser { id: bob }));
    let precondition = Precondition {
        of: Reference::Tag("1".parse().unwrap()),
        is: None,
        is_not: Some(Named::Anything),
    };
    ledger.by_ann(Command::DeleteIf {
        epoch: Epoch::FIRST,
        repository: "demo/app".parse().unwrap(),
        precondition: Box::new(precondition),
    });
    let delete = |tag: &str| Command::DeleteTag {
        epoch: Epoch::FIRST,
        repository: "demo/app".parse().unwrap(),
        tag: tag.parse().unwrap(),
    };
    ledger.by_ann(delete("1"));
    ledger.by_ann(delete("none"));
    ledger.run(Command::AssignPrimary {
        project: demo(),
        node: NodeId(1),
        expect_epoch: Epoch::FIRST,
    });
    // under an epoch that is over: it will be decided anew, and is no event
    ledger.by_ann(delete("2"));
    // what the mesh does by itself, and fails at, is none either
    ledger.run(Command::RemoveNode { id: NodeId(99) });
    let mut told = ledger.told();
    told.reverse();
    assert_eq!(
        told,
        [
            "ann update level 7",
            "ann create project demo",
            "ann create project demo (it exists already)",
            "ann create artifact demo/app:1",
            "ann create user bob",
            "ann create member bob as developer",
            "ann delete member bob",
            "ann create robot demo+ci",
            "ann delete user bob",
            "ann delete tag demo/app:1 (the precondition does not hold)",
            "ann delete tag demo/app:1",
            "ann delete tag demo/app:none (it does not exist)",
            "atoll failover primary demo to one",
        ]
    );
    for (_, value) in ledger.records.scan(&key::events(EventTable::Changes), None, 99).unwrap() {
        let text = String::from_utf8_lossy(&value).into_owned();
        assert!(!text.contains("the-secret"), "{text}");
    }
}

#[test]
fn who_asked_changes_nothing_else() {
    let (mut with, mut without) = (Ledger::new(), Ledger::new());
    for command in [create(), push("1"), create(), push("2")] {
        assert_eq!(with.by_ann(command.clone()), without.run(command));
    }
    let strip = |ledger: &Ledger| {
        let mut records = ledger.records.0.clone();
        records.retain(|key, _| !matches!(key[0], b'X' | b'Q'));
        records
    };
    assert_eq!(strip(&with), strip(&without));
}

#[test]
fn below_the_level_nothing_is_recorded() {
    let mut ledger = Ledger { records: MemoryRecords::default(), revision: 0 };
    ledger.run(create());
    assert!(ledger.told().is_empty() && ledger.records.project(&demo()).unwrap().is_some());
}

#[test]
fn an_operation_that_is_applied_again_leaves_no_second_event() {
    let mut ledger = Ledger::new();
    let envelope =
        Envelope { operation: OperationId(77), at: Timestamp(5), command: create().audited(ann()) };
    for revision in [50, 51] {
        let outcome = apply(&mut ledger.records, Revision(revision), &envelope).unwrap();
        assert_eq!(outcome, Outcome::Done);
    }
    assert_eq!(ledger.told().len(), 2, "{:?}", ledger.told());
}

fn row(at: u64, name: &str) -> Event {
    Event {
        at: Timestamp(at),
        by: Actor { name: name.into(), address: None },
        operation: "login".into(),
        resource_type: "registry".into(),
        resource: String::new(),
        project: None,
        refused: None,
        count: 1,
    }
}

#[test]
fn counted_rows_are_listed_by_time_among_the_changes_and_push_none_of_them_out() {
    let mut ledger = Ledger::new();
    ledger.revision = 100;
    ledger.by_ann(create());
    ledger.run(Command::Events(Box::new(EventsChange::Counted(vec![row(50, "a"), row(200, "b")]))));
    assert_eq!(
        ledger.told(),
        ["b login registry ", "ann create project demo", "a login registry ", "ann update level 7"]
    );
    for _ in 0..2_000 {
        let mut long = row(300, "x");
        long.resource = "y".repeat(5_000);
        let rows = vec![long; MAX_ROWS + 5];
        ledger.run(Command::Events(Box::new(EventsChange::Counted(rows))));
    }
    let counts = ledger.records.event_counts(EventTable::Counted).unwrap();
    assert!(counts.bytes <= MOST_BYTES[1] && counts.next == 2 + 2_000 * MAX_ROWS as u64);
    let held = ledger.records.scan(&key::events(EventTable::Counted), None, usize::MAX).unwrap();
    assert_eq!(held.len() as u64, counts.next - counts.first);
    assert_eq!(held.iter().map(|(_, v)| v.len() as u64).sum::<u64>(), counts.bytes);
    assert_eq!(ledger.records.event_counts(EventTable::Changes).unwrap().next, 2);
}

#[test]
fn old_events_are_forgotten_by_age_and_number_a_part_at_a_time() {
    let mut ledger = Ledger::new();
    for tag in 0..700 {
        ledger.run(push(&tag.to_string()));
    }
    ledger.run(create());
    for tag in 0..700 {
        ledger.by_ann(push(&tag.to_string()));
    }
    let trim = |before, keep| {
        Command::Events(Box::new(EventsChange::Trim { before: Timestamp(before), keep }))
    };
    assert_eq!(ledger.run(trim(0, 10)), Outcome::Unfinished);
    assert_eq!(ledger.run(trim(0, 10)), Outcome::Done);
    assert_eq!(ledger.told().len(), 10);
    assert_eq!(ledger.last(), "ann create artifact demo/app:699");
    let now = ledger.revision;
    assert_eq!(ledger.run(trim(now - 6, 10)), Outcome::Done);
    let left = ledger.told().len();
    assert!((1..10).contains(&left), "{left}");
    assert_eq!(ledger.run(trim(now + 50, 10)), Outcome::Done);
    assert!(ledger.told().is_empty());
    assert_eq!(ledger.records.event_counts(EventTable::Changes).unwrap().bytes, 0);
}

#[test]
fn an_event_names_the_artifacts_that_were_not_retained_as_far_as_they_fit() {
    let digests: Vec<Digest> = (0..50u8).map(|n| Digest::sha256(&[n])).collect();
    let repository = "team/app".parse().unwrap();
    let two = retired(&repository, &digests[..2]);
    let (first, second) = (digests[0].short(), digests[1].short());
    let whole = format!("team/app: 2 artifacts that are not retained: {first}, {second}");
    assert_eq!(two, whole);
    let many = retired(&repository, &digests);
    assert!(many.len() <= MAX_TEXT && many.contains(&first), "{many}");
    let named = digests.iter().filter(|digest| many.contains(&digest.short())).count();
    assert!(many.ends_with(&format!(", and {} more", 50 - named)), "{many}");
    let long = format!("team/{}", "a".repeat(230)).parse().unwrap();
    let none = retired(&long, &digests);
    assert!(none.len() <= MAX_TEXT && none.ends_with(" more"), "{none}");
}

#[test]
fn an_event_says_what_was_and_what_is_now_and_no_secret_from_its_level_on() {
    let mut ledger = Ledger::new();
    let people = |change| Command::People(Box::new(change));
    let configure = |public, durability, metadata: &[(&str, &str)]| Command::ConfigureProject {
        name: demo(),
        epoch: Epoch::FIRST,
        public: Some(public),
        durability,
        proxy: ProxyChange::default(),
        metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    ledger.by_ann(create());
    ledger.by_ann(configure(false, None, &[]));
    assert_eq!(ledger.last(), "ann update project demo", "older builds write the same");
    let row = Event {
        at: Timestamp(1),
        by: ann(),
        operation: "pull".into(),
        resource_type: "artifact".into(),
        resource: "two\nlines".into(),
        project: None,
        refused: None,
        count: 1,
    };
    ledger.run(Command::Events(Box::new(EventsChange::Counted(vec![row]))));
    assert!(ledger.told().contains(&"ann pull artifact two lines".to_owned()), "a name is a line");
    let level = Level::NEWEST;
    ledger.by_ann(Command::RaiseLevel { level, token_secret: vec![1].into() });

    ledger.by_ann(configure(true, Some(2), &[("auto_scan", "true")]));
    let details = "public: false -> true; durability: 1 -> 2; auto_scan: (empty) -> true";
    assert_eq!(ledger.last(), format!("ann update project demo\n{details}"));
    ledger.by_ann(configure(true, None, &[("auto_scan", "true")]));
    assert_eq!(ledger.last(), "ann update project demo", "nothing has changed");
    ledger.by_ann(Command::ForgetMetadata {
        name: demo(),
        epoch: Epoch::FIRST,
        key: "auto_scan".into(),
    });
    assert_eq!(ledger.last(), "ann update project demo\nauto_scan: true -> (none)");

    let allow = |ids: &[&str], expires: Option<u64>| crate::policies::vulnerabilities::Allowlist {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        expires: expires.map(Timestamp),
    };
    let of_mesh = |list| Command::Scanner(Box::new(ScannerChange::Allow(list)));
    ledger.by_ann(of_mesh(allow(&["CVE-1", "CVE-2"], None)));
    let told = "ann update allowlist of the mesh\nallows CVE-1, CVE-2";
    assert_eq!(ledger.last(), told);
    ledger.by_ann(of_mesh(allow(&["CVE-2", "CVE-3"], Some(0))));
    let told = "ann update allowlist of the mesh\nallows CVE-3; allows no longer CVE-1; \
                expires: never -> 1970-01-01T00:00:00Z";
    assert_eq!(ledger.last(), told);
    let of_demo = |list| Command::Scan {
        epoch: Epoch::FIRST,
        change: Box::new(crate::ledger::scanning::ScanChange::Allow { project: demo(), list }),
    };
    let many: Vec<String> = (0..500).map(|n| format!("CVE-2024-{n:05}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    ledger.by_ann(of_demo(allow(&many, None)));
    let told = ledger.last();
    assert!(told.starts_with("ann update allowlist demo\nallows CVE-2024-00000, "), "{told}");
    assert!(told.ends_with(" more") && told.len() < 200, "{told}");

    let project = ledger.records.project(&demo()).unwrap().unwrap().id;
    let admin = UserId(1);
    let add = PeopleChange::AddMember { project, user: admin, role: ProjectRole::Guest };
    assert_eq!(ledger.by_ann(people(add)), Outcome::Done);
    let id = ledger.records.member(project, admin).unwrap().unwrap().id;
    let role = ProjectRole::Developer;
    ledger.by_ann(people(PeopleChange::ChangeMember { project, id, role }));
    let told = "ann update member admin as developer\nrole: guest -> developer";
    assert_eq!(ledger.last(), told);

    let terms = |disabled, operation| RobotTerms {
        description: String::new(),
        expires: None,
        days: -1,
        disabled,
        grants: vec![crate::ledger::people::Grant {
            space: crate::ledger::people::Space::Project(project),
            permissions: vec![crate::words::roles::Permission::new(
                crate::words::roles::Resource::Repository,
                operation,
            )],
        }],
    };
    let (pull, delete) =
        (crate::words::roles::Operation::Pull, crate::words::roles::Operation::Delete);
    let (name, secret_hash) = ("ci".parse().unwrap(), b"the-secret".to_vec().into());
    let robot =
        PeopleChange::CreateRobot { name, project: None, terms: terms(false, pull), secret_hash };
    ledger.by_ann(people(robot));
    let id = ledger.records.robot_named("ci").unwrap().unwrap().id;
    ledger.by_ann(people(PeopleChange::ChangeRobot { id, terms: terms(true, delete) }));
    let details = "disabled: false -> true; may delete repository in demo; \
                   may not pull repository in demo";
    assert_eq!(ledger.last(), format!("ann update robot ci\n{details}"));

    let change = PeopleChange::ChangeUser {
        id: admin,
        email: Some("x\ny".into()),
        real_name: None,
        comment: None,
        administrator: Some(true),
        disabled: None,
    };
    ledger.by_ann(people(change));
    assert_eq!(ledger.last(), "ann update user admin\nemail: (empty) -> x y");

    let texts = |pairs: &[(&str, String)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect::<BTreeMap<_, _>>()
    };
    let configure = |after, minutes: &str, secret: &str| {
        people(PeopleChange::Directory(DirectoryChange::Configure {
            after,
            values: texts(&[("session_timeout", minutes.into()), ("oidc_name", "x".repeat(500))]),
            secrets: [("oidc_client_secret".to_owned(), secret.into())].into(),
            changed: vec![
                "session_timeout".into(),
                "oidc_client_secret".into(),
                "oidc_name".into(),
            ],
        }))
    };
    assert_eq!(ledger.by_ann(configure(0, "60", "the-secret")), Outcome::Done);
    assert_eq!(ledger.by_ann(configure(1, "90", "the-secret-too")), Outcome::Done);
    let last = ledger.last();
    assert!(last.contains("session_timeout: 60 -> 90; oidc_client_secret: changed"), "{last}");
    for (_, value) in ledger.records.scan(&key::events(EventTable::Changes), None, 99).unwrap() {
        let text = String::from_utf8_lossy(&value).into_owned();
        assert!(!text.contains("the-secret") && text.len() < 3 * MAX_TEXT, "{text}");
    }
}

#[test]
fn purged_events_leave_gaps_and_the_others_are_still_listed_and_forgotten() {
    let mut ledger = Ledger::new();
    ledger.by_ann(create());
    for tag in 0..900 {
        ledger.by_ann(push(&tag.to_string()));
    }
    let all: Vec<EventId> = (0..902).map(|number| EventId(EventTable::Changes, number)).collect();
    let purge = |events: &[EventId], before| {
        let change = EventsChange::Purge { events: events.to_vec(), before: Timestamp(before) };
        Command::Events(Box::new(change))
    };
    assert!(matches!(ledger.run(purge(&all[..1], 9_999)), Outcome::Refused(_)), "too early");
    let raise = Command::RaiseLevel { level: Level::NEWEST, token_secret: vec![1].into() };
    assert_eq!(ledger.run(raise), Outcome::Done);
    assert!(matches!(ledger.run(purge(&all, 9_999)), Outcome::Refused(_)), "too many");
    // a gap that is wider than what is read at once, and one in front
    assert_eq!(ledger.run(purge(&all[300..800], 9_999)), Outcome::Done);
    assert_eq!(ledger.run(purge(&all[..2], 9_999)), Outcome::Done);
    assert_eq!(ledger.run(purge(&all[..2], 9_999)), Outcome::NotFound);
    assert_eq!(ledger.run(purge(&all[801..803], 4)), Outcome::NotFound, "they are younger");
    let told = ledger.told();
    assert_eq!(told.len(), 903 - 502, "and the raise of the level");
    assert!(told.contains(&"ann create artifact demo/app:0".to_owned()));
    assert!(!told.contains(&"ann create artifact demo/app:500".to_owned()));
    let counts = ledger.records.event_counts(EventTable::Changes).unwrap();
    assert_eq!(counts.first, 2);
    let held = ledger.records.scan(&key::events(EventTable::Changes), None, usize::MAX).unwrap();
    assert_eq!(held.iter().map(|(_, v)| v.len() as u64).sum::<u64>(), counts.bytes);
    let trim = |keep| Command::Events(Box::new(EventsChange::Trim { before: Timestamp(0), keep }));
    while ledger.run(trim(3)) == Outcome::Unfinished {}
    assert_eq!(ledger.told().len(), 3);
}

#[test]
fn runs_of_the_upkeep_are_kept_and_told_and_the_oldest_go() {
    use crate::ledger::upkeep::{KEPT, LookForUpkeep, UpkeepKind, UpkeepRun};
    let mut ledger = Ledger::new();
    let run = |kind, began, failed: Option<&str>| {
        Command::Upkeep(Box::new(UpkeepRun {
            kind,
            scheduled: false,
            parameters: "{}".into(),
            began: Timestamp(began),
            ended: Timestamp(began + 5),
            failed: failed.map(str::to_owned),
            log: "3 events are purged".into(),
        }))
    };
    assert!(matches!(ledger.by_ann(run(UpkeepKind::Purge, 1, None)), Outcome::Refused(_)));
    let raise = Command::RaiseLevel { level: Level::NEWEST, token_secret: vec![1].into() };
    assert_eq!(ledger.run(raise), Outcome::Done);
    assert_eq!(ledger.by_ann(run(UpkeepKind::Purge, 1, None)), Outcome::Done);
    assert_eq!(ledger.last(), "ann run upkeep purge_audit: 3 events are purged");
    assert_eq!(ledger.by_ann(run(UpkeepKind::Purge, 1, None)), Outcome::Exists);
    assert_eq!(ledger.by_ann(run(UpkeepKind::Collection, 1, Some("no disk"))), Outcome::Done);
    assert_eq!(ledger.last(), "ann run upkeep collection: no disk");
    for began in 2..KEPT as u64 + 5 {
        assert_eq!(ledger.by_ann(run(UpkeepKind::Purge, began, None)), Outcome::Done);
    }
    let kept = ledger.records.upkeep_runs(UpkeepKind::Purge).unwrap();
    let numbers: Vec<u64> = kept.iter().map(|run| run.began.0).collect();
    assert_eq!(numbers.len(), KEPT);
    assert_eq!((numbers[0], numbers[KEPT - 1]), (KEPT as u64 + 4, 5));
    assert!(ledger.records.upkeep_run(UpkeepKind::Collection, 1).unwrap().is_some());
}
