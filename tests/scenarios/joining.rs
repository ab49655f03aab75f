//! A token lets one node into one mesh, once; every other use of it is refused in words and leaves
//! nothing behind.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tests::complaints::Complaints;
use tests::formed::{Formed, loopback};
use tests::image::Image;
use tests::member::Member;
use tests::{process, tools, wait};

#[test]
fn a_token_works_once_and_the_newcomer_serves_what_was_pushed_before_it_came() {
    let mut mesh = Formed::of(&[("first", "a")], "");
    let image = Image::random(&[300 << 10, 50 << 10]);
    mesh.repository(0, "demo/old").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));

    let token = mesh.members()[0].invite();
    let [second, third] =
        [("second", "b"), ("third", "c")].map(|(name, region)| mesh.prepare(name, region, ""));
    second.must_join(&token);
    let wrong = Complaints::default();
    refused(&wrong, "a used token", &third, &token);
    let identity = files(&second);
    let again = second.join(&mesh.members()[0].invite());
    wrong.unless(!again.success, || format!("a member joins a second time:\n{}", again.out));
    wrong.unless(files(&second) == identity, || "a member's identity was overwritten".to_owned());
    second.serve();
    second.wait_ready();
    mesh.add(second);
    let found = mesh
        .repository(1, "demo/old")
        .pull("1")
        .unwrap_or_else(|no| panic!("pushed before it came: {no}"));
    assert_eq!(found.digest, image.digest());

    // the second node may invite too, and the one who was refused is welcome with a token of its
    // own
    third.must_join(&mesh.members()[1].invite());
    third.serve();
    third.wait_ready();
    mesh.add(third);
    let found = mesh
        .repository(2, "demo/old")
        .pull("1")
        .unwrap_or_else(|no| panic!("pushed before it came: {no}"));
    assert_eq!(found.digest, image.digest());
    let names = wait::until("the command line shows all three, up", || {
        let told = command_line(&mesh, 2);
        let up = told["nodes"].as_array()?.iter().filter(|node| node["state"] == "up");
        let names: Vec<_> = up
            .filter_map(|node| Some((node["name"].as_str()?.to_owned(), node["region"].clone())))
            .collect();
        (names.len() == 3).then_some(names)
    });
    for (name, region) in [("first", "a"), ("second", "b"), ("third", "c")] {
        wrong.unless(names.iter().any(|(one, of)| one == name && of == region), || {
            format!("no {name} of {region}: {names:?}")
        });
    }
    wait::until("three voters", || {
        (mesh.status(0).ok()?["ledger"]["voters"].as_array()?.len() == 3).then_some(())
    });
    // with three regions the first may go
    mesh.members()[0].stop(Signal::KILL);
    let next = Image::tiny();
    wait::until_ok("the mesh outlives its first node", || {
        mesh.repository(1, "demo/old").push(&next, "2")
    });
    let found = mesh.repository(2, "demo/old").pull("2").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, next.digest());
}

#[test]
fn of_two_that_come_with_one_token_one_is_let_in() {
    let mesh = Formed::of(&[("first", "a")], "");
    for round in 0..tests::rounds(5) {
        let token = mesh.members()[0].invite();
        let twins = ["x", "y"].map(|twin| mesh.prepare(&format!("{twin}-{round}"), "b", ""));
        let said = std::thread::scope(|both| {
            twins
                .each_ref()
                .map(|twin| both.spawn(|| twin.join(&token)))
                .map(|one| one.join().expect("it joins or not"))
        });
        let let_in = said.iter().filter(|said| said.success).count();
        assert_eq!(let_in, 1, "round {round}: {said:?}");
        for (twin, said) in twins.iter().zip(&said) {
            assert_eq!(
                twin.has_identity(),
                said.success,
                "round {round}: {} has an identity: {said:?}",
                twin.name
            );
        }
    }
    let nodes = mesh.status(0).expect("status")["nodes"].as_array().map(Vec::len);
    assert_eq!(nodes, Some(1 + tests::rounds(5)), "each token made one member");
}

