//! Preheating: brings the blobs of images into regions before clients there ask for them.
//!
//! The node that takes a preheat drives it and keeps its progress. For each blob that a region
//! lacks, it asks the node that would also fetch the blob for the region's clients. A restart of
//! the node ends the preheat; blobs that have arrived by then stay.

mod contents;
mod fetching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::records::{Look, RecordError};
use rules::proxies::mirror;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, Region, RepositoryName};
use tokio::sync::Semaphore;

use crate::blobs::flights::Flights;
use crate::proxies::mirrors::{Mirrors, NoMirror};
use crate::proxies::resolving::Proxies;
use crate::view::neighbours::Neighbours;
use store::Store;

/// The maximum number of preheats that run at a time.
const RUNNING: usize = 8;
/// The maximum number of preheats that are remembered, including those that run.
const REMEMBERED: usize = 100;
/// The maximum number of images in a preheat.
const IMAGES: usize = 100;

/// Why a preheat was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// A sentence for the caller.
    #[error("{0}")]
    Unclear(String),
    /// There is no such project. The text also lists the projects that exist.
    #[error("there is no project {0}")]
    NoProject(String),
    /// Too many others run.
    #[error("{RUNNING} preheats run already on this node; wait for one, or ask another node")]
    TooMany,
    /// The image is of a registry that is not mirrored.
    #[error(transparent)]
    NoMirror(#[from] NoMirror),
    /// A fault of this node.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// The state of a preheat or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The contents of the image are being determined.
    Resolving,
    /// Blobs are being fetched.
    Fetching,
    /// Everything is held.
    Done,
    /// Something is not held; the errors say why.
    Failed,
    /// It was stopped before everything was held.
    Stopped,
}

/// The progress of an image in one region.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The region.
    pub region: Region,
    /// The state.
    pub state: State,
    /// Blobs: wanted, and held in the region.
    pub blobs: (u64, u64),
    /// Bytes: wanted, and held in the region.
    pub bytes: (u64, u64),
    /// The errors.
    pub errors: Vec<String>,
}

/// An image of a preheat.
#[derive(Clone, Debug)]
pub struct Item {
    /// The image as written in the request.
    pub written: String,
    /// The repository that it means.
    pub repository: RepositoryName,
    /// Its tag or digest.
    pub reference: Reference,
    /// The digest of that, once known.
    pub digest: Option<Digest>,
    /// The progress in each region.
    pub regions: Vec<Progress>,
}

/// A preheat and its progress.
#[derive(Clone, Debug)]
pub struct Preheat {
    /// Its number on this node.
    pub id: u64,
    /// When it was accepted.
    pub taken: Timestamp,
    /// The platforms wanted; all if empty.
    pub platforms: Vec<String>,
    /// The images.
    pub items: Vec<Item>,
    /// Whether it was stopped, so that nothing new is begun.
    stopped: bool,
}

impl Preheat {
    /// The state of the preheat as a whole. It is done, failed or stopped only when every part has
    /// ended.
    pub fn state(&self) -> State {
        let states = || self.items.iter().flat_map(|item| item.regions.iter().map(|r| r.state));
        if states().any(|state| matches!(state, State::Resolving | State::Fetching)) {
            return State::Fetching;
        }
        let any = |one: &State| states().any(|state| state == *one);
        [State::Failed, State::Stopped].into_iter().find(any).unwrap_or(State::Done)
    }

    fn is_over(&self) -> bool {
        self.state() != State::Fetching
    }
}

type Shared = Arc<Mutex<Preheat>>;

/// The preheats of this node.
pub struct Preheats {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    proxies: Arc<Proxies>,
    mirrors: Arc<Mirrors>,
    tasks: Tasks,
    running: Arc<Semaphore>,
    orders: Mutex<BTreeMap<u64, Shared>>,
}

