//! Sessions: who has signed in with a browser is known at every node by a cookie, until what they
//! showed counts no more; and the settings that are in the ledger are the same at every node.

use http::Method;
use serde_json::json;
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Image, MANIFEST};
use tests::people::{PASSWORD, create_robot, create_user, must, robot_of, with_session};
use tests::repository::Repository;
use tests::wait;

const CURRENT: &str = "/api/v2.0/users/current";

fn sign_in(node: &Client, name: &str, password: &str, header: (&str, &str)) -> Answer {
    let form = format!("principal={name}&password={password}");
    let ask = node.ask(Method::POST, "/c/login").header(header.0, header.1);
    let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
    ask.send().unwrap_or_else(|none| panic!("{none}"))
}

fn status(client: &Client, path: &str) -> u16 {
    client.get(path).unwrap_or_else(|none| panic!("{path}: {none}")).status
}

#[test]
fn a_session_is_good_at_every_node_until_the_password_changes() {
    let mut mesh = Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    let ann = create_user(&admin, "ann");
    let [one, two] = [0, 1].map(|at| mesh.members()[at].anyone());
    let plain = ("accept", "*/*");

    let answer = sign_in(&one, "ann", PASSWORD, plain);
    assert_eq!(answer.status, 200, "{answer}");
    let set = answer.header("set-cookie").expect("a cookie");
    for word in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age=28800"] {
        assert!(set.contains(word), "{set}");
    }
    assert!(!set.contains("Secure"), "without TLS it would never be sent back: {set}");
    for (name, password, header, then) in [
        ("ann", "wrong", plain, 401),
        ("nobody", PASSWORD, plain, 401),
        ("ann", PASSWORD, ("origin", "http://elsewhere.example"), 403),
    ] {
        let answer = sign_in(&one, name, password, header);
        assert_eq!((answer.status, answer.header("set-cookie")), (then, None), "{answer}");
    }
    tests::repository::create_project(&admin, "p", false, 1);
    let robot = create_robot(&admin, &robot_of("p", "ci", &["pull"]));
    assert_eq!(sign_in(&one, "robot%24p%2Bci", &robot.secret, plain).status, 403);
    assert_eq!(sign_in(&mesh.members()[edge].anyone(), "ann", PASSWORD, plain).status, 403);

    // what one node signed, every other takes; a write repeats what a read was told
    let browser = with_session(&one, "ann", PASSWORD);
    let elsewhere = browser.clone().asking(&two);
    let shown = must(&elsewhere, Method::GET, CURRENT, &json!({}), 200);
    assert_eq!(shown.json()["username"], "ann");
    assert_eq!(shown.header("cache-control"), Some("no-store"), "it may have a secret");
    let project = json!({"project_name": "anns"});
    must(&elsewhere, Method::POST, "/api/v2.0/projects", &project, 201);
    let (cookie, _) = browser.session().expect("a session");
    for csrf in ["", "guessed"] {
        let forged = one.clone().with_session(cookie, csrf);
        must(&forged, Method::POST, "/api/v2.0/projects", &json!({"project_name": "x"}), 403);
        assert_eq!(status(&forged, CURRENT), 200);
    }
    // a cookie is no token, and none that was changed counts
    assert_eq!(status(&one.clone().bearer(cookie), CURRENT), 401);
    let changed = format!("{}x", &cookie[..cookie.len() - 2]);
    assert_eq!(status(&one.clone().with_session(&changed, ""), CURRENT), 401);
    let app = Repository::new(&elsewhere, "anns/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let at_edge = browser.clone().asking(&mesh.members()[edge].anyone());
    let reads = || {
        let ask = at_edge.ask(Method::GET, "/v2/anns/app/manifests/1").header("accept", MANIFEST);
        ask.send().unwrap_or_else(|none| panic!("{none}")).status
    };
    wait::until("the edge knows ann", || (reads() == 200).then_some(()));

    let left = browser.get("/c/log_out").unwrap_or_else(|none| panic!("{none}"));
    assert!(
        left.header("set-cookie")
            .is_some_and(|set| set.contains("sid=;") && set.contains("Max-Age=0"))
    );
    let path = format!("/api/v2.0/users/{ann}/password");
    must(&admin, Method::PUT, &path, &json!({"new_password": "An0ther-word"}), 200);
    assert_eq!((status(&browser, CURRENT), status(&elsewhere, CURRENT)), (401, 401));
    wait::until("the edge hears of it", || matches!(reads(), 401 | 403).then_some(()));
}

#[test]
fn the_settings_in_the_ledger_are_those_of_every_node() {
    let mesh = Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], "");
    let (admin, other) = (mesh.client(0), mesh.client(1));
    create_user(&admin, "ann");
    let ann = mesh.members()[0].anyone().basic("ann", PASSWORD);
    let path = "/api/v2.0/configurations";
    let nothing = json!({});
    let minutes = |client: &Client| {
        must(client, Method::GET, path, &json!({}), 200).json()["session_timeout"].clone()
    };
    assert_eq!(minutes(&admin), json!({"value": 480, "editable": true}));
    must(&ann, Method::GET, path, &nothing, 403);
    must(&ann, Method::PUT, path, &json!({"session_timeout": 7}), 403);
    for bad in [json!({"session_timeout": 0}), json!({"no_such": 1}), nothing] {
        must(&admin, Method::PUT, path, &bad, 400);
    }
    must(&admin, Method::PUT, path, &json!({"session_timeout": "7"}), 200);
    assert_eq!(minutes(&other), json!({"value": 7, "editable": true}));
    let answer = sign_in(&mesh.members()[1].anyone(), "ann", PASSWORD, ("accept", "*/*"));
    assert!(answer.header("set-cookie").is_some_and(|set| set.contains("Max-Age=420")), "{answer}");
    let log = must(&admin, Method::GET, "/api/v2.0/auditlog-exts", &json!({}), 200).json();
    let is_it = |one: &serde_json::Value| {
        one["resource_type"] == "configuration" && one["resource"] == "session_timeout"
    };
    assert!(log.as_array().is_some_and(|all| all.iter().any(is_it)), "{log}");
}
