//! Everything that works over HTTP/1.1 works over HTTP/2: straight to a node, as proxies speak it
//! without TLS, and behind a real nginx that ends TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::balancer::Balancer;
use tests::certificates::certify;
use tests::image::{Blob, Image, MANIFEST, digest, write_layout};
use tests::mesh::Mesh;
use tests::process::{self, Finished, Running};
use tests::{metrics, tools, wait};

/// A curl that speaks HTTP/2 at once, with the administrator's password.
fn curl(mesh: &Mesh) -> Command {
    let (user, password) = mesh.admin();
    let mut curl = tools::packaged("curl", "curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "120"]);
    curl.args(["--user", &format!("{user}:{password}")]);
    curl
}

/// All of the file.
const WHOLE: &str = "<\"$0\"";

/// A curl that sends a file without saying how long it is, as bash reads it (`$0`).
fn streaming(mesh: &Mesh, from: &str, file: &Path) -> Command {
    let curl = curl(mesh);
    let mut fed = Command::new("bash");
    fed.args(["-c", &format!("exec \"$@\" {from}")]).arg(file).arg(curl.get_program());
    fed.args(curl.get_args()).args(["--upload-file", "-"]);
    fed
}

/// What it wrote, without the headers before.
fn ask(mesh: &Mesh, arguments: &[&str]) -> Finished {
    process::finish(curl(mesh).args(arguments))
}

/// Its status, and its headers in small letters.
fn head(mesh: &Mesh, arguments: &[&str]) -> (u16, String) {
    let said = ask(mesh, &[&["--include"], arguments].concat());
    let head = said.out.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    let status = head.strip_prefix("http/2 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer over HTTP/2: {said:?}")), head)
}

fn location(head: &str) -> &str {
    let line = head.lines().find_map(|line| line.strip_prefix("location: "));
    line.unwrap_or_else(|| panic!("no location: {head}"))
}

