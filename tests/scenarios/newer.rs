//! Clients that no release of Debian has yet, built with Go: BuildKit builds, pushes and finds its
//! cache at another node, and regctl copies, lists and deletes.
//!
//! Only `tests/run --newer` plays this one: it takes minutes to build BuildKit.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::process::{self, Running};
use tests::{tools, wait};

/// A mesh, and a folder of the clients with everybody's password in it.
struct Yard {
    mesh: Mesh,
    folder: TempDir,
}

impl Yard {
    fn new() -> Self {
        let mesh = Mesh::up(3);
        let folder = TempDir::with_prefix("atoll-yard-").expect("a temporary folder");
        let (user, password) = mesh.admin();
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let known = |at: usize| (mesh.client(at).authority().to_owned(), json!({"auth": pair}));
        let auths: serde_json::Map<String, Value> = (0..3).map(known).collect();
        std::fs::write(folder.path().join("config.json"), json!({"auths": auths}).to_string())
            .expect("a file");
        Self { mesh, folder }
    }

    /// What a client calls a repository of project `demo` at a node.
    fn name(&self, at: usize, rest: &str) -> String {
        format!("{}/demo/{rest}", self.mesh.client(at).authority())
    }

    /// The digest of a tag, which must be the same at every node.
    fn digest(&self, repository: &str, tag: &str) -> String {
        let at = |at| {
            let there = self.mesh.repository(at, &format!("demo/{repository}"));
            there.resolve(tag).unwrap_or_else(|no| panic!("{repository}:{tag} at {at}: {no}"))
        };
        let all = [0, 1, 2].map(|node| at(node).digest);
        assert!(all.iter().all(|one| one == &all[0]), "{repository}:{tag}: {all:?}");
        all[0].clone()
    }
}

/// A private buildkitd, which may run nothing, because it has no network to do it with.
struct BuildKit {
    _daemon: Running,
    address: String,
    settings: std::path::PathBuf,
}

impl BuildKit {
    fn start(yard: &Yard) -> Self {
        let folder = yard.folder.path().join("buildkit");
        std::fs::create_dir(&folder).expect("a folder");
        let node = |at: usize| {
            let node = yard.mesh.client(at).authority().to_owned();
            format!("[registry.\"{node}\"]\n  http = true\n  insecure = true\n")
        };
        let config = folder.join("buildkitd.toml");
        std::fs::write(&config, (0..3).map(node).collect::<String>()).expect("a file");
        let address = format!("unix://{}", folder.join("sock").display());
        let mut command = tools::built_by_go("buildkitd");
        command.args(["--addr", &address, "--containerd-worker=false", "--oci-worker=true"]);
        command.args(["--oci-worker-snapshotter=native", "--oci-worker-net=host"]);
        command.arg("--root").arg(folder.join("root")).arg("--config").arg(&config);
        let mut daemon = Running::start(&mut command, &folder.join("log"));
        wait::until("the private buildkitd answers", || {
            assert!(daemon.ended().is_none(), "buildkitd ended:\n{}", daemon.last_words());
            let mut asked = tools::built_by_go("buildctl");
            process::finish(asked.args(["--addr", &address, "debug", "workers"]))
                .success
                .then_some(())
        });
        Self { _daemon: daemon, address, settings: yard.folder.path().to_owned() }
    }

    fn buildctl(&self) -> Command {
        let mut command = tools::built_by_go("buildctl");
        command.args(["--addr", &self.address]).env("DOCKER_CONFIG", &self.settings);
        command
    }

    /// Builds `context`, pushes it as `name`, and reads and writes these caches. What it says.
    fn build(&self, context: &Path, name: &str, from: Option<&str>, to: Option<&str>) -> String {
        let mut command = self.buildctl();
        command.args(["build", "--progress", "plain", "--frontend", "dockerfile.v0"]);
        for local in ["context", "dockerfile"] {
            command.arg("--local").arg(format!("{local}={}", context.display()));
        }
        command.args(["--opt", "build-arg:SOURCE_DATE_EPOCH=0", "--output"]);
        command.arg(format!("type=image,name={name},push=true,rewrite-timestamp=true"));
        if let Some(from) = from {
            command.arg("--import-cache").arg(format!("type=registry,ref={from}"));
        }
        if let Some(to) = to {
            command.arg("--export-cache").arg(format!("type=registry,mode=max,ref={to}"));
        }
        let done = process::finish(&mut command);
        assert!(done.success, "{}\n{}{}", done.end, done.out, done.err);
        done.out + &done.err
    }

    /// Forgets all that it has built.
    fn forget(&self) {
        process::succeed(self.buildctl().args(["prune", "--all"]));
    }
}

