//! Images are scanned by another scanner over Harbor's API for them, and what it finds is enforced at
//! every replica and edge. A scanner gets the image that it scans, and nothing else; one that lies or
//! dies ends in a scan that says so.

use std::net::Ipv4Addr;

use http::Method;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Blob, INDEX, Image};
use tests::people::{must, token_answer};
use tests::ports::reserve;
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::scanner::{Adapter, Liar, Manner, REPORT};
use tests::scans::{advisory, debian, use_database};
use tests::vulnerabilities;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
/// Scanners are on this machine.
const SETTINGS: &str = "upstreams: {allow_loopback: true}\n";

fn get(client: &Client, path: &str) -> Answer {
    client.get(path).unwrap_or_else(|none| panic!("{none}"))
}

fn atoll(mesh: &Formed, arguments: &[&str]) -> Finished {
    let url = format!("http://{}", mesh.members()[1].place().http);
    let password = mesh.folder().join("password-for-scanners");
    std::fs::write(&password, mesh.password()).expect("a file");
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut command = mesh.members()[0].atoll(verb);
    command.args(rest).args(["--url", &url, "--password-file"]);
    process::finish(command.arg(password))
}

fn artifact(repository: &str, reference: &str) -> String {
    let (project, name) = repository.split_once('/').expect("a project and a name");
    format!("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}")
}

fn overview(mesh: &Formed, image: &Image) -> Value {
    let path = format!("{}?with_scan_overview=true", artifact("shop/web", image.digest()));
    let shown = get(&mesh.client(1), &path).json();
    shown["scan_overview"][REPORT].clone()
}

fn ask(mesh: &Formed, reference: &str) {
    let path = format!("{}/scan", artifact("shop/web", reference));
    let asked = mesh.client(2).ask(Method::POST, &path).send();
    let asked = asked.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(asked.status, 202, "{asked}");
}

/// What a node answers to a pull by digest.
fn pull(mesh: &Formed, at: usize, image: &Image) -> Result<(), String> {
    let path = format!("/v2/shop/web/manifests/{}", image.digest());
    let answer = get(&mesh.client(at), &path);
    if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
}

fn is_refused(mesh: &Formed, at: usize, image: &Image, why: &str) -> Result<(), String> {
    match pull(mesh, at, image) {
        Ok(()) => Err("it is served".into()),
        Err(said) if said.contains("PROJECTPOLICYVIOLATION") && said.contains(why) => Ok(()),
        Err(said) => Err(said),
    }
}

fn register(mesh: &Formed, name: &str, url: &str) -> String {
    let body = json!({"name": name, "url": url});
    let made = must(&mesh.client(0), Method::POST, "/api/v2.0/scanners", &body, 201);
    let place = made.header("location").expect("a place").to_owned();
    place.rsplit('/').next().expect("a number").to_owned()
}

