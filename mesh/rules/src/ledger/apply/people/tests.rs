use crate::ledger::apply::EMPTIED_AT_ONCE;
use crate::ledger::apply::trial::Ledger;
use crate::ledger::command::{Command, NewProject, Outcome};
use crate::ledger::level::Level;
use crate::ledger::people::{Grant, LookForPeople, PeopleChange, RobotTerms, Space, TrustTerms};
use crate::ledger::records::{Look, User, encode, key};
use crate::proxies::proxy::ProxyChange;
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, NodeId, ProjectId, ProjectName, RobotId, TrustId, UserId};
use crate::words::roles::{Operation, Permission, ProjectRole, Resource};

impl Ledger {
    fn user(&mut self, name: &str, administrator: bool) -> UserId {
        let created = self.change(PeopleChange::CreateUser {
            name: name.parse().unwrap(),
            email: String::new(),
            real_name: String::new(),
            comment: String::new(),
            password_hash: "hash".into(),
            administrator,
        });
        assert_eq!(created, Outcome::Done);
        self.records.account_named(&name.parse().unwrap()).unwrap().unwrap().id
    }

    fn project(&mut self, owner: UserId) -> ProjectId {
        let project = Box::new(NewProject {
            name: p(),
            public: false,
            durability: 1,
            home: NodeId(1),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: Default::default(),
        });
        assert_eq!(self.run(Command::CreateOwnedProject { owner, project }), Outcome::Done);
        self.records.project(&p()).unwrap().unwrap().id
    }

    fn delete_project(&mut self) -> Outcome {
        self.run(Command::DeleteProject { name: p(), epoch: Epoch::FIRST })
    }
}

fn p() -> ProjectName {
    "p".parse().unwrap()
}

fn demote(id: UserId) -> PeopleChange {
    PeopleChange::ChangeUser {
        id,
        email: None,
        real_name: None,
        comment: None,
        administrator: Some(false),
        disabled: None,
    }
}

fn disable(id: UserId) -> PeopleChange {
    match demote(id) {
        PeopleChange::ChangeUser { id, email, real_name, comment, .. } => {
            PeopleChange::ChangeUser {
                id,
                email,
                real_name,
                comment,
                administrator: None,
                disabled: Some(true),
            }
        }
        other => other,
    }
}

fn robot(project: Option<ProjectId>) -> PeopleChange {
    let pull = Permission::new(Resource::Repository, Operation::Pull);
    PeopleChange::CreateRobot {
        name: "ci".parse().unwrap(),
        project,
        terms: RobotTerms {
            description: String::new(),
            expires: None,
            days: -1,
            disabled: false,
            grants: vec![Grant { space: Space::AllProjects, permissions: vec![pull] }],
        },
        secret_hash: vec![1; 32].into(),
    }
}

#[test]
fn users_of_before_become_accounts_when_the_level_is_raised() {
    let ledger = Ledger::raised();
    let admin = ledger.records.account_named(&"admin".parse().unwrap()).unwrap().unwrap();
    assert!(admin.administrator && admin.id == UserId(1) && admin.password_hash == "hash".into());
    assert_eq!(ledger.records.records::<User>(&key::users()).unwrap(), []);
}

#[test]
fn there_is_always_an_administrator() {
    let mut ledger = Ledger::raised();
    let admin = UserId(1);
    let refused = |outcome| matches!(outcome, Outcome::Refused(_));
    for change in [demote(admin), disable(admin), PeopleChange::DeleteUser { id: admin }] {
        let before = ledger.records.account(admin).unwrap();
        assert!(refused(ledger.change(change)));
        assert_eq!(ledger.records.account(admin).unwrap(), before);
    }
    let second = ledger.user("second", true);
    assert_eq!(ledger.change(disable(admin)), Outcome::Done);
    assert!(refused(ledger.change(demote(second))), "the other one is disabled");
    assert_eq!(ledger.change(PeopleChange::DeleteUser { id: admin }), Outcome::Done);
}

#[test]
fn what_was_shown_before_a_password_changed_is_of_an_earlier_generation() {
    let mut ledger = Ledger::raised();
    let ann = ledger.user("ann", false);
    let generation = |ledger: &Ledger| ledger.records.account(ann).unwrap().unwrap().generation;
    let set = |generation| PeopleChange::SetPassword {
        id: ann,
        password_hash: "other".into(),
        generation,
    };
    assert_eq!(ledger.change(set(Some(1))), Outcome::Done);
    assert!(matches!(ledger.change(set(Some(1))), Outcome::Refused(_)), "somebody was faster");
    assert_eq!((ledger.change(set(None)), generation(&ledger)), (Outcome::Done, 3));
    assert_eq!((ledger.change(disable(ann)), generation(&ledger)), (Outcome::Done, 4));
    let recover = |name: &str| PeopleChange::RecoverPassword {
        name: name.parse().unwrap(),
        password_hash: "third".into(),
    };
    assert_eq!((ledger.change(recover("ann")), generation(&ledger)), (Outcome::Done, 5));
    assert_eq!(ledger.change(recover("bob")), Outcome::NotFound);
}

