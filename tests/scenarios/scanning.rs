//! What is pushed is scanned, and an image with vulnerabilities that its project does not let pass is
//! refused at every replica and edge, by each of them alone. A newer database needs no scan.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Answer;
use tests::image::{Blob, Image};
use tests::people::{PASSWORD, add_member, create_user};
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::scans::{self, SCANS, advisory, database, debian, use_database};
use tests::vulnerabilities::Advisory;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

fn set(mesh: &Formed, project: &str, metadata: &Value) -> Answer {
    let path = format!("/api/v2.0/projects/{project}");
    let body = json!({"metadata": metadata});
    let answer = mesh.client(0).send_json(Method::PUT, &path, &body);
    answer.unwrap_or_else(|none| panic!("{none}"))
}

fn overview(mesh: &Formed, at: usize, image: &Image) -> Option<Value> {
    scans::overview(mesh, at, "shop/web", image)
}

/// The status of a pull by digest at a node, and the sentence.
fn pull(mesh: &Formed, at: usize, image: &Image) -> (u16, String) {
    let path = format!("/v2/shop/web/manifests/{}", image.digest());
    let answer = mesh.client(at).get(&path).unwrap_or_else(|none| panic!("{none}"));
    let said = answer.envelope().map(|(code, message)| format!("{code}: {message}"));
    (answer.status, said.unwrap_or_default())
}

fn is_refused(mesh: &Formed, at: usize, image: &Image) -> Option<()> {
    refusal(mesh, at, image).ok()
}

/// Else what the node answered.
fn refusal(mesh: &Formed, at: usize, image: &Image) -> Result<(), String> {
    let (status, said) = pull(mesh, at, image);
    let says = "current image with 1 vulnerabilities cannot be pulled due to configured policy in 'Prevent images with vulnerability severity of \"High\" or higher from running.'";
    match status == 412 && said.starts_with("PROJECTPOLICYVIOLATION") && said.contains(says) {
        true => Ok(()),
        false => Err(format!("{status} {said}")),
    }
}

fn atoll(mesh: &Formed, verb: &str, arguments: &[&str]) -> Finished {
    let url = format!("http://{}", mesh.members()[1].place().http);
    atoll_at(mesh, &url, verb, arguments)
}

fn atoll_at(mesh: &Formed, url: &str, verb: &str, arguments: &[&str]) -> Finished {
    let password = mesh.folder().join("password-for-scans");
    std::fs::write(&password, mesh.password()).expect("a file");
    let mut command = mesh.members()[0].atoll(verb);
    command.args(arguments).args(["--url", url, "--password-file"]);
    process::finish(command.arg(password))
}

