//! What happens is in the audit log with its name: who did it, from where, and what it was. Every
//! node says the same. No secret is in it.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::people::{
    PASSWORD, add_member, create_robot, create_user, must, robot_of, token_answer,
};
use tests::repository::Repository;
use tests::wait;

const LOG: &str = "/api/v2.0/auditlog-exts";

/// Whoever `create_user` made.
fn signed_in(client: &Client, name: &str) -> Client {
    client.clone().basic(name, PASSWORD)
}

fn list(client: &Client, path: &str) -> Vec<Value> {
    let answer = must(client, Method::GET, path, &json!({}), 200);
    answer.json().as_array().cloned().unwrap_or_default()
}

/// An entry in words: who, what, to what.
fn words(entry: &Value) -> String {
    let text = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let refused = if entry["operation_result"] == true { "" } else { " refused" };
    format!("{} {}{refused}", text("username"), text("operation_description"))
}

/// Events that are old enough to go are in the unit tests: here none is.
#[test]
fn the_log_is_purged_when_somebody_asks_and_by_its_schedule() {
    let mesh = Mesh::up(3);
    let admin = mesh.client(0);
    let schedule = "/api/v2.0/system/purgeaudit/schedule";
    let body = |kind: &str, cron: &str| {
        json!({"schedule": {"type": kind, "cron": cron},
            "parameters": {"audit_retention_hour": 1, "include_operations": "create"}})
    };
    let incomplete = json!({"schedule": {"type": "Manual"}, "parameters": {}});
    must(&admin, Method::POST, schedule, &incomplete, 400);
    let asked = must(&admin, Method::POST, schedule, &body("Manual", ""), 201);
    let place = asked.header("location").expect("a place").to_owned();
    let log = must(&mesh.client(1), Method::GET, &format!("{place}/log"), &Value::Null, 200);
    assert!(String::from_utf8_lossy(&log.body).contains("0 events are purged"), "{log}");
    // each minute, and the first time in a moment
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let soon = format!("{} * * * * *", (now + 12) % 60);
    must(&admin, Method::PUT, schedule, &body("Custom", &soon), 200);
    must(&admin, Method::POST, schedule, &body("Daily", ""), 412);
    wait::until("the schedule has purged", || {
        let path = "/api/v2.0/system/purgeaudit?q=job_kind=SCHEDULE";
        let runs = must(&mesh.client(2), Method::GET, path, &Value::Null, 200).json();
        (runs[0]["job_status"] == "Success").then_some(())
    });
    must(&admin, Method::PUT, schedule, &body("None", ""), 200);
    let shown = must(&mesh.client(1), Method::GET, schedule, &Value::Null, 200).json();
    assert_eq!(shown["schedule"], Value::Null, "{shown}");
    let logs = "/api/v2.0/auditlog-exts?q=resource_type=upkeep";
    let told = must(&admin, Method::GET, logs, &Value::Null, 200).json();
    assert_eq!(told[0]["resource"], "purge_audit: 0 events are purged", "{told}");
}

