//! The program trivy itself, started by nodes, finds what the built-in scanner finds in the same image with
//! the same database. Only `tests/run --trivy` plays this: trivy takes minutes to build.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};
use tests::formed::{Formed, loopback};
use tests::http::Answer;
use tests::image::{Blob, Image, archive};
use tests::people::must;
use tests::process::Running;
use tests::repository::create_project;
use tests::scans::{self, advisory, debian, use_database};
use tests::{tools, vulnerabilities, wait};

fn get(mesh: &Formed, path: &str) -> Answer {
    mesh.client(0).get(path).unwrap_or_else(|none| panic!("{none}"))
}

fn artifact(project: &str, image: &Image) -> String {
    format!("/api/v2.0/projects/{project}/repositories/web/artifacts/{}", image.digest())
}

/// Has an image scanned; the overview at the end.
fn scanned(mesh: &Formed, project: &str, image: &Image) -> Value {
    let overview = || scans::overview(mesh, 0, &format!("{project}/web"), image);
    let number = |one: Option<Value>| one.map(|one| one["report_id"].clone());
    let before = number(overview());
    let path = format!("{}/scan", artifact(project, image));
    let asked = mesh.client(0).ask(Method::POST, &path).send();
    assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 202);
    wait::until("the scan ends", || {
        let now = overview()?;
        let ended = now["scan_status"] == "Success" || now["scan_status"] == "Error";
        (ended && number(Some(now.clone())) != before).then_some(now)
    })
}

/// What was found: id, package, version, fix and severity.
fn found(mesh: &Formed, project: &str, image: &Image) -> BTreeSet<[String; 5]> {
    let path = format!("{}/additions/vulnerabilities", artifact(project, image));
    let report = get(mesh, &path).json()[scans::REPORT].clone();
    let all = report["vulnerabilities"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    all.iter()
        .map(|one| ["id", "package", "version", "fix_version", "severity"].map(|f| text(one, f)))
        .collect()
}

#[test]
fn it_finds_what_the_built_in_scanner_finds_by_itself_and_with_a_server() {
    let program = tools::built_by_go("trivy");
    let program = program.get_program().to_string_lossy().into_owned();
    let advisories = [
        advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 4),
        advisory("zlib1g", "CVE-2023-45853", "", 2),
        advisory("bash", "CVE-2020-0001", "5.0-1", 3),
    ];

    // a server with the same database
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("cache/db");
    fs::create_dir_all(&database).expect("a folder");
    let (bolt, about) =
        vulnerabilities::files(&advisories, "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z");
    fs::write(database.join("trivy.db"), bolt).expect("a file");
    fs::write(database.join("metadata.json"), about).expect("a file");
    let token = folder.path().join("token");
    fs::write(&token, "a-long-word\n").expect("a file");
    let address = loopback().http;
    let mut server = Command::new(&program);
    server.args(["server", "--listen", &address, "--token", "a-long-word", "--skip-db-update"]);
    server.arg("--cache-dir").arg(folder.path().join("cache"));
    server.env("TRIVY_SKIP_VERSION_CHECK", "true").env("TRIVY_DISABLE_TELEMETRY", "true");
    let _server = Running::start(&mut server, &folder.path().join("log"));

    let settings = |more: &str| {
        format!(
            "scan:\n  database: 'library/trivy-db:2'\n  trivy: {{program: '{program}'{more}}}\n"
        )
    };
    let mut mesh = Formed::of(&[("one", "us-east-1"), ("two", "us-west-2")], &settings(""));
    let more = format!(", server: 'http://{address}', token_file: '{}'", token.display());
    let third = mesh.prepare("three", "eu-central-1", &settings(&more));
    third.must_join(&mesh.members()[0].invite());
    third.serve();
    third.wait_ready();
    mesh.add(third);
    create_project(&mesh.client(0), "library", true, 2);
    for (at, project) in [(0, "native"), (0, "alone"), (2, "served")] {
        create_project(&mesh.client(at), project, true, 2);
    }
    use_database(&mesh, &advisories, 1);
    let scanner = json!({"name": "trivy", "url": "program:trivy"});
    must(&mesh.client(0), Method::POST, "/api/v2.0/scanners/ping", &scanner, 200);
    let made = must(&mesh.client(0), Method::POST, "/api/v2.0/scanners", &scanner, 201);
    let uuid = made.header("location").and_then(|place| place.rsplit('/').next());
    let choice = json!({"uuid": uuid.expect("a number")});
    for project in ["alone", "served"] {
        let path = format!("/api/v2.0/projects/{project}/scanner");
        must(&mesh.client(0), Method::PUT, &path, &choice, 200);
    }

    let packages = [
        ("openssl", "3.0.11-1~deb12u1"),
        ("zlib1g", "1:1.2.13.dfsg-1"),
        ("bash", "5.2-1"),
        ("own", "1"),
    ];
    let image = debian(&packages);
    let status = b"Package: openssl\nStatus: install ok installed\nVersion: 1.1.0-1\n\n";
    let ended: [(&str, &[u8]); 3] = [
        ("etc/os-release", b"ID=debian\nVERSION_ID=\"9\"\n"),
        ("etc/debian_version", b"9.13\n"),
        ("var/lib/dpkg/status", status),
    ];
    let ended = Image::of_layers(vec![Blob::of(archive(&ended))]);
    // an empty archive
    let jar = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let jar = Image::of_layers(vec![Blob::of(archive(&[("app/a.jar", jar)]))]);
    for project in ["native", "alone", "served"] {
        for (tag, one) in [("1", &image), ("2", &ended), ("3", &jar)] {
            let repository = mesh.repository(0, &format!("{project}/web"));
            wait::until_ok("it is pushed", || repository.push(one, tag));
        }
    }
    for project in ["native", "alone", "served"] {
        let overview = scanned(&mesh, project, &image);
        assert_eq!(overview["scan_status"], "Success", "{project}: {overview}");
        assert_eq!(overview["insufficient"], Value::Null, "{project}: {overview}");
        let old = scanned(&mesh, project, &ended);
        assert_eq!(old["scan_status"], "Success", "{project}: {old}");
        let why = old["insufficient"].as_str().unwrap_or_default();
        assert!(why.contains("has ended"), "{project}: {old}");
    }
    let native = found(&mesh, "native", &image);
    assert_eq!(native.len(), 2, "{native:?}");
    for project in ["alone", "served"] {
        assert_eq!(found(&mesh, project, &image), native, "{project}");
        let without = scanned(&mesh, project, &jar);
        let why = without["error"].as_str().unwrap_or_default();
        let says = without["scan_status"] == "Error" && why.contains("scan.trivy.java_database");
        assert!(says, "{project}: {without}");
    }

    // a server believes what it is told of layers, so what lies is not told
    let [.., layer] = &image.blobs[..] else { panic!("a layer") };
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [tests::image::digest(b"another")]}});
    let blobs = vec![Blob::of(config.to_string()), layer.clone()];
    let manifest = tests::image::manifest_of(&blobs).to_string();
    let lies = Image { manifest: Blob::of(manifest), blobs };
    mesh.repository(0, "served/web").push(&lies, "4").unwrap_or_else(|no| panic!("{no}"));
    let refused = scanned(&mesh, "served", &lies);
    let why = refused["error"].as_str().unwrap_or_default();
    assert!(why.contains("says something else of layer"), "{refused}");
}
