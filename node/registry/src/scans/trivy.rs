//! The program trivy, started by this node for each scan of a project that has chosen it.
//!
//! It reads a view of the image: an OCI layout whose blobs are other names of files of this node's, or
//! copies where the store has no files.
//! It gets the database of this mesh, and a cache of its own for each scan. One that is kept would be
//! wrong: trivy's cache knows layers by what configurations of images say of them, so an image that lies
//! would decide what is found in others. Two runs with one cache on a disk would also wait for each
//! other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ground::clock;
use ground::supervise::{at_length, blocking};
use rules::ledger::records::ManifestRecord;
use rules::ledger::scanners::ScannerRecord;
use rules::words::digest::Digest;
use rules::words::image::{Image, Layer};
use rules::words::moment::Moment;
use scan::adapter::metadata::{Metadata, ScannerName, of_program};
use serde::Deserialize;
use serde_json::json;
use store::OpenBlob;
use tokio::process::Command;

use super::ScanError;
use super::database::Databases;
use super::elsewhere::FromElsewhere;
use super::layers::{Paced, Reading};
use super::not_well::NotWell;
use super::programs::{Bounds, Ended, RunError, run};

/// The maximum length of a report in bytes.
const LONG: usize = 32 << 20;
/// The maximum length of a configuration of an image in bytes.
const LONGEST_CONFIG: u64 = 4 << 20;
/// How long it may take to say its version.
const SHORT: Duration = Duration::from_secs(10);
/// What is told of what it has said, in bytes.
const SAID: usize = 600;

/// How the program is started.
#[derive(Clone, Debug)]
pub struct TrivyTerms {
    /// The program, if this node has it.
    pub program: Option<PathBuf>,
    /// The URL of its server, if that is to do the matching.
    pub server: Option<String>,
    /// The file with the token for that.
    pub token_file: Option<PathBuf>,
    /// The folder with its database of JARs.
    pub java_database: Option<PathBuf>,
    /// The maximum memory of a run in bytes.
    pub memory: u64,
    /// The maximum number of bytes of its files, and of a layer, unpacked.
    pub unpacked: u64,
    /// How many bytes of layers this node reads in a second for it; `None` if there is no limit.
    pub rate: Option<u64>,
    /// The name of this node, for sentences.
    pub node: String,
    /// The folder under which the views are; this node's own.
    pub folder: PathBuf,
}

/// The program at this node.
pub struct Trivy {
    terms: TrivyTerms,
    databases: Arc<Databases>,
    /// What it said its version is, when its file was as it is.
    version: tokio::sync::Mutex<Option<(Stamp, String)>>,
}

/// How a file is told from another in its place.
type Stamp = (u64, Option<SystemTime>);

/// What it says of its version.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

/// What it reads of an image's configuration.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The folder of one run. It goes when this is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Tells work on another thread to end when this is dropped.
struct StopsWork(Arc<AtomicBool>);

impl Drop for StopsWork {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Trivy {
    /// Nothing is started yet. What a run of an earlier process has left is removed.
    pub fn new(terms: TrivyTerms, databases: Arc<Databases>) -> Self {
        let _ = fs::remove_dir_all(&terms.folder);
        Trivy { terms, databases, version: Default::default() }
    }

    fn program(&self) -> Result<&Path, NotWell> {
        let node = &self.terms.node;
        self.terms.program.as_deref().ok_or_else(|| {
            NotWell::hopeless(format!(
                "node {node} has no program trivy: install it there and name it in its \
                 scan.trivy.program, or let the project use another scanner"
            ))
        })
    }

    /// What it says of itself, and what database it has here.
    pub(super) async fn metadata(&self) -> Result<Metadata, NotWell> {
        let name = self.name().await?;
        let database = match self.terms.server {
            Some(_) => None,
            None => Some(self.databases.in_use().ok_or_else(no_database)?.about),
        };
        let written = of_program(&name, database.map(|one| (one.updated_at, one.next_update)));
        Metadata::read(written.to_string().as_bytes()).map_err(NotWell::hopeless)
    }

