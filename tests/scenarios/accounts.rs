//! What people and robots do with accounts: users and projects through Harbor's API, robots, tokens,
//! a lost password, and workloads that sign in with what their issuer gives them.

use http::Method;
use serde_json::json;
use tests::formed::Formed;
use tests::http::Client;
use tests::image::Image;
use tests::people::{
    Issuer, PASSWORD, add_member, create_robot, create_user, must, number, reads, robot_of,
    token_answer,
};
use tests::repository::Repository;
use tests::{process, wait};

const SITES: [(&str, &str); 3] = [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-1")];

#[test]
fn a_robot_that_manages_users_locks_no_administrator_out() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let second = create_user(&admin, "second");
    let path = format!("/api/v2.0/users/{second}");
    must(&admin, Method::PUT, &format!("{path}/sysadmin"), &json!({"sysadmin_flag": true}), 200);
    let ann = create_user(&admin, "ann");
    let access: Vec<_> = ["create", "read", "update", "delete", "list"]
        .map(|action| json!({"resource": "user", "action": action}))
        .into();
    let robot = create_robot(
        &admin,
        &json!({"name": "hr", "level": "system", "duration": 1,
        "permissions": [{"kind": "system", "namespace": "/", "access": access}]}),
    );
    let robot = mesh.members()[0].anyone().basic(&robot.name, &robot.secret);
    let off = json!({"disabled": true});
    must(&robot, Method::PUT, &path, &off, 403);
    must(&robot, Method::DELETE, &path, &json!({}), 403);
    must(&robot, Method::PUT, &format!("{path}/sysadmin"), &json!({"sysadmin_flag": false}), 403);
    must(
        &robot,
        Method::PUT,
        &format!("{path}/password"),
        &json!({"new_password": "An0ther-word"}),
        403,
    );
    must(&robot, Method::PUT, &format!("/api/v2.0/users/{ann}"), &off, 200);
    must(&robot, Method::DELETE, &format!("/api/v2.0/users/{ann}"), &json!({}), 200);
    must(&robot, Method::DELETE, "/api/v2.0/users/999", &json!({}), 404);
}

#[test]
fn a_user_lives_in_harbors_api() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let anyone = mesh.members()[0].anyone();
    let ann = create_user(&admin, "ann");
    let twice = json!({"username": "ann", "password": PASSWORD});
    must(&admin, Method::POST, "/api/v2.0/users", &twice, 409);
    for (bad, why) in [
        (json!({"username": "a:b", "password": PASSWORD}), "username"),
        (json!({"username": "robot$x", "password": PASSWORD}), "username"),
        (json!({"username": "bob", "password": "short"}), "password"),
        (json!({"username": "bob", "password": PASSWORD, "email": "no"}), "email"),
    ] {
        let refused = must(&admin, Method::POST, "/api/v2.0/users", &bad, 400);
        assert!(refused.envelope().is_some_and(|(_, text)| text.contains(why)), "{refused}");
    }
    let own = anyone.clone().basic("ann", PASSWORD);
    let shown = must(&own, Method::GET, "/api/v2.0/users/current", &json!({}), 200).json();
    assert_eq!((&shown["user_id"], &shown["sysadmin_flag"]), (&json!(ann), &json!(false)));
    assert!(!shown.to_string().contains("argon2"), "{shown}");
    let found = must(&admin, Method::GET, "/api/v2.0/users?q=username=~nn", &json!({}), 200);
    assert_eq!(found.header("x-total-count"), Some("1"));
    // their own password, with the old one only
    let path = format!("/api/v2.0/users/{ann}/password");
    let new = json!({"old_password": "Wr0ng-word", "new_password": "An0ther-word"});
    must(&own, Method::PUT, &path, &new, 403);
    let new = json!({"old_password": PASSWORD, "new_password": "An0ther-word"});
    must(&own, Method::PUT, &path, &new, 200);
    must(&own, Method::GET, "/api/v2.0/users/current", &json!({}), 401);
    let own = anyone.clone().basic("ann", "An0ther-word");
    // they become an administrator and the first one may go; the last one may not
    must(&own, Method::PUT, "/api/v2.0/users/1/sysadmin", &json!({"sysadmin_flag": true}), 403);
    let place = format!("/api/v2.0/users/{ann}/sysadmin");
    must(&admin, Method::PUT, &place, &json!({"sysadmin_flag": true}), 200);
    must(&own, Method::DELETE, "/api/v2.0/users/1", &json!({}), 200);
    let refused = must(&own, Method::PUT, &place, &json!({"sysadmin_flag": false}), 412);
    assert!(refused.envelope().is_some_and(|(_, text)| text.contains("last administrator")));
    must(&own, Method::DELETE, &format!("/api/v2.0/users/{ann}"), &json!({}), 412);
    must(&own, Method::DELETE, "/api/v2.0/users/999", &json!({}), 404);
}