#[test]
fn what_another_scanner_finds_is_refused_at_every_node_until_it_is_mended() {
    let mut mesh = Formed::of(&THREE, SETTINGS);
    // long, so that it learns of each change only because it is told
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "shop", true, 2);
    let policy = json!({"auto_scan": "true", "prevent_vul": "true", "severity": "high"});
    let change = json!({"metadata": policy});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/shop", &change, 200);
    let found = [
        advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 3),
        advisory("zlib1g", "CVE-2023-45853", "", 1),
    ];
    let database =
        vulnerabilities::database_of(&found, "2026-01-01T00:00:00Z", "2126-01-01T00:00:00Z");
    let secrets = mesh.folder().join("secrets");
    std::fs::write(&secrets, "# of the mesh\nbearer a-long-word\n").expect("a file");
    let secrets = secrets.display().to_string();
    let more = ["--authorization", &secrets, "--allow-loopback"];
    let mut adapter = Adapter::start(mesh.folder(), &database, &more);

    // the other side of the API, as any registry sees it
    let bare = get(&Client::of(&adapter.url()), "/api/v1/metadata");
    assert_eq!(bare.status, 401, "{bare}");
    let known = Client::of(&adapter.url()).bearer("a-long-word");
    let metadata = get(&known, "/api/v1/metadata").json();
    let updated = "harbor.scanner-adapter/vulnerability-database-updated-at";
    assert_eq!(metadata["properties"][updated], "2026-01-01T00:00:00Z", "{metadata}");
    let send = |body: &Value| {
        let answer = known.send_json(Method::POST, "/api/v1/scan", body);
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    assert_eq!(send(&json!({"artifact": 7})).status, 400);
    let index = json!({
        "registry": {"url": "http://127.0.0.1:1", "authorization": ""},
        "artifact": {"repository": "a/b", "digest": tests::image::digest(b"x"), "mime_type": INDEX},
    });
    assert_eq!(send(&index).status, 422);
    assert_eq!(get(&known, &format!("/api/v1/scan/{}/report", "0".repeat(32))).status, 404);

    // a wrong word is told before anything is registered
    let word = mesh.folder().join("word");
    std::fs::write(&word, "another-word\n").expect("a file");
    let (word_file, url) = (word.display().to_string(), adapter.url());
    let add = ["scanner", "add", "ours", &url, "--auth", "bearer", "--credential-file", &word_file];
    let refused = atoll(&mesh, &add);
    let said = "does not take the credentials";
    assert!(!refused.success && refused.err.contains(said), "{refused:?}");
    std::fs::write(&word, "a-long-word\n").expect("a file");
    let added = atoll(&mesh, &add);
    assert!(added.success, "{added:?}");
    let again = atoll(&mesh, &add);
    assert!(!again.success && again.err.contains("already"), "{again:?}");
    let listed = get(&mesh.client(2), "/api/v2.0/scanners");
    assert!(!listed.to_string().contains("a-long-word"), "{listed}");
    let listed = listed.json();
    let ours = listed.as_array().expect("a list").iter().find(|one| one["name"] == "ours");
    let ours = ours.unwrap_or_else(|| panic!("{listed}"));
    assert_eq!((&ours["health"], &ours["is_default"]), (&json!("healthy"), &json!(false)));
    let pinged = atoll(&mesh, &["scanner", "ping", "ours"]);
    assert!(pinged.success && pinged.out.contains("ours is well: Atoll"), "{pinged:?}");

    let web = mesh.repository(0, "shop/web");
    let bad = debian(&[("openssl", "3.0.11-1~deb12u1"), ("zlib1g", "1:1.2.13.dfsg-1")]);
    web.push(&bad, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        let served = pull(&mesh, at, &bad);
        assert_eq!(served, Ok(()), "nothing is scanned in this mesh yet, at {at}");
    }
    // without a database, and for all projects at once
    let set = atoll(&mesh, &["scanner", "set-default", "ours"]);
    assert!(set.success, "{set:?}");
    let report = wait::until("the push is scanned", || {
        Some(overview(&mesh, &bad)).filter(|one| one["scan_status"] == "Success")
    });
    assert_eq!((&report["severity"], &report["stale"]), (&json!("High"), &json!(false)));
    assert_eq!(
        (&report["summary"]["total"], &report["summary"]["fixable"]),
        (&json!(2), &json!(1))
    );
    let counted = "current image with 1 vulnerabilities cannot be pulled";
    for at in 0..=edge {
        wait::until_ok("it is refused", || is_refused(&mesh, at, &bad, counted));
    }
    let texts =
        get(&mesh.client(2), &format!("{}/additions/vulnerabilities", artifact("shop/web", "1")));
    let texts = texts.json();
    let report = &texts[REPORT];
    assert_eq!(report["scanner"]["vendor"], "Atoll", "{report}");
    assert_eq!(report["database"]["updated_at"], "2026-01-01T00:00:00Z", "{report}");
    let all = report["vulnerabilities"].as_array().expect("a list");
    let one = all.iter().find(|one| one["id"] == "CVE-2024-5535").expect("it is there");
    assert_eq!(one["fix_version"], "3.0.14-1~deb12u1", "{one}");
    assert_eq!(one["description"], "openssl has a fault.", "{one}");
    let shown = atoll(&mesh, &["vulnerabilities", "shop/web:1", "--fail-on", "high"]);
    assert!(!shown.success && shown.out.contains("CVE-2024-5535"), "{shown:?}");

    // what is mended is served, at each node
    let fine = debian(&[("openssl", "3.0.14-1~deb12u1")]);
    web.push(&fine, "2").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        wait::until_ok("it is served", || pull(&mesh, at, &fine));
    }

    // an index, image by image
    let other = debian(&[("openssl", "3.0.11-1~deb12u1"), ("own", "1")]);
    for (image, tag) in [(&other, "3"), (&fine, "2")] {
        web.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let entries: Vec<Value> = [&other, &fine]
        .iter()
        .map(|image| {
            json!({
                "mediaType": tests::image::MANIFEST,
                "digest": image.digest(),
                "size": image.manifest.bytes.len(),
            })
        })
        .collect();
    let both = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let both = Blob::of(both.to_string());
    web.put_bytes("both", INDEX, both.bytes).unwrap_or_else(|no| panic!("{no}"));
    ask(&mesh, "both");
    wait::until("both are scanned", || {
        let path = format!("{}?with_scan_overview=true", artifact("shop/web", "both"));
        let shown = get(&mesh.client(1), &path).json();
        let merged = &shown["scan_overview"][REPORT];
        (merged["scan_status"] == "Success" && merged["severity"] == "High").then_some(())
    });

    // it dies in the middle, and the next try is at its successor
    adapter.stop();
    let before = overview(&mesh, &fine)["report_id"].clone();
    ask(&mesh, "2");
    wait::until("the scan has failed once, and is tried again", || {
        let status = overview(&mesh, &fine)["scan_status"].clone();
        (status == "Pending" || status == "Running").then_some(())
    });
    for at in 0..=edge {
        assert_eq!(pull(&mesh, at, &fine), Ok(()), "the last report counts meanwhile");
    }
    adapter.again();
    let after = wait::until("the next try has a report", || {
        Some(overview(&mesh, &fine))
            .filter(|one| one["scan_status"] == "Success" && one["report_id"] != before)
    });
    assert_eq!(after["severity"], "None", "{after}");

    // one who is registered can be changed, chosen and removed; who is built in cannot
    let id = ours["uuid"].as_str().expect("a number");
    let path = format!("/api/v2.0/scanners/{id}");
    let renamed = json!({"name": "theirs", "url": adapter.url(), "auth": "Bearer"});
    must(&mesh.client(0), Method::PUT, &path, &renamed, 200);
    let moved = json!({"name": "theirs", "url": "http://127.0.0.1:1", "auth": "Bearer"});
    let refused = must(&mesh.client(0), Method::PUT, &path, &moved, 400);
    assert!(refused.to_string().contains("access_credential is needed"), "{refused}");
    let native = listed[0]["uuid"].as_str().expect("a number");
    let path_of_native = format!("/api/v2.0/scanners/{native}");
    let refused = mesh.client(0).ask(Method::DELETE, &path_of_native).send();
    assert_eq!(refused.unwrap_or_else(|none| panic!("{none}")).status, 403);
    let chosen = atoll(&mesh, &["scanner", "use", "Atoll", "--project", "shop"]);
    assert!(chosen.success, "{chosen:?}");
    let of_project = get(&mesh.client(0), "/api/v2.0/projects/shop/scanner").json();
    assert_eq!(of_project["uuid"], native, "{of_project}");
    let chosen = atoll(&mesh, &["scanner", "use", "theirs", "--project", "shop"]);
    assert!(chosen.success, "{chosen:?}");
    // the choice is no entry that whoever may change metadata can take out
    let entry = "/api/v2.0/projects/shop/metadatas/scanner";
    must(&mesh.client(0), Method::DELETE, entry, &Value::Null, 404);
    let still = get(&mesh.client(0), "/api/v2.0/projects/shop/scanner").json();
    assert_eq!(still["name"], "theirs", "{still}");
    let split = json!({"name": "split", "url": "https://scanner.example", "auth": "Bearer",
        "access_credential": "a\r\nX-More: b"});
    must(&mesh.client(0), Method::POST, "/api/v2.0/scanners", &split, 400);
    let asks = atoll(&mesh, &["scanner", "remove", "theirs"]);
    assert!(!asks.success && asks.err.contains("--yes"), "a project has chosen it: {asks:?}");
    let removed = atoll(&mesh, &["scanner", "remove", "theirs", "--yes"]);
    assert!(removed.success, "{removed:?}");
    let of_project = get(&mesh.client(0), "/api/v2.0/projects/shop/scanner").json();
    assert_eq!(of_project["uuid"], native, "what is gone is no choice: {of_project}");
    let events = get(&mesh.client(0), "/api/v2.0/auditlog-exts?page_size=100").to_string();
    assert!(events.contains("theirs") && events.contains("scanner"), "{events}");
}