    async fn name(&self) -> Result<ScannerName, NotWell> {
        let program = self.program()?;
        let not_there = |error: &dyn std::fmt::Display| {
            let (node, program) = (&self.terms.node, program.display());
            NotWell::hopeless(format!(
                "{program} (scan.trivy.program of node {node}) cannot be started: {error}"
            ))
        };
        let about = fs::metadata(program).map_err(|error| not_there(&error))?;
        let stamp = (about.len(), about.modified().ok());
        let mut known = self.version.lock().await;
        let version = match &*known {
            Some((of, version)) if *of == stamp => version.clone(),
            _ => {
                let folder = self.folder().map_err(|error| NotWell::again(error.to_string()))?;
                let mut command = self.command(program);
                command.args(["version", "--format", "json"]);
                let bounds = Bounds { time: SHORT, output: 64 << 10, ..self.bounds(SHORT) };
                let ended = run(command, &folder.0, bounds, || true).await;
                let ended = ended.map_err(|error| not_there(&error))?;
                let read = serde_json::from_slice::<Version>(&ended.output);
                let version = match read {
                    Ok(read) if ended.status.success() => read.version,
                    _ => return Err(not_there(&"it does not say its version as trivy does")),
                };
                known.insert((stamp, version)).1.clone()
            }
        };
        let name = ScannerName { name: "Trivy".into(), vendor: "Aqua Security".into(), version };
        Ok(name.bounded(64))
    }

    fn bounds(&self, time: Duration) -> Bounds {
        let TrivyTerms { memory, unpacked, .. } = self.terms;
        Bounds { time, output: LONG, memory, files: unpacked }
    }

    /// The program with the environment that it gets: nothing of this node's but the authorities that
    /// the system trusts.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // as variables, since earlier versions do not know the flags
        command.env("TRIVY_SKIP_VERSION_CHECK", "true").env("TRIVY_DISABLE_TELEMETRY", "true");
        command.env("HOME", ".").env("TMPDIR", "temporary");
        // one core, and the heap is collected before the kernel's limit is met
        command.env("GOMAXPROCS", "1").env("GOMEMLIMIT", (self.terms.memory / 4 * 3).to_string());
        command
    }

    /// A new folder for one run.
    fn folder(&self) -> io::Result<Folder> {
        let folder = self.terms.folder.join(format!("{:016x}", rand::random::<u64>()));
        fs::create_dir_all(folder.join("temporary"))?;
        Ok(Folder(folder))
    }

    /// Has an image scanned.
    pub(super) async fn examine(
        &self,
        scanner: &ScannerRecord,
        (manifest, image): (&ManifestRecord, &Image),
        reading: &Reading<'_>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<FromElsewhere, ScanError> {
        let named = |error: NotWell| error.named(&scanner.name);
        if scanner.disabled {
            return Err(named(NotWell::hopeless("it is disabled")));
        }
        let end = clock::now() + reading.scans.terms.timeout;
        let name = self.name().await.map_err(named)?;
        let folder = self.folder().map_err(|e| ScanError::Again(e.to_string()))?;
        let (updated, log) = match &self.terms.server {
            Some(server) => {
                self.cache(&folder.0, None).map_err(|e| ScanError::Again(e.to_string()))?;
                (None, format!("matched by the server {server}\n"))
            }
            None => {
                let used = self.databases.in_use().ok_or_else(|| named(no_database()))?;
                let cached = self.cache(&folder.0, Some(&used.folder));
                cached.map_err(|e| ScanError::Again(e.to_string()))?;
                (
                    Some(used.about.updated_at),
                    format!("matched with the database {}\n", used.digest),
                )
            }
        };
        let open = self.view(&folder.0, manifest, image, reading, end).await?;
        let left = end.since(clock::now());
        let command = self.scan_command(left).map_err(named)?;
        let ended = run(command, &folder.0, self.bounds(left), is_wanted).await;
        drop(open);
        let output = self.output(ended).map_err(|error| match error {
            None => ScanError::Stopped,
            Some(error) => named(error),
        })?;
        drop(folder);
        let read = blocking(move || scan::trivy::read(&output)).await;
        let read = read.map_err(|e| ScanError::Again(e.to_string()))?;
        let report = read.map_err(|why| named(NotWell::hopeless(why)))?;
        Ok(FromElsewhere {
            scanner: scanner.id,
            name,
            updated,
            insufficient: report.insufficient,
            findings: report.findings,
            log,
        })
    }

