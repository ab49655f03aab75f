//! The programs that sign images and verify them: cosign 2 and 3, skopeo and notation, each with a home
//! folder of its own and without the services of the Sigstore project.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sign::making::cosign_key;
use tempfile::TempDir;

use crate::process::{self, Finished};
use crate::tools;

/// What openssl makes the keys of that every program accepts.
pub const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
/// The passphrase of every key.
pub const PASSPHRASE: &str = "a passphrase";

/// Programs that speak as one user to one registry, or to several.
#[derive(Debug)]
pub struct Signers {
    folder: TempDir,
    registries: Vec<String>,
}

/// A key pair as files.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// `cosign.key`: sealed with [`PASSPHRASE`].
    pub private: PathBuf,
    /// `cosign.pub`.
    pub public: PathBuf,
}

impl KeyPair {
    /// The public key as PEM.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn pem(&self) -> String {
        std::fs::read_to_string(&self.public).expect("a public key")
    }
}

impl Signers {
    /// For the registry at this authority.
    ///
    /// # Panics
    /// When no folder can be had.
    #[must_use]
    pub fn new(registry: &str, user: &str, password: &str) -> Self {
        Self::at_each(&[registry.to_owned()], user, password)
    }

    /// For the registries at these authorities. Images without one are at the first.
    ///
    /// # Panics
    /// When no folder can be had.
    #[must_use]
    pub fn at_each(registries: &[String], user: &str, password: &str) -> Self {
        let folder = TempDir::with_prefix("signers-").expect("a temporary folder");
        let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let auths = registries.iter().map(|one| (one.clone(), json!({"auth": auth})));
        let config = json!({"auths": auths.collect::<serde_json::Map<_, _>>()});
        let signers = Self { folder, registries: registries.to_vec() };
        signers.write("config.json", &config.to_string());
        // no log, no timestamps, no keyless certificates
        let services = json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "rekorTlogConfig": {}, "tsaConfig": {},
        });
        signers.write("services.json", &services.to_string());
        signers.write("passphrase", PASSPHRASE);
        std::fs::create_dir_all(signers.at("registries.d")).expect("a folder");
        let attached = json!({"use-sigstore-attachments": true});
        let attached = registries.iter().map(|one| (one.clone(), attached.clone()));
        let here = json!({"docker": attached.collect::<serde_json::Map<_, _>>()});
        // JSON is YAML
        signers.write("registries.d/here.yaml", &here.to_string());
        signers
    }

    /// A file of theirs.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes such a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("a file");
    }

    /// The folder of their files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `cosign2`, `cosign3` or `notation`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = tools::signer(program);
        let home = self.folder.path();
        command
            .env_clear()
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .env("DOCKER_CONFIG", home)
            .env("COSIGN_PASSWORD", PASSPHRASE)
            .env("COSIGN_YES", "1")
            .current_dir(home);
        command
    }

    /// Makes a key pair of cosign's from a private key that openssl makes of `algorithm` (arguments of
    /// `openssl genpkey`). (cosign makes only keys of P-256, and Debian's imports none.)
    ///
    /// # Panics
    /// When openssl refuses.
    #[must_use]
    pub fn key(&self, name: &str, algorithm: &str) -> KeyPair {
        let at = |ending: &str| self.at(&format!("{name}.{ending}"));
        let openssl = || tools::packaged("openssl", "openssl");
        process::succeed(
            openssl().arg("genpkey").args(algorithm.split(' ')).arg("-out").arg(at("pem")),
        );
        process::succeed(
            openssl().args(["pkey", "-pubout", "-in"]).arg(at("pem")).arg("-out").arg(at("pub")),
        );
        let plain = PrivatePkcs8KeyDer::from_pem_file(at("pem")).expect("a private key");
        let sealed = cosign_key::write(plain.secret_pkcs8_der(), PASSPHRASE.as_bytes());
        self.write(&format!("{name}.key"), &sealed.expect("a file of a private key"));
        KeyPair { private: at("key"), public: at("pub") }
    }

    /// cosign 2, which signs layers behind a tag.
    pub fn cosign2(&self, verb: &str, key: &KeyPair, more: &[&str], image: &str) -> Finished {
        let mut command = self.command("cosign2");
        command.args([verb, "--allow-http-registry", "--tlog-upload=false", "--key"]);
        command.arg(&key.private).args(more).arg(self.named(image));
        process::finish(&mut command)
    }

    /// cosign 3, which signs bundles, or with `classic` what cosign 2 signs.
    pub fn cosign3(
        &self,
        verb: &str,
        key: &KeyPair,
        classic: bool,
        more: &[&str],
        image: &str,
    ) -> Finished {
        let mut command = self.command("cosign3");
        command.args([verb, "--allow-http-registry", "--key"]).arg(&key.private);
        match classic {
            true => command.args([
                "--new-bundle-format=false",
                "--use-signing-config=false",
                "--tlog-upload=false",
            ]),
            false => command.arg("--signing-config").arg(self.at("services.json")),
        };
        command.args(more).arg(self.named(image));
        process::finish(&mut command)
    }

    /// Asks `cosign2` or `cosign3` whether the key has signed an image.
    pub fn verify(&self, program: &str, public: &Path, more: &[&str], image: &str) -> Finished {
        let mut command = self.command(program);
        command.args(["verify", "--private-infrastructure", "--allow-http-registry", "--key"]);
        command.arg(public).args(more).arg(self.named(image));
        process::finish(&mut command)
    }

    /// skopeo pushes an image (a folder of its own, see [`crate::image::write_layout`]) and signs it.
    pub fn skopeo_signs(&self, key: &KeyPair, layout: &Path, image: &str) -> Finished {
        self.policy("accept-all.json", &json!({"default": [{"type": "insecureAcceptAnything"}]}));
        let mut command = self.skopeo("accept-all.json");
        command
            .args(["copy", "--dest-tls-verify=false", "--preserve-digests"])
            .arg("--sign-by-sigstore-private-key")
            .arg(&key.private)
            .arg("--sign-passphrase-file")
            .arg(self.at("passphrase"))
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}", self.named(image)));
        process::finish(&mut command)
    }

    /// skopeo pulls an image if the key has signed it under its name.
    pub fn skopeo_pulls(&self, public: &Path, image: &str) -> Finished {
        self.skopeo_pulls_if(&json!({"type": "sigstoreSigned", "keyPath": public}), image)
    }

    /// What a program says of an image and a key: `cosign2`, `cosign3`, `cosign3, classic`, `skopeo`, or
    /// `skopeo, repository` for a signature of the repository's name, which is all that cosign signs.
    pub fn judges(&self, program: &str, public: &Path, image: &str) -> Finished {
        let identity = json!({"type": "matchRepository"});
        match program {
            "skopeo" => self.skopeo_pulls(public, image),
            "skopeo, repository" => self.skopeo_pulls_if(
                &json!({"type": "sigstoreSigned", "keyPath": public, "signedIdentity": identity}),
                image,
            ),
            "cosign3, classic" => {
                self.verify("cosign3", public, &["--new-bundle-format=false"], image)
            }
            cosign => self.verify(cosign, public, &[], image),
        }
    }

    fn skopeo_pulls_if(&self, signed: &Value, image: &str) -> Finished {
        let signed = json!([signed]);
        let policy = json!({
            "default": [{"type": "reject"}],
            "transports": {"docker": {&self.registries[0]: signed}},
        });
        self.policy("signed.json", &policy);
        let to = TempDir::with_prefix_in("pulled-", self.folder.path()).expect("a folder");
        let mut command = self.skopeo("signed.json");
        command
            .args(["copy", "--src-tls-verify=false"])
            .arg(format!("docker://{}", self.named(image)))
            .arg(format!("dir:{}", to.path().display()));
        process::finish(&mut command)
    }

    fn policy(&self, name: &str, policy: &Value) {
        self.write(name, &policy.to_string());
    }

    fn skopeo(&self, policy: &str) -> Command {
        let mut command = tools::newer_skopeo();
        command.env("HOME", self.folder.path()).env("REGISTRY_AUTH_FILE", self.at("config.json"));
        command.arg("--policy").arg(self.at(policy)).arg("--registries.d");
        command.arg(self.at("registries.d"));
        command
    }

    /// notation, for a registry without TLS.
    pub fn notation(&self, verb: &str, more: &[&str], image: &str) -> Finished {
        let mut command = self.command("notation");
        command.args([verb, "--insecure-registry"]).args(more).arg(self.named(image));
        process::finish(&mut command)
    }

    /// `REGISTRY/IMAGE`; an image that has its registry already keeps it.
    #[must_use]
    pub fn named(&self, image: &str) -> String {
        let is_there = |one: &String| image.strip_prefix(one).is_some_and(|r| r.starts_with('/'));
        match self.registries.iter().any(is_there) {
            true => image.to_owned(),
            false => format!("{}/{image}", self.registries[0]),
        }
    }
}
