//! Preheating: brings the blobs of images into regions before clients there ask for them.
//!
//! A preheat is a job of the project of its first image. Its owner keeps the progress. For each blob
//! that a region lacks, it asks the node that would also fetch the blob for the region's clients.
//! When the owner dies, the next one looks which blobs are there and goes on with the rest.
//!
//! Below the feature level of jobs, the node that takes a preheat drives it, and a restart of that
//! node ends it.

mod contents;
mod fetching;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::jobs::{MAX_ORDER, Priority, RunEnd, Task, bounded};
use rules::ledger::records::{Look, RecordError};
use rules::proxies::mirror;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, Region, RepositoryName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Run, Work};
use crate::blobs::flights::Flights;
use crate::proxies::mirrors::{Mirrors, NoMirror};
use crate::proxies::resolving::Proxies;
use crate::view::neighbours::Neighbours;
use store::Store;

/// The name of this kind of jobs.
pub const KIND: &str = "preheat";
/// How often a preheat is tried.
const TRIES: u32 = 3;
/// The time between two reports of the progress.
const REPORT: Duration = Duration::from_millis(300);
/// The maximum number of errors that are kept for each image and region.
const ERRORS: usize = 20;
/// The maximum number of preheats that run at a time, below the level of jobs.
const RUNNING: usize = 8;
/// The maximum number of preheats that are remembered below that level, including those that run.
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
    /// It waits for its turn.
    Waiting,
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

impl State {
    /// Its word in the API.
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Resolving => "resolving",
            State::Fetching => "fetching",
            State::Done => "done",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }
}

/// What is to be preheated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The images.
    pub images: Vec<OrderedImage>,
    /// The regions that should hold them.
    pub regions: Vec<Region>,
    /// The platforms wanted; all if empty.
    pub platforms: Vec<String>,
}

/// An image of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedImage {
    /// As written in the request.
    pub written: String,
    /// The repository that it means.
    pub repository: RepositoryName,
    /// Its tag or digest.
    pub reference: Reference,
}

impl Order {
    /// The job for it, of the project of the first image.
    pub fn task(&self, asked_by: &str) -> Result<Task, Untaken> {
        let Some(first) = self.images.first() else {
            return Err(Untaken::Unclear("write at least one image".into()));
        };
        let more = match self.images.len() {
            1 => String::new(),
            many => format!(" and {} more", many - 1),
        };
        let regions: Vec<&str> = self.regions.iter().map(Region::as_str).collect();
        let subject = format!("{}{more} to {}", first.written, regions.join(", "));
        let order = serde_json::to_vec(self).map_err(|e| Untaken::Unclear(e.to_string()))?;
        if order.len() > MAX_ORDER {
            let message = "the names of the images are too long for one preheat; write fewer";
            return Err(Untaken::Unclear(message.into()));
        }
        Ok(Task {
            project: first.repository.project(),
            kind: KIND.into(),
            subject: bounded(&subject, 300),
            order,
            priority: Priority::Normal,
            tries: TRIES,
            asked_by: bounded(asked_by, 300),
        })
    }

    /// The order in a job.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("the order cannot be read: {e}"))
    }

    /// Its images, each with this state in all regions.
    pub fn items(&self, state: State) -> Vec<Item> {
        let begin = |region: &Region| Progress {
            region: region.clone(),
            state,
            blobs: (0, 0),
            bytes: (0, 0),
            errors: Vec::new(),
        };
        let item = |image: &OrderedImage| Item {
            written: image.written.clone(),
            repository: image.repository.clone(),
            reference: image.reference.clone(),
            digest: None,
            regions: self.regions.iter().map(begin).collect(),
        };
        self.images.iter().map(item).collect()
    }
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

impl Progress {
    fn fails(&mut self, error: String) {
        if self.errors.len() < ERRORS {
            self.errors.push(error);
        }
    }

    /// As the API shows it.
    pub fn show(&self) -> Value {
        json!({
            "region": self.region.as_str(),
            "state": self.state.word(),
            "blobs": {"wanted": self.blobs.0, "held": self.blobs.1},
            "bytes": {"wanted": self.bytes.0, "held": self.bytes.1},
            "errors": self.errors,
        })
    }
}

impl Item {
    /// As the API shows it.
    pub fn show(&self) -> Value {
        json!({
            "image": self.written,
            "repository": self.repository.as_str(),
            "reference": self.reference.to_string(),
            "digest": self.digest.map(|digest| digest.to_string()),
            "regions": self.regions.iter().map(Progress::show).collect::<Vec<_>>(),
        })
    }
}

/// A preheat and its progress.
#[derive(Clone, Debug)]
pub struct Preheat {
    /// Its number.
    pub id: u64,
    /// When it was accepted.
    pub taken: Timestamp,
    /// The platforms wanted; all if empty.
    pub platforms: Vec<String>,
    /// The images.
    pub items: Vec<Item>,
    /// Whether it was stopped, so that nothing new is begun.
    stopped: bool,
    /// Whether something is wrong that no other try mends.
    hopeless: bool,
}