#[test]
fn a_vulnerable_image_is_refused_in_all_regions_until_it_is_allowed() {
    let mut mesh = Formed::of(&THREE, SCANS);
    // long, so that it learns of each change only because it is told
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "library", true, 2);
    create_project(&mesh.client(0), "shop", true, 2);
    let file = mesh.folder().join("policy.yaml");
    let policy = "project: shop\nscan_policy:\n  scanner: trivy\n  auto_scan: true\n  prevent_vulnerable: true\n  severity_threshold: HIGH\nscan_schedule: \"0 0 * * *\"\n";
    std::fs::write(&file, policy).expect("a file");
    let file = file.display().to_string();
    let tried = atoll(&mesh, "apply", &["-f", &file, "--dry-run"]);
    assert!(tried.success && tried.out.contains("+ prevent_vul: true\n+ severity: high"));
    let applied = atoll(&mesh, "apply", &["-f", &file]);
    assert!(applied.success && applied.out == tried.out + "project shop is changed\n");
    let again = atoll(&mesh, "apply", &["-f", &file]);
    assert!(again.success && again.out == "project shop is so already\n", "{again:?}");
    let schedules = mesh.client(2).get("/api/atoll/v1/schedules").expect("schedules").json();
    assert_eq!(
        (&schedules[0]["kind"], &schedules[0]["cron"]),
        (&json!("scan"), &json!("0 0 0 * * *"))
    );
    let image = debian(&[("openssl", "3.0.11-1~deb12u1"), ("zlib1g", "1:1.2.13.dfsg-1")]);
    let web = mesh.repository(0, "shop/web");
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        assert_eq!(pull(&mesh, at, &image).0, 200, "nothing is scanned in this mesh yet");
    }
    let low = advisory("zlib1g", "CVE-2023-45853", "", 1);
    let high = advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 3);
    use_database(&mesh, &[low.clone(), high.clone()], 1);
    let report = wait::until("the push is scanned", || {
        overview(&mesh, 1, &image).filter(|one| one["scan_status"] == "Success")
    });
    assert_eq!(report["severity"], "High", "{report}");
    assert_eq!(report["summary"]["total"], 2, "{report}");
    assert_eq!(report["summary"]["fixable"], 1, "{report}");
    assert_eq!(report["stale"], false, "{report}");
    for at in 0..=edge {
        wait::until_ok("it is refused", || refusal(&mesh, at, &image));
        let path = "/v2/shop/web/manifests/1";
        let head = mesh.client(at).ask(Method::HEAD, path).send();
        assert_eq!(head.unwrap_or_else(|none| panic!("{none}")).status, 412, "HEAD at {at}");
    }
    let unchanged = mesh.client(0).ask(Method::GET, "/v2/shop/web/manifests/1");
    let unchanged = unchanged.header("if-none-match", &format!("\"{}\"", image.digest())).send();
    assert_eq!(unchanged.unwrap_or_else(|none| panic!("{none}")).status, 412, "nor a 304");

    // why, at a replica and at the edge, and what would help
    for at in [1, edge] {
        let url = format!("http://{}", mesh.members()[at].place().http);
        let why = atoll_at(&mesh, &url, "explain", &["shop/web:1"]);
        assert!(why.success, "{why:?}");
        let remedy = "remedy    let them pass: add their ids to the allowlist of the mesh";
        for part in [
            "it is refused: current image with 1 vulnerabilities",
            "counts    CVE-2024-5535 (High, a fix exists)\n",
            remedy,
            "policy    ",
            "prevent_vul=true",
            "records   up to date",
        ] {
            assert!(why.out.contains(part), "{part}: {}", why.out);
        }
    }

    // what is listed for people, with its texts
    let listed = wait::until_ok("this node has opened the database, too", || {
        let listed = atoll(&mesh, "vulnerabilities", &["shop/web:1", "--severity", "medium"]);
        if listed.success { Ok(listed) } else { Err(format!("{listed:?}")) }
    });
    assert!(listed.out.contains("CVE-2024-5535"), "{listed:?}");
    assert!(!listed.out.contains("CVE-2023-45853"), "{listed:?}");
    let failed = atoll(&mesh, "vulnerabilities", &["shop/web:1", "--fail-on", "high", "--sarif"]);
    assert!(!failed.success && failed.err.contains("1 vulnerabilities of severity High"));
    let sarif: Value = serde_json::from_str(&failed.out).expect("JSON");
    assert_eq!(sarif["runs"][0]["results"].as_array().map(Vec::len), Some(2), "{sarif}");

    // CI and the gate agree about what an allowlist lets pass
    let judge = |until: &str| {
        let set = atoll(&mesh, "allowlist", &["set", "--until", until, "CVE-2024-5535"]);
        assert!(set.success, "{set:?}");
        atoll(&mesh, "vulnerabilities", &["shop/web:1", "--fail-on", "high"])
    };
    assert!(judge("2100-01-01").success, "it is allowed");
    assert!(!judge("2001-01-01T00:00:00Z").success, "the list has ended");
    assert!(atoll(&mesh, "allowlist", &["set", "--until", "2100-01-01", "CVE-1-1"]).success);
    let added = atoll(&mesh, "allowlist", &["add", "CVE-2024-5535", "CVE-1-1"]);
    assert!(added.success && added.out.contains("2 ids"), "{added:?}");
    let other = atoll(&mesh, "allowlist", &["remove", "CVE-2-2"]);
    assert!(!other.success && other.err.contains("CVE-2-2 is not in the list"), "{other:?}");
    let removed = atoll(&mesh, "allowlist", &["remove", "CVE-1-1"]);
    assert!(removed.success && removed.out.contains("1 ids"), "{removed:?}");
    let shown = atoll(&mesh, "allowlist", &["show"]);
    let (id, end) = ("CVE-2024-5535", "ends at 2100-01-01");
    assert!(shown.out.contains(id) && shown.out.contains(end), "{shown:?}");
    assert!(atoll(&mesh, "allowlist", &["set"]).success);

    // the project's list, until it ends
    let own = json!({"reuse_sys_cve_allowlist": "false"});
    assert_eq!(set(&mesh, "shop", &own).status, 200);
    let allowed = atoll(&mesh, "allowlist", &["set", "--project", "shop", "CVE-2024-5535"]);
    assert!(allowed.success, "{allowed:?}");
    for at in 0..=edge {
        wait::until("it is served", || (pull(&mesh, at, &image).0 == 200).then_some(()));
    }
    let ended = atoll(
        &mesh,
        "allowlist",
        &["set", "--project", "shop", "--until", "2023-11-14T22:13:20Z", "CVE-2024-5535"],
    );
    assert!(ended.success, "{ended:?}");
    for at in 0..=edge {
        wait::until("it is refused again", || is_refused(&mesh, at, &image));
    }
    // the mesh's list does not count for it, and counts when the project says so
    let allowed = atoll(&mesh, "allowlist", &["set", "CVE-2024-5535"]);
    assert!(allowed.success, "{allowed:?}");
    assert!(is_refused(&mesh, 2, &image).is_some());
    let own = json!({"reuse_sys_cve_allowlist": "true"});
    assert_eq!(set(&mesh, "shop", &own).status, 200);
    wait::until("it is served", || (pull(&mesh, edge, &image).0 == 200).then_some(()));

    // a pull at the edge waits for the scan of what was pushed a moment ago
    let waits = json!({"vul_unscanned": "wait 60"});
    assert_eq!(set(&mesh, "shop", &waits).status, 200);
    let fresh = debian(&[("openssl", "3.0.14-1~deb12u1")]);
    web.push(&fresh, "fresh").unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("the edge has the policy", || match pull(&mesh, edge, &fresh) {
        (200, _) => Ok(()),
        (status, said) => Err(format!("{status} {said}")),
    });

    // a newer database, without a scan
    let before = overview(&mesh, 1, &image).expect("a report")["report_id"].clone();
    let new = advisory("openssl", "CVE-2026-0001", "", 4);
    use_database(&mesh, &[low, high, new], 2);
    for at in 0..=edge {
        wait::until_ok("it is refused", || refusal(&mesh, at, &image));
    }
    let after = overview(&mesh, 1, &image).expect("a report");
    assert_eq!((&after["report_id"], &after["severity"]), (&before, &json!("Critical")), "{after}");
    let events = mesh.client(0).get("/api/v2.0/projects/shop/auditlog-exts?page_size=100");
    let events = events.unwrap_or_else(|none| panic!("{none}")).to_string();
    assert!(events.contains("is refused: 1 vulnerabilities"), "{events}");

    // an older one is not used, and said
    let older = database(&[], 1);
    mesh.repository(0, "library/trivy-db").push(&older, "2").unwrap_or_else(|no| panic!("{no}"));
    wait::until("it is said", || {
        let scanners = mesh.client(0).get("/api/v2.0/scanners").ok()?.json();
        let problem = scanners[0]["database_here"]["problem"].as_str()?.to_owned();
        problem.contains("newer database").then_some(())
    });
    assert!(is_refused(&mesh, 2, &image).is_some());
    // nor is one that is broken
    let mut broken = database(&[], 9);
    broken.blobs[1] = Blob::random(3000);
    let mut manifest: Value = serde_json::from_slice(&broken.manifest.bytes).expect("JSON");
    manifest["layers"][0]["digest"] = broken.blobs[1].digest.as_str().into();
    manifest["layers"][0]["size"] = 3000.into();
    broken.manifest = Blob::of(manifest.to_string());
    mesh.repository(0, "library/trivy-db").push(&broken, "2").unwrap_or_else(|no| panic!("{no}"));
    wait::until("it is said", || {
        let scanners = mesh.client(0).get("/api/v2.0/scanners").ok()?.json();
        let problem = scanners[0]["database_here"]["problem"].as_str()?.to_owned();
        problem.contains("is damaged").then_some(())
    });
    let scanners = mesh.client(0).get("/api/v2.0/scanners").expect("scanners").json();
    assert_eq!(scanners[0]["health"], "unhealthy", "{scanners}");
    let (open, used) = (&scanners[0]["database_here"]["open"], &scanners[0]["database"]["digest"]);
    assert_eq!(open, used, "what the mesh uses stays open");
    let listed = atoll(&mesh, "vulnerabilities", &["shop/web:1"]);
    assert!(listed.success && listed.out.contains("CVE-2026-0001"), "{listed:?}");
}