#[test]
fn who_creates_a_project_is_its_admin_and_nothing_outlives_it() {
    let mut ledger = Ledger::raised();
    let (ann, bob) = (ledger.user("ann", false), ledger.user("bob", false));
    let before = ledger.about_people();
    let first = ledger.project(ann);
    let role = |ledger: &Ledger, id, user| {
        ledger.records.member(id, user).unwrap().map(|member| member.role)
    };
    assert_eq!(role(&ledger, first, ann), Some(ProjectRole::Admin));
    let add = |role| PeopleChange::AddMember { project: first, user: bob, role };
    assert_eq!(ledger.change(add(ProjectRole::Guest)), Outcome::Done);
    assert_eq!(ledger.change(add(ProjectRole::Developer)), Outcome::Exists);
    assert_eq!(ledger.change(robot(Some(first))), Outcome::Done);
    assert_eq!(ledger.change(robot(Some(first))), Outcome::Exists);
    let version = ledger.records.people_version().unwrap();
    assert_eq!(ledger.delete_project(), Outcome::Done);
    assert!(ledger.records.people_version().unwrap() > version, "edges look again");
    assert_eq!(ledger.about_people(), before);
    // a project of the same name is another one
    let second = ledger.project(bob);
    assert_eq!(
        (role(&ledger, second, ann), role(&ledger, second, bob)),
        (None, Some(ProjectRole::Admin))
    );
    // what was decided about the first one does not happen to the second
    assert_eq!(ledger.change(add(ProjectRole::Admin)), Outcome::NotFound);
    assert_eq!(ledger.change(robot(Some(first))), Outcome::NotFound);
}

#[test]
fn a_project_with_many_members_is_left_in_parts() {
    let mut ledger = Ledger::raised();
    let ann = ledger.user("ann", false);
    let id = ledger.project(ann);
    for n in 0..EMPTIED_AT_ONCE {
        let user = ledger.user(&format!("u{n}"), false);
        let add = PeopleChange::AddMember { project: id, user, role: ProjectRole::Guest };
        assert_eq!(ledger.change(add), Outcome::Done);
    }
    assert_eq!(ledger.delete_project(), Outcome::Unfinished);
    assert_eq!(ledger.records.members(id).unwrap().len(), 1);
    assert_eq!(ledger.delete_project(), Outcome::Done);
    assert_eq!(ledger.records.members(id).unwrap(), []);
}

#[test]
fn a_user_who_is_deleted_leaves_all_projects_and_their_number_is_not_used_again() {
    let mut ledger = Ledger::raised();
    let before = ledger.about_people();
    let ann = ledger.user("ann", false);
    let project = ledger.project(UserId(1));
    let add = PeopleChange::AddMember { project, user: ann, role: ProjectRole::Guest };
    assert_eq!(ledger.change(add), Outcome::Done);
    let id = ledger.records.member(project, ann).unwrap().unwrap().id;
    let become_developer = PeopleChange::ChangeMember { project, id, role: ProjectRole::Developer };
    assert_eq!(ledger.change(become_developer.clone()), Outcome::Done);
    assert_eq!(ledger.change(PeopleChange::DeleteUser { id: ann }), Outcome::Done);
    assert_eq!(ledger.change(become_developer), Outcome::NotFound);
    assert_eq!(ledger.change(PeopleChange::DeleteUser { id: ann }), Outcome::NotFound);
    assert_eq!(ledger.delete_project(), Outcome::Done);
    assert_eq!(ledger.about_people(), before);
    assert_ne!(ledger.user("ann", false), ann);
}