#[test]
fn a_scanner_that_lies_ends_in_an_error_and_reads_no_more_than_it_scans() {
    let settings = format!("{SETTINGS}scan: {{timeout: 20s}}\n");
    let mut mesh = Formed::of(&THREE, &settings);
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "shop", false, 2);
    let change = json!({"metadata": {"prevent_vul": "true", "severity": "high"}});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/shop", &change, 200);
    let high = json!([{"id": "CVE-2024-0001", "package": "p", "version": "1", "severity": "High"}]);
    let liar = Liar::start(Manner::Reports(high.clone()));
    let id = register(&mesh, "liar", &liar.url());
    let chosen = json!({"uuid": id});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/shop/scanner", &chosen, 200);
    let [image, other] = [Image::tiny(), Image::tiny()];
    let web = mesh.repository(0, "shop/web");
    for (one, tag) in [(&image, "1"), (&other, "2")] {
        web.push(one, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    mesh.repository(0, "shop/else").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));

    // what it says is believed in one thing: what it has found
    ask(&mesh, "1");
    let found = wait::until("it has reported", || {
        Some(overview(&mesh, &image)).filter(|one| one["scan_status"] == "Success")
    });
    assert_eq!((&found["severity"], &found["scanner"]["name"]), (&json!("High"), &json!("Liar")));
    wait::until_ok("it is refused", || is_refused(&mesh, edge, &image, "1 vulnerabilities"));

    // somewhere that nobody may be sent to
    let elsewhere = Liar::start(Manner::Reports(json!([])));
    let lies = [
        (Manner::OtherImage, "its report is about another artifact"),
        (Manner::Long((32 << 20) + 1), "has sent more than 33554432 bytes"),
        (
            Manner::Redirects(format!("{}/api/v1/scan", elsewhere.url())),
            "redirects of scanners are not followed",
        ),
        (
            Manner::Redirects("http://169.254.169.254/latest".into()),
            "redirects of scanners are not followed",
        ),
        (Manner::Fails("out of coffee".into()), "out of coffee"),
        (Manner::Number("../../metadata".into()), "the number that it gave a scan cannot be used"),
        (Manner::Reports(json!([{"id": ""}])), "the id of a vulnerability"),
        (Manner::NeverReady, "it had no report after 20 s"),
    ];
    for (manner, said) in lies {
        let name = format!("{manner:?}");
        liar.behave(manner);
        ask(&mesh, "1");
        wait::until_ok("the scan has failed, and says why", || {
            let shown = overview(&mesh, &image);
            let why = shown["error"].as_str().unwrap_or_default();
            match shown["scan_status"] == "Error" && why.contains(said) {
                true => Ok(()),
                false => Err(format!("{name}: {shown}")),
            }
        });
        let still = is_refused(&mesh, 1, &image, "1 vulnerabilities");
        assert_eq!(still, Ok(()), "{name}: the last report counts");
    }
    assert!(elsewhere.asked().is_empty(), "nobody was sent there");

    // what it may read: the image, although its project refuses it to everybody else
    liar.behave(Manner::NeverReady);
    let before = liar.asked().len();
    ask(&mesh, "1");
    wait::until("it is asked", || (liar.asked().len() > before).then_some(()));
    let request = liar.asked().pop().expect("it was asked");
    assert_eq!(request["artifact"]["digest"], image.digest(), "{request}");
    assert_eq!(request["artifact"]["repository"], "shop/web", "{request}");
    let (name, pass) = liar.told();
    let status = |client: &Client, path: &str| get(client, path).status;
    let by_digest = format!("/v2/shop/web/manifests/{}", image.digest());
    let blob = format!("/v2/shop/web/blobs/{}", image.blobs[0].digest);
    let of_other = format!("/v2/shop/web/blobs/{}", other.blobs[1].digest);
    assert_ne!(image.blobs[1].digest, other.blobs[1].digest, "they share no layer");
    let token = token_answer(
        &mesh.members()[2].anyone().basic(&name, &pass),
        &["repository:shop/web:pull,push", "registry:catalog:*"],
    );
    assert_eq!(token.status, 200, "{token}");
    let token = token.json()["token"].as_str().expect("a token").to_owned();
    for at in 0..3 {
        let anyone = mesh.members()[at].anyone();
        for client in [anyone.clone().basic(&name, &pass), anyone.bearer(&token)] {
            assert_eq!(status(&client, &by_digest), 200, "the image, at {at}");
            assert_eq!(status(&client, "/v2/shop/web/manifests/1"), 200, "by its tag");
            assert_eq!(status(&client, &blob), 200, "its blobs");
            for beyond in [
                &format!("/v2/shop/web/manifests/{}", other.digest()),
                "/v2/shop/web/manifests/2",
                "/v2/shop/web/manifests/none",
                &of_other,
                "/v2/shop/web/tags/list",
                &format!("/v2/shop/web/referrers/{}", image.digest()),
                &format!("/v2/shop/else/manifests/{}", image.digest()),
                &format!("/v2/shop/else/blobs/{}", image.blobs[0].digest),
                "/v2/_catalog",
                "/api/v2.0/projects",
                "/api/v2.0/projects/shop",
                "/api/v2.0/users/current",
                "/api/v2.0/scanners",
            ] {
                let got = status(&client, beyond);
                assert!(matches!(got, 401 | 403), "{beyond} at {at}: {got}");
            }
            for (method, path) in [
                (Method::POST, "/v2/shop/web/blobs/uploads/"),
                (Method::DELETE, by_digest.as_str()),
            ] {
                let got = client.ask(method, path).send().unwrap_or_else(|none| panic!("{none}"));
                assert!(matches!(got.status, 401 | 403), "{path}: {got}");
            }
        }
    }
    // an edge does not know whether a scan still runs
    let at_edge = mesh.members()[edge].anyone();
    for client in [at_edge.clone().basic(&name, &pass), at_edge.bearer(&token)] {
        assert_eq!(status(&client, &by_digest), 401);
    }
    let stop = format!("{}/scan/stop", artifact("shop/web", "1"));
    let stopped = mesh.client(0).ask(Method::POST, &stop).send();
    assert_eq!(stopped.unwrap_or_else(|none| panic!("{none}")).status, 202);
    for at in 0..3 {
        wait::until("the pass has ended with the scan", || {
            let anyone = mesh.members()[at].anyone();
            let ended = [anyone.clone().basic(&name, &pass), anyone.bearer(&token)]
                .iter()
                .all(|client| status(client, &by_digest) == 401 && status(client, &blob) == 401);
            ended.then_some(())
        });
    }

    // a scanner is not reached where no registry may be
    for wrong in ["http://169.254.169.254", "ftp://scanner.example", "http://a:b@scanner.example"] {
        let body = json!({"name": "x", "url": wrong});
        let refused = must(&mesh.client(0), Method::POST, "/api/v2.0/scanners/ping", &body, 400);
        assert!(!refused.to_string().is_empty());
    }
    // those of many images are stopped together
    let stopped = mesh.client(0).ask(Method::POST, "/api/v2.0/system/scanAll/stop").send();
    assert_eq!(stopped.unwrap_or_else(|none| panic!("{none}")).status, 202);
}

