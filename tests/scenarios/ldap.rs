//! People sign in with the password of an LDAP directory, their groups count, also nested ones, and its
//! outage locks out nobody who does not need it.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Image, MANIFEST};
use tests::people::{
    PASSWORD, create_robot, create_user, must, number, robot_of, token_answer, with_session,
    with_token,
};
use tests::repository::Repository;
use tests::slapd::{BASE, SEARCHER, Slapd, group, person};
use tests::wait;

const SETTINGS: &str = "/api/v2.0/configurations";
const CURRENT: &str = "/api/v2.0/users/current";
const PEOPLE: [(&str, &str); 4] =
    [("ann", "word-of-ann"), ("bob", "word-of-bob"), ("admin", "word-of-admin"), ("local", "word")];

fn settings(url: &str) -> Value {
    json!({
        "auth_mode": "ldap_auth", "ldap_url": url, "ldap_base_dn": format!("ou=people,{BASE}"),
        "ldap_uid": "uid", "ldap_search_dn": SEARCHER.0, "ldap_search_password": SEARCHER.1,
        "ldap_filter": "(objectClass=inetOrgPerson)",
        "ldap_group_base_dn": format!("ou=groups,{BASE}"),
        "ldap_group_search_filter": "(objectClass=groupOfNames)",
        "ldap_group_admin_dn": group("lords"),
    })
}

fn reads(client: &Client) -> u16 {
    let ask = client.ask(Method::GET, "/v2/team/app/manifests/1").header("accept", MANIFEST);
    ask.send().unwrap_or_else(|none| panic!("{none}")).status
}

fn signs_in(node: &Client, name: &str, password: &str) -> u16 {
    token_answer(&node.clone().basic(name, password), &[]).status
}

fn refreshed(node: &Client, refresh: &str) -> tests::http::Answer {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", "atoll")
        .append_pair("scope", "repository:team/app:pull")
        .append_pair("refresh_token", refresh)
        .finish();
    let ask = node.ask(Method::POST, "/service/token");
    let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
    ask.send().unwrap_or_else(|none| panic!("{none}"))
}

