//! Refresh tokens of the OIDC provider.

use super::directory;
use crate::ledger::command::Outcome;
use crate::ledger::directory::{LookForGroups, Vouched};
use crate::ledger::people::LookForPeople;
use crate::ledger::provider_tokens::{
    LookForProviderTokens, ProviderToken, ProviderTokenChange, key,
};
use crate::ledger::records::{RecordError, WriteRecords, encode};
use crate::words::moment::Timestamp;
use crate::words::names::UserId;
use crate::words::roles::Provider;
use crate::words::secret::Secret;

/// What a provider says is recorded again when it is as old as this, though it is the same, in
/// milliseconds: how long ago it vouched for somebody is counted by it.
const AGAIN: u64 = 3_600_000;

/// Whether the provider vouches for somebody is nothing that edges remember: they are told when what
/// it says changes, and not each time that it is asked.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &ProviderTokenChange,
) -> Result<Outcome, RecordError> {
    let user = change.user();
    let Some(account) = records.account(user)? else { return Ok(Outcome::NotFound) };
    let Some(belonging) = records.belonging(user)? else { return Ok(Outcome::NotFound) };
    if belonging.vouched.provider != Provider::Oidc {
        return Ok(Outcome::NotFound);
    }
    let known = records.provider_token(user)?;
    if let ProviderTokenChange::Keep { sealed, .. } = change {
        return keep(records, at, user, known, sealed.as_ref());
    }
    let Some(known) = known else { return Ok(Outcome::NotFound) };
    let next = ProviderToken { number: known.number + 1, ..known.clone() };
    let (number, becomes) = match change {
        ProviderTokenChange::Keep { .. } => return Ok(Outcome::NotFound),
        ProviderTokenChange::Claim { number, .. } => {
            if known.ended {
                return Ok(Outcome::Exists);
            }
            (*number, ProviderToken { claimed: Some(at), ..next })
        }
        ProviderTokenChange::Settle { number, sealed, vouched, .. } => {
            let sealed = sealed.clone().unwrap_or_else(|| known.sealed.clone());
            let (said, since) = match vouched {
                Some(_) => (known.said + 1, at),
                None => (known.said, known.since),
            };
            (*number, ProviderToken { sealed, said, since, claimed: None, ..next })
        }
        ProviderTokenChange::End { number, .. } => {
            let sealed = Secret::default();
            (*number, ProviderToken { sealed, claimed: None, ended: true, ..next })
        }
    };
    if number != known.number {
        return Ok(Outcome::Exists);
    }
    records.put(&key::token(user), &encode(&becomes)?)?;
    match change {
        ProviderTokenChange::Settle { vouched: Some(vouched), .. } => {
            let was = &belonging.vouched;
            let is_theirs = (was.provider, &was.subject) == (vouched.provider, &vouched.subject);
            let is_old = at.0.saturating_sub(belonging.since.0) >= AGAIN;
            if is_theirs && (was != vouched || is_old) {
                directory::attest(records, at, account, &belonging, vouched)?;
            }
        }
        ProviderTokenChange::End { .. } => {
            let mut account = account;
            account.generation += 1;
            let was = belonging.vouched.clone();
            let nothing = Vouched { groups: vec![], administers: false, ..was };
            directory::attest(records, at, account, &belonging, &nothing)?;
        }
        _ => {}
    }
    Ok(Outcome::Done)
}

/// The user has signed in: a claim of before counts no more.
fn keep<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    user: UserId,
    known: Option<ProviderToken>,
    sealed: Option<&Secret>,
) -> Result<Outcome, RecordError> {
    let Some(sealed) = sealed else {
        records.remove(&key::token(user))?;
        return Ok(Outcome::Done);
    };
    let (number, said) = known.map_or((0, 0), |known| (known.number, known.said));
    let kept = ProviderToken {
        number: number + 1,
        sealed: sealed.clone(),
        said: said + 1,
        since: at,
        claimed: None,
        ended: false,
    };
    records.put(&key::token(user), &encode(&kept)?)?;
    Ok(Outcome::Done)
}

