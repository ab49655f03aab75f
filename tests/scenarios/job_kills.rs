//! The primary is killed in the middle of what it does by itself: retention, collection, the end of
//! the trash, a purge of the log, a repair. What is live stays, what is dead goes, and in the end each
//! disk has what the ledger says. So it is with what the mesh makes: scans, SBOMs, signatures,
//! preheats. `ATOLL_KILLS` is the number of rounds of each (1).

use std::thread;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::people::must;
use tests::repository::create_project;
use tests::scans::{SCANS, advisory, debian, overview, use_database};
use tests::shop::{atoll, did};
use tests::{accounting, wait};

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

fn rounds() -> usize {
    std::env::var("ATOLL_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// Somewhere in the middle of what was begun, another place in each round.
fn a_moment(round: usize) {
    thread::sleep(std::time::Duration::from_millis(40 + 37 * (round as u64 % 20)));
}

/// The primary of a project, as a node sees it.
fn primary_at(mesh: &Formed, at: usize, project: &str) -> Option<usize> {
    let name = tests::mesh::primary(&mesh.status(at).ok()?, project)?;
    THREE.iter().position(|(one, _)| *one == name)
}

fn primary(mesh: &Formed, project: &str) -> usize {
    wait::until("the project has a primary", || primary_at(mesh, 0, project))
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
    for round in 0..rounds() {
        for work in ALL {
            keep_for(&mesh, if matches!(work, Work::Expiry) { "1s" } else { "0" });
            let dead: Vec<Image> = (0..8).map(|_| Image::random(&[10_000])).collect();
            for (at, image) in dead.iter().enumerate() {
                let pushed = mesh.repository(at % 3, "demo/app").push(image, &format!("dead-{at}"));
                pushed.unwrap_or_else(|no| panic!("{work:?}: {no}"));
            }
            let killed = primary(&mesh, "demo");
            let asked = if round % 2 == 0 { (killed + 1) % 3 } else { killed };
            thread::scope(|beside| {
                beside.spawn(|| begin(&mesh, work, asked, &dead));
                a_moment(round);
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

/// What the mesh makes of images, each in a project of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Making {
    Scans,
    Sboms,
    Signatures,
    Preheats,
}

const MADE: [Making; 4] = [Making::Scans, Making::Sboms, Making::Signatures, Making::Preheats];

impl Making {
    fn project(self) -> &'static str {
        match self {
            Making::Scans => "scanned",
            Making::Sboms => "listed",
            Making::Signatures => "signed",
            Making::Preheats => "heated",
        }
    }

    fn repository(self) -> String {
        format!("{}/app", self.project())
    }

    fn artifact(self, image: &Image) -> String {
        let project = self.project();
        format!("/api/v2.0/projects/{project}/repositories/app/artifacts/{}", image.digest())
    }

    /// Asks for it, at `asked`, which may be killed before it answers. To ask twice does no harm.
    fn begin(self, mesh: &Formed, asked: usize, round: usize, images: &[Image]) {
        let client = mesh.client(asked);
        let send = |path: &str, what: &Value| {
            drop(client.send_json(Method::POST, path, what));
        };
        for (at, image) in images.iter().enumerate() {
            let artifact = self.artifact(image);
            match self {
                Making::Scans => send(&format!("{artifact}/scan"), &json!({})),
                Making::Sboms => send(&format!("{artifact}/scan"), &json!({"scan_type": "sbom"})),
                Making::Signatures => {
                    send(&format!("{artifact}/tags"), &json!({"name": format!("v{round}.{at}")}));
                }
                Making::Preheats => {
                    let regions = THREE.map(|(_, region)| region);
                    let image = format!("{}@{}", self.repository(), image.digest());
                    let order = json!({"images": [image], "regions": regions});
                    send("/api/atoll/v1/preheats", &order);
                }
            }
        }
        if self == Making::Scans {
            let all = json!({"schedule": {"type": "Manual"}});
            send("/api/v2.0/system/scanAll/schedule", &all);
        }
    }

    /// What an image lacks yet, if anything.
    fn lacks(self, mesh: &Formed, at: usize, image: &Image) -> Option<String> {
        match self {
            Making::Scans => scanned(mesh, at, self, image),
            Making::Sboms => {
                let path = format!("/v2/{}/referrers/{}", self.repository(), image.digest());
                let list = match mesh.client(at).get(&path) {
                    Ok(list) if list.status == 200 => list.json(),
                    other => return Some(format!("{other:?}")),
                };
                let of = |kind: &str| {
                    let all = list["manifests"].as_array().cloned().unwrap_or_default();
                    all.iter().filter(|one| one["artifactType"] == kind).count()
                };
                let each = (of("application/spdx+json"), of("application/vnd.cyclonedx+json"));
                (each != (1, 1)).then(|| format!("one SBOM of each kind, not {each:?}: {list}"))
            }
            Making::Signatures => {
                let there = mesh.repository(at, &self.repository());
                let pulled = tests::repository::Repository::new(
                    &there.client().clone().anonymous(),
                    &self.repository(),
                )
                .pull(image.digest());
                pulled.err().map(|no| no.to_string())
            }
            Making::Preheats => image.blobs.iter().find_map(|blob| {
                let there = blob.file(&mesh.members()[at].data()).exists();
                (!there).then(|| format!("{} is not at {at}", blob.digest))
            }),
        }
    }
}

fn scanned(mesh: &Formed, at: usize, making: Making, image: &Image) -> Option<String> {
    let report = overview(mesh, at, &making.repository(), image);
    let well = report
        .as_ref()
        .is_some_and(|one| one["scan_status"] == "Success" && one["severity"] == "High");
    (!well).then(|| format!("{report:?}"))
}

/// The projects of [`MADE`], in a mesh that can make all of it.
fn prepare(mesh: &Formed) {
    create_project(&mesh.client(0), "library", true, 2);
    for making in MADE {
        let durability = if making == Making::Preheats { 1 } else { 2 };
        create_project(&mesh.client(0), making.project(), true, durability);
        set(mesh, making, &json!({"trash": "0"}));
    }
    use_database(mesh, &[advisory("openssl", "CVE-2024-5535", "", 3)], 1);
    did(&atoll(mesh, 0, "sign", &["key", "--project", "signed"]));
    set(
        mesh,
        Making::Signatures,
        &json!({
            "signature_host": mesh.members()[0].place().http, "signature_auto": "v*",
            "signature_policy": "enforce", "signature_require": "mesh",
        }),
    );
}

fn set(mesh: &Formed, making: Making, metadata: &Value) {
    let path = format!("/api/v2.0/projects/{}", making.project());
    must(&mesh.client(0), Method::PUT, &path, &json!({"metadata": metadata}), 200);
}

/// Jobs of the project that are not over, or have failed.
fn open_jobs(mesh: &Formed, at: usize, project: &str) -> Result<Vec<Value>, String> {
    let path = format!("/api/atoll/v1/jobs?project={project}&page_size=100");
    let jobs = mesh.client(at).get(&path).map_err(|none| none.to_string())?;
    let jobs = jobs.json().as_array().cloned().ok_or("no list of jobs")?;
    Ok(jobs.into_iter().filter(|job| job["state"] != "done").collect())
}

#[test]
fn what_a_killed_primary_was_making_is_made_by_it_or_by_the_next_one() {
    let secrets = tempfile::TempDir::with_prefix("atoll-kills-").expect("a temporary folder");
    let file = secrets.path().join("passphrase");
    std::fs::write(&file, "a long passphrase of the operator\n").expect("a file");
    let settings = format!("{SOON}{SCANS}signing: {{passphrase_file: '{}'}}\n", file.display());
    let mesh = Formed::of(&THREE, &settings);
    prepare(&mesh);
    let mut signed = 0;
    for round in 0..rounds() {
        for making in MADE {
            let images: Vec<Image> = (0..4)
                .map(|at| match making {
                    Making::Preheats => Image::random(&[400_000; 6]),
                    _ => {
                        let own = format!("{round}.{at}");
                        debian(&[("openssl", "3.0.11-1~deb12u1"), ("own", own.as_str())])
                    }
                })
                .collect();
            for (at, image) in images.iter().enumerate() {
                let there = mesh.repository(at % 3, &making.repository());
                wait::until_ok("it is pushed", || there.push(image, &format!("t{at}")));
            }
            if making == Making::Sboms {
                for image in &images {
                    let path = format!("{}/scan", making.artifact(image));
                    must(&mesh.client(0), Method::POST, &path, &json!({}), 202);
                    wait::until("it is scanned", || {
                        scanned(&mesh, 0, making, image).is_none().then_some(())
                    });
                }
            }
            let project = making.project();
            let killed = primary(&mesh, project);
            let other = (killed + 1) % 3;
            let asked = if round % 4 < 2 { other } else { killed };
            thread::scope(|beside| {
                beside.spawn(|| making.begin(&mesh, asked, round, &images));
                a_moment(round);
                mesh.members()[killed].stop(Signal::KILL);
                if round % 2 == 0 {
                    wait::until("there is another primary", || {
                        primary_at(&mesh, other, project).filter(|now| *now != killed)
                    });
                }
                mesh.members()[killed].serve();
            });
            mesh.members()[killed].wait_ready();
            for image in &images {
                wait::until_ok(&format!("{making:?}: it is made, in round {round}"), || {
                    let lacks = (0..3).find_map(|at| making.lacks(&mesh, at, image));
                    if lacks.is_some() {
                        // what was asked of the one that died may be lost with it
                        making.begin(&mesh, other, round, &images);
                        thread::sleep(std::time::Duration::from_millis(500));
                    }
                    lacks.map_or(Ok(()), Err)
                });
            }
            wait::until_ok(&format!("{making:?}: no job is left, in round {round}"), || {
                let open = open_jobs(&mesh, other, project)?;
                if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
            });
            if making == Making::Signatures {
                signed += images.len();
                let path = "/api/v2.0/projects/signed/signing/log?verify=true";
                let log = must(&mesh.client(other), Method::GET, path, &Value::Null, 200).json();
                assert_eq!(log["whole"], true, "{log}");
                let entries = log["last"]["number"].as_u64().expect("a number") as usize;
                // a primary that dies after its entry and before it publishes has its image signed again
                assert!(entries >= signed && entries <= 2 * signed, "{entries} for {signed}");
            }
            for image in &images {
                let path = format!("/v2/{}/manifests/{}", making.repository(), image.digest());
                must(&mesh.client(other), Method::DELETE, &path, &Value::Null, 202);
            }
            accounting::settles(&[0, 1, 2].map(|at| mesh.client(at)));
        }
    }
    mesh.agree();
}
