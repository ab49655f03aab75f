//! A job outlives its owner: `kill -9` of a project's primary in the middle of a preheat, and the
//! next primary goes on. The job ends once, and nothing of it is missing.
//!
//! Jobs, their logs and schedules can be read and changed at every node.

use http::Method;
use serde_json::{Value, json};
use tests::image::Image;
use tests::mesh::Mesh;
use tests::process::Finished;
use tests::{rounds, wait};

const MIB: usize = 1 << 20;
const PREHEATS: &str = "/api/atoll/v1/preheats";

fn at(mesh: &Mesh, node: usize, path: &str) -> Value {
    let answer = mesh.client(node).get(path).unwrap_or_else(|none| panic!("{path}: {none}"));
    assert_eq!(answer.status, 200, "{path}: {answer}");
    answer.json()
}

fn job(mesh: &Mesh, node: usize, id: &str) -> Value {
    at(mesh, node, &format!("/api/atoll/v1/jobs/{id}"))
}

/// Asks for a preheat, and returns its number.
fn ask(mesh: &Mesh, node: usize, image: &str, region: &str) -> String {
    let order = json!({"images": [image], "regions": [region]});
    let taken = mesh.client(node).send_json(Method::POST, PREHEATS, &order);
    let taken = taken.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(taken.status, 202, "{taken}");
    taken.json()["id"].as_str().expect("a number").to_owned()
}

#[test]
fn a_job_whose_owner_is_killed_is_done_once_and_whole_by_the_next_primary() {
    // slow enough that a preheat is under way for some seconds
    let caps = "{us-east-1: 2MiB, us-west-2: 2MiB, eu-central-1: 2MiB}";
    let mesh = Mesh::up_with(3, &[("links.caps", caps)]);
    let (mut taken_over, mut done) = (0, Vec::new());
    for round in 0..rounds(4) {
        let owner = wait::until_ok("there is a primary", || {
            let owner = mesh.primary_of("demo");
            if mesh.nodes()[owner].lives() { Ok(owner) } else { Err("it is dead") }
        });
        let image = Image::random(&[MIB; 8]);
        let name = format!("demo/app:{round}");
        wait::until_ok("the image is pushed", || {
            mesh.repository(owner, "demo/app").push(&image, &round.to_string())
        });
        // the region that durability 2 left out
        let lacks = (0..3).find(|node| {
            *node != owner && !image.blobs.iter().all(|blob| holds(&mesh, *node, &blob.digest))
        });
        let Some(lacks) = lacks else { continue };
        let other = 3 - owner - lacks;
        let id = ask(&mesh, other, &name, &mesh.nodes()[lacks].region);
        wait::until("its owner fetches", || {
            let blobs = &at(&mesh, other, &format!("{PREHEATS}/{id}"))["images"][0]["regions"][0];
            (blobs["blobs"]["wanted"].as_u64()? > 0).then_some(())
        });
        mesh.kill(owner);
        let ended = wait::until("the job is over", || {
            let shown = job(&mesh, other, &id);
            (!shown["end_time"].is_null()).then_some(shown)
        });
        assert_eq!(ended["state"], "done", "round {round}: {ended}");
        taken_over += usize::from(ended["runs"].as_u64() > Some(1));
        let all = at(&mesh, lacks, &format!("{PREHEATS}/{id}"));
        let region = &all["images"][0]["regions"][0];
        assert_eq!(region["blobs"], json!({"wanted": 9, "held": 9}), "round {round}: {all}");
        for blob in &image.blobs {
            assert!(holds(&mesh, lacks, &blob.digest), "round {round}: {} is missing", blob.digest);
        }
        mesh.start(owner);
        mesh.wait_ready(owner);
        done.push((id, ended));
    }
    assert!(taken_over > 0, "no owner was killed in the middle of a run");
    // nobody has begun any of them again, and the node that died says the same
    for node in 0..3 {
        for (id, ended) in &done {
            let shown = job(&mesh, node, id);
            for field in ["state", "runs", "end_time", "result", "owner"] {
                assert_eq!(shown[field], ended[field], "{field} at {node}: {shown}");
            }
        }
        let all = at(&mesh, node, "/api/atoll/v1/jobs?project=demo&kind=preheat");
        assert_eq!(all.as_array().map(Vec::len), Some(done.len()), "{all}");
    }
}

