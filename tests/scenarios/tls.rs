//! With `http.tls` a node speaks https and nothing else: to real clients, and to itself in the
//! challenges it sends them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh::identity::Identity;
use rules::wire::Ask;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::certificates::certify;
use tests::complaints::Complaints;
use tests::daemons::{Containerd, Docker};
use tests::formed::{Formed, loopback};
use tests::image::{Blob, Image, digest, write_layout};
use tests::intruder::{Intruder, stolen};
use tests::member::{self, Member};
use tests::mesh::Mesh;
use tests::process::{self, Finished, Running};
use tests::proxies::create_proxy;
use tests::repository::{Repository, create_project};
use tests::{tools, wait, wire};

/// A node with a certificate of a CA that only its clients know.
struct Shore {
    node: Member,
    password: String,
    folder: TempDir,
}

impl Shore {
    /// A mesh of one.
    fn new() -> Self {
        let mut shore = Self::prepare("lone", "a", "");
        shore.password = shore.node.init();
        shore.serve();
        shore
    }

    /// A node that is no member yet.
    fn prepare(name: &str, region: &str, more: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-tls-").expect("a temporary folder");
        let at = folder.path();
        let place = loopback();
        let (address, _) = place.http.rsplit_once(':').expect("an address and a port");
        certify(at, address);
        let lines =
            format!("  tls:\n    certificate: {0}/node.crt\n    key: {0}/node.key\n", at.display());
        let node = Member::new(at, name, region, place, &lines, more);
        Self { node, password: String::new(), folder }
    }

    fn serve(&self) {
        self.node.serve();
        wait::until_ok("the node is ready over https", || {
            let said = self.curl(&["--fail", &self.url("/readyz")]);
            if said.success { Ok(()) } else { Err(format!("{said:?}\n{}", self.node.last_words())) }
        });
    }