#[test]
fn a_scan_outlives_its_primary_and_what_is_refused_stays_so_at_a_node_that_is_alone() {
    let mut mesh = Formed::of(&THREE, SCANS);
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 1s}\n");
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "library", true, 3);
    create_project(&mesh.client(0), "shop", true, 3);
    use_database(&mesh, &[advisory("openssl", "CVE-2024-5535", "", 3)], 1);
    let policy = json!({"auto_scan": "true", "prevent_vul": "true", "severity": "high"});
    assert_eq!(set(&mesh, "shop", &policy).status, 200);
    let images: Vec<Image> = (0..12)
        .map(|n| debian(&[("openssl", "3.0.11-1~deb12u1"), ("own", &format!("{n}"))]))
        .collect();
    let status = mesh.status(0).expect("a status");
    let primary = tests::mesh::primary(&status, "shop").expect("a primary");
    let primary = THREE.iter().position(|(name, _)| *name == primary).expect("it is one of them");
    let other = (primary + 1) % 3;
    for (n, image) in images.iter().enumerate() {
        let tag = format!("v{n}");
        let there = mesh.repository(other, "shop/web");
        wait::until_ok("an image is pushed", || there.push(image, &tag));
    }
    mesh.members()[primary].stop(Signal::KILL);
    for image in &images {
        wait::until("it is scanned by the next primary", || {
            let found = overview(&mesh, other, image)?;
            (found["scan_status"] == "Success" && found["severity"] == "High").then_some(())
        });
    }
    for image in &images {
        wait::until_ok("the edge refuses it", || refusal(&mesh, edge, image));
    }

    // a newer database, while the primary dies: the next one compares the rest
    mesh.members()[primary].serve();
    mesh.members()[primary].wait_ready();
    let worse = advisory("own", "CVE-2026-0001", "", 4);
    use_database(&mesh, &[advisory("openssl", "CVE-2024-5535", "", 3), worse], 2);
    let status = mesh.status(other).expect("a status");
    let second = tests::mesh::primary(&status, "shop").expect("a primary");
    let second = THREE.iter().position(|(name, _)| *name == second).expect("it is one of them");
    mesh.members()[second].stop(Signal::KILL);
    let left: Vec<usize> = (0..3).filter(|at| *at != second).collect();
    for image in &images {
        wait::until("its report is of the newer database", || {
            let found = overview(&mesh, left[0], image)?;
            (found["severity"] == "Critical" && found["stale"] == false).then_some(())
        });
    }

    // a replica that is alone refuses what it knows to be bad
    mesh.members()[left[1]].stop(Signal::KILL);
    let path = format!("/v2/shop/web/manifests/{}", images[2].digest());
    wait::until_ok("a replica without a leader refuses", || {
        let answer =
            mesh.members()[left[0]].anyone().get(&path).map_err(|none| none.to_string())?;
        if answer.status == 412 { Ok(()) } else { Err(answer.to_string()) }
    });
    // all replicas are gone, and the edge still knows
    mesh.members()[left[0]].stop(Signal::KILL);
    let alone = mesh.members()[edge].anyone();
    for image in &images {
        let path = format!("/v2/shop/web/manifests/{}", image.digest());
        let answer = wait::until("the edge answers", || {
            alone.get(&path).ok().filter(|answer| answer.status != 503)
        });
        assert_eq!(answer.status, 412, "{answer}");
    }
    // and says why, as far as it may tell anybody
    let of = "/api/v2.0/projects/shop/repositories/web/artifacts";
    let path = format!("{of}/{}/explanation", images[1].digest());
    wait::until_ok("it says why", || {
        let why = alone.get(&path).map_err(|none| none.to_string())?.json();
        let old = why["records"].as_str().is_some_and(|of| of.contains("hears no replica"));
        if old && why["decision"] == "refuse" { Ok(()) } else { Err(why.to_string()) }
    });
}

