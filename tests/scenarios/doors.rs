//! A peer that is not a member costs the mesh nothing. A member can do what its role allows, and
//! speak only for itself. The peers: strangers, edges, removed nodes, thieves of a disk.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use mesh::identity::{Candidate, Identity};
use rules::ledger::change::Change;
use rules::ledger::command::{Command, Envelope};
use rules::ledger::records::{NodeRecord, Role};
use rules::wire::{Answer, Ask, JoinRequest, Open, SECRET, WriteKind, encode};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, OperationId};
use serde_json::Value;
use tests::formed::Formed;
use tests::image::Image;
use tests::intruder::{Gossiped, Intruder, Outcome, forged, incarnation, stolen};
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

/// Where a node's links listen.
fn mesh_address(mesh: &Formed, name: &str) -> SocketAddr {
    let told = text_of(mesh, name, "address");
    told.parse().unwrap_or_else(|error| panic!("{told}: {error}"))
}

fn id_of(mesh: &Formed, name: &str) -> NodeId {
    text_of(mesh, name, "id").parse().expect("an id")
}

fn text_of(mesh: &Formed, name: &str, field: &str) -> String {
    let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
    let nodes = status["nodes"].as_array().expect("nodes");
    let node = nodes
        .iter()
        .find(|node| node["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {nodes:?}"));
    node[field].as_str().unwrap_or_else(|| panic!("{node}")).to_owned()
}

/// The number of the last entry of the ledger, once nothing is written any more.
fn settled_revision(mesh: &Formed) -> u64 {
    let applied = || mesh.status(0).ok()?["ledger"]["applied"].as_u64();
    wait::until("the ledger is at rest", || {
        let before = applied()?;
        std::thread::sleep(Duration::from_millis(700));
        (applied()? == before).then_some(before)
    })
}

/// The mesh takes a push and gives it back, at every replica.
fn all_is_well(mesh: &Formed, tag: &str) {
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        let found =
            mesh.repository(at, "demo/app").pull(tag).unwrap_or_else(|no| panic!("at {at}: {no}"));
        assert_eq!(found.digest, image.digest());
    }
}

fn record(id: NodeId, name: &str, role: Role) -> NodeRecord {
    NodeRecord {
        id,
        name: name.parse().expect("a name"),
        region: "nowhere".parse().expect("a region"),
        role,
        address: ([127, 0, 0, 1], 9).into(),
        url: "http://127.0.0.1:9".into(),
    }
}

fn join_request(secret: Vec<u8>, node: NodeRecord) -> JoinRequest {
    let candidate = Candidate::generate(node.id).expect("a key");
    JoinRequest { secret: secret.into(), certificate_request: candidate.request, node }
}

/// What only replicas may ask.
fn for_replicas() -> Vec<Ask> {
    let command = Command::RemoveNode { id: NodeId(1) };
    let operation = OperationId(7);
    let kind = WriteKind::Fenced(Change::Delete { name: "demo".parse().expect("a name") });
    let repository: rules::words::names::RepositoryName = "demo/app".parse().expect("a name");
    let digest = Digest::sha256(b"anything");
    vec![
        Ask::Raft { kind: 0, body: vec![0; 64] },
        Ask::Propose(Envelope { operation, at: Timestamp(1), command }),
        Ask::ReadIndex,
        Ask::Write(rules::wire::Write { operation, kind }),
        Ask::Replicate { digest, sources: vec![], repository: None },
        Ask::Revoke { repository, digest },
        Ask::Preheat { digest, via: None },
        Ask::Announce([NodeId(1)].into()),
        Ask::Spare {
            upstream: rules::words::names::UpstreamId(1),
            everything: true,
            millis: 3_600_000,
        },
    ]
}