#[test]
fn a_token_that_is_garbled_or_of_another_mesh_lets_nobody_in() {
    let mut mesh = Formed::of(&[("first", "a")], "");
    let newcomer = mesh.prepare("second", "b", "");
    let wrong = Complaints::default();
    let token = mesh.members()[0].invite();
    let (head, tail) = token.split_at(token.len() / 2);
    // what begins with a hyphen has a case of its own: chance makes one in 64 tails so
    let tail = tail.trim_start_matches('-');
    let changed = |at: usize| {
        let mut letters: Vec<_> = token.chars().collect();
        letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
        letters.into_iter().collect::<String>()
    };
    let garbled = [
        ("no token at all", "hello".to_owned()),
        ("nothing", String::new()),
        ("half a token", head.to_owned()),
        ("the other half", tail.to_owned()),
        ("a half that looks like a flag", format!("-L{tail}")),
        ("a half that looks like a long flag", format!("--{tail}")),
        ("a token with more behind it", format!("{token}{tail}")),
        ("a token with another secret", changed(token.len() - 3)),
        ("a token with another fingerprint", changed(token.len() / 2 - 4)),
        ("a token in capitals", token.to_uppercase()),
    ];
    for (what, text) in &garbled {
        refused(&wrong, what, &newcomer, text);
    }

    // At the same address stands a new mesh now, with a CA of its own: the token's fingerprint
    // tells.
    mesh.members()[0].stop(Signal::TERM);
    let folder = mesh.folder().join("anew");
    std::fs::create_dir(&folder).expect("a folder");
    let usurper = Member::new(&folder, "first", "a", mesh.members()[0].place().clone(), "", "");
    usurper.init();
    usurper.serve();
    usurper.wait_ready();
    refused(&wrong, "a token of the mesh that was there before", &newcomer, &token);
    drop(usurper);
    refused(&wrong, "a token of a mesh that is down", &newcomer, &token);

    // none of that has used it up
    mesh.members()[0].serve();
    mesh.members()[0].wait_ready();
    newcomer.must_join(&token);
    newcomer.serve();
    newcomer.wait_ready();
    mesh.add(newcomer);
}

#[test]
fn two_nodes_cannot_have_one_name() {
    let mesh = Formed::of(&[("first", "a")], "");
    let wrong = Complaints::default();
    let folder = mesh.folder().join("namesake");
    std::fs::create_dir(&folder).expect("a folder");
    let namesake = Member::new(&folder, "first", "b", loopback(), "", "");
    refused(&wrong, "a node with a name that is taken", &namesake, &mesh.members()[0].invite());
}

/// The command fails with one clear sentence, and the node is a member of nothing.
fn refused(wrong: &Complaints, what: &str, newcomer: &Member, token: &str) {
    let said = newcomer.join(token);
    let words = format!("{}{}", said.out, said.err);
    wrong.unless(!said.success, || format!("{what} is accepted: {words}"));
    let used = what != "a used token" || words.contains("this token was used already");
    wrong.unless(used, || format!("{what}: {words}"));
    let clear =
        words.trim().lines().count() == 1 && words.contains(' ') && !words.contains("panicked");
    wrong.unless(clear, || format!("{what}: not one clear sentence: {words:?}"));
    wrong.unless(!newcomer.has_identity(), || format!("{what} leaves an identity behind"));
}

fn files(of: &Member) -> Vec<(String, Vec<u8>)> {
    let folder = of.data().join("identity");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut all: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a readable file")))
        .collect();
    all.sort();
    all
}

/// `atoll status --output json` at a node.
fn command_line(mesh: &Formed, at: usize) -> Value {
    let file = mesh.folder().join("password");
    std::fs::write(&file, mesh.password()).expect("a password can be written");
    let url = format!("http://{}", mesh.client(at).authority());
    let mut command = Command::new(tools::atoll());
    command
        .args(["status", "--url", &url, "--user", "admin", "--output", "json"])
        .arg("--password-file")
        .arg(&file);
    serde_json::from_str(&process::succeed(&mut command)).expect("status prints JSON")
}

/// It knew no user, and so called the right password wrong: clients do not try a 401 again.
#[test]
fn a_node_that_does_not_know_the_mesh_yet_has_clients_wait_and_calls_no_password_wrong() {
    let mesh = Formed::of(&[("first", "a")], "");
    let newcomer = mesh.prepare("second", "b", "");
    newcomer.must_join(&mesh.members()[0].invite());
    mesh.members()[0].stop(Signal::KILL);
    newcomer.serve();
    let client = newcomer.anyone().basic("admin", mesh.password());
    wait::until("it listens", || client.get("/healthz").ok());
    for path in ["/v2/", "/service/token?service=atoll", "/api/v2.0/projects"] {
        let answer = client.get(path).unwrap_or_else(|none| panic!("{path}: {none}"));
        assert_eq!(answer.status, 503, "{path}: {answer}");
        assert!(answer.header("retry-after").is_some(), "{path}: {answer}");
    }
    mesh.members()[0].serve();
    wait::until("the right password is right", || {
        let answer = client.get("/v2/").ok()?;
        assert!([200, 503].contains(&answer.status), "{answer}");
        (answer.status == 200).then_some(())
    });
    let wrong = newcomer
        .anyone()
        .basic("admin", "wrong")
        .get("/v2/")
        .unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(wrong.status, 401, "{wrong}");
    newcomer.stop(Signal::TERM);
}
