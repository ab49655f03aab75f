//! Workloads sign in with tokens of an issuer that is asked for its keys: also while it changes them or
//! is away, and never at an address that the operator has not allowed.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Image, MANIFEST};
use tests::oidc::Provider;
use tests::people::{Issuer, create_robot, must, number, robot_of, token_answer};

use tests::repository::{Repository, create_project};
use tests::wait;

const SITES: [(&str, &str); 2] = [("one", "us-east-1"), ("two", "eu-1")];

/// A robot of a project with an image, and the place of its rules.
fn robot(mesh: &Formed, project: &str) -> String {
    let admin = mesh.client(0);
    create_project(&admin, project, false, 1);
    let app = Repository::new(&admin, &format!("{project}/app"));
    app.push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let robot = create_robot(&admin, &robot_of(project, "ci", &["pull"]));
    format!("/api/v2.0/robots/{}/trusts", robot.id)
}

fn rule(issuer: &str, subject: &str) -> Value {
    json!({"issuer": issuer, "audience": "atoll", "subject": subject})
}

/// What a workload gets that reads the image with its token.
fn reads(node: &Client, token: &str) -> u16 {
    let client = node.clone().basic("$workload", token);
    let ask = client.ask(Method::GET, "/v2/p/app/manifests/1").header("accept", MANIFEST);
    ask.send().unwrap_or_else(|none| panic!("{none}")).status
}