#[test]
fn a_stranger_costs_the_ledger_nothing_and_the_nodes_little() {
    let mesh = Formed::of(&THREE, "");
    let (at, before) = (mesh_address(&mesh, "one"), settled_revision(&mesh));
    let memory = mesh.members()[0].memory();
    let stranger = Intruder::stranger();
    // joins with made-up secrets: of the right size, with fields that are not, and larger than
    // anything a stranger may send
    for n in 0..20u8 {
        let connection = stranger.knock(at).unwrap_or_else(|no| panic!("{no}"));
        let mut request =
            join_request(vec![n; SECRET], record(NodeId(u64::from(n) + 1), "guest", Role::Replica));
        let refused = match n % 4 {
            0 => stranger.ask(&connection, &Ask::Join(request)),
            1 => {
                request.certificate_request = "x".repeat(60 << 10);
                stranger.ask(&connection, &Ask::Join(request))
            }
            2 => {
                request.node.url = format!("http://{}", "y".repeat(1 << 20));
                stranger.ask(&connection, &Ask::Join(request))
            }
            _ => {
                request.secret = vec![n; 8 << 20].into();
                stranger.ask(&connection, &Ask::Join(request))
            }
        };
        assert!(refused.is_refusal(), "{n}: {refused:?}");
    }
    // anything else
    let others = [
        Ask::Build,
        Ask::Present,
        Ask::Renew { certificate_request: String::new() },
        Ask::Look(vec![]),
    ];
    for ask in for_replicas().into_iter().chain(others) {
        let connection = stranger.knock(at).unwrap_or_else(|no| panic!("{no}"));
        let refused = stranger.ask(&connection, &ask);
        assert!(refused.is_refusal(), "{ask:?}: {refused:?}");
    }
    // frames that are announced and never come, and questions that would swell when they are
    // decoded
    let mut look = encode(&Open::Ask(Ask::Look(vec![])));
    look.truncate(rules::wire::HEAD);
    look.extend([0xff, 0xff, 0xff, 0x7f]);
    look.resize(40 << 20, 0);
    for _ in 0..8 {
        let connection = stranger.knock(at).unwrap_or_else(|no| panic!("{no}"));
        assert!(stranger.say(&connection, &look).is_refusal());
    }
    let grown = mesh.members()[0].memory().saturating_sub(memory);
    assert!(grown < 128 << 20, "{} MiB more after what strangers sent", grown >> 20);
    assert_eq!(settled_revision(&mesh), before, "nothing was proposed for a stranger's sake");
    all_is_well(&mesh, "1");
}

#[test]
fn a_crowd_of_strangers_does_not_keep_members_out() {
    let mesh = Formed::of(&THREE, "");
    let at = mesh_address(&mesh, "one");
    let crowd: Vec<Intruder> = (0..8).map(|_| Intruder::stranger()).collect();
    let held: Vec<_> = crowd.iter().flat_map(|one| (0..40).map(move |_| one.knock(at))).collect();
    assert!(held.iter().any(Result::is_err), "{} connections of strangers stay open", held.len());
    // members come and go meanwhile
    mesh.members()[1].stop(rustix::process::Signal::KILL);
    mesh.members()[1].serve();
    mesh.members()[1].wait_ready();
    all_is_well(&mesh, "1");
    drop(held);
}

