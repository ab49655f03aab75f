//! Users whom an identity provider vouches for: what it says of them goes into the ledger, so that it
//! counts at every node.

use std::time::Duration;

use ground::clock;
use ground::supervise::at_length;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::directory::{Belonging, DirectoryChange, LookForGroups, Vouched};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::people::{Account, LookForPeople, PeopleChange};
use rules::ledger::records::{Look, ReadRecords, RecordError};
use rules::people::access::Principal;
use rules::words::names::{OperationId, UserId, UserName};

use super::{Access, AccessError};

/// How long a change may take to be committed.
const COMMIT: Duration = Duration::from_secs(10);
/// What a provider said is recorded again when it is as old as this, though it is the same: how long
/// ago somebody signed in is counted by it.
const AGAIN: Duration = Duration::from_secs(3600);

/// Somebody whom a provider knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// What it says of them.
    pub(super) vouched: Vouched,
    /// The name that they get here.
    pub(super) name: UserName,
    /// For people; empty if it is not known.
    pub(super) email: String,
    /// For people; empty if it is not known.
    pub(super) real_name: String,
}

/// How somebody came to an account here.
pub(super) enum Enrolled {
    /// It was made now.
    Made(UserId),
    /// Another request of theirs has made it a moment ago.
    Known(UserId),
    /// Somebody else has the name, or one that looks like it.
    Taken,
}

impl Access {
    /// The account of whom a provider calls so.
    pub(super) async fn account_of(
        &self,
        vouched: &Vouched,
    ) -> Result<Option<(Account, Belonging)>, AccessError> {
        let look = |records: &dyn ReadRecords| match records
            .user_called(vouched.provider, &vouched.subject)?
        {
            Some(id) => Ok(records.account(id)?.zip(records.belonging(id)?)),
            None => Ok::<_, RecordError>(None),
        };
        Ok(self.records.read(look).await?.0)
    }

    /// Records what the provider says of somebody who has an account here. Returns who that is.
    pub(super) async fn attest(
        &self,
        (account, belonging): (Account, Belonging),
        vouched: Vouched,
        by: &Actor,
    ) -> Result<Principal, AccessError> {
        let is_old = clock::timestamp().apart(belonging.since) >= AGAIN;
        if belonging.vouched != vouched || is_old {
            let change = DirectoryChange::Attest { user: account.id, vouched };
            if self.change_directory(change, by).await? != Outcome::Done {
                return Err(AccessError::Wrong);
            }
        }
        self.principal(account.id).await
    }

    /// Creates the account of somebody whom a provider vouches for.
    pub(super) async fn enrol(&self, person: Person, by: &Actor) -> Result<Enrolled, AccessError> {
        let Person { vouched, name, email, real_name } = person;
        let look = |records: &dyn ReadRecords| at_length(|| records.name_like(&name));
        if self.records.read(look).await?.0.is_some() {
            return Ok(Enrolled::Taken);
        }
        let change = DirectoryChange::Enrol { name, email, real_name, vouched: vouched.clone() };
        let outcome = self.change_directory(change, by).await?;
        Ok(match (self.account_of(&vouched).await?, outcome) {
            (Some((account, _)), Outcome::Done) => Enrolled::Made(account.id),
            (Some((account, _)), _) => Enrolled::Known(account.id),
            (None, _) => Enrolled::Taken,
        })
    }

    /// Who a user is now, for what they have just shown.
    pub(super) async fn principal(&self, id: UserId) -> Result<Principal, AccessError> {
        let account = self.records.read(|records| records.account(id)).await?.0;
        match account {
            Some(account) if !account.disabled => {
                Ok(Principal::User { id, generation: account.generation })
            }
            _ => Err(AccessError::Wrong),
        }
    }

    pub(super) async fn change_directory(
        &self,
        change: DirectoryChange,
        by: &Actor,
    ) -> Result<Outcome, AccessError> {
        let level = self.records.read(|records| records.level()).await?.0;
        if level < Level::DIRECTORY {
            let reason = "identity providers need feature level 8: atoll level --raise";
            return Err(AccessError::Denied(reason.into()));
        }
        let command = Command::People(Box::new(PeopleChange::Directory(change)));
        let command = command.audited(by.clone());
        let proposed = self.records.propose(OperationId(rand::random()), command, COMMIT).await;
        match proposed {
            Ok(proposed) => Ok(proposed.outcome),
            Err(error) => Err(AccessError::Unchecked(error.to_string())),
        }
    }
}
