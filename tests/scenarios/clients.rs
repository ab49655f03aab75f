//! The clients people have push to one region and pull from the others, real images, and all see
//! the same digests.
//!
//! Each test is one client pushing and the rest reading. docker sends one chunked PATCH a layer,
//! containerd one PUT, skopeo checks six blobs at once, crane asks HEAD first, oras mounts: between
//! them they walk most of the ways into a registry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use http::Method;
use rules::words::moment::Timestamp;
use serde_json::{Value, json};
use sign::making::{Claims, SigningKey, classic};
use tempfile::TempDir;
use tests::daemons::{Containerd, Docker, Podman};
use tests::image::{Blob, MANIFEST};
use tests::mesh::Mesh;
use tests::{people, process, tools, wait};

/// A mesh, and the clients' files.
struct Shore {
    images: PathBuf,
    mesh: Mesh,
    folder: TempDir,
}

impl Shore {
    fn new() -> Self {
        let images = tools::images();
        let mesh = Mesh::up(3);
        let folder = TempDir::with_prefix("atoll-shore-").expect("a temporary folder");
        let shore = Self { images, mesh, folder };
        let (user, password) = shore.mesh.admin();
        shore.sign_in(user, password);
        shore
    }

    /// From now on the clients that read a file with credentials are somebody else.
    fn sign_in(&self, user: &str, password: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let known =
            |at: usize| (self.mesh.client(at).authority().to_owned(), json!({"auth": pair}));
        let auths: serde_json::Map<String, Value> =
            (0..self.mesh.nodes().len()).map(known).collect();
        let file = self.folder.path().join("config.json");
        std::fs::write(file, json!({"auths": auths}).to_string()).expect("a file");
    }

    /// What a client calls a repository of project `demo` at a node.
    fn name(&self, at: usize, rest: &str) -> String {
        format!("{}/demo/{rest}", self.mesh.client(at).authority())
    }

    fn layout(&self, name: &str) -> String {
        self.images.join("oci").join(name).display().to_string()
    }

    /// What every node says `tag` is: one answer, or the scenario ends.
    fn digest(&self, repository: &str, tag: &str) -> String {
        let at = |at| {
            self.mesh
                .repository(at, &format!("demo/{repository}"))
                .resolve(tag)
                .map(|found| found.digest)
        };
        let all = [0, 1, 2]
            .map(|node| at(node).unwrap_or_else(|no| panic!("{repository}:{tag} at {node}: {no}")));
        assert!(
            all.iter().all(|one| one == &all[0]),
            "the nodes disagree about {repository}:{tag}: {all:?}"
        );
        all[0].clone()
    }

    fn run(&self, mut command: Command, arguments: &[&str]) -> String {
        let folder = self.folder.path();
        process::succeed(command.args(arguments).current_dir(folder).env("DOCKER_CONFIG", folder))
    }

    fn skopeo(&self, arguments: &[&str]) -> String {
        let mut command = tools::packaged("skopeo", "skopeo");
        command.env("REGISTRY_AUTH_FILE", self.folder.path().join("config.json"));
        self.run(command, arguments)
    }