#[test]
fn an_edge_does_what_edges_may_and_has_no_say_in_who_is_alive() {
    let mut mesh = Formed::of(&THREE, "upstreams:\n  allow_loopback: true\n");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    wait::until("the replicas see the edge", || {
        let nodes = mesh.status(2).ok()?["nodes"].as_array()?.clone();
        nodes.iter().any(|node| node["name"] == "edge" && node["state"] == "up").then_some(())
    });
    let identity = stolen(&mesh.members()[edge].data());
    assert!(identity.authority.key.is_empty(), "an edge has no key of the CA");
    let intruder = Intruder::with(&identity);
    let addresses: Vec<_> = ["one", "two", "three"].map(|name| mesh_address(&mesh, name)).into();
    let before = settled_revision(&mesh);
    for at in &addresses {
        let connection = intruder.knock(*at).unwrap_or_else(|no| panic!("{no}"));
        for ask in for_replicas() {
            let refused = intruder.ask(&connection, &ask);
            assert!(refused.is_refusal(), "{ask:?}: {refused:?}");
        }
        for open in [Open::Lease, Open::Bulk(rules::wire::Bulk::Snapshot(vec![0; 64]))] {
            assert!(intruder.say(&connection, &encode(&open)).is_refusal(), "{open:?}");
        }
        // its own kinds of questions, longer than they may be
        let longer = Ask::Look(vec![
            rules::wire::Lookup {
                query: rules::wire::Query::Key(vec![1; 64]),
                unless: None
            };
            100_000
        ]);
        assert!(intruder.ask(&connection, &longer).is_refusal());
        let told = intruder.ask(&connection, &Ask::Build);
        assert!(
            matches!(&told, Outcome::Answered(answer) if matches!(**answer, Answer::Build(_))),
            "{told:?}"
        );
        slander(&mesh, &intruder, *at, &identity);
    }
    // what a project's patterns leave out it cannot have asked for; what they admit it can, of an
    // upstream that is not there
    let registry =
        serde_json::json!({"name": "far", "type": "docker-registry", "url": "http://127.0.0.1:9"});
    let made = mesh.client(0).send_json(Method::POST, "/api/v2.0/registries", &registry);
    assert_eq!(made.unwrap_or_else(|none| panic!("{none}")).status, 201);
    let id =
        mesh.client(0).get("/api/v2.0/registries").unwrap_or_else(|none| panic!("{none}")).json()
            [0]["id"]
            .clone();
    let project = serde_json::json!({
        "project_name": "far",
        "registry_id": id,
        "metadata": {"public": "true", "proxy_cache_filter_pattern": "open/*"},
    });
    let made = mesh.client(0).send_json(Method::POST, "/api/v2.0/projects", &project);
    assert_eq!(made.unwrap_or_else(|none| panic!("{none}")).status, 201);
    let primary = wait::until("the project has a primary", || {
        let status = mesh.status(0).ok()?;
        let project =
            status["projects"].as_array()?.iter().find(|one| one["name"] == "far")?.clone();
        Some(
            project["primary"]["name"].as_str().or_else(|| project["primary"].as_str())?.to_owned(),
        )
    });
    let connection =
        intruder.knock(mesh_address(&mesh, &primary)).unwrap_or_else(|no| panic!("{no}"));
    let resolve = |name: &str| {
        let repository = name.parse().expect("a name");
        let ask = Ask::Resolve { repository, reference: "1".into() };
        match intruder.ask(&connection, &ask) {
            Outcome::Answered(answer) => match *answer {
                Answer::Resolved(resolution) => resolution,
                other => panic!("{other:?}"),
            },
            closed => panic!("{closed:?}"),
        }
    };
    assert_eq!(resolve("far/secret/app"), rules::wire::Resolution::Missing);
    assert_ne!(resolve("far/open/app"), rules::wire::Resolution::Missing);
    // it says another's name, a name of its own that is none, and an address of a registry
    let connection = intruder.knock(addresses[0]).unwrap_or_else(|no| panic!("{no}"));
    let own = record(identity.node, "edge", Role::Edge);
    for wrong in [
        NodeRecord { id: id_of(&mesh, "two"), ..own.clone() },
        NodeRecord { name: "two".parse().expect("a name"), ..own.clone() },
        NodeRecord { role: Role::Replica, ..own.clone() },
        NodeRecord { url: "docker.io".into(), ..own.clone() },
        NodeRecord { url: "http://a/\u{1b}[2J".into(), ..own.clone() },
        NodeRecord { url: format!("http://{}", "a".repeat(5000)), ..own },
    ] {
        let refused = intruder.ask(&connection, &Ask::Introduce(wrong.clone()));
        assert!(refused.is_refusal(), "{wrong:?}: {refused:?}");
    }
    stay_up(&mesh);
    let entries = settled_revision(&mesh) - before;
    assert!(entries <= 8, "{entries} entries for a registry, a project, and what an edge said");
    all_is_well(&mesh, "1");
}

