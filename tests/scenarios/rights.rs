//! Nobody gives, keeps or learns more than they have: robots that manage others, requests that take
//! long, and names that look like another one's.

use http::{Method, header};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Blob, Image};
use tests::people::{PASSWORD, Robot, add_member, create_robot, create_user, must};
use tests::repository::{Repository, create_project};

const SITES: [(&str, &str); 2] = [("one", "us-east-1"), ("two", "eu-1")];
const ROBOTS: &str = "/api/v2.0/robots";
const MEMBERS: &str = "/api/v2.0/projects/team/members";

/// What everybody may do in a public project, as robots are granted it.
const OF_EVERYBODY: [&str; 16] = [
    "project read",
    "label read",
    "label list",
    "repository read",
    "repository list",
    "repository pull",
    "scan read",
    "sbom read",
    "scanner read",
    "artifact read",
    "artifact list",
    "artifact-addition read",
    "tag list",
    "accessory list",
    "log list",
    "member list",
];

fn accesses(all: &[&str]) -> Value {
    let one = |text: &&str| {
        let (resource, action) = text.split_once(' ').expect("a resource and an action");
        json!({"resource": resource, "action": action})
    };
    Value::from(all.iter().map(one).collect::<Vec<_>>())
}

fn robot_with(name: &str, days: i64, all: &[&str]) -> Value {
    json!({"name": name, "level": "project", "duration": days, "permissions": [
        {"kind": "project", "namespace": "team", "access": accesses(all)}]})
}

fn told(answer: &Answer) -> String {
    answer.envelope().map(|(_, text)| text).unwrap_or_default()
}

struct Town {
    mesh: Formed,
    admin: Client,
}

impl Town {
    fn new() -> Self {
        let mesh = Formed::of(&SITES[..1], "");
        let admin = mesh.client(0);
        create_project(&admin, "team", false, 1);
        create_user(&admin, "ann");
        Self { mesh, admin }
    }

    fn node(&self) -> Client {
        self.mesh.members()[0].anyone()
    }

    fn robot(&self, what: &Value) -> (Robot, Client) {
        let robot = create_robot(&self.admin, what);
        let client = self.node().basic(&robot.name, &robot.secret);
        (robot, client)
    }
}

#[test]
fn a_robot_that_manages_members_and_settings_gives_no_more_than_it_has() {
    let town = Town::new();
    let manages = [
        "member create",
        "member update",
        "member list",
        "metadata create",
        "metadata update",
        "project update",
    ];
    let (_, robot) = town.robot(&robot_with("few", 30, &manages));
    let ann = |role: u64| json!({"role_id": role, "member_user": {"username": "ann"}});
    for role in 1..=5 {
        let refused = must(&robot, Method::POST, MEMBERS, &ann(role), 403);
        assert!(told(&refused).contains("may not"), "{refused}");
    }
    let id = add_member(&town.admin, "team", "ann", 3);
    let member = format!("{MEMBERS}/{id}");
    must(&robot, Method::PUT, &member, &json!({"role_id": 1}), 403);
    let open = json!({"metadata": {"public": "true"}});
    must(&robot, Method::PUT, "/api/v2.0/projects/team", &open, 403);
    must(
        &robot,
        Method::PUT,
        "/api/v2.0/projects/team/metadatas/public",
        &json!({"public": "true"}),
        403,
    );
    // what gives nobody anything is done
    let scan = json!({"auto_scan": "true"});
    must(&robot, Method::POST, "/api/v2.0/projects/team/metadatas", &scan, 200);
    must(
        &robot,
        Method::PUT,
        "/api/v2.0/projects/team",
        &json!({"metadata": {"public": "false"}}),
        200,
    );

    // one that has all that a limited guest has makes them, and opens what it may see
    let more = [&manages[..], &OF_EVERYBODY[..], &["quota read", "configuration read"]].concat();
    let (_, robot) = town.robot(&robot_with("more", 30, &more));
    must(&robot, Method::PUT, &member, &json!({"role_id": 5}), 200);
    must(&robot, Method::PUT, &member, &json!({"role_id": 2}), 403);
    must(&robot, Method::PUT, "/api/v2.0/projects/team", &open, 200);
    // people's roles give what they gave
    create_user(&town.admin, "bob");
    add_member(&town.admin, "team", "bob", 1);
}