    fn authority(&self) -> &str {
        &self.node.place().http
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn curl(&self, arguments: &[&str]) -> Finished {
        let mut command = tools::packaged("curl", "curl");
        command
            .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
            .arg(self.at("ca.crt"));
        process::finish(command.args(arguments))
    }

    /// What curl prints when it must succeed.
    fn curled(&self, arguments: &[&str]) -> String {
        let said = self.curl(arguments);
        assert!(said.success, "curl {arguments:?}: {said:?}");
        said.out
    }

    fn skopeo(&self, arguments: &[&str]) -> Finished {
        let mut command = tools::packaged("skopeo", "skopeo");
        command.env("REGISTRY_AUTH_FILE", self.at("auth.json"));
        process::finish(command.args(arguments))
    }

    /// A folder with the CA alone, as skopeo wants it.
    fn trusted(&self) -> String {
        let trusted = self.at("trusted");
        std::fs::create_dir_all(&trusted).expect("a folder");
        std::fs::copy(self.at("ca.crt"), trusted.join("ca.crt")).expect("a copy");
        trusted.display().to_string()
    }

    /// An image that skopeo is to push.
    fn offer(&self) -> Offer {
        let image = Image::random(&[700 << 10, 30 << 10]);
        let layout = self.at("layout");
        write_layout(&layout, &image);
        let (from, name) = (
            format!("oci:{}", layout.display()),
            format!("docker://{}/demo/tls:1", self.authority()),
        );
        Offer { image, from, name, pair: format!("admin:{}", self.password) }
    }

    /// Pulls an image with skopeo into a folder, and hashes what came.
    fn pull(&self, name: &str, image: &Image, to: &Path) {
        let trusted = self.trusted();
        let pull = ["copy", "-q", "--preserve-digests", "--src-cert-dir", &trusted, name];
        let pulled = self.skopeo(&[&pull[..], &[&format!("dir:{}", to.display())]].concat());
        assert!(pulled.success, "{pulled:?}");
        for blob in &image.blobs {
            let file = to.join(blob.hex());
            let bytes =
                std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(digest(&bytes), blob.digest);
        }
    }
}

/// An image in a folder, where it is to go, and the administrator's credentials, as skopeo writes
/// them.
struct Offer {
    image: Image,
    from: String,
    name: String,
    pair: String,
}

#[test]
fn skopeo_and_curl_work_over_https_with_the_ca() {
    let shore = Shore::new();
    let Offer { image, from, name, pair } = shore.offer();
    let trusted = shore.trusted();

    let push = ["copy", "-q", "--preserve-digests", "--dest-creds", &pair];
    let stranger = shore.skopeo(&[&push[..], &[&from, &name]].concat());
    assert!(
        !stranger.success && stranger.err.contains("certificate"),
        "a client that does not know the CA: {stranger:?}"
    );
    let pushed = shore.skopeo(&[&push[..], &["--dest-cert-dir", &trusted, &from, &name]].concat());
    assert!(pushed.success, "{pushed:?}");
    let told = shore.skopeo(&["inspect", "--cert-dir", &trusted, "--format", "{{.Digest}}", &name]);
    assert_eq!(told.out.trim(), image.digest(), "{told:?}");
    shore.pull(&name, &image, &shore.at("pulled"));

    // curl, anonymously: the project is public
    let got = shore.at("blob");
    let path = shore.url(&format!("/v2/demo/tls/blobs/{}", image.blobs[1].digest));
    shore.curled(&["--fail", "--output", &got.display().to_string(), &path]);
    assert_eq!(digest(&std::fs::read(&got).expect("what curl wrote")), image.blobs[1].digest);
    // and the whole of a login: challenge, token, answer
    let challenge = shore.curled(&["--include", &shore.url("/v2/")]);
    let realm = challenge.split("realm=\"").nth(1).and_then(|rest| rest.split('"').next());
    assert_eq!(
        realm,
        Some(shore.url("/service/token").as_str()),
        "a token is fetched where the client came to: {challenge}"
    );
    let token = shore.curled(&[
        "--fail",
        "--user",
        &pair,
        &format!("{}?service=atoll", shore.url("/service/token")),
    ]);
    let token: Value =
        serde_json::from_str(&token).unwrap_or_else(|error| panic!("{error}: {token}"));
    let token = token["token"].as_str().unwrap_or_else(|| panic!("a token: {token}"));
    shore.curled(&[
        "--fail",
        "--header",
        &format!("Authorization: Bearer {token}"),
        &shore.url("/v2/"),
    ]);
    let upload = shore.curled(&[
        "--include",
        "--fail",
        "--request",
        "POST",
        "--user",
        &pair,
        &shore.url("/v2/demo/tls/blobs/uploads/"),
    ]);
    let place = upload
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("location: ").map(str::to_owned));
    assert!(
        place.is_some_and(|place| !place.starts_with("http://")),
        "an upload goes on in the clear: {upload}"
    );

    // the command line too
    let password = shore.at("password");
    std::fs::write(&password, &shore.password).expect("a file");
    let mut status = Command::new(tools::atoll());
    status
        .args(["status", "--output", "json", "--url", &shore.url(""), "--password-file"])
        .arg(password);
    let told: Value =
        serde_json::from_str(&process::succeed(status.arg("--ca").arg(shore.at("ca.crt"))))
            .expect("JSON");
    assert_eq!(told["nodes"][0]["url"], shore.url(""), "{told}");
}

#[test]
fn a_session_over_https_is_never_sent_in_the_clear() {
    let shore = Shore::new();
    let form = ["--data-urlencode", "principal=admin", "--data-urlencode"];
    let password = format!("password={}", shore.password);
    let login = ["--include", &password, &shore.url("/c/login")];
    let answer = shore.curled(&[&form[..], &[login[1], login[0], login[2]]].concat());
    let cookie = |answer: &str| -> String {
        let lines =
            answer.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie: "));
        let found = lines.map(|line| line["set-cookie: ".len()..].to_owned()).next();
        found.unwrap_or_else(|| panic!("no cookie: {answer}"))
    };
    let set = cookie(&answer);
    assert!(set.starts_with("sid=") && set.contains("; Secure"), "{set}");
    assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax"), "{set}");
    // it works, and the browser forgets it by a cookie of the same kind
    let pair = set.split(';').next().expect("a pair");
    let shown = shore.curled(&["--cookie", pair, &shore.url("/api/v2.0/users/current")]);
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{e}: {shown}"));
    assert_eq!(shown["username"], "admin");
    let gone = cookie(&shore.curled(&["--include", &shore.url("/c/log_out")]));
    assert!(gone.contains("Max-Age=0") && gone.contains("; Secure"), "{gone}");
}