#[test]
fn a_node_that_was_taken_out_is_not_heard_in_any_channel() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let identity = stolen(&mesh.members()[edge].data());
    let intruder = Intruder::with(&identity);
    let at = mesh_address(&mesh, "one");
    let open = intruder.knock(at).unwrap_or_else(|no| panic!("{no}"));
    assert!(!intruder.ask(&open, &Ask::Build).is_refusal());
    let removed = mesh.client(0).ask(Method::DELETE, "/api/atoll/v1/nodes/edge").send();
    assert_eq!(removed.unwrap_or_else(|none| panic!("{none}")).status, 204);
    // the open connection is no longer of any use, and a new one is refused
    let request = Candidate::again(&identity).expect("a request").request;
    for ask in
        [Ask::Build, Ask::Present, Ask::Look(vec![]), Ask::Renew { certificate_request: request }]
    {
        assert!(intruder.ask(&open, &ask).is_refusal(), "{ask:?}");
        if let Ok(connection) = intruder.knock(at) {
            assert!(intruder.ask(&connection, &ask).is_refusal(), "{ask:?}");
        }
    }
    // nor does its identity come back with another invitation
    let token = mesh.members()[0].invite_as("edge");
    let stranger = Intruder::stranger();
    let connection = stranger.knock(at).unwrap_or_else(|no| panic!("{no}"));
    let request = join_request(secret_of(&token), record(identity.node, "back", Role::Edge));
    assert!(stranger.ask(&connection, &Ask::Join(request)).is_refusal());
    let connection = stranger.knock(at).unwrap_or_else(|no| panic!("{no}"));
    let request = join_request(secret_of(&token), record(NodeId(4242), "fresh", Role::Edge));
    let joined = stranger.ask(&connection, &Ask::Join(request));
    assert!(
        matches!(&joined, Outcome::Answered(a) if matches!(&**a, Answer::Joined(Ok(_)))),
        "{joined:?}"
    );
    all_is_well(&mesh, "1");
}

#[test]
fn a_certificate_counts_for_its_role_and_its_time() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let at = mesh_address(&mesh, "one");
    let authority = stolen(&mesh.members()[1].data()).authority;
    let (of_edge, of_replica) =
        (stolen(&mesh.members()[edge].data()), stolen(&mesh.members()[1].data()));
    let now = ground::clock::timestamp();
    // with the node's own key
    let signed = |identity: &Identity, role, at| {
        let request = Candidate::again(identity).expect("a request").request;
        let certificate = authority.sign(identity.node, role, &request, at).expect("a certificate");
        Identity { certificate, authority: authority.clone(), ..identity.clone() }
    };
    let refused = |identity: &Identity, ask: &Ask| {
        let intruder = Intruder::with(identity);
        match intruder.knock(at) {
            Err(_) => true,
            Ok(connection) => intruder.ask(&connection, ask).is_refusal(),
        }
    };
    wait::until("the mesh knows its nodes by their keys", || {
        let unknown = mesh.status(0).ok()?["trust"]["unknown_keys"].as_array()?.len();
        (unknown == 0).then_some(())
    });
    assert!(!refused(&signed(&of_edge, Role::Edge, now), &Ask::Build));
    // not even the CA's key makes an edge of the records a replica, or the other way round
    assert!(refused(&signed(&of_edge, Role::Replica, now), &Ask::Build));
    assert!(refused(&signed(&of_replica, Role::Edge, now), &Ask::Build));
    // nor does it make another the node
    for (identity, role) in [(&of_edge, Role::Edge), (&of_replica, Role::Replica)] {
        assert!(refused(&forged(&authority, identity.node, role, now), &Ask::Build), "{role:?}");
    }
    // what has expired renews itself while its node is listed, and does nothing else
    let long_ago = Timestamp(now.0 - 90 * 24 * 3600 * 1000);
    let expired = signed(&of_edge, Role::Edge, long_ago);
    for ask in [Ask::Build, Ask::Look(vec![]), Ask::Present] {
        assert!(refused(&expired, &ask), "{ask:?}");
    }
    let intruder = Intruder::with(&expired);
    let connection = intruder.knock(at).unwrap_or_else(|no| panic!("{no}"));
    let request = Candidate::again(&expired).expect("a request").request;
    let renewed = intruder.ask(&connection, &Ask::Renew { certificate_request: request });
    let Outcome::Answered(answer) = renewed else { panic!("{renewed:?}") };
    let Answer::Renewed(Ok(certificate)) = *answer else { panic!("{answer:?}") };
    let renewed = expired.renewed(&certificate).expect("a certificate of this mesh");
    assert!(!refused(&renewed, &Ask::Build));
    assert!(refused(&renewed, &Ask::ReadIndex), "it is an edge's, as before");
    let unlisted = forged(&authority, NodeId(99), Role::Edge, long_ago);
    assert!(refused(
        &unlisted,
        &Ask::Renew { certificate_request: Candidate::again(&unlisted).expect("one").request }
    ));
    all_is_well(&mesh, "1");
}

