//! Sessions of browsers: a signed cookie. Nothing is kept of them, so any node takes the cookie of any
//! other, and each request asks the records whether what was shown still counts.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ground::clock;
use rules::ledger::directory::LookForGroups;
use rules::ledger::people::LookForPeople;
use rules::people::access::{Identity, Principal};
use rules::people::configurations::Configured;
use rules::people::guesses::Origin;
use rules::people::trusts::WORKLOAD;
use rules::words::digest::Digest;
use rules::words::secret::Secret;

use super::credentials::Shown;
use super::signing::{Claims, Purpose};
use super::{Access, AccessError};
use crate::view::{ReadError, Records};

/// The longest that a session may be set to last.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A session that begins.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The cookie's value.
    pub cookie: Secret,
    /// How long it lasts.
    pub lasts: Duration,
}

/// What a page must send along with a write, so that no page of another site can write with the
/// cookie that the browser keeps: it is made of the cookie, which pages cannot read.
pub fn csrf_token(cookie: &Secret) -> String {
    let made = Digest::sha256(&[b"csrf\0", cookie.expose().as_bytes()].concat());
    BASE64_URL_SAFE_NO_PAD.encode(made.to_key())
}

impl Access {
    /// Begins a session of the user with this name and password. A robot has none: its secret is for
    /// programs.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<NewSession, AccessError> {
        if let Records::Edge(_) = &self.records {
            let reason = "an edge begins no sessions; ask a replica";
            return Err(AccessError::Denied(reason.into()));
        }
        if name == WORKLOAD || self.is_robot(name) {
            return Err(AccessError::Denied("only users have sessions".into()));
        }
        let checked = self.check_password(name, password, origin).await?;
        let (identity, shown) = checked.ok_or(AccessError::Wrong)?;
        match shown {
            Some(Shown::Principal(who)) => self.begin_session(who, identity.name()).await,
            _ => Err(AccessError::Denied(
                "sessions need feature level 5: atoll level --raise".into(),
            )),
        }
    }

    /// Begins a session of a user who has shown who they are.
    pub(super) async fn begin_session(
        &self,
        who: Principal,
        name: &str,
    ) -> Result<NewSession, AccessError> {
        let read = self.records.read(|records| records.configurations());
        let lasts = Configured::of(&read.await?.0).session();
        let mut claims = Claims::new(Purpose::Session, name, clock::timestamp(), lasts);
        claims.who = Some(who);
        Ok(NewSession { cookie: self.sign_alone(&claims).await?, lasts })
    }

    /// Whose session this is, now; `None` if it has ended. A replica also ends one that is older than
    /// the setting allows by now.
    pub(super) async fn check_session(
        &self,
        cookie: &Secret,
    ) -> Result<Option<(Identity, Principal)>, AccessError> {
        let claims = match &self.records {
            Records::Edge(_) => {
                let keys = self.records.view().and_then(|view| view.token_keys());
                let keys = keys.map_err(ReadError::from)?;
                self.signing.read_in_mesh(cookie, Purpose::Session, &keys, None, LONGEST)
            }
            Records::Ledger(..) => {
                let read = self.records.read(|records| records.configurations());
                let lasts = Configured::of(&read.await?.0).session();
                let claims = self.read_token(cookie, Purpose::Session, LONGEST).await?;
                claims.filter(|claims| claims.age(clock::timestamp()) < lasts)
            }
        };
        let Some((claims, who)) = claims.and_then(|claims| claims.who.map(|who| (claims, who)))
        else {
            return Ok(None);
        };
        Ok(self.identity_of(&claims).await?.map(|identity| (identity, who)))
    }
}