    /// skopeo copies all of an image to a folder; its digest.
    fn skopeo_pulls(&self, name: &str) -> String {
        let to = format!("dir:{}", self.fresh("skopeo"));
        self.skopeo(&[
            "copy",
            "-q",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &to,
        ]);
        self.skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &format!("docker://{name}"),
        ])
    }

    fn skopeo_pushes(&self, from: &str, name: &str) {
        self.skopeo(&[
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
            from,
            &format!("docker://{name}"),
        ]);
    }

    fn crane(&self, arguments: &[&str]) -> String {
        self.run(tools::built_by_go("crane"), &[arguments, &["--insecure"]].concat())
    }

    /// From now on the project serves what is signed, and nothing else.
    fn demand_signatures(&self) {
        let body = json!({"metadata": {"signature_policy": "enforce"}});
        let answer = self.mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/demo", &body);
        assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 200);
    }

    /// Signs an image with a key that the project trusts from now on, and waits until that counts.
    fn sign(&self, repository: &str, digest: &str) {
        let key = SigningKey::generate().expect("a key");
        let body = json!({"name": "ci", "key": key.public_pem()});
        let path = "/api/v2.0/projects/demo/signers";
        let answer = self.mesh.client(0).send_json(Method::POST, path, &body);
        assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 201);
        let made = classic(
            &key,
            &Claims {
                reference: self.name(0, repository),
                subject: digest.parse().expect("a digest"),
                subject_size: 0,
                subject_media_type: String::new(),
                optional: BTreeMap::new(),
                timestamp: Timestamp(1_780_000_000_000),
            },
        );
        let repository = self.mesh.repository(0, &format!("demo/{repository}"));
        for blob in &made.blobs {
            repository.upload(&Blob::of(blob.clone())).unwrap_or_else(|no| panic!("{no}"));
        }
        let tag = format!("{}.sig", digest.replace(':', "-"));
        let put = repository.put_bytes(&tag, MANIFEST, made.manifest.into());
        put.unwrap_or_else(|no| panic!("{no}"));
        let path = repository.path(&format!("manifests/{digest}"));
        wait::until("the signature counts", || {
            let answer = self.mesh.client(1).anonymous().get(&path).ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// crane reads every layer and checks it against manifest and configuration; the digest.
    fn crane_pulls(&self, name: &str) -> String {
        self.crane(&["validate", "--remote", name]);
        self.crane(&["digest", name])
    }

    fn oras(&self, arguments: &[&str]) -> String {
        self.run(tools::built_by_go("oras"), arguments)
    }

    /// A folder name that nothing has used yet.
    fn fresh(&self, what: &str) -> String {
        let folder = TempDir::with_prefix_in(format!("{what}-"), self.folder.path())
            .expect("a temporary folder");
        folder.keep().join("here").display().to_string()
    }
}

/// ctr pulls and unpacks; the digest it found.
fn ctr_pulls(containerd: &Containerd, name: &str) -> String {
    containerd.pull(&["--plain-http"], name)
}

#[test]
fn docker_pushes_190_megabytes_and_the_others_pull_them_elsewhere() {
    let shore = Shore::new();
    let (docker, containerd) = (Docker::start(), Containerd::start());
    let (user, password) = shore.mesh.admin();
    docker.login(shore.mesh.client(0).authority(), user, password);
    docker.run(&["load", "-q", "-i", &shore.images.join("docker/app.tar").display().to_string()]);
    for tag in ["app:1", "app:2"] {
        // the second shares all layers but one with the first
        docker.run(&["tag", &format!("atoll/{tag}"), &shore.name(0, tag)]);
        docker.run(&["push", "-q", &shore.name(0, tag)]);
    }
    let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", "atoll/app:1"]);
    let digest = shore.digest("app", "1");
    assert_eq!(ctr_pulls(&containerd, &shore.name(1, "app:1")), digest);
    assert_eq!(shore.skopeo_pulls(&shore.name(2, "app:1")), digest);
    assert_eq!(shore.crane_pulls(&shore.name(1, "app:2")), shore.digest("app", "2"));
    // everything that docker has of it, so that the layers have to come again
    let own = [
        shore.name(0, "app:1"),
        shore.name(0, "app:2"),
        "atoll/app:1".into(),
        "atoll/app:2".into(),
    ];
    docker.run(&[&["rmi", "-f"], own.each_ref().map(String::as_str).as_slice()].concat());
    assert_eq!(docker.pull(&shore.name(2, "app:1")), digest);
    assert_eq!(
        docker.run(&["image", "inspect", "--format", "{{.Id}}", &shore.name(2, "app:1")]),
        id,
        "the same image came back"
    );
}

#[test]
fn skopeo_pushes_an_index_of_two_platforms_and_the_others_pull_it_elsewhere() {
    let shore = Shore::new();
    let (docker, containerd) = (Docker::start(), Containerd::start());
    shore.skopeo_pushes(&format!("oci:{}:1", shore.layout("multi")), &shore.name(1, "multi:1"));
    let digest = shore.digest("multi", "1");
    let index = shore.crane(&["manifest", &shore.name(0, "multi:1")]);
    let index: Value = serde_json::from_str(&index).expect("an index is JSON");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "both platforms: {index}");
    assert_eq!(docker.pull(&shore.name(0, "multi:1")), digest);
    assert_eq!(ctr_pulls(&containerd, &shore.name(2, "multi:1")), digest);
    assert_eq!(shore.crane_pulls(&shore.name(2, "multi:1")), digest);
    // and through docker's own format, which names its types differently
    shore.skopeo(&[
        "copy",
        "-q",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        &format!("oci:{}:1", shore.layout("tiny")),
        &format!("docker://{}", shore.name(2, "tiny:docker")),
    ]);
    assert_eq!(docker.pull(&shore.name(1, "tiny:docker")), shore.digest("tiny", "docker"));
}

