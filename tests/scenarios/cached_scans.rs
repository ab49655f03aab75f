//! An image of a proxy project is scanned because somebody pulls it, where its project wants that, and
//! is refused then on every path, also while the upstream cannot be asked.

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::hub::{by, is_served, pull, set};
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::proxies::{PROJECTS, REGISTRIES, id_of, make};
use tests::repository::create_project;
use tests::scans::{self, SCANS, advisory, debian, use_database};
use tests::upstream::{Manner, Upstream};
use tests::wait;

const TWO: [(&str, &str); 2] = [("one", "us-east-1"), ("two", "us-west-2")];

fn is_refused(mesh: &Formed, at: usize, path: &str) -> Result<(), String> {
    let answer = pull(mesh, at, Method::GET, path);
    let says = "current image with 1 vulnerabilities cannot be pulled";
    let head = pull(mesh, at, Method::HEAD, path).status;
    match (answer.envelope(), head) {
        (Some((code, said)), 412) if code == "PROJECTPOLICYVIOLATION" && said.contains(says) => {
            Ok(())
        }
        _ => Err(format!("HEAD {head}, GET {answer}")),
    }
}

fn overview(mesh: &Formed, image: &Image) -> Option<Value> {
    scans::overview(mesh, 1, "hub/team%252Fapp", image)
}

#[test]
fn what_is_pulled_through_is_scanned_and_refused_on_every_path() {
    let more = format!("{SCANS}upstreams: {{allow_loopback: true, fresh_for: 1h}}\n");
    let mut mesh = Formed::of(&TWO, &more);
    let edge = mesh.add_edge("edge", "eu-central-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    let upstream = Upstream::start();
    let bad = debian(&[("openssl", "3.0.11-1~deb12u1")]);
    let good = debian(&[("openssl", "3.0.14-1~deb12u1")]);
    let early = debian(&[("openssl", "3.0.14-1~deb12u1"), ("own", "1")]);
    let late = debian(&[("openssl", "3.0.14-1~deb12u1"), ("own", "2")]);
    let there = upstream.repository("team/app");
    for (image, tag) in [(&bad, "bad"), (&good, "good"), (&early, "early"), (&late, "late")] {
        there.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let child = |image: &Image| json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.bytes.len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child(&bad)]});
    let index = Blob::of(index.to_string());
    there.put_bytes("all", INDEX, index.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));

    create_project(&mesh.client(0), "library", true, 2);
    let registry = json!({"name": "up", "url": upstream.url(), "type": "docker-registry"});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &registry));
    for (name, metadata) in [
        ("hub", json!({"public": "true", "prevent_vul": "true", "severity": "high"})),
        ("plain", json!({"public": "true"})),
    ] {
        let project = json!({"project_name": name, "registry_id": registry, "metadata": metadata});
        make(&mesh.client(0), PROJECTS, &project);
    }
    is_served(&mesh, 0, &by("bad")).expect("nothing is scanned in this mesh yet");
    let high = advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 3);
    use_database(&mesh, std::slice::from_ref(&high), 1);

    // the first pull has its layer fetched, and is refused until that was looked into
    assert_eq!(pull(&mesh, 0, Method::GET, &by("bad")).status, 412);
    let host = upstream.url().trim_start_matches("http://");
    let paths = [
        by("bad"),
        by(bad.digest()),
        format!("/v2/team/app/manifests/bad?ns={host}"),
        format!("/v2/team/app/manifests/{}?ns={host}", bad.digest()),
    ];
    for at in 0..=edge {
        for path in &paths {
            wait::until_ok("it is refused", || is_refused(&mesh, at, path));
        }
        is_served(&mesh, at, &by("all")).expect("an index is no image");
    }
    let fetched = format!("blobs/{}", bad.blobs[1].digest);
    let asked = upstream.asked_for(&Method::GET, &fetched).len();
    assert_eq!(asked, 1, "nobody has pulled the layer, and one scan has read it");
    let shown = overview(&mesh, &bad).expect("a report");
    assert_eq!((&shown["severity"], &shown["scan_status"]), (&json!("High"), &json!("Success")));
    let report = format!(
        "/api/v2.0/projects/hub/repositories/team%252Fapp/artifacts/{}/additions/vulnerabilities",
        bad.digest()
    );
    wait::until_ok("its layers are read again for the report", || {
        let report = mesh.client(1).get(&report).map_err(|none| none.to_string())?;
        let report = report.json().to_string();
        if report.contains("3.0.11-1~deb12u1") { Ok(()) } else { Err(report) }
    });

    // another project has another policy
    let plain = |image: &Image| format!("/v2/plain/team/app/manifests/{}", image.digest());
    is_served(&mesh, 1, &plain(&bad)).expect("a project without a policy");
    assert_eq!(scans::overview(&mesh, 1, "plain/team%252Fapp", &bad), None, "nobody wants it");

    // asked for at the edge only
    let first = pull(&mesh, edge, Method::GET, &by("early")).status;
    assert_eq!(first, 412, "it was not scanned");
    wait::until_ok("the edge serves it", || is_served(&mesh, edge, &by("early")));
    // and the pull waits, if the project says so; a wait that is too short is to be repeated
    set(&mesh, "hub", &json!({"vul_unscanned": "wait 60"}));
    wait::until_ok("a pull waits for its scan", || is_served(&mesh, 1, &by("good")));
    wait::until_ok("the edge's too", || match pull(&mesh, edge, Method::GET, &by("late")) {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.to_string()),
    });

    // a newer database counts when somebody pulls again
    let new = advisory("own", "CVE-2026-0001", "", 4);
    use_database(&mesh, &[high, new], 2);
    wait::until_ok("it is refused", || is_refused(&mesh, 1, &by("late")));
    wait::until_ok("at the edge, too", || is_refused(&mesh, edge, &by("late")));
    is_served(&mesh, 1, &by("good")).expect("it has nothing of that");

    // what was decided counts without the upstream
    upstream.behave(Manner::Refuse);
    for at in 0..=edge {
        wait::until_ok("it is refused", || is_refused(&mesh, at, &by(bad.digest())));
    }
    let list = json!({"reuse_sys_cve_allowlist": "true"});
    set(&mesh, "hub", &list);
    let allowed = json!({"items": [{"cve_id": "CVE-2024-5535"}]});
    let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/system/CVEAllowlist", &allowed);
    assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 200);
    for at in 0..=edge {
        wait::until_ok("it is allowed", || is_served(&mesh, at, &by(bad.digest())));
    }

    // what nobody has cached any more is forgotten
    let known = || {
        let metrics = mesh.client(1).get("/api/v2.0/scans/all/metrics").ok()?.json();
        metrics["total"].as_u64()
    };
    let before = known().expect("figures");
    let gone = mesh.client(0).ask(Method::DELETE, &by(early.digest())).send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);
    wait::until("what is known of it is forgotten", || (known()? == before - 1).then_some(()));
}