impl Preheat {
    /// The state of the preheat as a whole. It is done, failed or stopped only when every part has
    /// ended.
    pub fn state(&self) -> State {
        let states = || self.items.iter().flat_map(|item| item.regions.iter().map(|r| r.state));
        let under_way = [State::Waiting, State::Resolving, State::Fetching];
        if states().any(|state| under_way.contains(&state)) {
            return State::Fetching;
        }
        let any = |one: &State| states().any(|state| state == *one);
        [State::Failed, State::Stopped].into_iter().find(any).unwrap_or(State::Done)
    }

    fn is_over(&self) -> bool {
        self.state() != State::Fetching
    }

    /// How a run of it ended.
    fn end(&self) -> RunEnd {
        let regions = || self.items.iter().flat_map(|item| item.regions.iter());
        let (blobs, bytes) = regions().fold((0, 0), |(blobs, bytes), region| {
            (blobs + region.blobs.1, bytes + region.bytes.1)
        });
        let held = format!("{blobs} blobs ({bytes} bytes) are held where they were wanted");
        let errors = self.items.iter().flat_map(|item| {
            let of = |region: &Progress| {
                let about = format!("{} in {}", item.written, region.region);
                region.errors.iter().map(|error| format!("{about}: {error}")).collect::<Vec<_>>()
            };
            item.regions.iter().flat_map(of).collect::<Vec<_>>()
        });
        match self.state() {
            State::Done => RunEnd::Done(held),
            State::Failed if self.hopeless => {
                RunEnd::Hopeless(errors.collect::<Vec<_>>().join("; "))
            }
            State::Failed => RunEnd::Failed(errors.collect::<Vec<_>>().join("; ")),
            _ => RunEnd::Stopped(held),
        }
    }
}

impl Work for Preheats {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(async move {
            let order = match Order::of(&run.job.task.order) {
                Ok(order) => order,
                Err(error) => return RunEnd::Hopeless(error),
            };
            let shared = Arc::new(Mutex::new(Preheat {
                id: run.job.id.0,
                taken: run.job.created,
                items: order.items(State::Resolving),
                platforms: order.platforms,
                stopped: false,
                hopeless: false,
            }));
            let mut told = Told::default();
            let watched = async {
                loop {
                    if run.is_stopped() {
                        shared.lock().stopped = true;
                    }
                    report(run, &shared, &mut told);
                    tokio::time::sleep(REPORT).await;
                }
            };
            tokio::select! {
                () = self.carry_out_all(&shared) => {}
                () = watched => {}
            }
            report(run, &shared, &mut told);
            let preheat = shared.lock();
            preheat.end()
        })
    }
}

/// What was told of a preheat, so that the same is not told twice.
#[derive(Default)]
struct Told {
    progress: String,
    states: Vec<State>,
}

/// Tells the progress of a preheat, and logs each image in each region whose state is another.
fn report(run: &Run, shared: &Shared, told: &mut Told) {
    let preheat = shared.lock().clone();
    let shown = Value::from(preheat.items.iter().map(Item::show).collect::<Vec<_>>()).to_string();
    if shown != told.progress {
        run.progress(shown.clone());
        told.progress = shown;
    }
    let parts = || preheat.items.iter().flat_map(|i| i.regions.iter().map(move |r| (i, r)));
    for (number, (item, region)) in parts().enumerate() {
        if told.states.get(number) != Some(&region.state) {
            run.log(format!(
                "{} in {}: {}, {} of {} blobs, {} of {} bytes",
                item.written,
                region.region,
                region.state.word(),
                region.blobs.1,
                region.blobs.0,
                region.bytes.1,
                region.bytes.0
            ));
        }
    }
    told.states = parts().map(|(_, region)| region.state).collect();
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

    /// Reads an order: its images, regions and platforms must be there.
    pub fn order(
        &self,
        images: &[String],
        regions: &[String],
        platforms: Vec<String>,
    ) -> Result<Order, Untaken> {
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
            items.push(OrderedImage { written: written.clone(), repository, reference });
        }
        Ok(Order { images: items, regions: wanted.into_iter().collect(), platforms })
    }

    /// Below the level of jobs: accepts a preheat and starts it here. Returns its number.
    pub fn take(self: &Arc<Self>, order: &Order) -> Result<u64, Untaken> {
        let running = self.running.clone().try_acquire_owned().map_err(|_| Untaken::TooMany)?;
        let preheat = Preheat {
            id: rand::random(),
            taken: clock::timestamp(),
            platforms: order.platforms.clone(),
            items: order.items(State::Resolving),
            stopped: false,
            hopeless: false,
        };
        let id = preheat.id;
        let shared = Arc::new(Mutex::new(preheat));
        self.remember(id, shared.clone());
        let preheats = self.clone();
        self.tasks.spawn("preheat", async move {
            let _running = running;
            preheats.carry_out_all(&shared).await;
        });
        Ok(id)
    }

    /// The present state of a preheat that this node took below the level of jobs.
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

    /// All preheats of this node that are remembered, the oldest first. Those that are jobs are not
    /// among them.
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
                hopeless: false,
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