#[test]
fn a_node_whose_certificate_has_expired_renews_it_and_goes_on() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let authority = stolen(&mesh.members()[1].data()).authority;
    let long_ago = Timestamp(ground::clock::timestamp().0 - 90 * 24 * 3600 * 1000);
    // everything was off for three months
    for at in (0..=edge).rev() {
        mesh.members()[at].stop(rustix::process::Signal::TERM);
        let folder = mesh.members()[at].data().join("identity");
        let identity = stolen(&mesh.members()[at].data());
        let role = if at == edge { Role::Edge } else { Role::Replica };
        let request = Candidate::again(&identity).expect("a request").request;
        let certificate =
            authority.sign(identity.node, role, &request, long_ago).expect("a certificate");
        Identity { certificate, ..identity }.save(&folder).expect("a folder");
    }
    for at in 0..=edge {
        mesh.members()[at].serve();
    }
    for at in 0..=edge {
        mesh.members()[at].wait_ready();
    }
    all_is_well(&mesh, "1");
    wait::until_ok("the edge serves, too", || mesh.repository(edge, "demo/app").pull("1"));
}

#[test]
fn a_stolen_replica_moves_nobody_by_gossip() {
    let mesh = Formed::of(&THREE, "");
    // the thief has the disk of "three", which is off
    let thief = stolen(&mesh.members()[2].data());
    mesh.members()[2].stop(rustix::process::Signal::TERM);
    let intruder = Intruder::with(&thief);
    for name in ["one", "two"] {
        slander(&mesh, &intruder, mesh_address(&mesh, name), &thief);
    }
    let image = Image::tiny();
    for n in 0..5 {
        mesh.repository(0, "demo/app")
            .push(&image, &format!("t{n}"))
            .unwrap_or_else(|no| panic!("{no}"));
        std::thread::sleep(Duration::from_millis(500));
    }
    for at in 0..2 {
        let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
        let state = |name: &str| state_of(&status, name);
        assert_eq!((state("one"), state("two")), ("up".into(), "up".into()), "{}", status["nodes"]);
    }
}

#[test]
fn what_a_node_keeps_is_for_its_own_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    all_private(&mesh.members()[0].data());
    let ledger =
        std::fs::read(mesh.members()[0].data().join("ledger/ledger.redb")).expect("a ledger");
    assert!(
        ledger.windows(8).any(|part| part == b"sealed1."),
        "the key that signs tokens is sealed"
    );
    // opened by another process, it is closed again at the next start
    mesh.members()[0].stop(rustix::process::Signal::TERM);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(mesh.members()[0].data(), open).expect("our folder");
    mesh.members()[0].serve();
    mesh.members()[0].wait_ready();
    all_private(&mesh.members()[0].data());
}

/// Other users can read nothing below `folder`, nor list it.
fn all_private(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let found = std::fs::symlink_metadata(&path).expect("it is there");
        assert_eq!(found.permissions().mode() & 0o077, 0, "{} is open to others", path.display());
        if found.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
    }
}