#[test]
fn who_creates_a_project_is_its_admin_and_lets_others_in() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let user = |name: &str| mesh.members()[0].anyone().basic(name, PASSWORD);
    for name in ["ann", "bob"] {
        create_user(&admin, name);
    }
    let (ann, bob) = (user("ann"), user("bob"));
    must(&ann, Method::POST, "/api/v2.0/projects", &json!({"project_name": "team"}), 201);
    let names = |client: &Client| -> Vec<String> {
        let all = must(client, Method::GET, "/api/v2.0/projects", &json!({}), 200).json();
        let names = all.as_array().expect("a list").iter();
        names.map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(
        (names(&ann), names(&bob)),
        (vec!["demo".into(), "team".into()], vec!["demo".into()])
    );
    assert_eq!(names(&mesh.members()[0].anyone()), ["demo"]);
    let team = Repository::new(&ann, "team/app");
    team.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(reads(&bob, "team/app"), 403);
    let id = add_member(&ann, "team", "bob", 3);
    assert_eq!(reads(&bob, "team/app"), 200);
    assert!(Repository::new(&bob, "team/app").push(&Image::tiny(), "2").is_err(), "a guest");
    let place = format!("/api/v2.0/projects/team/members/{id}");
    must(&bob, Method::PUT, &place, &json!({"role_id": 1}), 403);
    must(&ann, Method::PUT, &place, &json!({"role_id": 9}), 400);
    must(&ann, Method::PUT, &place, &json!({"role_id": 2}), 200);
    let pushed = Repository::new(&bob, "team/app").push(&Image::tiny(), "2");
    pushed.unwrap_or_else(|no| panic!("a developer: {no}"));
    let again = json!({"role_id": 2, "member_user": {"username": "bob"}});
    must(&ann, Method::POST, "/api/v2.0/projects/team/members", &again, 409);
    let nobody = json!({"role_id": 2, "member_user": {"username": "eve"}});
    must(&ann, Method::POST, "/api/v2.0/projects/team/members", &nobody, 404);
    let shown = must(&bob, Method::GET, "/api/v2.0/projects/team/members", &json!({}), 200).json();
    let roles: Vec<_> = shown.as_array().expect("a list").iter().map(|m| &m["role_name"]).collect();
    assert_eq!(roles, ["projectAdmin", "developer"]);
}

