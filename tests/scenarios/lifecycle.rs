//! `atoll up` can be stopped and started again, grown, and configured wrongly, without surprises.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::formed::Formed;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::process::Running;
use tests::{metrics, process, tools, wait};

#[test]
fn ctrl_c_leaves_no_process_and_a_second_start_finds_everything() {
    let folder = TempDir::with_prefix("atoll-twice-").expect("a temporary folder");
    let data = folder.path().join("data");
    let image = Image::random(&[100 << 10]);
    let mesh = Mesh::up_in(&data, 3);
    let password = mesh.admin().1.to_owned();
    mesh.create_project("kept", false, 2);
    for (at, name) in [(0, "demo/kept"), (1, "kept/kept")] {
        mesh.repository(at, name).push(&image, "1").unwrap_or_else(|no| panic!("{name}: {no}"));
    }
    let (well, left) = mesh.stop(Signal::INT);
    assert!(left.is_empty(), "still running after Ctrl-C: {left:?}");
    assert!(well, "Ctrl-C is a normal end");
    drop(mesh);

    let mesh = Mesh::up_in(&data, 3);
    assert_eq!(mesh.admin().1, password, "the administrator keeps the password");
    for at in 0..3 {
        let said = mesh.words(at);
        assert!(said.contains("stopped"), "it has ended in order:\n{said}");
        for not in ["after a crash", " ERROR "] {
            let line = said.lines().find(|line| line.contains(not));
            assert_eq!(line, None, "node {at}: its files were closed, and nothing is amiss");
        }
        for name in ["demo/kept", "kept/kept"] {
            let found = mesh
                .repository(at, name)
                .pull("1")
                .unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
            assert_eq!(found.digest, image.digest());
        }
    }
    let (well, left) = mesh.stop(Signal::TERM);
    assert!(well && left.is_empty(), "SIGTERM ends it too: {well}, still running: {left:?}");
}

#[test]
fn a_node_killed_before_the_mesh_was_ready_takes_no_other_along() {
    let folder = TempDir::with_prefix("atoll-early-").expect("a temporary folder");
    let data = folder.path().join("data");
    let mut command = Command::new(tools::atoll());
    command.arg("up").arg("--data").arg(&data).args(["--port", "0"]);
    let mut up = Running::start(&mut command, &folder.path().join("up.log"));
    let (name, pid) = wait::until("mesh.json tells of the nodes", || {
        let told: Value =
            serde_json::from_slice(&std::fs::read(data.join("mesh.json")).ok()?).ok()?;
        let last = &told["nodes"][2]; // the first one forms the mesh
        Some((last["name"].as_str()?.to_owned(), u32::try_from(last["pid"].as_u64()?).ok()?))
    });
    process::signal(pid, Signal::KILL);
    wait::until("`up` goes on, and says who is down", || {
        assert!(up.ended().is_none(), "it ended:\n{}", up.last_words());
        let said = up.last_words();
        (said.contains(&format!("{name} is down")) && said.contains("What happens")).then_some(())
    });
    let ended = up.stop(Signal::INT, wait::PATIENCE);
    assert!(
        ended.is_some_and(|how| how.success()),
        "Ctrl-C is a normal end: {ended:?}\n{}",
        up.last_words()
    );
}

#[test]
fn a_node_started_while_its_predecessor_still_runs_waits_for_its_end() {
    let mesh = Mesh::up(3);
    let image = Image::random(&[100 << 10]);
    mesh.repository(2, "demo/heir").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let before = &mesh.nodes()[2];
    before.pause(); // it takes its time
    let mut command = Command::new(tools::atoll());
    command.arg("serve").arg("--config").arg(before.data.join("node.yaml"));
    let mut next = Running::start(&mut command, &mesh.folder().join("next.log"));
    wait::until("the next one waits", || {
        assert!(next.ended().is_none(), "it ended:\n{}", next.last_words());
        next.last_words().contains("waiting for its end").then_some(())
    });
    before.wake();
    process::signal(before.pid(), Signal::TERM);
    wait::until_ok("the next one is ready", || {
        assert!(next.ended().is_none(), "it ended:\n{}", next.last_words());
        let ready = mesh.anyone(2).get("/readyz").map_err(|none| none.to_string())?;
        if ready.status == 200 && !before.lives() { Ok(()) } else { Err(ready.to_string()) }
    });
    let found = mesh.repository(2, "demo/heir").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, image.digest());
}

/// A write is acknowledged when no replica can show the state before it: each replica with a read
/// lease has applied it, or its lease is over. A minute of lease makes the difference plain.
#[test]
fn a_replica_that_is_stopped_gives_its_read_lease_back() {
    let sites = [("one", "a"), ("two", "b"), ("three", "c")];
    let mesh = Formed::of(&sites, "lease: {duration: 60s}");
    let image = Image::random(&[10 << 10]);
    let pushed = mesh.repository(0, "demo/leases").push(&image, "1");
    pushed.unwrap_or_else(|no| panic!("{no}"));
    let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
    let named = |what: &Value| sites.iter().position(|site| what == site.0).expect("a node");
    let leader = named(&status["leader"]["name"]);
    let projects = status["projects"].as_array().expect("projects");
    let demo = projects.iter().find(|project| project["name"] == "demo").expect("the project");
    let primary = named(&demo["primary"]);
    let leaves = (0..3).find(|at| *at != leader && *at != primary).expect("a third node");
    wait::until("the one that leaves has a lease", || {
        (metrics::value(&mesh.client(leaves), "atoll_read_lease") == 1).then_some(())
    });
    mesh.members()[leaves].stop(Signal::TERM);
    // if the lease still counted, this would wait for the rest of the minute, and be refused
    let client = mesh.repository(leader, "demo/leases");
    client.put_manifest("2", &image).unwrap_or_else(|no| panic!("{no}"));
    mesh.members()[leaves].serve();
    mesh.members()[leaves].wait_ready();
    let found = mesh.repository(leaves, "demo/leases").pull("2");
    assert_eq!(found.unwrap_or_else(|no| panic!("{no}")).digest, image.digest());
}

