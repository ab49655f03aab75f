//! Wrong passwords keep no right one waiting: who guesses is stopped after some tries, others are
//! not, and an edge does not take itself for cut off because of them.

use http::Method;
use tests::balancer::Balancer;
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::Image;
use tests::mesh::Mesh;
use tests::{metrics, people, wait};

/// More than one address may try, also with those that come back meanwhile.
const GUESSES: usize = 150;

/// Tries wrong passwords, several at a time, until all are answered.
fn guess(client: &Client, path: &str) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let tries = (0..3).map(|thread| {
            scope.spawn(move || {
                let tries = (0..GUESSES / 3).map(|n| {
                    let client = client.clone().basic("admin", &format!("wrong-{thread}-{n}"));
                    client.get(path).unwrap_or_else(|none| panic!("{path}: {none}"))
                });
                tries.collect::<Vec<_>>()
            })
        });
        let tries: Vec<_> = tries.collect();
        tries.into_iter().flat_map(|one| one.join().expect("a thread ends")).collect()
    })
}

/// Some were checked, then they were refused until some time. At an edge, some may be told that the
/// replica took too long to check them (503).
fn stopped(answers: &[Answer], at_edge: bool) {
    let of = |status| answers.iter().filter(move |answer| answer.status == status);
    let (wrong, refused) = (of(401).count(), of(429).count());
    let late = if at_edge { of(503).count() } else { 0 };
    assert_eq!(wrong + refused + late, answers.len(), "other answers: {answers:?}");
    assert!(wrong >= 10 && refused >= 10, "{wrong} were checked, {refused} were refused");
    for answer in of(429) {
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{answer}");
        assert_eq!(answer.envelope().map(|(code, _)| code).as_deref(), Some("TOOMANYREQUESTS"));
    }
}

#[test]
fn who_guesses_passwords_is_stopped_and_a_right_one_is_let_in() {
    let mesh = Mesh::up(3);
    let right = |at: usize| {
        let answer = mesh.client(at).get("/api/v2.0/projects");
        answer.unwrap_or_else(|none| panic!("at {at}: {none}")).status
    };
    // this node knows the right password now; the second does not yet
    assert_eq!(right(0), 200);
    for path in ["/v2/", "/service/token?service=atoll&scope=repository:demo/a:pull"] {
        let answers = guess(&mesh.anyone(if path == "/v2/" { 0 } else { 2 }), path);
        assert_eq!(right(0), 200, "the right password, after wrong ones");
        stopped(&answers, false);
    }
    assert!(metrics::value(&mesh.anyone(0), "atoll_logins_throttled_total") > 0);
    assert_eq!(right(1), 200, "a node where nobody guessed");
    // a pull that needs no password is not stopped
    mesh.repository(0, "demo/a").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let there = tests::repository::Repository::new(&mesh.anyone(0), "demo/a");
    there.pull("1").unwrap_or_else(|no| panic!("{no}"));
    // and in time even who guessed may try again
    wait::until("a password is checked again", || {
        let client = mesh.anyone(0).basic("admin", "wrong at last");
        let answer = client.get("/v2/").unwrap_or_else(|none| panic!("{none}"));
        (answer.status == 401).then_some(())
    });
}

#[test]
fn wrong_passwords_do_not_cut_an_edge_off() {
    const ONE: [(&str, &str); 1] = [("one", "us-east-1")];
    let mut mesh = Formed::of(&ONE, "");
    let member = mesh.prepare("edge", "us-east-1", "role: edge\n");
    member.must_join(&mesh.members()[0].invite_as("edge"));
    member.serve();
    member.wait_ready();
    let edge = mesh.members().len();
    mesh.add(member);
    mesh.repository(0, "demo/app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    let path = "/v2/demo/app/manifests/1";
    let pull = |who: &Client| {
        let answer = who.ask(Method::GET, path).header("accept", "*/*").send();
        let answer = answer.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!((answer.status, answer.header("warning")), (200, None), "{answer}");
    };
    let anyone = mesh.members()[edge].anyone();
    pull(&mesh.client(edge));
    let answers = std::thread::scope(|scope| {
        let guessing = scope.spawn(|| guess(&anyone, "/v2/"));
        while !guessing.is_finished() {
            pull(&anyone);
            pull(&mesh.client(edge));
        }
        guessing.join().expect("a thread ends")
    });
    stopped(&answers, true);
    let alone = metrics::value(&anyone, "atoll_edge_reads_alone_total");
    assert_eq!(alone, 0, "the edge took itself for cut off");
}

#[test]
fn behind_a_trusted_proxy_each_client_is_counted_by_its_own_address() {
    let mesh = Mesh::up_with(1, &[("http.trusted_proxies", Balancer::ADDRESS)]);
    let nginx = Balancer::telling_who_asks(&mesh);
    let admin = mesh.client(0);
    for name in ["ann", "bob", "eve"] {
        people::create_user(&admin, name);
    }
    let behind = |address: &str| Client::of(&format!("http://{}", nginx.authority())).from(address);
    let signs_in = |client: &Client, name: &str| {
        let answer = client.clone().basic(name, people::PASSWORD).get("/v2/");
        answer.unwrap_or_else(|none| panic!("{name}: {none}")).status
    };
    let forging = |client: &Client, said: &str| {
        let tries = (0..GUESSES).map(|n| {
            let client = client.clone().basic("admin", &format!("wrong-{n}"));
            let said = said.replace('N', &(n % 250).to_string());
            let ask = client.ask(Method::GET, "/v2/").header("x-forwarded-for", &said);
            ask.send().unwrap_or_else(|none| panic!("{none}"))
        });
        tries.collect::<Vec<_>>()
    };
    let (guesser, ann) = (behind("127.0.0.5"), behind("127.0.0.6"));

    // each time it says that it is somebody else, and the proxy says who it is
    let answers = forging(&guesser, "10.1.2.N");
    stopped(&answers, false);
    assert_eq!(signs_in(&guesser, "eve"), 429, "whatever it tries next");
    assert_eq!(signs_in(&ann, "ann"), 200, "another client of the same proxy");
    assert_eq!(signs_in(&ann, "bob"), 200, "that shows a password for the first time");

    // who is no proxy is counted by itself, and uses up nothing of whom it names
    let forger = mesh.anyone(0).from("127.0.0.8");
    stopped(&forging(&forger, "10.1.2.N"), false);
    let forger = mesh.anyone(0).from("127.0.0.9");
    stopped(&forging(&forger, "127.0.0.7"), false);
    assert_eq!(signs_in(&behind("127.0.0.7"), "eve"), 200);
}