#[test]
fn an_adapter_over_tls_has_the_database_of_the_mesh_and_is_trusted_by_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    let made = made.expect("a certificate");
    std::fs::write(place("cert.pem"), made.cert.pem()).expect("a file");
    std::fs::write(place("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    let settings = format!(
        "scan: {{database: 'library/trivy-db:2'}}\nupstreams: {{allow_loopback: true, ca: '{}'}}\n",
        place("cert.pem")
    );
    let mesh = Formed::of(&[("one", "us-east-1")], &settings);
    create_project(&mesh.client(0), "library", true, 1);
    create_project(&mesh.client(0), "shop", false, 1);
    use_database(&mesh, &[advisory("openssl", "CVE-2024-5535", "3.0.14-1~deb12u1", 3)], 1);

    let port = reserve(Ipv4Addr::LOCALHOST.into()).port();
    let (address, everywhere) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    let from = format!("http://{}/library/trivy-db:2", mesh.members()[0].place().http);
    let mut adapter = std::process::Command::new(tests::tools::atoll());
    adapter.args(["scanner-adapter", "--listen", &everywhere, "--data-dir", &place("data")]);
    adapter.args(["--database-from", &from, "--allow-loopback", "--open"]);
    adapter.args(["--tls-certificate", &place("cert.pem"), "--tls-key", &place("key.pem")]);
    let _runs = process::Running::start(&mut adapter, &folder.path().join("log"));

    let secure = format!("https://{address}");
    let ping = |body: &Value| {
        let answer = mesh.client(0).send_json(Method::POST, "/api/v2.0/scanners/ping", body);
        answer.unwrap_or_else(|none| panic!("{none}"))
    };
    wait::until_ok("it answers over TLS", || {
        let answer = ping(&json!({"name": "apart", "url": secure}));
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
    let plain = ping(&json!({"name": "apart", "url": format!("http://{address}")}));
    assert_eq!(plain.status, 400, "it speaks nothing else: {plain}");
    // to a name that is not in the certificate nobody sends a secret
    let other = ping(&json!({"name": "apart", "url": format!("https://127.0.0.2:{port}")}));
    assert!(other.status == 400 && other.to_string().contains("certificate"), "{other}");

    let id = register(&mesh, "apart", &secure);
    let choice = json!({"uuid": id});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/shop/scanner", &choice, 200);
    let image = debian(&[("openssl", "3.0.11-1~deb12u1")]);
    mesh.repository(0, "shop/web").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let path = artifact("shop/web", image.digest());
    let shown = || {
        let shown = get(&mesh.client(0), &format!("{path}?with_scan_overview=true")).json();
        shown["scan_overview"][REPORT].clone()
    };
    let ask = || {
        let asked = mesh.client(0).ask(Method::POST, &format!("{path}/scan")).send();
        assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 202);
    };
    ask();
    // the database may still be on its way to the adapter, which says so
    wait::until_ok("it finds what the mesh's database says", || {
        let shown = shown();
        if shown["scan_status"] == "Error" {
            ask();
        }
        match shown["severity"] == "High" && shown["summary"]["total"] == 1 {
            true => Ok(()),
            false => Err(shown.to_string()),
        }
    });

    // it can be changed without its whole registration
    let at = format!("http://{}", mesh.members()[0].place().http);
    let password = place("password");
    std::fs::write(&password, mesh.password()).expect("a file");
    let set = |arguments: &[&str]| {
        let mut command = mesh.members()[0].atoll("scanner");
        command.args(["set", "apart"]).args(arguments);
        command.args(["--url", &at, "--password-file", &password]);
        process::finish(&mut command)
    };
    let disabled = set(&["--disable", "--description", "beside the nodes"]);
    assert!(disabled.success, "{disabled:?}");
    let one = get(&mesh.client(0), &format!("/api/v2.0/scanners/{id}")).json();
    assert_eq!((&one["disabled"], &one["url"]), (&json!(true), &json!(secure)), "{one}");
    assert_eq!(one["description"], "beside the nodes", "{one}");
    assert_eq!(one["problem"], "it is disabled", "{one}");
    let enabled = set(&["--enable", "--name", "beside"]);
    assert!(enabled.success, "{enabled:?}");
    let one = get(&mesh.client(0), &format!("/api/v2.0/scanners/{id}")).json();
    assert_eq!((&one["disabled"], &one["name"]), (&json!(false), &json!("beside")), "{one}");
    assert_eq!(one["health"], "healthy", "{one}");
}