#[test]
fn a_robot_gets_no_more_than_whoever_makes_it_has() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let node = mesh.members()[0].anyone();
    for project in ["p", "q"] {
        tests::repository::create_project(&admin, project, false, 1);
    }
    create_user(&admin, "ann");
    add_member(&admin, "p", "ann", 1);
    let ann = node.clone().basic("ann", PASSWORD);
    let made = create_robot(&ann, &robot_of("p", "ci", &["pull", "push"]));
    assert_eq!(made.name, "robot$p+ci");
    must(&ann, Method::POST, "/api/v2.0/robots", &robot_of("p", "ci", &["pull"]), 409);
    must(&ann, Method::POST, "/api/v2.0/robots", &robot_of("q", "ci", &["pull"]), 403);
    let system = json!({"name": "all", "level": "system", "duration": -1, "permissions": [
        {"kind": "project", "namespace": "*", "access": [{"resource": "repository", "action": "pull"}]},
        {"kind": "system", "namespace": "/", "access": [{"resource": "catalog", "action": "read"}]}]});
    must(&ann, Method::POST, "/api/v2.0/robots", &system, 403);
    let all = create_robot(&admin, &system);
    for (bad, why) in [
        (robot_of("p", "Ci", &["pull"]), "name"),
        (robot_of("p", "x", &["push"]), "push"),
        (robot_of("p", "x", &["fly"]), "fly"),
        (robot_of("p", "x", &[]), "permission"),
        (json!({"name": "x", "level": "world", "permissions": []}), "level"),
        (json!({"name": "x", "level": "project", "duration": 0, "permissions": []}), "duration"),
    ] {
        let refused = must(&admin, Method::POST, "/api/v2.0/robots", &bad, 400);
        assert!(refused.envelope().is_some_and(|(_, text)| text.contains(why)), "{refused}");
    }
    // what belongs into PUT takes no secret away
    let path = format!("/api/v2.0/robots/{}", all.id);
    let refused = must(&admin, Method::PATCH, &path, &json!({"disable": true}), 400);
    assert!(refused.to_string().contains("PUT"), "{refused}");
    // a robot of the system pulls everywhere, and lists what there is, and no more
    let robot = node.clone().basic(&all.name, &all.secret);
    let ci = node.clone().basic(&made.name, &made.secret);
    Repository::new(&ci, "p/app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    assert!(Repository::new(&ci, "q/app").push(&Image::tiny(), "1").is_err());
    assert_eq!(
        (reads(&robot, "p/app"), robot.get("/v2/_catalog").map(|a| a.status).ok()),
        (200, Some(200))
    );
    assert!(Repository::new(&robot, "p/app").push(&Image::tiny(), "2").is_err());
    must(&robot, Method::GET, "/api/v2.0/users", &json!({}), 403);
    must(&robot, Method::GET, "/api/v2.0/users/current", &json!({}), 403);
    // what is not shown again, and what expires
    let shown = must(&admin, Method::GET, &format!("/api/v2.0/robots/{}", all.id), &json!({}), 200);
    assert!(!shown.to_string().contains(&all.secret), "{shown}");
    assert_eq!(shown.json()["expires_at"], -1);
    let of_p = must(&ann, Method::GET, &format!("/api/v2.0/robots/{}", made.id), &json!({}), 200);
    let (from, until) = (&of_p.json()["creation_time"], of_p.json()["expires_at"].as_i64());
    assert!(until.is_some_and(|until| until > 1_795_000_000), "{from} {until:?}");
    must(&ann, Method::GET, &format!("/api/v2.0/robots/{}", all.id), &json!({}), 403);
}