impl Preheats {
    /// No preheats yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        proxies: Arc<Proxies>,
        mirrors: Arc<Mirrors>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (running, orders) = (Arc::new(Semaphore::new(RUNNING)), Mutex::default());
        Arc::new(Preheats { neighbours, store, flights, proxies, mirrors, tasks, running, orders })
    }

    /// Accepts a preheat and starts it. Returns its number.
    pub fn take(
        self: &Arc<Self>,
        images: &[String],
        regions: &[String],
        platforms: Vec<String>,
    ) -> Result<u64, Untaken> {
        let known = self.neighbours.regions();
        let mut wanted = BTreeSet::new();
        for written in regions {
            match written.parse::<Region>().ok().filter(|region| known.contains(region)) {
                Some(region) => drop(wanted.insert(region)),
                None => {
                    let names: Vec<&str> = known.iter().map(Region::as_str).collect();
                    let message = format!(
                        "there is no region '{written}'; the regions are {}",
                        names.join(", ")
                    );
                    return Err(Untaken::Unclear(message));
                }
            }
        }
        if wanted.is_empty() || images.is_empty() || images.len() > IMAGES {
            let message =
                format!("write 1 to {IMAGES} images and at least one region, in lists of texts");
            return Err(Untaken::Unclear(message));
        }
        if let Some(bad) = platforms.iter().find(|platform| !platform.contains('/')) {
            return Err(Untaken::Unclear(format!(
                "'{bad}' is not a platform; write e.g. linux/amd64"
            )));
        }
        let view = self.neighbours.records.view()?;
        let mut items = Vec::new();
        for written in images {
            let (name, reference) = mirror::image(written)
                .map_err(|error| Untaken::Unclear(format!("'{written}': {error}")))?;
            let repository = self.mirrors.of_image(name)?;
            if view.project(&repository.project())?.is_none() {
                let all: Vec<String> =
                    view.projects()?.into_iter().map(|p| p.name.to_string()).collect();
                let message =
                    format!("{}; the projects are {}", repository.project(), all.join(", "));
                return Err(Untaken::NoProject(message));
            }
            let begin = |region: &Region| Progress {
                region: region.clone(),
                state: State::Resolving,
                blobs: (0, 0),
                bytes: (0, 0),
                errors: Vec::new(),
            };
            let regions = wanted.iter().map(begin).collect();
            items.push(Item {
                written: written.clone(),
                repository,
                reference,
                digest: None,
                regions,
            });
        }
        let running = self.running.clone().try_acquire_owned().map_err(|_| Untaken::TooMany)?;
        let preheat = Preheat {
            id: rand::random(),
            taken: clock::timestamp(),
            platforms,
            items,
            stopped: false,
        };
        let id = preheat.id;
        let shared = Arc::new(Mutex::new(preheat));
        self.remember(id, shared.clone());
        let preheats = self.clone();
        self.tasks.spawn("preheat", async move {
            let _running = running;
            preheats.carry_out(&shared).await;
        });
        Ok(id)
    }

    /// The present state of a preheat.
    pub fn look(&self, id: u64) -> Option<Preheat> {
        let shared = self.orders.lock().get(&id).cloned()?;
        let preheat = shared.lock().clone();
        Some(preheat)
    }

    /// Stops a preheat: nothing new is begun, and blobs that are on their way still arrive. Returns
    /// its state then; `None` if there is no such preheat.
    pub fn stop(&self, id: u64) -> Option<Preheat> {
        let shared = self.orders.lock().get(&id).cloned()?;
        let mut preheat = shared.lock();
        preheat.stopped = true;
        Some(preheat.clone())
    }

    /// All preheats that are remembered, the oldest first.
    pub fn list(&self) -> Vec<Preheat> {
        let shared: Vec<Shared> = self.orders.lock().values().cloned().collect();
        let mut list: Vec<Preheat> = shared.iter().map(|one| one.lock().clone()).collect();
        list.sort_by_key(|one| (one.taken.0, one.id));
        list
    }

    fn remember(&self, id: u64, shared: Shared) {
        let all = self.list();
        let mut orders = self.orders.lock();
        if let Some(oldest) =
            all.iter().find(|one| one.is_over()).filter(|_| all.len() >= REMEMBERED)
        {
            orders.remove(&oldest.id);
        }
        orders.insert(id, shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_over_when_all_of_it_is_and_well_only_if_all_of_it_is() {
        let order = |states: &[State]| {
            let progress = |state: &State| Progress {
                region: "a".parse().unwrap(),
                state: *state,
                blobs: (0, 0),
                bytes: (0, 0),
                errors: Vec::new(),
            };
            let item = Item {
                written: String::new(),
                repository: "hub/a".parse().unwrap(),
                reference: "1".parse().unwrap(),
                digest: None,
                regions: states.iter().map(progress).collect(),
            };
            Preheat {
                id: 0,
                taken: Timestamp(0),
                platforms: Vec::new(),
                items: vec![item],
                stopped: false,
            }
            .state()
        };
        assert_eq!(order(&[State::Done, State::Resolving]), State::Fetching);
        assert_eq!(order(&[State::Failed, State::Fetching]), State::Fetching);
        assert_eq!(order(&[State::Failed, State::Done]), State::Failed);
        assert_eq!(order(&[State::Stopped, State::Done]), State::Stopped);
        assert_eq!(order(&[State::Stopped, State::Failed]), State::Failed);
        assert_eq!(order(&[State::Done, State::Done]), State::Done);
    }
}
