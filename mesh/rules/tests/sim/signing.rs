//! Primaries that sign: whoever takes itself for the primary signs what the register has, and puts that
//! into the sign log under the epoch that it knows. Now and then one makes another key, or revokes the
//! one that signs.

use std::collections::BTreeMap;

use rules::ledger::command::Command;
use rules::ledger::records::{Look, MemoryRecords, Project};
use rules::ledger::sign_log::{LogEntry, LookForSigning, MeshKey};
use rules::ledger::signatures::{LookForSignatures, SignatureChange};
use rules::policies::signatures::{AnchorId, Own, State};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{Epoch, NodeId};

/// One of so many writes is signed. The next primary has to have written before it signs: in between the
/// log's end is where the last one knows it.
const SIGNS: u64 = 4;
/// One of so many signings makes another key instead.
const ROTATES: u64 = 5;
/// One of so many revokes the key that signs; until there is another one nothing is signed.
const REVOKES: u64 = 7;

fn key(version: u32) -> MeshKey {
    let mut id = [9; 32];
    id[..4].copy_from_slice(&version.to_be_bytes());
    let (id, pem) = (AnchorId(id), format!("key {version}"));
    MeshKey { id, pem, version, created: Timestamp(0), sealed: Default::default() }
}

/// The project's key of this version, as its primary makes it.
pub(crate) fn new_key(epoch: Epoch, version: u32) -> Command {
    let change =
        SignatureChange::SetKey { project: "demo".parse().unwrap(), key: Box::new(key(version)) };
    Command::Signatures { epoch, change: Box::new(change) }
}

/// What `node` proposes after it has taken write number `value`, if it has a key.
pub(crate) fn sign(
    records: &MemoryRecords,
    project: &Project,
    node: NodeId,
    (digest, value): (Digest, u64),
) -> Option<Command> {
    let keys = records.mesh_keys(project.id).unwrap();
    if !value.is_multiple_of(SIGNS) {
        return None;
    }
    if value.is_multiple_of(SIGNS * ROTATES) {
        return Some(new_key(project.epoch, keys.last()?.version + 1));
    }
    if value.is_multiple_of(SIGNS * REVOKES) {
        return revoke(records, project, value);
    }
    let own = Own::of(&records.trusted(project.id).unwrap().signers)?;
    let head = records.log_head(project.id).unwrap();
    let entry = LogEntry {
        number: head.number + 1,
        repository: "demo/app".parse().unwrap(),
        subject: digest,
        reference: "atoll.example/demo/app:latest".into(),
        key: own.key,
        payloads: vec![Digest::sha256(&[&value.to_be_bytes()[..], &node.0.to_be_bytes()].concat())],
        epoch: project.epoch,
        node,
        by: "rule".into(),
        at: Timestamp(value),
        before: head.hash,
    };
    let change = Box::new(SignatureChange::Log(Box::new(entry)));
    Some(Command::Signatures { epoch: project.epoch, change })
}

/// Calls the key that signs superseded, or compromised.
fn revoke(records: &MemoryRecords, project: &Project, value: u64) -> Option<Command> {
    let signers = records.trusted(project.id).unwrap().signers;
    let mut signer = signers.into_iter().find(|one| one.logged && one.state == State::Active)?;
    let compromised = value.is_multiple_of(2 * SIGNS * REVOKES);
    signer.state = State::Revoked { at: Timestamp(value), compromised, why: "a trial".into() };
    let (project, epoch) = (project.name.clone(), project.epoch);
    let change = SignatureChange::SetSigner { project, signer: Box::new(signer), new: false };
    Some(Command::Signatures { epoch, change: Box::new(change) })
}

/// The same signature under the project's epoch of now, whoever has made it: what must not be done.
pub(crate) fn relabelled(command: Command, now: Epoch) -> Command {
    match command {
        Command::Signatures { mut change, .. } => {
            if let SignatureChange::Log(entry) = &mut *change {
                entry.epoch = now;
            }
            Command::Signatures { epoch: now, change }
        }
        other => other,
    }
}

/// The end of the project's log. (What is proposed twice is answered twice, and takes effect once.)
pub(crate) fn head(records: &MemoryRecords) -> u64 {
    let project = records.project(&"demo".parse().unwrap()).unwrap();
    project.map_or(0, |project| records.log_head(project.id).unwrap().number)
}

/// What is wrong with a signature that took effect, if anything is: it is of a node that was not the
/// primary, of another epoch, or by a key that signs no more. `before` and `head_before` are those of before.
pub(crate) fn fault(
    before: Option<&Project>,
    head_before: u64,
    records: &MemoryRecords,
    command: &Command,
) -> Option<String> {
    let Command::Signatures { epoch, change } = command else { return None };
    let SignatureChange::Log(entry) = &**change else { return None };
    if head(records) == head_before {
        return None;
    }
    let Some(project) = before else { return Some("of no project".into()) };
    if entry.node != project.primary {
        return Some(format!("by {:?}, and {:?} is the primary", entry.node, project.primary));
    }
    if entry.epoch != project.epoch || *epoch != project.epoch {
        return Some(format!("of {:?}, and it is {:?}", entry.epoch, project.epoch));
    }
    let own = Own::of(&records.trusted(project.id).unwrap().signers);
    let signs = own.is_some_and(|own| own.key == entry.key);
    (!signs).then(|| format!("by the key {}, which signs no more", entry.key))
}

/// How many signatures of each epoch the log has; it must be whole.
pub(crate) fn logged(records: &MemoryRecords, project: &Project) -> BTreeMap<Epoch, u64> {
    let checked = records.check_log(project.id).unwrap();
    assert!(matches!(checked, rules::ledger::sign_log::Checked::Whole(_)), "{checked:?}");
    let mut count = BTreeMap::new();
    for entry in records.log_after(project.id, 0, usize::MAX).unwrap() {
        *count.entry(entry.epoch).or_default() += 1;
    }
    count
}