#[test]
fn a_robot_does_not_change_itself_and_makes_none_that_outlives_it() {
    let town = Town::new();
    let all = [
        "robot create",
        "robot read",
        "robot update",
        "robot delete",
        "robot list",
        "repository pull",
    ];
    let (own, robot) = town.robot(&robot_with("own", 10, &all));
    let path = format!("{ROBOTS}/{}", own.id);
    let longer = robot_with("own", -1, &all);
    for (method, path, body) in [
        (Method::PUT, path.clone(), longer.clone()),
        (Method::PATCH, path.clone(), json!({"secret": ""})),
        (
            Method::POST,
            format!("{path}/trusts"),
            json!({"issuer": "https://x", "audience": "a",
            "subject": "b", "keys": {"keys": []}}),
        ),
    ] {
        let refused = must(&robot, method, &path, &body, 403);
        assert!(told(&refused).contains("may not change itself"), "{refused}");
    }
    let pulls = |days| robot_with("child", days, &["repository pull"]);
    for days in [-1, 11, 400] {
        let refused = must(&robot, Method::POST, ROBOTS, &pulls(days), 403);
        assert!(told(&refused).contains("for longer"), "{refused}");
    }
    must(
        &robot,
        Method::POST,
        ROBOTS,
        &robot_with("child", 5, &["repository push", "repository pull"]),
        403,
    );
    must(&robot, Method::POST, ROBOTS, &pulls(5), 201);
    // nor does it take over one that is there for longer
    let (other, _) = town.robot(&robot_with("other", -1, &["repository pull"]));
    must(&robot, Method::PATCH, &format!("{ROBOTS}/{}", other.id), &json!({"secret": ""}), 403);
    must(&town.admin, Method::PUT, &path, &longer, 200);
    must(&robot, Method::POST, ROBOTS, &robot_with("late", -1, &["repository pull"]), 201);
}

#[test]
fn what_is_asked_for_a_robot_tells_nothing_of_projects() {
    let town = Town::new();
    let ann = town.node().basic("ann", PASSWORD);
    let (_, system) = town.robot(&json!({"name": "sys", "level": "system", "duration": 30,
        "permissions": [{"kind": "system", "namespace": "/", "access": accesses(&["robot create"])}]}));
    let pull = accesses(&["repository pull"]);
    let push = accesses(&["repository push"]);
    let fly = accesses(&["repository fly"]);
    for (who, level) in [(&ann, "project"), (&system, "system"), (&system, "project")] {
        for access in [json!([]), pull.clone(), push.clone(), fly.clone()] {
            for others in [vec![], vec!["elsewhere"]] {
                let asked = |name: &str| {
                    let mut permissions =
                        vec![json!({"kind": "project", "namespace": name, "access": access})];
                    permissions.extend(others.iter().map(
                        |other| json!({"kind": "project", "namespace": other, "access": pull}),
                    ));
                    let body = json!({"name": "x", "level": level, "duration": 5, "permissions": permissions});
                    let answer = who.send_json(Method::POST, ROBOTS, &body);
                    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
                    assert!(matches!(answer.status, 400 | 403), "{answer}");
                    (answer.status, told(&answer).replace(name, "NAME"))
                };
                assert_eq!(asked("team"), asked("none"), "{level} {access} {others:?}");
            }
        }
    }
    // nor does a token
    let tokens = |name: &str| {
        let path = format!("/service/token?service=atoll&scope=repository:{name}/app:pull,push");
        let answer = ann.get(&path).unwrap_or_else(|none| panic!("{none}"));
        (answer.status, answer.json().as_object().expect("an object").len())
    };
    assert_eq!(tokens("team"), tokens("none"));

    // how many members a project has is told to its members
    let summary = |who: &Client| {
        must(who, Method::GET, "/api/v2.0/projects/team/summary", &json!({}), 200).json()
    };
    must(
        &town.admin,
        Method::PUT,
        "/api/v2.0/projects/team",
        &json!({"metadata": {"public": "true"}}),
        200,
    );
    for who in [&town.node(), &ann] {
        assert_eq!(summary(who), json!({"repo_count": 0}));
    }
    add_member(&town.admin, "team", "ann", 3);
    assert_eq!(summary(&ann)["guest_count"], 1);
}

