//! The database of vulnerabilities at this node. It is an image of this mesh like any other, trivy's
//! `trivy-db`: whoever pushes a newer one to its tag updates all nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, blocking};
use parking_lot::Mutex;
use rules::blobs::pacing::Class;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::Level;
use rules::ledger::records::Look;
use rules::ledger::scanning::{LookForScans, ScannerChange};
use rules::words::digest::Digest;
use rules::words::image::Image;
use rules::words::names::{OperationId, RepositoryName, Tag};
use scan::{About, Database, DatabaseError};
use tracing::{info, warn};

use crate::blobs::flights::{Flights, Sources};
use crate::view::neighbours::Neighbours;
use store::Store;

/// The time between two looks at the tag.
const LOOK: Duration = Duration::from_secs(2);
/// The time between two looks after one that failed.
const AGAIN: Duration = Duration::from_secs(10);
/// How far the date of a database may be ahead of this node's clock, in milliseconds.
const AHEAD: u64 = 10 * 60 * 1000;
/// The media type of the one layer (trivy-db's `pkg/db`).
pub const LAYER: &str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip";

/// What a node without the setting says.
const NOT_SET: &str = "scan.database is not set on this node";

/// Why a database is not used. A sentence for people.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct NotUsed(String);

/// A database that is open.
#[derive(Clone)]
struct Open {
    digest: Digest,
    database: Arc<Database>,
}

/// The files of a database that is open.
pub(super) struct DatabaseFiles {
    /// The folder that they are in, for as long as it is in use.
    pub(super) folder: PathBuf,
    /// The digest of its archive.
    pub(super) digest: Digest,
    /// What it says of itself.
    pub(super) about: About,
}

/// What of the database is at this node.
#[derive(Clone, Debug, Default)]
pub struct DatabaseStatus {
    /// Where this node looks for it (`scan.database`).
    pub source: Option<(RepositoryName, Tag)>,
    /// The digest of the database that is open.
    pub open: Option<Digest>,
    /// What the tag names now.
    pub named: Option<Digest>,
    /// Why that is not open.
    pub problem: Option<String>,
}

/// The database at this node.
pub struct Databases {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    folder: PathBuf,
    source: Option<(RepositoryName, Tag)>,
    fetch: Duration,
    commit: Duration,
    open: Mutex<Option<Open>>,
    /// The last archive that is no database, or that the mesh does not want: it is not unpacked again.
    refused: Mutex<Option<(Digest, NotUsed)>>,
    status: Mutex<DatabaseStatus>,
}