#[test]
fn an_issuer_that_is_asked_may_change_its_keys_and_be_away() {
    let more = "people: {allow_loopback_issuers: true}\n";
    let mut mesh = Formed::of(&SITES, more);
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let mut provider = Provider::start("http://127.0.0.1:9/back");
    provider.knows(&json!({"ci": {}, "eve": {}}));
    let admin = mesh.client(0);
    let trusts = robot(&mesh, "p");
    let made = must(&admin, Method::POST, &trusts, &rule(&provider.issuer(), "ci"), 201);
    let shown = must(&admin, Method::GET, &trusts, &json!({}), 200).json();
    assert_eq!(shown[0]["keys"], Value::Null, "{shown}");
    let node = |at: usize| mesh.members()[at].anyone();

    let token = provider.id_token("ci");
    assert_eq!([0, 1, edge].map(|at| reads(&node(at), &token)), [200; 3]);
    let granted = token_answer(&node(1).basic("$workload", &token), &["repository:p/app:pull"]);
    assert_eq!(granted.status, 200, "{granted}");
    assert_eq!(reads(&node(0), &provider.id_token("eve")), 401, "another subject");
    let forged = Issuer::new(&provider.issuer()).token("ci", "atoll");
    assert_eq!([0, 1, edge].map(|at| reads(&node(at), &forged)), [401; 3]);

    // the kubelet asks for credentials with such a token, and pulls with what it gets
    let place = node(1);
    let image = format!("{}/p/app:1", place.authority());
    let request = json!({"apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest", "image": image, "serviceAccountToken": token});
    let file = mesh.folder().join("request");
    std::fs::write(&file, request.to_string()).expect("a file");
    let mut asked = mesh.members()[1].atoll("credential-provider");
    let said = asked.stdin(std::fs::File::open(&file).expect("the file")).output();
    let said = said.expect("atoll runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout).expect("an answer is JSON");
    let given = &said["auth"][place.authority()];
    assert_eq!(given["username"], "$workload", "{said}");
    assert_eq!(reads(&place, given["password"].as_str().expect("a password")), 200);

    // other keys count at once, and again right after that
    for _ in 0..2 {
        provider.resume();
        let token = provider.id_token("ci");
        assert_eq!([0, 1, edge].map(|at| reads(&node(at), &token)), [200; 3]);
    }
    assert_eq!(reads(&node(0), &token), 401, "the issuer has withdrawn its key");

    // while the issuer is away its last keys count, where they are known
    let token = provider.id_token("ci");
    provider.stop();
    assert_eq!([0, 1].map(|at| reads(&node(at), &token)), [200; 2]);
    let two = &mesh.members()[1];
    two.stop(Signal::TERM);
    two.serve();
    two.wait_ready();
    let refused = token_answer(&node(1).basic("$workload", &token), &[]);
    assert_eq!(refused.status, 503, "the token is not wrong: {refused}");
    assert!(refused.envelope().is_some_and(|(_, text)| text.contains("issuer")), "{refused}");
    must(&mesh.client(1), Method::POST, &trusts, &rule(&provider.issuer(), "other"), 400);
    provider.resume();
    let token = provider.id_token("ci");
    wait::until("the issuer is asked again", || (reads(&node(1), &token) == 200).then_some(()));

    // keys that are given count, and no others
    let own = Issuer::new(&provider.issuer());
    let place = format!("{trusts}/{}", number(&made));
    must(&admin, Method::PUT, &place, &json!({}), 400);
    must(&admin, Method::PUT, &place, &json!({"keys": own.keys()}), 200);
    let by_hand = own.token("ci", "atoll");
    assert_eq!([0, 1].map(|at| reads(&node(at), &by_hand)), [200; 2]);
    assert_eq!(reads(&node(0), &token), 401);
    must(&admin, Method::PUT, &place, &json!({"keys": null}), 200);
    assert_eq!((reads(&node(0), &by_hand), reads(&node(0), &token)), (401, 200));
    must(&admin, Method::DELETE, &place, &json!({}), 200);
    assert_eq!([0, 1].map(|at| reads(&node(at), &token)), [401; 2]);
}

/// A service that counts its connections, and answers each with a document.
struct Service {
    port: u16,
    came: Arc<AtomicUsize>,
}

impl Service {
    fn start(document: impl Fn(u16) -> Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let came = Arc::new(AtomicUsize::new(0));
        let body = document(port).to_string();
        let count = came.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(mut connection) = connection else { continue };
                let _ = connection.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        Self { port, came }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

#[test]
fn a_project_admin_makes_no_node_ask_where_the_operator_does_not_want_it() {
    let mesh = Formed::of(&SITES[..1], "");
    let admin = mesh.client(0);
    let trusts = robot(&mesh, "p");
    let inside = Service::start(|_| json!({}));
    let refused = |client: &Client, trusts: &str, issuer: &str, why: &str| {
        let answer = must(client, Method::POST, trusts, &rule(issuer, "ci"), 400);
        assert!(
            answer.envelope().is_some_and(|(_, text)| text.contains(why)),
            "{issuer}: {answer}"
        );
        assert!(!answer.to_string().contains("127.0.0.1:"), "{answer}");
    };
    for issuer in [
        format!("http://127.0.0.1:{}", inside.port),
        format!("https://127.0.0.1:{}", inside.port),
        format!("https://localhost:{}/x", inside.port),
        "https://[::1]:9".to_owned(),
        "https://10.0.0.1".to_owned(),
        "https://169.254.1.1".to_owned(),
        "https://169.254.169.254".to_owned(),
        "https://[fd00:ec2::254]".to_owned(),
    ] {
        refused(&admin, &trusts, &issuer, "allow_private_issuers");
    }
    assert_eq!(inside.came(), 0, "nothing was sent there");
    for issuer in ["http://ci.example", "https://user@ci.example", "https://ci.example?x"] {
        refused(&admin, &trusts, issuer, "people.issuers");
    }
    let shown = must(&admin, Method::GET, &trusts, &json!({}), 200).json();
    assert_eq!(shown, json!([]), "nothing was recorded");
    // a robot with keys that are given is as good as ever
    let issuer = Issuer::new(&format!("https://localhost:{}", inside.port));
    let mut with_keys = rule(&issuer.name, "ci");
    with_keys["keys"] = issuer.keys();
    must(&admin, Method::POST, &trusts, &with_keys, 201);
    assert_eq!(reads(&mesh.members()[0].anyone(), &issuer.token("ci", "atoll")), 200);
    assert_eq!(inside.came(), 0);
    drop(mesh);

    // an issuer leads nobody to where it may not be itself, and speaks for itself only
    let more = "people: {allow_private_issuers: true, allow_loopback_issuers: true}\n";
    let mesh = Formed::of(&SITES[..1], more);
    let admin = mesh.client(0);
    let trusts = robot(&mesh, "p");
    let here = |port: u16| format!("http://127.0.0.1:{port}");
    let away = Service::start(
        |port| json!({"issuer": here(port), "jwks_uri": "https://169.254.169.254/latest/meta-data"}),
    );
    let other =
        Service::start(|port| json!({"issuer": "https://ci.example", "jwks_uri": here(port)}));
    let plain =
        Service::start(|port| json!({"issuer": here(port), "jwks_uri": "http://ci.example/keys"}));
    let empty = Service::start(|port| json!({"issuer": here(port), "jwks_uri": here(port)}));
    refused(&admin, &trusts, &here(away.port), "allow_private_issuers");
    for bad in [&other, &plain, &empty] {
        refused(&admin, &trusts, &here(bad.port), "cannot be used");
    }
    assert!([&away, &other, &plain, &empty].iter().all(|one| one.came() > 0));
    // nor is a node made to ask without end
    let mut tries = (0..40).map(|n| {
        let rule = rule(&format!("http://127.0.0.1:9/{n}"), "ci");
        let answer = admin.send_json(Method::POST, &trusts, &rule);
        answer.unwrap_or_else(|none| panic!("{none}"))
    });
    let stopped = tries.find(|answer| answer.status == 429).expect("one that is stopped");
    assert!(stopped.header("retry-after").is_some(), "{stopped}");
    drop(mesh);

    // the operator names those that are asked
    let more = "people: {allow_loopback_issuers: true, issuers: 'https://ci.example/*'}\n";
    let mesh = Formed::of(&SITES[..1], more);
    let trusts = robot(&mesh, "p");
    let before = empty.came();
    refused(&mesh.client(0), &trusts, &here(empty.port), "people.issuers");
    assert_eq!(empty.came(), before);
}

#[test]
fn before_its_feature_level_a_rule_has_keys() {
    let mesh = Formed::at_level(&SITES[..1], "people: {allow_loopback_issuers: true}\n", 7);
    let admin = mesh.client(0);
    let trusts = robot(&mesh, "p");
    let issuer = Issuer::new("http://127.0.0.1:9");
    let refused = admin.send_json(Method::POST, &trusts, &rule(&issuer.name, "ci"));
    let refused = refused.unwrap_or_else(|none| panic!("{none}"));
    assert!(
        refused.envelope().is_some_and(|(_, text)| text.contains("feature level")),
        "{refused}"
    );
    let node = mesh.members()[0].anyone();
    let refused = |token: &str, why: &str| {
        assert_eq!(reads(&node, token), 401);
        let log = mesh.members()[0].last_words();
        assert!(log.contains(why), "{why}: {log}");
        assert!(!log.contains(token), "a token is a secret");
    };
    refused(&issuer.token("ci", "atoll"), "no trust rule names its issuer");
    let mut with_keys = rule(&issuer.name, "ci");
    with_keys["keys"] = issuer.keys();
    must(&admin, Method::POST, &trusts, &with_keys, 201);
    assert_eq!(reads(&node, &issuer.token("ci", "atoll")), 200);
    refused(&issuer.token("eve", "atoll"), "no trust rule of its issuer means");
    let forged = Issuer::new(&issuer.name).token("ci", "atoll");
    refused(&forged, "keys did not sign it");
}
