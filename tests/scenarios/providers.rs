//! People of an OIDC provider and of an LDAP directory, users with a password here and robots sign in
//! with every client: they pull what they may, and are refused what they may not.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemons::{Containerd, Docker, Podman};
use tests::formed::Formed;
use tests::image::Image;
use tests::oidc::{CLIENT_SECRET, Provider};
use tests::people::{
    PASSWORD, add_member, create_robot, create_user, must, robot_of, session_in, token_answer,
};
use tests::repository::{Repository, create_project};
use tests::slapd::{BASE, SEARCHER, Slapd, person};
use tests::{cri, process, tools};

const SETTINGS: &str = "/api/v2.0/configurations";
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who is a developer in `own` and nothing in `closed`.
struct Person<'p> {
    name: &'p str,
    secret: String,
}

/// Every client, and the files that they read.
struct Clients {
    registry: String,
    docker: Docker,
    containerd: Containerd,
    podman: Podman,
    folder: TempDir,
}

impl Clients {
    fn new(registry: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-providers-").expect("a temporary folder");
        let registries = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
        let conf = folder.path().join("registries.conf");
        std::fs::write(&conf, registries).expect("a file");
        let hosts = folder.path().join("certs").join(registry);
        std::fs::create_dir_all(&hosts).expect("a folder");
        let server = format!("server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n");
        std::fs::write(hosts.join("hosts.toml"), server).expect("a file");
        std::fs::create_dir_all(folder.path().join("chart")).expect("a folder");
        let chart = "apiVersion: v2\nname: chart\nversion: 0.1.0\n";
        std::fs::write(folder.path().join("chart/Chart.yaml"), chart).expect("a file");
        let containerd = Containerd::start_for_kubelets(&folder.path().join("certs"));
        let podman = Podman::with_registries(&conf);
        let registry = registry.to_owned();
        Self { registry, docker: Docker::start(), containerd, podman, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, project: &str) -> String {
        format!("{}/{project}/app:1", self.registry)
    }

    fn run(&self, mut command: Command, arguments: &[&str]) -> process::Finished {
        command.args(arguments).current_dir(self.folder.path());
        command.env("DOCKER_CONFIG", self.folder.path()).env("HOME", self.folder.path());
        command.env("HELM_REGISTRY_CONFIG", self.at("helm.json"));
        process::finish(&mut command)
    }

    /// Each client pulls this image with somebody's name and secret: whether it has got it.
    fn pull(&self, who: &Person<'_>, project: &str) -> Vec<(&'static str, bool, String)> {
        let image = self.image(project);
        let both = format!("{}:{}", who.name, who.secret);
        let pair = base64::engine::general_purpose::STANDARD.encode(&both);
        let auths = json!({"auths": {self.registry.as_str(): {"auth": pair}}});
        std::fs::write(self.at("config.json"), auths.to_string()).expect("a file");
        let mut all = Vec::new();
        let mut tell = |client, said: process::Finished| all.push((client, said.success, said.err));

        self.docker.login(&self.registry, who.name, &who.secret);
        tell("docker", process::finish(self.docker.command().args(["pull", "-q", &image])));
        process::finish(self.docker.command().args(["rmi", "-f", &image]));

        let login = ["login", "-u", who.name, "-p", &who.secret, &self.registry];
        self.podman.run(&login);
        tell("podman", process::finish(&mut self.podman.pulling(&image)));
        process::finish(self.podman.command().args(["rmi", "-a", "-f"]));

        let skopeo = || tools::packaged("skopeo", "skopeo");
        let file = self.at("skopeo.json").display().to_string();
        let login = ["login", "--tls-verify=false", "--authfile", &file, "-u", who.name, "-p"];
        let said = self.run(skopeo(), &[&login[..], &[&who.secret, &self.registry]].concat());
        assert!(said.success, "skopeo login of {}: {}", who.name, said.err);
        let (from, to) = (format!("docker://{image}"), format!("dir:{}", self.at("dir").display()));
        let _ = std::fs::remove_dir_all(self.at("dir"));
        let copy = ["copy", "-q", "--src-tls-verify=false", "--authfile", &file, &from, &to];
        tell("skopeo", self.run(skopeo(), &copy));

        let crane = || tools::built_by_go("crane");
        let login = ["auth", "login", &self.registry, "-u", who.name, "-p", &who.secret];
        let said = self.run(crane(), &login);
        assert!(said.success, "crane auth login of {}: {}", who.name, said.err);
        // it does not take layers that are not compressed for valid, but it pulls them
        let tar = self.at("crane.tar").display().to_string();
        tell("crane", self.run(crane(), &["pull", "--insecure", &image, &tar]));

        let name = (who.name, who.secret.as_str());
        let pulled = cri::pull_as(&self.containerd.socket(), &image, name, PATIENCE);
        all.push(("containerd's CRI", pulled.is_ok(), format!("{pulled:?}")));
        process::finish(self.containerd.command().args(["-n", "k8s.io", "images", "rm", &image]));

        all.extend(self.helm(who, project));
        all
    }

    /// helm signs in and pulls a chart.
    fn helm(&self, who: &Person<'_>, project: &str) -> Vec<(&'static str, bool, String)> {
        let helm = || tools::built_by_go("helm");
        let login = ["registry", "login", "--plain-http", &self.registry, "-u", who.name, "-p"];
        let said = self.run(helm(), &[&login[..], &[&who.secret]].concat());
        assert!(said.success, "helm registry login of {}: {}", who.name, said.err);
        let place = format!("oci://{}/{project}/chart", self.registry);
        let _ = std::fs::remove_file(self.at("chart-0.1.0.tgz"));
        let said = self.run(helm(), &["pull", "--plain-http", &place, "--version", "0.1.0"]);
        vec![("helm", said.success, said.err)]
    }

    /// helm makes a chart and pushes it: who may push, and whether it did.
    fn helm_pushes(&self, who: &Person<'_>, project: &str) -> process::Finished {
        let helm = || tools::built_by_go("helm");
        let login = ["registry", "login", "--plain-http", &self.registry, "-u", who.name, "-p"];
        let said = self.run(helm(), &[&login[..], &[&who.secret]].concat());
        assert!(said.success, "helm registry login of {}: {}", who.name, said.err);
        let said = self.run(helm(), &["package", "chart"]);
        assert!(said.success, "helm package: {}", said.err);
        let place = format!("oci://{}/{project}", self.registry);
        self.run(helm(), &["push", "--plain-http", "chart-0.1.0.tgz", &place])
    }

    /// Whoever may pull in `own` does it with each client, and is refused in `closed`. A wrong secret
    /// opens nothing.
    fn try_all(&self, who: &Person<'_>) {
        for (client, right, said) in self.pull(who, "own") {
            assert!(right, "{client} pulls as {}: {said}", who.name);
        }
        for (client, right, said) in self.pull(who, "closed") {
            assert!(!right, "{client} as {} may not pull this: {said}", who.name);
        }
        let wrong = ["login", "-u", who.name, "-p", "wrong", &self.registry];
        let docker = process::finish(self.docker.command().args(wrong));
        let podman = process::finish(self.podman.command().args(wrong));
        assert!(!docker.success && !podman.success, "{}: {} {}", who.name, docker.err, podman.err);
        let pushed = self.helm_pushes(who, "closed");
        assert!(!pushed.success, "{} may not push there", who.name);
        let pushed = self.helm_pushes(who, "own");
        assert!(pushed.success, "helm pushes as {}: {}", who.name, pushed.err);
    }
}

/// Two private projects with an image and a chart each.
fn projects(mesh: &Formed, clients: &Clients) {
    let admin = mesh.client(0);
    let root = Person { name: "admin", secret: mesh.password().to_owned() };
    for project in ["own", "closed"] {
        create_project(&admin, project, false, 1);
        let app = Repository::new(&admin, &format!("{project}/app"));
        app.push(&Image::unpackable(&[1 << 10]), "1").unwrap_or_else(|no| panic!("{no}"));
        let pushed = clients.helm_pushes(&root, project);
        assert!(pushed.success, "helm pushes: {}", pushed.err);
    }
}

fn configure(mesh: &Formed, settings: &Value) {
    must(&mesh.client(0), Method::PUT, SETTINGS, settings, 200);
}

#[test]
fn a_user_of_an_oidc_provider_signs_in_with_every_client_by_their_cli_secret() {
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let node = mesh.members()[0].anyone();
    let clients = Clients::new(node.authority());
    projects(&mesh, &clients);
    let provider = Provider::start(&format!("http://{}/c/oidc/callback", node.authority()));
    provider.knows(&json!({"ann": {"preferred_username": "ann"}}));
    configure(
        &mesh,
        &json!({"auth_mode": "oidc_auth", "oidc_endpoint": provider.issuer(),
            "oidc_client_id": "atoll", "oidc_client_secret": CLIENT_SECRET,
            "oidc_scope": "openid,profile", "oidc_auto_onboard": true,
            "oidc_user_claim": "preferred_username"}),
    );
    let sent = node.get("/c/oidc/login").unwrap_or_else(|none| panic!("{none}"));
    let place = provider.sign_in("ann", &sent);
    let cookie: Vec<String> = sent.cookies().iter().map(|(n, v)| format!("{n}={v}")).collect();
    let back = node.ask(Method::GET, &place).header("cookie", &cookie.join("; ")).send();
    let browser = session_in(&node, &back.unwrap_or_else(|none| panic!("{none}")));
    let shown = must(&browser, Method::GET, "/api/v2.0/users/current", &json!({}), 200).json();
    let secret = shown["oidc_user_meta"]["secret"].as_str().expect("a CLI secret").to_owned();
    add_member(&mesh.client(0), "own", "ann", 2);
    clients.try_all(&Person { name: "ann", secret });
}

#[test]
fn a_user_of_an_ldap_directory_signs_in_with_every_client() {
    let mut slapd = Slapd::new();
    slapd.start(&[("ann", "word-of-ann")], &[("devs", &[&person("ann")])]);
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let node = mesh.members()[0].anyone();
    let clients = Clients::new(node.authority());
    projects(&mesh, &clients);
    let [url, _] = slapd.urls();
    configure(
        &mesh,
        &json!({"auth_mode": "ldap_auth", "ldap_url": url, "ldap_uid": "uid",
            "ldap_base_dn": format!("ou=people,{BASE}"), "ldap_search_dn": SEARCHER.0,
            "ldap_search_password": SEARCHER.1}),
    );
    let ann = Person { name: "ann", secret: "word-of-ann".to_owned() };
    let first = token_answer(&node.basic(ann.name, &ann.secret), &[]);
    assert_eq!(first.status, 200, "{first}");
    add_member(&mesh.client(0), "own", "ann", 2);
    clients.try_all(&ann);
}

#[test]
fn a_user_with_a_password_here_and_a_robot_sign_in_with_every_client() {
    let mesh = Formed::of(&[("one", "us-east-1")], "");
    let clients = Clients::new(mesh.members()[0].anyone().authority());
    projects(&mesh, &clients);
    let admin = mesh.client(0);
    create_user(&admin, "ann");
    add_member(&admin, "own", "ann", 2);
    clients.try_all(&Person { name: "ann", secret: PASSWORD.to_owned() });
    let robot = create_robot(&admin, &robot_of("own", "ci", &["pull", "push"]));
    clients.try_all(&Person { name: &robot.name, secret: robot.secret.clone() });
}
