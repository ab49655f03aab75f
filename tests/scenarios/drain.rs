//! A replica that drains gives away its projects, the leadership and its copies, says when it can be
//! switched off, and nothing is lost when it is.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::people::must;
use tests::{process, wait};

const FOUR: [(&str, &str); 4] = [
    ("one", "us-east-1"),
    ("two", "us-west-2"),
    ("three", "eu-central-1"),
    ("four", "eu-central-1"),
];

fn drain(mesh: &Formed, asked: usize, arguments: &[&str]) -> process::Finished {
    let password = mesh.folder().join("password-for-drain");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[asked].place().http);
    let mut command = mesh.members()[asked].atoll("drain");
    command.args(arguments).args(["--url", &url]).arg("--password-file").arg(password);
    process::finish(&mut command)
}

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    nodes.clone().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {status}"))
}

fn primaries(status: &Value, name: &str) -> usize {
    let projects = status["projects"].as_array().expect("projects").iter();
    projects.filter(|project| project["primary"] == name).count()
}

#[test]
fn what_drains_can_be_switched_off_and_everything_is_elsewhere() {
    // the copies of one that is only away are not made anew within this test
    let mesh = Formed::of(&FOUR, "failover: {return_after: 3s}\nrepair: {after: 1h}\n");
    let admin = mesh.client(1);
    let leader = wait::until_ok("somebody leads", || {
        let status = mesh.status(0)?;
        let name = status["leader"]["name"].as_str().ok_or("no leader")?.to_owned();
        FOUR.iter().position(|(one, _)| *one == name).ok_or(name)
    });
    let (name, region) = FOUR[leader];
    let asked = (leader + 1) % FOUR.len();
    // projects, of which some are at home there, with images that were pushed there
    for project in ["alpha", "beta", "delta", "epsilon"] {
        let what = json!({"project_name": project, "metadata": {"durability": "2"}});
        must(&mesh.client(leader), Method::POST, "/api/v2.0/projects", &what, 201);
    }
    let images: Vec<Image> = (0..6).map(|_| Image::random(&[40_000, 3_000])).collect();
    for (at, image) in images.iter().enumerate() {
        let repository = mesh.repository(leader, ["alpha/app", "beta/app"][at % 2]);
        repository.push(image, &format!("t{at}")).unwrap_or_else(|no| panic!("{no}"));
    }
    let before = mesh.status(asked).expect("a status");
    assert_eq!(node(&before, name)["draining"], false);
    let at_home = primaries(&before, name);
    assert!(at_home > 0, "{before}");

    let told = drain(&mesh, asked, &[name]);
    assert!(told.success, "{}\n{}", told.out, told.err);
    assert!(told.out.contains("can be switched off"), "{}", told.out);
    let after = wait::until_ok("the status says so", || {
        let status = mesh.status(asked)?;
        let gone = primaries(&status, name) == 0 && status["leader"]["name"] != name;
        if gone { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(node(&after, name)["draining"], true);
    let votes = format!("/api/atoll/v1/nodes/{name}/drain");
    wait::until("its vote goes to the fourth replica", || {
        let shown = must(&admin, Method::GET, &votes, &Value::Null, 200).json();
        (shown["votes"] == false).then_some(())
    });
    // it still answers, and what is pushed there is elsewhere before it is acknowledged
    let late = Image::random(&[30_000]);
    mesh.repository(leader, "alpha/app").push(&late, "late").unwrap_or_else(|no| panic!("{no}"));
    // nothing new is at home there
    let what = json!({"project_name": "gamma", "metadata": {}});
    must(&mesh.client(leader), Method::POST, "/api/v2.0/projects", &what, 201);
    let shown = must(&admin, Method::GET, "/api/v2.0/projects/gamma", &Value::Null, 200).json();
    assert_ne!(shown["home"], name, "{shown}");
    let path = format!("/api/atoll/v1/nodes/{name}/drain");
    let shown = must(&admin, Method::GET, &path, &Value::Null, 200).json();
    assert_eq!((&shown["safe"], &shown["only_here"]), (&json!(true), &json!(0)), "{shown}");

    mesh.members()[leader].stop(Signal::KILL);
    for at in (0..FOUR.len()).filter(|at| *at != leader) {
        for (number, image) in images.iter().enumerate() {
            let repository = mesh.repository(at, ["alpha/app", "beta/app"][number % 2]);
            let found = repository.pull(&format!("t{number}"));
            let found = found.unwrap_or_else(|no| panic!("t{number} at {at} without {name}: {no}"));
            assert_eq!(found.digest, image.digest());
        }
        let found = mesh.repository(at, "alpha/app").pull("late");
        assert_eq!(found.unwrap_or_else(|no| panic!("{no}")).digest, late.digest());
    }
    let more = Image::random(&[20_000]);
    mesh.repository(asked, "beta/app").push(&more, "more").unwrap_or_else(|no| panic!("{no}"));
    mesh.members()[leader].serve();
    mesh.members()[leader].wait_ready();
    let told = drain(&mesh, asked, &[name, "--undo"]);
    assert!(told.success, "{}", told.err);
    wait::until("its projects are back", || {
        let status = mesh.status(asked).ok()?;
        (primaries(&status, name) == at_home && node(&status, name)["draining"] == false)
            .then_some(())
    });
    let logs = "/api/v2.0/auditlog-exts?q=resource_type=node&page_size=100";
    let told = must(&admin, Method::GET, logs, &Value::Null, 200).json();
    let operations: Vec<&str> = told
        .as_array()
        .expect("a list")
        .iter()
        .filter(|one| one["resource"] == name)
        .filter_map(|one| one["operation"].as_str())
        .collect();
    assert!(operations.contains(&"drain") && operations.contains(&"undrain"), "{region}: {told}");
    mesh.agree();
}

#[test]
fn what_cannot_drain_says_why() {
    let mut mesh = Formed::of(&FOUR[..2], "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    let path = |name: &str| format!("/api/atoll/v1/nodes/{name}/drain");
    must(&admin, Method::POST, &path("nobody"), &Value::Null, 404);
    let refused = must(&admin, Method::POST, &path("edge"), &Value::Null, 409);
    assert!(refused.envelope().expect("an envelope").1.contains("is an edge"), "{refused}");
    must(&admin, Method::POST, &path("one"), &Value::Null, 200);
    must(&admin, Method::POST, &path("one"), &Value::Null, 200);
    let refused = must(&admin, Method::POST, &path("two"), &Value::Null, 409);
    assert!(refused.envelope().expect("an envelope").1.contains("no other replica"), "{refused}");
    must(&admin, Method::DELETE, &path("one"), &Value::Null, 200);
    // of two voters neither can do without the other
    let told = drain(&mesh, 0, &["two", "--no-wait"]);
    assert!(told.success && told.out.contains("voters"), "{}\n{}", told.out, told.err);
    let told = drain(&mesh, 0, &["two"]);
    assert!(!told.success && told.err.contains("cannot be switched off"), "{}", told.err);
    assert!(told.err.contains("atoll invite") && told.err.contains("--undo"), "{}", told.err);
    // through one that has just started
    mesh.members()[0].stop(Signal::KILL);
    mesh.members()[0].serve();
    wait::until("it answers somehow", || mesh.client(0).get("/healthz").ok());
    let told = drain(&mesh, 0, &["two", "--undo"]);
    assert!(told.success, "{}", told.err);
    let refused = must(&admin, Method::GET, "/api/atoll/v1/nodes/edge/scrub", &Value::Null, 409);
    assert!(refused.envelope().expect("an envelope").1.contains("is an edge"), "{refused}");
}
