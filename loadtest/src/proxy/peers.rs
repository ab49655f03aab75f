//! Distribution as a pull-through cache of the upstream, in a network namespace.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::network::enter;
use crate::peers::find_distribution;
use crate::process::{self, Running};
use crate::wire::Target;

/// A running cache.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name in the report.
    pub(super) name: String,
    /// What it says of itself.
    pub(super) version: String,
    /// Where it answers, for a client beside it.
    pub(super) target: Target,
    _running: Running, // before its folder
    _folder: TempDir,
}

/// Distribution, and Debian's older one beside it where both are there.
pub(super) fn binaries(given: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut all = vec![find_distribution(given)?];
    all.extend(process::on_path("docker-registry").filter(|other| *other != all[0]));
    Ok(all)
}

impl Peer {
    /// Starts `binary` inside a namespace as a cache of `upstream`.
    pub(super) fn start(
        binary: &Path,
        namespace: &Path,
        host: &str,
        upstream: SocketAddr,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("loadtest-cache-")?;
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog: {{disabled: true}}\nstorage:\n  cache: {{blobdescriptor: inmemory}}\n  \
             filesystem: {{rootdirectory: '{}'}}\nhttp:\n  addr: {host}:5000\n  secret: loadtest\nproxy: {{remoteurl: 'http://{upstream}'}}\n",
            data.display()
        );
        std::fs::write(&config, text)?;
        let mut command = enter(namespace, binary);
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        let mut running = Running::start(&mut command, &folder.path().join("log"))?;
        let target = Target::at(&format!("{host}:5000")).inside(namespace);
        process::until("the cache answers", Duration::from_secs(30), || {
            running.must_run()?;
            Ok(target.client().get("/v2/").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        let version = process::first_line(Command::new(binary).arg("--version"))
            .unwrap_or_else(|| binary.display().to_string());
        let name = if version.contains("/v3") { "distribution" } else { "distribution (not 3)" };
        Ok(Peer {
            name: name.to_owned(),
            version: version + "; pull-through, no access log",
            target,
            _running: running,
            _folder: folder,
        })
    }
}
