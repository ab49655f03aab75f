//! Harbor's API about what is stored: repositories, artifacts, tags, and what clients ask first. Each
//! write is done at one node and read at another.

use http::Method;
use serde_json::{Value, json};
use tests::http::{Answer, Client};
use tests::image::{INDEX, Image, MANIFEST};
use tests::mesh::Mesh;

fn must(client: &Client, method: Method, path: &str, body: &Value, status: u16) -> Answer {
    let answer = client.send_json(method.clone(), path, body);
    let answer = answer.unwrap_or_else(|none| panic!("{method} {path}: {none}"));
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}

fn get(client: &Client, path: &str) -> Value {
    must(client, Method::GET, path, &json!({}), 200).json()
}

fn words<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| one[field].as_str().expect("text")).collect()
}

#[test]
fn what_is_stored_is_listed_tagged_and_deleted_as_in_harbor() {
    let mesh = Mesh::up(3);
    let (one, other) = (mesh.client(0), mesh.client(1));
    tests::repository::create_project(&one, "team", false, 1);
    let (first, second) = (Image::random(&[1000]), Image::random(&[2000]));
    for (name, image, tag) in
        [("team/app", &first, "1"), ("team/app", &second, "2"), ("team/deep/er", &first, "1")]
    {
        mesh.repository(0, name).push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let listed = json!({"mediaType": MANIFEST, "digest": first.digest(),
        "size": first.manifest.bytes.len(), "platform": {"os": "linux", "architecture": "arm64"}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}).to_string();
    let put = mesh.repository(0, "team/deep/er").put_bytes("all", INDEX, index.into());
    put.unwrap_or_else(|no| panic!("{no}"));

    let of = "/api/v2.0/projects/team/repositories";
    let page = must(&other, Method::GET, &format!("{of}?page_size=1"), &json!({}), 200);
    assert_eq!(page.header("x-total-count"), Some("2"));
    assert_eq!(words(&page.json(), "name"), ["team/app"]);
    assert_eq!(words(&get(&other, &format!("{of}?q=name=~deep")), "name"), ["team/deep/er"]);
    let shown = get(&other, &format!("{of}/app"));
    assert_eq!(shown["artifact_count"], 2);
    let id = get(&one, "/api/v2.0/projects/team")["project_id"].to_string();
    assert_eq!(get(&other, &format!("/api/v2.0/projects/{id}/repositories/app")), shown);
    // a slash in the name, as Harbor's clients write it, and as others do
    for name in ["deep%252Fer", "deep%2Fer", "deep/er"] {
        let artifacts = get(&other, &format!("{of}/{name}/artifacts"));
        let all = artifacts.as_array().expect("a list");
        // the child of the index has a tag of its own
        assert_eq!(all.len(), 2, "{name}: {artifacts}");
    }
    let artifact = get(&other, &format!("{of}/app/artifacts/1"));
    assert_eq!(artifact["digest"], first.digest());
    assert_eq!((&artifact["type"], words(&artifact["tags"], "name")), (&json!("IMAGE"), vec!["1"]));
    assert_eq!(artifact, get(&one, &format!("{of}/app/artifacts/{}", first.digest())));
    let index = get(&other, &format!("{of}/deep%252Fer/artifacts/all"));
    assert_eq!(index["references"][0]["platform"]["architecture"], "arm64");
    let artifacts = |q: &str| {
        let found = get(&other, &format!("{of}/app/artifacts?{q}"));
        words(&found, "digest").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(artifacts("q=tags=2"), [second.digest()]);
    assert_eq!(artifacts("q=tags=nil"), [""; 0]);
    assert_eq!(artifacts("sort=push_time"), [first.digest(), second.digest()]);
    assert_eq!(artifacts("sort=-push_time,pull_time"), [second.digest(), first.digest()]);
    assert_eq!(artifacts("sort=-size&q=type=IMAGE"), [second.digest(), first.digest()]);

    // a tag is made once, and taken off the artifact that has it only
    let tags = format!("{of}/app/artifacts/{}/tags", first.digest());
    let made = must(&one, Method::POST, &tags, &json!({"name": "stable"}), 201);
    let place = made.header("location").expect("a place").to_owned();
    assert_eq!(words(&get(&other, &tags), "name"), ["1", "stable"]);
    must(
        &other,
        Method::POST,
        &format!("{of}/app/artifacts/2/tags"),
        &json!({"name": "stable"}),
        409,
    );
    must(&one, Method::POST, &tags, &json!({"name": "not a tag"}), 400);
    must(&one, Method::POST, &tags, &json!({}), 400);
    must(&one, Method::DELETE, &format!("{of}/app/artifacts/2/tags/stable"), &json!({}), 404);
    must(&other, Method::DELETE, &place, &json!({}), 200);
    assert_eq!(words(&get(&one, &tags), "name"), ["1"]);

    must(&one, Method::DELETE, &format!("{of}/app/artifacts/2"), &json!({}), 200);
    must(&other, Method::GET, &format!("{of}/app/artifacts/{}", second.digest()), &json!({}), 404);
    must(&other, Method::DELETE, &format!("{of}/app/artifacts/2"), &json!({}), 404);
    let deletable = get(&other, "/api/v2.0/projects/team/_deletable");
    assert_eq!(deletable["deletable"], false);
    let summary = get(&other, "/api/v2.0/projects/team/summary");
    assert_eq!(summary["repo_count"], 2);
    for name in ["app", "deep%252Fer"] {
        must(&one, Method::DELETE, &format!("{of}/{name}"), &json!({}), 200);
        must(&other, Method::DELETE, &format!("{of}/{name}"), &json!({}), 404);
        must(&other, Method::GET, &format!("{of}/{name}/artifacts"), &json!({}), 404);
    }
    assert_eq!(get(&other, "/api/v2.0/projects/team/_deletable")["deletable"], true);
}

#[test]
fn clients_learn_what_they_talk_to_and_find_only_what_they_may_see() {
    let mesh = Mesh::up(3);
    let (admin, anyone) = (mesh.client(1), mesh.anyone(2));
    tests::repository::create_project(&admin, "secret", false, 1);
    for name in ["secret/plan", "demo/plan"] {
        mesh.repository(0, name).push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let pong = must(&anyone, Method::GET, "/api/v2.0/ping", &json!({}), 200);
    assert_eq!(&pong.body[..], b"Pong");
    assert_eq!(get(&anyone, "/api/v2.0/health")["status"], "healthy");
    let info = get(&anyone, "/api/v2.0/systeminfo");
    assert_eq!((&info["auth_mode"], info.get("harbor_version")), (&json!("db_auth"), None));
    let info = get(&admin, "/api/v2.0/systeminfo");
    assert!(info["harbor_version"].as_str().is_some_and(|text| text.starts_with("v2.")), "{info}");
    assert_eq!(info["registry_url"], admin.authority());

    let found = |client: &Client| {
        let found = get(client, "/api/v2.0/search?q=plan");
        let all = words(&found["repository"], "repository_name");
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&admin), ["demo/plan", "secret/plan"]);
    assert_eq!(found(&anyone), ["demo/plan"]);
    assert_eq!(words(&get(&anyone, "/api/v2.0/repositories"), "name"), ["demo/plan"]);
    let counted = |client: &Client| get(client, "/api/v2.0/statistics")["total_repo_count"].clone();
    assert_eq!((counted(&admin), counted(&anyone)), (json!(2), json!(1)));
    for (client, name, status) in
        [(&admin, "secret", 200), (&anyone, "secret", 404), (&admin, "nothing", 404)]
    {
        let path = format!("/api/v2.0/projects?project_name={name}");
        let head = client.ask(Method::HEAD, &path).send().unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(head.status, status, "{name}: {head}");
    }
    must(&anyone, Method::GET, "/api/v2.0/projects/secret/repositories", &json!({}), 401);
}

/// What a client is told of a list: the entries' names, their number in all, and the links.
fn page(client: &Client, path: &str) -> (Vec<String>, usize, Vec<String>) {
    let answer = must(client, Method::GET, path, &json!({}), 200);
    let total = answer.header("x-total-count").and_then(|n| n.parse().ok()).expect("a total");
    let links = answer.header("link").unwrap_or_default();
    let links = links.split(" , ").filter_map(|one| {
        let (place, rel) = one.strip_prefix('<')?.split_once(">; rel=")?;
        Some(format!("{} {place}", rel.trim_matches('"')))
    });
    let list = answer.json();
    let names = words(&list, "name").into_iter().map(str::to_owned).collect();
    (names, total, links.collect())
}

#[test]
fn lists_are_chosen_sorted_and_paged_as_in_harbor_at_every_node() {
    let mesh = Mesh::up(3);
    let (one, other) = (mesh.client(0), mesh.client(1));
    for (name, public) in [("alpha", true), ("beta", false), ("gamma", true)] {
        tests::repository::create_project(&one, name, public, 1);
    }
    let id = get(&other, "/api/v2.0/projects/beta")["project_id"].as_u64().expect("a number");
    let names = |q: &str| page(&other, &format!("/api/v2.0/projects?{q}")).0;
    for (q, expected) in [
        ("q=name=alpha", &["alpha"][..]),
        ("q=name=~MM", &["gamma"]),
        ("q=name=~a,public=false", &["beta"]),
        ("q=name={alpha%20gamma}", &["alpha", "gamma"]),
        ("q=name%3D%28alpha%20gamma%29", &[]),
        // encoded twice, as Harbor's portal does
        ("q=name%253Dbeta", &["beta"]),
        ("q=creation_time=[2020-01-01~2020-12-31]", &[]),
        ("sort=-name", &["gamma", "demo", "beta", "alpha"]),
        ("sort=public,-name", &["beta", "gamma", "demo", "alpha"]),
        ("name=et", &["beta"]),
        ("public=true&sort=-project_id", &["gamma", "alpha", "demo"]),
    ] {
        assert_eq!(names(q), expected, "{q}");
    }
    assert_eq!(names(&format!("q=project_id=[{id}~{id}]")), ["beta"]);
    assert_eq!(names(&format!("q=ProjectID=[{id}~]&sort=name")), ["beta", "gamma"]);

    let second = "/api/v2.0/projects?page=2&page_size=2&q=name=~a&sort=-name";
    let (names, total, links) = page(&other, "/api/v2.0/projects?page_size=2&sort=-name");
    assert_eq!((names.len(), total, links.len()), (2, 4, 1));
    let next = links[0].strip_prefix("next ").expect("a link to the next page");
    let (rest, _, links) = page(&one, next);
    assert_eq!(
        (names, rest),
        (vec!["gamma".into(), "demo".into()], vec!["beta".into(), "alpha".into()])
    );
    assert!(links.len() == 1 && links[0].starts_with("prev "), "{links:?}");
    assert_eq!(page(&other, second).0, ["alpha"], "a filter is kept from page to page");

    // what Harbor's portal and command line sort by
    for sorted in [
        "projects?sort=-creation_time",
        "projects/demo/repositories?sort=-update_time",
        "repositories?sort=-pull_count,name",
        "users?sort=-creation_time",
        "registries?sort=-creation_time",
        "labels?scope=g&sort=-creation_time",
        "robots?q=Level=system&sort=-creation_time,expires_at",
        "auditlog-exts?sort=-op_time",
    ] {
        must(&other, Method::GET, &format!("/api/v2.0/{sorted}"), &json!({}), 200);
    }
    for (list, fields) in [
        ("/api/v2.0/projects", "project_id"),
        ("/api/v2.0/registries", "url"),
        ("/api/v2.0/users", "username"),
        ("/api/v2.0/usergroups", "group_name"),
        ("/api/v2.0/repositories", "artifact_count"),
        ("/api/v2.0/projects/demo/repositories", "artifact_count"),
        ("/api/v2.0/labels?scope=g", "color"),
        ("/api/v2.0/auditlog-exts", "op_time"),
        ("/api/v2.0/robots?q=Level=system", "disable"),
    ] {
        let mark = if list.contains('?') { '&' } else { '?' };
        for wrong in ["sort=shoe", "q=shoe=9", "q=name", "q=name=[1]", "q=name={", "q==x"] {
            let path = format!("{list}{mark}{wrong}");
            let refused = must(&other, Method::GET, &path, &json!({}), 400);
            let (code, message) = refused.envelope().expect("an envelope");
            assert_eq!(code, "BAD_REQUEST", "{path}: {message}");
            // a condition on robots says first of which project
            if wrong.contains("shoe") && !(list.contains("robots") && wrong.starts_with('q')) {
                assert!(message.contains(fields), "{path}: {message}");
            }
        }
    }
}

#[test]
fn metadata_is_read_and_written_entry_by_entry() {
    let mesh = Mesh::up(3);
    let (one, other) = (mesh.client(0), mesh.client(1));
    tests::repository::create_project(&one, "team", false, 1);
    let all = "/api/v2.0/projects/team/metadatas/";
    let of = |key: &str| format!("/api/v2.0/projects/team/metadatas/{key}");
    assert_eq!(get(&other, all), get(&one, "/api/v2.0/projects/team")["metadata"]);
    assert_eq!(get(&other, &of("public")), json!({"public": "false"}));
    must(&one, Method::GET, &of("auto_scan"), &json!({}), 404);
    must(&one, Method::PUT, &of("auto_scan"), &json!({"auto_scan": "true"}), 404);
    must(&one, Method::DELETE, &of("auto_scan"), &json!({}), 404);
    must(&one, Method::POST, all, &json!({"auto_scan": "true"}), 200);
    assert_eq!(get(&other, &of("auto_scan")), json!({"auto_scan": "true"}));
    must(&other, Method::POST, all, &json!({"auto_scan": "false"}), 409);
    must(&other, Method::PUT, &of("auto_scan"), &json!({"auto_scan": "false"}), 200);
    assert_eq!(get(&one, all)["auto_scan"], "false");
    must(&other, Method::DELETE, &of("auto_scan"), &json!({}), 200);
    must(&one, Method::GET, &of("auto_scan"), &json!({}), 404);

    // what has an effect has it at once, and gets its default again when it is deleted
    let app = mesh.repository(0, "team/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let pulled = || {
        let path = "/v2/team/app/manifests/1";
        let ask = mesh.anyone(2).ask(Method::GET, path).header("accept", MANIFEST);
        ask.send().unwrap_or_else(|none| panic!("{none}")).status
    };
    assert_eq!(pulled(), 401);
    must(&one, Method::PUT, &of("public"), &json!({"public": "true"}), 200);
    assert_eq!(pulled(), 200);
    must(&one, Method::DELETE, &of("public"), &json!({}), 200);
    assert_eq!((pulled(), get(&other, &of("public"))), (401, json!({"public": "false"})));
    must(&one, Method::DELETE, &of("sparse_indexes"), &json!({}), 200);
    must(&one, Method::POST, all, &json!({"sparse_indexes": "true"}), 200);

    let before = get(&one, all);
    for wrong in [
        json!({}),
        json!({"auto_scan": "true", "prevent_vul": "true"}),
        json!({"shoe": "9"}),
        json!({"auto_scan": "perhaps"}),
        json!({"auto_scan": true}),
        json!({"severity": "huge"}),
        json!({"proxy_cache_filter_pattern": "a/*"}),
    ] {
        must(&one, Method::POST, all, &wrong, 400);
    }
    must(&one, Method::PUT, &of("durability"), &json!({"durability": "9"}), 400);
    must(&one, Method::PUT, &of("durability"), &json!({"public": "true"}), 400);
    must(&one, Method::POST, all, &json!({"public": "true"}), 409);
    must(&mesh.anyone(0), Method::GET, all, &json!({}), 401);
    assert_eq!(get(&other, all), before);
}

#[test]
fn each_answer_has_the_id_of_its_request() {
    let mesh = Mesh::up(1);
    let id = |client: &Client, path: &str, sent: &str| {
        let ask = client.ask(Method::GET, path).header("x-request-id", sent);
        let answer = ask.send().unwrap_or_else(|none| panic!("{none}"));
        answer.header("x-request-id").expect("an id").to_owned()
    };
    let (admin, anyone) = (mesh.client(0), mesh.anyone(0));
    for path in [
        "/api/v2.0/projects",
        "/api/v2.0/users",
        "/api/v2.0/nothing",
        "/v2/",
        "/api/atoll/v1/status",
    ] {
        for client in [&admin, &anyone] {
            assert_eq!(id(client, path, "job-7:step.2"), "job-7:step.2");
            let made = id(client, path, "two words");
            assert!(made.len() == 32 && made != id(client, path, "<b>"), "{path}: {made}");
        }
    }
}

#[test]
fn a_body_that_cannot_be_read_names_its_field() {
    let mesh = Mesh::up(1);
    let admin = mesh.client(0);
    let said = |path: &str, body: &Value| {
        let refused = must(&admin, Method::POST, path, body, 400);
        refused.envelope().expect("an envelope").1
    };
    for (path, body, field) in [
        ("/api/v2.0/projects", json!({"project_name": 7}), "project_name"),
        ("/api/v2.0/projects", json!({"project_name": "p", "public": "yes"}), "public"),
        ("/api/v2.0/projects", json!({"public": true}), "project_name"),
        ("/api/v2.0/projects/demo/members", json!({"role_id": "1"}), "role_id"),
        (
            "/api/v2.0/projects/demo/members",
            json!({"role_id": 1, "member_user": {"user_id": "1"}}),
            "member_user.user_id",
        ),
        ("/api/v2.0/registries", json!({"name": "a", "url": 1, "type": "docker-registry"}), "url"),
        ("/api/v2.0/robots", json!({"name": "a", "level": 1}), "level"),
        ("/api/v2.0/users", json!({"username": ["a"]}), "username"),
    ] {
        let said = said(path, &body);
        assert!(said.contains(field), "{path} {body}: {said}");
    }
    for broken in ["", "{", "[]", "{} {}", "nul"] {
        let ask = admin.ask(Method::POST, "/api/v2.0/projects");
        let ask = ask.header("content-type", "application/json").body(broken.as_bytes().to_vec());
        let answer = ask.send().unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 400, "{broken:?}: {answer}");
    }
}
