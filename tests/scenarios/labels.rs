//! Labels: made and changed over the API and the command line, put on artifacts, found by them at
//! every node, and gone with what they are about. And what an artifact says of itself.

use http::Method;
use serde_json::{Value, json};
use tests::http::{Answer, Client};
use tests::image::{Blob, Image, MANIFEST, digest};
use tests::mesh::Mesh;
use tests::people::{PASSWORD, add_member, create_user, must, number};

const LABELS: &str = "/api/v2.0/labels";

fn get(client: &Client, path: &str) -> Value {
    must(client, Method::GET, path, &json!({}), 200).json()
}

fn make(client: &Client, what: &Value) -> u64 {
    number(&must(client, Method::POST, LABELS, what, 201))
}

fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| one["name"].as_str().expect("a name")).collect()
}

fn said(answer: &Answer) -> String {
    answer.envelope().map(|(_, text)| text).unwrap_or_default()
}

#[test]
fn labels_are_put_on_artifacts_found_everywhere_and_gone_with_what_they_are_about() {
    let mesh = Mesh::up(3);
    let (one, other) = (mesh.client(0), mesh.client(1));
    for name in ["team", "rest"] {
        tests::repository::create_project(&one, name, false, 1);
    }
    let team = get(&one, "/api/v2.0/projects/team")["project_id"].clone();
    let rest = get(&one, "/api/v2.0/projects/rest")["project_id"].clone();
    let global = make(&one, &json!({"name": "approved", "scope": "g", "color": "#0065AB"}));
    let what = json!({"name": "approved", "scope": "p", "project_id": team, "description": "ours"});
    let own = make(&other, &what);
    let theirs = make(&one, &json!({"name": "approved", "scope": "p", "project_id": rest}));
    must(&one, Method::POST, LABELS, &what, 409);
    for (wrong, word) in [
        (json!({"name": "", "scope": "g"}), "name"),
        (json!({"scope": "g"}), "name"),
        (json!({"name": "a", "scope": "x"}), "scope"),
        (json!({"name": "a", "scope": "p"}), "project_id"),
        (json!({"name": "a", "scope": "g", "color": "x".repeat(99)}), "color"),
    ] {
        let refused = must(&one, Method::POST, LABELS, &wrong, 400);
        assert!(said(&refused).contains(word), "{wrong}: {refused}");
    }
    must(&one, Method::GET, LABELS, &json!({}), 400);
    must(&one, Method::GET, &format!("{LABELS}?scope=p"), &json!({}), 400);
    must(&one, Method::GET, &format!("{LABELS}?scope=p&project_id=999"), &json!({}), 404);
    let shown = get(&one, &format!("{LABELS}/{own}"));
    assert_eq!((&shown["scope"], &shown["project_id"]), (&json!("p"), &team));
    assert_eq!(get(&other, &format!("{LABELS}?scope=p&project_id={team}")), json!([shown]));
    let found = get(&other, &format!("{LABELS}?scope=g&name=prov&q=color=~65ab"));
    assert_eq!(names(&found), ["approved"]);
    let change = json!({"name": "checked", "description": "twice", "color": "#FFFFFF"});
    must(&other, Method::PUT, &format!("{LABELS}/{own}"), &change, 200);
    assert_eq!(get(&one, &format!("{LABELS}/{own}"))["description"], "twice");
    must(&one, Method::PUT, &format!("{LABELS}/999"), &change, 404);

    let app = mesh.repository(0, "team/app");
    let (first, second) = (Image::random(&[1000]), Image::random(&[1000]));
    for (image, tag) in [(&first, "1"), (&second, "2")] {
        app.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let artifacts = "/api/v2.0/projects/team/repositories/app/artifacts";
    let on = |reference: &str| format!("{artifacts}/{reference}/labels");
    let put = |reference: &str, id: u64, status| {
        must(&other, Method::POST, &on(reference), &json!({"id": id}), status)
    };
    put("1", global, 200);
    put(first.digest(), own, 200);
    put("1", own, 409);
    put("2", own, 200);
    put("1", theirs, 404);
    put("1", 999, 404);
    put("3", own, 404);
    must(&one, Method::POST, &on("1"), &json!({}), 400);
    let labels = |client: &Client, reference: &str| {
        let shown = get(client, &format!("{artifacts}/{reference}?with_label=true"));
        names(&shown["labels"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(labels(&one, "1"), ["approved", "checked"]);
    assert!(get(&one, &format!("{artifacts}/1")).get("labels").is_none(), "nobody asked");
    let listed = get(&one, &format!("{artifacts}?with_label=true&q=tags=2"));
    assert_eq!(names(&listed[0]["labels"]), ["checked"]);
    let with = |q: &str| get(&one, &format!("{artifacts}?q={q}")).as_array().map_or(0, Vec::len);
    for (q, count) in [
        (format!("labels=({global}%20{own})"), 1),
        (format!("labels=({own})"), 2),
        (format!("labels={{{global}%20999}}"), 1),
        ("labels=(999)".to_owned(), 0),
        ("labels=nil".to_owned(), 0),
        (format!("labels=({own}),tags=1"), 1),
    ] {
        assert_eq!(with(&q), count, "{q}");
    }
    must(&one, Method::DELETE, &format!("{}/{own}", on("2")), &json!({}), 200);
    must(&one, Method::DELETE, &format!("{}/{own}", on("2")), &json!({}), 404);
    assert!(labels(&other, "2").is_empty());

    // members use them as their roles say
    for (user, role) in [("dev", 2), ("guest", 3), ("maintainer", 4)] {
        create_user(&one, user);
        add_member(&one, "team", user, role);
    }
    let as_user = |name: &str| mesh.anyone(2).basic(name, PASSWORD);
    let (dev, guest) = (as_user("dev"), as_user("guest"));
    must(&guest, Method::GET, &format!("{LABELS}?scope=p&project_id={team}"), &json!({}), 200);
    must(&guest, Method::GET, &format!("{LABELS}?scope=g"), &json!({}), 200);
    must(&guest, Method::POST, &on("2"), &json!({"id": own}), 403);
    must(&dev, Method::POST, &on("2"), &json!({"id": own}), 200);
    must(&dev, Method::PUT, &format!("{LABELS}/{own}"), &change, 403);
    must(&as_user("maintainer"), Method::PUT, &format!("{LABELS}/{own}"), &change, 200);
    must(&as_user("maintainer"), Method::DELETE, &format!("{LABELS}/{global}"), &json!({}), 403);
    must(&dev, Method::GET, &format!("{LABELS}/{theirs}"), &json!({}), 403);
    must(&mesh.anyone(2), Method::GET, &format!("{LABELS}?scope=g"), &json!({}), 401);

    must(&other, Method::DELETE, &format!("{LABELS}/{global}"), &json!({}), 200);
    must(&one, Method::DELETE, &format!("{LABELS}/{global}"), &json!({}), 404);
    assert_eq!(labels(&one, "1"), ["checked"]);
    must(&one, Method::DELETE, &format!("{artifacts}/1"), &json!({}), 200);
    app.push(&first, "1").unwrap_or_else(|no| panic!("{no}"));
    assert!(labels(&one, "1").is_empty(), "what is pushed again has no labels");
    must(&one, Method::DELETE, "/api/v2.0/projects/team/repositories/app", &json!({}), 200);
    must(&one, Method::DELETE, "/api/v2.0/projects/team", &json!({}), 200);
    must(&one, Method::GET, &format!("{LABELS}/{own}"), &json!({}), 404);
    let log = get(&one, "/api/v2.0/auditlog-exts?q=resource_type=label&page_size=100");
    let logged: Vec<String> = log
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| format!("{} {}", one["operation"], one["resource"]).replace('"', ""))
        .collect();
    let text = format!("create checked on team/app@{}", first.digest());
    for line in ["create approved", "update checked", "delete approved", &text] {
        assert!(logged.iter().any(|one| one == line), "{line}: {logged:?}");
    }
}

#[test]
fn lists_of_labels_are_chosen_sorted_and_paged() {
    let mesh = Mesh::up(3);
    let one = mesh.client(0);
    for (name, color, description) in [
        ("gold", "#FFD700", "paid"),
        ("silver", "#C0C0C0", "tried"),
        ("golden-age", "#FFD700", ""),
        ("bronze", "#CD7F32", "paid"),
        ("tin", "#C0C0C0", ""),
    ] {
        let what = json!({"name": name, "scope": "g", "color": color, "description": description});
        make(&one, &what);
    }
    for at in 0..3 {
        let node = mesh.client(at);
        let list = |query: &str| get(&node, &format!("{LABELS}?scope=g&{query}"));
        for (query, expected) in [
            ("sort=name", &["bronze", "gold", "golden-age", "silver", "tin"][..]),
            ("sort=-name", &["tin", "silver", "golden-age", "gold", "bronze"]),
            ("sort=color,-name", &["tin", "silver", "bronze", "golden-age", "gold"]),
            ("sort=id", &["gold", "silver", "golden-age", "bronze", "tin"]),
            ("q=name=~gold&sort=name", &["gold", "golden-age"]),
            ("q=name=gold", &["gold"]),
            ("q=name={tin%20bronze}&sort=name", &["bronze", "tin"]),
            ("q=color=%23FFD700,name=gold", &["gold"]),
            ("q=color=~ffd&sort=-id", &["golden-age", "gold"]),
            ("q=name=none", &[]),
            ("name=gold&q=color=~ffd&sort=name", &["gold", "golden-age"]),
        ] {
            assert_eq!(names(&list(query)), expected, "node {at}: {query}");
        }
        let page = |number: u32| {
            let path = format!("{LABELS}?scope=g&sort=name&page={number}&page_size=2");
            must(&node, Method::GET, &path, &json!({}), 200)
        };
        let (first, last, beyond) = (page(1), page(3), page(4));
        for answer in [&first, &last, &beyond] {
            assert_eq!(answer.header("x-total-count"), Some("5"), "{answer}");
        }
        let link = |answer: &Answer| answer.header("link").unwrap_or_default().to_owned();
        assert_eq!(names(&first.json()), ["bronze", "gold"]);
        assert!(
            link(&first).contains("page=2") && link(&first).contains("rel=\"next\""),
            "{first}"
        );
        assert_eq!(names(&last.json()), ["tin"]);
        assert!(link(&last).contains("rel=\"prev\"") && !link(&last).contains("next"), "{last}");
        assert!(names(&beyond.json()).is_empty());
        for wrong in [
            "q=weight=1",
            "sort=weight",
            "q=description=paid",
            "q=name",
            "page=0",
            "page_size=101",
            "page=x",
        ] {
            must(&node, Method::GET, &format!("{LABELS}?scope=g&{wrong}"), &json!({}), 400);
        }
    }
}

#[test]
fn the_command_line_labels_artifacts() {
    let mesh = Mesh::up(3);
    tests::repository::create_project(&mesh.client(0), "team", false, 1);
    let image = Image::tiny();
    mesh.repository(0, "team/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let (data, url) = (mesh.folder().display().to_string(), mesh.nodes()[2].url.clone());
    let run = |words: &[&str]| {
        let all = [words, &["--data", &data, "--url", &url]].concat();
        mesh.atoll(&all)
    };
    let does = |words: &[&str]| {
        let told = run(words);
        assert!(told.success, "{words:?}: {told:?}");
        told.out
    };
    does(&["label", "create", "approved", "--color", "#0065AB"]);
    does(&["label", "create", "nightly", "--project", "team", "--description", "built at night"]);
    assert!(!run(&["label", "create", "nightly", "--project", "team"]).success);
    does(&["label", "add", "team/app:1", "approved"]);
    does(&["label", "add", "team/app:1", "nightly"]);
    let shown = does(&["artifact", "list", "team/app"]);
    assert!(shown.contains("approved,nightly"), "{shown}");
    let listed = does(&["label", "list", "--project", "team"]);
    assert!(listed.contains("nightly") && listed.contains("built at night"), "{listed}");
    assert!(!listed.contains("approved"), "{listed}");
    does(&["label", "update", "nightly", "--project", "team", "--name", "weekly"]);
    does(&["label", "remove", "team/app:1", "approved"]);
    let shown = does(&["artifact", "list", "team/app"]);
    assert!(shown.contains("weekly") && !shown.contains("approved"), "{shown}");
    let told = run(&["label", "add", "team/app:1", "none"]);
    assert!(!told.success && told.err.contains("no label none"), "{told:?}");
    does(&["label", "delete", "weekly", "--project", "team"]);
    does(&["label", "delete", "approved"]);
    assert_eq!(does(&["label", "list", "--output", "json"]).trim(), "[]");
}

#[test]
fn an_artifact_shows_what_its_configuration_says() {
    let mesh = Mesh::up(3);
    let config = json!({
        "architecture": "arm64", "os": "linux", "created": "2024-02-29T12:34:56Z",
        "author": "ann", "config": {"Cmd": ["/app"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let bytes = config.to_string();
    let app = mesh.repository(0, "demo/app");
    app.upload(&Blob::of(bytes.clone())).unwrap_or_else(|no| panic!("{no}"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(bytes.as_bytes()), "size": bytes.len()},
    });
    let put = app.put_bytes("1", MANIFEST, manifest.to_string().into());
    put.unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        let path = "/api/v2.0/projects/demo/repositories/app/artifacts/1";
        let shown = get(&mesh.client(at), path);
        let mut expected = config.clone();
        expected.as_object_mut().expect("an object").remove("rootfs");
        assert_eq!(shown["extra_attrs"], expected, "at node {at}");
    }
}