impl Databases {
    /// Nothing is open yet. Keeps the open database under `data_dir`.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        data_dir: &Path,
        terms: &super::ScanTerms,
    ) -> Arc<Self> {
        Arc::new(Databases {
            neighbours,
            store,
            flights,
            folder: data_dir.join("vulnerabilities"),
            source: terms.database.clone(),
            fetch: terms.fetch,
            commit: terms.commit,
            open: Mutex::default(),
            refused: Mutex::default(),
            status: Mutex::new(DatabaseStatus {
                source: terms.database.clone(),
                problem: terms.database.is_none().then(|| NOT_SET.to_owned()),
                ..DatabaseStatus::default()
            }),
        })
    }

    /// The database with this digest, if it is open here.
    pub fn opened(&self, digest: &Digest) -> Option<Arc<Database>> {
        let open = self.open.lock();
        open.as_ref().filter(|open| open.digest == *digest).map(|open| open.database.clone())
    }

    /// The database that is open here, for a program that reads its files.
    pub(super) fn in_use(&self) -> Option<DatabaseFiles> {
        let open = self.open.lock().clone()?;
        let (digest, about) = (open.digest, open.database.about().clone());
        Some(DatabaseFiles { folder: self.place(&digest), digest, about })
    }

    /// What of it is here.
    pub fn status(&self) -> DatabaseStatus {
        self.status.lock().clone()
    }

    pub(super) fn start(self: &Arc<Self>, tasks: &Tasks) {
        if self.source.is_some() {
            let databases = self.clone();
            tasks.spawn("vulnerability-database", async move { databases.follow().await });
        }
    }

    async fn follow(&self) {
        loop {
            let mut wait = LOOK;
            if let Err(why) = self.look().await {
                let mut status = self.status.lock();
                if status.problem.as_deref() != Some(&why.0) {
                    warn!(%why, "the database of vulnerabilities (scan.database) cannot be used");
                }
                status.problem = Some(why.0);
                wait = AGAIN;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Opens what the tag names, and tells the mesh.
    async fn look(&self) -> Result<(), NotUsed> {
        let broken = |e: &dyn std::fmt::Display| NotUsed(e.to_string());
        let Some((repository, tag)) = &self.source else { return Ok(()) };
        let view = self.neighbours.records.view().map_err(|e| broken(&e))?;
        if view.level().map_err(|e| broken(&e))? < Level::SCANS {
            return Err(NotUsed(format!("this needs feature level {}", Level::SCANS)));
        }
        let used = view.scan_database().map_err(|e| broken(&e))?;
        let named = view.tag(repository, tag).map_err(|e| broken(&e))?;
        let manifest = match &named {
            Some(named) => view.manifest(repository, &named.digest).map_err(|e| broken(&e))?,
            None => None,
        };
        drop(view);
        // whatever becomes of the tag
        let opened = self.open_used(used.as_ref().map(|used| used.digest)).await;
        if named.is_none() {
            return Err(NotUsed(format!("{repository}:{tag} is not there; push trivy-db to it")));
        }
        let image = manifest.and_then(|manifest| Image::parts(&manifest.bytes)).unwrap_or_default();
        let layer = match image.layers.as_slice() {
            [layer] if layer.media_type == LAYER => layer.digest,
            _ => {
                return Err(NotUsed(format!(
                    "{repository}:{tag} is not a database: it must have one layer of the type {LAYER}"
                )));
            }
        };
        {
            let mut status = self.status.lock();
            if status.named.replace(layer) != Some(layer) {
                // a problem was of what the tag named before
                status.problem = None;
            }
        }
        if used.is_none_or(|used| used.digest != layer) {
            let refused = self.refused.lock().clone();
            if let Some((_, why)) = refused.filter(|(digest, _)| *digest == layer) {
                return Err(why);
            }
            let database = self.prepared(layer).await?;
            // the mesh decides: what it uses now stays open here until it has said yes
            self.tell(layer, &database).await?;
            self.use_it(layer, database);
        } else {
            opened?;
        }
        self.status.lock().problem = None;
        Ok(())
    }

    /// Opens the database that the mesh uses, if it is not open. It may be on the disk only: whoever
    /// has pushed another to the tag has made its blob garbage.
    async fn open_used(&self, used: Option<Digest>) -> Result<(), NotUsed> {
        let Some(digest) = used.filter(|digest| self.opened(digest).is_none()) else {
            return Ok(());
        };
        let database = self.prepared(digest).await?;
        self.use_it(digest, database);
        Ok(())
    }

    /// A database, unpacked and opened, and not used yet.
    async fn prepared(&self, digest: Digest) -> Result<Arc<Database>, NotUsed> {
        let place = self.place(&digest);
        if !place.join("trivy.db").is_file() {
            self.unpack(digest, &place).await?;
        }
        let file = place.join("trivy.db");
        let opened = blocking(move || Database::open(&file)).await;
        let opened = opened.map_err(|e| NotUsed(e.to_string()))?;
        opened.map(Arc::new).map_err(|error| self.refuse(digest, error.to_string()))
    }

    /// Nothing of this archive stays on the disk, and it is not looked at again.
    fn refuse(&self, digest: Digest, why: String) -> NotUsed {
        let (place, why) = (self.place(&digest), NotUsed(why));
        for folder in [place.with_extension("partial"), place] {
            let _ = fs::remove_dir_all(folder);
        }
        *self.refused.lock() = Some((digest, why.clone()));
        why
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.to_string().replace(':', "-"))
    }

    fn use_it(&self, digest: Digest, database: Arc<Database>) {
        info!(%digest, updated = %database.about().updated_at, "a database of vulnerabilities is open");
        *self.open.lock() = Some(Open { digest, database });
        self.status.lock().open = Some(digest);
        self.remove_others(&self.place(&digest));
    }

    async fn unpack(&self, digest: Digest, place: &Path) -> Result<(), NotUsed> {
        let blob = self.store.open_sound(&digest).await.map_err(|e| NotUsed(e.to_string()))?;
        let blob = match blob {
            Some(blob) => blob,
            None => {
                let flight = self.flights.join(digest, Sources::Find { via: None }, Class::Copy);
                let fetched = tokio::time::timeout(self.fetch, flight.finished()).await;
                let fetched = fetched.map_err(|_| NotUsed("it did not arrive in time".into()))?;
                fetched.map_err(|e| NotUsed(e.to_string()))?;
                let blob = self.store.open_sound(&digest).await;
                let gone = || NotUsed("there is no room for it (cache.budget)".into());
                blob.map_err(|e| NotUsed(e.to_string()))?.ok_or_else(gone)?
            }
        };
        let (partial, place) = (place.with_extension("partial"), place.to_owned());
        let unpacked = blocking(move || {
            let _ = fs::remove_dir_all(&partial);
            fs::create_dir_all(&partial)?;
            let bytes = std::io::BufReader::with_capacity(1 << 18, blob.reader());
            scan::unpack_database(bytes, &partial)?;
            let _ = fs::remove_dir_all(&place);
            fs::rename(&partial, &place)?;
            Ok(())
        });
        match unpacked.await.map_err(|e| NotUsed(e.to_string()))? {
            Ok(()) => Ok(()),
            // the disk's fault, and not the archive's
            Err(error @ DatabaseError::File(_)) => Err(NotUsed(error.to_string())),
            Err(error) => Err(self.refuse(digest, error.to_string())),
        }
    }

    /// Removes earlier databases from the disk.
    fn remove_others(&self, place: &Path) {
        let Ok(folders) = fs::read_dir(&self.folder) else { return };
        for folder in folders.flatten().filter(|folder| folder.path() != *place) {
            if let Err(error) = fs::remove_dir_all(folder.path()) {
                warn!(%error, "an earlier database of vulnerabilities could not be removed");
            }
        }
    }

    /// Tells the mesh to use it from now on.
    async fn tell(&self, digest: Digest, database: &Database) -> Result<(), NotUsed> {
        let about = database.about();
        // it would keep those that come until then from being used
        if about.updated_at.0 > clock::timestamp().0 + AHEAD {
            let why = format!("it says that it was made at {}", about.updated_at);
            return Err(NotUsed(why));
        }
        let change = ScannerChange::Database {
            digest,
            updated: about.updated_at,
            next_update: about.next_update,
        };
        let (operation, command) =
            (OperationId(rand::random()), Command::Scanner(Box::new(change)));
        let proposed = self.neighbours.records.propose(operation, command, self.commit).await;
        match proposed.map_err(|e| NotUsed(e.to_string()))?.outcome {
            Outcome::Done | Outcome::Exists => Ok(()),
            Outcome::Refused(why) => Err(self.refuse(digest, why)),
            other => Err(NotUsed(format!("{other:?}"))),
        }
    }
}