/// Forgets the token of a user who is deleted.
pub(super) fn forget_user<R: WriteRecords>(
    records: &mut R,
    user: UserId,
) -> Result<(), RecordError> {
    if records.provider_token(user)?.is_some() {
        records.remove(&key::token(user))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::apply::trial::Ledger;
    use crate::ledger::command::Command;
    use crate::ledger::directory::DirectoryChange;
    use crate::ledger::level::Level;
    use crate::ledger::people::PeopleChange;
    use crate::ledger::records::Look;

    fn vouched(groups: &[&str], administers: bool) -> Vouched {
        Vouched {
            provider: Provider::Oidc,
            subject: "https://issuer ann".into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            administers,
        }
    }

    impl Ledger {
        fn with_ann() -> (Self, UserId) {
            let mut ledger = Ledger::raised();
            let enrol = DirectoryChange::Enrol {
                name: "ann".parse().unwrap(),
                email: String::new(),
                real_name: String::new(),
                vouched: vouched(&["devs"], true),
            };
            assert_eq!(ledger.change(PeopleChange::Directory(enrol)), Outcome::Done);
            let ann = ledger.records.account_named(&"ann".parse().unwrap()).unwrap().unwrap();
            (ledger, ann.id)
        }

        fn about_token(&mut self, change: ProviderTokenChange) -> Outcome {
            self.change(PeopleChange::ProviderToken(change))
        }

        fn token(&self, user: UserId) -> ProviderToken {
            self.records.provider_token(user).unwrap().unwrap()
        }
    }

    fn keep(user: UserId, sealed: Option<&str>) -> ProviderTokenChange {
        ProviderTokenChange::Keep { user, sealed: sealed.map(Secret::from) }
    }

    fn settle(
        user: UserId,
        number: u64,
        sealed: &str,
        vouched: Option<Vouched>,
    ) -> ProviderTokenChange {
        ProviderTokenChange::Settle { user, number, sealed: Some(sealed.into()), vouched }
    }

    #[test]
    fn of_two_nodes_that_would_ask_one_does_and_the_other_ones_answer_counts_no_more() {
        let (mut ledger, ann) = Ledger::with_ann();
        let claim = |number| ProviderTokenChange::Claim { user: ann, number };
        assert_eq!(ledger.about_token(claim(1)), Outcome::NotFound);
        assert_eq!(ledger.about_token(keep(ann, Some("first"))), Outcome::Done);
        assert_eq!(ledger.about_token(claim(1)), Outcome::Done);
        assert_eq!(ledger.about_token(claim(1)), Outcome::Exists);
        assert!(ledger.token(ann).claimed.is_some());
        // the first is taken for dead: another one claims, and the first comes too late
        assert_eq!(ledger.about_token(claim(2)), Outcome::Done);
        let late = settle(ann, 2, "lost", Some(vouched(&["lords"], true)));
        assert_eq!(ledger.about_token(late), Outcome::Exists);
        assert_eq!(
            ledger.about_token(ProviderTokenChange::End { user: ann, number: 2 }),
            Outcome::Exists
        );
        assert_eq!(ledger.about_token(settle(ann, 3, "next", None)), Outcome::Done);
        let token = ledger.token(ann);
        assert_eq!((token.sealed, token.said, token.claimed), ("next".into(), 1, None));
        // a sign-in counts more than a question that is under way
        assert_eq!(ledger.about_token(claim(4)), Outcome::Done);
        assert_eq!(ledger.about_token(keep(ann, Some("other"))), Outcome::Done);
        let late = settle(ann, 5, "lost", Some(vouched(&[], false)));
        assert_eq!(ledger.about_token(late), Outcome::Exists);
        assert_eq!((ledger.token(ann).sealed, ledger.token(ann).said), ("other".into(), 2));
    }

    #[test]
    fn what_the_provider_says_is_recorded_when_it_changes_and_edges_hear_of_that_only() {
        let (mut ledger, ann) = Ledger::with_ann();
        ledger.about_token(keep(ann, Some("first")));
        let version = |ledger: &Ledger| ledger.records.people_version().unwrap();
        let belonging = |ledger: &Ledger| ledger.records.belonging(ann).unwrap().unwrap();
        let before = (version(&ledger), belonging(&ledger));
        let claim = |number| ProviderTokenChange::Claim { user: ann, number };
        ledger.about_token(claim(1));
        ledger.about_token(settle(ann, 2, "next", Some(vouched(&["devs"], true))));
        assert_eq!((version(&ledger), belonging(&ledger)), before);
        ledger.about_token(claim(3));
        ledger.about_token(settle(ann, 4, "third", Some(vouched(&[], false))));
        assert!(version(&ledger) > before.0);
        assert_eq!(belonging(&ledger).vouched, vouched(&[], false));
        assert!(!ledger.records.account(ann).unwrap().unwrap().administrator);
        // what is said of somebody else is nothing
        ledger.about_token(claim(5));
        let other = Vouched { subject: "https://issuer eve".into(), ..vouched(&["lords"], true) };
        ledger.about_token(settle(ann, 6, "fourth", Some(other)));
        assert_eq!(belonging(&ledger).vouched, vouched(&[], false));
    }

    #[test]
    fn whom_the_provider_refuses_has_nothing_until_they_sign_in_again() {
        let (mut ledger, ann) = Ledger::with_ann();
        ledger.about_token(keep(ann, Some("first")));
        ledger.about_token(ProviderTokenChange::Claim { user: ann, number: 1 });
        let before = ledger.records.account(ann).unwrap().unwrap();
        let version = ledger.records.people_version().unwrap();
        let end = ProviderTokenChange::End { user: ann, number: 2 };
        assert_eq!(ledger.about_token(end), Outcome::Done);
        let after = ledger.records.account(ann).unwrap().unwrap();
        assert!(after.generation > before.generation && !after.administrator);
        assert!(ledger.records.people_version().unwrap() > version);
        let belonging = ledger.records.belonging(ann).unwrap().unwrap();
        assert_eq!(belonging.vouched, vouched(&[], false));
        let token = ledger.token(ann);
        assert!(token.ended && token.sealed == Secret::default());
        let claim = ProviderTokenChange::Claim { user: ann, number: token.number };
        assert_eq!(ledger.about_token(claim), Outcome::Exists);
        assert_eq!(ledger.about_token(keep(ann, Some("again"))), Outcome::Done);
        assert!(!ledger.token(ann).ended);
        // a provider that gives none any more
        assert_eq!(ledger.about_token(keep(ann, None)), Outcome::Done);
        assert_eq!(ledger.records.provider_token(ann).unwrap(), None);
    }

    #[test]
    fn nothing_is_left_of_whoever_is_deleted_and_nobody_else_has_such_a_token() {
        let (mut ledger, ann) = Ledger::with_ann();
        ledger.about_token(keep(ann, Some("first")));
        assert_eq!(ledger.records.provider_tokens().unwrap().len(), 1);
        assert_eq!(ledger.change(PeopleChange::DeleteUser { id: ann }), Outcome::Done);
        assert_eq!(ledger.records.provider_tokens().unwrap(), []);
        let admin = ledger.records.account_named(&"admin".parse().unwrap()).unwrap().unwrap().id;
        for user in [ann, admin] {
            assert_eq!(ledger.about_token(keep(user, Some("x"))), Outcome::NotFound);
        }
        let command = Command::People(Box::new(PeopleChange::ProviderToken(keep(ann, None))));
        assert_eq!(command.level(), Level::PROVIDER_TOKENS);
        assert!(ledger.records.level().unwrap() >= Level::PROVIDER_TOKENS);
    }
}
