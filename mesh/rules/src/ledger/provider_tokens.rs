//! Refresh tokens of the OIDC provider: with them the mesh asks it again about people who signed in
//! there. These records exist from the feature level
//! [`Level::PROVIDER_TOKENS`](super::level::Level::PROVIDER_TOKENS) on.
//!
//! Most providers replace such a token at each use, and end the whole sign-in when an old one comes
//! again. So one node at a time asks: it claims the token in the ledger first. Every change of the
//! record has a number, and what was decided under another number changes nothing.

use serde::{Deserialize, Serialize};

use super::directory::Vouched;
use super::level::Level;
use super::records::{Look, RecordError};
use crate::words::moment::Timestamp;
use crate::words::names::UserId;
use crate::words::secret::Secret;

/// What the mesh has to ask the provider about a user again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderToken {
    /// Grows with each change of this record.
    pub number: u64,
    /// The refresh token, sealed for [`place`]. Empty when the provider has refused it.
    pub sealed: Secret,
    /// How often the provider has vouched for the user since the mesh has had a token.
    pub said: u64,
    /// When it did so last.
    pub since: Timestamp,
    /// Since when a node asks the provider.
    pub claimed: Option<Timestamp>,
    /// Whether the provider has refused the token. The user has to sign in there again.
    pub ended: bool,
}

/// The place for which the token of a user is sealed.
pub fn place(user: UserId) -> String {
    format!("refresh token of user {}", user.0)
}

/// A change of such a record. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderTokenChange {
    /// The user has signed in.
    Keep {
        /// Whose.
        user: UserId,
        /// See [`ProviderToken::sealed`]. `None`: the provider gave none, and what was known of
        /// another one is forgotten.
        sealed: Option<Secret>,
    },
    /// A node is about to ask the provider. Nobody else may until it is done, or is taken for dead.
    Claim {
        /// About whom.
        user: UserId,
        /// The number that it has read.
        number: u64,
    },
    /// It has asked.
    Settle {
        /// About whom.
        user: UserId,
        /// The number of its claim.
        number: u64,
        /// The token that replaces the other one.
        sealed: Option<Secret>,
        /// What the provider says now. `None`: it did not answer.
        vouched: Option<Vouched>,
    },
    /// It has asked, and the provider has refused the token: it vouches for them no more.
    End {
        /// For whom.
        user: UserId,
        /// The number of its claim.
        number: u64,
    },
}

impl ProviderTokenChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ProviderTokenChange::Keep { .. } => "keep_provider_token",
            ProviderTokenChange::Claim { .. } => "claim_provider_token",
            ProviderTokenChange::Settle { .. } => "settle_provider_token",
            ProviderTokenChange::End { .. } => "end_provider_token",
        }
    }

    /// Whose token it is about.
    pub fn user(&self) -> UserId {
        match self {
            ProviderTokenChange::Keep { user, .. }
            | ProviderTokenChange::Claim { user, .. }
            | ProviderTokenChange::Settle { user, .. }
            | ProviderTokenChange::End { user, .. } => *user,
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::PROVIDER_TOKENS
    }
}

/// Keys of these records in the map.
pub mod key {
    use crate::words::names::UserId;

    /// The token of a user.
    pub fn token(user: UserId) -> Vec<u8> {
        [&b"9t"[..], &user.0.to_be_bytes()].concat()
    }
    /// All of them.
    pub fn tokens() -> Vec<u8> {
        b"9t".to_vec()
    }
    /// The user of a key of [`token`].
    pub fn user_of(key: &[u8]) -> Option<UserId> {
        key.get(2..)?.try_into().ok().map(|id| UserId(u64::from_be_bytes(id)))
    }
}

/// Typed reading of these records.
pub trait LookForProviderTokens: Look {
    /// What the mesh has to ask the provider about a user again.
    fn provider_token(&self, user: UserId) -> Result<Option<ProviderToken>, RecordError> {
        self.record(&key::token(user))
    }
    /// All of them, by user.
    fn provider_tokens(&self) -> Result<Vec<(UserId, ProviderToken)>, RecordError> {
        let all = self.records::<ProviderToken>(&key::tokens())?;
        Ok(all.into_iter().filter_map(|(place, v)| Some((key::user_of(&place)?, v))).collect())
    }
}

impl<R: Look + ?Sized> LookForProviderTokens for R {}
