//! Commands that are proposed with a node's own identity: whoever can read its keys may do this.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use config::Settings;
use ground::clock;
use mesh::identity::Identity;
use mesh::links::{CongestionControl, Links};
use mesh::members::kept_seeds;
use rules::ledger::command::{Command, Envelope, Outcome};
use rules::ledger::level::Level;
use rules::wire::{NoLedger, questions};
use rules::words::names::{NodeId, OperationId};

use crate::start::mesh_address;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The mesh that committed a command.
pub(super) struct Reached {
    /// The members that this node knows, itself last.
    pub(super) members: Vec<(NodeId, SocketAddr)>,
    /// The mesh's feature level.
    pub(super) level: Level,
}

/// Proposes a command through the running node that has these settings, with its own `identity`.
/// `failed` is the beginning of the sentence if that is not possible.
pub(super) fn propose(
    settings: &Settings,
    identity: &Identity,
    command: Command,
    failed: &str,
) -> io::Result<Reached> {
    let own = mesh_address(settings);
    let mut members = kept_seeds(&settings.data_dir);
    members.push((identity.node, own));
    let level = super::small_runtime()?.block_on(async {
        let any: SocketAddr =
            if own.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let links =
            Links::open(identity, any, CongestionControl::default()).map_err(io::Error::other)?;
        for (node, address) in &members {
            links.know(*node, *address);
        }
        let running = "is `atoll serve` running with these settings?";
        let build = links.ask(identity.node, questions::Build {}, PATIENCE).await;
        let level = build.map_err(|e| io::Error::other(format!("{failed}: {e}; {running}")))?.level;
        if command.level() > level {
            return Err(io::Error::other(format!(
                "{failed}: this needs feature level {} and the mesh has {level}; run `atoll level --raise`",
                command.level()
            )));
        }
        let proposed = through(&links, identity.node, command).await;
        proposed.map_err(|reason| io::Error::other(format!("{failed}: {reason}")))?;
        Ok(level)
    })?;
    Ok(Reached { members, level })
}

/// Proposes to the node itself, and to the leader that it names.
async fn through(links: &Links, node: NodeId, command: Command) -> Result<(), String> {
    let envelope =
        Envelope { operation: OperationId(rand::random()), at: clock::timestamp(), command };
    let end = clock::now() + PATIENCE;
    let mut ask = node;
    loop {
        let question = questions::Propose { envelope: envelope.clone() };
        let reason = match links.ask(ask, question, Duration::from_secs(4)).await {
            Ok(Ok(proposed)) => match proposed.outcome {
                Outcome::Done => return Ok(()),
                Outcome::NotFound => return Err("there is no such object in the mesh".into()),
                Outcome::Refused(reason) => return Err(reason),
                other => return Err(format!("the ledger answered {other:?}")),
            },
            Ok(Err(NoLedger::NotLeader(Some(leader)))) if leader != ask => {
                ask = leader;
                continue;
            }
            // nobody is known to lead: a moment after a leader died, or for want of a majority
            Ok(Err(NoLedger::NotLeader(None))) => {
                "no node leads the ledger now; if that stays so, most of its voters are down: `atoll status`".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if clock::now() >= end {
            return Err(reason);
        }
        ask = node;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
