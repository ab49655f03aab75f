//! What a project does not retain goes, with its layers, and what it retains stays. Immutable tags
//! do not move. A pull keeps what nobody pushes any more. What is pushed beside a run stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::people::must;
use tests::process::{self, Finished};
use tests::repository::{Refusal, create_project};
use tests::{accounting, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 1s}\n\
                    retention: {pulls_every: 1s}\n";

#[test]
fn a_tag_that_is_immutable_is_pushed_once_and_stays() {
    let mesh = Formed::of(&THREE, "retention: {pulls_every: 1s}\n");
    let [first, second] = [Image::tiny(), Image::tiny()];
    let made = atoll(&mesh, "immutable", &["add", "demo", "--tags", "v*,release"]);
    assert!(made.success, "{made:?}");
    mesh.repository(0, "demo/app").push(&first, "v1").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(1, "demo/app").push(&first, "v1").unwrap_or_else(|no| panic!("again: {no}"));
    for at in 0..3 {
        let there = mesh.repository(at, "demo/app");
        second.blobs.iter().for_each(|blob| {
            there.upload(blob).unwrap_or_else(|no| panic!("{no}"));
        });
        let moved = there.put_manifest("v1", &second).expect_err("it is immutable");
        let answer = moved.answer().unwrap_or_else(|| panic!("{moved}"));
        assert_eq!(answer.status, 412, "{answer}");
        let (code, message) = answer.envelope().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(code, "PRECONDITION");
        let says = "Failed to process request due to 'app:v1' configured as immutable.";
        assert_eq!(message, says);
    }
    for path in ["v1".to_owned(), first.digest().to_owned()] {
        let path = format!("/v2/demo/app/manifests/{path}");
        let gone = mesh.client(1).ask(Method::DELETE, &path).send();
        assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 412, "{path}");
    }
    let path = "/api/v2.0/projects/demo/repositories/app/artifacts/v1/tags/v1";
    let kept = mesh.client(1).ask(Method::DELETE, path).send();
    let kept = kept.unwrap_or_else(|none| panic!("{none}"));
    let says = "the tag v1 configured as immutable, cannot be deleted";
    assert_eq!((kept.status, kept.envelope().map(|told| told.1)), (412, Some(says.to_owned())));
    // nor a part of its repository
    mesh.repository(0, "demo/app").push(&second, "dev").unwrap_or_else(|no| panic!("{no}"));
    let path = "/api/v2.0/projects/demo/repositories/app";
    let kept = mesh.client(2).ask(Method::DELETE, path).send();
    assert_eq!(kept.unwrap_or_else(|none| panic!("{none}")).status, 412);
    mesh.repository(1, "demo/app").pull("dev").unwrap_or_else(|no| panic!("it stays: {no}"));
    let gone =
        mesh.client(0).ask(Method::DELETE, &format!("/v2/demo/app/manifests/{}", second.digest()));
    assert_eq!(gone.send().unwrap_or_else(|none| panic!("{none}")).status, 202);
    // lists say which tags are, and when they were pulled
    mesh.repository(2, "demo/app").pull("v1").unwrap_or_else(|no| panic!("{no}"));
    let tags = "/api/v2.0/projects/demo/repositories/app/artifacts/v1/tags";
    let artifacts = "/api/v2.0/projects/demo/repositories/app/artifacts";
    mesh.repository(0, "demo/app").push(&first, "other").unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("a list has the pull", || {
        for at in 0..3 {
            let get = |path: &str| mesh.client(at).get(path).map(|all| all.json());
            let own = get(tags).map_err(|none| none.to_string())?;
            let listed = get(artifacts).map_err(|none| none.to_string())?[0]["tags"].clone();
            for all in [own, listed] {
                let all = all.as_array().cloned().unwrap_or_default();
                let right = |tag: &Value| {
                    let pulled = tag["pull_time"].as_str().is_some_and(|at| at.starts_with("20"));
                    pulled && tag["immutable"] == (tag["name"] == "v1")
                };
                if all.len() != 2 || !all.iter().all(right) {
                    return Err(format!("at {at}: {all:?}"));
                }
            }
        }
        Ok(())
    });
    let rules = mesh.client(2).get("/api/v2.0/projects/demo/immutabletagrules");
    let rules = rules.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(rules.header("x-total-count"), Some("1"), "{rules}");
    let id = rules.json()[0]["id"].to_string();
    let again = atoll(&mesh, "immutable", &["add", "demo", "--tags", "v*,release"]);
    assert!(!again.success && again.err.contains("such a rule already"), "{again:?}");
    let removed = atoll(&mesh, "immutable", &["remove", "demo", &id]);
    assert!(removed.success, "{removed:?}");
    mesh.repository(2, "demo/app").put_manifest("v1", &second).unwrap_or_else(|no| panic!("{no}"));
}