    /// The report that a run has written, or why there is none; `None` if nobody wants it.
    fn output(&self, ended: Result<Ended, RunError>) -> Result<Vec<u8>, Option<NotWell>> {
        match ended {
            Ok(ended) if ended.status.success() => Ok(ended.output),
            Ok(ended) => Err(Some(self.failed(&ended))),
            Err(RunError::Unwanted) => Err(None),
            Err(RunError::Late(_)) => {
                Err(Some(NotWell::hopeless("it had no report in time (scan.timeout)")))
            }
            Err(error @ RunError::Files(_)) => {
                Err(Some(NotWell::hopeless(format!("{error} (scan.unpacked)"))))
            }
            Err(error @ RunError::Output(_)) => Err(Some(NotWell::hopeless(error.to_string()))),
            Err(error @ (RunError::NotStarted(_) | RunError::Lost(_))) => {
                Err(Some(NotWell::again(error.to_string())))
            }
        }
    }

    /// Why a run has failed, in its own words, and what would help.
    fn failed(&self, ended: &Ended) -> NotWell {
        let said = ended.said.trim();
        let start =
            (0..=said.len()).find(|at| said.len() - at <= SAID && said.is_char_boundary(*at));
        let said = &said[start.unwrap_or(said.len())..];
        let remedy = if said.contains("Java DB") {
            "; to scan images with JARs, name a folder with trivy's database of them in \
             scan.trivy.java_database"
        } else if ended.status.code().is_none() || said.contains("out of memory") {
            "; if it needs more memory, raise scan.trivy.memory"
        } else {
            ""
        };
        let why = format!("it has failed ({}){remedy}: {said}", ended.status);
        match self.terms.server {
            // the server may be away for a moment
            Some(_) => NotWell::again(why),
            None => NotWell::hopeless(why),
        }
    }

    fn scan_command(&self, time: Duration) -> Result<Command, NotWell> {
        let mut command = self.command(self.program()?);
        // a path of its own choice could have a colon, which means a tag here
        command.args(["image", "--input", "layout", "--cache-dir", "cache"]);
        command.args(["--format", "json", "--scanners", "vuln", "--list-all-pkgs=false"]);
        command.args(["--no-progress", "--offline-scan", "--skip-java-db-update"]);
        command.args(["--timeout", &format!("{}s", time.as_secs().max(1))]);
        match &self.terms.server {
            None => {
                command.args(["--skip-db-update", "--cache-backend", "memory"]);
            }
            Some(server) => {
                command.args(["--server", server]);
                if let Some(file) = &self.terms.token_file {
                    let token = fs::read_to_string(file).map_err(|error| {
                        let file = file.display();
                        NotWell::again(format!("{file} (scan.trivy.token_file): {error}"))
                    })?;
                    command.env("TRIVY_TOKEN", token.trim());
                }
            }
        }
        Ok(command)
    }

    /// The cache of one run: only the databases are in it.
    fn cache(&self, folder: &Path, database: Option<&Path>) -> io::Result<()> {
        let cache = folder.join("cache");
        fs::create_dir_all(cache.join("db"))?;
        if let Some(database) = database {
            for name in [scan::database::DATABASE, scan::database::METADATA] {
                // not by a name: another database may take its place while this runs
                fs::hard_link(database.join(name), cache.join("db").join(name))?;
            }
        }
        match &self.terms.java_database {
            Some(java) => symlink(fs::canonicalize(java)?, cache.join("java-db")),
            None => Ok(()),
        }
    }