#[test]
fn an_upstream_behind_a_ca_of_its_own_is_believed_where_the_settings_name_it() {
    let shore = Shore::new();
    let Offer { image, from, name, pair } = shore.offer();
    let push = [
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-creds",
        &pair,
        "--dest-cert-dir",
        &shore.trusted(),
        &from,
    ];
    let pushed = shore.skopeo(&[&push[..], &[&name]].concat());
    assert!(pushed.success, "{pushed:?}");

    let proxied = |mesh: &Mesh| {
        create_proxy(&mesh.client(0), "hub", "harbor", &shore.url(""), true);
        mesh.anyone(0)
    };
    let stranger = Mesh::up(1);
    let refused = proxied(&stranger)
        .get("/v2/hub/demo/tls/manifests/1")
        .unwrap_or_else(|none| panic!("{none}"));
    assert!(refused.status >= 500 && refused.to_string().contains("certificate"), "{refused}");
    // one mesh at a time has the machine
    drop(stranger);
    let knows = Mesh::up_with(1, &[("upstreams.ca", &shore.at("ca.crt").display().to_string())]);
    let pulled = Repository::new(&proxied(&knows), "hub/demo/tls")
        .pull("1")
        .unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(pulled.digest, image.digest());
}

#[test]
fn behind_https_a_source_that_dies_in_mid_blob_is_replaced_and_a_short_answer_ends_cleanly() {
    // so narrow that what dies does so in the middle
    let sites = [("one", "a"), ("two", "b"), ("three", "c")];
    let mesh = Formed::of(&sites, "links: {caps: {far: 4MiB}}");
    let mut shore = Shore::prepare("edge", "far", "role: edge\n");
    shore.node.must_join(&mesh.members()[0].invite_as("edge"));
    shore.password = mesh.password().to_owned();
    shore.serve();
    let image = Image::random(&[32 << 20]);
    let layer = &image.blobs[1];
    let got = shore.at("blob");
    let fetch_over = |version: &str, repository: &str, blob: &Blob, got: &Path| {
        let url = shore.url(&format!("/v2/{repository}/blobs/{}", blob.digest));
        shore.curl(&[version, "--fail", "--output", &got.display().to_string(), &url])
    };
    let fetch = |repository, blob| fetch_over("--http1.1", repository, blob, &got);

    create_project(&mesh.client(0), "alone", true, 1);
    create_project(&mesh.client(0), "two", true, 2);
    mesh.repository(0, "two/torn").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let name = format!("docker://{}/two/torn:1", shore.authority());
    // asked for after the layer, when the mesh may have lost its leader: what the edge has it
    // serves
    shore.curled(&[
        "--fail",
        "--output",
        "/dev/null",
        &shore.url(&format!("/v2/two/torn/blobs/{}", image.blobs[0].digest)),
    ]);
    let pulled = shore.at("pulled");
    let source = std::thread::scope(|beside| {
        beside.spawn(|| shore.pull(&name, &image, &pulled));
        wait::until("skopeo is in the middle of the blob", || {
            let mut files = std::fs::read_dir(&pulled).ok()?.flatten();
            files.any(|file| is_begun(&file.path())).then_some(())
        });
        let curl = beside.spawn(|| fetch("two/torn", layer));
        wait::until("curl is too", || is_begun(&got).then_some(()));
        let source = sending(&mesh, layer).expect("no client has all of it");
        mesh.members()[source].stop(Signal::KILL);
        let curl = curl.join().expect("curl is started");
        assert!(curl.success, "{curl:?}");
        source
    });
    assert!(std::fs::read(&got).expect("what curl wrote") == layer.bytes, "wrong bytes");
    mesh.members()[source].serve();
    mesh.members()[source].wait_ready();

    // If no source can continue: curl's error 18 is a body that ended too soon, 56 a reset of the
    // connection, 92 a reset of the stream alone.
    let image = Image::random(&[64 << 20]);
    let layer = &image.blobs[1];
    std::fs::remove_file(&got).expect("what curl wrote");
    wait::until_ok("an image is pushed", || mesh.repository(0, "alone/torn").push(&image, "1"));
    wait::until("the edge hears of it", || {
        shore.curl(&["--fail", &shore.url("/v2/alone/torn/manifests/1")]).success.then_some(())
    });
    let streamed = shore.at("streamed");
    let (short, reset) = std::thread::scope(|beside| {
        let curl = beside.spawn(|| fetch("alone/torn", layer));
        let second = beside.spawn(|| fetch_over("--http2", "alone/torn", layer, &streamed));
        wait::until("both are in the middle of the blob", || {
            (is_begun(&got) && is_begun(&streamed)).then_some(())
        });
        mesh.members()[sending(&mesh, layer).expect("curl has not all of it")].stop(Signal::KILL);
        (curl.join().expect("curl is started"), second.join().expect("curl is started"))
    });
    assert!(!reset.success && reset.err.contains("curl: (92)"), "{reset:?}");
    let part = std::fs::read(&streamed).expect("what curl wrote");
    assert!(!part.is_empty() && layer.bytes.starts_with(&part), "wrong bytes");
    assert!(!short.success && short.err.contains("curl: (18)"), "{short:?}");
    let part = std::fs::read(&got).expect("what curl wrote");
    assert!(!part.is_empty() && layer.bytes.starts_with(&part), "wrong bytes");
}

