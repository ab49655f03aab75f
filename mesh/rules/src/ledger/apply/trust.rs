//! The keys of nodes, and the mesh's authorities.

use crate::ledger::command::Outcome;
use crate::ledger::people::{LookForPeople, TokenKey};
use crate::ledger::records::{
    Look, MeshRecord, NodeRecord, RecordError, Role, WriteRecords, encode, key,
};
use crate::ledger::sealing::LookForKeys;
use crate::ledger::sign_log;
use crate::ledger::trust::{AuthorityRecord, Exposed, LookForTrust, MOST_KEKS, TrustChange};
use crate::words::moment::Timestamp;
use crate::words::names::NodeId;

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &TrustChange,
) -> Result<Outcome, RecordError> {
    match change {
        TrustChange::Pin { node, key: own } => {
            if records.get(&key::node(*node))?.is_none() {
                return Ok(Outcome::NotFound);
            }
            match records.pin(*node)? {
                Some(known) if known == *own => Ok(Outcome::Done),
                Some(_) => Ok(Outcome::Exists),
                None => {
                    records.put(&key::pin(*node), &encode(own)?)?;
                    Ok(Outcome::Done)
                }
            }
        }
        TrustChange::Authority { after, certificate, sealed, first } => {
            if newest_authority(records)? != *after || (*after == 0) != first.is_some() {
                return Ok(Outcome::Exists);
            }
            let mut put = |version, certificate: &String, sealed| {
                let record =
                    AuthorityRecord { version, certificate: certificate.clone(), since: at };
                records.put(&key::authority(version), &encode(&record)?)?;
                records.put(&key::authority_key(version), &encode(sealed)?)
            };
            if let Some((certificate, sealed)) = first {
                put(0, certificate, sealed)?;
            }
            put(after + 1, certificate, sealed)?;
            Ok(Outcome::Done)
        }
        TrustChange::Tokens { after, public, sealed, secret } => {
            let keys = records.token_keys()?;
            let newest = keys.last().map_or(0, |key| key.number);
            let Some(mut mesh) = records.record::<MeshRecord>(&key::mesh())? else {
                return Ok(Outcome::NotFound);
            };
            if newest != *after {
                return Ok(Outcome::Exists);
            }
            for old in keys {
                records.remove(&key::token_key(old.number))?;
            }
            let (number, public, sealed) = (newest + 1, public.clone(), sealed.clone());
            let new = TokenKey { number, public, sealed, created: at };
            records.put(&key::token_key(number), &encode(&new)?)?;
            mesh.token_secret = secret.clone();
            records.put(&key::mesh(), &encode(&mesh)?)?;
            Ok(Outcome::Done)
        }
        TrustChange::Opens { node, keks } => {
            let listed: Option<NodeRecord> = records.record(&key::node(*node))?;
            if listed.is_none_or(|node| node.role != Role::Replica) {
                return Ok(Outcome::NotFound);
            }
            if keks.len() > MOST_KEKS {
                return Ok(Outcome::Refused("too many key-encryption keys".into()));
            }
            let place = sign_log::key::opens(*node);
            match keks.is_empty() {
                true => records.remove(&place)?,
                false => records.put(&place, &encode(keks)?)?,
            }
            Ok(Outcome::Done)
        }
    }
}

fn newest_authority<R: WriteRecords>(records: &R) -> Result<u64, RecordError> {
    Ok(records.authorities()?.last().map_or(0, |authority| authority.version))
}

/// Records what whoever has the disk of `node` knows, and ends all invitations: they name an
/// authority that will not count.
pub(super) fn expose<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    node: NodeId,
) -> Result<(), RecordError> {
    let exposed = Exposed {
        node,
        at,
        sealing: records.sealing_keys()?.last().map_or(0, |key| key.version),
        tokens: records.token_keys()?.last().map_or(0, |key| key.number),
        authority: newest_authority(records)?,
    };
    records.put(&key::exposed(), &encode(&exposed)?)?;
    for (place, _) in records.scan(&key::invitations(), None, usize::MAX)? {
        records.remove(&place)?;
    }
    Ok(())
}
