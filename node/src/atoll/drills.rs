//! `/api/atoll/v1/dr/drill`: a region refuses its clients for a time, and what becomes of its projects.

use std::collections::BTreeSet;
use std::time::Duration;

use ground::clock;
use http::{Response, StatusCode};
use registry::writes::{Refusal, settle};
use rules::ledger::command::Command;
use rules::ledger::drills::{DrillChange, LookForDrills};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, Role};
use rules::words::names::{NodeId, OperationId, Region};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum length of the body in bytes.
const BODY: u64 = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    region: String,
    seconds: u64,
}

impl Atoll {
    /// The last drill, whether it is under way, and what becomes of the region's projects.
    pub(super) async fn show_drill(&self) -> Result<Response<Payload>, Failure> {
        let Some(ledger) = self.records.ledger() else {
            let message = "this node is an edge, which does not know this; ask a replica (`--url`, or `--context`)";
            return Err(Failure::new(Code::Unsupported, message));
        };
        let ((drill, projects, nodes), _) = self
            .door
            .read(|records| Ok((records.last_drill()?, records.projects()?, records.nodes()?)))
            .await?;
        let Some(drill) = drill else {
            return Ok(json_answer(StatusCode::OK, &json!({"under_way": false, "region": null})));
        };
        let now = clock::timestamp();
        let live: BTreeSet<NodeId> =
            self.neighbours.alive().into_iter().map(|one| one.id).collect();
        let named = |id: NodeId| nodes.iter().find(|node| node.id == id);
        let is_there =
            |id: NodeId| named(id).is_some_and(|node: &NodeRecord| node.region == drill.region);
        let mut waits_for: Vec<String> = Vec::new();
        let moved = projects.iter().filter(|project| is_there(project.home)).map(|project| {
            let primary = named(project.primary);
            json!({
                "project": project.name.as_str(),
                "home": named(project.home).map(|node| node.name.as_str()),
                "primary": primary.map(|node| node.name.as_str()),
                "region": primary.map(|node| node.region.as_str()),
            })
        });
        let moved: Vec<Value> = moved.collect();
        let there = projects.iter().filter(|project| is_there(project.primary)).count();
        if there > 0 {
            waits_for.push(format!("{there} project(s) get a primary in another region"));
        }
        let leader = ledger.leader();
        if leader.is_some_and(is_there) {
            waits_for.push("the leadership of the ledger goes to another region".into());
        }
        let voters = ledger.status().voters;
        let elsewhere = voters.iter().filter(|id| !is_there(**id) && live.contains(*id)).count();
        let go_on: BTreeSet<&Region> = nodes
            .iter()
            .filter(|node| node.role == Role::Replica && node.region != drill.region)
            .filter(|node| live.contains(&node.id))
            .map(|node| &node.region)
            .collect();
        let has_majority = elsewhere * 2 > voters.len();
        let names: Vec<&str> = go_on.iter().map(|region| region.as_str()).collect();
        let refusing = nodes.iter().filter(|node| node.region == drill.region);
        Ok(json_answer(
            StatusCode::OK,
            &json!({
                "under_way": now < drill.until,
                "region": drill.region.as_str(),
                "began": drill.began.to_string(),
                "until": drill.until.to_string(),
                "by": drill.by,
                "refusing": refusing.map(|node| node.name.as_str()).collect::<Vec<_>>(),
                "projects": moved,
                "leader": leader.and_then(named).map(|node| node.name.as_str()),
                "pulls_go_on_in": names,
                "pushes_go_on_in": if there == 0 { names.clone() } else { Vec::new() },
                "waits_for": waits_for,
                // if it had burned, and not only refused its clients
                "voters_elsewhere": {"up": elsewhere, "of": voters.len()},
                "could_write_without_it": has_majority,
            }),
        ))
    }

    /// Begins a drill.
    pub(super) async fn begin_drill(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let bad = |message: String| Failure::new(Code::BadRequest, message);
        let Wanted { region, seconds } =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("the body: {e}")))?;
        let region: Region = region.parse().map_err(|e| bad(format!("region: {e}")))?;
        let time = Duration::from_secs(seconds);
        // those that are down would not take the region's place
        let takes = self.neighbours.alive().iter().any(|one| one.region != region);
        if !takes {
            let message = format!(
                "no replica of another region than {region} is up, and a drill of it would refuse all clients of the mesh: start one, or let one join there (`atoll invite`)"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        warn!(%region, seconds, by = by.name, "a drill is asked for");
        self.change_drill(DrillChange::Begin { region, time }, by).await?;
        self.show_drill().await
    }

    /// Ends the drill that is under way.
    pub(super) async fn end_drill(&self, by: &Actor) -> Result<Response<Payload>, Failure> {
        match self.change_drill(DrillChange::End, by).await {
            Err(Refusal::NotFound) => {
                let said = "no drill is under way; `atoll dr drill` shows the last one";
                Err(Failure::new(Code::NotFound, said))
            }
            Err(refusal) => Err(refusal.into()),
            Ok(()) => self.show_drill().await,
        }
    }

    async fn change_drill(&self, change: DrillChange, by: &Actor) -> Result<(), Refusal> {
        self.writes.ready().await?;
        self.writes.check_level(Level::DRILLS)?;
        let operation = OperationId(rand::random());
        let command = Command::Drill(change);
        let done = self.writes.propose(operation, command, by, self.terms.commit).await;
        let outcome =
            done.map_err(|error| Refusal::Unavailable(self.neighbours.no_ledger(&error)))?;
        settle(outcome).map(drop)
    }
}