#[test]
fn five_nodes_are_one_registry_too() {
    let mesh = Mesh::up(5);
    let mut regions: Vec<_> = mesh.nodes().iter().map(|node| node.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    assert_eq!(
        regions,
        ["eu-central-1", "us-east-1", "us-west-2"],
        "five nodes are spread over three regions"
    );
    let image = Image::random(&[300 << 10]);
    mesh.repository(4, "demo/five").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..5 {
        let found =
            mesh.repository(at, "demo/five").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
        assert_eq!(found.digest, image.digest());
    }
}

#[test]
fn a_wrong_configuration_is_answered_with_all_its_mistakes() {
    let folder = TempDir::with_prefix("atoll-wrong-").expect("a temporary folder");
    let file = folder.path().join("node.yaml");
    let lines = [
        format!("data_dir: {}", folder.path().join("data").display()),
        "name: one".to_owned(),
        "region: \"not a region!\"".to_owned(),
        "http:".to_owned(),
        "  listen: nowhere".to_owned(),
        "mesh:".to_owned(),
        "  listen: 127.0.0.1:99999".to_owned(),
        "  colour: blue".to_owned(),
    ];
    std::fs::write(&file, lines.join("\n")).expect("a configuration can be written");
    let said =
        process::finish(Command::new(tools::atoll()).arg("serve").arg("--config").arg(&file));
    let text = format!("{}{}", said.out, said.err);
    assert!(!said.success, "a node started on a wrong configuration:\n{text}");
    for line in [3, 5, 7, 8] {
        let named = [format!("node.yaml:{line}"), format!("line {line}")];
        assert!(
            named.iter().any(|name| text.contains(name)),
            "the mistake in line {line} is not named:\n{text}"
        );
    }
}

#[test]
fn status_is_the_same_for_scripts_and_for_the_command_line() {
    let mesh = Mesh::up(3);
    let told = mesh.status(1).expect("a node tells its status");
    let file = mesh.folder().join("password-of-the-test");
    std::fs::write(&file, mesh.admin().1).expect("a password can be written");
    let mut command = Command::new(tools::atoll());
    command.args([
        "status",
        "--url",
        &mesh.nodes()[1].url,
        "--user",
        mesh.admin().0,
        "--output",
        "json",
    ]);
    let printed = process::succeed(command.arg("--password-file").arg(&file));
    let printed: Value =
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    for part in ["node", "leader", "projects"] {
        assert!(!told[part].is_null(), "status has no {part}: {told}");
    }
    assert_eq!(printed["node"], told["node"]);
    assert_eq!(printed["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(told["ledger"]["voters"].as_array().map(Vec::len), Some(3), "three voters: {told}");

    // two projects share a blob: it counts in each
    let image = Image::tiny();
    for project in ["one", "two"] {
        mesh.create_project(project, true, 2);
        mesh.repository(0, &format!("{project}/app"))
            .push(&image, "1")
            .unwrap_or_else(|no| panic!("{no}"));
    }
    let status = |more: &[&str]| {
        let mut command = Command::new(tools::atoll());
        command
            .args(["status", "--url", &mesh.nodes()[1].url, "--user", mesh.admin().0])
            .args(more);
        process::succeed(command.arg("--password-file").arg(&file))
    };
    wait::until_ok("both projects are shown with their copies", || {
        let printed = status(&["--output", "json"]);
        let printed: Value = serde_json::from_str(&printed).map_err(|e| e.to_string())?;
        let projects = printed["projects"].as_array().ok_or("no projects")?;
        let whole = projects.iter().filter(|project| {
            let held =
                project["copies"].as_object().into_iter().flat_map(|regions| regions.values());
            // each blob is in two regions, which need not be the same two for all of them
            let held: u64 = held.filter_map(|held| held["blobs"].as_u64()).sum();
            project["blobs"] == image.blobs.len() && held >= 2 * image.blobs.len() as u64
        });
        if whole.count() == 2 { Ok(()) } else { Err(printed["projects"].to_string()) }
    });
    let quick = status(&["--no-copies"]);
    let shown = quick.lines().filter(|line| line.ends_with("not counted")).count();
    assert_eq!(shown, 3, "without copies:\n{quick}");
    let metrics = mesh.anyone(1).get("/metrics").unwrap_or_else(|none| panic!("{none}"));
    assert!(
        metrics.status == 200 && metrics.body.starts_with(b"#"),
        "metrics in Prometheus' text: {metrics}"
    );
}
