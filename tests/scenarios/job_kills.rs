//! The primary is killed in the middle of what it does by itself: retention, collection, the end of
//! the trash, a purge of the log, a repair. What is live stays, what is dead goes, and in the end each
//! disk has what the ledger says. `ATOLL_KILLS` is the number of rounds of each (1).

use std::thread;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::accounting;
use tests::formed::Formed;
use tests::image::Image;
use tests::people::must;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 1s}\n";
const DEMO: &str = "/api/v2.0/projects/demo";

/// What is begun before the primary dies.
#[derive(Clone, Copy, Debug)]
enum Work {
    Retention,
    Collection,
    Expiry,
    Purge,
    Repair,
}

const ALL: [Work; 5] = [Work::Retention, Work::Collection, Work::Expiry, Work::Purge, Work::Repair];

fn primary(mesh: &Formed) -> usize {
    wait::until("the project has a primary that runs", || {
        let name = tests::mesh::primary(&mesh.status(0).ok()?, "demo")?;
        THREE.iter().position(|(one, _)| *one == name)
    })
}

fn keep_for(mesh: &Formed, time: &str) {
    let what = json!({"metadata": {"trash": time}});
    must(&mesh.client(0), Method::PUT, DEMO, &what, 200);
}

/// Asks for it, at `asked`. Whoever is asked may be killed before it answers.
fn begin(mesh: &Formed, work: Work, asked: usize, dead: &[Image]) {
    let client = mesh.client(asked);
    let send = |method: Method, path: &str, what: &Value| {
        drop(client.send_json(method, path, what));
    };
    match work {
        Work::Retention => {
            let shown = must(&mesh.client(0), Method::GET, DEMO, &Value::Null, 200).json();
            let place = format!("/api/v2.0/retentions/{}/executions", shown["project_id"]);
            send(Method::POST, &place, &json!({"dry_run": false, "confirmed": true}));
        }
        Work::Collection | Work::Expiry => {
            for image in dead {
                let path = format!("/v2/demo/app/manifests/{}", image.digest());
                send(Method::DELETE, &path, &Value::Null);
            }
            send(Method::POST, "/api/atoll/v1/collection", &json!({"older_than_seconds": 0}));
        }
        Work::Purge => {
            let what = json!({"schedule": {"type": "Manual"},
                "parameters": {"audit_retention_hour": 1, "include_operations": "create,delete"}});
            send(Method::POST, "/api/v2.0/system/purgeaudit/schedule", &what);
        }
        Work::Repair => {
            send(Method::POST, "/api/atoll/v1/jobs", &json!({"kind": "repair", "project": "demo"}));
        }
    }
}

#[test]
fn whatever_a_killed_primary_was_at_is_done_once_and_takes_nothing_else_along() {
    let rounds: usize =
        std::env::var("ATOLL_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let mesh = Formed::of(&THREE, SOON);
    let live: Vec<Image> = (0..4).map(|_| Image::random(&[20_000])).collect();
    for (at, image) in live.iter().enumerate() {
        let pushed = mesh.repository(at % 3, "demo/app").push(image, &format!("keep-{at}"));
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    let policy = json!({
        "algorithm": "or", "scope": {"level": "project", "ref": "demo"},
        "rules": [{"template": "always", "action": "retain", "params": {},
            "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": "keep-*"}],
            "scope_selectors": {"repository": [
                {"kind": "doublestar", "decoration": "repoMatches", "pattern": "app"}]}}],
    });
    must(&mesh.client(0), Method::POST, "/api/v2.0/retentions", &policy, 201);
    for round in 0..rounds {
        for work in ALL {
            keep_for(&mesh, if matches!(work, Work::Expiry) { "1s" } else { "0" });
            let dead: Vec<Image> = (0..8).map(|_| Image::random(&[10_000])).collect();
            for (at, image) in dead.iter().enumerate() {
                let pushed = mesh.repository(at % 3, "demo/app").push(image, &format!("dead-{at}"));
                pushed.unwrap_or_else(|no| panic!("{work:?}: {no}"));
            }
            let killed = primary(&mesh);
            let asked = if round % 2 == 0 { (killed + 1) % 3 } else { killed };
            thread::scope(|beside| {
                beside.spawn(|| begin(&mesh, work, asked, &dead));
                // somewhere in the middle, another place in each round
                thread::sleep(std::time::Duration::from_millis(40 + 37 * (round as u64 % 20)));
                mesh.members()[killed].stop(Signal::KILL);
            });
            mesh.members()[killed].serve();
            mesh.members()[killed].wait_ready();
            // what was asked of the one that died may be lost with it: whoever asked asks again
            let other = (killed + 1) % 3;
            if !matches!(work, Work::Purge | Work::Repair) {
                wait::until("what is dead goes", || {
                    let there = dead.iter().any(|image| {
                        let path = format!("/v2/demo/app/manifests/{}", image.digest());
                        mesh.client(other).get(&path).map_or(true, |answer| answer.status != 404)
                    });
                    if there {
                        begin(&mesh, work, other, &dead);
                    }
                    (!there).then_some(())
                });
            } else {
                begin(&mesh, work, other, &dead);
                for image in &dead {
                    let path = format!("/v2/demo/app/manifests/{}", image.digest());
                    must(&mesh.client(other), Method::DELETE, &path, &Value::Null, 202);
                }
            }
            for at in 0..3 {
                for (number, image) in live.iter().enumerate() {
                    let found = mesh.repository(at, "demo/app").pull(&format!("keep-{number}"));
                    let found =
                        found.unwrap_or_else(|no| panic!("{work:?}: {number} at {at}: {no}"));
                    assert_eq!(found.digest, image.digest());
                }
            }
            let nodes = [0, 1, 2].map(|at| mesh.client(at));
            accounting::settles(&nodes);
        }
    }
    mesh.agree();
}