#[test]
fn what_is_not_retained_goes_with_its_layers_and_the_rest_stays() {
    let mesh = Formed::of(&THREE, SOON);
    create_project(&mesh.client(0), "shop", true, 2);
    let images: Vec<Image> = (0..6).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let tag = format!("build-{number}");
        let there = mesh.repository(number % 3, "shop/web");
        there.push(image, &tag).unwrap_or_else(|no| panic!("{no}"));
        if number == 0 {
            // the oldest has a second tag that is immutable
            there.put_manifest("gold", image).unwrap_or_else(|no| panic!("{no}"));
        }
    }
    let kept = Image::tiny();
    mesh.repository(0, "shop/other").push(&kept, "1").unwrap_or_else(|no| panic!("{no}"));
    let made = atoll(&mesh, "immutable", &["add", "shop", "--tags", "gold"]);
    assert!(made.success, "{made:?}");

    let file = mesh.folder().join("policy.json");
    let policy = json!({"rules": [{
        "template": "latestPushedK", "params": {"latestPushedK": 2},
        "tag_selectors": [{"decoration": "matches", "pattern": "build-*"}],
        "scope_selectors": {"repository": [{"decoration": "repoMatches", "pattern": "web"}]},
    }]});
    std::fs::write(&file, policy.to_string()).expect("a file");
    let applied =
        atoll(&mesh, "retention", &["apply", "shop", "--file", &file.display().to_string()]);
    assert!(applied.success && applied.out.contains("latestPushedK"), "{applied:?}");

    std::fs::write(&file, r#"{"rules": []}"#).expect("a file");
    let empty =
        atoll(&mesh, "retention", &["apply", "shop", "--file", &file.display().to_string()]);
    assert!(!empty.success && empty.err.contains("retention remove shop"), "{empty:?}");

    forecasts(&mesh, &images);
    let dry = atoll(&mesh, "retention", &["run", "shop", "--dry-run"]);
    let deleted = dry.out.lines().filter(|line| line.starts_with("DEL ")).count();
    assert!(dry.success && deleted == 3 && dry.out.contains("IMMUTABLE shop/web"), "{dry:?}");
    assert!(dry.out.contains("has to be confirmed"), "{dry:?}");
    mesh.repository(1, "shop/web").pull("build-1").unwrap_or_else(|no| panic!("it stays: {no}"));

    let much = atoll(&mesh, "retention", &["run", "shop"]);
    assert!(!much.success && much.err.contains("confirm_over"), "{much:?}");
    let ran = atoll(&mesh, "retention", &["run", "shop", "--confirm"]);
    assert!(ran.success && ran.out.contains("3 of 6 artifacts deleted"), "{ran:?}");
    let trash = atoll(&mesh, "trash", &["list", "shop"]);
    let not_retained = trash.out.lines().filter(|line| line.contains("not retained"));
    assert_eq!(not_retained.count(), 3, "{trash:?}");
    let emptied = atoll(&mesh, "trash", &["empty", "shop", "--yes"]);
    assert!(emptied.success, "{emptied:?}");
    for (number, image) in images.iter().enumerate() {
        let stays = matches!(number, 0 | 4 | 5);
        for at in 0..3 {
            let tag = format!("build-{number}");
            let found = mesh.repository(at, "shop/web").pull(&tag);
            assert_eq!(found.is_ok(), stays, "{tag} at {at}");
        }
        if !stays {
            wait::until("its layers leave the disks", || {
                let on_disk = |blob: &tests::image::Blob| {
                    mesh.members().iter().any(|member| blob.file(&member.data()).exists())
                };
                (!image.blobs.iter().any(on_disk)).then_some(())
            });
        }
    }
    mesh.repository(2, "shop/other").pull("1").unwrap_or_else(|no| panic!("no rule: {no}"));
    let runs = mesh.client(1).get("/api/v2.0/retentions/shop/executions");
    let runs = runs.unwrap_or_else(|none| panic!("{none}")).json();
    let states: Vec<&Value> =
        runs.as_array().into_iter().flatten().map(|run| &run["status"]).collect();
    assert_eq!(states, [&json!("Success"), &json!("Error"), &json!("Success")], "{runs}");
    tasks_are_told(&mesh, &runs[0]);
    is_logged(&mesh);
}