#[test]
fn pushes_pulls_ranges_and_broken_uploads_work_over_http2_without_tls() {
    let mesh = Mesh::up(3);
    let folder = TempDir::with_prefix("atoll-http2-").expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let url = |at: usize, path: &str| format!("http://{}{path}", mesh.client(at).authority());
    let image = Image::random(&[6 << 20, 30 << 10]);
    let opened = |node: usize| {
        let uploads = url(node, "/v2/demo/two/blobs/uploads/");
        let (status, head) = head(&mesh, &["--request", "POST", &uploads]);
        assert_eq!(status, 202, "{head}");
        location(&head).to_owned()
    };
    for (n, blob) in image.blobs.iter().enumerate() {
        let file = at(blob.hex());
        std::fs::write(&file, &blob.bytes).expect("a file");
        let place = opened(n % 3);
        // a body without a length, to another node than the one that has the upload
        let mut patch = streaming(&mesh, WHOLE, &file);
        patch.args(["--fail", "--request", "PATCH"]);
        patch.args(["--header", "content-type: application/octet-stream"]);
        patch.arg(url((n + 1) % 3, &place));
        process::succeed(&mut patch);
        let close = url(n % 3, &format!("{place}?digest={}", blob.digest));
        let (status, said) = head(&mesh, &["--request", "PUT", &close]);
        assert_eq!(status, 201, "{said}");
    }
    let manifest = at("manifest");
    std::fs::write(&manifest, &image.manifest.bytes).expect("a file");
    let tag = url(1, "/v2/demo/two/manifests/1");
    let data = format!("@{}", manifest.display());
    let kind = format!("content-type: {}", MANIFEST);
    let put = ["--request", "PUT", "--data-binary", &data, "--header", &kind, &tag];
    let (status, said) = head(&mesh, &put);
    assert_eq!(status, 201, "{said}");
    for at in 0..3 {
        let pulled = mesh.repository(at, "demo/two").pull("1");
        assert_eq!(pulled.unwrap_or_else(|no| panic!("at {at}: {no}")).digest, image.digest());
    }

    // whole blobs (many at once over one connection: see `tls`; curl 7.88 cannot do that here)
    let large = &image.blobs[1];
    let blob = url(2, &format!("/v2/demo/two/blobs/{}", large.digest));
    let before = metrics::value(&mesh.client(2), "atoll_http2_connections_total");
    let got = at("got");
    for _ in 0..3 {
        process::succeed(curl(&mesh).args(["--fail", "--output"]).arg(&got).arg(&blob));
        assert_eq!(digest(&std::fs::read(&got).expect("what curl wrote")), large.digest);
    }
    assert_eq!(metrics::value(&mesh.client(2), "atoll_http2_connections_total"), before + 3);

    // ranges and conditions
    let part = at("part");
    let ranged = ["--range", "100-70099", "--output", &part.display().to_string(), &blob];
    let got = ask(&mesh, &[&["--write-out", "%{http_code}"], &ranged[..]].concat());
    assert_eq!(got.out, "206", "{got:?}");
    assert!(std::fs::read(&part).expect("a part") == large.bytes[100..70100], "wrong bytes");
    let parts = ask(
        &mesh,
        &[
            "--range",
            "0-9,50-59",
            "--write-out",
            "%{http_code}",
            "--output",
            &part.display().to_string(),
            &blob,
        ],
    );
    assert_eq!(parts.out, "206", "{parts:?}");
    let read = std::fs::read(&part).expect("two parts");
    assert!(read.windows(10).any(|w| w == &large.bytes[50..60]), "the second part is missing");
    let (status, said) = head(&mesh, &["--head", &blob]);
    assert_eq!(status, 200);
    assert!(said.contains(&format!("content-length: {}", large.bytes.len())), "{said}");
    let same = format!("if-none-match: \"{}\"", large.digest);
    assert_eq!(head(&mesh, &["--header", &same, &blob]).0, 304);
    let missing = url(0, &format!("/v2/demo/two/blobs/{}", Blob::random(9).digest));
    assert_eq!(head(&mesh, &[&missing]).0, 404);
    let (status, said) = head(&mesh, &["--user", ":", &url(0, "/v2/")]);
    assert_eq!(status, 401, "{said}");
    let realm = format!("realm=\"{}\"", url(0, "/service/token"));
    assert!(said.contains(&realm), "HTTP/2 names the host beside the path: {said}");

    // a body that is not declared as JSON is refused, though no header says that there is one
    // (curl that is told to stop while it still sends may say 92 instead of what it was told)
    let status = wait::until_ok("it is answered", || {
        let mut form = streaming(&mesh, WHOLE, &manifest);
        form.args(["--request", "POST", "--write-out", "%{http_code}"]);
        form.args(["--header", "content-type: text/plain", "--output", "/dev/null"]);
        let answered = process::finish(form.arg(url(0, "/api/v2.0/projects")));
        if answered.success { Ok(answered.out) } else { Err(answered.err) }
    });
    assert_eq!(status, "415");

    // what a client sent that went away in the middle is kept, and the next goes on from there
    let place = opened(0);
    let begin = format!("< <(head -c {} \"$0\"; sleep 300)", large.bytes.len() / 2);
    let mut sending = streaming(&mesh, &begin, &at(large.hex()));
    sending.args(["--request", "PATCH", "--header", "content-type: application/octet-stream"]);
    sending.arg(url(0, &place));
    let mut sending = Running::start(&mut sending, &at("log"));
    let shown = || {
        let (status, said) = head(&mesh, &[&url(0, &place)]);
        assert_eq!(status, 204, "{said}");
        let range = said.lines().find_map(|line| line.strip_prefix("range: 0-"));
        range.map_or(0, |last| last.parse::<usize>().expect("a number") + 1)
    };
    wait::until("some of it came", || (shown() > 1).then_some(()));
    sending.stop(Signal::KILL, Duration::from_secs(60));
    let kept = wait::until("the broken request is over", || {
        let kept = shown();
        let rest = at("rest");
        std::fs::write(&rest, &large.bytes[kept..]).expect("a file");
        let range = format!("content-range: {kept}-{}", large.bytes.len() - 1);
        let data = format!("@{}", rest.display());
        let whole = url(0, &place);
        let (status, _) = head(
            &mesh,
            &[
                "--request",
                "PATCH",
                "--data-binary",
                &data,
                "--header",
                "content-type: application/octet-stream",
                "--header",
                &range,
                &whole,
            ],
        );
        (status == 202).then_some(kept)
    });
    assert!(kept < large.bytes.len(), "it was cut off in the middle");
    let close = url(0, &format!("{place}?digest={}", large.digest));
    assert_eq!(head(&mesh, &["--request", "PUT", &close]).0, 201);
}