#[test]
fn below_its_feature_level_a_proxy_project_cannot_have_such_a_policy() {
    let mesh = Formed::at_level(&TWO[..1], "upstreams: {allow_loopback: true}\n", 12);
    let registry = json!({"name": "up", "url": "http://127.0.0.1:9", "type": "docker-registry"});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &registry));
    let project = |metadata: Value| {
        let project = json!({"project_name": "hub", "registry_id": registry, "metadata": metadata});
        let made = mesh.client(0).send_json(Method::POST, PROJECTS, &project);
        made.unwrap_or_else(|none| panic!("{none}"))
    };
    for (key, value, level) in [
        ("prevent_vul", "true", "level 13"),
        ("auto_scan", "true", "level 13"),
        ("signature_policy", "warn", "level 14"),
        ("enable_content_trust", "true", "level 14"),
    ] {
        let refused = project(json!({ key: value }));
        assert!(refused.status == 403 && refused.to_string().contains(level), "{refused}");
    }
    assert_eq!(project(json!({"prevent_vul": "false"})).status, 201);

    // and what else such a project has not, with what it has instead
    let hub = mesh.client(0).get("/api/v2.0/projects/hub").expect("an answer").json();
    let place = format!("/api/v2.0/quotas/{}", hub["project_id"]);
    let set = mesh.client(0).send_json(Method::PUT, &place, &json!({"hard": {"storage": 5}}));
    let refused = set.unwrap_or_else(|none| panic!("{none}"));
    assert!(refused.status == 404 && refused.to_string().contains("cache.budget"), "{refused}");
    let place = "/api/v2.0/projects/hub/repositories/app/artifacts/1/explanation";
    let unknown = mesh.client(0).get(place).unwrap_or_else(|none| panic!("{none}"));
    let said = unknown.to_string();
    assert!(unknown.status == 404 && said.contains("hub/app:1 is not cached"), "{unknown}");
}
