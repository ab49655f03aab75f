//! The keys that seal, and what they seal.

use crate::ledger::command::Outcome;
use crate::ledger::directory::{CLIENT_SECRET, LookForGroups, SEARCH_PASSWORD};
use crate::ledger::people::TokenKey;
use crate::ledger::provider_tokens::{self, LookForProviderTokens};
use crate::ledger::records::{
    Look, MeshRecord, RecordError, UpstreamRecord, WriteRecords, encode, key,
};
use crate::ledger::scanners::{self, LookForScanners};
use crate::ledger::sealing::{LookForKeys, SealedPlace, SealingChange, SealingKey};
use crate::ledger::trust::LookForTrust;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::secret::Secret;

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &SealingChange,
) -> Result<Outcome, RecordError> {
    match change {
        SealingChange::Use { after, check } => use_next(records, at, *after, check),
        SealingChange::Reseal { place, was, becomes } => reseal(records, *place, was, becomes),
    }
}

fn use_next<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    after: u64,
    check: &Digest,
) -> Result<Outcome, RecordError> {
    let mut keys = records.sealing_keys()?;
    let newest = keys.last().map_or(0, |key| key.version);
    if newest != after {
        return Ok(Outcome::Exists);
    }
    keys.push(SealingKey { version: newest + 1, check: *check, since: at });
    records.put(&key::sealing_keys(), &encode(&keys)?)?;
    Ok(Outcome::Done)
}