#[test]
fn containerd_pushes_and_the_others_pull_it_elsewhere() {
    let shore = Shore::new();
    let (docker, containerd) = (Docker::start(), Containerd::start());
    let (user, password) = shore.mesh.admin();
    let (tar, name) =
        (shore.images.join("docker/app.tar").display().to_string(), shore.name(2, "ctr:1"));
    containerd.run(&["images", "import", &tar]);
    containerd.run(&["images", "tag", "docker.io/atoll/app:1", &name]);
    containerd.run(&[
        "images",
        "push",
        "--plain-http",
        "--user",
        &format!("{user}:{password}"),
        &name,
    ]);
    let digest = shore.digest("ctr", "1");
    assert_eq!(containerd.digest(&name), digest);
    assert_eq!(shore.skopeo_pulls(&shore.name(0, "ctr:1")), digest);
    assert_eq!(docker.pull(&shore.name(1, "ctr:1")), digest);
    // these layers are not compressed, which crane's validation does not expect
    assert_eq!(shore.crane(&["digest", &shore.name(1, "ctr:1")]), digest);
}

#[test]
fn podman_and_buildah_push_and_the_others_pull_it_elsewhere() {
    let shore = Shore::new();
    let containerd = Containerd::start();
    let registries: String = (0..3)
        .map(|at| {
            let node = shore.mesh.client(at).authority().to_owned();
            format!("[[registry]]\nlocation = \"{node}\"\ninsecure = true\n")
        })
        .collect();
    let conf = shore.folder.path().join("registries.conf");
    std::fs::write(&conf, registries).expect("a file");
    let podman = Podman::with_registries(&conf);
    let (user, password) = shore.mesh.admin();
    let credentials = format!("{user}:{password}");
    let tar = shore.images.join("docker/app.tar").display().to_string();

    let loaded = podman.run(&["load", "-q", "-i", &tar]);
    let (_, loaded) = loaded.trim().rsplit_once(' ').expect("podman says what it calls the image");
    let pushed = shore.name(0, "podman:1");
    podman.run(&["push", "-q", "--creds", &credentials, loaded, &pushed]);
    let digest = shore.digest("podman", "1");
    assert_eq!(ctr_pulls(&containerd, &shore.name(1, "podman:1")), digest);
    assert_eq!(shore.skopeo_pulls(&shore.name(2, "podman:1")), digest);
    // everything that podman has of it, so that the layers have to come again
    podman.run(&["rmi", "-a", "-f"]);
    assert_eq!(podman.pull(&shore.name(2, "podman:1")), digest);

    let container = podman.buildah(&["from", "-q", "scratch"]);
    let container = container.trim();
    podman.buildah(&["copy", "-q", container, &conf.display().to_string(), "/etc/"]);
    podman.buildah(&["config", "--cmd", "/nothing", container]);
    podman.buildah(&["commit", "-q", container, "built"]);
    let built = format!("docker://{}", shore.name(1, "buildah:1"));
    podman.buildah(&["push", "-q", "--creds", &credentials, "built", &built]);
    let digest = shore.digest("buildah", "1");
    assert_eq!(ctr_pulls(&containerd, &shore.name(2, "buildah:1")), digest);
    podman.run(&["rmi", "-a", "-f"]);
    assert_eq!(podman.pull(&shore.name(0, "buildah:1")), digest);

    // each is refused what its project wants signed, and told why; none when it is
    shore.demand_signatures();
    podman.run(&["rmi", "-a", "-f"]);
    let (docker, name) = (Docker::start(), shore.name(1, "buildah:1"));
    let pulls = || {
        let (mut by_docker, mut by_ctr) = (docker.command(), containerd.command());
        by_docker.args(["pull", "-q", &name]);
        by_ctr.args(["images", "pull", "--plain-http", &name]);
        [("docker", by_docker), ("ctr", by_ctr), ("podman", podman.pulling(&name))]
    };
    for (client, mut pull) in pulls() {
        let told = process::finish(&mut pull);
        // ctr shows a status and no reason
        let why = if client == "ctr" { "403" } else { "project demo serves signed images only" };
        assert!(!told.success && told.err.contains(why), "{client}: {told:?}");
    }
    shore.sign("buildah", &digest);
    for (client, mut pull) in pulls() {
        let told = process::finish(&mut pull);
        assert!(told.success, "{client}: {told:?}");
    }
}

