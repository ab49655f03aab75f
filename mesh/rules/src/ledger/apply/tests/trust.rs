//! Nodes' keys, and what follows when a replica's disk is in somebody else's hands.

use super::leaving::at_newest;
use super::*;
use crate::ledger::leaving::{Leaving, LeavingChange};
use crate::ledger::people::{LookForPeople, PeopleChange};
use crate::ledger::trust::{LookForTrust, TrustChange};
use crate::words::secret::Secret;

fn pin(node: u64, key: &[u8]) -> Command {
    Command::Trust(Box::new(TrustChange::Pin { node: NodeId(node), key: Digest::sha256(key) }))
}

fn authority(after: u64, first: Option<&str>) -> Command {
    let sealed = |text: &str| Secret::from(format!("sealed {text}"));
    Command::Trust(Box::new(TrustChange::Authority {
        after,
        certificate: format!("certificate {}", after + 1),
        sealed: sealed("next"),
        first: first.map(|name| (name.to_owned(), sealed(name))),
    }))
}

fn add_token_key(after: u64) -> Command {
    Command::People(Box::new(PeopleChange::AddTokenKey {
        after,
        public: vec![1],
        sealed: "old".into(),
        forget_below: 0,
    }))
}

#[test]
fn a_nodes_key_is_recorded_once_and_goes_with_the_node() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(pin(9, b"x")), Outcome::NotFound);
    assert_eq!(ledger.run(pin(3, b"own")), Outcome::Done);
    assert_eq!(ledger.run(pin(3, b"own")), Outcome::Done);
    assert_eq!(ledger.run(pin(3, b"another")), Outcome::Exists);
    assert_eq!(ledger.records.pin(NodeId(3)).unwrap(), Some(Digest::sha256(b"own")));
    let leaving = Leaving { node: NodeId(3), removal: 1 };
    ledger.run(Command::Leaving(LeavingChange::Begin(leaving)));
    assert_eq!(ledger.run(Command::Leaving(LeavingChange::Finish(leaving))), Outcome::Done);
    assert_eq!(ledger.records.pin(NodeId(3)).unwrap(), None);
    assert_eq!(ledger.records.exposed().unwrap(), None, "nobody has its disk");
}

#[test]
fn a_stolen_replica_goes_when_all_others_are_known_by_their_keys() {
    let mut ledger = at_newest();
    let leaving = Leaving { node: NodeId(3), removal: 1 };
    let finish = Command::Leaving(LeavingChange::FinishExposed(leaving));
    let invite = Command::Invite {
        secret_hash: Digest::sha256(b"secret"),
        expires: Timestamp(u64::MAX),
        role: Role::Edge,
        nodes: 1,
    };
    assert_eq!(ledger.run(invite), Outcome::Done);
    assert_eq!(ledger.run(add_token_key(0)), Outcome::Done);
    assert!(matches!(ledger.run(finish.clone()), Outcome::Refused(_)), "it never began");
    assert_eq!(ledger.run(Command::Leaving(LeavingChange::Begin(leaving))), Outcome::Done);
    assert_eq!(ledger.run(pin(1, b"one")), Outcome::Done);
    let unknown = ledger.run(finish.clone());
    assert!(matches!(&unknown, Outcome::Refused(why) if why.contains("n2")), "{unknown:?}");
    assert!(ledger.records.exposed().unwrap().is_none());
    assert_eq!(ledger.run(pin(2, b"two")), Outcome::Done);
    assert_eq!(ledger.run(finish), Outcome::Done);
    let exposed = ledger.records.exposed().unwrap().unwrap();
    assert_eq!((exposed.node, exposed.tokens, exposed.authority), (NodeId(3), 1, 0));
    assert!(ledger.records.scan(&key::invitations(), None, 9).unwrap().is_empty());
}