#[test]
fn people_of_a_directory_sign_in_with_their_groups_and_its_outage_locks_out_nobody_else() {
    let mut slapd = Slapd::new();
    let ann = person("ann");
    let devs: (&str, &[&str]) = ("devs", &[&ann]);
    let in_devs = group("devs");
    let staff: (&str, &[&str]) = ("staff", &[&in_devs]);
    let bob = person("bob");
    slapd.start(&PEOPLE, &[devs, staff, ("lords", &[&bob])]);
    let ca = format!("upstreams: {{ca: {}}}\n", slapd.ca());
    let mut mesh = Formed::of(&[("one", "us-east-1"), ("two", "eu-1")], &ca);
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    let [one, two, edge] = [0, 1, edge].map(|at| mesh.members()[at].anyone());
    create_user(&admin, "local");
    let [plain, tls] = slapd.urls();
    let wrong = json!({"auth_mode": "ldap_auth", "ldap_url": plain});
    must(&admin, Method::PUT, SETTINGS, &wrong, 400);
    must(&admin, Method::PUT, SETTINGS, &settings(&plain), 200);
    tests::repository::create_project(&admin, "team", false, 1);
    let app = Repository::new(&admin, "team/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let robot = create_robot(&admin, &robot_of("team", "ci", &["pull"]));

    // who knows the password, and nobody else, whatever they write
    assert_eq!(signs_in(&one, "ann", "word-of-ann"), 200);
    for (name, password) in [
        ("ann", "wrong"),
        ("ann", ""),
        ("*", "word-of-ann"),
        ("ann)(uid=*", "word-of-ann"),
        ("nobody", "word"),
        ("admin", "word-of-admin"),
        ("local", "word"),
        ("robot$ann", "word-of-ann"),
    ] {
        assert_eq!(signs_in(&one, name, password), 401, "{name} {password}");
    }
    assert_eq!(signs_in(&one, "local", PASSWORD), 200, "users with a password here stay");
    let browser = with_session(&two, "ANN", "word-of-ann");
    let shown = must(&browser, Method::GET, CURRENT, &json!({}), 200).json();
    assert_eq!((&shown["username"], &shown["email"]), (&json!("ann"), &json!("ann@example.com")));
    let lord = one.clone().basic("bob", "word-of-bob");
    let shown = must(&lord, Method::GET, CURRENT, &json!({}), 200).json();
    assert_eq!(
        (&shown["sysadmin_flag"], &shown["admin_role_in_auth"]),
        (&json!(true), &json!(true))
    );

    // a group in a group counts, at an edge, too, and its removal holds there soon
    let docker = one.clone().basic("ann", "word-of-ann");
    let token = with_token(&docker, &["repository:team/app:pull"]);
    assert_eq!((reads(&docker), reads(&browser), reads(&token)), (403, 403, 401));
    let members = "/api/v2.0/projects/team/members";
    let join = json!({"role_id": 3,
        "member_group": {"group_type": 1, "ldap_group_dn": group("STAFF")}});
    let member = number(&must(&admin, Method::POST, members, &join, 201));
    let token = with_token(&docker, &["repository:team/app:pull"]);
    assert_eq!((reads(&docker), reads(&browser), reads(&token)), (200, 200, 200));
    let there = [token.clone(), docker.clone(), browser.clone()].map(|one| one.asking(&edge));
    for client in &there {
        wait::until("the edge hears of the group", || (reads(client) == 200).then_some(()));
    }
    must(&admin, Method::DELETE, &format!("{members}/{member}"), &json!({}), 200);
    assert_eq!((reads(&docker), reads(&browser), reads(&token)), (403, 403, 403));
    for client in &there {
        wait::until("the edge hears of it", || matches!(reads(client), 401 | 403).then_some(()));
    }
    must(&admin, Method::POST, members, &join, 201);

    // the directory is away
    slapd.stop();
    assert_eq!(signs_in(&one, "ann", "word-of-ann"), 200, "what it said lately counts");
    assert_eq!(signs_in(&one, "bob", "wrong"), 503);
    assert_eq!(signs_in(&one, &robot.name, &robot.secret), 200);
    assert_eq!((signs_in(&one, "local", PASSWORD), reads(&browser)), (200, 200));
    assert_eq!(admin.get(CURRENT).expect("an answer").status, 200);

    // a refresh token asks it: other groups count, and who is gone gets nothing
    slapd.start(&PEOPLE, &[devs, staff]);
    let answer = docker.get("/service/token?service=atoll&offline_token=true").expect("an answer");
    let refresh = answer.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    slapd.start(&PEOPLE, &[("staff", &[&bob])]);
    assert_eq!(refreshed(&two, &refresh).status, 200);
    assert_eq!((reads(&docker), reads(&browser)), (403, 403), "she left the group");
    slapd.start(&PEOPLE[1..], &[]);
    assert_eq!(refreshed(&one, &refresh).status, 401);
    assert_eq!(signs_in(&two, "ann", "word-of-ann"), 401);
    assert_eq!(browser.get(CURRENT).expect("an answer").status, 401);

    // over TLS
    must(&admin, Method::PUT, SETTINGS, &json!({"ldap_url": tls}), 400);
    for settings in [
        json!({"ldap_url": tls, "ldap_search_password": SEARCHER.1}),
        json!({"ldap_url": plain, "ldap_search_password": SEARCHER.1, "ldap_starttls": true}),
    ] {
        must(&admin, Method::PUT, SETTINGS, &settings, 200);
        assert_eq!(signs_in(&two, "bob", "word-of-bob"), 200, "{settings}");
        assert_eq!(signs_in(&two, "bob", "wrong"), 401, "{settings}");
    }
}

#[test]
fn administrators_look_up_whom_a_directory_has() {
    let mut slapd = Slapd::new();
    let ann = person("ann");
    slapd.start(&PEOPLE, &[("devs", &[&ann]), ("devs-of-old", &[&ann])]);
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let admin = mesh.client(0);
    let [plain, _] = slapd.urls();
    let get = |client: &Client, path: &str, status: u16| {
        must(client, Method::GET, &format!("/api/v2.0/ldap/{path}"), &json!({}), status)
    };
    let ping = |body: &Value| {
        let answer = must(&admin, Method::POST, "/api/v2.0/ldap/ping", body, 200).json();
        (answer["success"] == true, answer["message"].as_str().unwrap_or_default().to_owned())
    };

    // settings are tried before they are recorded
    get(&admin, "users/search", 412);
    let mut tried = settings(&plain);
    tried.as_object_mut().expect("settings").remove("auth_mode");
    assert_eq!(ping(&tried), (true, String::new()));
    for (name, value, why) in [
        ("ldap_search_password", json!("wrong"), "ldap_search_dn"),
        ("ldap_base_dn", json!("ou=nowhere,dc=example,dc=com"), "ldap_base_dn"),
        ("ldap_url", json!("ldap://127.0.0.1:1"), "directory"),
    ] {
        let mut other = tried.clone();
        other[name] = value;
        let (right, message) = ping(&other);
        assert!(!right && message.contains(why), "{name}: {message}");
    }
    for bad in [json!({"ldap_url": "http://x"}), json!({"oidc_name": "x"}), json!({})] {
        must(&admin, Method::POST, "/api/v2.0/ldap/ping", &bad, 400);
    }
    get(&admin, "users/search", 412);
    must(&admin, Method::PUT, SETTINGS, &settings(&plain), 200);
    // as they are, and with what a client fills in of them; the known password goes nowhere else
    let filled = json!({"ldap_scope": 2, "ldap_connection_timeout": 5, "ldap_filter": ""});
    assert!(ping(&filled).0);
    let elsewhere = json!({"ldap_url": "ldap://127.0.0.1:1"});
    must(&admin, Method::POST, "/api/v2.0/ldap/ping", &elsewhere, 400);

    // people and groups
    let names = |answer: &Value, field: &str| -> Vec<String> {
        let all = answer.as_array().expect("a list").iter();
        all.map(|one| one[field].as_str().expect("a name").to_owned()).collect()
    };
    let all = get(&admin, "users/search", 200).json();
    assert_eq!(names(&all, "username"), ["admin", "ann", "bob", "local"]);
    let one = get(&admin, "users/search?username=ann", 200).json();
    let shown = json!([{"username": "ann", "realname": "ann", "email": "ann@example.com"}]);
    assert_eq!(one, shown);
    for nobody in ["nobody", "*", "ann)(uid=*"] {
        let found = get(&admin, &format!("users/search?username={nobody}"), 200).json();
        assert_eq!(found, json!([]), "{nobody}");
    }
    let devs = json!([{"group_name": "devs", "group_type": 1, "ldap_group_dn": group("devs")}]);
    assert_eq!(get(&admin, "groups/search?groupname=devs", 200).json(), devs);
    let dn = group("DEVS").replace(',', "%2C");
    assert_eq!(get(&admin, &format!("groups/search?groupdn={dn}"), 200).json(), devs);
    for (path, status) in [
        ("groups/search", 400),
        ("groups/search?groupdn=devs", 400),
        ("groups/search?groupname=nobody", 404),
        ("groups/search?groupname=*", 404),
        ("groups/search?groupdn=cn%3Dx%2Cdc%3Dexample%2Cdc%3Dcom", 404),
    ] {
        get(&admin, path, status);
    }

    // an account before the first sign-in, once
    let import = |names: &[&str], status: u16| {
        let body = json!({"ldap_uid_list": names});
        must(&admin, Method::POST, "/api/v2.0/ldap/users/import", &body, status)
    };
    import(&["ann", "bob"], 200);
    import(&["ann"], 200);
    let failed = import(&["nobody", "", "admin"], 404).json();
    let expected = json!([{"uid": "nobody", "error": "unknown_user"},
        {"uid": "", "error": "empty_uid"}, {"uid": "admin", "error": "conflict_username"}]);
    assert_eq!(failed, expected);
    import(&[], 400);
    let found = must(&admin, Method::GET, "/api/v2.0/users?q=username=ann", &json!({}), 200);
    assert_eq!(found.header("x-total-count"), Some("1"));
    let id = found.json()[0]["user_id"].clone();
    let own = mesh.members()[0].anyone().basic("ann", "word-of-ann");
    let shown = must(&own, Method::GET, CURRENT, &json!({}), 200).json();
    assert_eq!(shown["user_id"], id, "the first sign-in finds the account");
    get(&own, "users/search", 403);

    // a robot that may list them, and no more
    let access = json!([{"resource": "ldap-user", "action": "list"}]);
    let what = json!({"name": "hr", "level": "system", "duration": 1,
        "permissions": [{"kind": "system", "namespace": "/", "access": access}]});
    let robot = create_robot(&admin, &what);
    let robot = mesh.members()[0].anyone().basic(&robot.name, &robot.secret);
    get(&robot, "users/search?username=bob", 200);
    let body = json!({"ldap_uid_list": ["bob"]});
    must(&robot, Method::POST, "/api/v2.0/ldap/users/import", &body, 403);
    must(&robot, Method::POST, "/api/v2.0/ldap/ping", &json!({}), 403);
    slapd.stop();
    get(&admin, "users/search", 503);
    assert!(!ping(&json!({})).0);
}

#[test]
fn a_directory_that_is_away_is_believed_for_as_long_as_the_setting_says() {
    let mut slapd = Slapd::new();
    slapd.start(&PEOPLE, &[]);
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let [plain, _] = slapd.urls();
    let clock = mesh.folder().join("clock");
    std::fs::write(&clock, "+0").expect("a clock");
    let member = &mesh.members()[0];
    member.stop(Signal::TERM);
    member.serve_by_the_clock_of(&clock);
    member.wait_ready();
    let (admin, node) = (mesh.client(0), member.anyone());
    must(&admin, Method::PUT, SETTINGS, &settings(&plain), 200);
    let last = |minutes: u32| {
        must(&admin, Method::PUT, SETTINGS, &json!({"ldap_remember_minutes": minutes}), 200);
    };
    create_user(&admin, "local");
    tests::repository::create_project(&admin, "team", false, 1);
    let robot = create_robot(&admin, &robot_of("team", "ci", &["pull"]));
    let docker = node.clone().basic("ann", "word-of-ann");
    let answer = docker.get("/service/token?service=atoll&offline_token=true").expect("an answer");
    let refresh = answer.json()["refresh_token"].as_str().expect("a refresh token").to_owned();
    let browser = with_session(&node, "ann", "word-of-ann");
    let others = || {
        assert_eq!(signs_in(&node, "local", PASSWORD), 200);
        assert_eq!(signs_in(&node, &robot.name, &robot.secret), 200);
        assert_eq!(admin.get(CURRENT).expect("an answer").status, 200);
    };

    slapd.stop();
    let ann = || signs_in(&node, "ann", "word-of-ann");
    assert_eq!((ann(), refreshed(&node, &refresh).status), (200, 200), "a day, if nobody said so");
    assert_eq!(signs_in(&node, "bob", "word-of-bob"), 503, "who was not right here lately");
    last(0);
    assert_eq!(ann(), 503);
    others();
    last(1440);
    assert_eq!(ann(), 200, "the setting is what ended it");

    // a minute is over by itself, and nothing brings it back but the directory
    last(1);
    wait::until("a minute is over", || (ann() == 503).then_some(()));
    assert_eq!((ann(), signs_in(&node, "ann", "wrong")), (503, 503));
    others();
    // a refresh token counts for an hour more: what it asks is recorded once an hour
    assert_eq!(refreshed(&node, &refresh).status, 200);
    std::fs::write(&clock, "+2h").expect("a clock");
    assert_eq!(refreshed(&node, &refresh).status, 503);
    others();
    assert_eq!(browser.get(CURRENT).expect("an answer").status, 200, "a session asks nobody");

    slapd.start(&PEOPLE, &[]);
    wait::until("the directory is asked again", || (ann() == 200).then_some(()));
    wait::until("a refresh token counts again", || {
        (refreshed(&node, &refresh).status == 200).then_some(())
    });
}
