//! Images are scanned by the program trivy, which each primary starts by itself, with the database of
//! the mesh. What it writes is bounded, it is ended with all that it has started, and a node without it
//! says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Answer;
use tests::image::{Blob, Image, archive, manifest_of};
use tests::people::must;
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::scans::{self, SCANS, advisory, debian, use_database};
use tests::wait;

/// What stands for trivy: it says a version, looks whether it was given what trivy needs, and does as
/// `manner` beside it says.
const PROGRAM: &str = r#"#!/bin/sh
export PATH=/usr/bin:/bin
here=HERE
if [ "$1" = version ]; then
  echo '{"Version": "0.74.0", "VulnerabilityDB": {"Version": 2}}'
  exit 0
fi
printf '%s\n' "$*" "$(env | grep -c -i ^atoll)" > "$here/arguments"
fail() { echo "FATAL Fatal error: $*" >&2; exit 1; }
[ "$1" = image ] || fail "no image"
[ -s cache/db/trivy.db ] && [ -s cache/db/metadata.json ] || fail "no database"
[ -d temporary ] && [ "$TMPDIR" = temporary ] || fail "no temporary folder"
grep -q imageLayoutVersion layout/oci-layout || fail "no layout"
for blob in layout/blobs/sha256/*; do
  [ ! -L "$blob" ] || fail "$blob is a symlink"
  [ "$(sha256sum < "$blob" | cut -d' ' -f1)" = "${blob##*/}" ] || fail "$blob is another blob"
done
grep -q '"digest"' layout/index.json || fail "no index"
case $(cat "$here/manner") in
  reports) cat "$here/report" ;;
  fails) fail "'--skip-java-db-update' cannot be specified on the first run: Java DB" ;;
  long) yes '{"SchemaVersion": 2, "Results": []}' ;;
  waits) sleep 7777 & echo $! > "$here/child"; echo $$ > "$here/parent"; wait ;;
esac
"#;

struct Program(PathBuf);

impl Program {
    fn write(folder: &Path) -> Self {
        let here = folder.join("trivy-of-tests");
        fs::create_dir_all(&here).expect("a folder");
        let program = Program(here);
        let text = PROGRAM.replace("HERE", &program.0.display().to_string());
        fs::write(program.path(), text).expect("a file");
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        program
    }

    fn path(&self) -> PathBuf {
        self.0.join("trivy")
    }

    fn does(&self, manner: &str) {
        fs::write(self.0.join("manner"), manner).expect("a file");
    }

    fn reports(&self, report: &Value) {
        fs::write(self.0.join("report"), report.to_string()).expect("a file");
        self.does("reports");
    }

    fn said(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok().filter(|text| text.ends_with('\n'))
    }
}

fn report(results: &Value) -> Value {
    json!({
        "SchemaVersion": 2,
        "Metadata": {"OS": {"Family": "debian", "Name": "12.5"}},
        "Results": [{"Class": "os-pkgs", "Target": "debian", "Vulnerabilities": results}],
    })
}

fn get(mesh: &Formed, at: usize, path: &str) -> Answer {
    mesh.client(at).get(path).unwrap_or_else(|none| panic!("{none}"))
}

fn atoll(mesh: &Formed, arguments: &[&str]) -> Finished {
    let url = format!("http://{}", mesh.members()[0].place().http);
    let password = mesh.folder().join("password-for-programs");
    fs::write(&password, mesh.password()).expect("a file");
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut command = mesh.members()[0].atoll(verb);
    command.args(rest).args(["--url", &url, "--password-file"]);
    process::finish(command.arg(password))
}

fn artifact(project: &str, image: &Image) -> String {
    format!("/api/v2.0/projects/{project}/repositories/web/artifacts/{}", image.digest())
}

fn ask(mesh: &Formed, project: &str, image: &Image) {
    let path = format!("{}/scan", artifact(project, image));
    let asked = mesh.client(0).ask(Method::POST, &path).send();
    assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 202);
}

