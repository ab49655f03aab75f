//! As a mirror, the mesh gives each client the registry that it means, however it says so, and
//! never another's content.
//!
//! containerd says it in a parameter, a host name can say it, podman's path says it, and dockerd
//! says nothing. The clients' files are those that `atoll mirror` writes, and `atoll mirror check`
//! finds out what does not work.

use std::path::PathBuf;
use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::certificates::certify;
use tests::complaints::Complaints;
use tests::daemons::{Containerd, Docker, Podman};
use tests::formed::loopback;
use tests::http::{Answer, Client};
use tests::image::{Image, MANIFEST, digest, random_bytes};
use tests::member::Member;
use tests::mesh::Mesh;
use tests::proxies::create_proxy;
use tests::upstream::Upstream;
use tests::{process, tools, wait};

/// Docker Hub is far away: another registry stands for it. `real` is Docker Hub by its own rules,
/// and nothing is ever asked of it.
const SETTINGS: [(&str, &str); 5] = [
    ("mirrors.default", "docker.io"),
    ("mirrors.domain", "mirror.test"),
    ("mirrors.names", "registry.test"),
    ("mirrors.aliases", "{docker.io: hub, hub.test: real, secret.test: secret}"),
    // what is counted at the registries: a busy machine is no reason to ask them again
    ("deadlines.source_stall", "30s"),
];

/// A mesh that mirrors two registries which have the same repositories with other things in them.
struct Harbour {
    mesh: Mesh,
    hub: Upstream,
    other: Upstream,
    folder: TempDir,
}

impl Harbour {
    fn new() -> Self {
        let (mesh, hub, other) =
            (Mesh::up_with(3, &SETTINGS), Upstream::start(), Upstream::start());
        create_proxy(&mesh.client(0), "hub", "docker-registry", hub.url(), true);
        create_proxy(&mesh.client(0), "other", "docker-registry", other.url(), true);
        let folder = TempDir::with_prefix("atoll-mirrors-").expect("a temporary folder");
        Self { mesh, hub, other, folder }
    }