#[test]
fn of_two_leaders_that_make_an_authority_at_once_one_wins_and_the_first_is_kept() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(authority(0, None)), Outcome::Exists, "without the first one");
    assert_eq!(ledger.run(authority(0, Some("first"))), Outcome::Done);
    assert_eq!(ledger.run(authority(0, Some("first"))), Outcome::Exists);
    assert_eq!(ledger.run(authority(1, None)), Outcome::Done);
    let all = ledger.records.authorities().unwrap();
    let all: Vec<_> = all.iter().map(|one| (one.version, one.certificate.as_str())).collect();
    assert_eq!(all, [(0, "first"), (1, "certificate 1"), (2, "certificate 2")]);
    let first = ledger.records.authority_key(0).unwrap();
    assert_eq!(first, Some("sealed first".into()));
}

#[test]
fn new_keys_for_tokens_leave_none_of_before() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(add_token_key(0)), Outcome::Done);
    assert_eq!(ledger.run(add_token_key(1)), Outcome::Done);
    let replace = |after| {
        let (public, sealed, secret) = (vec![2], "new".into(), vec![9].into());
        Command::Trust(Box::new(TrustChange::Tokens { after, public, sealed, secret }))
    };
    assert_eq!(ledger.run(replace(1)), Outcome::Exists);
    assert_eq!(ledger.run(replace(2)), Outcome::Done);
    let keys = ledger.records.token_keys().unwrap();
    assert_eq!(keys.iter().map(|key| key.number).collect::<Vec<_>>(), [3]);
    let mesh: MeshRecord = ledger.records.record(&key::mesh()).unwrap().unwrap();
    assert_eq!(mesh.token_secret, vec![9].into(), "the secret of before there were keys, too");
}

#[test]
fn no_two_tables_begin_alike() {
    use crate::ledger::events::EventTable;
    use crate::ledger::{events, jobs};
    let mut tables = vec![
        key::mesh(),
        key::leaving(),
        key::level(),
        key::projects(),
        key::last_project(),
        key::repositories(),
        key::nodes(),
        key::removals(),
        key::upstreams(),
        key::invitations(),
        key::pins(),
        key::authorities(),
        key::authority_key(0),
        key::exposed(),
        key::operation_orders(),
        key::accounts(),
        key::robots(),
        key::token_keys(),
        key::people_version(),
        key::groups(),
        key::group_subject(crate::words::roles::Provider::Oidc, "x"),
        key::belonging(crate::words::names::UserId(1)),
        key::group_members(ProjectId(1)),
        key::group_places(crate::words::names::GroupId(1)),
        key::groups_used(),
        key::configurations(),
        key::cli_secrets(),
        key::project_number(ProjectId(1)),
        key::sealing_keys(),
        jobs::key::jobs(),
        jobs::key::places(),
        jobs::key::all_active(),
        jobs::key::order(ProjectId(1), crate::words::names::JobId(1)),
        events::key::events(EventTable::Changes),
        events::key::events(EventTable::Counted),
        events::key::counts(EventTable::Changes),
    ];
    let (repository, digest) = (repository(), Digest::sha256(b"x"));
    let tag = "t".parse().unwrap();
    tables.extend([
        key::tags(&repository),
        key::manifests(&repository),
        key::content(&digest),
        key::all_named(&repository, &digest),
        key::tag_index(&repository),
        key::link(&repository, &digest),
        key::blob(&digest),
        key::referrers(&repository, &digest),
        key::operation(OperationId(1)),
        key::user("admin"),
    ]);
    let letters: std::collections::BTreeSet<u8> = tables.iter().map(|table| table[0]).collect();
    assert_eq!(letters.len(), tables.len());
    assert_eq!(key::tag(&repository, &tag)[0], key::tags(&repository)[0]);
    // the letters are used up: these share one, and have another one each
    let shared = [
        key::project_number(ProjectId(1)),
        crate::ledger::provider_tokens::key::tokens(),
        key::forgotten(crate::words::roles::Provider::Oidc, "x"),
    ];
    let letters: std::collections::BTreeSet<&[u8]> = shared.iter().map(|one| &one[..2]).collect();
    assert!(shared.iter().all(|one| one[0] == b'9') && letters.len() == shared.len());
}
