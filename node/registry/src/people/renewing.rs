//! Makes new keys to sign tokens with, when they are due. The ledger's leader does this.

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use mesh::ledger::Ledger;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::directory::LookForGroups;
use rules::ledger::level::Level;
use rules::ledger::people::{LookForPeople, PeopleChange};
use rules::ledger::records::{Look, RecordError};
use rules::people::configurations::Configured;
use rules::people::keys::{self, Due};
use rules::words::names::OperationId;
use tracing::{info, warn};

use super::Access;
use crate::view::Records;

/// The time between two looks, until there is a key and after that.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);
/// How long a new key may take to be committed.
const COMMIT: Duration = Duration::from_secs(5);

impl Access {
    /// Looks for as long as the node runs whether a new key is due, and makes it. Ends at once at
    /// an edge.
    pub async fn keep_keys(self: Arc<Self>) {
        let Records::Ledger(ledger, _) = &self.records else { return };
        loop {
            let wait = match self.due(ledger) {
                Ok((due, wait)) => {
                    if let Some(due) = due
                        && ledger.leads()
                    {
                        self.renew(ledger, due).await;
                    }
                    wait
                }
                Err(error) => {
                    warn!(%error, "whether a new key for tokens is due could not be read");
                    LATER
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The key that is due, and when to look again: soon while there is none, because a mesh is
    /// just being formed, or was just raised to the level at which there are keys.
    fn due(&self, ledger: &Ledger) -> Result<(Option<Due>, Duration), RecordError> {
        let view = ledger.view()?;
        if view.level()? < Level::PEOPLE {
            return Ok((None, SOON));
        }
        // a browser's session is signed with the same keys
        let session = Configured::of(&view.configurations()?).session();
        let longest = self.terms.token_lifetime.max(self.terms.refresh_lifetime).max(session);
        let keys = view.token_keys()?;
        let wait = if keys.is_empty() { SOON } else { LATER };
        Ok((keys::due(&keys, clock::timestamp(), longest), wait))
    }

    async fn renew(&self, ledger: &Ledger, due: Due) {
        let new = match self.secrets.new_signing_key() {
            Ok(new) => new,
            Err(error) => return warn!(%error, "a new key for tokens could not be made"),
        };
        let change = PeopleChange::AddTokenKey {
            after: due.after,
            public: new.public,
            sealed: new.sealed,
            forget_below: due.forget_below,
        };
        let command = Command::People(Box::new(change));
        match ledger.propose(OperationId(rand::random()), command, COMMIT).await.map(|p| p.outcome)
        {
            Ok(Outcome::Done) => info!(number = due.after + 1, "a new key signs tokens"),
            Ok(Outcome::Exists) => {}
            Ok(other) => warn!(outcome = ?other, "a new key for tokens was refused"),
            Err(error) => warn!(%error, "a new key for tokens could not be committed yet"),
        }
    }
}
