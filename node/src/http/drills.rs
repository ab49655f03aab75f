//! Whether a drill has this node refuse its clients.

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use registry::view::neighbours::Neighbours;
use rules::ledger::drills::LookForDrills;
use rules::members::drilling::Drilled;
use tracing::{debug, info};

/// The time between two looks at a replica.
const LOOK: Duration = Duration::from_millis(500);
/// The time between two looks at an edge, which asks a replica.
const ASK: Duration = Duration::from_secs(2);

/// What this node knows of a drill.
#[derive(Default)]
pub struct Drills {
    refuses: Mutex<Option<Arc<str>>>,
}

impl Drills {
    /// Looks for drills as long as the node runs.
    pub fn start(neighbours: Arc<Neighbours>, tasks: &Tasks) -> Arc<Self> {
        let drills = Arc::new(Drills::default());
        let told = drills.clone();
        tasks.spawn("http.drills", async move {
            let mut drilled = Drilled::default();
            let pause = if neighbours.is_edge() { ASK } else { LOOK };
            loop {
                tokio::time::sleep(pause).await;
                told.look(&neighbours, &mut drilled).await;
            }
        });
        drills
    }

    /// What clients are told, if they are refused.
    pub fn refuses(&self) -> Option<Arc<str>> {
        self.refuses.lock().clone()
    }

    async fn look(&self, neighbours: &Neighbours, drilled: &mut Drilled) {
        let read = match neighbours.is_edge() {
            // it has only what it asks for, and forgets what is old
            true => neighbours.records.read(|records| records.last_drill()).await.map(|one| one.0),
            false => {
                Ok(neighbours.records.view().and_then(|view| view.last_drill()).ok().flatten())
            }
        };
        let drill = match read {
            Ok(drill) => drill,
            // a replica of an earlier build, or none that answers: what began ends at its time
            Err(error) => {
                debug!(?error, "whether there is a drill is not known");
                None
            }
        };
        let region = &neighbours.region;
        let others = neighbours.alive().iter().any(|candidate| candidate.region != *region);
        let said = drilled.handle(clock::now(), clock::timestamp(), drill.as_ref(), region, others);
        let mut refuses = self.refuses.lock();
        match (&*refuses, &said) {
            (None, Some(why)) => info!(%why, "a drill begins: clients are refused"),
            (Some(_), None) => info!("the drill is over: clients are answered again"),
            _ => {}
        }
        metrics::gauge!("atoll_drill").set(if said.is_some() { 1.0 } else { 0.0 });
        *refuses = said.map(Arc::from);
    }
}