#[test]
fn what_cannot_be_scanned_says_so_and_what_is_not_scanned_is_as_the_project_says() {
    let mesh = Formed::of(&THREE, SCANS);
    create_project(&mesh.client(0), "library", true, 2);
    create_project(&mesh.client(0), "shop", true, 2);
    let web = "/api/v2.0/projects/shop/repositories/web/artifacts";
    let ask = |at: usize, reference: &str| {
        let path = format!("{web}/{reference}/scan");
        let answer = mesh.client(at).ask(Method::POST, &path).send();
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    let fine = debian(&[("openssl", "3.0.14-1~deb12u1")]);
    let broken = Image::of_layers(vec![Blob::of(vec![7; 4000])]);
    let push = |image: &Image, tag: &str| {
        mesh.repository(0, "shop/web").push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    };
    push(&fine, "fine");
    push(&broken, "broken");
    let early = ask(0, "fine");
    assert!(early.status == 412 && early.to_string().contains("scan.database"), "{early}");
    // the database comes from a file
    let file = mesh.folder().join("db.tar.gz");
    let import = |advisories: &[Advisory], day: u8| {
        let database = database(advisories, day).blobs[1].bytes.to_vec();
        std::fs::write(&file, database).expect("a file");
        atoll(&mesh, "scan", &["db", "import", &file.display().to_string()])
    };
    let imported = import(&[advisory("openssl", "CVE-2024-5535", "3.0.12", 3)], 2);
    assert!(imported.success && imported.out.contains("made 2026-01-02"), "{imported:?}");
    let older = import(&[], 1);
    assert!(!older.success && older.err.contains("newer database is used already"), "{older:?}");
    std::fs::write(&file, "no archive").expect("a file");
    let wrong = atoll(&mesh, "scan", &["db", "import", &file.display().to_string()]);
    assert!(!wrong.success && wrong.err.contains("is no gzip"), "{wrong:?}");
    let status = atoll(&mesh, "scan", &["db", "status"]);
    assert!(status.success && status.out.contains("library/trivy-db:2"), "{status:?}");
    for wrong in [
        json!({"severity": "severe"}),
        json!({"prevent_vul": "perhaps"}),
        json!({"vul_unscanned": "wait 900"}),
    ] {
        assert_eq!(set(&mesh, "shop", &wrong).status, 400, "{wrong}");
    }
    let policy = |unscanned: &str| json!({"prevent_vul": "true", "severity": "low", "vul_unscanned": unscanned});
    assert_eq!(set(&mesh, "shop", &policy("block")).status, 200);
    let (status, said) = pull(&mesh, 1, &fine);
    assert!(status == 412 && said.contains("without vulnerability scanning"), "{said}");
    assert_eq!(set(&mesh, "shop", &policy("allow")).status, 200);
    assert_eq!(pull(&mesh, 1, &fine).0, 200);
    // a pull waits for the scan that was asked for
    assert_eq!(set(&mesh, "shop", &policy("wait 30")).status, 200);
    assert_eq!(ask(1, "fine").status, 202);
    assert_eq!(pull(&mesh, 2, &fine).0, 200);

    // an index is scanned image by image, and has what they have
    let child = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": fine.digest(), "size": fine.manifest.bytes.len()});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [child]});
    let put = mesh.client(0).ask(Method::PUT, "/v2/shop/web/manifests/all");
    let put = put.header("content-type", "application/vnd.oci.image.index.v1+json");
    let put = put.body(index.to_string()).send().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(put.status, 201, "{put}");
    let whole = atoll(&mesh, "scan", &["shop/web:all"]);
    assert!(whole.success && whole.out.contains("no known vulnerabilities"), "{whole:?}");
    let said = atoll(&mesh, "vulnerabilities", &["shop/web:all"]);
    assert!(!said.success && said.err.contains("is an index of 1 images"), "{said:?}");

    let failed = atoll(&mesh, "scan", &["shop/web:broken"]);
    assert!(!failed.success && failed.err.contains("Error: layer sha256:"), "{failed:?}");
    let (status, said) = pull(&mesh, 2, &broken);
    assert!(status == 412 && said.contains("\"Error\" status"), "it does not wait: {said}");
    let number = overview(&mesh, 0, &broken).expect("an overview");
    assert_eq!(number["scan_status"], "Error", "{number}");
    assert_eq!(ask(0, "nothing").status, 404);

    // what Go's clients read in another way does not pass as something else
    let (gzip, config) = (&fine.blobs[1], &fine.blobs[0]);
    let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": gzip.digest, "size": gzip.bytes.len()});
    let named = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.bytes.len()});
    let hidden = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/x", "digest": config.digest, "size": config.bytes.len()},
        "layers": [], "Config": named, "Layers": [layer]});
    let hidden = Image { manifest: Blob::of(hidden.to_string()), blobs: fine.blobs.clone() };
    push(&hidden, "hidden");
    assert_eq!(pull(&mesh, 1, &hidden).0, 412);
    let failed = atoll(&mesh, "scan", &["shop/web:hidden"]);
    assert!(
        !failed.success && failed.err.contains("read its manifest in several ways"),
        "{failed:?}"
    );

    // what no runtime could run is no image, and passes
    let chart = "application/vnd.cncf.helm";
    let parts = [Blob::of("{}"), Blob::random(900)];
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": format!("{chart}.config.v1+json"), "digest": parts[0].digest, "size": 2},
        "layers": [{"mediaType": format!("{chart}.chart.content.v1.tar+gzip"), "digest": parts[1].digest, "size": 900}],
    });
    let about = Image { manifest: Blob::of(manifest.to_string()), blobs: parts.into() };
    let repository = mesh.repository(0, "shop/web");
    about.blobs.iter().for_each(|blob| repository.upload(blob).unwrap_or_else(|no| panic!("{no}")));
    repository.put_manifest(about.digest(), &about).unwrap_or_else(|no| panic!("{no}"));
    let asked = ask(0, about.digest());
    assert_eq!(asked.status, 400, "{asked}");
    assert_eq!(pull(&mesh, 1, &about).0, 200);
    // bytes that have rotted at the primary are not believed
    create_project(&mesh.client(0), "rot", true, 3);
    let rotten = debian(&[("openssl", "3.0.11-1~deb12u1"), ("own", "7")]);
    mesh.repository(0, "rot/web").push(&rotten, "1").unwrap_or_else(|no| panic!("{no}"));
    let primary = tests::mesh::primary(&mesh.status(0).expect("a status"), "rot");
    let primary = THREE.iter().position(|(name, _)| Some(*name) == primary.as_deref());
    let primary = &mesh.members()[primary.expect("a primary")];
    let layer = &rotten.blobs[1];
    let version = layer.bytes.windows(6).position(|part| part == b"3.0.11").expect("a version");
    primary.flip(layer, version);
    let path = "/api/v2.0/projects/rot/repositories/web/artifacts/1/scan";
    let asked = mesh.client(0).ask(Method::POST, path).send();
    assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 202);
    wait::until("another node's copy is scanned", || {
        let found = scans::overview(&mesh, 0, "rot/web", &rotten)?;
        (found["scan_status"] == "Success").then_some(())
    });
    assert!(primary.words().contains("this node's copy of layer"), "it says so");
    // nor is what another registry has
    let proxied =
        json!({"project_name": "hub", "registry_id": 0, "metadata": {"vul_insufficient": "no"}});
    let refused = mesh.client(0).send_json(Method::POST, "/api/v2.0/projects", &proxied);
    assert_eq!(refused.unwrap_or_else(|none| panic!("{none}")).status, 400);
}

