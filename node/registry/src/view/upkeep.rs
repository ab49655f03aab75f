//! Runs of the mesh's upkeep: those that are under way at any replica, and the record of one that has
//! ended.

use std::cmp::Reverse;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::Look;
use rules::ledger::upkeep::{RunningUpkeep, UpkeepKind, UpkeepRun};
use rules::wire::{NoLedger, UpkeepAsk, questions};
use rules::words::names::OperationId;

use super::neighbours::Neighbours;

/// How long another replica may take to say which runs it has. It has them in memory.
const ASKED: Duration = Duration::from_secs(1);

/// What this node and the others say about runs that are under way. A replica that does not answer in
/// time is left out, and so are all others while the mesh has a build that does not know the question.
pub async fn running(neighbours: &Neighbours, kind: UpkeepKind) -> Vec<RunningUpkeep> {
    let ask = UpkeepAsk::Running(kind);
    let mut all = neighbours.upkeep.answer(&ask);
    let mut asked = ask_others(neighbours, &ask);
    while let Some(answer) = asked.next().await {
        all.extend(answer);
    }
    // a peer may say what nobody has asked
    all.retain(|run| run.kind == kind);
    all.sort_by_key(|run| Reverse(run.began));
    all
}

/// Stops a run, wherever it is. Returns whether some node has it.
pub async fn stop(neighbours: &Neighbours, kind: UpkeepKind, number: u64, by: &str) -> bool {
    let ask = UpkeepAsk::Stop { kind, number, by: by.to_owned() };
    let has = |runs: &[RunningUpkeep]| runs.iter().any(|run| run.began.0 == number);
    if has(&neighbours.upkeep.answer(&ask)) {
        return true;
    }
    let mut asked = ask_others(neighbours, &ask);
    while let Some(answer) = asked.next().await {
        if has(&answer) {
            return true;
        }
    }
    false
}

/// Asks the other replicas; what those say that do not answer is nothing.
fn ask_others(
    neighbours: &Neighbours,
    ask: &UpkeepAsk,
) -> FuturesUnordered<impl Future<Output = Vec<RunningUpkeep>>> {
    let level = neighbours.records.view().and_then(|view| view.level());
    let knows = level.is_ok_and(|level| level >= Level::STOPS);
    let others = neighbours.alive().into_iter().map(|c| c.id).filter(|_| knows);
    let others = others.filter(|node| *node != neighbours.me);
    let asked = others.map(|node| {
        let question = questions::Upkeep { ask: ask.clone() };
        async move { neighbours.links.ask(node, question, ASKED).await.unwrap_or_default() }
    });
    asked.collect()
}

/// Records a run that has ended. Returns its number.
pub async fn record(
    neighbours: &Neighbours,
    mut run: UpkeepRun,
    by: &Actor,
    commit: Duration,
) -> Result<u64, NoLedger> {
    loop {
        let command = Command::Upkeep(Box::new(run.clone())).audited(by.clone());
        let operation = OperationId(rand::random());
        let proposed = neighbours.records.propose(operation, command, commit).await?;
        match proposed.outcome {
            // another one began in the same millisecond
            Outcome::Exists => run.began.0 += 1,
            _ => return Ok(run.began.0),
        }
    }
}