fn state_of(status: &Value, name: &str) -> String {
    let nodes = status["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|node| node["name"] == name).expect("it is listed");
    node["state"].as_str().expect("a state").to_owned()
}

/// Every replica sees every other up for as long as a suspicion would take to come true.
fn stay_up(mesh: &Formed) {
    for _ in 0..12 {
        for (at, (seer, _)) in THREE.iter().enumerate() {
            let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
            for (name, _) in THREE {
                assert_eq!(state_of(&status, name), "up", "{name}, as {seer} sees it");
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Says over the gossip that others are down, that they live elsewhere and started in the far
/// future, and that they are what they are not.
fn slander(mesh: &Formed, intruder: &Intruder, at: SocketAddr, as_whom: &Identity) {
    let connection = intruder.knock(at).unwrap_or_else(|no| panic!("{no}"));
    let of = |name: &str, place: usize| Gossiped {
        id: id_of(mesh, name),
        address: mesh_address(mesh, name),
        incarnation: incarnation(&mesh.members()[place].data()),
    };
    let known: Vec<Gossiped> =
        THREE.iter().enumerate().map(|(place, (name, _))| of(name, place)).collect();
    let own = intruder_member(as_whom);
    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let now = ground::clock::timestamp().0;
    for to in known.iter().filter(|member| member.address == at) {
        for other in known.iter().filter(|member| member.id != as_whom.node) {
            for later in [0, 1, 3_600_000, u64::MAX - now] {
                let moved =
                    Gossiped { address: nowhere, incarnation: now + later, ..other.clone() };
                // that it is elsewhere, and down there
                let news = [foca::Member::alive(moved.clone()), foca::Member::down(moved)];
                for _ in 0..3 {
                    intruder.gossip(&connection, &own, to, &news);
                }
            }
        }
    }
    std::thread::sleep(Duration::from_millis(300));
}

fn intruder_member(identity: &Identity) -> Gossiped {
    let incarnation = ground::clock::timestamp().0;
    Gossiped { id: identity.node, address: ([127, 0, 0, 1], 10).into(), incarnation }
}

/// The secret in a token: its last 32 bytes.
fn secret_of(token: &str) -> Vec<u8> {
    use base64::Engine as _;
    let encoded = token.trim().split_once('.').expect("a token").1;
    let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(encoded).expect("a token");
    bytes[bytes.len() - SECRET..].to_vec()
}

#[test]
fn a_new_mesh_has_the_newest_level_and_says_which_build_each_node_runs() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let newest = u64::from(rules::ledger::level::Level::NEWEST.0);
    for at in 0..3 {
        let told = wait::until("every node says which build it runs", || {
            let told = mesh.client(at).get("/api/atoll/v1/level").ok()?.json();
            let nodes = told["nodes"].as_array()?.clone();
            (nodes.len() == 4 && nodes.iter().all(|node| node["supports"] == newest))
                .then_some(told)
        });
        assert_eq!(told["level"], newest, "{told}");
    }
    // there is nothing to raise it to, and nothing is proposed for that
    let before = settled_revision(&mesh);
    let raised = mesh
        .client(1)
        .ask(Method::POST, "/api/atoll/v1/level")
        .send()
        .unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(raised.status, 409, "{raised}");
    assert_eq!(settled_revision(&mesh), before);
    let url = format!("http://{}", mesh.members()[0].place().http);
    let password = mesh.members()[0].data().join("admin-password");
    let mut level = mesh.members()[0].atoll("level");
    let shown =
        tests::process::succeed(level.args(["--url", &url, "--password-file"]).arg(password));
    assert!(
        shown.contains("edge") && shown.contains(&format!("feature level {newest}")),
        "{shown}"
    );
    let shown = tests::process::succeed(&mut mesh.members()[0].atoll("version"));
    assert!(shown.contains(&format!("feature levels up to {newest}")), "{shown}");
}

#[test]
fn a_token_of_a_repository_is_good_for_nothing_else() {
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let image = Image::tiny();
    mesh.client(0)
        .send_json(
            Method::POST,
            "/api/v2.0/projects",
            &serde_json::json!({"project_name": "secret"}),
        )
        .unwrap_or_else(|none| panic!("{none}"));
    let wait_for_grants = mesh.repository(0, "secret/app");
    wait::until_ok("one region is enough", || {
        tests::repository::set_durability(&mesh.client(0), "secret", 1);
        tests::repository::set_durability(&mesh.client(0), "demo", 1);
        wait_for_grants.push(&image, "1")
    });
    let token = |scopes: &str| {
        let answer = mesh.client(0).get(&format!("/service/token?service=atoll{scopes}"));
        answer.unwrap_or_else(|none| panic!("{none}")).json()["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    };
    let with = |token: &str| mesh.members()[0].anyone().bearer(token);
    let status = |answer: Result<tests::http::Answer, tests::http::Unanswered>| {
        answer.unwrap_or_else(|none| panic!("{none}")).status
    };
    let project = serde_json::json!({"project_name": "made", "metadata": {"public": "true"}});
    let narrow = token("&scope=repository:demo/a:pull,push");
    for wrong in [narrow.clone(), token(""), token("&scope=registry:catalog:*")] {
        assert_eq!(
            status(with(&wrong).send_json(Method::POST, "/api/v2.0/projects", &project)),
            401
        );
        assert_eq!(status(with(&wrong).get("/api/atoll/v1/status")), 401);
    }
    for wrong in [narrow.clone(), token(""), token("&scope=registry:api:*")] {
        assert_eq!(status(with(&wrong).get("/v2/_catalog")), 401);
    }
    // a blob of a repository that is not everybody's is not mounted for it, whether it says where
    // from or not
    let blob = &image.blobs[0].digest;
    for from in ["", "&from=secret/app"] {
        let mount = format!("/v2/demo/a/blobs/uploads/?mount={blob}{from}");
        assert_eq!(status(with(&narrow).ask(Method::POST, &mount).send()), 202, "{mount}");
    }
    assert_eq!(
        status(
            mesh.client(0)
                .ask(Method::POST, &format!("/v2/demo/a/blobs/uploads/?mount={blob}"))
                .send()
        ),
        201
    );
    // and what a scope was made for it does
    assert_eq!(status(with(&token("&scope=registry:catalog:*")).get("/v2/_catalog")), 200);
    let api = token("&scope=registry:api:*");
    assert_eq!(status(with(&api).send_json(Method::POST, "/api/v2.0/projects", &project)), 201);
    assert_eq!(
        status(with(&api).get("/v2/secret/app/tags/list")),
        401,
        "of repositories it says nothing"
    );
    let anonymous = mesh.members()[0]
        .anyone()
        .get("/service/token?service=atoll&scope=registry:api:*&scope=registry:catalog:*");
    let anonymous = anonymous.unwrap_or_else(|none| panic!("{none}")).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(status(with(&anonymous).get("/v2/_catalog")), 401);
}

#[test]
fn a_page_of_another_site_writes_nothing_with_the_password_that_a_browser_keeps() {
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let body = serde_json::json!({"project_name": "made"}).to_string();
    let post = |headers: &[(&str, &str)]| {
        let mut ask = mesh.client(0).ask(Method::POST, "/api/v2.0/projects");
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let answer = ask.body(body.clone()).send().unwrap_or_else(|none| panic!("{none}"));
        (answer.status, answer.to_string())
    };
    let json = ("content-type", "application/json");
    // what a form of another page can send
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    {
        let (status, said) = post(&[("content-type", kind)]);
        assert_eq!(status, 415, "{kind}: {said}");
        assert!(said.contains("application/json"), "{said}");
    }
    for (name, value) in
        [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        assert_eq!(post(&[json, (name, value)]).0, 403, "{name}: {value}");
    }
    let own = format!("http://{}", mesh.members()[0].place().http);
    assert_eq!(
        mesh.client(0)
            .get("/api/v2.0/projects/made")
            .unwrap_or_else(|none| panic!("{none}"))
            .status,
        404
    );
    assert_eq!(post(&[json, ("origin", &own), ("sec-fetch-site", "same-origin")]).0, 201);
    // outside the API there is no challenge after which a browser would keep a password
    for (path, kept) in [("/api/v2.0/registries", true), ("/v2/_catalog", false), ("/v2/", false)] {
        let answer = mesh.members()[0].anyone().get(path).unwrap_or_else(|none| panic!("{none}"));
        let challenge = answer.header("www-authenticate").unwrap_or_default().to_owned();
        assert_eq!(
            (answer.status, challenge.starts_with("Basic")),
            (401, kept),
            "{path}: {challenge}"
        );
    }
}
