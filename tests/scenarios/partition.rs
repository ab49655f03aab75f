//! A node cut off from the majority serves what it holds and says that it may be stale; it takes no
//! push. The majority goes on. After the cut is healed they agree.
//!
//! Three nodes are formed over a network of namespaces with `init`, `invite` and `join`. Then one
//! is unplugged: first a node without a special role, then the primary itself, which has to find
//! out that it is no longer the primary.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::image::Image;
use tests::islands::Islands;
use tests::mesh::primary;
use tests::wait;

#[test]
fn a_minority_serves_what_it_holds_refuses_pushes_and_agrees_again_when_healed() {
    let mesh = Islands::raise();
    for lone_is_primary in [false, true] {
        let first = wait::until("demo has a primary", || primary(&mesh.status(0).ok()?, "demo"));
        let first = mesh.named(&first);
        let lone = if lone_is_primary { first } else { (first + 1) % 3 };
        let others: Vec<_> = (0..3).filter(|at| *at != lone).collect();
        let (old, new) = (Image::random(&[40 << 10]), Image::random(&[40 << 10]));
        mesh.repository(first, "demo/cut").push(&old, "moving").unwrap_or_else(|no| panic!("{no}"));
        for at in 0..3 {
            mesh.repository(at, "demo/cut")
                .pull("moving")
                .unwrap_or_else(|no| panic!("before the cut, at {at}: {no}"));
        }

        mesh.cut(lone);
        let reached = others.iter().any(|at| mesh.hears(*at, lone) || mesh.hears(lone, *at));
        assert!(!reached, "the cable is pulled and they still hear each other");
        let alone = mesh.repository(lone, "demo/cut");
        wait::until("the lone node warns that it may be stale", || {
            let found = alone
                .pull("moving")
                .unwrap_or_else(|no| panic!("the lone node holds it and does not serve it: {no}"));
            assert_eq!(found.digest, old.digest());
            found.may_be_stale.then_some(())
        });
        refuses(&mesh, lone, &new);
        wait::until_ok("the majority goes on", || {
            mesh.repository(others[0], "demo/cut").push(&new, "moving")
        });
        for at in &others {
            let found = mesh
                .repository(*at, "demo/cut")
                .pull("moving")
                .unwrap_or_else(|no| panic!("at {at}: {no}"));
            assert_eq!(found.digest, new.digest(), "the majority disagrees at {at}");
        }
        refuses(&mesh, lone, &new);
        cannot_know(&mesh, lone, &new);
        cannot_know_who(&mesh, lone, others[0]);
        let found = alone
            .pull("moving")
            .unwrap_or_else(|no| panic!("the lone node holds it and does not serve it: {no}"));
        assert!(
            found.digest == old.digest() && found.may_be_stale,
            "the lone node cannot know better: {found:?}"
        );

        mesh.heal(lone);
        // the kernels ask for each other's hardware address again within seconds
        wait::until("the cable is plugged in and they hear each other", || {
            mesh.hears(others[0], lone).then_some(())
        });
        wait::until("the lone node has caught up", || {
            let found = alone.pull("moving").ok()?;
            assert!(
                found.may_be_stale || found.digest == new.digest(),
                "stale after healing, and without a warning"
            );
            (!found.may_be_stale).then_some(())
        });
        let last = Image::tiny();
        wait::until_ok("the lone node takes pushes again", || alone.push(&last, "healed"));
        for at in 0..3 {
            for (tag, image) in [("moving", &new), ("healed", &last)] {
                let found = mesh
                    .repository(at, "demo/cut")
                    .pull(tag)
                    .unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
                assert_eq!(found.digest, image.digest(), "{tag} at {at}");
            }
        }
        let epochs: Vec<_> =
            (0..3).map(|at| mesh.status(at).map(|status| status["projects"].clone())).collect();
        assert!(epochs.iter().all(Result::is_ok), "{epochs:?}");
    }
}

#[test]
fn nodes_that_have_all_lost_each_other_find_each_other_again() {
    let mesh = Islands::raise();
    let (old, new) = (Image::random(&[40 << 10]), Image::random(&[40 << 10]));
    mesh.repository(0, "demo/cut").push(&old, "before").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/cut")
            .pull("before")
            .unwrap_or_else(|no| panic!("before the cut, at {at}: {no}"));
    }
    all_see_all(&mesh);
    for at in 0..3 {
        mesh.cut(at);
    }
    for at in 0..3 {
        wait::until(&format!("{} has given up on everyone", Islands::region(at)), || {
            let nodes = mesh.status(at).ok()?["nodes"].as_array()?.clone();
            (nodes.iter().filter(|node| node["state"] == "down").count() == 2).then_some(())
        });
        let said = refuses(&mesh, at, &new);
        let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
        let lost = status["majority"]["lost"].as_str().unwrap_or_default();
        for other in (0..3).filter(|other| *other != at) {
            let other = Islands::region(other);
            assert!(lost.contains("1 of 3 voters up") && lost.contains(other), "{status}");
            assert!(said.contains(other) && said.contains("no majority"), "{said}");
        }
        everything_says_that_the_majority_is_lost(&mesh, at);
    }
    for at in 0..3 {
        mesh.heal(at);
    }
    for at in 0..3 {
        let (repository, tag) = (mesh.repository(at, "demo/cut"), format!("after-{at}"));
        wait::until_ok("a push goes through again", || repository.push(&new, &tag));
        for reader in 0..3 {
            let found = wait::until_ok("and is seen everywhere", || {
                mesh.repository(reader, "demo/cut").pull(&tag)
            });
            assert_eq!(found.digest, new.digest(), "{tag} at {reader}");
        }
    }
    all_see_all(&mesh);
}

