//! The keys that the mesh signs with: their certificates, and what they are sealed under.

use super::count_change;
use crate::ledger::command::Outcome;
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, encode};
use crate::ledger::sign_log::{LookForSigning, MeshKey, NotationIdentity, key as log_key};
use crate::ledger::signatures::{LookForSignatures, Resealed, has_room, key};
use crate::policies::signatures::{Anchor, By, LONGEST_PEM, MESH, Signer, State};

/// The maximum number of bytes of a sealed key.
const LONGEST_SEALED: usize = 4 << 10;

/// Gives the project's key certificates. Their authority is a signer of the mesh's own: what it counts
/// for must be in the sign log.
pub(super) fn set_identity<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    identity: &NotationIdentity,
    authority: &str,
) -> Result<Outcome, RecordError> {
    let refused = |why: &str| Ok(Outcome::Refused(why.to_owned()));
    let sealed = identity.sealed.as_ref().map_or(0, |sealed| sealed.len());
    if identity.chain.len() > LONGEST_PEM
        || authority.len() > LONGEST_PEM
        || sealed > LONGEST_SEALED
    {
        return refused("the certificates are too long");
    }
    let mut trusted = records.trusted(project.id)?;
    let signs = |signer: &Signer| {
        signer.logged && signer.state == State::Active && signer.is(&By::Key(identity.key))
    };
    if !trusted.signers.iter().any(signs) {
        return refused("the project does not sign with this key any more");
    }
    let is_it = |signer: &Signer| matches!(&signer.anchor, Anchor::Authority { ids, .. } if *ids == [identity.authority]);
    match trusted.signers.iter().position(|one| one.logged && is_it(one)) {
        Some(known) if trusted.signers[known].state == State::Active => {}
        Some(_) => return refused("the project does not sign with this authority any more"),
        None => {
            if !has_room(&trusted, records.level()?) {
                return refused("a project trusts at most 50 signers");
            }
            let mut earlier = 0;
            for signer in trusted.signers.iter_mut().filter(|one| one.logged) {
                if matches!(signer.anchor, Anchor::Authority { .. }) {
                    earlier += 1;
                    if signer.state == State::Active {
                        signer.state = State::VerifyOnly;
                    }
                }
            }
            let name = match earlier {
                0 => format!("{MESH}-notation"),
                earlier => format!("{MESH}-notation-{}", earlier + 1),
            };
            if trusted.signers.iter().any(|signer| signer.name == name) {
                return Ok(Outcome::Refused(format!("there is a signer {name} already")));
            }
            let anchor = Anchor::Authority {
                ids: vec![identity.authority],
                pem: authority.to_owned(),
                timestamps: String::new(),
                subjects: Vec::new(),
            };
            trusted.signers.push(Signer::of_the_mesh(name, anchor));
            trusted.anchors += 1;
            records.put(&key::trusted(project.id), &encode(&trusted)?)?;
            count_change(records)?;
        }
    }
    records.put(&log_key::identity(project.id), &encode(identity)?)?;
    Ok(Outcome::Done)
}

/// Keeps keys as they are sealed now, all or none.
pub(super) fn reseal<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    resealed: &[Resealed],
) -> Result<Outcome, RecordError> {
    let mut keys = records.mesh_keys(project.id)?;
    let mut identity = records.notation_identity(project.id)?;
    for one in resealed {
        if one.becomes.len() > LONGEST_SEALED {
            return Ok(Outcome::Refused("a sealed key is too long".into()));
        }
        let of_key = |key: &&mut MeshKey| key.version == one.version;
        let place = match one.version {
            0 => identity.as_mut().and_then(|identity| identity.sealed.as_mut()),
            _ => keys.iter_mut().find(of_key).map(|key| &mut key.sealed),
        };
        let Some(place) = place.filter(|place| **place == one.was) else {
            return Ok(Outcome::PreconditionFailed);
        };
        place.clone_from(&one.becomes);
    }
    records.put(&log_key::keys(project.id), &encode(&keys)?)?;
    if let Some(identity) = identity {
        records.put(&log_key::identity(project.id), &encode(&identity)?)?;
    }
    Ok(Outcome::Done)
}