#[test]
fn a_refresh_token_gets_tokens_until_the_password_changes() {
    let mesh = Formed::of(&SITES, "");
    let admin = mesh.client(0);
    tests::repository::create_project(&admin, "p", false, 1);
    let app = Repository::new(&admin, "p/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let ann = create_user(&admin, "ann");
    add_member(&admin, "p", "ann", 3);
    let own = mesh.members()[1].anyone().basic("ann", PASSWORD);
    let answer = own.get("/service/token?service=atoll&offline_token=true&client_id=docker");
    let answer = answer.unwrap_or_else(|none| panic!("{none}")).json();
    let refresh = answer["refresh_token"].as_str().expect("a refresh token").to_owned();
    assert!(token_answer(&own, &[]).json().get("refresh_token").is_none(), "nobody asked");
    // it opens nothing by itself, and gets tokens at every node
    assert!(matches!(reads(&mesh.members()[0].anyone().bearer(&refresh), "p/app"), 401 | 403));
    let form = format!(
        "grant_type=refresh_token&service=atoll&client_id=docker&scope=repository:p/app:pull&refresh_token={refresh}"
    );
    let post = |at: usize| {
        let ask = mesh.members()[at].anyone().ask(Method::POST, "/service/token");
        let ask = ask.header("content-type", "application/x-www-form-urlencoded");
        ask.body(form.clone()).send().unwrap_or_else(|none| panic!("{none}"))
    };
    for at in 0..3 {
        let answer = post(at);
        assert_eq!(answer.status, 200, "{answer}");
        let token = answer.json()["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(reads(&mesh.members()[2 - at].anyone().bearer(&token), "p/app"), 200);
    }
    let path = format!("/api/v2.0/users/{ann}/password");
    must(&admin, Method::PUT, &path, &json!({"new_password": "An0ther-word"}), 200);
    assert_eq!([0, 1, 2].map(|at| post(at).status), [401; 3]);
}

#[test]
fn a_lost_password_is_set_from_the_disk_of_a_replica() {
    let mesh = Formed::of(&SITES, "");
    let status = |at: usize, password: &str| {
        let client = mesh.members()[at].anyone().basic("admin", password);
        client.get("/api/v2.0/users/current").unwrap_or_else(|none| panic!("{none}")).status
    };
    assert_eq!(status(1, mesh.password()), 200);
    let set = |arguments: &[&str]| {
        let member = &mesh.members()[2];
        let mut command = member.atoll("password");
        command.args(arguments).arg("--config").arg(member.config());
        process::finish(&mut command)
    };
    let said = set(&[]);
    assert!(said.success, "{}", said.err);
    let new = said.out;
    let new = new.trim();
    assert_eq!([0, 1, 2].map(|at| status(at, new)), [200; 3]);
    assert_eq!([0, 1, 2].map(|at| status(at, mesh.password())), [401; 3]);
    // the node that commits it says so, and none says which
    let words: Vec<String> = mesh.members()[..3].iter().map(|member| member.words()).collect();
    let loud = |log: &String| {
        let is =
            |line: &str| line.contains("WARN") && line.contains("a password is set from the disk");
        log.lines().filter(|line| is(line)).count()
    };
    assert_eq!(words.iter().map(loud).sum::<usize>(), 1, "{words:?}");
    assert!(!words.iter().any(|log| log.contains(new)), "the password is in a log");
    let file = mesh.folder().join("new-password");
    std::fs::write(&file, "weak\n").expect("a file");
    let path = file.display().to_string();
    let refused = set(&["--password-file", &path]);
    assert!(!refused.success && refused.err.contains("8 to 128 characters"), "{}", refused.err);
    std::fs::write(&file, "Str0nger-word\n").expect("a file");
    assert!(set(&["admin", "--password-file", &path]).success);
    assert_eq!(status(0, "Str0nger-word"), 200);
    let refused = set(&["nobody"]);
    assert!(!refused.success && refused.err.contains("of nobody was not set"), "{}", refused.err);
    // nobody is frightened for what was not done
    let words: Vec<String> = mesh.members()[..3].iter().map(|member| member.words()).collect();
    assert_eq!(words.iter().map(loud).sum::<usize>(), 2, "{words:?}");
}

#[test]
fn a_workload_signs_in_with_its_issuers_token_and_no_secret() {
    let mut mesh = Formed::of(&SITES, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    tests::repository::create_project(&admin, "p", false, 1);
    let app = Repository::new(&admin, "p/app");
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let robot = create_robot(&admin, &robot_of("p", "cluster", &["pull"]));
    let issuer = Issuer::new("https://kubernetes.default.svc.cluster.local");
    let path = format!("/api/v2.0/robots/{}/trusts", robot.id);
    let rule = json!({"issuer": issuer.name, "audience": "atoll",
        "subject": "system:serviceaccount:prod:*", "keys": issuer.keys()});
    let made = must(&admin, Method::POST, &path, &rule, 201);
    must(&admin, Method::POST, &path, &rule, 409);
    for (field, bad) in [("issuer", json!("kube")), ("subject", json!("*")), ("keys", json!({}))] {
        let mut other = rule.clone();
        other[field] = bad;
        must(&admin, Method::POST, &path, &other, 400);
    }
    create_user(&admin, "ann");
    add_member(&admin, "p", "ann", 2);
    let ann = mesh.members()[0].anyone().basic("ann", PASSWORD);
    must(&ann, Method::POST, &path, &rule, 403);

    let pod = issuer.token("system:serviceaccount:prod:web", "atoll");
    let status = |at: usize, token: &str| {
        let client = mesh.members()[at].anyone().basic("$workload", token);
        let basic = reads(&client, "p/app");
        let token = token_answer(&client, &["repository:p/app:pull"]);
        if token.status != 200 {
            assert_eq!(token.status, 401, "{token}");
            return basic;
        }
        let token = token.json()["token"].as_str().expect("a token").to_owned();
        assert_eq!(reads(&mesh.members()[at].anyone().bearer(&token), "p/app"), basic);
        basic
    };
    for at in 0..=edge {
        assert_eq!(status(at, &pod), 200, "at {at}");
        let other = issuer.token("system:serviceaccount:test:web", "atoll");
        let elsewhere = issuer.token("system:serviceaccount:prod:web", "vault");
        let forged = Issuer::new(&issuer.name).token("system:serviceaccount:prod:web", "atoll");
        assert_eq!([other, elsewhere, forged].map(|token| status(at, &token)), [401; 3], "at {at}");
    }
    // it may what the robot may
    let client = mesh.members()[1].anyone().basic("$workload", &pod);
    assert!(Repository::new(&client, "p/app").push(&Image::tiny(), "2").is_err());

    // the kubelet asks for credentials, and pulls with what it gets
    let image = format!("{}/p/app:1", mesh.members()[2].anyone().authority());
    let request = json!({"apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest", "image": image, "serviceAccountToken": pod});
    let file = mesh.folder().join("request");
    std::fs::write(&file, request.to_string()).expect("a file");
    let mut provider = mesh.members()[2].atoll("credential-provider");
    let said = provider.stdin(std::fs::File::open(&file).expect("the file")).output();
    let said = said.expect("atoll runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).expect("an answer is JSON");
    let auth = &said["auth"][mesh.members()[2].anyone().authority()];
    let text = |field: &str| auth[field].as_str().expect("credentials").to_owned();
    let client = mesh.members()[2].anyone().basic(&text("username"), &text("password"));
    assert_eq!(reads(&client, "p/app"), 200);

    // the issuer has other keys; then the rule goes
    let rotated = Issuer::new(&issuer.name);
    let new = rotated.token("system:serviceaccount:prod:web", "atoll");
    let place = format!("{path}/{}", number(&made));
    must(&admin, Method::PUT, &place, &json!({"keys": rotated.keys()}), 200);
    assert_eq!((status(1, &new), status(1, &pod)), (200, 401));
    // what it was given is good no longer than the rule: no refresh token, and no token
    let client = mesh.members()[1].anyone().basic("$workload", &new);
    let asked = "/service/token?offline_token=true&scope=repository:p/app:pull";
    let given = client.get(asked).unwrap_or_else(|none| panic!("{none}")).json();
    assert!(given.get("refresh_token").is_none(), "the issuer's token ends before it");
    let given = given["token"].as_str().expect("a token");
    assert_eq!(reads(&mesh.members()[2].anyone().bearer(given), "p/app"), 200);
    must(&admin, Method::DELETE, &place, &json!({}), 200);
    assert!(matches!(reads(&mesh.members()[2].anyone().bearer(given), "p/app"), 401 | 403));
    assert_eq!([0, 1, 2].map(|at| status(at, &new)), [401; 3]);
    wait::until("the edge knows", || (status(edge, &new) == 401).then_some(()));
}