fn reseal<R: WriteRecords>(
    records: &mut R,
    place: SealedPlace,
    was: &Secret<Vec<u8>>,
    becomes: &Secret<Vec<u8>>,
) -> Result<Outcome, RecordError> {
    let text = |secret: &Secret<Vec<u8>>| {
        String::from_utf8(secret.expose().clone()).map_err(|e| RecordError(e.to_string()))
    };
    match place {
        SealedPlace::Upstream(id) => {
            let Some(mut record) = records.record::<UpstreamRecord>(&key::upstream(id))? else {
                return Ok(Outcome::NotFound);
            };
            match &mut record.credentials {
                Some((_, sealed)) if sealed.as_bytes() == was.expose() => *sealed = text(becomes)?,
                _ => return Ok(Outcome::Exists),
            }
            records.put(&key::upstream(id), &encode(&record)?)?;
        }
        SealedPlace::TokenKey(number) => {
            let Some(mut record) = records.record::<TokenKey>(&key::token_key(number))? else {
                return Ok(Outcome::NotFound);
            };
            if record.sealed.expose().as_bytes() != was.expose() {
                return Ok(Outcome::Exists);
            }
            record.sealed = text(becomes)?.into();
            records.put(&key::token_key(number), &encode(&record)?)?;
        }
        SealedPlace::TokenSecret => {
            let Some(mut record) = records.record::<MeshRecord>(&key::mesh())? else {
                return Ok(Outcome::NotFound);
            };
            if record.token_secret != *was {
                return Ok(Outcome::Exists);
            }
            record.token_secret = becomes.clone();
            records.put(&key::mesh(), &encode(&record)?)?;
        }
        SealedPlace::Authority(version) => match records.authority_key(version)? {
            None => return Ok(Outcome::NotFound),
            Some(sealed) if sealed.expose().as_bytes() != was.expose() => {
                return Ok(Outcome::Exists);
            }
            Some(_) => {
                let sealed: Secret = text(becomes)?.into();
                records.put(&key::authority_key(version), &encode(&sealed)?)?;
            }
        },
        SealedPlace::ClientSecret | SealedPlace::SearchPassword => {
            let name =
                if place == SealedPlace::ClientSecret { CLIENT_SECRET } else { SEARCH_PASSWORD };
            let mut settings = records.configurations()?;
            let Some(sealed) = settings.secrets.get_mut(name) else {
                return Ok(Outcome::NotFound);
            };
            if sealed.expose().as_bytes() != was.expose() {
                return Ok(Outcome::Exists);
            }
            *sealed = text(becomes)?.into();
            records.put(&key::configurations(), &encode(&settings)?)?;
        }
        SealedPlace::CliSecret(user) => match records.cli_secret(user)? {
            None => return Ok(Outcome::NotFound),
            Some(sealed) if sealed.expose().as_bytes() != was.expose() => {
                return Ok(Outcome::Exists);
            }
            Some(_) => {
                let sealed: Secret = text(becomes)?.into();
                records.put(&key::cli_secret(user), &encode(&sealed)?)?;
            }
        },
        SealedPlace::ProviderToken(user) => {
            let Some(mut token) = records.provider_token(user)? else {
                return Ok(Outcome::NotFound);
            };
            if token.sealed.expose().as_bytes() != was.expose() {
                return Ok(Outcome::Exists);
            }
            token.sealed = text(becomes)?.into();
            records.put(&provider_tokens::key::token(user), &encode(&token)?)?;
        }
        SealedPlace::Scanner(id) => {
            let Some(mut scanner) = records.scanner(id)? else { return Ok(Outcome::NotFound) };
            match &mut scanner.credential {
                Some(sealed) if sealed.expose().as_bytes() == was.expose() => {
                    *sealed = text(becomes)?.into();
                }
                _ => return Ok(Outcome::Exists),
            }
            records.put(&scanners::key::scanner(id), &encode(&scanner)?)?;
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::MemoryRecords;
    use crate::words::names::UpstreamId;

    fn run(records: &mut MemoryRecords, what: SealingChange) -> Outcome {
        change(records, Timestamp(5), &what).unwrap()
    }

    fn bytes(text: &str) -> Secret<Vec<u8>> {
        text.as_bytes().to_vec().into()
    }

    #[test]
    fn of_two_leaders_that_make_a_key_at_once_one_wins() {
        let mut records = MemoryRecords::default();
        let (mine, theirs) = (Digest::sha256(b"mine"), Digest::sha256(b"theirs"));
        assert_eq!(run(&mut records, SealingChange::Use { after: 0, check: mine }), Outcome::Done);
        let late = SealingChange::Use { after: 0, check: theirs };
        assert_eq!(run(&mut records, late), Outcome::Exists);
        let next = SealingChange::Use { after: 1, check: theirs };
        assert_eq!(run(&mut records, next), Outcome::Done);
        let keys = records.sealing_keys().unwrap();
        let keys: Vec<_> = keys.iter().map(|key| (key.version, key.check)).collect();
        assert_eq!(keys, [(1, mine), (2, theirs)]);
    }

    #[test]
    fn a_secret_that_was_changed_meanwhile_is_not_put_back_by_its_sealing_anew() {
        let mut records = MemoryRecords::default();
        let record = UpstreamRecord {
            id: UpstreamId(1),
            name: "hub".into(),
            kind: "docker-registry".into(),
            url: "https://hub".into(),
            description: String::new(),
            credentials: Some(("ann".into(), "old".into())),
            created: Timestamp(1),
        };
        let key_record =
            TokenKey { number: 3, public: vec![1], sealed: "old".into(), created: Timestamp(1) };
        let mesh = MeshRecord { id: 1, formed: Timestamp(1), token_secret: bytes("old") };
        records.put(&key::upstream(record.id), &encode(&record).unwrap()).unwrap();
        records.put(&key::token_key(3), &encode(&key_record).unwrap()).unwrap();
        records.put(&key::mesh(), &encode(&mesh).unwrap()).unwrap();
        let mut settings = crate::ledger::directory::Configurations::default();
        for name in [CLIENT_SECRET, SEARCH_PASSWORD] {
            settings.secrets.insert(name.into(), "old".into());
        }
        records.put(&key::configurations(), &encode(&settings).unwrap()).unwrap();
        let ann = crate::words::names::UserId(7);
        let old: Secret = "old".into();
        records.put(&key::cli_secret(ann), &encode(&old).unwrap()).unwrap();
        let token = provider_tokens::ProviderToken {
            number: 3,
            sealed: "old".into(),
            said: 1,
            since: Timestamp(1),
            claimed: None,
            ended: false,
        };
        records.put(&provider_tokens::key::token(ann), &encode(&token).unwrap()).unwrap();
        let places = [
            SealedPlace::Upstream(record.id),
            SealedPlace::TokenKey(3),
            SealedPlace::TokenSecret,
            SealedPlace::ClientSecret,
            SealedPlace::SearchPassword,
            SealedPlace::CliSecret(ann),
            SealedPlace::ProviderToken(ann),
        ];
        for place in places {
            let reseal = |was: &str, becomes: &str| SealingChange::Reseal {
                place,
                was: bytes(was),
                becomes: bytes(becomes),
            };
            assert_eq!(run(&mut records, reseal("older", "lost")), Outcome::Exists, "{place:?}");
            assert_eq!(run(&mut records, reseal("old", "new")), Outcome::Done, "{place:?}");
            assert_eq!(run(&mut records, reseal("old", "newer")), Outcome::Exists, "{place:?}");
        }
        let upstream: UpstreamRecord = records.record(&key::upstream(record.id)).unwrap().unwrap();
        assert_eq!(upstream.credentials, Some(("ann".into(), "new".into())));
        let token_key: TokenKey = records.record(&key::token_key(3)).unwrap().unwrap();
        assert_eq!(token_key.sealed, "new".into());
        let mesh: MeshRecord = records.record(&key::mesh()).unwrap().unwrap();
        assert_eq!(mesh.token_secret, bytes("new"));
        for place in [SealedPlace::Upstream(UpstreamId(9)), SealedPlace::TokenKey(9)] {
            let gone = SealingChange::Reseal { place, was: bytes("old"), becomes: bytes("new") };
            assert_eq!(run(&mut records, gone), Outcome::NotFound);
        }
    }
}