#[test]
fn who_logged_in_pushed_deleted_was_granted_and_was_refused_is_in_the_log_of_another_node() {
    let (mesh, wrong) = (Mesh::up_with(3, &[("audit.pulls", "1")]), Complaints::default());
    let [admin, here, there] = [0, 1, 2].map(|at| mesh.client(at));
    mesh.create_project("team", false, 1);
    create_user(&admin, "ann");
    add_member(&admin, "team", "ann", 3);
    let robot = create_robot(&admin, &robot_of("team", "ci", &["pull", "push"]));
    let pushed = Image::random(&[10 << 10]);
    let by_robot = Client::of(&mesh.nodes()[0].url).basic(&robot.name, &robot.secret);
    Repository::new(&by_robot, "team/app").push(&pushed, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(1, "team/app").push(&pushed, "2").unwrap_or_else(|no| panic!("{no}"));
    let gone = here.ask(Method::DELETE, "/v2/team/app/manifests/2").send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);

    let ann = signed_in(&mesh.anyone(1), "ann");
    assert_eq!(token_answer(&ann, &["repository:team/app:pull,push"]).status, 200);
    Repository::new(&ann, "team/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert!(Repository::new(&ann, "team/app").push(&Image::tiny(), "3").is_err(), "a guest");
    for name in ["ann", "hunter2-typed-as-a-name", &robot.name, "robot$team+gone"] {
        let stranger = mesh.anyone(1).basic(name, "Wrong-Password-1");
        assert_eq!(token_answer(&stranger, &[]).status, 401, "{name}");
    }

    let expected = [
        "admin create project team".to_owned(),
        "admin create user ann".to_owned(),
        "admin create member ann as guest".to_owned(),
        "admin create robot team+ci".to_owned(),
        format!("{} create artifact team/app:1", robot.name),
        "admin create artifact team/app:2".to_owned(),
        "admin delete tag team/app:2".to_owned(),
        "ann login registry".to_owned(),
        "ann pull artifact team/app:1".to_owned(),
        "ann push repository team/app refused".to_owned(),
        "ann login registry refused".to_owned(),
        format!("{} login registry refused", robot.name),
        "(unknown) login registry refused".to_owned(),
    ];
    let all = wait::until("the summaries have come", || {
        let all = list(&there, &format!("{LOG}?page_size=100"));
        let told: Vec<String> = all.iter().map(words).collect();
        expected.iter().all(|line| told.contains(line)).then_some(all)
    });
    let address = mesh.nodes()[1].url.clone();
    let pull = all.iter().find(|e| e["username"] == "ann" && e["operation"] == "pull");
    let client = pull.and_then(|e| e["client"].as_str()).unwrap_or_default();
    wrong.unless(client.starts_with("127."), || format!("from {client}, asked at {address}"));
    let text = Value::from(all.clone()).to_string();
    for secret in [mesh.admin().1, &robot.secret, PASSWORD, "Wrong-Password-1", "hunter2"] {
        wrong.unless(!text.contains(secret), || format!("{secret} is in the log"));
    }
    let times: Vec<&str> = all.iter().filter_map(|e| e["op_time"].as_str()).collect();
    wrong.unless(times.is_sorted_by(|a, b| a >= b), || format!("not the newest first: {times:?}"));

    let total = |path: &str| {
        let answer = must(&there, Method::GET, path, &json!({}), 200);
        let total = answer.header("x-total-count").and_then(|n| n.parse::<usize>().ok());
        (total.unwrap_or_default(), answer.json().as_array().map_or(0, Vec::len))
    };
    let (count, page) = total(&format!("{LOG}?page_size=2"));
    wrong.unless(count >= expected.len() && page == 2, || format!("{count} of which {page}"));
    for (q, least) in [
        ("username=ann,operation=push", 1),
        ("operation=create,resource_type=artifact,project=team", 2),
        ("operation_result=false", 3),
        ("op_time=[2020-01-01~2020-12-31]", 0),
    ] {
        let (found, _) = total(&format!("{LOG}?q={q}"));
        wrong.unless(if least == 0 { found == 0 } else { found >= least }, || {
            format!("{q}: {found} found")
        });
    }
    wrong.unless_refused("q", there.get(&format!("{LOG}?q=color=red")), &[400], &["BAD_REQUEST"]);

    // a project's members see what happened there, and nothing else
    let anns =
        list(&signed_in(&mesh.anyone(2), "ann"), "/api/v2.0/projects/team/logs?page_size=100");
    wrong.unless(anns.iter().all(|e| e["project"] == "team") && anns.len() > 4, || {
        format!("{anns:?}")
    });
    let ann = signed_in(&mesh.anyone(2), "ann");
    wrong.unless_refused("all of it", ann.get(LOG), &[403], &["DENIED"]);
    wrong.unless_refused("for anyone", mesh.anyone(2).get(LOG), &[401], &["UNAUTHORIZED"]);

    let data = mesh.folder().display().to_string();
    let url = mesh.nodes()[2].url.clone();
    let told = mesh.atoll(&[
        "audit",
        "--by",
        "ann",
        "--operation",
        "push",
        "--refused",
        "--data",
        &data,
        "--url",
        &url,
    ]);
    assert!(told.success && told.out.contains("team/app"), "{told:?}");
    assert_eq!(told.out.lines().count(), 2, "a head and one row: {told:?}");
}
