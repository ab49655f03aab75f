//! Who may join the mesh, what a node may say of itself, and who can be removed.

use super::*;

#[test]
fn an_invitation_opens_once_and_not_after_its_time() {
    let mut ledger = Ledger::new();
    let secret_hash = Digest::sha256(b"secret");
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(1_000),
        role: Role::Replica,
        nodes: 1,
    });
    let join = |n| Command::Join { secret_hash, node: node(n) };
    assert_eq!(ledger.run(join(4)), Outcome::Done);
    assert!(matches!(ledger.run(join(5)), Outcome::Refused(_)));
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(1),
        role: Role::Replica,
        nodes: 1,
    });
    assert!(matches!(ledger.run(join(5)), Outcome::Refused(_)));
    assert_eq!(ledger.records.nodes().unwrap().len(), 4);
}

#[test]
fn a_token_for_a_replica_lets_no_edge_in_and_a_role_is_for_good() {
    let mut ledger = Ledger::new();
    let secret_hash = Digest::sha256(b"secret");
    let edge = NodeRecord { role: Role::Edge, ..node(9) };
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(u64::MAX),
        role: Role::Replica,
        nodes: 1,
    });
    let join = Command::Join { secret_hash, node: edge.clone() };
    assert!(matches!(ledger.run(join.clone()), Outcome::Refused(_)));
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(u64::MAX),
        role: Role::Edge,
        nodes: 2,
    });
    assert_eq!(ledger.run(join), Outcome::Done);
    let another =
        |n| Command::Join { secret_hash, node: NodeRecord { role: Role::Edge, ..node(n) } };
    assert_eq!(ledger.run(another(10)), Outcome::Done, "it was issued for two");
    assert!(matches!(ledger.run(another(11)), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(10) }), Outcome::Done);
    assert!(ledger.records.get(&key::removed(NodeId(10))).unwrap().is_some());
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(10) }), Outcome::NotFound);
    assert!(
        matches!(ledger.run(Command::RemoveNode { id: NodeId(1) }), Outcome::Refused(_)),
        "a replica stays"
    );
    assert!(matches!(ledger.run(Command::MoveNode { node: node(9) }), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::MoveNode { node: edge }), Outcome::Done);
}

/// Builds of the first level apply a join as they always did: else one entry would mean two things
/// on two nodes.
#[test]
fn an_id_that_was_used_is_not_let_in_again_from_the_level_of_roles_on() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(invite(b"s")), Outcome::Done);
    assert_eq!(ledger.run(join(9, "e1", b"s")), Outcome::Done);
    assert_eq!(ledger.run(join(9, "e2", b"s")), Outcome::Done, "as before");
    ledger.run(raise(Level::ROLES));
    assert!(matches!(ledger.run(join(9, "e3", b"s")), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(9) }), Outcome::Done);
    assert!(matches!(ledger.run(join(9, "e4", b"s")), Outcome::Refused(_)));
    assert_eq!(ledger.run(join(10, "e4", b"s")), Outcome::Done);
}

#[test]
fn what_a_node_says_of_itself_is_checked_from_the_level_of_roles_on() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::ROLES));
    let url = |url: &str| NodeRecord { url: url.into(), ..node(2) };
    let moved = |node: NodeRecord| Command::MoveNode { node };
    assert_eq!(ledger.run(moved(url("https://registry.example:5000"))), Outcome::Done);
    for bad in [
        "",
        "docker.io",
        "http://",
        "http://a b",
        "http://a/\u{1b}[2J",
        &format!("http://{}", "a".repeat(600)),
    ] {
        assert!(matches!(ledger.run(moved(url(bad))), Outcome::Refused(_)), "{bad:?}");
    }
    let taken = NodeRecord { name: "n1".parse().unwrap(), ..url("http://a:1") };
    assert!(matches!(ledger.run(moved(taken)), Outcome::Refused(_)));
}

#[test]
fn a_replica_is_removed_from_the_level_on_that_can_and_never_the_last() {
    let mut ledger = Ledger::new();
    let remove = |n| Command::RemoveNode { id: NodeId(n) };
    assert!(matches!(ledger.run(remove(1)), Outcome::Refused(_)), "the level before");
    let raise = Command::RaiseLevel { level: Level::KEYS, token_secret: Default::default() };
    assert_eq!(ledger.run(raise), Outcome::Done);
    let demo = |ledger: &Ledger| ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
    let move_to = |ledger: &Ledger, n| Command::AssignPrimary {
        project: "demo".parse().unwrap(),
        node: NodeId(n),
        expect_epoch: ledger.epoch(),
    };
    // a project that has moved is at home where it is; one that has not, where it moves to
    let moved = move_to(&ledger, 2);
    assert_eq!(ledger.run(moved), Outcome::Done);
    assert_eq!(demo(&ledger).home, NodeId(1));
    assert_eq!(ledger.run(remove(1)), Outcome::Done);
    assert_eq!((demo(&ledger).home, demo(&ledger).primary), (NodeId(2), NodeId(2)));
    assert_eq!(ledger.run(remove(2)), Outcome::Done);
    let moved = move_to(&ledger, 3);
    assert_eq!(ledger.run(moved), Outcome::Done);
    assert_eq!((demo(&ledger).home, demo(&ledger).primary), (NodeId(3), NodeId(3)));
    assert!(ledger.records.get(&key::removed(NodeId(2))).unwrap().is_some());
    assert!(matches!(ledger.run(remove(3)), Outcome::Refused(_)), "the last one");
}
