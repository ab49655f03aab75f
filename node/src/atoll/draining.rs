//! `/api/atoll/v1/nodes/NAME/drain`: replicas that give away what others need them for.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use rules::ledger::command::Command;
use rules::ledger::draining::{DrainChange, LookForDraining};
use rules::ledger::events::Actor;
use rules::ledger::records::{Look, Role};
use rules::members::draining::Needed;
use rules::members::placement::Candidate;
use rules::members::shortage::Unable;
use rules::words::names::Region;
use serde_json::json;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};

impl Atoll {
    /// How far a replica is that drains, and what it is still needed for.
    pub(super) async fn show_drain(&self, name: &str) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name).await?;
        if node.role != Role::Replica {
            let said = format!(
                "{name} is an edge, which nobody depends on: stop it at any time; `atoll remove {name}` if it does not come back"
            );
            return Err(Failure::new(Code::Conflict, said));
        }
        let Some(ledger) = self.records.ledger() else {
            let said = "an edge does not know this: ask a replica (`--url`, or `--context`)";
            return Err(Failure::new(Code::Unsupported, said));
        };
        let (since, draining, primary_of) = {
            let view = self.records.view()?;
            let projects = view.projects()?;
            let primary_of = projects.iter().filter(|project| project.primary == node.id).count();
            (view.draining_since(node.id)?, view.draining()?, primary_of)
        };
        let leads = ledger.leader() == Some(node.id);
        let mut others = draining;
        others.remove(&node.id);
        let staying = self.neighbours.alive().into_iter();
        let staying = staying.filter(|c| c.id != node.id && !others.contains(&c.id));
        let staying: Vec<Candidate> = staying.collect();
        let regions: BTreeSet<&Region> = staying.iter().map(|c| &c.region).collect();
        let without = self.consequences(&node, &others, regions.len()).await?;
        let voters = ledger.status().voters;
        let up = staying.iter().filter(|candidate| voters.contains(&candidate.id)).count();
        let spare = staying.iter().filter(|one| !voters.contains(&one.id)).count();
        let votes = voters.contains(&node.id);
        let voters = (up, voters.len());
        let mut troubled = self.neighbours.unable();
        troubled
            .retain(|(name, why)| matches!(why, Unable::Trouble(_)) && *name != node.name.as_str());
        let no_majority = self.neighbours.majority().lost();
        let (without, troubled) = (&without, &troubled[..]);
        let needed = Needed { primary_of, leads, voters, spare, without, troubled, no_majority };
        let waits_for = needed.waits_for();
        let shown = json!({
            "name": node.name.as_str(),
            "draining": since.is_some(),
            "since": since.map(|at| at.to_string()),
            "primary_of": primary_of,
            "leads": leads,
            "votes": votes,
            "stuck": needed.stuck(),
            "only_here": without.lost.values().sum::<usize>(),
            "too_few_elsewhere": without.short.values().sum::<usize>(),
            "nowhere": without.gone.values().sum::<usize>(),
            "waits_for": waits_for,
            "safe": since.is_some() && waits_for.is_empty(),
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Begins to drain a replica, or ends it.
    pub(super) async fn drain(
        &self,
        name: &str,
        begins: bool,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name).await?;
        self.writes.ready().await?;
        let change = match begins {
            true => DrainChange::Begin(node.id),
            false => DrainChange::End(node.id),
        };
        self.writes.check_level(change.level())?;
        let known = self.records.view()?.draining()?.contains(&node.id);
        if known == begins {
            // whoever asks twice wants the same
            return self.show_drain(name).await;
        }
        self.step(name, Command::Drain(change), by).await?;
        self.show_drain(name).await
    }
}
