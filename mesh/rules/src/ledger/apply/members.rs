//! The mesh, its nodes, and its feature level.

use std::collections::BTreeSet;

use super::{people, projects, trust};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::draining::key as draining_key;
use crate::ledger::leaving::{LeavingChange, LookForLeaving};
use crate::ledger::level::Level;
use crate::ledger::records::{
    Invitation, Look, MeshRecord, NodeRecord, RecordError, Role, User, WriteRecords, encode, key,
};
use crate::ledger::trust::LookForTrust;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::NodeId;
use crate::words::secret::Secret;

pub(super) fn form<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    mesh: u128,
    token_secret: &Secret<Vec<u8>>,
    (name, user): &(String, User),
    nodes: &[NodeRecord],
) -> Result<Outcome, RecordError> {
    if records.get(&key::mesh())?.is_some() {
        return Ok(Outcome::Exists);
    }
    let record = MeshRecord { id: mesh, formed: at, token_secret: token_secret.clone() };
    records.put(&key::mesh(), &encode(&record)?)?;
    records.put(&key::user(name), &encode(user)?)?;
    for node in nodes {
        records.put(&key::node(node.id), &encode(node)?)?;
    }
    Ok(Outcome::Done)
}

pub(super) fn invite<R: WriteRecords>(
    records: &mut R,
    secret_hash: &Digest,
    expires: Timestamp,
    role: Role,
    nodes: u32,
) -> Result<Outcome, RecordError> {
    records
        .put(&key::invitation(secret_hash), &encode(&Invitation { expires, role, left: nodes })?)?;
    Ok(Outcome::Done)
}

pub(super) fn join<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    secret_hash: &Digest,
    node: &NodeRecord,
) -> Result<Outcome, RecordError> {
    let invitation = key::invitation(secret_hash);
    let known = records.record::<Invitation>(&invitation)?;
    if let Err(reason) = Invitation::lets_in(known.as_ref(), node.role, at) {
        return Ok(Outcome::Refused(reason));
    }
    if records.level()? >= Level::ROLES {
        if records.get(&key::node(node.id))?.is_some()
            || records.get(&key::removed(node.id))?.is_some()
        {
            return Ok(Outcome::Refused(
                "this identity was used before; run `atoll join` with an empty data_dir".into(),
            ));
        }
        if let Some(reason) = unfit(records, node)? {
            return Ok(Outcome::Refused(reason));
        }
    }
    if let Some(other) =
        records.nodes()?.into_iter().find(|n| n.name == node.name && n.id != node.id)
    {
        return Ok(Outcome::Refused(format!(
            "a node called {} is a member already; set another `name`",
            other.name
        )));
    }
    match known {
        Some(known) if known.left > 1 => {
            records.put(&invitation, &encode(&Invitation { left: known.left - 1, ..known })?)?;
        }
        _ => records.remove(&invitation)?,
    }
    records.put(&key::node(node.id), &encode(node)?)?;
    Ok(Outcome::Done)
}

/// Removes a node. Below [`Level::KEYS`], and from [`Level::LEAVING`] on, it must be an edge. Between
/// them a replica's projects get other primaries from the ledger's leader, which also sees to it
/// that the node votes no more before this is proposed.
pub(super) fn remove<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    id: NodeId,
) -> Result<Outcome, RecordError> {
    let Some(node) = records.record::<NodeRecord>(&key::node(id))? else {
        return Ok(Outcome::NotFound);
    };
    if node.role == Role::Edge {
        return take_out(records, at, id);
    }
    let level = records.level()?;
    if level < Level::KEYS {
        return Ok(Outcome::Refused(format!(
            "{} is a replica, and replicas cannot be removed by command yet; stop it, and the other nodes continue without it",
            node.name
        )));
    }
    if level >= Level::LEAVING {
        return Ok(Outcome::Refused(format!(
            "{} is a replica; ask a node with the mesh's newest build to remove it",
            node.name
        )));
    }
    if is_last_replica(records, id)? {
        return Ok(Outcome::Refused(format!("{} is the mesh's last replica", node.name)));
    }
    take_out(records, at, id)
}

/// A step of the removal of a replica. Before the last one is proposed the ledger's leader gives
/// the replica's projects other primaries, and sees to it that it votes no more.
pub(super) fn leave<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &LeavingChange,
) -> Result<Outcome, RecordError> {
    let under_way = records.leaving()?;
    match change {
        LeavingChange::Begin(leaving) => {
            let Some(node) = records.record::<NodeRecord>(&key::node(leaving.node))? else {
                return Ok(Outcome::NotFound);
            };
            if let Some(other) = under_way {
                let name = records.record::<NodeRecord>(&key::node(other.node))?;
                return Ok(Outcome::Refused(format!(
                    "{} is being removed, and one replica leaves at a time; try again when that has ended",
                    name.map_or_else(|| other.node.to_string(), |node| node.name.to_string())
                )));
            }
            if node.role != Role::Replica || is_last_replica(records, leaving.node)? {
                return Ok(Outcome::Refused(format!("{} is the mesh's last replica", node.name)));
            }
            records.put(&key::leaving(), &encode(leaving)?)?;
            Ok(Outcome::Done)
        }
        LeavingChange::Finish(leaving) if under_way == Some(*leaving) => {
            records.remove(&key::leaving())?;
            take_out(records, at, leaving.node)
        }
        LeavingChange::FinishExposed(leaving) if under_way == Some(*leaving) => {
            for other in records.nodes()? {
                let stays = other.role == Role::Replica && other.id != leaving.node;
                if stays && records.pin(other.id)?.is_none() {
                    // who has the authority's key could pass for it
                    return Ok(Outcome::Refused(format!(
                        "the mesh has not recorded the key of {} yet; start it, and try again",
                        other.name
                    )));
                }
            }
            records.remove(&key::leaving())?;
            trust::expose(records, at, leaving.node)?;
            take_out(records, at, leaving.node)
        }
        LeavingChange::End(leaving) if under_way == Some(*leaving) => {
            records.remove(&key::leaving())?;
            Ok(Outcome::Done)
        }
        LeavingChange::Finish(_) | LeavingChange::FinishExposed(_) => {
            Ok(Outcome::Refused("its removal took too long and was given up; try again".into()))
        }
        LeavingChange::End(_) => Ok(Outcome::NotFound),
    }
}