/// What the policy of `shop` would delete, and what another one would, which is kept nowhere.
fn forecasts(mesh: &Formed, images: &[Image]) {
    let size = |image: &Image| {
        let blobs: usize = image.blobs.iter().map(|blob| blob.bytes.len()).sum();
        (image.manifest.bytes.len() + blobs) as u64
    };
    // the layers of a second image of the oldest one's are shared, in another repository
    let shared = &images[1];
    mesh.repository(0, "shop/copy").push(shared, "1").unwrap_or_else(|no| panic!("{no}"));
    let place = "/api/v2.0/retentions/shop/forecast";
    let told = wait::until("each node says the same", || {
        let ask = |at: usize| must(&mesh.client(at), Method::GET, place, &Value::Null, 200).json();
        let all = [0, 1, 2].map(ask);
        all.iter().all(|one| one["forecast"] == all[0]["forecast"]).then(|| all[0].clone())
    });
    let gone: u64 = images[1..4].iter().map(size).sum();
    let day = |days: u32, deleted: u64, bytes: u64| json!({"days": days, "deleted": deleted, "bytes": bytes});
    let of_web: Vec<Value> = [0, 7, 30].map(|days| day(days, 3, gone)).into();
    let of_all: Vec<Value> = [0, 7, 30].map(|days| day(days, 3, gone - size(shared))).into();
    assert_eq!(told["forecast"], json!(of_all), "{told}");
    let web = json!([{"repository": "web", "artifacts": 6, "forecast": of_web}]);
    assert_eq!((&told["repositories"], &told["artifacts"]), (&web, &json!(6)), "{told}");
    assert_eq!((&told["confirm_over"], &told["has_to_be_confirmed"]), (&json!(30), &json!(true)));
    let shown = atoll(mesh, "retention", &["forecast", "shop", "--days", "30,1"]);
    let head = shown.out.lines().next().unwrap_or_default();
    let head: Vec<&str> = head.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let heads = ["REPOSITORY", "ARTIFACTS", "IN 1 DAY", "BYTES", "IN 30 DAYS", "BYTES"];
    assert!(shown.success && head == heads, "{shown:?}");
    assert!(shown.out.lines().any(|line| line.starts_with("(the project)")), "{shown:?}");

    let preset = ["--preset", "environments", "--development", "build-*", "--days", "0,6,8"];
    let other = atoll(
        mesh,
        "retention",
        &[&["forecast", "shop", "--output", "json"], &preset[..]].concat(),
    );
    let other: Value =
        serde_json::from_str(&other.out).unwrap_or_else(|e| panic!("{e}: {other:?}"));
    // the oldest has an immutable tag; other tags than those of development stay
    let all: u64 = images[2..].iter().map(size).sum();
    assert_eq!(other["forecast"], json!([day(0, 0, 0), day(6, 0, 0), day(8, 5, all)]), "{other}");
    assert_eq!(other["has_to_be_confirmed"], false, "nothing goes now: {other}");
    let kept = must(&mesh.client(1), Method::GET, "/api/v2.0/retentions/shop", &Value::Null, 200);
    assert_eq!(kept.json()["rules"][0]["template"], "latestPushedK", "{kept}");
    for wrong in ["days=,", "days=1,x", "days=3651", "day=1"] {
        must(&mesh.client(0), Method::GET, &format!("{place}?{wrong}"), &Value::Null, 400);
    }
    must(&mesh.client(0), Method::POST, place, &json!({"rules": [{"template": "some"}]}), 400);
    let none = "/api/v2.0/retentions/demo/forecast";
    must(&mesh.client(0), Method::GET, none, &Value::Null, 404);
    let path = "/api/v2.0/projects/shop/repositories/copy";
    must(&mesh.client(0), Method::DELETE, path, &Value::Null, 200);
}

