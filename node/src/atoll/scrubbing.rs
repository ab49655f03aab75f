//! `/api/atoll/v1/nodes/NAME/scrub`: how far a node has read its blobs again, and reading them now.

use std::time::Duration;

use http::{Response, StatusCode};
use rules::blobs::scrubbing::Progress;
use rules::ledger::level::Level;
use rules::ledger::records::Role;
use rules::wire::questions::{Condition, Scrub};
use serde_json::{Value, json};
use tracing::info;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

/// How long the node may take to say how far it is: it counts what it holds.
const ASKED: Duration = Duration::from_secs(15);

impl Atoll {
    /// How far the node called `name` is; if `now`, it begins a new round, and reads faster.
    pub(super) async fn scrub(&self, name: &str, now: bool) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name).await?;
        if node.role == Role::Edge {
            let message = format!(
                "{name} is an edge: it keeps nothing for good, and what it has cached is not read again"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        // older builds do not know the question
        self.writes.check_level(Level::SCRUBS)?;
        let told = if node.id == self.neighbours.me {
            self.rechecks.progress(now).map_err(|e| e.to_string())
        } else {
            let asked = self.neighbours.links.ask(node.id, Scrub { now }, ASKED).await;
            asked.map_err(|e| e.to_string())
        };
        let unreachable =
            |why| Failure::new(Code::Unavailable, format!("{name} does not answer: {why}"));
        let Progress { position, total, every_seconds } = told.map_err(unreachable)?;
        if now {
            info!(node = name, "a node reads its blobs again, because somebody asked");
        }
        let mut shown = json!({
            "name": node.name.as_str(),
            "began": position.began.to_string(),
            "over": position.over,
            "blobs": position.blobs,
            "bytes": position.bytes,
            "damaged": position.damaged,
            "held_bytes": total,
            "every_seconds": every_seconds,
        });
        let damaged = match node.id == self.neighbours.me {
            true => Ok(self.store.condition(&[])),
            false => {
                let question = Condition { digests: Vec::new() };
                self.neighbours.links.ask(node.id, question, ASKED).await
            }
        };
        let damaged = damaged.map(|condition| condition.damaged).unwrap_or_default();
        // the first of them, as they are now; those of the round may have been replaced
        shown["still_damaged"] =
            damaged.iter().map(|digest| Value::from(digest.to_string())).collect();
        let status = if now { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(json_answer(status, &shown))
    }
}