/// What an operator tries at night says why it does not work, and not only that it does not.
fn everything_says_that_the_majority_is_lost(mesh: &Islands, at: usize) {
    let client = mesh.client(at).patient_for(Duration::from_secs(20));
    let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
    let mut names = status["nodes"].as_array().expect("nodes").iter().map(|node| &node["name"]);
    let own = &status["node"]["name"];
    let other = names.find(|name| *name != own).and_then(Value::as_str).expect("another");
    let node = format!("/api/atoll/v1/nodes/{other}");
    let tags = "/api/v2.0/projects/demo/repositories/cut/artifacts/before/tags";
    let retention = json!({
        "algorithm": "or",
        "rules": [],
        "trigger": {"kind": "Schedule", "settings": {"cron": ""}},
        "scope": {"level": "project", "ref": 1},
    });
    for (method, path, body) in [
        (Method::POST, "/api/atoll/v1/jobs", json!({"kind": "repair", "project": "demo"})),
        (Method::POST, &format!("{node}/drain"), Value::Null),
        (Method::DELETE, &node, Value::Null),
        (Method::POST, tags, json!({"name": "other"})),
        (Method::POST, "/api/v2.0/retentions", retention),
    ] {
        let answer = client.send_json(method.clone(), path, &body);
        let answer = answer.unwrap_or_else(|none| panic!("{method} {path}: {none}"));
        let said = answer.to_string();
        assert!(answer.status == 503 && said.contains("no majority"), "{method} {path}: {said}");
    }
    // what can be read without one says what cannot be done
    let shown = client.get(&node).unwrap_or_else(|none| panic!("{none}"));
    assert!(shown.to_string().contains("no majority"), "{shown}");
    let told = client.get("/api/atoll/v1/dr").unwrap_or_else(|none| panic!("{none}")).json();
    let advice = told["advice"].to_string();
    assert!(advice.contains("no repair") && !advice.contains("atoll repair"), "{told}");
}

fn all_see_all(mesh: &Islands) {
    for at in 0..3 {
        wait::until(&format!("{} sees all three", Islands::region(at)), || {
            let nodes = mesh.status(at).ok()?["nodes"].as_array()?.clone();
            nodes.iter().all(|node| node["state"] == "up").then_some(())
        });
    }
}

/// What the lone node does not have may have been pushed or made elsewhere since. It says so: with a
/// 404 a kubelet would give up, a client would push again, and Terraform would create a second one.
fn cannot_know(mesh: &Islands, lone: usize, new: &Image) {
    let client = mesh.client(lone);
    for path in [
        format!("/v2/demo/cut/manifests/{}", new.digest()),
        "/v2/demo/cut/manifests/unheard".to_owned(),
        format!("/v2/demo/cut/blobs/{}", new.blobs[1].digest),
        "/v2/demo/unheard/tags/list".to_owned(),
        "/v2/unheard/app/manifests/1".to_owned(),
        "/api/v2.0/projects/unheard".to_owned(),
        "/api/v2.0/projects".to_owned(),
        "/api/v2.0/users/4000000".to_owned(),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client.ask(method, &path).send().unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(answer.status, 503, "{path}: {answer}");
            assert!(answer.header("retry-after").is_some(), "{path}: {:?}", answer.headers);
        }
    }
}

/// With a 401 clients give up, so the lone node does not say that credentials are wrong: their user
/// may have been made elsewhere.
fn cannot_know_who(mesh: &Islands, lone: usize, other: usize) {
    let name = format!("late-{lone}");
    let user = json!({"username": name, "password": "Passw0rd-late", "email": "", "realname": ""});
    wait::until("a user is made on the other side", || {
        let client = mesh.client(other);
        let made = client.send_json(Method::POST, "/api/v2.0/users", &user).ok()?;
        matches!(made.status, 201 | 409).then_some(())
    });
    let asks = |at: usize, path: &str| {
        let late = mesh.anyone(at).basic(&name, "Passw0rd-late");
        late.get(path).unwrap_or_else(|none| panic!("{none}"))
    };
    let token = asks(other, "/service/token?service=atoll").json()["token"].clone();
    let token = token.as_str().expect("a token of the other side").to_owned();
    for path in ["/service/token?service=atoll", "/api/v2.0/users/current", "/v2/"] {
        assert_eq!(asks(other, path).status, 200, "{path} on the other side");
        let answer = asks(lone, path);
        assert_eq!(answer.status, 503, "{path}: {answer}");
    }
    let shown = mesh.anyone(lone).bearer(&token);
    let answer = shown.get("/v2/").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 503, "{answer}");
    // and the other way round: whom it knows may go on
    assert_eq!(mesh.client(lone).get("/v2/").expect("an answer").status, 200);
}

/// A push to the lone node is refused, in words, long before a client would lose its patience.
fn refuses(mesh: &Islands, lone: usize, image: &Image) -> String {
    let client = mesh.client(lone).patient_for(Duration::from_secs(10));
    let refusal = tests::repository::Repository::new(&client, "demo/cut").push(image, "moving");
    let refusal = refusal.expect_err("a minority acknowledged a push");
    let answer = refusal
        .answer()
        .unwrap_or_else(|| panic!("a push to a minority must be answered: {refusal}"));
    assert_eq!(answer.status, 503, "{answer}");
    assert!(
        answer.header("retry-after").is_some(),
        "503 without Retry-After: {:?}",
        answer.headers
    );
    let (code, message) =
        answer.envelope().unwrap_or_else(|| panic!("not the specification's envelope: {answer}"));
    assert!(code == "UNAVAILABLE" && !message.is_empty(), "{answer}");
    message
}
