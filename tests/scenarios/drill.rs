//! A drill: the nodes of one region refuse their clients for a time, its projects go elsewhere, and
//! everything else goes on. It ends by itself.

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::people::{PASSWORD, create_user, must};
use tests::{process, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const DRILL: &str = "/api/atoll/v1/dr/drill";

fn primary(mesh: &Formed, asked: usize) -> Option<usize> {
    let status = mesh.status(asked).ok()?;
    let name = tests::mesh::primary(&status, "demo")?;
    THREE.iter().position(|(one, _)| *one == name)
}

/// `atoll dr drill`, at a node.
fn drill(mesh: &Formed, at: usize, arguments: &[&str]) -> std::process::Command {
    let password = mesh.folder().join("password-for-drill");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[at].place().http);
    let mut command = mesh.members()[at].atoll("dr");
    command.args(["--url", &url]).arg("--password-file").arg(password);
    command.arg("drill").args(arguments);
    command
}

#[test]
fn a_region_refuses_its_clients_the_others_go_on_and_it_ends_by_itself() {
    let mut mesh = Formed::of(&THREE, "failover: {return_after: 3s}\n");
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 2s}\n");
    mesh.members()[edge].wait_ready();
    let home = wait::until("the project has a primary", || primary(&mesh, 0));
    let region = THREE[home].1;
    let others: Vec<usize> = (0..3).filter(|at| *at != home).collect();
    let kept = Image::random(&[40_000]);
    mesh.repository(home, "demo/app").push(&kept, "kept").unwrap_or_else(|no| panic!("{no}"));

    let unasked = process::finish(&mut drill(&mesh, others[0], &["--region", region]));
    assert!(!unasked.success && unasked.err.contains("--yes"), "{unasked:?}");

    // whoever has begun it goes away
    let mut begun = process::finish(&mut drill(
        &mesh,
        others[0],
        &["--yes", "--region", region, "--for", "25s", "--no-wait"],
    ));
    assert!(begun.success, "{}", begun.err);
    assert!(begun.out.contains("refuses all clients until"), "{}", begun.out);
    let refused = |at: usize, path: &str| {
        let answer = mesh.client(at).get(path).unwrap_or_else(|none| panic!("{none}"));
        (answer.status == 503).then(|| String::from_utf8_lossy(&answer.body).into_owned())
    };
    let said = wait::until("its node refuses", || refused(home, "/v2/demo/app/manifests/kept"));
    assert!(said.contains("drill") && said.contains(region), "{said}");
    assert!(refused(home, "/readyz").is_some_and(|said| said.contains("drill")));
    assert!(refused(home, "/api/v2.0/projects").is_some());
    let alive = mesh.client(home).get("/healthz").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(alive.status, 200, "nobody restarts it");
    if region == "us-east-1" {
        wait::until("the region's edge refuses", || refused(edge, "/v2/"));
    }
    let told = tests::shop::atoll(&mesh, others[0], "status", &["--no-copies"]);
    assert!(told.out.contains(&format!("a drill of {region} by admin")), "{told:?}");
    // pushes and pulls elsewhere, while the project moves
    let mut pushed: Vec<(String, Image)> = Vec::new();
    let moved = wait::until("the project moves", || {
        for at in &others {
            let (image, tag) = (Image::tiny(), format!("t{}", pushed.len()));
            let done = mesh.repository(*at, "demo/app").push(&image, &tag);
            done.unwrap_or_else(|no| panic!("{tag} at {at} in a drill: {no}"));
            let found = mesh.repository(*at, "demo/app").pull("kept");
            found.unwrap_or_else(|no| panic!("at {at} in a drill: {no}"));
            pushed.push((tag, image));
        }
        primary(&mesh, others[0]).filter(|now| *now != home)
    });
    let shown = must(&mesh.client(others[1]), Method::GET, DRILL, &Value::Null, 200).json();
    assert_eq!((&shown["under_way"], &shown["region"]), (&json!(true), &json!(region)), "{shown}");
    let of_demo = shown["projects"].as_array().expect("a list").iter();
    let of_demo = of_demo.clone().find(|one| one["project"] == "demo").expect("the project");
    assert_eq!(of_demo["primary"], THREE[moved].0, "{shown}");
    let again = json!({"region": region, "seconds": 5});
    let refused_again = must(&mesh.client(others[0]), Method::POST, DRILL, &again, 409);
    assert!(refused_again.envelope().expect("an envelope").1.contains("under way"));

    wait::until("it ends by itself, and the project returns", || {
        let back = primary(&mesh, others[0]) == Some(home);
        (back && refused(home, "/readyz").is_none()).then_some(())
    });
    let last = process::finish(&mut drill(&mesh, others[1], &[]));
    let says = format!("no drill is under way; the last one was of {region}, from ");
    assert!(last.success && last.out.starts_with(&says), "{last:?}");
    assert!(!last.out.contains("not back yet"), "{last:?}");
    let told = tests::shop::atoll(&mesh, others[0], "status", &["--no-copies"]);
    assert!(told.success && !told.out.contains("a drill of"), "{told:?}");
    for (tag, image) in pushed.iter().chain([&("kept".to_owned(), kept)]) {
        let found = mesh.repository(home, "demo/app").pull(tag);
        assert_eq!(found.unwrap_or_else(|no| panic!("{tag}: {no}")).digest, image.digest());
    }
    // one that is ended before its time, at a node that takes part in it
    begun = process::finish(&mut drill(&mesh, home, &["--yes", "--region", region, "--no-wait"]));
    assert!(begun.success, "{}", begun.err);
    wait::until("it refuses again", || refused(home, "/v2/demo/app/manifests/kept"));
    let stopped = process::finish(&mut drill(&mesh, home, &["--stop"]));
    assert!(stopped.success, "{}", stopped.err);
    wait::until("and answers again", || {
        refused(home, "/v2/demo/app/manifests/kept").is_none().then_some(())
    });
    let log = "/api/v2.0/auditlog-exts?q=resource_type=drill&page_size=100";
    let told = must(&mesh.client(others[0]), Method::GET, log, &Value::Null, 200).to_string();
    assert!(told.contains("begin") && told.contains("stop"), "{told}");
}

#[test]
fn a_drill_that_would_refuse_everybody_is_refused() {
    let mesh = Formed::of(&[("one", "here"), ("two", "here")], "");
    let admin = mesh.client(0);
    let ask = |what: Value, status: u16| {
        let answer = must(&admin, Method::POST, DRILL, &what, status);
        answer.envelope().expect("an envelope").1
    };
    let said = ask(json!({"region": "here", "seconds": 5}), 409);
    assert!(said.contains("refuse all clients of the mesh"), "{said}");
    let said = ask(json!({"region": "nowhere", "seconds": 5}), 409);
    assert!(said.contains("nowhere"), "{said}");
    ask(json!({"region": "here"}), 400);
    must(&admin, Method::DELETE, DRILL, &Value::Null, 404);
    create_user(&admin, "ann");
    let ann = mesh.members()[1].anyone().basic("ann", PASSWORD);
    must(&ann, Method::POST, DRILL, &json!({"region": "here", "seconds": 5}), 403);
    assert_eq!(admin.get("/v2/").unwrap_or_else(|none| panic!("{none}")).status, 200);
}