#[test]
fn a_robot_keeps_its_number_and_its_secret_makes_a_generation() {
    let mut ledger = Ledger::raised();
    assert_eq!(ledger.change(robot(None)), Outcome::Done);
    let made = ledger.records.robot_named("ci").unwrap().unwrap();
    let secret = PeopleChange::SetRobotSecret { id: made.id, secret_hash: vec![2; 32].into() };
    assert_eq!(ledger.change(secret), Outcome::Done);
    let terms = RobotTerms {
        description: "new".into(),
        expires: Some(Timestamp(9)),
        days: 1,
        disabled: true,
        grants: vec![],
    };
    let generation = |ledger: &Ledger| ledger.records.robot(made.id).unwrap().unwrap().generation;
    for (disabled, expected) in [(false, 2), (true, 3), (true, 3), (false, 3), (true, 4)] {
        let terms = RobotTerms { disabled, ..terms.clone() };
        let change = PeopleChange::ChangeRobot { id: made.id, terms };
        assert_eq!((ledger.change(change), generation(&ledger)), (Outcome::Done, expected));
    }
    let trust = |subject: &str| PeopleChange::AddTrust {
        robot: made.id,
        terms: TrustTerms {
            issuer: "https://issuer".into(),
            audience: "atoll".into(),
            subject: subject.into(),
            claims: Default::default(),
        },
        keys: "{}".into(),
    };
    assert_eq!(ledger.change(trust("a")), Outcome::Done);
    assert_eq!(ledger.change(trust("a")), Outcome::Exists);
    assert_eq!(ledger.change(trust("b")), Outcome::Done);
    let rules = ledger.records.trusts_in("https://issuer").unwrap();
    assert_eq!(generation(&ledger), 4);
    assert_eq!(rules, ledger.records.trusts_of(made.id).unwrap());
    assert_eq!(ledger.records.trusts_in("https://other").unwrap(), []);
    let (robot, id) = (made.id, rules[0].id);
    let rotate = PeopleChange::SetTrustKeys { robot, id, keys: "new".into() };
    assert_eq!(ledger.change(rotate), Outcome::Done);
    assert_eq!(ledger.records.trusts_in("https://issuer").unwrap()[0].keys, "new");
    assert_eq!(ledger.change(PeopleChange::RemoveTrust { robot, id }), Outcome::Done);
    assert_eq!(ledger.change(PeopleChange::RemoveTrust { robot, id }), Outcome::NotFound);
    let now = ledger.records.robot(made.id).unwrap().unwrap();
    assert_eq!((now.generation, now.disabled, now.description.as_str()), (5, true, "new"));
    assert_eq!(ledger.change(PeopleChange::DeleteRobot { id: made.id }), Outcome::Done);
    assert_eq!(ledger.records.robot_named("ci").unwrap(), None);
    assert_eq!(ledger.records.trusts_in("https://issuer").unwrap(), [], "its rules go with it");
}

#[test]
fn a_rule_without_keys_waits_for_the_level_at_which_all_replicas_ask_the_issuer() {
    let terms = TrustTerms {
        issuer: "https://issuer".into(),
        audience: "atoll".into(),
        subject: "job:*".into(),
        claims: Default::default(),
    };
    let (robot, id) = (RobotId(1), TrustId(1));
    for (keys, level) in [("{}", Level::PEOPLE), ("", Level::DISCOVERY)] {
        let add = PeopleChange::AddTrust { robot, terms: terms.clone(), keys: keys.into() };
        let set = PeopleChange::SetTrustKeys { robot, id, keys: keys.into() };
        assert_eq!([add.level(), set.level()], [level; 2], "{keys:?}");
    }
}

#[test]
fn the_oldest_rule_of_an_issuer_comes_first_whatever_robot_it_is_of() {
    let mut ledger = Ledger::raised();
    assert_eq!(ledger.change(robot(None)), Outcome::Done);
    let first = ledger.records.robot_named("ci").unwrap().unwrap().id;
    let project = ledger.project(UserId(1));
    assert_eq!(ledger.change(robot(Some(project))), Outcome::Done);
    let second = ledger.records.robot_named("p+ci").unwrap().unwrap().id;
    for robot in [second, first] {
        let terms = TrustTerms {
            issuer: "https://issuer".into(),
            audience: "atoll".into(),
            subject: "job:*".into(),
            claims: Default::default(),
        };
        let add = PeopleChange::AddTrust { robot, terms, keys: "{}".into() };
        assert_eq!(ledger.change(add), Outcome::Done);
    }
    let rules = ledger.records.trusts_in("https://issuer").unwrap();
    let robots: Vec<_> = rules.iter().map(|rule| rule.robot).collect();
    assert_eq!(robots, [second, first], "who comes later takes nobody's tokens");
}

#[test]
fn two_nodes_that_see_that_a_key_is_due_add_one() {
    let mut ledger = Ledger::raised();
    let add = |after, forget_below| PeopleChange::AddTokenKey {
        after,
        public: vec![1; 32],
        sealed: "sealed".into(),
        forget_below,
    };
    assert_eq!(ledger.change(add(0, 0)), Outcome::Done);
    assert_eq!(ledger.change(add(0, 0)), Outcome::Exists);
    assert_eq!(ledger.change(add(1, 1)), Outcome::Done);
    assert_eq!(ledger.change(add(2, 2)), Outcome::Done);
    let numbers: Vec<u64> =
        ledger.records.token_keys().unwrap().iter().map(|key| key.number).collect();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn a_command_of_people_is_as_long_as_what_it_says() {
    // the log of every replica holds it; a box must not make it longer
    let change = PeopleChange::DeleteUser { id: UserId(1) };
    assert_eq!(encode(&Command::People(Box::new(change))).unwrap().len(), 3);
}
