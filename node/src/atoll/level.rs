//! `/api/atoll/v1/level`: the mesh's feature level, and the build of each replica.

use std::time::Duration;

use futures::future::join_all;
use http::{Response, StatusCode};
use rules::ledger::cached_signatures::LookForCachedSignatures;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::level::{self, Build, Level};
use rules::ledger::records::{Look, NodeRecord, ReadRecords, Role, key};
use rules::wire::questions;
use rules::words::names::OperationId;
use serde_json::{Value, json};
use tracing::info;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

/// How long a node may take to say which build it runs.
const ASK: Duration = Duration::from_secs(3);

impl Atoll {
    /// The level, the level that this build supports, and what each node says about its build.
    pub(super) async fn show_level(&self) -> Result<Response<Payload>, Failure> {
        let level = self.level()?;
        let builds: Vec<_> = self
            .builds(|_| true)
            .await
            .into_iter()
            .map(|(node, build)| {
                json!({
                    "name": node.name.as_str(),
                    "role": node.role.name(),
                    "version": build.as_ref().map(|b| b.version.clone()),
                    "supports": build.as_ref().map(|b| b.supports.0),
                })
            })
            .collect();
        let own = env!("CARGO_PKG_VERSION");
        let shown = json!({
            "level": level.0,
            "version": own,
            "supports": Level::NEWEST.0,
            "nodes": builds,
            "moving": self.moving(level)?,
            "without_effect": self.without_effect()?,
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Raises the level to the highest that every replica supports. After that, no build below it
    /// can be started in this mesh.
    pub(super) async fn raise_level(&self, by: &Actor) -> Result<Response<Payload>, Failure> {
        let current = self.level()?;
        let replicas = self.builds(|node| node.role == Role::Replica).await;
        let replicas: Vec<_> =
            replicas.into_iter().map(|(node, build)| (node.name.to_string(), build)).collect();
        let level = level::next(current, &replicas)
            .map_err(|e| Failure::new(Code::Conflict, e.to_string()))?;
        self.writes.ready().await?;
        let token_secret = self
            .secrets
            .new_token_key()
            .map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        let command = Command::RaiseLevel { level, token_secret };
        // the raise itself is at the level of before, whose replicas cannot read who asked for it
        let operation = OperationId(rand::random());
        let outcome = self.writes.propose(operation, command, by, self.terms.commit).await;
        match outcome.map_err(|e| Failure::new(Code::Unavailable, self.neighbours.no_ledger(&e)))? {
            Outcome::Done | Outcome::Exists => {
                info!(from = current.0, to = level.0, "the mesh's feature level was raised");
                self.show_level().await
            }
            other => Err(Failure::new(Code::Internal, format!("the ledger answered {other:?}"))),
        }
    }

    /// The projects whose cached content is still to be moved out of the ledger.
    fn moving(&self, level: Level) -> Result<Vec<String>, Failure> {
        let Some(ledger) = self.records.ledger().filter(|_| level >= Level::CACHES) else {
            return Ok(Vec::new());
        };
        let view = ledger.view()?;
        let mut moving = Vec::new();
        for project in view.projects()?.into_iter().filter(|project| project.upstream.is_some()) {
            if !view.scan(&key::repositories_of(&project.name), None, 1)?.is_empty() {
                moving.push(project.name.to_string());
            }
        }
        Ok(moving)
    }

    /// What projects that cache a registry say about their images, and what has no effect: it was said
    /// before the level that knows it. It would surprise if it began to refuse images by a raise, so it
    /// has to be said again.
    fn without_effect(&self) -> Result<Vec<Value>, Failure> {
        let view = self.records.view()?;
        let mut found = Vec::new();
        for project in view.projects()?.into_iter().filter(|project| project.upstream.is_some()) {
            for (key, value) in view.without_effect(&project)? {
                let name = project.name.as_str();
                found.push(json!({"project": name, "key": key, "value": value}));
            }
        }
        Ok(found)
    }

    fn level(&self) -> Result<Level, Failure> {
        Ok(self.records.view()?.level()?)
    }

    /// The builds of the requested nodes; `None` for a node that does not answer, or whose build is
    /// too old for the question.
    async fn builds(
        &self,
        wanted: impl Fn(&NodeRecord) -> bool,
    ) -> Vec<(NodeRecord, Option<Build>)> {
        let level = self.level().unwrap_or(Level::FIRST);
        let asked =
            self.neighbours.nodes().into_iter().filter(|node| wanted(node)).map(async |node| {
                let build = if node.id == self.neighbours.me {
                    Some(Build::of_this(env!("CARGO_PKG_VERSION"), level))
                } else {
                    self.neighbours.links.ask(node.id, questions::Build {}, ASK).await.ok()
                };
                (node, build)
            });
        join_all(asked).await
    }
}
