//! Answers to queries of records: how they are found, without secrets, and read.

use rules::ledger::people::{Account, Robot, TokenKey};
use rules::ledger::records::{Look, ReadRecords, RecordError, UpstreamRecord, decode, encode, key};
use rules::wire::{Found, Query};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use rules::words::secret::Secret;
use serde_bytes::ByteBuf;

/// The maximum number of pairs in an answer to a scan.
pub(super) const MOST: u64 = 10_000;

/// The answer to `query` from `records`.
pub(super) fn find<R: ReadRecords + ?Sized>(
    records: &R,
    query: &Query,
) -> Result<Found, RecordError> {
    match query {
        Query::Key(key) => {
            let value = match manifest_at(key) {
                // with its bytes, which have a record of their own
                Some((repository, digest)) => records
                    .manifest(&repository, &digest)?
                    .map(|manifest| encode(&manifest))
                    .transpose()?,
                None => records.get(key)?.map(|value| without_secrets(key, value)).transpose()?,
            };
            Ok(Found::Value(value.map(ByteBuf::from)))
        }
        Query::Scan { prefix, after, limit } => {
            let limit = usize::try_from((*limit).min(MOST)).unwrap_or(usize::MAX);
            let pairs = records.scan(prefix, after.as_deref(), limit)?;
            let pairs = pairs.into_iter().map(|(key, value)| {
                let value = without_secrets(&key, value)?;
                Ok((ByteBuf::from(key), ByteBuf::from(value)))
            });
            Ok(Found::Pairs(pairs.collect::<Result<_, RecordError>>()?))
        }
    }
}

/// The manifest whose record is under `key`.
fn manifest_at(key: &[u8]) -> Option<(RepositoryName, Digest)> {
    let (repository, digest) = key::in_repository(key).filter(|_| key.first() == Some(&b'm'))?;
    Some((repository, Digest::from_key(digest).ok()?))
}

/// Removes what only replicas may have: credentials of upstreams, hashes of passwords and secrets,
/// private keys; and what an edge has no use for, like addresses of people.
fn without_secrets(key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    match key.first() {
        Some(b's') => {
            let record: UpstreamRecord = decode(&value)?;
            encode(&UpstreamRecord { credentials: None, ..record })
        }
        Some(b'A') => {
            let account: Account = decode(&value)?;
            let (email, real_name, comment) = Default::default();
            let password_hash = Secret::default();
            encode(&Account { password_hash, email, real_name, comment, ..account })
        }
        Some(b'R') => {
            let robot: Robot = decode(&value)?;
            let (secret_hash, description) = Default::default();
            encode(&Robot { secret_hash, description, ..robot })
        }
        Some(b'K') => {
            let key: TokenKey = decode(&value)?;
            encode(&TokenKey { sealed: Secret::default(), ..key })
        }
        _ => Ok(value),
    }
}

/// The value in an answer.
pub(super) fn value_of(found: &Found) -> Option<Vec<u8>> {
    match found {
        Found::Value(value) => value.as_ref().map(|v| v.to_vec()),
        Found::Pairs(_) | Found::Same => None,
    }
}

/// The pairs in an answer to a scan.
pub(super) fn pairs_of(found: &Found) -> Vec<rules::ledger::records::Pair> {
    match found {
        Found::Pairs(pairs) => pairs.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
        Found::Value(_) | Found::Same => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::records::{MemoryRecords, WriteRecords};
    use rules::words::moment::Timestamp;
    use rules::words::names::{RobotId, UpstreamId, UserId};

    #[test]
    fn what_signs_and_what_proves_who_somebody_is_is_not_told() {
        let mut records = MemoryRecords::default();
        let hidden = || String::from("hidden-word");
        let account = Account {
            id: UserId(1),
            name: "ann".parse().unwrap(),
            email: hidden(),
            real_name: hidden(),
            comment: hidden(),
            password_hash: hidden().into(),
            administrator: false,
            disabled: false,
            generation: 1,
            created: Timestamp(1),
            updated: Timestamp(1),
        };
        let robot = Robot {
            id: RobotId(2),
            name: "ci".parse().unwrap(),
            project: None,
            description: hidden(),
            secret_hash: hidden().into_bytes().into(),
            expires: None,
            days: -1,
            disabled: false,
            grants: Vec::new(),
            generation: 1,
            created: Timestamp(1),
            updated: Timestamp(1),
        };
        let signs =
            TokenKey { number: 3, public: vec![1], sealed: hidden().into(), created: Timestamp(1) };
        let places = [key::account(UserId(1)), key::robot(RobotId(2)), key::token_key(3)];
        let values = [encode(&account), encode(&robot), encode(&signs)].map(Result::unwrap);
        for (place, value) in places.iter().zip(values) {
            records.put(place, &value).unwrap();
            let one = find(&records, &Query::Key(place.clone())).unwrap();
            let text = String::from_utf8_lossy(&value_of(&one).unwrap()).into_owned();
            assert!(!text.contains("hidden"), "{text}");
        }
        let all = Query::Scan { prefix: key::token_keys(), after: None, limit: 9 };
        let all = pairs_of(&find(&records, &all).unwrap());
        assert!(!String::from_utf8_lossy(&all[0].1).contains("hidden"));
        assert_eq!(decode::<TokenKey>(&all[0].1).unwrap().public, [1]);
    }

    #[test]
    fn an_upstreams_credentials_are_not_told() {
        let mut records = MemoryRecords::default();
        let upstream = UpstreamRecord {
            id: UpstreamId(1),
            name: "hub".into(),
            kind: "docker-hub".into(),
            url: "https://hub.docker.com".into(),
            description: String::new(),
            credentials: Some(("user".into(), "hidden-word".into())),
            created: Timestamp(1),
        };
        records.put(&key::upstream(UpstreamId(1)), &encode(&upstream).unwrap()).unwrap();
        let one = find(&records, &Query::Key(key::upstream(UpstreamId(1)))).unwrap();
        let all = find(&records, &Query::Scan { prefix: key::upstreams(), after: None, limit: 9 })
            .unwrap();
        for found in [&one, &all] {
            let text = format!("{:?}", rules::wire::encode(found));
            let hidden = format!("{:?}", b"hidden-word");
            assert!(!text.contains(hidden.trim_matches(['[', ']'])));
        }
        let told: UpstreamRecord = decode(&value_of(&one).unwrap()).unwrap();
        assert_eq!(told, UpstreamRecord { credentials: None, ..upstream });
        assert_eq!(pairs_of(&all).len(), 1);
        // what records() does with the pairs is what it does with a ledger's
        assert_eq!(records.upstreams().unwrap().len(), 1);
    }
}
