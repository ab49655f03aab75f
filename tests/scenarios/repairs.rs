//! Copies that are missing are made by themselves: after a region is gone, and when a project wants
//! more of them. And when somebody says so. A disk that is full makes them wait.
//!
//! How many copies there are is asked for as an operator would ask: what would be lost if a node
//! were removed now.

use std::io::Write as _;
use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::metrics;
use tests::process::{self, Finished};
use tests::repository::set_durability;
use tests::small_disk::SmallDisk;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "repair: {after: 5s}\n";

#[test]
fn a_region_that_is_gone_and_a_higher_durability_make_copies() {
    let mesh = Formed::of(&THREE, SOON);
    set_durability(&mesh.client(0), "demo", 1);
    let images: Vec<Image> = (0..6).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let pushed = mesh.repository(0, "demo/app").push(image, &format!("{number}"));
        pushed.unwrap_or_else(|no| panic!("{number}: {no}"));
    }
    // each blob is where it was pushed, and nowhere else
    assert!(lost_without(&mesh, 1, "one") > 0, "there are other copies");
    let told = dr(&mesh, 1);
    assert!(!told.success, "{told:?}");
    for part in ["blobs of demo", "for demo", "no image of it is whole elsewhere"] {
        assert!(told.out.contains(part), "{part}: {told:?}");
    }
    set_durability(&mesh.client(0), "demo", 2);
    wait::until("copies are made in a second region", || {
        (lost_without(&mesh, 1, "one") == 0).then_some(())
    });
    wait::until("the job says so", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&state=done&project=demo");
        let made = |job: &Value| job["result"].as_str().is_some_and(|r| !r.contains(" 0 copies"));
        jobs.as_array()?.iter().any(made).then_some(())
    });

    wait::until_ok("any region may burn", || {
        let told = dr(&mesh, 2);
        let says = told.out.contains("any one region may burn: nothing is lost");
        if told.success && says { Ok(()) } else { Err(format!("{told:?}")) }
    });

    // some copies are in the second region, some in the third; that is gone for long
    mesh.members()[2].stop(Signal::KILL);
    wait::until_ok("two are no majority of three without one of them", || {
        let told = dr(&mesh, 0);
        let says = ["three", "without us-east-1 1 of 3 voters would be up"];
        let says = says.iter().all(|part| told.out.contains(part));
        if !told.success && says { Ok(()) } else { Err(format!("{told:?}")) }
    });
    wait::until("the others have two copies of all", || {
        let nobody = |at, name| lost_without(&mesh, at, name) == 0;
        (nobody(1, "one") && nobody(0, "two")).then_some(())
    });
    let told = dr(&mesh, 1);
    let row = told.out.lines().find(|line| line.starts_with("demo "));
    let row = row.unwrap_or_else(|| panic!("each project has a line: {told:?}"));
    assert!(row.contains("us-east-1 ") && row.contains("us-west-2 "), "both have copies: {told:?}");
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    for (number, image) in images.iter().enumerate() {
        let found = mesh.repository(2, "demo/app").pull(&format!("{number}"));
        let found = found.unwrap_or_else(|no| panic!("{number}: {no}"));
        assert_eq!(found.digest, image.digest());
    }
}

fn dr(mesh: &Formed, at: usize) -> Finished {
    let password = mesh.folder().join("password-for-dr");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[at].place().http);
    let mut command = mesh.members()[0].atoll("dr");
    let asked = ["--check", "--projects", "--url", &url, "--password-file"];
    process::finish(command.args(asked).arg(password))
}

