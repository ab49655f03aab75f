//! `/api/atoll/v1/collection`: blobs that nothing refers to any more, and their collection.

use std::time::Duration;

use ground::clock;
use http::{Response, StatusCode};
use registry::blobs::collecting::{NotCollected, Round, Waiting};
use registry::view::upkeep;
use rules::ledger::collecting::LookForGarbage;
use rules::ledger::upkeep::UpkeepKind;
use rules::words::moment::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::Atoll;
use crate::http::answer::{json_answer, mark};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum length of the body in bytes.
const BODY: u64 = 4 << 10;

/// What to collect now.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// What has been garbage for so many seconds, instead of `collection.grace`.
    older_than_seconds: Option<u64>,
    /// Only say what would be collected.
    dry_run: bool,
}

impl Atoll {
    /// How much garbage there is, and when it is collected.
    pub(super) async fn show_collection(&self) -> Result<Response<Payload>, Failure> {
        let terms = self.collecting.terms();
        let collecting = self.collecting.clone();
        let waiting = ground::supervise::at_length(|| collecting.waiting())?;
        let Waiting { blobs, bytes, oldest, more } = waiting;
        let (collections, freshness) = self.door.read(|records| records.collections()).await?;
        let under_way: Vec<Value> = upkeep::running(&self.neighbours, UpkeepKind::Collection)
            .await
            .into_iter()
            .map(|run| json!({"id": run.began.0, "began": run.began.to_string(), "stopped": run.stopped}))
            .collect();
        let mut response = json_answer(
            StatusCode::OK,
            &json!({
                "garbage": {
                    "blobs": blobs,
                    "bytes": bytes,
                    "oldest": oldest.map(|at| at.to_string()),
                    "counted_all": !more,
                },
                "collections": collections,
                "under_way": under_way,
                "grace_seconds": terms.grace.as_secs(),
                "every_seconds": terms.every.as_secs(),
            }),
        );
        mark(&mut response, freshness);
        Ok(response)
    }

    /// Collects now what has been garbage for long enough.
    pub(super) async fn collect(&self, mut request: Request) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let wanted: Wanted = match bytes.is_empty() {
            true => Wanted::default(),
            false => serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))?,
        };
        let grace = wanted.older_than_seconds.map(Duration::from_secs);
        let grace = grace.unwrap_or(self.collecting.terms().grace);
        let asked = json!({"dry_run": wanted.dry_run, "older_than_seconds": grace.as_secs()});
        let run = self.collecting.begin(&asked.to_string());
        let round = self.collecting.collect(grace, wanted.dry_run, Some(&run)).await;
        let round = round.map_err(|error| {
            let code = match error {
                NotCollected::Level(_) => Code::Conflict,
                NotCollected::Records(_) | NotCollected::Store(_) => Code::Internal,
                NotCollected::Silent(_) | NotCollected::Slow(_) | NotCollected::Ledger(_) => {
                    Code::Unavailable
                }
            };
            Failure::new(code, error.to_string())
        })?;
        let Round { due, counted_on, collected, bytes, stopped } = round;
        // each may be counted on for as long as a push of this moment is, and no longer unless it is
        // pushed or asked for again
        let counted_for = self.collecting.terms().counted_for.as_millis() as u64;
        let until = (counted_on > 0).then(|| Timestamp(clock::timestamp().0 + counted_for));
        if !wanted.dry_run && collected > 0 {
            info!(
                due,
                counted_on, collected, bytes, "garbage is collected, because somebody asked"
            );
        }
        Ok(json_answer(
            StatusCode::OK,
            &json!({
                "due": due,
                "pushes_count_on": counted_on,
                "pushes_count_until": until.map(|at| at.to_string()),
                "collected": collected,
                "bytes": bytes,
                "dry_run": wanted.dry_run,
                "stopped": stopped,
            }),
        ))
    }
}
