//! The OIDC provider is asked again about people who have signed in there, with the refresh token that
//! it gave: when a refresh token or a CLI secret of theirs is used here, and what it said is old.
//!
//! [`rules::people::provider_tokens`] decides. One node at a time asks, under a claim in the ledger.
//! The question goes on when who waits for it has gone: its answer may have another token, and the old
//! one is worth nothing then.

use std::time::Duration;

use ground::clock;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::people::PeopleChange;
use rules::ledger::provider_tokens::{
    LookForProviderTokens, ProviderToken, ProviderTokenChange, place,
};
use rules::ledger::records::{Look, ReadRecords};
use rules::people::configurations::Configured;
use rules::people::provider_tokens::{
    ASKED_WITHIN, BEGUN_WITHIN, SETTLED_WITHIN, Step, counts_without, step,
};
use rules::words::names::{OperationId, UserId};
use rules::words::secret::Secret;
use tokio::sync::oneshot;
use tracing::{info, warn};
use upstream::UpstreamError;

use super::provider::{Meant, NotRedeemed, OWNERS, Terms};
use super::{Access, AccessError};

/// How long a request waits for the provider, whoever asks it.
const PATIENCE: Duration = Duration::from_secs(8);
/// The time between two looks at a claim of another request, if nothing is applied meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// How long a claim may take to be committed.
const CLAIM: Duration = Duration::from_secs(5);

/// Errors of the provider (RFC 6749 section 5.2, OpenID Connect Core section 3.1.2.6) that are about
/// this user alone, who has to sign in there again.
const ENDS: [&str; 4] =
    ["invalid_grant", "interaction_required", "login_required", "consent_required"];

/// How a question ended.
enum Asked {
    /// The records say what counts now.
    Look,
    /// The provider does not answer as it should, or the ledger does not.
    Failed,
}

impl Access {
    /// Records what the provider gave when a user signed in, to ask it again. Without a token nothing
    /// is known of an earlier one either.
    pub(super) async fn keep_provider_token(
        &self,
        user: UserId,
        token: Option<Secret>,
        by: &Actor,
    ) -> Result<(), AccessError> {
        let look = |records: &dyn ReadRecords| {
            Ok((records.level()?, records.provider_token(user)?.is_some()))
        };
        let (level, known) = self.records.read(look).await?.0;
        if level < Level::PROVIDER_TOKENS || (token.is_none() && !known) {
            return Ok(());
        }
        let seal = |token: Secret| self.secrets.seal(&place(user), token.expose());
        let sealed = token.map(seal).transpose()?.map(Secret::from);
        let change = ProviderTokenChange::Keep { user, sealed };
        self.change_token(change, by, SETTLED_WITHIN).await.map(|_| ())
    }

    async fn change_token(
        &self,
        change: ProviderTokenChange,
        by: &Actor,
        within: Duration,
    ) -> Result<Outcome, AccessError> {
        let command = Command::People(Box::new(PeopleChange::ProviderToken(change)));
        let command = command.audited(by.clone());
        let proposed = self.records.propose(OperationId(rand::random()), command, within).await;
        match proposed {
            Ok(proposed) => Ok(proposed.outcome),
            Err(error) => Err(AccessError::Unchecked(error.to_string())),
        }
    }

    /// Whether a user may still use what they have from a sign-in at the OIDC provider. It is asked, if
    /// the mesh can ask it and what it said is old; while it does not answer, that counts for as long
    /// as the setting says. Of other users nobody is asked.
    pub(super) async fn is_still_vouched_for(&self, user: UserId) -> Result<bool, AccessError> {
        let until = clock::now() + PATIENCE;
        let mut began = None;
        loop {
            let seen = self.records.version();
            let look = |records: &dyn ReadRecords| {
                let Some(token) = records.provider_token(user)? else { return Ok(None) };
                Ok(Some((token, records.belonging(user)?, records.configurations()?)))
            };
            let Some((token, belonging, record)) = self.records.read(look).await?.0 else {
                return Ok(true);
            };
            let renewal = Configured::of(&record).renewal();
            let said = *began.get_or_insert(token.said);
            let (now, time) = (clock::now(), clock::timestamp());
            let watched = self.watch.lock().look(user, &token, now);
            let step = step(&token, said, watched, time, &renewal);
            let left_alone = self.watch.lock().is_paused(now);
            let left = until.since(now);
            match step {
                Step::Counts => return Ok(true),
                Step::Refuse => return Ok(false),
                Step::Ask | Step::Wait if left.is_zero() => {}
                Step::Wait => {
                    self.records.applied_more(seen, LOOK.min(left)).await;
                    continue;
                }
                Step::Ask if left_alone => {}
                Step::Ask => {
                    let subject = belonging.map(|one| one.vouched.subject).unwrap_or_default();
                    let terms = self.oidc_of(&record)?;
                    let of_provider = terms.filter(|terms| terms.sub_of(&subject).is_some());
                    // people sign in elsewhere now
                    let Some(terms) = of_provider else { return Ok(false) };
                    match self.ask_for(user, token.clone(), terms, subject, left).await {
                        Asked::Look => continue,
                        Asked::Failed => {}
                    }
                }
            }
            if counts_without(&token, time, &renewal) {
                return Ok(true);
            }
            let why = "the OIDC provider, which has to say whether this still counts, does not \
                       answer as it should; try again later";
            return Err(AccessError::Unchecked(why.into()));
        }
    }