    /// `host:port` of the second registry, which is its name.
    fn other_name(&self) -> &str {
        self.other.url().strip_prefix("http://").expect("a plain URL")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `atoll mirror ...` for the node `at`.
    fn mirror(&self, at: usize, arguments: &[&str]) -> process::Finished {
        let url = self.mesh.nodes()[at].url.as_str();
        let said = [&["mirror", arguments[0], "--url", url], &arguments[1..]].concat();
        self.mesh.atoll(&said)
    }
}

/// Puts a real image into a registry; its digest.
fn fill(upstream: &Upstream, layout: &str, name: &str) -> String {
    let place = upstream.repository(name);
    let to = format!("docker://{}/{name}:1", place.client().authority());
    let from = format!("oci:{}:1", tools::images().join("oci").join(layout).display());
    let mut skopeo = tools::packaged("skopeo", "skopeo");
    process::succeed(skopeo.args(["copy", "-q", "--all", "--dest-tls-verify=false", &from, &to]));
    place.resolve("1").unwrap_or_else(|no| panic!("{no}")).digest
}

/// The blobs that a registry gave. Each must have been requested once, and only by the mesh. (Of a
/// blob that the mesh has for another project it may have to show a part, or all if it is small:
/// the mesh asks for ranges then.)
fn once(upstream: &Upstream) -> usize {
    let asked = upstream.asked_for_content();
    let past = asked
        .iter()
        .find(|one| !one.agent.as_ref().is_some_and(|agent| agent.starts_with("atoll/")));
    assert!(past.is_none(), "a client went past its mirror: {past:?}");
    let given = asked.into_iter().filter(|one| {
        one.method == Method::GET && one.path.contains("/blobs/") && one.range.is_none()
    });
    let mut asked: Vec<_> = given.map(|one| one.path).collect();
    let all = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(all, asked.len(), "a blob was asked for more than once: {asked:?}");
    all
}

fn get(client: &Client, path: &str) -> Answer {
    client
        .ask(Method::GET, path)
        .header("accept", MANIFEST)
        .send()
        .unwrap_or_else(|none| panic!("{path}: {none}"))
}

#[test]
fn however_the_registry_is_named_its_content_comes_and_no_other() {
    let (harbour, wrong) = (Harbour::new(), Complaints::default());
    let (hubs, others, ours) = (Image::tiny(), Image::tiny(), Image::tiny());
    harbour.hub.repository("library/app").push(&hubs, "1").unwrap_or_else(|no| panic!("{no}"));
    harbour.other.repository("library/app").push(&others, "1").unwrap_or_else(|no| panic!("{no}"));
    harbour.other.repository("app").push(&others, "1").unwrap_or_else(|no| panic!("{no}"));
    harbour.mesh.create_project("library2", true, 2);
    harbour.mesh.repository(0, "library2/app").push(&ours, "1").unwrap_or_else(|no| panic!("{no}"));
    let other = harbour.other_name();
    let under_domain = |registry: &str| format!("{}.mirror.test:5000", registry.replace(':', "_"));
    for at in 0..3 {
        let client = harbour.mesh.anyone(at);
        let ways = [
            (None, "library/app".to_owned(), "?ns=docker.io".to_owned(), &hubs),
            (None, "library/app".to_owned(), "?ns=registry-1.docker.io".to_owned(), &hubs),
            (None, "library/app".to_owned(), format!("?ns={other}"), &others),
            (None, "app".to_owned(), format!("?ns={other}"), &others),
            (Some(under_domain("docker.io")), "library/app".to_owned(), String::new(), &hubs),
            (Some(under_domain(other)), "library/app".to_owned(), String::new(), &others),
            (None, "docker.io/library/app".to_owned(), String::new(), &hubs),
            (None, format!("{}/app", other.replace(':', "_")), String::new(), &others),
            (None, "library/app".to_owned(), String::new(), &hubs),
            (None, "hub/library/app".to_owned(), String::new(), &hubs),
            // named twice, as containerd with a path in hosts.toml and BuildKit's mirrors do
            (None, "hub/library/app".to_owned(), "?ns=docker.io".to_owned(), &hubs),
            (None, "docker.io/library/app".to_owned(), "?ns=docker.io".to_owned(), &hubs),
            (None, "other/app".to_owned(), format!("?ns={other}"), &others),
            (
                None,
                format!("{}/library/app", other.replace(':', "_")),
                format!("?ns={other}"),
                &others,
            ),
            (Some(under_domain(other)), "other/library/app".to_owned(), String::new(), &others),
            // an empty parameter is one that was not given
            (None, "library2/app".to_owned(), "?ns=".to_owned(), &ours),
            (None, "library2/app".to_owned(), String::new(), &ours),
            (None, "library2/app".to_owned(), "?ns=registry.test".to_owned(), &ours),
            (None, "library2/app".to_owned(), format!("?ns={}", client.authority()), &ours),
        ];
        for (host, repository, query, image) in ways {
            let client = host
                .as_ref()
                .map_or_else(|| client.clone(), |host| client.clone().calling_it(host));
            let named = format!("{repository}{query} as {host:?} at {at}");
            for reference in ["1", image.digest()] {
                let answer =
                    get(&client, &format!("/v2/{repository}/manifests/{reference}{query}"));
                wrong.unless(answer.body == image.manifest.bytes, || {
                    format!("{named}, {reference}: {answer}")
                });
            }
            for blob in &image.blobs {
                let answer =
                    get(&client, &format!("/v2/{repository}/blobs/{}{query}", blob.digest));
                wrong.unless(answer.body == blob.bytes, || format!("{named}, a blob: {answer}"));
            }
        }
        // what no project caches is not here, and neither is what another registry has
        let unknown = client.get("/v2/library/app/manifests/1?ns=ghcr.io");
        let says = unknown
            .as_ref()
            .ok()
            .and_then(Answer::envelope)
            .map(|(_, message)| message)
            .unwrap_or_default();
        wrong.unless(says.contains("ghcr.io") && says.contains("docker.io"), || {
            format!("at {at}: {says}")
        });
        wrong.unless_refused("a registry that nobody caches", unknown, &[404], &["NAME_UNKNOWN"]);
        let nobody = get(
            &client.clone().calling_it(&under_domain("ghcr.io")),
            "/v2/library/app/manifests/1",
        );
        wrong.unless_refused("the same by host name", Ok(nobody), &[404], &["NAME_UNKNOWN"]);
        let theirs =
            client.get(&format!("/v2/library/app/blobs/{}?ns=docker.io", others.blobs[1].digest));
        wrong.unless_refused("another registry's blob", theirs, &[404], &["BLOB_UNKNOWN"]);
        let own = client.get("/v2/library2/app/manifests/1?ns=docker.io");
        wrong.unless_refused(
            "our own project in another's name",
            own,
            &[404],
            &["MANIFEST_UNKNOWN"],
        );
        let path = "/v2/library/app/manifests/1?ns=docker.io";
        let push = harbour.mesh.client(at).ask(Method::PUT, path).header("content-type", MANIFEST);
        wrong.unless_refused(
            "a push",
            push.body(ours.manifest.bytes.clone()).send(),
            &[403],
            &["DENIED"],
        );
        let push = harbour
            .mesh
            .client(at)
            .ask(Method::POST, "/v2/library/app/blobs/uploads/?ns=ghcr.io")
            .send();
        wrong.unless_refused("a push to nowhere", push, &[404], &["NAME_UNKNOWN"]);
    }
    for (upstream, image) in [(&harbour.hub, &hubs), (&harbour.other, &others)] {
        for blob in &image.blobs {
            let asked = upstream.asked_for(&Method::GET, &format!("blobs/{}", blob.digest));
            assert_eq!(
                asked
                    .iter()
                    .filter(|one| one.range.is_none() && one.sent >= blob.bytes.len())
                    .count(),
                1,
                "{asked:?}"
            );
        }
    }
}

#[test]
fn redirects_lists_and_tokens_stay_in_the_names_that_the_client_used() {
    let (harbour, wrong) = (Harbour::new(), Complaints::default());
    let image = Image::tiny();
    for tag in ["1", "2", "3"] {
        harbour.hub.repository("library/app").push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    create_proxy(&harbour.mesh.client(0), "real", "docker-hub", "https://hub.docker.com", true);
    create_proxy(&harbour.mesh.client(0), "sealed", "docker-hub", "https://hub.docker.com", false);
    create_proxy(&harbour.mesh.client(0), "secret", "docker-registry", harbour.hub.url(), false);
    let anything = digest(&random_bytes(8));
    for at in 0..3 {
        let client = harbour.mesh.anyone(at);
        // Docker Hub's one-part names are in library/
        for (asked, to) in [
            (
                "/v2/nginx/manifests/1?ns=hub.test".to_owned(),
                "/v2/library/nginx/manifests/1?ns=hub.test".to_owned(),
            ),
            (
                "/v2/hub.test/nginx/manifests/1".to_owned(),
                "/v2/hub.test/library/nginx/manifests/1".to_owned(),
            ),
            (
                "/v2/real/nginx/manifests/1".to_owned(),
                "/v2/real/library/nginx/manifests/1".to_owned(),
            ),
            (
                format!("/v2/nginx/blobs/{anything}?ns=hub.test"),
                format!("/v2/library/nginx/blobs/{anything}?ns=hub.test"),
            ),
            (
                "/v2/nginx/tags/list?ns=hub.test&n=2".to_owned(),
                "/v2/library/nginx/tags/list?ns=hub.test&n=2".to_owned(),
            ),
        ] {
            let answer = get(&client, &asked);
            let right = answer.status == 301 && answer.header("location") == Some(&to);
            wrong.unless(right, || {
                format!("{asked} at {at}: {answer}, {:?}", answer.header("location"))
            });
        }
        // a token for the short name is one for where it leads
        let (user, password) = harbour.mesh.admin();
        let asked = "/service/token?service=atoll&scope=repository:sealed/nginx:pull";
        let token = get(&client.clone().basic(user, password), asked).json()["token"].clone();
        let bearer = client.clone().bearer(token.as_str().unwrap_or_default());
        let moved = get(&bearer, "/v2/sealed/nginx/tags/list");
        wrong.unless(moved.status == 301, || format!("a short name with a token at {at}: {moved}"));
        let there = bearer.get(moved.header("location").unwrap_or("/v2/no-location"));
        // let in, and then the list is Docker Hub's, which no scenario reaches
        let leads = format!("where it leads, at {at}");
        wrong.unless_refused(&leads, there, &[503], &["UNAVAILABLE"]);
        let other = get(&bearer, "/v2/sealed/team/app/manifests/1");
        let challenge = other.header("www-authenticate").unwrap_or_default();
        let insufficient =
            other.status == 401 && challenge.contains(",error=\"insufficient_scope\"");
        wrong.unless(insufficient, || {
            format!("a token for something else at {at}: {other}, {challenge}")
        });
        // pages lead on to pages of the same registry
        for tag in ["1", "2", "3"] {
            let found = get(&client, &format!("/v2/library/app/manifests/{tag}?ns=docker.io"));
            assert_eq!(found.status, 200, "{found}");
        }
        for (start, name) in [
            ("/v2/library/app/tags/list?n=2&ns=docker.io", "library/app"),
            ("/v2/docker.io/library/app/tags/list?n=2", "docker.io/library/app"),
            ("/v2/hub/library/app/tags/list?n=2", "hub/library/app"),
        ] {
            let first = get(&client, start);
            let link = first
                .header("link")
                .and_then(|link| link.strip_prefix('<')?.split_once('>'))
                .map(|(to, _)| to);
            let rest = get(&client, link.unwrap_or("/v2/no-link"));
            let right = first.json()["tags"] == serde_json::json!(["1", "2"])
                && first.json()["name"] == name;
            wrong.unless(right, || format!("{start} at {at}: {first}"));
            wrong.unless(rest.json()["tags"] == serde_json::json!(["3"]), || {
                format!("{link:?} at {at}: {rest}")
            });
        }

        // a private project needs a token, whose scope each client makes of the names that it has
        let (user, password) = harbour.mesh.admin();
        let domain = "secret.test.mirror.test";
        let own_scope = "repository:secret/library/app:pull";
        for (host, path, scope) in [
            (None, "/v2/library/app/manifests/1?ns=secret.test", own_scope),
            (
                None,
                "/v2/secret.test/library/app/manifests/1",
                "repository:secret.test/library/app:pull",
            ),
            (Some(domain), "/v2/library/app/manifests/1", "repository:library/app:pull"),
        ] {
            let anyone =
                host.map_or_else(|| client.clone(), |host| client.clone().calling_it(host));
            let challenged = get(&anyone, path);
            let challenge = challenged.header("www-authenticate").unwrap_or_default().to_owned();
            wrong.unless(challenged.status == 401 && challenge.contains(own_scope), || {
                format!("{path} at {at}: {challenged}, {challenge}")
            });
            let realm =
                format!("realm=\"http://{}/service/token\"", host.unwrap_or(client.authority()));
            wrong.unless(challenge.contains(&realm), || {
                format!("{path} at {at}: {challenge}, not {realm}")
            });
            for scope in [own_scope, scope] {
                let token = get(
                    &anyone.clone().basic(user, password),
                    &format!("/service/token?service=atoll&scope={scope}"),
                );
                let token = token.json()["token"].as_str().unwrap_or_default().to_owned();
                let answer = get(&anyone.clone().bearer(&token), path);
                wrong.unless(answer.body == image.manifest.bytes, || {
                    format!("{path} with {scope} at {at}: {answer}")
                });
            }
            let token = get(&anyone, &format!("/service/token?service=atoll&scope={scope}")).json();
            let token = token["token"].as_str().unwrap_or_default();
            let refused = get(&anyone.clone().bearer(token), path);
            wrong.unless_refused(
                "a private project for anyone",
                Ok(refused),
                &[401],
                &["UNAUTHORIZED"],
            );
        }
    }
    let told = |client: &Client| get(client, "/api/atoll/v1/mirrors").json();
    let names = |told: &Value| {
        let all = told["registries"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|one| one["registry"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let (public, all) =
        (names(&told(&harbour.mesh.anyone(1))), names(&told(&harbour.mesh.client(1))));
    wrong.unless(
        public.contains(&"docker.io".into()) && !public.contains(&"secret.test".into()),
        || format!("{public:?}"),
    );
    wrong.unless(all.contains(&"secret.test".into()), || format!("{all:?}"));
    let nodes = told(&harbour.mesh.anyone(1))["nodes"].clone();
    wrong.unless(nodes[0]["url"] == harbour.mesh.nodes()[1].url.as_str(), || {
        format!("the nearest is itself: {nodes}")
    });
    wrong.unless(nodes.as_array().map(Vec::len) == Some(3), || format!("{nodes}"));
}

#[test]
fn containerd_pulls_from_two_registries_through_one_mirror() {
    let harbour = Harbour::new();
    let (hubs, others) = (
        fill(&harbour.hub, "app", "library/hello"),
        fill(&harbour.other, "multi", "library/hello"),
    );
    assert_ne!(hubs, others);
    let certs = harbour.path("certs.d").display().to_string();
    let written = harbour.mirror(1, &["containerd", "--install", "--certs-dir", &certs]);
    assert!(
        written.success && harbour.path("certs.d/_default/hosts.toml").is_file(),
        "{written:?}"
    );
    let containerd = Containerd::start();
    let other = format!("{}/library/hello:1", harbour.other_name());
    for (name, digest) in [("docker.io/library/hello:1", &hubs), (&*other, &others)] {
        assert_eq!(containerd.pull(&["--hosts-dir", &certs], name), *digest, "{name}");
    }
    // a private project's: containerd gets a token for what the challenge names
    create_proxy(&harbour.mesh.client(0), "secret", "docker-registry", harbour.hub.url(), false);
    let (user, password) = harbour.mesh.admin();
    let login = format!("{user}:{password}");
    let secret =
        containerd.pull(&["--hosts-dir", &certs, "--user", &login], "secret.test/library/hello:1");
    assert_eq!(secret, hubs);
    // elsewhere it is in the mesh already
    let again = harbour.path("again").display().to_string();
    let written = harbour
        .mirror(2, &["containerd", "--install", "--certs-dir", &again, "--registry", "docker.io"]);
    let file =
        std::fs::read_to_string(harbour.path("again/docker.io/hosts.toml")).unwrap_or_default();
    assert!(
        written.success && file.contains("server = \"https://registry-1.docker.io\""),
        "{written:?}: {file}"
    );
    assert_eq!(
        Containerd::start().pull(&["--hosts-dir", &again], "docker.io/library/hello:1"),
        hubs
    );
    let counts = (once(&harbour.hub), once(&harbour.other));
    assert!(counts.0 > 0 && counts.1 > 0, "{counts:?}: {:?}", harbour.other.asked());
    // a mirror that is gone costs nothing: the next one has it
    let all = harbour.path("all").display().to_string();
    let written =
        harbour.mirror(1, &["containerd", "--install", "--all-regions", "--certs-dir", &all]);
    assert!(written.success, "{written:?}");
    harbour.mesh.kill(1);
    assert_eq!(Containerd::start().pull(&["--hosts-dir", &all], "docker.io/library/hello:1"), hubs);
    once(&harbour.hub);
    // what it did not write it leaves alone
    let file = harbour.path("again/docker.io/hosts.toml");
    std::fs::write(&file, "mine").expect("a file can be written");
    let refused = harbour
        .mirror(2, &["containerd", "--install", "--certs-dir", &again, "--registry", "docker.io"]);
    assert!(!refused.success && refused.err.contains("not written by this command"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "mine");
}

#[test]
fn dockerd_pulls_docker_hubs_images_through_its_mirror() {
    let harbour = Harbour::new();
    let hubs = fill(&harbour.hub, "tiny", "library/hello");
    let file = harbour.path("daemon.json");
    std::fs::write(&file, r#"{"max-concurrent-downloads": 2}"#).expect("a file can be written");
    let settings = file.display().to_string();
    let written = harbour.mirror(1, &["docker", "--install", "--daemon-json", &settings]);
    assert!(written.success, "{written:?}");
    let merged: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    assert_eq!(merged["max-concurrent-downloads"], 2, "{merged}");
    assert_eq!(merged["registry-mirrors"][0], harbour.mesh.nodes()[1].url.as_str(), "{merged}");
    let again = harbour.mirror(2, &["docker", "--install", "--daemon-json", &settings]);
    assert!(again.success, "{again:?}");
    let kept =
        std::fs::read_to_string(harbour.path("daemon.json.bak")).expect("what was there first");
    assert_eq!(kept, r#"{"max-concurrent-downloads": 2}"#, "after two runs");
    let docker = Docker::start_with(&merged.to_string());
    assert_eq!(docker.pull("hello:1"), hubs);
    assert!(once(&harbour.hub) > 0);
}

#[test]
fn podman_and_skopeo_pull_from_two_registries_through_one_mirror() {
    let harbour = Harbour::new();
    let (hubs, others) =
        (fill(&harbour.hub, "tiny", "library/hello"), fill(&harbour.other, "app", "library/hello"));
    let folder = harbour.path("registries.conf.d").display().to_string();
    let written = harbour.mirror(2, &["podman", "--install", "--registries-conf-d", &folder]);
    assert!(written.success, "{written:?}");
    let file = harbour.path("registries.conf.d/50-atoll.conf");
    let podman = Podman::with_registries(&file);
    let other = format!("{}/library/hello:1", harbour.other_name());
    for (name, digest) in [("docker.io/library/hello:1", &hubs), (&*other, &others)] {
        assert_eq!(podman.pull(name), *digest, "{name}");
    }
    assert!(once(&harbour.hub) > 0 && once(&harbour.other) > 0);
    let mut skopeo = tools::packaged("skopeo", "skopeo");
    // older ones look for it nowhere else
    skopeo.arg("--registries-conf").arg(&file);
    let to = format!("dir:{}", harbour.path("skopeo").display());
    process::succeed(skopeo.args(["copy", "-q", "docker://docker.io/library/hello:1", &to]));
    once(&harbour.hub);
    // the second registry speaks no TLS: what goes to it by itself gets there, too
    (0..3).for_each(|at| harbour.mesh.kill(at));
    let mut skopeo = tools::packaged("skopeo", "skopeo");
    skopeo.arg("--registries-conf").arg(&file).args(["inspect", "--format", "{{.Digest}}"]);
    let past =
        process::succeed(skopeo.arg(format!("docker://{}/library/hello:1", harbour.other_name())));
    assert_eq!(past.trim(), others);
}

#[test]
fn a_check_pulls_in_every_way_through_every_node_and_names_what_fails() {
    let harbour = Harbour::new();
    let image = Image::random(&[1 << 20, 4096]);
    harbour.hub.repository("library/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    harbour.other.repository("team/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let other = format!("{}/team/app:1", harbour.other_name());
    let told = harbour.mirror(0, &["check", "--all-regions", "app:1", &other]);
    assert!(told.success, "{told:?}");
    // ns, path, host and default for the first, all but the last for the second, at three nodes
    let rows: Vec<_> = told.out.lines().filter(|line| line.ends_with(" ok")).collect();
    assert_eq!(rows.len(), 3 * (4 + 3), "{told:?}");
    let size: usize =
        image.manifest.bytes.len() + image.blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>();
    assert!(rows.iter().all(|row| row.contains(&size.to_string())), "{size} bytes each: {told:?}");
    assert_eq!(
        (once(&harbour.hub), once(&harbour.other)),
        (3, 0),
        "what the mesh has from one it needs from no other"
    );

    let near = harbour.mirror(0, &["check", "app:1"]);
    assert!(near.success && near.out.lines().count() == 1 + 4, "its own region's only: {near:?}");
    let unknown = harbour.mirror(0, &["check", "ghcr.io/x/y:1"]);
    assert!(!unknown.success && unknown.err.contains("ghcr.io is not among"), "{unknown:?}");
    let missing = harbour.mirror(0, &["check", "app:2"]);
    assert!(!missing.success && missing.err.contains("404"), "{missing:?}");

    harbour.mesh.kill(2);
    let told = harbour.mirror(0, &["check", "--all-regions", "app:1"]);
    let node = &harbour.mesh.nodes()[2];
    let named =
        told.err.contains(&format!("{} ({})", node.name, node.url)) && told.err.contains("refused");
    assert!(!told.success && named, "{told:?}");
    assert_eq!(told.out.lines().filter(|line| line.ends_with(" ok")).count(), 2 * 4, "{told:?}");
    let mut bare = Command::new(tools::atoll());
    let nobody = process::finish(bare.args(["mirror", "check", "app:1", "--url", &node.url]));
    assert!(!nobody.success && nobody.err.contains("refused"), "{nobody:?}");
}

#[test]
fn over_https_the_files_carry_the_authority() {
    let (upstream, folder) =
        (Upstream::start(), TempDir::with_prefix("atoll-mirror-tls-").expect("a temporary folder"));
    let digest = fill(&upstream, "tiny", "library/hello");
    let place = loopback();
    certify(folder.path(), place.http.split(':').next().expect("an address"));
    let at = |name: &str| folder.path().join(name).display().to_string();
    let more = "upstreams: {allow_loopback: true}\nmirrors: {default: docker.io, aliases: {docker.io: hub}}\n";
    let plain = Member::new(folder.path(), "lone", "a", place.clone(), "", more);
    let password = plain.init();
    plain.serve();
    plain.wait_ready();
    create_proxy(
        &plain.anyone().basic("admin", &password),
        "hub",
        "docker-registry",
        upstream.url(),
        true,
    );
    assert!(plain.stop(Signal::TERM).success());
    let tls = format!("  tls: {{certificate: {}, key: {}}}\n", at("node.crt"), at("node.key"));
    let node = Member::new(folder.path(), "lone", "a", place.clone(), &tls, more);
    node.serve();

    let (url, ca) = (format!("https://{}", place.http), at("ca.crt"));
    let mirror = |arguments: &[&str]| {
        process::finish(
            node.atoll("mirror").arg(arguments[0]).args(["--url", &url]).args(&arguments[1..]),
        )
    };
    wait::until_ok("a check goes through over https", || {
        let told = mirror(&["check", "--ca", &ca, "hello:1"]);
        if told.success { Ok(()) } else { Err(format!("{told:?}\n{}", node.last_words())) }
    });
    let stranger = mirror(&["check", "hello:1"]);
    assert!(
        !stranger.success && stranger.err.contains("certificate"),
        "without the CA: {stranger:?}"
    );
    let files = [
        vec!["containerd", "--install", "--ca", &ca, "--certs-dir"],
        vec!["docker", "--install", "--ca", &ca, "--daemon-json"],
        vec!["podman", "--install", "--ca", &ca, "--registries-conf-d"],
    ];
    for (arguments, place) in
        files.iter().zip(["certs.d", "docker/daemon.json", "containers/registries.conf.d"])
    {
        let written = mirror(&[arguments.as_slice(), &[&at(place)]].concat());
        assert!(written.success, "{written:?}");
        // Docker 28 and later asks for tokens without certs.d: only its users have to do more
        let store = format!("cp {ca} /usr/local/share/ca-certificates/");
        let told = written.err.contains("Docker 28") && written.err.contains(&store);
        assert_eq!(told, arguments[0] == "docker", "{written:?}");
    }
    let authority = std::fs::read(&ca).expect("the CA");
    for copy in ["docker", "containers"] {
        let copied = folder.path().join(copy).join("certs.d").join(&place.http).join("ca.crt");
        assert_eq!(std::fs::read(&copied).unwrap_or_default(), authority, "{}", copied.display());
    }
    let certs = at("certs.d");
    assert_eq!(
        Containerd::start().pull(&["--hosts-dir", &certs], "docker.io/library/hello:1"),
        digest
    );
    assert!(once(&upstream) > 0);
}