#[test]
fn behind_an_nginx_that_ends_tls_every_address_is_the_clients_own() {
    let mesh = Mesh::up_with(3, &[("http.trusted_proxies", Balancer::ADDRESS)]);
    let folder = TempDir::with_prefix("atoll-nginx-tls-").expect("a temporary folder");
    certify(folder.path(), "127.0.0.1");
    let nginx = Balancer::ending_tls_before(&mesh, folder.path());
    let base = format!("https://{}", nginx.authority());
    let (user, password) = mesh.admin();
    let pair = format!("{user}:{password}");
    let secure = |arguments: &[&str]| {
        let mut curl = tools::packaged("curl", "curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert"]);
        curl.arg(folder.path().join("ca.crt"));
        process::succeed(curl.args(arguments))
    };
    let challenge = secure(&["--include", &format!("{base}/v2/")]);
    assert!(challenge.starts_with("HTTP/2 401"), "{challenge}");
    assert!(challenge.contains(&format!("realm=\"{base}/service/token\"")), "{challenge}");
    let info = secure(&["--user", &pair, &format!("{base}/api/v2.0/systeminfo")]);
    let info: Value = serde_json::from_str(&info).unwrap_or_else(|no| panic!("{no}: {info}"));
    assert_eq!(info["external_url"], base, "{info}");

    // a whole push and pull, with everything that a client is told to follow
    let image = Image::random(&[700 << 10]);
    write_layout(&folder.path().join("layout"), &image);
    let trusted = trusted(folder.path());
    let name = format!("docker://{}/demo/behind:1", nginx.authority());
    let from = format!("oci:{}", folder.path().join("layout").display());
    let skopeo =
        |arguments: &[&str]| process::succeed(tools::packaged("skopeo", "skopeo").args(arguments));
    skopeo(&[
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-creds",
        &pair,
        "--dest-cert-dir",
        &trusted,
        &from,
        &name,
    ]);
    let told = skopeo(&[
        "inspect",
        "--cert-dir",
        &trusted,
        "--creds",
        &pair,
        "--format",
        "{{.Digest}}",
        &name,
    ]);
    assert_eq!(told.trim(), image.digest());

    let upload = secure(&[
        "--include",
        "--request",
        "POST",
        "--user",
        &pair,
        &format!("{base}/v2/demo/behind/blobs/uploads/"),
    ]);
    let projects =
        secure(&["--include", "--user", &pair, &format!("{base}/api/v2.0/projects?page_size=1")]);
    for (what, said) in [("an upload", &upload), ("a list", &projects)] {
        assert!(said.starts_with("HTTP/2 2"), "{said}");
        let lower = said.to_ascii_lowercase();
        assert!(
            !lower.contains("http://") && !lower.contains("inside.invalid"),
            "{what} leads elsewhere: {said}"
        );
    }

    // nobody else is believed
    let forged = mesh.anyone(0).ask(http::Method::GET, "/v2/");
    let forged =
        forged.header("x-forwarded-host", "evil.example").header("x-forwarded-proto", "https");
    let answer = forged.send().unwrap_or_else(|none| panic!("{none}"));
    let realm = answer.header("www-authenticate").expect("a challenge");
    let own = format!("realm=\"http://{}/service/token\"", mesh.client(0).authority());
    assert!(realm.contains(&own), "{realm}");
}

fn trusted(folder: &Path) -> String {
    let trusted = folder.join("trusted");
    std::fs::create_dir_all(&trusted).expect("a folder");
    std::fs::copy(folder.join("ca.crt"), trusted.join("ca.crt")).expect("a copy");
    trusted.display().to_string()
}
