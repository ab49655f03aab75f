//! Preheating: the blobs of images are brought into regions before anyone there asks for them.
//!
//! The node that takes an order keeps its progress and drives it: for each blob that a region
//! lacks, it asks the node of that region that would fetch the blob for the region's clients, too.
//! An order is gone when its node restarts; what has arrived by then stays.

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

/// So many orders run at a time.
const RUNNING: usize = 8;
/// So many orders are remembered, those that run among them.
const REMEMBERED: usize = 100;
/// An order has at most this many images.
const IMAGES: usize = 100;

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// A sentence for the caller.
    #[error("{0}")]
    Unclear(String),
    /// There is no such project, and which there are.
    #[error("there is no project {0}")]
    NoProject(String),
    /// Others run.
    #[error("{RUNNING} preheats run already on this node; wait for one, or ask another node")]
    TooMany,
    /// An image of a registry that is not mirrored.
    #[error(transparent)]
    NoMirror(#[from] NoMirror),
    /// This node's own fault.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Where something of an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What the image is made of is being found out.
    Resolving,
    /// Blobs are on their way.
    Fetching,
    /// All of it is held.
    Done,
    /// Something is not held, and the errors say why.
    Failed,
    /// It was stopped before all of it was held.
    Stopped,
}

/// An image in a region.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Where.
    pub region: Region,
    /// Where it stands.
    pub state: State,
    /// Blobs: wanted, and held in the region.
    pub blobs: (u64, u64),
    /// Bytes: wanted, and held in the region.
    pub bytes: (u64, u64),
    /// What went wrong.
    pub errors: Vec<String>,
}

/// An image of an order.
#[derive(Clone, Debug)]
pub struct Item {
    /// As it was written.
    pub written: String,
    /// The repository that it means.
    pub repository: RepositoryName,
    /// Its tag or digest.
    pub reference: Reference,
    /// What that is, once known.
    pub digest: Option<Digest>,
    /// In each region.
    pub regions: Vec<Progress>,
}

/// An order, and how far it is.
#[derive(Clone, Debug)]
pub struct Preheat {
    /// Its name on this node.
    pub id: u64,
    /// When it was taken.
    pub taken: Timestamp,
    /// The platforms wanted; none are all.
    pub platforms: Vec<String>,
    /// The images.
    pub items: Vec<Item>,
    /// Whether it is to begin with nothing more.
    stopped: bool,
}

impl Preheat {
    /// The order as a whole: done, failed or stopped when all of it has come to an end.
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

/// The orders of this node.
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
    /// None yet.
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

    /// Takes an order and begins with it; its number.
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

    /// An order as it stands.
    pub fn look(&self, id: u64) -> Option<Preheat> {
        let shared = self.orders.lock().get(&id).cloned()?;
        let preheat = shared.lock().clone();
        Some(preheat)
    }

    /// Has an order begin with nothing more; what is on its way arrives. The order as it stands
    /// then, if there is such a one.
    pub fn stop(&self, id: u64) -> Option<Preheat> {
        let shared = self.orders.lock().get(&id).cloned()?;
        let mut preheat = shared.lock();
        preheat.stopped = true;
        Some(preheat.clone())
    }

    /// All orders that are remembered, the oldest first.
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
