//! `/api/atoll/v1/nodes/NAME`: removes an edge from the mesh.

use http::{Response, StatusCode};
use rules::ledger::command::Command;
use rules::words::names::OperationId;

use super::Atoll;
use crate::http::{Code, Failure, Payload};
use registry::writes::{Refusal, settle};

impl Atoll {
    /// Removes the edge called `name`. It may join again with another invitation, as another node.
    pub(super) async fn remove_node(&self, name: &str) -> Result<Response<Payload>, Failure> {
        let missing =
            || Failure::new(Code::NameUnknown, format!("no node of this mesh is called {name}"));
        let node = self
            .neighbours
            .nodes()
            .into_iter()
            .find(|node| node.name.as_str() == name)
            .ok_or_else(missing)?;
        self.writes.ready().await?;
        let command = Command::RemoveNode { id: node.id };
        let proposed =
            self.records.propose(OperationId(rand::random()), command, self.terms.commit).await;
        let proposed = proposed.map_err(|e| Failure::new(Code::Unavailable, e.to_string()))?;
        match settle(proposed.outcome) {
            Ok(_) => {
                let mut response = Response::new(Payload::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Err(Refusal::NotFound) => Err(missing()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