#[test]
fn a_repair_by_hand_names_what_no_replica_has() {
    let mesh = Formed::of(&THREE, "");
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let job = repair(&mesh, &["demo"]);
    let ended = wait::until("it ends", || over(&mesh, &job));
    assert_eq!(ended["state"], "done", "{ended}");
    let checked = format!("{} blobs checked, 0 copies made", image.blobs.len());
    assert_eq!(ended["result"], checked.as_str());

    // somebody has removed a layer from every disk
    let layer = &image.blobs[0];
    for member in mesh.members() {
        match std::fs::remove_file(layer.file(&member.data())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
    // a node notices when it is asked for the bytes
    for member in mesh.members() {
        let asked = member.anyone().get(&format!("/v2/demo/app/blobs/{}", layer.digest));
        let asked = asked.unwrap_or_else(|none| panic!("{none}"));
        assert_ne!(asked.status, 200, "{asked}");
    }
    let job = repair(&mesh, &["--all"]);
    let ended = wait::until("it ends", || over(&mesh, &job));
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(ended["result"].as_str().is_some_and(|says| says.contains("no replica")), "{ended}");
    let log = get(&mesh, 1, &format!("/api/atoll/v1/jobs/{job}/log")).to_string();
    assert!(log.contains(&layer.digest), "{log}");

    let unknown = atoll(&mesh, &["nothing"]);
    assert!(!unknown.success && unknown.err.contains("no project"), "{}", unknown.err);
}

/// Every look once asked every replica for every blob by its name.
#[test]
fn what_is_in_too_few_regions_is_told_and_what_the_ledger_knows_is_not_asked_for_again() {
    let mesh = Formed::of(&THREE, "repair: {after: 20s}\n");
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let short = |arguments: &[&str]| {
        let told = status(&mesh, arguments);
        assert!(told.success, "{told:?}");
        told.out
    };
    let whole = short(&["--under-replicated"]);
    assert!(whole.contains("0 of 1 artifacts are in fewer regions"), "{whole}");
    let shown = short(&["--replicated", "demo/app:1"]);
    assert!(shown.contains("2/2") && shown.contains(image.digest()), "{shown}");

    // an index is as good as the images that it lists
    let entry = json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.bytes.len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let there = mesh.repository(0, "demo/app");
    there
        .put_bytes("all", INDEX, index.to_string().into_bytes().into())
        .unwrap_or_else(|no| panic!("{no}"));

    // a third region is wanted, and is down
    mesh.members()[2].stop(Signal::KILL);
    wait::until_ok("three copies are wanted", || {
        let body = serde_json::json!({"metadata": {"durability": "3"}});
        let put = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/demo", &body);
        let put = put.map_err(|none| none.to_string())?;
        if put.status == 200 { Ok(()) } else { Err(put.to_string()) }
    });
    wait::until_ok("it says so, at another node", || {
        let told = status(&mesh, &["--under-replicated", "demo"]);
        let says = ["three did not answer", "2 of 2 artifacts", "2/3", image.digest()];
        if says.iter().all(|part| told.out.contains(part)) {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
    let listed = status(&mesh, &["--replicated", "demo/app:all"]);
    let says = ["1 of 1 artifacts", "2/3"];
    assert!(says.iter().all(|part| listed.out.contains(part)), "{listed:?}");
    for (wrong, says) in
        [("nobody", "no such project"), ("demo/app:9", "no such"), ("De/mo", "of is")]
    {
        let told = status(&mesh, &["--replicated", wrong]);
        assert!(!told.success && told.err.contains(says), "{wrong}: {told:?}");
    }
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    wait::until_ok("the third copy is made", || {
        let told = status(&mesh, &["--replicated", "demo/app:1"]);
        if told.out.contains("3/3") { Ok(()) } else { Err(format!("{told:?}")) }
    });

    let asked = |job: &str| {
        let ended = wait::until("it ends", || over(&mesh, job));
        assert_eq!(ended["state"], "done", "{ended}");
        let log = get(&mesh, 1, &format!("/api/atoll/v1/jobs/{job}/log")).to_string();
        let count = log.split(" of ").next().and_then(|before| before.rsplit(['"', ' ']).next());
        let count = count.and_then(|count| count.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("{log}"))
    };
    wait::until("all is known", || (asked(&repair(&mesh, &["demo"])) == 0).then_some(()));
}

/// A look while a replica restarts once counted one region less, said that all was done, and was not
/// followed by another.
#[test]
fn a_replica_that_is_away_for_a_moment_gets_its_copies_when_it_is_back() {
    let mesh = Formed::of(&THREE, "repair: {after: 20s}\n");
    set_durability(&mesh.client(0), "demo", 1);
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    // the first look is over, so that only a change makes another
    wait::until("there was a look", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&state=done&project=demo");
        jobs.as_array().is_some_and(|jobs| !jobs.is_empty()).then_some(())
    });
    mesh.members()[2].stop(Signal::KILL);
    set_durability(&mesh.client(0), "demo", 3);
    wait::until("a repair has looked without it", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&project=demo");
        let newest = jobs.as_array()?.first()?.clone();
        (newest["state"] != "done" && newest["runs"].as_u64() > Some(0)).then_some(())
    });
    mesh.members()[2].serve();
    for blob in &image.blobs {
        wait::until("it has its copy", || {
            blob.file(&mesh.members()[2].data()).exists().then_some(())
        });
    }
}

/// Another program has filled the disk. What blobs may use is used up, and the ledger's part is not.
#[test]
fn a_repair_waits_for_a_full_disk_and_goes_on_when_there_is_room() {
    const MIB: usize = 1 << 20;
    let mut mesh = Formed::of(&THREE[..2], SOON);
    let member = mesh.prepare("three", "eu-central-1", SOON);
    let _small = SmallDisk::of(&member.data(), "256m");
    member.must_join(&mesh.members()[0].invite());
    member.serve();
    member.wait_ready();
    mesh.add(member);
    set_durability(&mesh.client(0), "demo", 1);
    let images: Vec<Image> = (0..3).map(|_| Image::random(&[6 * MIB, 6 * MIB])).collect();
    for (number, image) in images.iter().enumerate() {
        let pushed = mesh.repository(0, "demo/app").push(image, &format!("{number}"));
        pushed.unwrap_or_else(|no| panic!("{number}: {no}"));
    }
    let on_three = |mesh: &Formed| {
        let all = images.iter().flat_map(|image| &image.blobs);
        let (data, all) = (mesh.members()[2].data(), all.filter(|blob| blob.bytes.len() > MIB));
        all.filter(|blob| blob.file(&data).exists()).count()
    };
    assert_eq!(on_three(&mesh), 0, "durability is 1");
    let ballast = mesh.members()[2].data().join("ballast");
    let free = || {
        let disk = rustix::fs::statvfs(mesh.members()[2].data()).expect("a file system");
        (disk.f_bavail * disk.f_frsize) as usize
    };
    let leave = |left: usize| {
        let more = vec![7; free() - left];
        let file = std::fs::File::options().create(true).append(true).open(&ballast);
        file.and_then(|mut file| file.write_all(&more)).expect("there is room for it");
    };
    leave(24 * MIB);

    set_durability(&mesh.client(0), "demo", 3);
    let job = wait::until_ok("a repair says what is full, and where", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&project=demo");
        for job in jobs.as_array().into_iter().flatten() {
            let id = job["id"].as_str().expect("an id");
            // one that has not begun has none
            let log = mesh.client(0).get(&format!("/api/atoll/v1/jobs/{id}/log"));
            let log = log.map_err(|none| none.to_string())?.body;
            let log = String::from_utf8_lossy(&log);
            if log.contains("to three: ") && log.contains("the disk of data_dir has") {
                return Ok(id.to_owned());
            }
        }
        Err(jobs.to_string())
    });
    let shown = get(&mesh, 1, &format!("/api/atoll/v1/jobs/{job}"));
    let said = shown["result"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("still in too few regions") || shown["state"] == "running", "{shown}");
    // a fiftieth of the disk should be free
    leave(4 * MIB);
    wait::until_ok("status says what is wrong with it", || {
        let told = status(&mesh, &[]).out;
        let says = told.contains("in trouble") && told.contains("the disk of data_dir is full (");
        if says { Ok(()) } else { Err(told) }
    });
    wait::until_ok("three regions are wanted, and two take copies", || {
        let told = dr(&mesh, 0);
        let says = ["stop for demo", "three is in trouble: "];
        let says = says.iter().all(|part| told.out.contains(part));
        if !told.success && says { Ok(()) } else { Err(format!("{told:?}")) }
    });
    let refused = mesh.repository(0, "demo/app").push(&Image::random(&[6 * MIB]), "late");
    let refused = refused.expect_err("two regions have it").to_string();
    for part in ["three is in trouble: ", "make room there", "durability to 2"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // what is in one region gets its second copy where there is room
    let made = json!({"project_name": "spare", "metadata": {"durability": "1"}});
    let answer = mesh.client(0).send_json(Method::POST, "/api/v2.0/projects", &made);
    assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 201);
    let spare = Image::random(&[3 * MIB; 6]);
    wait::until_ok("one region has it", || mesh.repository(0, "spare/app").push(&spare, "1"));
    set_durability(&mesh.client(0), "spare", 2);
    let whole = |regions: &str| {
        let told = status(&mesh, &["--replicated", "spare/app:1"]).out;
        if told.contains(regions) { Ok(()) } else { Err(told) }
    };
    wait::until_ok("two regions have it", || whole("2/2"));
    let file = |blob: &Blob| blob.file(&mesh.members()[2].data());
    for blob in spare.blobs.iter().filter(|blob| blob.bytes.len() > MIB) {
        assert!(!file(blob).exists(), "it was asked to take a copy");
    }
    // pulls go on there, of what it has no room for, too
    let found = mesh.repository(2, "spare/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, spare.digest());
    let passed = |blob: &&Blob| blob.bytes.len() > MIB && !file(blob).exists();
    let large = spare.blobs.iter().find(passed).expect("18 MiB do not fit into 4");
    let part = mesh.client(2).ask(Method::GET, &format!("/v2/spare/app/blobs/{}", large.digest));
    let part = part.header("range", "bytes=1000000-1999999").send();
    let part = part.unwrap_or_else(|none| panic!("{none}"));
    assert!(part.status == 206 && part.body == large.bytes[1_000_000..2_000_000], "{part}");
    assert!(metrics::value(&mesh.client(2), "atoll_pulls_passed_on_total") > 0);
    // a repair that waits for its next try begins when somebody asks for it
    wait::until_ok("it begins anew", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&state=waiting&project=demo");
        let waits = |job: &&Value| job["failures"].as_u64() > Some(0);
        let Some(job) = jobs.as_array().into_iter().flatten().find(waits) else {
            return Err(jobs.to_string());
        };
        let asked = repair(&mesh, &["demo"]);
        let shown = get(&mesh, 0, &format!("/api/atoll/v1/jobs/{asked}"));
        let anew = job["id"] == asked.as_str() && shown["failures"] == 0;
        if anew { Ok(()) } else { Err(format!("{job}: {shown}")) }
    });
    // the second region has its copies, and the ledger lives on
    wait::until("the second region has all", || (lost_without(&mesh, 1, "one") == 0).then_some(()));
    for number in 0..10 {
        let (image, tag) = (Image::tiny(), format!("small-{number}"));
        set_durability(&mesh.client(number % 3), "demo", 2);
        let pushed = mesh.repository(number % 3, "demo/app").push(&image, &tag);
        pushed.unwrap_or_else(|no| panic!("{tag}: {no}"));
        let layer = image.blobs.last().expect("a layer").file(&mesh.members()[2].data());
        assert!(!layer.exists() || number % 3 == 2, "{tag}: copies go to the other two");
        mesh.repository(2, "demo/app").pull(&tag).unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    set_durability(&mesh.client(0), "demo", 3);
    let ready = mesh.client(2).get("/readyz").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(ready.status, 200, "{ready}");
    assert!(on_three(&mesh) < 6, "they do not fit");

    std::fs::remove_file(&ballast).expect("it is there");
    wait::until("it has all copies", || (on_three(&mesh) == 6).then_some(()));
    wait::until("the repair says so", || {
        let jobs = get(&mesh, 0, "/api/atoll/v1/jobs?kind=repair&project=demo");
        let jobs = jobs.as_array()?.clone();
        (jobs.first()?["state"] == "done").then_some(())
    });
    wait::until("status says no more of it", || {
        (!status(&mesh, &[]).out.contains("in trouble")).then_some(())
    });
    for (number, image) in images.iter().enumerate() {
        let found = mesh.repository(2, "demo/app").pull(&format!("{number}"));
        let found = found.unwrap_or_else(|no| panic!("{number}: {no}"));
        assert_eq!(found.digest, image.digest());
    }
    mesh.agree();
}

/// Nobody pulls the blob, so only a node that reads what it has can find the wrong byte.
#[test]
fn a_node_reads_its_blobs_again_when_somebody_asks() {
    let mesh = Formed::of(&THREE, "projects: {durability: 3}\n");
    let image = Image::random(&[300_000]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let layer = image.blobs.iter().find(|blob| blob.bytes.len() == 300_000).expect("the layer");
    let password = mesh.folder().join("password-for-scrubs");
    std::fs::write(&password, mesh.password()).expect("a file");
    // it is asked of another node
    let url = format!("http://{}", mesh.members()[0].place().http);
    let read = |arguments: &[&str]| {
        let mut command = mesh.members()[0].atoll("scrub");
        command.args(arguments).args(["--url", &url, "--password-file"]);
        let told = process::finish(command.arg(&password));
        assert!(told.success, "{}", told.err);
        told.out
    };
    let told = read(&["two", "--now"]);
    assert!(told.contains("two has read all that it held") && told.contains("all sound"), "{told}");
    mesh.members()[1].flip(layer, 100_000);
    let told = read(&["two", "--now"]);
    assert!(told.contains("1 damaged"), "{told}");
    let file = layer.file(&mesh.members()[1].data());
    wait::until("it is mended", || {
        std::fs::read(&file).is_ok_and(|bytes| bytes == layer.bytes).then_some(())
    });
    assert!(read(&["two"]).contains("1 damaged"), "the round that found it was the last one");
    let told = read(&["two", "--now"]);
    assert!(told.contains("all sound"), "{told}");
    let path = "/api/atoll/v1/nodes/nobody/scrub";
    let answer = mesh.client(0).get(path).unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 404, "{answer}");
}

/// A node was once believed to keep what only its index had: such a blob's last copy could be removed.
#[test]
fn a_file_that_is_gone_counts_for_nothing_and_is_fetched_again() {
    let mesh = Formed::of(&THREE, "projects: {durability: 3}\n");
    let image = Image::random(&[300_000]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let replicated = || status(&mesh, &["--replicated", "demo/app:1"]).out;
    assert!(replicated().contains("3/3"), "{}", replicated());
    let layer = image.blobs.iter().find(|blob| blob.bytes.len() == 300_000).expect("the layer");
    let keeper = &mesh.members()[1];
    let file = layer.file(&keeper.data());
    let is_back = || std::fs::read(&file).is_ok_and(|bytes| bytes == layer.bytes).then_some(());

    std::fs::remove_file(&file).expect("its file");
    assert!(replicated().contains("2/3"), "{}", replicated());
    let lost = lost_without(&mesh, 0, "one") + lost_without(&mesh, 0, "three");
    assert_eq!(lost, 0, "two others have it");
    let mut scrub = mesh.members()[0].atoll("scrub");
    scrub.args(["two", "--now"]);
    let told = ask_second(&mesh, scrub);
    assert!(told.success && told.out.contains("1 damaged"), "{told:?}");
    wait::until("the scrub has had it fetched", is_back);

    // a repair finds it, too
    std::fs::remove_file(&file).expect("its file");
    let ended = wait::until("it ends", {
        let job = repair(&mesh, &["demo"]);
        let mesh = &mesh;
        move || over(mesh, &job)
    });
    assert!(ended["result"].as_str().is_some_and(|says| says.contains("1 copies made")), "{ended}");
    assert!(is_back().is_some(), "the repair has had it fetched");

    // and a node that starts with another disk
    keeper.stop(Signal::KILL);
    std::fs::remove_dir_all(keeper.data().join("blobs")).expect("its blobs");
    keeper.serve();
    keeper.wait_ready();
    wait::until("the node has had it fetched", is_back);
    wait::until_ok("all is well", || {
        if replicated().contains("3/3") { Ok(()) } else { Err(replicated()) }
    });
}

#[test]
fn a_byte_that_the_disk_spoiled_is_found_and_mended_without_a_pull() {
    let mesh = Formed::of(&THREE, "repair: {read_all: 5s}\nprojects: {durability: 3}\n");
    let image = Image::random(&[300_000]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let layer = image.blobs.iter().find(|blob| blob.bytes.len() == 300_000).expect("the layer");
    mesh.members()[1].flip(layer, 100_000);
    let file = layer.file(&mesh.members()[1].data());
    wait::until("the copy is right again", || {
        std::fs::read(&file).is_ok_and(|bytes| bytes == layer.bytes).then_some(())
    });
    let answer = mesh.client(1).get("/metrics").unwrap_or_else(|none| panic!("{none}"));
    let counted = String::from_utf8_lossy(&answer.body).contains("atoll_blobs_damaged_total 1");
    assert!(counted, "{answer}");
}

/// The number of blobs that no replica would keep if the node called `name` were removed.
fn lost_without(mesh: &Formed, at: usize, name: &str) -> u64 {
    let costs = get(mesh, at, &format!("/api/atoll/v1/nodes/{name}"));
    let lost = costs["lost_blobs"].as_object().unwrap_or_else(|| panic!("{costs}"));
    lost.values().filter_map(Value::as_u64).sum()
}

fn get(mesh: &Formed, at: usize, path: &str) -> Value {
    let answer = mesh.client(at).get(path).unwrap_or_else(|none| panic!("{path}: {none}"));
    assert_eq!(answer.status, 200, "{path}: {answer}");
    answer.json()
}

fn atoll(mesh: &Formed, arguments: &[&str]) -> process::Finished {
    let mut command = mesh.members()[0].atoll("repair");
    command.args(arguments).args(["--output", "json"]);
    ask_second(mesh, command)
}

fn status(mesh: &Formed, arguments: &[&str]) -> process::Finished {
    let mut command = mesh.members()[0].atoll("status");
    command.args(arguments);
    ask_second(mesh, command)
}

fn ask_second(mesh: &Formed, mut command: Command) -> process::Finished {
    let password = mesh.folder().join("password-for-repairs");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    process::finish(command.args(["--url", &url, "--password-file"]).arg(password))
}

/// The number of the job that was asked for.
fn repair(mesh: &Formed, arguments: &[&str]) -> String {
    let asked = atoll(mesh, arguments);
    assert!(asked.success, "{}", asked.err);
    let told: Value =
        serde_json::from_str(&asked.out).unwrap_or_else(|e| panic!("{e}: {}", asked.out));
    told[0]["id"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
}

fn over(mesh: &Formed, job: &str) -> Option<Value> {
    let shown = get(mesh, 2, &format!("/api/atoll/v1/jobs/{job}"));
    matches!(shown["state"].as_str(), Some("done" | "failed" | "stopped")).then_some(shown)
}