    /// Makes the view of an image. Returns what must stay open while it is read.
    async fn view(
        &self,
        folder: &Path,
        manifest: &ManifestRecord,
        image: &Image,
        reading: &Reading<'_>,
        end: Moment,
    ) -> Result<Vec<OpenBlob>, ScanError> {
        let disk = |error: io::Error| ScanError::Again(error.to_string());
        let layout = folder.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).map_err(disk)?;
        let place = |digest: &Digest| {
            let text = digest.to_string();
            let name =
                text.strip_prefix("sha256:").map(|hex| layout.join("blobs/sha256").join(hex));
            name.ok_or_else(|| ScanError::Hopeless(format!("trivy reads no blobs like {digest}")))
        };
        let config = config_of(&manifest.bytes)?;
        let mut open = BTreeMap::new();
        for digest in std::iter::once(&config).chain(image.layers.iter().map(|one| &one.digest)) {
            if !open.contains_key(digest) {
                let blob = reading.open(digest, end).await?;
                let to = place(digest)?;
                at_length(|| blob.place(&to)).map_err(disk)?;
                open.insert(*digest, blob);
            }
        }
        self.check(&open[&config], image, &open, end).await?;
        fs::write(place(reading.digest)?, &manifest.bytes).map_err(disk)?;
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": manifest.media_type,
            "digest": reading.digest.to_string(),
            "size": manifest.bytes.len(),
        }]});
        fs::write(layout.join("index.json"), index.to_string()).map_err(disk)?;
        let version = "{\"imageLayoutVersion\":\"1.0.0\"}";
        fs::write(layout.join("oci-layout"), version).map_err(disk)?;
        Ok(open.into_values().collect())
    }

    /// trivy looks into the layers that the configuration lists, and not into those of the manifest: both
    /// must be the same. What a server is told is believed for other images, too, so for one each layer's
    /// bytes are compared with what the configuration says of them.
    async fn check(
        &self,
        config: &OpenBlob,
        image: &Image,
        open: &BTreeMap<Digest, OpenBlob>,
        end: Moment,
    ) -> Result<(), ScanError> {
        if config.size > LONGEST_CONFIG {
            let most = format!("its configuration has more than {LONGEST_CONFIG} bytes");
            return Err(ScanError::Hopeless(most));
        }
        let read = serde_json::from_reader::<_, Config>(BufReader::new(Paced::new(config, None)));
        let config = read
            .map_err(|e| ScanError::Hopeless(format!("its configuration cannot be read: {e}")))?;
        let unpacked = config.rootfs.diff_ids;
        same_layers(&image.layers, &unpacked)?;
        if self.terms.server.is_none() {
            return Ok(());
        }
        for (layer, says) in image.layers.iter().zip(unpacked) {
            let bytes = Paced::new(&open[&layer.digest], self.terms.rate);
            let (kind, most) = (layer.media_type.clone(), self.terms.unpacked);
            let stop = Arc::new(AtomicBool::new(false));
            let (stopped, _stops) = (stop.clone(), StopsWork(stop));
            let hash = blocking(move || {
                let keep_on = || !stopped.load(Ordering::Relaxed) && clock::now() < end;
                let bytes = BufReader::with_capacity(1 << 18, bytes);
                scan::unpacked_digest(bytes, &kind, most, &keep_on)
            });
            let hashed = hash.await.map_err(|e| ScanError::Again(e.to_string()))?;
            let digest =
                hashed.map_err(|e| ScanError::Hopeless(format!("layer {}: {e}", layer.digest)))?;
            if digest.to_string() != says {
                let (layer, why) = (layer.digest, "its configuration says something else of");
                return Err(ScanError::Hopeless(format!("{why} layer {layer} than is in it")));
            }
        }
        Ok(())
    }
}

/// Whether a configuration lists the layers of a manifest: as many, and one name for each.
fn same_layers(layers: &[Layer], unpacked: &[String]) -> Result<(), ScanError> {
    if layers.len() != unpacked.len() {
        return Err(ScanError::Hopeless(format!(
            "its manifest has {} layers, and its configuration {}",
            layers.len(),
            unpacked.len()
        )));
    }
    let mut of = BTreeMap::new();
    for (layer, says) in layers.iter().zip(unpacked) {
        if *of.entry(says).or_insert(layer.digest) != layer.digest {
            let why = format!("its configuration takes two layers for one ({says})");
            return Err(ScanError::Hopeless(why));
        }
    }
    Ok(())
}

/// The digest of an image's configuration.
fn config_of(manifest: &[u8]) -> Result<Digest, ScanError> {
    let read = serde_json::from_slice::<serde_json::Value>(manifest).ok();
    let digest = read.and_then(|read| read["config"]["digest"].as_str()?.parse().ok());
    digest.ok_or_else(|| ScanError::Hopeless("its manifest names no configuration".into()))
}

fn no_database() -> NotWell {
    NotWell::again(
        "this node does not have the database of this mesh (scan.database), which it matches with",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_must_list_the_layers_of_its_manifest() {
        let layer = |text: &str| Layer {
            digest: Digest::sha256(text.as_bytes()),
            size: 1,
            media_type: String::new(),
        };
        let says = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let layers = [layer("a"), layer("b"), layer("a")];
        assert!(same_layers(&layers, &says(&["x", "y", "x"])).is_ok());
        for wrong in [&["x", "y"][..], &["x", "y", "x", "z"], &["x", "x", "x"]] {
            let refused = same_layers(&layers, &says(wrong));
            assert!(matches!(refused, Err(ScanError::Hopeless(_))), "{wrong:?}");
        }
        let digest = Digest::sha256(b"config");
        let manifest = json!({"config": {"digest": digest.to_string()}}).to_string();
        assert_eq!(config_of(manifest.as_bytes()).unwrap(), digest);
        assert!(config_of(b"{}").is_err() && config_of(b"[").is_err());
    }
}