#[test]
fn crane_and_oras_push_images_artifacts_and_charts_and_find_them_elsewhere() {
    let shore = Shore::new();
    let containerd = Containerd::start();
    let config = shore.folder.path().join("config.json").display().to_string();
    let ours = ["--plain-http", "--registry-config", &config];
    let app = shore.fresh("one");
    // crane pushes layouts of one image; ours holds two
    shore.skopeo(&["copy", "-q", &format!("oci:{}:1", shore.layout("app")), &format!("oci:{app}")]);
    shore.crane(&["push", &app, &shore.name(0, "crane:1")]);
    let digest = shore.digest("crane", "1");
    assert_eq!(shore.crane_pulls(&shore.name(1, "crane:1")), digest);
    assert_eq!(ctr_pulls(&containerd, &shore.name(2, "crane:1")), digest);

    let copy = ["--to-plain-http", "--to-registry-config", &config, "--from-oci-layout"];
    let put = |what: &str, to: &str| {
        shore.oras(
            &[&["cp"], &copy[..], &[&shore.layout(what).add(to), &shore.name(0, to)]].concat(),
        )
    };
    put("multi", "multi:1");
    put("chart", "chart:0.1.0");
    // within a registry, from one repository to another: the layers are mounted
    let from = [
        "--from-plain-http",
        "--from-registry-config",
        &config,
        "--to-plain-http",
        "--to-registry-config",
        &config,
    ];
    shore.oras(
        &[&["cp"], &from[..], &[&shore.name(1, "multi:1"), &shore.name(1, "again:1")]].concat(),
    );
    assert_eq!(shore.digest("again", "1"), shore.digest("multi", "1"));

    let sbom = shore.oras(
        &[
            &["cp"],
            &copy[..],
            &[&shore.layout("sbom").add("sbom:sbom"), &shore.name(0, "multi:sbom")],
        ]
        .concat(),
    );
    assert!(!sbom.is_empty());
    std::fs::write(shore.folder.path().join("review.txt"), "looks good").expect("a file");
    let review = [
        "attach",
        "--artifact-type",
        "application/vnd.example.review",
        "--disable-path-validation",
    ];
    shore.oras(
        &[&review[..], &ours[..], &[&shore.name(1, "multi:1"), "review.txt:text/plain"]].concat(),
    );
    for at in 0..3 {
        let found = shore.oras(
            &[&["discover", "--format", "json"], &ours[..], &[&shore.name(at, "multi:1")]].concat(),
        );
        let kinds = ["application/spdx+json", "application/vnd.example.review"];
        assert!(kinds.iter().all(|kind| found.contains(kind)), "at {at} the referrers are {found}");
        let chart = shore
            .oras(&[&["manifest", "fetch"], &ours[..], &[&shore.name(at, "chart:0.1.0")]].concat());
        assert!(
            chart.contains("application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
            "at {at}: {chart}"
        );
    }
}

/// A user and a robot push into a private project and pull from it elsewhere, with every client
/// that has a way of its own to sign in.
#[test]
fn a_user_and_a_robot_sign_in_with_every_client() {
    let shore = Shore::new();
    let (docker, containerd) = (Docker::start(), Containerd::start());
    let registries: String = (0..3)
        .map(|at| {
            let node = shore.mesh.client(at).authority().to_owned();
            format!("[[registry]]\nlocation = \"{node}\"\ninsecure = true\n")
        })
        .collect();
    let conf = shore.folder.path().join("registries.conf");
    std::fs::write(&conf, registries).expect("a file");
    let podman = Podman::with_registries(&conf);
    let admin = shore.mesh.client(0);
    shore.mesh.create_project("team", false, 1);
    people::create_user(&admin, "ann");
    people::add_member(&admin, "team", "ann", 2);
    let robot = people::create_robot(&admin, &people::robot_of("team", "ci", &["pull", "push"]));
    let name = |at: usize, tag: &str| format!("{}/team/{tag}", shore.mesh.client(at).authority());
    docker.run(&["load", "-q", "-i", &shore.images.join("docker/tiny.tar").display().to_string()]);
    let loaded = docker.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let loaded = loaded.lines().next().expect("docker loaded an image").to_owned();
    for (user, secret) in [("ann", people::PASSWORD), (&robot.name, &robot.secret)] {
        let who = if user == "ann" { "ann" } else { "robot" };
        shore.sign_in(user, secret);
        let of = |client: &str| format!("{client}:{who}");
        for at in [0, 1] {
            docker.login(shore.mesh.client(at).authority(), user, secret);
        }
        let (here, there) = (name(0, &of("docker")), name(1, &of("docker")));
        docker.run(&["tag", &loaded, &here]);
        docker.run(&["push", "-q", &here]);
        docker.run(&["rmi", "-f", &here]);
        docker.pull(&there);

        let layout = shore.layout("tiny");
        shore.skopeo_pushes(&format!("oci:{layout}:1"), &name(1, &of("skopeo")));
        let digest = shore.skopeo_pulls(&name(2, &of("skopeo")));
        assert_eq!(shore.crane(&["digest", &name(0, &of("skopeo"))]), digest);
        shore.crane(&["copy", &name(0, &of("skopeo")), &name(2, &of("crane"))]);
        assert_eq!(shore.crane_pulls(&name(1, &of("crane"))), digest);
        let config = shore.folder.path().join("config.json").display().to_string();
        let copy = ["cp", "--from-oci-layout", "--to-plain-http", "--to-registry-config", &config];
        let chart = [shore.layout("chart").add(":0.1.0"), name(0, &of("oras"))];
        shore.oras(&[&copy[..], &[&chart[0], &chart[1]]].concat());

        let both = format!("{user}:{secret}");
        let signed = ["--plain-http", "--user", &both];
        assert_eq!(containerd.pull(&signed, &name(2, &of("skopeo"))), digest);
        let pushed = name(1, &of("containerd"));
        containerd.run(&["images", "tag", &name(2, &of("skopeo")), &pushed]);
        containerd.run(&[&["images", "push"], &signed[..], &[&pushed]].concat());
        assert_eq!(shore.crane(&["digest", &name(2, &of("containerd"))]), digest);

        for at in [0, 2] {
            let node = shore.mesh.client(at).authority().to_owned();
            podman.run(&["login", "-u", user, "-p", secret, &node]);
        }
        assert_eq!(podman.pull(&name(0, &of("skopeo"))), digest);
        let pushed = name(2, &of("podman"));
        podman.run(&["push", "-q", &name(0, &of("skopeo")), &pushed]);
        podman.run(&["rmi", "-a", "-f"]);
        podman.pull(&name(0, &of("podman")));
    }
    // nobody else pulls any of it
    assert!(
        shore.mesh.anyone(1).get("/v2/team/docker/manifests/ann").is_ok_and(|a| a.status == 401)
    );
}

/// `people.robot_prefix` is what robots' names begin with, and nothing else means a robot then.
#[test]
fn docker_signs_in_as_a_robot_with_a_prefix_of_ones_own() {
    let images = tools::images();
    let mesh = Mesh::up_with(1, &[("people.robot_prefix", "'ci~'")]);
    let docker = Docker::start();
    let admin = mesh.client(0);
    mesh.create_project("team", false, 1);
    let what = people::robot_of("team", "build", &["pull", "push"]);
    let robot = people::create_robot(&admin, &what);
    assert_eq!(robot.name, "ci~team+build");
    docker.run(&["load", "-q", "-i", &images.join("docker/tiny.tar").display().to_string()]);
    let loaded = docker.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let loaded = loaded.lines().next().expect("docker loaded an image").to_owned();
    let registry = mesh.client(0).authority().to_owned();
    docker.login(&registry, &robot.name, &robot.secret);
    let image = format!("{registry}/team/app:1");
    docker.run(&["tag", &loaded, &image]);
    docker.run(&["push", "-q", &image]);
    docker.run(&["rmi", "-f", &image]);
    docker.pull(&image);

    let old = mesh.anyone(0).basic("robot$team+build", &robot.secret);
    assert!(old.get("/v2/").is_ok_and(|answer| answer.status == 401), "the prefix of others");
    let user = json!({"username": "ci~team+build", "password": people::PASSWORD,
        "email": "a@example.com", "realname": "a"});
    people::must(&admin, http::Method::POST, "/api/v2.0/users", &user, 400);
}

/// `LAYOUT:TAG`, with the tag of a reference.
trait AddTag {
    fn add(&self, reference: &str) -> String;
}

impl AddTag for String {
    fn add(&self, reference: &str) -> String {
        format!("{self}:{}", reference.rsplit_once(':').expect("a reference with a tag").1)
    }
}

#[test]
fn docker_says_that_a_push_does_not_fit_into_the_quota() {
    let images = tools::images();
    let mesh = Mesh::up(2);
    let docker = Docker::start();
    let (admin, other) = (mesh.client(0), mesh.client(1));
    let small = json!({"project_name": "small", "storage_limit": 200_000, "metadata": {}});
    people::must(&admin, Method::POST, "/api/v2.0/projects", &small, 201);
    let project = people::must(&admin, Method::GET, "/api/v2.0/projects/small", &Value::Null, 200);
    let quota = format!("/api/v2.0/quotas/{}", project.json()["project_id"]);
    // its layers come in chunks without a length
    docker.run(&["load", "-q", "-i", &images.join("docker/app.tar").display().to_string()]);
    let image = format!("{}/small/app:1", other.authority());
    let (user, password) = mesh.admin();
    docker.login(other.authority(), user, password);
    docker.run(&["tag", "atoll/app:1", &image]);
    let refused = process::finish(docker.command().args(["push", "-q", &image]));
    assert!(!refused.success);
    let said = "will exceed the configured upper limit of 195.3 KiB";
    assert!(refused.err.contains(said), "{}\n{}", refused.out, refused.err);
    let used = people::must(&other, Method::GET, &quota, &Value::Null, 200).json();
    assert_eq!(used["used"], json!({"storage": 0, "tags": 0, "repositories": 0}));
    people::must(&admin, Method::PUT, &quota, &json!({"hard": {"storage": 1_u64 << 30}}), 200);
    docker.run(&["push", "-q", &image]);
    let used = people::must(&other, Method::GET, &quota, &Value::Null, 200).json();
    assert!(used["used"]["storage"].as_u64() > Some(1 << 20), "{used}");
    assert_eq!(used["used"]["tags"], 1);
}