/// A node that is being removed, or was, if the manifest counts on a copy of it: it was checked
/// before that.
pub(super) fn counts_on_leaving<R: WriteRecords>(
    records: &R,
    new: &NewManifest,
) -> Result<Option<NodeId>, RecordError> {
    if records.level()? < Level::LEAVING {
        return Ok(None);
    }
    let leaving = records.leaving()?.map(|leaving| leaving.node);
    let kept_by: BTreeSet<NodeId> =
        new.blobs.iter().flat_map(|blob| blob.kept_by.iter().copied()).collect();
    for node in kept_by {
        if Some(node) == leaving || records.get(&key::node(node))?.is_none() {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

fn is_last_replica<R: WriteRecords>(records: &R, id: NodeId) -> Result<bool, RecordError> {
    let others = records.nodes()?;
    Ok(!others.iter().any(|other| other.role == Role::Replica && other.id != id))
}

fn take_out<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    id: NodeId,
) -> Result<Outcome, RecordError> {
    match records.record::<NodeRecord>(&key::node(id))? {
        None => return Ok(Outcome::NotFound),
        Some(node) if node.role == Role::Replica => projects::leave_home(records, id)?,
        Some(_) => {}
    }
    records.remove(&key::node(id))?;
    records.remove(&key::pin(id))?;
    records.remove(&draining_key::draining(id))?;
    records.put(&key::removed(id), &encode(&at)?)?;
    Ok(Outcome::Done)
}

/// Changes what a node says of itself; its role stays.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    node: &NodeRecord,
) -> Result<Outcome, RecordError> {
    if records.level()? >= Level::ROLES
        && let Some(reason) = unfit(records, node)?
    {
        return Ok(Outcome::Refused(reason));
    }
    match records.record::<NodeRecord>(&key::node(node.id))? {
        None => return Ok(Outcome::NotFound),
        // projects choose edges by their names
        Some(known)
            if known.role == Role::Edge
                && known.name != node.name
                && records.level()? >= Level::EDGES =>
        {
            return Ok(Outcome::Refused(format!(
                "the edge {} keeps the name with which it joined; remove it, and join anew with another data_dir",
                known.name
            )));
        }
        Some(known) if known.role != node.role => {
            return Ok(Outcome::Refused(format!(
                "{} joined as {} and cannot become {}; join anew with another data_dir",
                known.name,
                known.role.name(),
                node.role.name()
            )));
        }
        Some(_) => {}
    }
    records.put(&key::node(node.id), &encode(node)?)?;
    Ok(Outcome::Done)
}

pub(super) fn raise_level<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    level: Level,
    token_secret: &Secret<Vec<u8>>,
) -> Result<Outcome, RecordError> {
    if level > Level::NEWEST {
        let reason = "this build does not support the feature level that the mesh was raised to; start a newer one";
        return Err(RecordError(reason.into()));
    }
    let current = records.level()?;
    if level <= current {
        return Ok(Outcome::Exists);
    }
    let Some(mesh) = records.record::<MeshRecord>(&key::mesh())? else {
        return Ok(Outcome::NotFound);
    };
    records.put(&key::level(), &encode(&level)?)?;
    if current < Level::PEOPLE && level >= Level::PEOPLE {
        people::take_over_users(records, at)?;
    }
    if current < Level::NUMBERS && level >= Level::NUMBERS {
        projects::number_all(records)?;
    }
    if current < Level::ROLES && !token_secret.expose().is_empty() {
        records.put(
            &key::mesh(),
            &encode(&MeshRecord { token_secret: token_secret.clone(), ..mesh })?,
        )?;
    }
    Ok(Outcome::Done)
}

/// The reason why `node` cannot be a member with this record, if there is one.
fn unfit<R: WriteRecords>(records: &R, node: &NodeRecord) -> Result<Option<String>, RecordError> {
    if let Err(reason) = node.check() {
        return Ok(Some(reason.into()));
    }
    if let Some(other) =
        records.nodes()?.into_iter().find(|n| n.name == node.name && n.id != node.id)
    {
        return Ok(Some(format!(
            "a node called {} is a member already; set another `name`",
            other.name
        )));
    }
    Ok(None)
}