/// Whether a node has a blob on its own disk.
fn holds(mesh: &Mesh, node: usize, digest: &str) -> bool {
    let (algorithm, hex) = digest.split_once(':').expect("a digest");
    let blobs = mesh.folder().join(&mesh.nodes()[node].name).join("blobs");
    blobs.join(algorithm).join(&hex[..2]).join(hex).exists()
}

#[test]
fn a_schedule_makes_jobs_that_can_be_stopped_retried_and_read_at_every_node() {
    let mesh = Mesh::up_with(2, &[("links.caps", "{us-east-1: 256KiB, us-west-2: 256KiB}")]);
    mesh.create_project("team", false, 1);
    // four blobs are on their way at a time, so most of these are not when it is stopped
    let image = Image::random(&[MIB / 4; 16]);
    let owner = mesh.primary_of("team");
    let other = 1 - owner;
    let here = mesh.repository(owner, "team/app");
    here.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let data = mesh.folder().display().to_string();
    let region = mesh.nodes()[other].region.clone();
    let atoll = |words: &[&str]| -> Finished {
        let url = mesh.nodes()[other].url.clone();
        mesh.atoll(&[words, &["--data", &data, "--url", &url]].concat())
    };
    let says = |words: &[&str]| {
        let told = atoll(words);
        assert!(told.success, "{words:?}: {told:?}");
        told.out
    };
    let preheat = ["preheat", "team/app:1", "--regions", &region];

    for (cron, why) in [("0 0 30 2 *", "never"), ("* * * *", "4 fields"), ("* * * * * *", "minute")]
    {
        let told = atoll(&[&preheat[..], &["--name", "n", "--schedule", cron]].concat());
        assert!(!told.success && told.err.contains(why), "{cron}: {told:?}");
    }
    says(&[&preheat[..], &["--name", "often", "--schedule", "* * * * *"]].concat());
    let schedules = says(&["jobs", "schedules"]);
    assert!(schedules.contains("often") && schedules.contains("0 * * * * *"), "{schedules}");
    let id = wait::until("its time has come", || {
        let all = at(&mesh, other, "/api/atoll/v1/jobs?project=team");
        all[0]["id"].as_str().map(str::to_owned)
    });
    assert_eq!(job(&mesh, other, &id)["schedule"], "often");
    let gone = says(&["jobs", "unschedule", "team", "often"]);
    assert!(gone.contains("is removed"), "{gone}");
    assert!(!atoll(&["jobs", "unschedule", "team", "often"]).success);

    wait::until("it runs", || (job(&mesh, other, &id)["state"] == "running").then_some(()));
    wait::until("it logs at its owner", || {
        atoll(&["jobs", "log", &id]).out.contains("run 1 began").then_some(())
    });
    says(&["jobs", "stop", &id]);
    let stopped = wait::until("it has stopped", || {
        let shown = job(&mesh, owner, &id);
        (!shown["end_time"].is_null()).then_some(shown)
    });
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    let again = atoll(&["jobs", "stop", &id]);
    assert!(again.success, "to stop it twice is no mistake: {again:?}");
    let log = says(&["jobs", "log", &id]);
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("stopped: ") && !log.contains("failed: "), "{log}");
    let path = format!("/api/atoll/v1/jobs/{id}/retry");
    let again = mesh.client(other).send_json(Method::POST, &path, &json!({}));
    let again = again.unwrap_or_else(|none| panic!("{none}"));
    assert!(again.status == 202 && again.json()["result"] == "", "not that of before: {again}");
    let log = says(&["jobs", "log", "--follow", &id]);
    assert!(log.contains("run 2 began") && log.contains("done: 17 blobs"), "{log}");
    let list = says(&["jobs", "list", "--state", "done"]);
    assert!(list.contains(&id) && list.contains("team/app:1"), "{list}");
    let over = atoll(&["jobs", "retry", &id]);
    assert!(!over.success && over.err.contains("is done"), "{over:?}");
    let unknown = atoll(&["jobs", "show", "77"]);
    assert!(!unknown.success && unknown.err.contains("no job"), "{unknown:?}");
}