    /// Asks in a task of its own, and waits for it for at most `patience`.
    async fn ask_for(
        &self,
        user: UserId,
        token: ProviderToken,
        terms: Terms,
        subject: String,
        patience: Duration,
    ) -> Asked {
        let Some(me) = self.me.upgrade() else { return Asked::Failed };
        let (tell, told) = oneshot::channel();
        self.tasks.spawn_draining("ask the OIDC provider again", async move {
            let asked = me.ask_under_claim(user, token, &terms, &subject).await;
            let mut watch = me.watch.lock();
            match asked {
                Asked::Look => watch.handle_answer(),
                Asked::Failed => watch.handle_failure(clock::now()),
            }
            drop(watch);
            let _ = tell.send(asked);
        });
        match tokio::time::timeout(patience, told).await {
            Ok(Ok(asked)) => asked,
            _ => Asked::Failed,
        }
    }

    async fn ask_under_claim(
        &self,
        user: UserId,
        token: ProviderToken,
        terms: &Terms,
        subject: &str,
    ) -> Asked {
        let by = Actor::mesh();
        // a provider that cannot even be found costs no claim
        let found = match self.issuers.discover(&terms.issuer, &OWNERS).await {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the OIDC provider could not be asked again about a user");
                return Asked::Failed;
            }
        };
        let begun = clock::now();
        let claim = ProviderTokenChange::Claim { user, number: token.number };
        match self.change_token(claim, &by, CLAIM).await {
            Ok(Outcome::Done) => {}
            Ok(_) => return Asked::Look,
            Err(error) => {
                warn!(%error, "the ledger did not let this node ask the OIDC provider");
                return Asked::Failed;
            }
        }
        let number = token.number + 1;
        let settle =
            |sealed, vouched| ProviderTokenChange::Settle { user, number, sealed, vouched };
        if clock::now().since(begun) > BEGUN_WITHIN {
            return self.settle(settle(None, None), Asked::Failed).await;
        }
        let refresh_token = match self.secrets.open(&place(user), token.sealed.expose()) {
            Ok(refresh_token) => refresh_token,
            Err(error) => {
                warn!(%error, "a refresh token of the OIDC provider cannot be opened");
                return self.settle(settle(None, None), Asked::Failed).await;
            }
        };
        let grant =
            [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose().as_str())];
        let until = clock::now() + ASKED_WITHIN;
        let redeeming = self.redeem(terms, &found, &grant);
        let redeemed = match tokio::time::timeout(ASKED_WITHIN, redeeming).await {
            Ok(Ok(redeemed)) => redeemed,
            Ok(Err(NotRedeemed::Refused(_, word))) if ENDS.contains(&word.as_str()) => {
                info!(user = user.0, "the OIDC provider asks a user for a new sign-in");
                return self.settle(ProviderTokenChange::End { user, number }, Asked::Look).await;
            }
            Ok(Err(NotRedeemed::Refused(status, error))) => {
                warn!(%status, error, "the OIDC provider did not take its refresh token");
                return self.settle(settle(None, None), Asked::Failed).await;
            }
            Ok(Err(NotRedeemed::Unanswered(error))) => {
                warn!(%error, "the OIDC provider could not be asked again about a user");
                return self.settle(settle(None, None), Asked::Failed).await;
            }
            Err(_) => {
                warn!("the OIDC provider did not answer in time about a user");
                return self.settle(settle(None, None), Asked::Failed).await;
            }
        };
        let sealed = match &redeemed.refresh_token {
            Some(next) => match self.secrets.seal(&place(user), next.expose()) {
                Ok(sealed) => Some(Secret::from(sealed)),
                Err(error) => {
                    warn!(%error, "a refresh token of the OIDC provider cannot be sealed");
                    return self.settle(settle(None, None), Asked::Failed).await;
                }
            },
            None => None,
        };
        let meant = Meant::Subject(terms.sub_of(subject).unwrap_or_default());
        let saying = self.said_with(terms, &found, &redeemed, meant);
        let said = tokio::time::timeout(until.since(clock::now()), saying).await;
        let late = |_| Err(UpstreamError::unreachable("it did not answer in time"));
        let said = said.unwrap_or_else(late);
        match said.map(|claims| claims.and_then(|claims| terms.vouched(&claims))) {
            Ok(Some(vouched)) => self.settle(settle(sealed, Some(vouched)), Asked::Look).await,
            Ok(None) => {
                warn!(user = user.0, "the OIDC provider speaks of somebody else");
                self.settle(ProviderTokenChange::End { user, number }, Asked::Look).await
            }
            Err(error) => {
                // the token that it gave is the one that counts from now on
                warn!(%error, "the OIDC provider did not say who a user is");
                self.settle(settle(sealed, None), Asked::Failed).await
            }
        }
    }

    /// Ends a claim.
    async fn settle(&self, change: ProviderTokenChange, asked: Asked) -> Asked {
        match self.change_token(change, &Actor::mesh(), SETTLED_WITHIN).await {
            Ok(_) => asked,
            Err(error) => {
                warn!(%error, "what the OIDC provider said of a user could not be recorded");
                Asked::Failed
            }
        }
    }
}
