use crate::ledger::apply::EMPTIED_AT_ONCE;
use crate::ledger::apply::trial::Ledger;
use crate::ledger::command::{Command, NewProject, Outcome};
use crate::ledger::directory::{DirectoryChange, LookForGroups, MOST_GROUPS, Vouched};
use crate::ledger::people::{LookForPeople, PeopleChange};
use crate::ledger::records::{Look, Project};
use crate::proxies::proxy::ProxyChange;
use crate::words::names::{Epoch, GroupId, NodeId, ProjectName, UserId};
use crate::words::roles::{ProjectRole, Provider};

impl Ledger {
    fn alter(&mut self, change: DirectoryChange) -> Outcome {
        self.change(PeopleChange::Directory(change))
    }

    fn group(&mut self, subject: &str) -> GroupId {
        let (name, subject) = (subject.to_owned(), subject.to_owned());
        let create = DirectoryChange::CreateGroup {
            provider: Provider::Oidc,
            name,
            subject: subject.clone(),
        };
        assert_eq!(self.alter(create), Outcome::Done);
        self.records.group_called(Provider::Oidc, &subject).unwrap().unwrap().id
    }

    fn enrol(&mut self, name: &str, groups: &[&str], administers: bool) -> UserId {
        let enrol = DirectoryChange::Enrol {
            name: name.parse().unwrap(),
            email: String::new(),
            real_name: String::new(),
            vouched: vouched(name, groups, administers),
        };
        assert_eq!(self.alter(enrol), Outcome::Done);
        self.account(name)
    }

    fn attest(&mut self, name: &str, groups: &[&str], administers: bool) -> Outcome {
        let user = self.account(name);
        let vouched = vouched(name, groups, administers);
        self.alter(DirectoryChange::Attest { user, vouched })
    }

    fn account(&self, name: &str) -> UserId {
        self.records.account_named(&name.parse().unwrap()).unwrap().unwrap().id
    }

    fn open_project(&mut self, name: &str) -> Project {
        let project = Box::new(NewProject {
            name: name.parse().unwrap(),
            public: false,
            durability: 1,
            home: NodeId(1),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: Default::default(),
        });
        let owner = UserId(1);
        assert_eq!(self.run(Command::CreateOwnedProject { owner, project }), Outcome::Done);
        let name: ProjectName = name.parse().unwrap();
        self.records.project(&name).unwrap().unwrap()
    }

    fn join(&mut self, project: &Project, group: GroupId, role: ProjectRole) -> Outcome {
        self.alter(DirectoryChange::AddGroupMember { project: project.id, group, role })
    }

    fn role(&self, project: &Project, user: UserId) -> Option<ProjectRole> {
        self.records.role(project, user).unwrap()
    }

    fn administers(&self, name: &str) -> bool {
        self.records.account(self.account(name)).unwrap().unwrap().administrator
    }

    fn demote(&mut self, id: UserId) -> Outcome {
        let (email, real_name, comment, disabled) = (None, None, None, None);
        let administrator = Some(false);
        self.change(PeopleChange::ChangeUser {
            id,
            email,
            real_name,
            comment,
            administrator,
            disabled,
        })
    }
}

