//! The database of vulnerabilities: trivy's, from a file, or from a registry that is looked at now and
//! then. A newer one takes the place of the one before when it is whole; one that is broken or older is
//! not used.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ground::supervise::blocking;
use parking_lot::Mutex;
use rules::words::digest::Hasher;
use rules::words::image::Image;
use scan::Database;
use tracing::{info, warn};
use upstream::Upstream;

/// The media type of the one layer (trivy-db's `pkg/db`).
const LAYER: &str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip";
/// The most bytes that a database's archive may have.
const LARGEST: u64 = 4 << 30;
/// The time between two looks at a file.
const LOOK: Duration = Duration::from_secs(2);
/// The time until a registry is looked at again after one look has failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Where the database comes from.
pub enum Origin {
    /// The archive (`db.tar.gz`) in this file, whenever it changes.
    File(PathBuf),
    /// The image with this name and tag at a registry, which is looked at so often.
    Registry {
        /// The registry.
        registry: Box<Upstream>,
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// The time between two looks.
        every: Duration,
    },
}

/// The database that is open.
pub struct Databases {
    origin: Origin,
    folder: PathBuf,
    open: Mutex<Option<Arc<Database>>>,
    problem: Mutex<Option<String>>,
}

/// By what a database is known: another one has another mark.
type Mark = String;

/// The database that was looked at last, and why it cannot be used, if that is so. It is not unpacked
/// again.
type Seen = Option<(Mark, Result<(), String>)>;

impl Databases {
    /// Nothing is open yet. Archives are unpacked in `folder`, which is this process's alone.
    pub fn new(origin: Origin, folder: PathBuf) -> Self {
        Databases { origin, folder, open: Mutex::default(), problem: Mutex::default() }
    }

    /// The database, if one is open.
    pub fn opened(&self) -> Option<Arc<Database>> {
        self.open.lock().clone()
    }

    /// Why the newest one is not open.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Follows the origin for as long as the process runs.
    pub async fn follow(&self) {
        let (mut seen, mut number) = (None, 0_u64);
        loop {
            let wait = match self.look(&mut seen, &mut number).await {
                Ok(()) => {
                    *self.problem.lock() = None;
                    match &self.origin {
                        Origin::File(_) => LOOK,
                        Origin::Registry { every, .. } => *every,
                    }
                }
                Err(why) => {
                    let mut problem = self.problem.lock();
                    if problem.as_ref() != Some(&why) {
                        warn!(why, "the database of vulnerabilities cannot be used");
                    }
                    *problem = Some(why);
                    match &self.origin {
                        Origin::File(_) => LOOK,
                        Origin::Registry { .. } => AGAIN,
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Opens what is there, if that is another one than was seen last.
    async fn look(&self, seen: &mut Seen, number: &mut u64) -> Result<(), String> {
        let known = |seen: &Seen, mark: &Mark| {
            seen.as_ref().filter(|(known, _)| known == mark).map(|(_, became)| became.clone())
        };
        let (mark, archive) = match &self.origin {
            Origin::File(file) => (mark_of(file)?, file.clone()),
            Origin::Registry { registry, repository, tag, .. } => {
                let manifest = registry.manifest(repository, tag).await;
                let manifest = manifest.map_err(|e| format!("{repository}:{tag}: {e}"))?;
                let image = Image::parts(&manifest.bytes).unwrap_or_default();
                let layer = match image.layers.as_slice() {
                    [layer] if layer.media_type == LAYER => layer,
                    _ => {
                        return Err(format!(
                            "{repository}:{tag} is not a database: it must have one layer of the type {LAYER}"
                        ));
                    }
                };
                let mark = layer.digest.to_string();
                if let Some(became) = known(seen, &mark) {
                    return became;
                }
                let file = self.folder.join("db.tar.gz");
                self.fetch(registry, repository, layer, &file).await?;
                (mark, file)
            }
        };
        if let Some(became) = known(seen, &mark) {
            return became;
        }
        *number += 1;
        let became = self.unpack(archive, *number).await;
        *seen = Some((mark, became.clone()));
        became
    }

    /// Unpacks an archive and opens what is in it, if that is not older than what is open.
    async fn unpack(&self, archive: PathBuf, number: u64) -> Result<(), String> {
        let place = self.folder.join(format!("database-{number}"));
        let unpacked = blocking(move || unpacked(&archive, &place)).await;
        let database = unpacked.map_err(|e| e.to_string())??;
        let made = database.about().updated_at;
        if self.opened().is_some_and(|open| open.about().updated_at > made) {
            let _ = fs::remove_dir_all(self.folder.join(format!("database-{number}")));
            return Err(format!("it was made at {made}, and a newer one is open"));
        }
        info!(updated = %made, "a database of vulnerabilities is open");
        *self.open.lock() = Some(Arc::new(database));
        self.remove_others(number);
        Ok(())
    }

    async fn fetch(
        &self,
        registry: &Upstream,
        repository: &str,
        layer: &rules::words::image::Layer,
        file: &Path,
    ) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| format!("the database: {error}");
        let mut blob = registry.blob(repository, &layer.digest, 0).await.map_err(|e| text(&e))?;
        let mut to = File::create(file).map_err(|e| text(&e))?;
        let (mut hasher, mut length) = (Hasher::new(layer.digest.algorithm()), 0_u64);
        while let Some(piece) = blob.next().await.map_err(|e| text(&e))? {
            hasher.update(&piece);
            length += piece.len() as u64;
            if length > LARGEST {
                return Err(format!("the database has more than {LARGEST} bytes"));
            }
            ground::supervise::at_length(|| to.write_all(&piece)).map_err(|e| text(&e))?;
        }
        match hasher.finish() == layer.digest {
            true => Ok(()),
            false => Err("the database's bytes have another digest".into()),
        }
    }

    fn remove_others(&self, number: u64) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let kept = format!("database-{number}");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("database-") && name != kept {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_file(self.folder.join("db.tar.gz"));
    }
}

/// A file is another one when its length or its time is.
fn mark_of(file: &Path) -> Result<Mark, String> {
    let named = |error: io::Error| format!("{}: {error}", file.display());
    let about = fs::metadata(file).map_err(named)?;
    let at = about.modified().map_err(named)?.duration_since(SystemTime::UNIX_EPOCH);
    Ok(format!("{} {}", about.len(), at.unwrap_or_default().as_nanos()))
}

fn unpacked(archive: &Path, place: &Path) -> Result<Database, String> {
    let text = |error: &dyn std::fmt::Display| format!("{}: {error}", archive.display());
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place).map_err(|e| text(&e))?;
    let unpack = || {
        let file = File::open(archive).map_err(|e| text(&e))?;
        let bytes = io::BufReader::with_capacity(1 << 18, file);
        scan::unpack_database(bytes, place).map_err(|e| text(&e))?;
        Database::open(&place.join("trivy.db")).map_err(|e| text(&e))
    };
    unpack().inspect_err(|_| drop(fs::remove_dir_all(place)))
}