/// Waits for the end of the scan that is asked for now: its status, and its log.
fn scanned(mesh: &Formed, project: &str, image: &Image) -> (String, String) {
    let shown = |of: &str| scans::overview(mesh, 0, &format!("{of}/web"), image);
    let number = |one: &Value| one["report_id"].as_str().map(str::to_owned);
    let before = shown(project).as_ref().and_then(number);
    ask(mesh, project, image);
    let after = wait::until("the scan ends", || {
        let after = shown(project)?;
        let ended = ["Success", "Error", "Stopped"].iter().any(|one| after["scan_status"] == *one);
        (ended && number(&after) != before).then_some(after)
    });
    let number = number(&after).expect("a number");
    let log = get(mesh, 0, &format!("{}/scan/{number}/log", artifact(project, image)));
    (after["scan_status"].as_str().unwrap_or_default().to_owned(), log.to_string())
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

#[test]
fn the_program_is_started_for_those_who_have_chosen_it_and_is_kept_within_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Program::write(folder.path());
    let settings = format!(
        "scan:\n  database: 'library/trivy-db:2'\n  trivy: {{program: '{}'}}\n",
        program.path().display()
    );
    let mut mesh = Formed::of(&[("one", "us-east-1"), ("two", "us-west-2")], &settings);
    let bare = mesh.prepare("three", "eu-central-1", SCANS);
    bare.must_join(&mesh.members()[0].invite());
    bare.serve();
    bare.wait_ready();
    mesh.add(bare);
    create_project(&mesh.client(0), "library", true, 2);
    create_project(&mesh.client(0), "shop", true, 2);
    create_project(&mesh.client(2), "bare", true, 2);
    use_database(&mesh, &[advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 3)], 1);

    // it is a scanner like others
    program.reports(&report(&json!([])));
    let added = atoll(&mesh, &["scanner", "add", "trivy", "program:trivy"]);
    assert!(added.success, "{added:?}");
    let listed = get(&mesh, 0, "/api/v2.0/scanners").json();
    let one = listed.as_array().expect("a list").iter().find(|one| one["name"] == "trivy");
    let one = one.unwrap_or_else(|| panic!("{listed}"));
    assert_eq!((&one["health"], &one["version"]), (&json!("healthy"), &json!("0.74.0")), "{one}");
    assert_eq!(one["database"]["updated_at"], "2026-01-01T00:00:00Z", "{one}");
    let elsewhere = get(&mesh, 2, "/api/v2.0/scanners").json();
    let there = elsewhere.as_array().expect("a list").iter().find(|one| one["name"] == "trivy");
    let problem = there.expect("it is there")["problem"].as_str().unwrap_or_default().to_owned();
    assert!(problem.contains("node three has no program trivy"), "{problem}");
    let table = atoll(&mesh, &["scanner", "list"]);
    assert!(table.success && table.out.contains("program:trivy"), "{table:?}");

    for project in ["shop", "bare"] {
        let chosen = atoll(&mesh, &["scanner", "use", "trivy", "--project", project]);
        assert!(chosen.success, "{chosen:?}");
        let policy = json!({"metadata": {"prevent_vul": "true", "severity": "high"}});
        let path = format!("/api/v2.0/projects/{project}");
        must(&mesh.client(0), Method::PUT, &path, &policy, 200);
    }
    let image = debian(&[("openssl", "3.0.11-1~deb12u1")]);
    for (at, project) in [(0, "shop/web"), (2, "bare/web")] {
        let pushed = mesh.repository(at, project).push(&image, "1");
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }

    // what it says is what counts, and not what the built-in one would say
    let found = json!([{
        "VulnerabilityID": "CVE-2031-0001", "PkgName": "openssl", "InstalledVersion": "1",
        "Severity": "CRITICAL", "Description": "a text", "FixedVersion": "2",
    }]);
    program.reports(&report(&found));
    let (status, log) = scanned(&mesh, "shop", &image);
    assert!(status == "Success" && log.contains("matched with the database sha256:"), "{log}");
    let shown = get(&mesh, 1, &format!("{}/additions/vulnerabilities", artifact("shop", &image)));
    let shown = shown.json()[scans::REPORT].clone();
    assert_eq!(shown["scanner"]["name"], "Trivy", "{shown}");
    assert_eq!(shown["vulnerabilities"][0]["id"], "CVE-2031-0001", "{shown}");
    for at in 0..3 {
        let path = format!("/v2/shop/web/manifests/{}", image.digest());
        wait::until("it is refused", || (get(&mesh, at, &path).status == 412).then_some(()));
    }
    let arguments = program.said("arguments").expect("it was started");
    assert!(arguments.contains("--input layout --cache-dir cache"), "{arguments}");
    assert!(arguments.contains("--cache-backend memory"), "{arguments}");
    assert!(arguments.ends_with("\n0\n"), "nothing of the node's environment: {arguments}");

    // what it cannot do is said, with what would help
    program.does("fails");
    let (status, log) = scanned(&mesh, "shop", &image);
    assert!(status == "Error" && log.contains("scan.trivy.java_database"), "{log}");
    assert!(log.contains("Java DB"), "its own words: {log}");
    let (status, log) = scanned(&mesh, "bare", &image);
    assert!(status == "Error" && log.contains("node three has no program trivy"), "{log}");
    assert!(log.contains("scan.trivy.program"), "{log}");
    program.does("long");
    let (status, log) = scanned(&mesh, "shop", &image);
    assert!(status == "Error" && log.contains("it has written more than 33554432 bytes"), "{log}");
    program.reports(&json!({"SchemaVersion": 3}));
    let (status, log) = scanned(&mesh, "shop", &image);
    assert!(status == "Error" && log.contains("the schema 3"), "{log}");

    // an image that lists other layers in its configuration than in its manifest is not looked into
    let layer = Blob::of(archive(&[("a", b"b")]));
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": []}});
    let blobs = vec![Blob::of(config.to_string()), layer];
    let hides = Image { manifest: Blob::of(manifest_of(&blobs).to_string()), blobs };
    let pushed = mesh.repository(0, "shop/web").push(&hides, "2");
    pushed.unwrap_or_else(|no| panic!("{no}"));
    program.reports(&report(&json!([])));
    let (status, log) = scanned(&mesh, "shop", &hides);
    assert!(status == "Error" && log.contains("its manifest has 1 layers"), "{log}");

    // stopped, it ends with what it has started, and leaves nothing
    program.does("waits");
    ask(&mesh, "shop", &image);
    let child = wait::until("it runs", || program.said("child").filter(|pid| runs(pid)));
    let parent = wait::until("it says its number", || program.said("parent"));
    let stop = format!("{}/scan/stop", artifact("shop", &image));
    let stopped = mesh.client(0).ask(Method::POST, &stop).send();
    assert_eq!(stopped.unwrap_or_else(|none| panic!("{none}")).status, 202);
    wait::until("both end", || (!runs(&child) && !runs(&parent)).then_some(()));
    let leftovers = mesh.members()[0].data().join("trivy");
    wait::until("no folder is left", || {
        let left = fs::read_dir(&leftovers).map(|all| all.count()).unwrap_or_default();
        (left == 0).then_some(())
    });

    // a program that is gone is said, too
    fs::remove_file(program.path()).expect("it is there");
    let (status, log) = scanned(&mesh, "shop", &image);
    assert!(status == "Error" && log.contains("cannot be started"), "{log}");
}