fn vouched(name: &str, groups: &[&str], administers: bool) -> Vouched {
    Vouched {
        provider: Provider::Oidc,
        subject: format!("https://issuer {name}"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        administers,
    }
}

#[test]
fn the_strongest_of_ones_own_role_and_those_of_ones_groups_counts() {
    let mut ledger = Ledger::raised();
    let (p, q) = (ledger.open_project("p"), ledger.open_project("q"));
    let (devs, guests) = (ledger.group("devs"), ledger.group("guests"));
    let ann = ledger.enrol("ann", &["devs", "guests", "unknown"], false);
    let bob = ledger.enrol("bob", &["guests"], false);
    assert_eq!(ledger.join(&p, devs, ProjectRole::Developer), Outcome::Done);
    assert_eq!(ledger.join(&p, devs, ProjectRole::Admin), Outcome::Exists);
    assert_eq!(ledger.join(&p, guests, ProjectRole::Guest), Outcome::Done);
    assert_eq!(ledger.role(&p, ann), Some(ProjectRole::Developer));
    assert_eq!(ledger.role(&p, bob), Some(ProjectRole::Guest));
    assert_eq!(
        (ledger.role(&q, ann), ledger.role(&p, UserId(1))),
        (None, Some(ProjectRole::Admin))
    );
    for (own, then) in [
        (ProjectRole::Maintainer, ProjectRole::Maintainer),
        (ProjectRole::LimitedGuest, ProjectRole::Developer),
    ] {
        let add = PeopleChange::AddMember { project: p.id, user: ann, role: own };
        assert_eq!(ledger.change(add), Outcome::Done);
        assert_eq!(ledger.role(&p, ann), Some(then));
        let id = ledger.records.member(p.id, ann).unwrap().unwrap().id;
        assert_eq!(ledger.change(PeopleChange::RemoveMember { project: p.id, id }), Outcome::Done);
    }
    // another role for the group, none, and a group that the provider took from her
    let id = ledger.records.group_member(p.id, devs).unwrap().unwrap().id;
    let role = ProjectRole::Admin;
    assert_eq!(
        ledger.change(PeopleChange::ChangeMember { project: p.id, id, role }),
        Outcome::Done
    );
    assert_eq!(ledger.role(&p, ann), Some(ProjectRole::Admin));
    assert_eq!(ledger.attest("ann", &["guests"], false), Outcome::Done);
    assert_eq!(ledger.role(&p, ann), Some(ProjectRole::Guest));
    let id = ledger.records.group_member(p.id, guests).unwrap().unwrap().id;
    let remove = PeopleChange::RemoveMember { project: p.id, id };
    let version = ledger.records.people_version().unwrap();
    assert_eq!(ledger.change(remove.clone()), Outcome::Done);
    assert!(ledger.records.people_version().unwrap() > version, "edges look again");
    assert_eq!((ledger.role(&p, ann), ledger.role(&p, bob)), (None, None));
    assert_eq!(ledger.change(remove), Outcome::NotFound);
}

#[test]
fn a_group_of_another_provider_with_the_same_name_is_another_group() {
    let mut ledger = Ledger::raised();
    let p = ledger.open_project("p");
    let (provider, name, subject) = (Provider::Ldap, "devs".to_owned(), "devs".to_owned());
    ledger.alter(DirectoryChange::CreateGroup { provider, name, subject });
    let ldap = ledger.records.group_called(Provider::Ldap, "devs").unwrap().unwrap().id;
    assert_eq!(ledger.join(&p, ldap, ProjectRole::Admin), Outcome::Done);
    let ann = ledger.enrol("ann", &["devs"], false);
    assert_eq!(ledger.role(&p, ann), None);
}

#[test]
fn nothing_is_left_of_a_group_a_project_or_a_user_that_is_gone() {
    let mut ledger = Ledger::raised();
    let before = ledger.about_people();
    let p = ledger.open_project("p");
    let devs = ledger.group("devs");
    let ann = ledger.enrol("ann", &["devs"], false);
    assert_eq!(ledger.join(&p, devs, ProjectRole::Guest), Outcome::Done);
    assert_eq!(ledger.change(PeopleChange::DeleteUser { id: ann }), Outcome::Done);
    assert_eq!(
        ledger.run(Command::DeleteProject { name: p.name.clone(), epoch: Epoch::FIRST }),
        Outcome::Done
    );
    assert_eq!(ledger.alter(DirectoryChange::DeleteGroup { id: devs }), Outcome::Done);
    assert_eq!(ledger.alter(DirectoryChange::DeleteGroup { id: devs }), Outcome::NotFound);
    assert_eq!(ledger.about_people(), before);
    assert_ne!(ledger.group("devs"), devs, "a number is not used again");
    assert_ne!(ledger.enrol("ann", &[], false), ann);
    let times = |name| {
        let subject = vouched(name, &[], false).subject;
        ledger.records.times_forgotten(Provider::Oidc, &subject).unwrap()
    };
    assert_eq!((times("ann"), times("bob")), (1, 0));
}

#[test]
fn a_group_of_many_projects_leaves_them_in_parts() {
    let mut ledger = Ledger::raised();
    let devs = ledger.group("devs");
    let ann = ledger.enrol("ann", &["devs"], false);
    let all: Vec<Project> =
        (0..EMPTIED_AT_ONCE).map(|n| ledger.open_project(&format!("p{n}"))).collect();
    for project in &all {
        ledger.join(project, devs, ProjectRole::Guest);
    }
    assert_eq!(ledger.alter(DirectoryChange::DeleteGroup { id: devs }), Outcome::Unfinished);
    assert_eq!(ledger.alter(DirectoryChange::DeleteGroup { id: devs }), Outcome::Done);
    assert!(all.iter().all(|project| ledger.role(project, ann).is_none()));
}

#[test]
fn a_project_has_a_bounded_number_of_groups() {
    let mut ledger = Ledger::raised();
    let p = ledger.open_project("p");
    for n in 0..MOST_GROUPS {
        let group = ledger.group(&format!("g{n}"));
        assert_eq!(ledger.join(&p, group, ProjectRole::Guest), Outcome::Done);
    }
    let more = ledger.group("more");
    assert!(matches!(ledger.join(&p, more, ProjectRole::Guest), Outcome::Refused(_)));
}

#[test]
fn an_administrator_by_a_group_is_one_as_long_as_the_provider_says_so_and_is_never_the_last() {
    let mut ledger = Ledger::raised();
    let admin = ledger.account("admin");
    let ann = ledger.enrol("ann", &[], true);
    assert!(ledger.administers("ann"));
    assert!(
        matches!(ledger.demote(admin), Outcome::Refused(_)),
        "the provider may change its mind"
    );
    assert_eq!(ledger.attest("ann", &[], false), Outcome::Done);
    assert!(!ledger.administers("ann"));
    ledger.attest("ann", &[], true);
    // what an administrator decides here stays
    assert_eq!(ledger.demote(ann), Outcome::Done);
    assert!(!ledger.administers("ann"));
    let (email, real_name, comment, disabled) = (None, None, None, None);
    let administrator = Some(true);
    let promote =
        PeopleChange::ChangeUser { id: ann, email, real_name, comment, administrator, disabled };
    assert_eq!(ledger.change(promote), Outcome::Done);
    ledger.attest("ann", &[], false);
    assert!(ledger.administers("ann"));
    assert_eq!(ledger.demote(admin), Outcome::Done);
}

#[test]
fn whom_no_provider_vouches_for_has_no_groups_and_what_they_showed_is_not_valid() {
    let mut ledger = Ledger::raised();
    let p = ledger.open_project("p");
    let devs = ledger.group("devs");
    ledger.join(&p, devs, ProjectRole::Guest);
    let ann = ledger.enrol("ann", &["devs"], true);
    let generation = |ledger: &Ledger| ledger.records.account(ann).unwrap().unwrap().generation;
    let before = generation(&ledger);
    assert_eq!(ledger.alter(DirectoryChange::Disown { user: ann }), Outcome::Done);
    assert!(generation(&ledger) > before && !ledger.administers("ann"));
    assert_eq!(ledger.role(&p, ann), None);
}

#[test]
fn a_provider_says_nothing_of_users_with_a_password_and_of_those_of_another_subject() {
    let mut ledger = Ledger::raised();
    assert_eq!(ledger.attest("admin", &[], false), Outcome::NotFound);
    assert!(ledger.administers("admin"));
    let user = ledger.account("admin");
    assert_eq!(ledger.alter(DirectoryChange::Disown { user }), Outcome::NotFound);
    let user = ledger.enrol("ann", &[], false);
    let vouched = vouched("somebody else", &[], true);
    assert_eq!(ledger.alter(DirectoryChange::Attest { user, vouched }), Outcome::NotFound);
    // nor does it take a name or a subject that somebody has
    for (name, subject) in [("ann", "new"), ("new", "ann"), ("admin", "admin")] {
        let enrol = DirectoryChange::Enrol {
            name: name.parse().unwrap(),
            email: String::new(),
            real_name: String::new(),
            vouched: super::tests::vouched(subject, &[], false),
        };
        assert_eq!(ledger.alter(enrol), Outcome::Exists, "{name} {subject}");
    }
}

#[test]
fn of_two_who_change_the_settings_at_once_one_is_told_so() {
    let mut ledger = Ledger::raised();
    let configure = |after, minutes: &str| DirectoryChange::Configure {
        after,
        values: [("session_timeout".to_owned(), minutes.to_owned())].into(),
        secrets: Default::default(),
        changed: vec!["session_timeout".into()],
    };
    assert_eq!(ledger.alter(configure(0, "7")), Outcome::Done);
    assert!(matches!(ledger.alter(configure(0, "8")), Outcome::Refused(_)));
    assert_eq!(ledger.alter(configure(1, "9")), Outcome::Done);
    let now = ledger.records.configurations().unwrap();
    assert_eq!((now.version, now.values["session_timeout"].as_str()), (2, "9"));
}