/// The document of an image's SBOM of this type, as its clients find it: a referrer with one layer.
fn sbom_of(mesh: &Formed, repository: &str, tag: &str, kind: &str) -> Value {
    let get = |path: &str| {
        let answer = mesh.client(2).get(path).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 200, "{path}: {answer}");
        answer
    };
    let image = get(&format!("/v2/{repository}/manifests/{tag}"));
    let digest = image.header("docker-content-digest").expect("a digest").to_owned();
    let found = get(&format!("/v2/{repository}/referrers/{digest}?artifactType={kind}")).json();
    assert_eq!(found["manifests"].as_array().map(Vec::len), Some(1), "{found}");
    let sbom = found["manifests"][0]["digest"].as_str().expect("a digest");
    let manifest = get(&format!("/v2/{repository}/manifests/{sbom}")).json();
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    get(&format!("/v2/{repository}/blobs/{layer}")).json()
}

#[test]
fn what_is_vulnerable_is_counted_and_found_in_all_projects_which_the_mesh_scans_at_its_times() {
    let mesh = Formed::of(&THREE, SCANS);
    for project in ["library", "shop", "team"] {
        create_project(&mesh.client(0), project, false, 2);
    }
    let advisories = [
        advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 4),
        advisory("libssl3", "CVE-2024-5535", "", 4),
        advisory("zlib1g", "CVE-2023-45853", "", 1),
    ];
    use_database(&mesh, &advisories, 1);
    let bad = debian(&[("openssl", "3.0.11-1~deb12u1"), ("libssl3", "3.0.11-1~deb12u1")]);
    let poor = debian(&[("zlib1g", "1:1.2.13.dfsg-1")]);
    for (repository, image, tag) in [("shop/web", &bad, "1"), ("team/tool", &poor, "old")] {
        let pushed = mesh.repository(0, repository).push(image, tag);
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    let schedule = "/api/v2.0/system/scanAll/schedule";
    let send = |at: usize, method: Method, kind: Value| {
        let answer = mesh.client(at).send_json(method, schedule, &json!({"schedule": kind}));
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    let get = |at: usize, path: &str| {
        let answer = mesh.client(at).get(path);
        answer.unwrap_or_else(|none| panic!("{none}"))
    };

    // now, and the SBOMs with it
    let kept = json!({"auto_sbom_generation": "true"});
    assert_eq!(set(&mesh, "shop", &kept).status, 200);
    assert_eq!(send(1, Method::POST, json!({"type": "Manual"})).status, 201);
    wait::until("all images are scanned", || {
        let stats = get(2, "/api/v2.0/scans/all/metrics").json();
        (stats["metrics"]["Success"] == 2 && stats["ongoing"] == false).then_some(())
    });

    let spdx = sbom_of(&mesh, "shop/web", "1", "application/spdx+json");
    assert_eq!(spdx["spdxVersion"], "SPDX-2.3", "{spdx}");
    let cyclonedx = sbom_of(&mesh, "shop/web", "1", "application/vnd.cyclonedx+json");
    let names = cyclonedx["components"].as_array().into_iter().flatten();
    let names: Vec<&str> = names.filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"openssl") && names.contains(&"libssl3"), "{cyclonedx}");
    let listed = "/api/v2.0/projects/shop/repositories/web/artifacts?with_sbom_overview=true";
    let listed = get(2, listed).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "they are no artifacts of their own");
    assert_eq!(listed[0]["sbom_overview"]["scan_status"], "Success", "{listed}");
    // again changes nothing; of another project they are made when somebody asks
    let referrers = |repository: &str, digest: &str| {
        let found = get(2, &format!("/v2/{repository}/referrers/{digest}")).json();
        found["manifests"].as_array().map_or(0, Vec::len)
    };
    let tool = "/api/v2.0/projects/team/repositories/tool/artifacts/old/scan";
    let sbom = json!({"scan_type": "sbom"});
    assert_eq!(referrers("team/tool", poor.digest()), 0);
    for _ in 0..2 {
        let asked = mesh.client(1).send_json(Method::POST, tool, &sbom);
        let asked = asked.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(asked.status, 202, "{asked}");
        assert_eq!(referrers("team/tool", poor.digest()), 2);
    }
    let printed = atoll(&mesh, "sbom", &["team/tool:old", "--format", "cyclonedx"]);
    assert!(printed.success && printed.out.contains("zlib1g"), "{printed:?}");

    // by a schedule, which each project's primary keeps as its own
    let times = json!({"type": "Custom", "cron": "0 30 4 * * *"});
    assert_eq!(send(1, Method::POST, times.clone()).status, 201);
    assert_eq!(send(2, Method::POST, times).status, 412, "there is one");
    assert_eq!(send(2, Method::POST, json!({"type": "Custom", "cron": "soon"})).status, 400);
    let shown = get(2, schedule).json();
    assert_eq!(shown["schedule"]["cron"], "0 30 4 * * *", "{shown}");
    let scheduled = || {
        let all = get(0, "/api/atoll/v1/schedules").json();
        let all = all.as_array().cloned().unwrap_or_default();
        let of_mesh = all.into_iter().filter(|one| one["name"] == "scan-all");
        of_mesh.map(|one| (one["project"].clone(), one["cron"].clone())).collect::<Vec<_>>()
    };
    let projects = get(0, "/api/v2.0/projects?page_size=100").json();
    let count = projects.as_array().map_or(0, Vec::len);
    wait::until("each project has it", || {
        let all = scheduled();
        (all.len() == count && all.iter().all(|(_, cron)| cron == "0 30 4 * * *")).then_some(())
    });
    create_project(&mesh.client(0), "later", true, 2);
    wait::until("a new one, too", || (scheduled().len() == count + 1).then_some(()));
    assert_eq!(send(0, Method::PUT, json!({"type": "Daily"})).status, 200);
    wait::until("it changes everywhere", || {
        scheduled().iter().all(|(_, cron)| cron == "0 0 0 * * *").then_some(())
    });
    assert_eq!(send(0, Method::PUT, json!({"type": "None"})).status, 200);
    wait::until("it ends everywhere", || scheduled().is_empty().then_some(()));

    // one scanner is built in: clients may say that they want it, and cannot change it
    let scanner = get(1, "/api/v2.0/scanners").json()[0]["uuid"].clone();
    let id = scanner.as_str().expect("a uuid");
    let metadata = get(2, &format!("/api/v2.0/scanners/{id}/metadata")).json();
    assert_eq!(metadata["capabilities"][0]["type"], "vulnerability", "{metadata}");
    let one = format!("/api/v2.0/scanners/{id}");
    let project = "/api/v2.0/projects/shop/scanner";
    for (method, path, body, status) in [
        (Method::PATCH, one.as_str(), json!({"is_default": true}), 200),
        (Method::PATCH, one.as_str(), json!({"is_default": false}), 200),
        (Method::PUT, one.as_str(), json!({"name": "x", "url": "http://x"}), 403),
        (Method::DELETE, one.as_str(), json!({}), 403),
        (Method::PATCH, "/api/v2.0/scanners/other", json!({"is_default": true}), 404),
        (Method::PUT, project, json!({"uuid": scanner}), 200),
        (Method::PUT, project, json!({"uuid": "other"}), 404),
        (Method::POST, "/api/v2.0/scanners/ping", json!({"url": "http://x"}), 400),
    ] {
        let answer = mesh.client(1).send_json(method, path, &body);
        assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, status, "{path} {body}");
    }
    let candidates = get(0, &format!("{project}/candidates")).json();
    assert_eq!(candidates[0]["uuid"], scanner, "{candidates}");

    // what there is in all of them
    let all = "/api/v2.0/security/summary?with_dangerous_cve=true&with_dangerous_artifact=true";
    let summary = get(1, all).json();
    let counts = ["critical_cnt", "low_cnt", "total_vuls", "fixable_cnt", "scanned_cnt"];
    assert_eq!(counts.map(|name| summary[name].as_u64()), [1, 1, 2, 0, 2].map(Some), "{summary}");
    assert_eq!(summary["dangerous_artifacts"][0]["repository_name"], "shop/web", "{summary}");
    let worst = &summary["dangerous_cves"][0];
    assert_eq!(
        (&worst["cve_id"], &worst["package"]),
        (&json!("CVE-2024-5535"), &json!("libssl3, openssl")),
        "{summary}"
    );
    let found = get(2, "/api/v2.0/security/vul?page_size=1");
    assert_eq!(found.header("x-total-count"), Some("2"), "{found}");
    let first = &found.json()[0];
    assert_eq!(
        (&first["cve_id"], &first["tags"]),
        (&json!("CVE-2024-5535"), &json!(["1"])),
        "{found}"
    );
    assert_eq!(first["fixed_version"], "3.0.14-1~deb12u1", "{found}");
    for (q, is) in [
        ("severity=Low", "CVE-2023-45853"),
        ("package=zlib1g", "CVE-2023-45853"),
        ("tag=old", "CVE-2023-45853"),
        ("cve_id=CVE-2024-5535,repository_name=shop/web", "CVE-2024-5535"),
    ] {
        let found = get(0, &format!("/api/v2.0/security/vul?q={q}"));
        assert_eq!(found.json()[0]["cve_id"], is, "{q}: {found}");
        assert_eq!(found.header("x-total-count"), Some("1"), "{q}: {found}");
    }
    assert_eq!(get(0, "/api/v2.0/security/vul?q=colour=red").status, 400);

    // the same of a project, as a table
    let number = get(0, "/api/v2.0/projects/shop").json()["project_id"].clone();
    let export = |at: usize, body: Value, kind: &str| {
        let ask = mesh.client(at).ask(Method::POST, "/api/v2.0/export/cve");
        let ask = ask.header("x-scan-data-type", kind).header("content-type", "application/json");
        ask.body(body.to_string()).send().unwrap_or_else(|none| panic!("{none}"))
    };
    let of_all = json!({"projects": [number], "job_name": "all"});
    for (wrong, kind) in [
        (of_all.clone(), "text/csv"),
        (json!({"projects": []}), scans::REPORT),
        (json!({"projects": [number], "tags": "a b"}), scans::REPORT),
    ] {
        let refused = export(0, wrong, kind);
        assert_eq!(refused.status, 400, "{refused}");
    }
    let table = |order: Value| {
        let begun = export(1, order, scans::REPORT);
        assert_eq!(begun.status, 200, "{begun}");
        let id = begun.json()["id"].clone();
        wait::until("it is there", || {
            let one = get(2, &format!("/api/v2.0/export/cve/execution/{id}")).json();
            (one["status"] == "Success" && one["file_present"] == true).then_some(())
        });
        // at another node than it was asked for, and again
        let path = format!("/api/v2.0/export/cve/download/{id}?format=csv");
        let first = get(0, &path);
        assert_eq!(first.header("content-type"), Some("text/csv; charset=utf-8"), "{first}");
        let name = format!("attachment; filename=\"scandata_export_{id}.csv\"");
        assert_eq!(first.header("content-disposition"), Some(name.as_str()), "{first}");
        assert_eq!(get(2, &path).body, first.body, "it may be downloaded again");
        let text = String::from_utf8(first.body.to_vec()).expect("text");
        (id, text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (id, rows) = table(of_all);
    assert!(rows[0].starts_with("RowId,Scanner,Repository,Artifact Digest,CVE,"), "{rows:?}");
    let of_openssl = rows.iter().filter(|row| row.contains(",CVE-2024-5535,")).count();
    assert!(rows.len() == 3 && of_openssl == 2, "of both packages: {rows:?}");
    assert!(rows[1].starts_with("1,Atoll,shop/web,sha256:"), "{rows:?}");
    for (field, pattern, count) in [
        ("repositories", "web", 3),
        ("repositories", "other/**", 1),
        ("tags", "1", 3),
        ("tags", "2*", 1),
        ("cveIds", "CVE-2024-5535", 3),
        ("cveIds", "CVE-2023-45853", 1),
    ] {
        let (_, rows) = table(json!({"projects": [number], field: pattern}));
        assert_eq!(rows.len(), count, "{field} {pattern}: {rows:?}");
    }
    let own = get(1, "/api/v2.0/export/cve/executions").json();
    let listed = own["items"].as_array().expect("a list");
    assert!(listed.len() == 7 && listed[6]["id"] == id, "the newest first: {own}");
    // it is nobody else's, and who may not export a project is not told of it
    let (reader, maintainer) = ("reader-of-exports", "maintainer-of-exports");
    for (name, role) in [(reader, 3), (maintainer, 4)] {
        create_user(&mesh.client(0), name);
        add_member(&mesh.client(0), "shop", name, role);
        let theirs = mesh.members()[1].anyone().basic(name, PASSWORD);
        let path = format!("/api/v2.0/export/cve/download/{id}");
        let refused = theirs.get(&path).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(refused.status, 404, "{name}: {refused}");
        let ask = theirs.ask(Method::POST, "/api/v2.0/export/cve");
        let ask = ask.header("x-scan-data-type", scans::REPORT);
        let ask = ask.header("content-type", "application/json");
        let asked = ask.body(json!({"projects": [number]}).to_string()).send();
        let asked = asked.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(asked.status, if role == 4 { 200 } else { 403 }, "{name}: {asked}");
    }

    // the SBOMs go with their image
    let found = get(0, &format!("/v2/team/tool/referrers/{}", poor.digest())).json();
    let sbom = found["manifests"][0]["digest"].as_str().expect("a digest").to_owned();
    let path = "/api/v2.0/projects/team/repositories/tool/artifacts/old";
    let deleted = mesh.client(0).ask(Method::DELETE, path).send();
    assert_eq!(deleted.unwrap_or_else(|none| panic!("{none}")).status, 200);
    assert_eq!(get(1, &format!("/v2/team/tool/manifests/{sbom}")).status, 404);
}
