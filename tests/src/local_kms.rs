//! AWS KMS, played by `local-kms`, which speaks its protocol. It checks no signatures of requests.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::ports::reserve;
use crate::process::Running;
use crate::{tools, wait};

/// The aliases of its keys.
pub const KEYS: [&str; 2] = ["alias/one", "alias/two"];

const SEED: &str = "\
Keys:
  Symmetric:
    Aes:
      - Metadata: {KeyId: 10000000-0000-4000-8000-000000000001}
        BackingKeys: [5cdaead27fe7da2de47945d73cd6d79e36494e73802f3cd3869f1d2cb0b5d7a9]
      - Metadata: {KeyId: 20000000-0000-4000-8000-000000000002}
        BackingKeys: [6cdaead27fe7da2de47945d73cd6d79e36494e73802f3cd3869f1d2cb0b5d7a9]
Aliases:
  - {AliasName: alias/one, TargetKeyId: 10000000-0000-4000-8000-000000000001}
  - {AliasName: alias/two, TargetKeyId: 20000000-0000-4000-8000-000000000002}
";

/// A KMS with two keys. Dropping it ends it.
#[derive(Debug)]
pub struct LocalKms {
    folder: TempDir,
    port: u16,
    running: Option<Running>,
}

impl LocalKms {
    /// One that is not running, and an access key for it.
    ///
    /// # Panics
    /// When it cannot be prepared.
    #[must_use]
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("atoll-kms-").expect("a temporary folder");
        let port = reserve(Ipv4Addr::LOCALHOST.into()).port();
        let kms = Self { folder, port, running: None };
        std::fs::write(kms.at("seed.yaml"), SEED).expect("a file");
        let text = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n";
        std::fs::write(kms.at("credentials"), text).expect("a file");
        kms
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings of a node that uses a key, on one line.
    #[must_use]
    pub fn settings(&self, key: &str) -> String {
        format!(
            "kms: {{key: {key}, region: eu-west-2, url: 'http://127.0.0.1:{}', credentials_file: '{}'}}",
            self.port,
            self.at("credentials").display(),
        )
    }

    /// Starts it, for the first time or again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&mut self) {
        let mut command = tools::built_by_go("local_kms");
        command
            .env("PORT", self.port.to_string())
            .env("KMS_SEED_PATH", self.at("seed.yaml"))
            .env("KMS_DATA_PATH", self.at("data"));
        self.running = Some(Running::start(&mut command, &self.at("log")));
        wait::until("KMS answers", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Ends it: an outage.
    pub fn stop(&mut self) {
        self.running = None;
    }
}

impl Default for LocalKms {
    fn default() -> Self {
        Self::new()
    }
}