#[test]
fn a_blob_is_refused_to_whoever_may_no_longer_push_when_all_of_it_has_come() {
    let mesh = Formed::of(&SITES, "");
    let admin = mesh.client(0);
    create_project(&admin, "team", false, 1);
    create_user(&admin, "ann");
    let blob = Blob::random(3 << 20);
    let there = Repository::new(&mesh.client(0), "team/app");
    // at the node that has the upload, through another one, and with the request that begins it
    for (begun, ended) in [(0, Some(0)), (1, Some(0)), (0, None)] {
        let id = add_member(&admin, "team", "ann", 2);
        let ann = |at: usize| mesh.members()[at].anyone().basic("ann", PASSWORD);
        let removed = admin.clone();
        let mut done = false;
        let take_away = move |sent: usize| {
            if sent > 0 && !std::mem::replace(&mut done, true) {
                // this one drives the request that is being sent
                let (admin, path) = (removed.clone(), format!("{MEMBERS}/{id}"));
                let remove = move || must(&admin, Method::DELETE, &path, &json!({}), 200);
                std::thread::spawn(remove).join().expect("they are no member any more");
            }
        };
        let digest = &blob.digest;
        let ask = match ended {
            Some(ended) => {
                let opened = ann(begun).ask(Method::POST, "/v2/team/app/blobs/uploads/").send();
                let opened = opened.unwrap_or_else(|none| panic!("{none}"));
                let place = opened.header("location").expect("a place").to_owned();
                let place = place[place.find("/v2/").expect("a path")..].to_owned();
                ann(ended).ask(Method::PUT, &format!("{place}?digest={digest}"))
            }
            None => {
                let place = format!("/v2/team/app/blobs/uploads/?digest={digest}");
                ann(begun).ask(Method::POST, &place)
            }
        };
        let ask = ask.header(header::CONTENT_TYPE.as_str(), "application/octet-stream");
        let answer = ask.streamed(blob.bytes.clone(), take_away).send();
        let answer = answer.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 403, "{begun} {ended:?}: {answer}");
        let head = admin.ask(Method::HEAD, &format!("/v2/team/app/blobs/{digest}")).send();
        assert_eq!(head.unwrap_or_else(|none| panic!("{none}")).status, 404);
    }
    there.upload(&blob).unwrap_or_else(|no| panic!("{no}"));
    there.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
}

#[test]
fn no_new_name_looks_like_another_users() {
    let town = Town::new();
    let user = |name: &str| json!({"username": name, "password": PASSWORD, "email": format!("{}@example.com", name.len())});
    for name in ["аnn", "ａnn", "\u{251}nn", "аdmin"] {
        let refused = must(&town.admin, Method::POST, "/api/v2.0/users", &user(name), 409);
        assert!(told(&refused).contains("looks like"), "{refused}");
    }
    for name in ["Ann", "jörg", "аня", "ann1"] {
        must(&town.admin, Method::POST, "/api/v2.0/users", &user(name), 201);
    }
}

#[test]
fn a_host_that_is_none_is_refused() {
    let town = Town::new();
    let authority = town.node().authority().to_owned();
    let ask = |head: &str| {
        let mut socket = TcpStream::connect(&authority).expect("a connection");
        write!(socket, "GET /v2/ {head}\r\nConnection: close\r\n\r\n").expect("it is sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    };
    for (head, status) in [
        (format!("HTTP/1.1\r\nHost: {authority}"), "401"),
        ("HTTP/1.1\r\nHost: registry.example.com".into(), "401"),
        ("HTTP/1.1\r\nHost: [::1]:5000".into(), "401"),
        ("HTTP/1.0".into(), "401"),
        ("HTTP/1.1".into(), "400"),
        ("HTTP/1.1\r\nHost: a\r\nHost: b".into(), "400"),
        ("HTTP/1.1\r\nHost: me@evil.example".into(), "400"),
        ("HTTP/1.1\r\nHost: evil.example/x".into(), "400"),
        ("HTTP/1.1\r\nHost: evil.example\"x".into(), "400"),
        ("HTTP/1.1\r\nHost: evil.example:99999".into(), "400"),
    ] {
        let answer = ask(&head);
        assert!(answer.split(' ').nth(1) == Some(status), "{head:?}: {answer}");
        assert!(!answer.to_lowercase().contains("realm=\"http://evil"), "{answer}");
    }
}