/// What Harbor's clients read of a run: a task for each repository that rules are about, and its log.
fn tasks_are_told(mesh: &Formed, run: &Value) {
    let place = format!("/api/v2.0/retentions/shop/executions/{}/tasks", run["id"]);
    let get =
        |path: &str, status: u16| must(&mesh.client(2), Method::GET, path, &Value::Null, status);
    let tasks = get(&place, 200).json();
    assert_eq!(tasks.as_array().map(Vec::len), Some(1), "no rule is about the other one: {tasks}");
    let task = &tasks[0];
    assert_eq!((&task["repository"], &task["status"]), (&json!("web"), &json!("Success")));
    assert_eq!((&task["total"], &task["retained"]), (&json!(6), &json!(3)), "{task}");
    let log = String::from_utf8_lossy(&get(&format!("{place}/1"), 200).body).into_owned();
    assert_eq!(log.lines().filter(|line| line.contains(" DEL shop/web@")).count(), 3, "{log}");
    get(&format!("{place}/2"), 404);
}

/// What the runs on `shop` were, in the audit log and among the jobs of each node.
fn is_logged(mesh: &Formed) {
    for at in 0..3 {
        let get = |path: &str| {
            let answer = mesh.client(at).get(path).unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(answer.status, 200, "{path}: {answer}");
            answer.json()
        };
        for log in ["/api/v2.0/audit-logs", "/api/v2.0/projects/shop/logs"] {
            let all = get(&format!("{log}?page_size=100"));
            let told: Vec<String> = all
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| format!("{} {}", one["username"], one["operation_description"]))
                .map(|line| line.replace('"', ""))
                .collect();
            let count = |start: &str| told.iter().filter(|line| line.starts_with(start)).count();
            assert_eq!(count("admin update retention shop"), 1, "{log}: {told:#?}");
            assert_eq!(count("admin create job retention"), 3, "{log}: {told:#?}");
            assert!(count("atoll end job retention") >= 3, "{log}: {told:#?}");
            assert!(count("atoll delete artifact shop/web") >= 1, "{log}: {told:#?}");
        }
        let jobs = get("/api/atoll/v1/jobs?kind=retention&project=shop");
        assert_eq!(jobs.as_array().map(Vec::len), Some(3), "{jobs}");
    }
    let listed = atoll(mesh, "jobs", &["list", "--kind", "retention", "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
    let mut states: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|job| job["state"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["done", "done", "failed"], "{listed}");
    for job in listed.as_array().into_iter().flatten() {
        let id = job["id"].as_str().expect("an id");
        let shown = atoll(mesh, "jobs", &["show", id, "--output", "json"]);
        let shown: Value = serde_json::from_str(&shown.out).expect("JSON");
        assert_eq!((&shown["kind"], &shown["project"]), (&json!("retention"), &json!("shop")));
        let log = atoll(mesh, "jobs", &["log", id, "--output", "json"]);
        let log: Value = serde_json::from_str(&log.out).unwrap_or_else(|e| panic!("{e}: {log:?}"));
        assert!(log.is_array(), "{log}");
    }
}

/// A pull through an edge, too: a HEAD and a GET by tag.
#[test]
fn what_is_pulled_stays_and_what_is_not_goes() {
    let mut mesh = Formed::of(&THREE[..2], SOON);
    let edge = mesh.add_edge("edge", "us-east-1", "retention: {pulls_every: 1s}\n");
    let images: Vec<Image> = (0..3).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let pushed = mesh.repository(0, "demo/app").push(image, &format!("{number}"));
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    let policy = json!({
        "scope": {"level": "project", "ref": "demo"},
        "rules": [{"template": "latestPulledN", "params": {"latestPulledN": 2},
            "tag_selectors": [], "scope_selectors": {}}],
    });
    // a number under another name must not become a default, nor a field that nobody knows nothing
    for wrong in [
        json!({"template": "nDaysSinceLastPush", "params": {"days": 90}}),
        json!({"template": "nDaysSinceLastPush"}),
        json!({"template": "always", "tag_selector": []}),
    ] {
        let wrong = json!({"scope": {"level": "project", "ref": "demo"}, "rules": [wrong]});
        let refused = mesh.client(0).send_json(Method::POST, "/api/v2.0/retentions", &wrong);
        assert_eq!(refused.unwrap_or_else(|none| panic!("{none}")).status, 400, "{wrong}");
    }
    let made = mesh.client(0).send_json(Method::POST, "/api/v2.0/retentions", &policy);
    let made = made.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(made.status, 201, "{made}");
    let place = made.header("location").unwrap_or_else(|| panic!("{made}")).to_owned();
    let shown = mesh.client(1).get(&place).unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(shown.json()["rules"][0]["params"]["latestPulledN"], 2, "{shown}");
    // the two oldest are pulled, one of them through the edge
    mesh.repository(1, "demo/app").pull("0").unwrap_or_else(|no| panic!("{no}"));
    let through_edge = tests::repository::Repository::new(&mesh.client(edge), "demo/app");
    through_edge.pull("1").unwrap_or_else(|no| panic!("{no}"));
    wait::until("the mesh knows", || {
        std::thread::sleep(Duration::from_millis(200));
        let dry = atoll(&mesh, "retention", &["run", "demo", "--dry-run"]);
        let gone: Vec<&str> = dry.out.lines().filter(|line| line.starts_with("DEL ")).collect();
        (gone.len() == 1 && gone[0].contains("(2;")).then_some(())
    });
    let ran = atoll(&mesh, "retention", &["run", "demo", "--confirm"]);
    assert!(ran.success, "{ran:?}");
    for (tag, stays) in [("0", true), ("1", true), ("2", false)] {
        assert_eq!(mesh.repository(1, "demo/app").pull(tag).is_ok(), stays, "{tag}");
    }
    let preset = atoll(
        &mesh,
        "retention",
        &[
            "apply",
            "demo",
            "--preset",
            "environments",
            "--production",
            "main-*",
            "--cron",
            "0 3 * * *",
        ],
    );
    assert!(preset.success && preset.out.contains("runs at 0 3 * * *"), "{preset:?}");
    let schedules = mesh.client(1).get("/api/atoll/v1/schedules");
    let schedules = schedules.unwrap_or_else(|none| panic!("{none}")).json();
    assert_eq!(schedules[0]["name"], "retention", "{schedules}");
    let removed = atoll(&mesh, "retention", &["remove", "demo"]);
    assert!(removed.success, "{removed:?}");
    let none = atoll(&mesh, "retention", &["run", "demo"]);
    assert!(!none.success && none.err.contains("no retention policy"), "{none:?}");
}

/// Runs the retention of `demo`, asked at a node; the number of artifacts that it has deleted.
fn run_retention(mesh: &Formed, place: &str, at: usize) -> u64 {
    let begin = json!({"dry_run": false, "confirmed": true});
    let begun = must(&mesh.client(at), Method::POST, place, &begin, 201);
    let job = begun.json()["job"].as_str().expect("a job").to_owned();
    let ended = wait::until("the run ends", || {
        let shown = mesh.client(0).get(&format!("/api/atoll/v1/jobs/{job}")).ok()?.json();
        matches!(shown["state"].as_str(), Some("done" | "failed")).then_some(shown)
    });
    assert_eq!(ended["state"], "done", "{ended}");
    // "3 of 6 artifacts deleted"
    let result = ended["result"].as_str().expect("a sentence");
    let deleted = result.split(' ').next().and_then(|word| word.parse().ok());
    deleted.unwrap_or_else(|| panic!("{ended}"))
}

/// Puts an image under a tag, whatever was collected in between, and shows that what was acknowledged
/// is there: at another node, whole. `tag` is moved by nobody else.
fn moves(mesh: &Formed, at: usize, tag: &str, image: &Image) {
    wait::until_ok("a push beside runs is taken", || {
        match mesh.repository(at, "demo/app").push(image, tag) {
            Err(Refusal::Answered(answer)) if answer.status >= 500 => Err(answer.to_string()),
            // a layer that nothing referred to was collected after the client had sent it
            Err(Refusal::Answered(answer)) if answer.status == 404 => Err(answer.to_string()),
            Err(other) => panic!("{tag}: {other}"),
            Ok(()) => Ok(()),
        }
    });
    for reader in [at, (at + 1) % 3] {
        let found = mesh.repository(reader, "demo/app").pull(tag);
        let found = found.unwrap_or_else(|no| panic!("{tag} at {reader} after its push: {no}"));
        assert_eq!(found.digest, image.digest(), "{tag} at {reader}");
    }
}

/// The same few images get and lose their tags all the time, so that a run often looks at one that has
/// none, and deletes it or not while a client pushes it.
#[test]
fn what_is_pushed_while_the_retention_runs_stays_whole() {
    let mesh = Formed::of(&THREE, SOON);
    let trash = json!({"metadata": {"trash": "0"}});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/demo", &trash, 200);
    let policy = json!({
        "scope": {"level": "project", "ref": "demo"},
        "rules": [{"template": "always", "params": {},
            "tag_selectors": [{"decoration": "matches", "pattern": "keep-*",
                "extras": "{\"untagged\":false}"}],
            "scope_selectors": {"repository": [{"decoration": "repoMatches", "pattern": "app"}]}}],
    });
    let made = must(&mesh.client(0), Method::POST, "/api/v2.0/retentions", &policy, 201);
    let place = format!("{}/executions", made.header("location").expect("a place"));
    let pool: Vec<Image> = (0..6).map(|_| Image::random(&[3_000])).collect();
    let (over, rounds) = (AtomicBool::new(false), tests::rounds(30));
    let runs = std::thread::scope(|beside| {
        let runs = beside.spawn(|| {
            let mut deleted = Vec::new();
            while !over.load(Ordering::Relaxed) {
                deleted.push(run_retention(&mesh, &place, deleted.len() % 3));
            }
            deleted
        });
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (mesh, pool) = (&mesh, &pool);
                beside.spawn(move || {
                    for round in 0..rounds {
                        // the writers' own tags, at each node in turn, and one that all three move
                        let image = &pool[(round * (writer + 1) + 2 * writer) % pool.len()];
                        moves(mesh, (writer + round) % 3, &format!("keep-{writer}"), image);
                        let there = mesh.repository(writer, "demo/app");
                        wait::until_ok("a push of the common tag is taken", || {
                            there.push(&pool[(round + writer) % pool.len()], "keep-all")
                        });
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        over.store(true, Ordering::Relaxed);
        let runs = runs.join().expect("the runs end well");
        assert!(ended.iter().all(Result::is_ok), "a writer has panicked, see above");
        runs
    });
    assert!(runs.iter().sum::<u64>() > 0, "the runs met nothing: {runs:?}");
    run_retention(&mesh, &place, 1);
    let mut tagged = Vec::new();
    for tag in ["keep-0", "keep-1", "keep-2", "keep-all"] {
        let found = [0, 1, 2].map(|at| {
            let found = mesh.repository(at, "demo/app").pull(tag);
            found.unwrap_or_else(|no| panic!("{tag} at {at}: {no}")).digest
        });
        assert!(found.iter().all(|one| *one == found[0]), "{tag}: {found:?}");
        tagged.push(found[0].clone());
    }
    for image in pool.iter().filter(|image| !tagged.iter().any(|one| one == image.digest())) {
        let path = format!("/v2/demo/app/manifests/{}", image.digest());
        must(&mesh.client(1), Method::GET, &path, &Value::Null, 404);
    }
    accounting::settles(&[0, 1, 2].map(|at| mesh.client(at)));
    mesh.agree();
}

fn atoll(mesh: &Formed, verb: &str, arguments: &[&str]) -> Finished {
    let password = mesh.folder().join("password-for-retention");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    let mut command = mesh.members()[0].atoll(verb);
    command.args(arguments).args(["--url", &url, "--password-file"]);
    process::finish(command.arg(password))
}