/// Whether a client has written more of a file than fits into buffers on the way.
fn is_begun(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.len() > 1 << 20)
}

/// The replica that is sending a blob to the edge.
fn sending(mesh: &Formed, blob: &Blob) -> Option<usize> {
    (0..3).find(|at| {
        let transfers = member::transfers(&mesh.client(*at));
        let is_it = |one: &Value| {
            one["direction"] == "out"
                && one["digest"] == blob.digest.as_str()
                && one["bytes"] != one["total"]
        };
        transfers.unwrap_or_default().iter().any(is_it)
    })
}

#[test]
fn plain_http_on_a_tls_port_ends_at_once_and_harms_nobody() {
    let shore = Shore::new();
    let request = format!("GET /v2/ HTTP/1.1\r\nhost: {}\r\n\r\n", shore.authority());
    for bytes in [request.as_bytes(), b"\r\n\r\n", &[0; 600], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        // `say` fails when the node keeps the connection; an answer in plain words would be one too
        if let Some(answer) = wire::say(shore.authority(), bytes) {
            assert_eq!(answer.status, 400, "{answer}");
        }
    }
    let said = shore.curl(&[&format!("http://{}/v2/", shore.authority())]);
    assert!(!said.success, "plain http is answered: {said:?}");
    // handshakes that are begun and abandoned delay no other client
    let idle: Vec<_> =
        (0..64).map(|_| wire::connect(shore.authority(), Duration::from_secs(90))).collect();
    shore.curled(&["--fail", &shore.url("/readyz")]);
    for mut socket in idle {
        // an end, not an answer: `answer` fails when the node waits for ever
        let answer = wire::answer(&mut socket);
        assert!(answer.is_none(), "{answer:?}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let folder = TempDir::with_prefix("atoll-tls-").expect("a temporary folder");
    let at = folder.path();
    let place = loopback();
    let (address, _) = place.http.rsplit_once(':').expect("an address and a port");
    let lines =
        format!("  tls:\n    certificate: {0}/node.crt\n    key: {0}/node.key\n", at.display());
    let node = Member::new(at, "lone", "a", place.clone(), &lines, "");
    certify(at, address);
    node.init();
    let wrong = Complaints::default();
    // each with the rest in order
    let mistakes: [(&str, &str, Option<&str>); 6] = [
        ("no certificate in the file", "node.crt", Some("not a certificate\n")),
        ("an empty certificate", "node.crt", Some("")),
        ("no file of the certificate", "node.crt", None),
        ("no key in the file", "node.key", Some("not a key\n")),
        ("no file of the key", "node.key", None),
        ("the key of another certificate", "node.key", Some("other.key")),
    ];
    for (what, file, text) in mistakes {
        certify(at, address);
        let other = std::fs::read_to_string(at.join("ca.key")).expect("openssl wrote it");
        match text {
            Some("other.key") => std::fs::write(at.join(file), other).expect("a file"),
            Some(text) => std::fs::write(at.join(file), text).expect("a file"),
            None => std::fs::remove_file(at.join(file)).expect("openssl wrote it"),
        }
        let said = process::finish(node.atoll("serve").arg("--config").arg(at.join("lone.yaml")));
        wrong.unless(!said.success, || format!("{what}: it serves: {said:?}"));
        let named = said.err.contains(file)
            && said.err.contains("http.tls")
            && !said.err.contains("panicked");
        wrong.unless(named, || {
            format!("{what}: neither the file nor the setting is named: {:?}", said.err)
        });
    }
}

#[test]
fn up_waits_for_nodes_that_speak_https_and_its_lines_lead_to_them() {
    let folder = TempDir::with_prefix("atoll-up-tls-").expect("a temporary folder");
    let data = folder.path().join("data");
    let mesh = Mesh::up_in(&data, 3);
    assert!(mesh.stop(Signal::INT).0, "Ctrl-C is a normal end");
    // a CA that nobody trusts, and a certificate for a name that leads nowhere: what counts is that
    // each node shows what its settings name
    certify(folder.path(), "192.0.2.1");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("  tls: {{certificate: {}, key: {}}}", at("node.crt"), at("node.key"));
    for node in mesh.nodes() {
        let file = node.data.join("node.yaml");
        let settings = std::fs::read_to_string(&file).expect("settings");
        let changed = |line| match line {
            "  tls: null" => tls.as_str(),
            line if line.starts_with("  public_url: ") => {
                "  public_url: https://registry.invalid:8443"
            }
            line => line,
        };
        let lines: Vec<&str> = settings.lines().map(changed).collect();
        std::fs::write(&file, lines.join("\n")).expect("settings");
    }
    drop(mesh);
    let mut command = Command::new(tools::atoll());
    let mut up =
        Running::start(command.arg("up").arg("--data").arg(&data), &folder.path().join("up.log"));
    wait::until("`up` says what happens", || {
        assert!(up.ended().is_none(), "it ended:\n{}", up.last_words());
        // not before it knows that all nodes are ready, or has waited for them in vain
        up.last_words().contains("What happens").then_some(())
    });
    let said = up.last_words();
    assert!(!said.contains("nodes are ready"), "{said}");
    assert!(said.contains(" registry.invalid:8443/demo/IMAGE"), "{said}");
    wait::until("`up` sees into its nodes", || {
        up.last_words().contains("leads the ledger").then_some(())
    });
    let status =
        process::finish(Command::new(tools::atoll()).arg("status").arg("--data").arg(&data));
    assert!(status.success && status.out.contains("us-west-2"), "{status:?}");
    // another certificate is none of theirs
    certify(folder.path(), "192.0.2.1");
    let stranger =
        process::finish(Command::new(tools::atoll()).arg("status").arg("--data").arg(&data));
    assert!(!stranger.success && stranger.err.contains("http.tls.certificate"), "{stranger:?}");
    let ended = up.stop(Signal::INT, wait::PATIENCE);
    assert!(ended.is_some_and(|how| how.success()), "{ended:?}\n{}", up.last_words());
}

/// A certificate is renewed by whoever writes its files. It counts for the next connection, and a
/// download that is under way does not notice.
#[test]
fn a_new_certificate_counts_without_a_restart() {
    let shore = Shore::new();
    let offer = shore.offer();
    let trusted = shore.trusted();
    let push = ["copy", "-q", "--preserve-digests", "--dest-cert-dir", &trusted];
    let to = ["--dest-creds", &offer.pair, &offer.from, &offer.name];
    let pushed = shore.skopeo(&[&push[..], &to[..]].concat());
    assert!(pushed.success, "{pushed:?}");
    let blob = &offer.image.blobs[1];
    let url = shore.url(&format!("/v2/demo/tls/blobs/{}", blob.digest));
    let slow = shore.at("slow");
    std::thread::scope(|beside| {
        let downloading = beside.spawn(|| {
            let slow = slow.display().to_string();
            shore.curled(&["--fail", "--limit-rate", "100k", "--output", &slow, &url]);
        });
        wait::until("the download is under way", || {
            std::fs::metadata(&slow).ok().filter(|file| file.len() > 0)
        });
        // another CA with another certificate for the same address
        let next = TempDir::with_prefix("atoll-tls-").expect("a temporary folder");
        let (address, _) = shore.authority().rsplit_once(':').expect("an address and a port");
        certify(next.path(), address);
        for name in ["node.key", "node.crt", "ca.crt"] {
            let old = shore.at(&format!("{name}.old"));
            std::fs::rename(shore.at(name), old).expect("a file");
            std::fs::copy(next.path().join(name), shore.at(name)).expect("a file");
        }
        shore.node.signal(Signal::HUP);
        wait::until("the new certificate is shown", || {
            shore.curl(&["--fail", &shore.url("/readyz")]).success.then_some(())
        });
        downloading.join().expect("the download came to its end");
    });
    let bytes = std::fs::read(&slow).expect("the download");
    assert_eq!(digest(&bytes), blob.digest);
    let old = shore.at("ca.crt.old").display().to_string();
    let mut command = tools::packaged("curl", "curl");
    command.args(["--silent", "--cacert", &old, &shore.url("/readyz")]);
    assert!(!process::finish(&mut command).success, "the old certificate is still shown");

    // what cannot be used changes nothing, and is said
    std::fs::write(shore.at("node.crt"), "nonsense").expect("a file");
    shore.node.signal(Signal::HUP);
    wait::until("the log names it", || {
        shore.node.last_words().contains("http.tls cannot be used").then_some(())
    });
    shore.curled(&["--fail", &shore.url("/readyz")]);
}

/// Go's clients choose HTTP/2 by themselves where it is offered (ALPN), or not: both must work.
#[test]
fn docker_and_containerd_push_and_pull_over_tls() {
    let images = tools::images();
    let shore = Shore::new();
    let app = images.join("docker/app.tar").display().to_string();
    let name = |rest: &str| format!("{}/demo/{rest}", shore.authority());
    let over_http2 = || {
        let told = shore.curled(&["--http1.1", &shore.url("/metrics")]);
        let line =
            told.lines().find_map(|line| line.strip_prefix("atoll_http2_connections_total "));
        line.map_or(0, |count| count.parse::<u64>().expect("a number"))
    };
    let docker = Docker::start();
    docker.login(shore.authority(), "admin", &shore.password);
    docker.run(&["load", "-q", "-i", &app]);
    docker.run(&["tag", "atoll/app:1", &name("docker:1")]);
    docker.run(&["push", "-q", &name("docker:1")]);
    docker.run(&["rmi", "-f", "atoll/app:1", &name("docker:1")]);
    let pulled = docker.pull(&name("docker:1"));
    drop(docker);

    // for 127.0.0.0/8 ctr takes plain HTTP, unless a file says otherwise
    let hosts = shore.at("hosts");
    let folder = hosts.join(shore.authority());
    std::fs::create_dir_all(&folder).expect("a folder");
    let ca = shore.at("ca.crt").display().to_string();
    let text = format!("[host.\"{}\"]\nca = \"{ca}\"\n", shore.url(""));
    std::fs::write(folder.join("hosts.toml"), text).expect("a file");
    let hosts = hosts.display().to_string();
    let containerd = Containerd::start();
    let (before, pair) = (over_http2(), format!("admin:{}", shore.password));
    containerd.run(&["images", "import", &app]);
    containerd.run(&["images", "tag", "docker.io/atoll/app:1", &name("ctr:1")]);
    let flags = ["--hosts-dir", &hosts, "--user", &pair];
    containerd.run(&[&["images", "push"], &flags[..], &[&name("ctr:1")]].concat());
    containerd.run(&["images", "rm", &name("ctr:1"), "docker.io/atoll/app:1"]);
    assert!(containerd.pull(&flags, &name("ctr:1")).starts_with("sha256:"));
    assert!(containerd.pull(&flags, &name("docker:1")) == pulled);
    println!(
        "over HTTP/2: {} connections of containerd, of {before} before",
        over_http2() - before
    );
    // many at once over one connection
    let (before, mut arguments) = (over_http2(), vec!["--http2", "--fail", "--parallel"]);
    let (got, ready) = (shore.at("many").display().to_string(), shore.url("/readyz"));
    let manifest = shore.url("/v2/demo/docker/manifests/1");
    for _ in 0..40 {
        arguments.extend(["--output", &got, &ready, "--output", &got, &manifest]);
    }
    shore.curled(&arguments);
    let more = over_http2() - before;
    assert!((1..40).contains(&more), "{more} connections for 80 requests");
}

/// The mesh's CA signs what clients see and what nodes see of each other. The one must not open what
/// the other opens.
#[test]
fn a_certificate_of_the_meshs_own_ca_is_trusted_by_clients_and_opens_nothing_in_the_mesh() {
    let folder = TempDir::with_prefix("atoll-issued-").expect("a temporary folder");
    let at = folder.path();
    let place = loopback();
    let lines = "  tls:\n    issuer: mesh\n    names: registry.example.com\n";
    let node = Member::new(at, "lone", "a", place.clone(), lines, "");
    node.init();
    node.serve();
    let config = at.join("lone.yaml");
    let ca = process::succeed(node.atoll("ca").arg("--config").arg(&config));
    assert!(ca.contains("BEGIN CERTIFICATE") && !ca.contains("PRIVATE"), "{ca}");
    std::fs::write(at.join("ca.crt"), format!("{ca}\n")).expect("a file");
    let curl = |arguments: &[&str]| {
        let mut command = tools::packaged("curl", "curl");
        command.args(["--silent", "--show-error", "--max-time", "60"]);
        process::finish(command.args(arguments))
    };
    let authority = at.join("ca.crt").display().to_string();
    let (url, port) = (format!("https://{}/readyz", place.http), place.http.rsplit_once(':'));
    wait::until_ok("clients that know the CA believe it", || {
        let said = curl(&["--fail", "--cacert", &authority, &url]);
        if said.success { Ok(()) } else { Err(format!("{said:?}\n{}", node.last_words())) }
    });
    let (address, port) = port.expect("an address and a port");
    let named = format!("registry.example.com:{port}:{address}");
    let by_name = format!("https://registry.example.com:{port}/readyz");
    let said = curl(&["--fail", "--cacert", &authority, "--resolve", &named, &by_name]);
    assert!(said.success, "{said:?}");
    let stranger = curl(&["--fail", &url]);
    assert!(!stranger.success && stranger.err.contains("certificate"), "{stranger:?}");
    // who has the certificate and its key comes to the mesh's port with them
    let own = stolen(&node.data());
    let pem = node.data().join("identity/https.pem");
    let text = std::fs::read_to_string(&pem).expect("what was issued");
    let mode = std::fs::metadata(&pem).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the node may read the key");
    let door = place.mesh.parse().expect("an address");
    let asked = |identity: &Identity| {
        let intruder = Intruder::with(identity);
        let open = intruder.knock(door).map_err(|no| format!("{no:?}"))?;
        Ok::<_, String>(intruder.ask(&open, &Ask::Build))
    };
    let answered = asked(&own).expect("the node's own certificate opens it");
    assert!(!answered.is_refusal(), "{answered:?}");
    let https = Identity { certificate: text.clone(), key: text, ..own };
    assert!(asked(&https).map_or(true, |said| said.is_refusal()), "HTTPS opens the mesh");
}