#[test]
fn buildkit_builds_pushes_and_finds_its_cache_at_another_node() {
    let yard = Yard::new();
    let buildkit = BuildKit::start(&yard);
    let context = yard.folder.path().join("context");
    std::fs::create_dir(&context).expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(context.join(name), text).expect("a file");
    };
    write("one", &"one".repeat(100_000));
    write("two", "two");
    write("Dockerfile", "FROM scratch\nCOPY one /one\nCOPY two /two\nCMD [\"/one\"]\n");

    // the cache as a manifest; as an index of blobs, as BuildKit wrote it until 0.21; and in
    // Docker's types
    for (way, options) in [
        ("manifest", "image-manifest=true,oci-mediatypes=true"),
        ("index", "image-manifest=false,oci-mediatypes=true"),
        ("docker", "image-manifest=false,oci-mediatypes=false"),
    ] {
        buildkit.forget();
        let (built, cache) = (format!("built:{way}"), format!("cache:{way}"));
        let to = format!("{},{options}", yard.name(0, &cache));
        buildkit.build(&context, &yard.name(0, &built), None, Some(&to));
        let digest = yard.digest("built", way);
        yard.digest("cache", way);

        buildkit.forget();
        let again = format!("again:{way}");
        let from = yard.name(1, &cache);
        let said = buildkit.build(&context, &yard.name(2, &again), Some(&from), None);
        assert!(said.contains("CACHED"), "{way}: nothing came from the cache:\n{said}");
        assert_eq!(yard.digest("again", way), digest, "{way}: the same again");
        yard.mesh.repository(1, "demo/again").pull(way).unwrap_or_else(|no| panic!("{way}: {no}"));
    }

    // an image of the mesh as the base, whose layers are mounted and not sent again
    buildkit.forget();
    let base = format!("FROM {}\nCOPY two /three\n", yard.name(1, "built:manifest"));
    write("Dockerfile", &base);
    buildkit.build(&context, &yard.name(2, "above:1"), None, None);
    yard.mesh.repository(0, "demo/above").pull("1").unwrap_or_else(|no| panic!("{no}"));
}

#[test]
fn regctl_copies_lists_and_deletes() {
    let (yard, image) = (Yard::new(), Image::unpackable(&[200_000, 1000]));
    let regctl = |arguments: &[&str]| {
        let mut command = tools::built_by_go("regctl");
        command.env("REGCTL_CONFIG", yard.folder.path().join("regctl.json"));
        process::succeed(command.args(arguments).env("DOCKER_CONFIG", yard.folder.path()))
    };
    let (user, password) = yard.mesh.admin();
    for at in 0..3 {
        let node = yard.mesh.client(at).authority().to_owned();
        regctl(&["registry", "set", "--tls", "disabled", "--skip-check", &node]);
        regctl(&["registry", "login", "--skip-check", "-u", user, "-p", password, &node]);
    }
    for tag in ["1", "2"] {
        let pushed = yard.mesh.repository(0, "demo/app").push(&image, tag);
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    let layout = format!("ocidir://{}", yard.folder.path().join("layout").display());
    regctl(&["image", "copy", &yard.name(1, "app:1"), &format!("{layout}:1")]);
    regctl(&["image", "copy", &format!("{layout}:1"), &yard.name(2, "copied:1")]);
    regctl(&["image", "copy", &yard.name(2, "copied:1"), &yard.name(2, "mounted:1")]);
    for repository in ["copied", "mounted"] {
        assert_eq!(yard.digest(repository, "1"), image.digest(), "{repository}");
    }
    assert_eq!(regctl(&["image", "digest", &yard.name(1, "mounted:1")]), image.digest());

    let subject = yard.name(1, "app:1");
    let text = yard.folder.path().join("note");
    std::fs::write(&text, "looks good").expect("a file");
    let file = text.display().to_string();
    let kind = ["--artifact-type", "application/vnd.example.note"];
    regctl(&[&["artifact", "put", "--subject", &subject, "-f", &file], &kind[..]].concat());
    for at in 0..3 {
        let found = regctl(&["artifact", "list", &yard.name(at, "app:1")]);
        assert!(found.contains("vnd.example.note"), "at {at}: {found}");
    }
    regctl(&["tag", "delete", &yard.name(2, "app:2")]);
    for at in 0..3 {
        let tags = regctl(&["tag", "ls", &yard.name(at, "app")]);
        let tags: Vec<&str> = tags.lines().collect();
        assert!(tags.contains(&"1") && !tags.contains(&"2"), "at {at}: {tags:?}");
    }
    let all = regctl(&["repo", "ls", yard.mesh.client(1).authority()]);
    assert!(all.contains("demo/mounted"), "{all}");
}
