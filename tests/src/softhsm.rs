//! Hardware security modules of nodes, played by SoftHSM: each node has a folder of tokens of its own,
//! and its library may be made to hang.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process;
use crate::tools::packaged;

/// The label of the token.
pub const TOKEN: &str = "mesh";
const PIN: &str = "123456";
const HANGING: &str = include_str!("hanging.c");

/// The modules of several nodes, which have the same token.
#[derive(Debug)]
pub struct Modules {
    folder: TempDir,
    behind: PathBuf,
}

/// Debian's library.
fn library() -> PathBuf {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    ];
    let found = places.iter().map(PathBuf::from).find(|file| file.is_file());
    found.expect("SoftHSM is missing: apt-get install softhsm2 opensc, or run tests/run")
}

impl Modules {
    /// A token with AES keys of these labels, and a copy of it for each of so many nodes.
    ///
    /// # Panics
    /// When SoftHSM or OpenSC are missing, or the library that hangs cannot be built.
    #[must_use]
    pub fn new(nodes: usize, labels: &[&str]) -> Self {
        let folder = TempDir::with_prefix("atoll-hsm-").expect("a temporary folder");
        let modules = Self { folder, behind: library() };
        std::fs::create_dir(modules.tokens("first")).expect("a folder");
        std::fs::write(modules.at("pin"), format!("{PIN}\n")).expect("a file");
        modules.settings("first");
        let run = |program: &str, package: &str, arguments: &[&str]| {
            let mut command = packaged(program, package);
            process::succeed(
                command.env("SOFTHSM2_CONF", modules.at("first.conf")).args(arguments),
            );
        };
        let init =
            ["--init-token", "--free", "--label", TOKEN, "--so-pin", "87654321", "--pin", PIN];
        run("softhsm2-util", "softhsm2", &init);
        let behind = modules.behind.display().to_string();
        for label in labels {
            let to = ["--module", &behind, "--token-label", TOKEN, "--login", "--pin", PIN];
            let key = ["--keygen", "--key-type", "AES:32", "--sensitive", "--label", label];
            run("pkcs11-tool", "opensc", &[&to[..], &key[..]].concat());
        }
        for node in 0..nodes {
            let name = node.to_string();
            modules.settings(&name);
            let mut copy = Command::new("cp");
            process::succeed(
                copy.arg("-a").arg(modules.tokens("first")).arg(modules.tokens(&name)),
            );
        }
        let source = modules.at("hanging.c");
        std::fs::write(&source, HANGING).expect("a source file can be written");
        let mut compile = packaged("cc", "build-essential");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(modules.library()).arg(&source);
        process::succeed(compile.arg("-ldl"));
        modules
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tokens(&self, name: &str) -> PathBuf {
        self.at(&format!("{name}.tokens"))
    }

    fn settings(&self, name: &str) {
        let text =
            format!("directories.tokendir = {}\nlog.level = ERROR\n", self.tokens(name).display());
        std::fs::write(self.at(&format!("{name}.conf")), text).expect("a file");
    }

    fn library(&self) -> PathBuf {
        self.at("hanging.so")
    }

    /// The settings of a node that uses these keys, on one line.
    #[must_use]
    pub fn hsm(&self, key: &str, previous: Option<&str>) -> String {
        format!(
            "hsm: {{module: '{}', token: '{TOKEN}', key: '{key}', previous_key: {}, pin_file: '{}'}}",
            self.library().display(),
            previous.unwrap_or("null"),
            self.at("pin").display(),
        )
    }

    /// What a node must find in its environment.
    #[must_use]
    pub fn environment(&self, node: usize) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("SOFTHSM2_CONF".to_owned(), text(&self.at(&format!("{node}.conf")))),
            ("HSM_BEHIND".to_owned(), text(&self.behind)),
            ("HSM_HANGS".to_owned(), text(&self.at("hangs"))),
        ]
    }

    /// Takes a node's token away, or gives it back.
    ///
    /// # Panics
    /// When that fails.
    pub fn take(&self, node: usize, away: bool) {
        let (here, there) = (self.tokens(&node.to_string()), self.at(&format!("{node}.away")));
        let (from, to) = if away { (&here, &there) } else { (&there, &here) };
        if !away {
            let _ = std::fs::remove_dir_all(&here);
        }
        std::fs::rename(from, to).expect("the token is moved");
        if away {
            std::fs::create_dir(&here).expect("a folder");
        }
    }

    /// From now on no module answers, or each does again.
    ///
    /// # Panics
    /// When that cannot be told.
    pub fn hang(&self, hangs: bool) {
        match hangs {
            true => std::fs::write(self.at("hangs"), ""),
            false => std::fs::remove_file(self.at("hangs")),
        }
        .expect("a file");
    }
}
