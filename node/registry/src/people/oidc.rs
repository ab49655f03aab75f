//! Signing in at an OpenID Connect provider: authorization code with PKCE (RFC 6749, RFC 7636, OpenID
//! Connect Core 1.0).
//!
//! Between the two steps nothing is kept here: what the second one needs is in a sealed cookie, so any
//! replica may get the browser back.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ground::clock;
use rules::ledger::command::Outcome;
use rules::ledger::directory::{Belonging, DirectoryChange, LookForGroups, Vouched, cli_place};
use rules::ledger::events::Actor;
use rules::ledger::people::Account;
use rules::ledger::records::ReadRecords;
use rules::people::access::{Identity, Principal};
use rules::people::guesses::Origin;
use rules::words::digest::Digest;
use rules::words::names::{UserId, UserName};
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::foreign::{Claims, unchecked};
use super::issuers::Discovered;
use super::provider::{Meant, NotRedeemed, OWNERS, Terms, is_for, refused, text, unanswered};
use super::sessions::NewSession;
use super::vouching::{Enrolled, Person};
use super::{Access, AccessError, found};

/// The places for which the two cookies are sealed.
const BEGUN: &str = "sign-in at the OIDC provider";
const CHOOSING: &str = "name of an OIDC user";
/// How long a sign-in, and the choice of a name, may take, in seconds.
pub const STEP_SECONDS: u64 = 600;
/// The longest refresh token that waits in a cookie until a name is chosen, in bytes.
const LONGEST_WAITING: usize = 1500;

/// What the second step needs of the first.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    /// Where the provider sends the browser back to.
    back: String,
    until: u64,
}

/// Somebody whom the provider vouches for, and who has no name here yet.
#[derive(Serialize, Deserialize)]
struct Choosing {
    vouched: Vouched,
    email: String,
    real_name: String,
    until: u64,
    /// How often an account of theirs was deleted before this.
    #[serde(default)]
    forgotten: u64,
    /// The refresh token that the provider gave, if it is not too long for a cookie.
    #[serde(default)]
    refresh_token: Option<Secret>,
}

/// A sign-in that has begun.
pub struct SignInBegun {
    /// Where the browser goes.
    pub place: String,
    /// A cookie for when it comes back.
    pub cookie: Secret,
}

/// How a sign-in has ended.
pub enum SignInEnded {
    /// With a session of the user with this name.
    SignedIn {
        /// The session.
        session: NewSession,
        /// The name.
        name: String,
    },
    /// The person has to choose a name. The cookie says who they are.
    Choose {
        /// The cookie.
        cookie: Secret,
        /// A name that they may like.
        suggestion: String,
    },
}

/// Why a sign-in has not ended well.
pub struct NotSignedIn {
    /// Why.
    pub error: AccessError,
    /// The name of the account, if it is known whose it would have been.
    pub name: Option<String>,
}

impl<E: Into<AccessError>> From<E> for NotSignedIn {
    fn from(error: E) -> Self {
        NotSignedIn { error: error.into(), name: None }
    }
}

/// What a browser says that comes back from the provider.
pub struct CameBack<'q> {
    /// `state`.
    pub state: &'q str,
    /// `iss` (RFC 9207).
    pub issuer: Option<&'q str>,
    /// Whether there is an `error`.
    pub error: bool,
    /// `code`.
    pub code: &'q str,
}

fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn until() -> u64 {
    clock::timestamp().0 / 1000 + STEP_SECONDS
}

/// In an issuer's document: its answers to browsers say whose they are (RFC 9207 section 3).
const NAMES_ITSELF: &str = "authorization_response_iss_parameter_supported";

/// Whether an answer that says this of its issuer is this one's. One that always says so is not
/// believed without.
fn is_of(said: Option<&str>, issuer: &str, always: bool) -> bool {
    said.map_or(!always, |said| said == issuer)
}

impl Access {
    /// Tries an issuer before it is recorded as the mesh's OIDC provider: whether it answers with its
    /// document and keys, and lets browsers sign in. The error is a sentence for an administrator.
    pub async fn ping_oidc(&self, issuer: &str) -> Result<(), String> {
        let found = self.issuers.try_now(issuer).await.map_err(|error| error.to_string())?;
        for name in ["authorization_endpoint", "token_endpoint"] {
            if found.endpoint(name).is_none() {
                return Err(format!("the document at {issuer} has no {name} that can be used"));
            }
        }
        Ok(())
    }

    /// Begins to sign somebody in. The provider sends the browser back to `back`.
    pub async fn begin_oidc(&self, back: &str) -> Result<SignInBegun, AccessError> {
        let terms = self.oidc_needed().await?;
        let found =
            self.issuers.discover(&terms.issuer, &OWNERS).await.map_err(|e| unanswered(&e))?;
        let endpoint = found.endpoint("authorization_endpoint");
        let endpoint = endpoint.ok_or_else(|| refused("the OIDC provider has no sign-in"))?;
        let begun = Begun {
            state: random(),
            nonce: random(),
            verifier: random(),
            back: back.to_owned(),
            until: until(),
        };
        let challenge = Digest::sha256(begun.verifier.as_bytes());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(challenge.as_bytes());
        let (scope, extra) = terms.asked_at(endpoint);
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&extra)
            .append_pair("response_type", "code")
            .append_pair("client_id", &terms.client)
            .append_pair("redirect_uri", back)
            .append_pair("scope", &scope)
            .append_pair("state", &begun.state)
            .append_pair("nonce", &begun.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        let place = format!("{endpoint}{joint}{query}");
        Ok(SignInBegun { place, cookie: self.sealed(BEGUN, &begun)? })
    }

    /// Ends a sign-in: the browser came back with an answer of the provider, and the cookie of its
    /// beginning. Whose answer it is, is checked before anything of it counts, an error, too (RFC 9207
    /// section 2.4).
    pub async fn end_oidc(
        &self,
        cookie: &Secret,
        back: CameBack<'_>,
        by: &Actor,
        origin: Origin,
    ) -> Result<SignInEnded, NotSignedIn> {
        let begun: Begun = self
            .opened(BEGUN, cookie)
            .filter(|begun: &Begun| begun.until > clock::timestamp().0 / 1000)
            .filter(|begun| begun.state == back.state)
            .ok_or_else(|| refused("this sign-in did not begin in this browser, or long ago"))?;
        let terms = self.oidc_needed().await?;
        let found = self.issuers.discover(&terms.issuer, &OWNERS).await;
        let found = found.map_err(|e| unanswered(&e))?;
        if !is_of(back.issuer, &terms.issuer, found.flag(NAMES_ITSELF)) {
            return Err(refused("this answer is not the OIDC provider's").into());
        }
        if back.error {
            return Err(AccessError::Wrong.into());
        }
        self.begin_errand(origin)?;
        let said = self.exchange(&terms, &found, &begun, back.code).await;
        if !matches!(said, Err(AccessError::Wrong)) {
            self.end_errand(origin);
        }
        let (claims, refresh_token) = said?;
        let vouched = terms.vouched(&claims).ok_or(AccessError::Wrong)?;
        let name = terms.name(&claims).to_owned();
        let by = |name: &str| Actor { name: name.to_owned(), ..by.clone() };
        let known = self.account_of(&vouched).await?;
        let name = known.as_ref().map_or(name, |(account, _)| account.name.to_string());
        let signed_in = |session: Result<NewSession, AccessError>, name: String| match session {
            Ok(session) => Ok(SignInEnded::SignedIn { session, name }),
            Err(error) => Err(NotSignedIn { error, name: Some(name) }),
        };
        if let Some(known) = known {
            let session = self.come_in(known, vouched, refresh_token, &by(&name)).await;
            return signed_in(session, name);
        }
        let (email, real_name) = (text(&claims, "email"), text(&claims, "name"));
        let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect();
        let choosing = Choosing {
            forgotten: self.times_forgotten(&vouched).await?,
            vouched,
            email: short(email),
            real_name: short(real_name),
            until: until(),
            refresh_token,
        };
        if terms.auto_onboard {
            let session = self.admit(choosing, &name, &by(&name)).await;
            return signed_in(session, name);
        }
        let fits = |token: &Secret| token.expose().len() <= LONGEST_WAITING;
        let refresh_token = choosing.refresh_token.filter(fits);
        let cookie = self.sealed(CHOOSING, &Choosing { refresh_token, ..choosing })?;
        Ok(SignInEnded::Choose { cookie, suggestion: name })
    }

    /// Gives a name to somebody whom the provider vouches for.
    pub async fn choose_name(
        &self,
        cookie: &Secret,
        name: &str,
        by: &Actor,
    ) -> Result<NewSession, AccessError> {
        self.oidc_needed().await?;
        let choosing: Choosing = self
            .opened(CHOOSING, cookie)
            .filter(|choosing: &Choosing| choosing.until > clock::timestamp().0 / 1000)
            .ok_or_else(|| refused("sign in at the OIDC provider first"))?;
        // a name is chosen once: who shows the cookie again is not whom they name then
        if self.account_of(&choosing.vouched).await?.is_some() {
            return Err(refused("you have an account here already: sign in at the provider again"));
        }
        // nor does it make an account anew that was deleted since
        if self.times_forgotten(&choosing.vouched).await? != choosing.forgotten {
            return Err(refused("your account was deleted: sign in at the provider again"));
        }
        let by = Actor { name: name.to_owned(), ..by.clone() };
        self.admit(choosing, name, &by).await
    }

    async fn times_forgotten(&self, vouched: &Vouched) -> Result<u64, AccessError> {
        let look =
            |records: &dyn ReadRecords| records.times_forgotten(vouched.provider, &vouched.subject);
        Ok(self.records.read(look).await?.0)
    }

    /// Somebody who has an account here has signed in.
    async fn come_in(
        &self,
        known: (Account, Belonging),
        vouched: Vouched,
        refresh_token: Option<Secret>,
        by: &Actor,
    ) -> Result<NewSession, AccessError> {
        let (id, name) = (known.0.id, known.0.name.clone());
        let who = self.attest(known, vouched, by).await?;
        self.keep_provider_token(id, refresh_token, by).await?;
        self.begin_session(who, name.as_str()).await
    }

    async fn admit(
        &self,
        choosing: Choosing,
        name: &str,
        by: &Actor,
    ) -> Result<NewSession, AccessError> {
        let parsed = name.parse::<UserName>().ok().filter(|_| !self.is_robot(name));
        let parsed = parsed.ok_or_else(|| {
            refused("the name cannot be a user's here: no colon, none of , \" ~ # $ %, not empty")
        })?;
        let Choosing { vouched, email, real_name, refresh_token, .. } = choosing;
        let person = Person { vouched, name: parsed, email, real_name };
        let id = match self.enrol(person, by).await? {
            Enrolled::Made(id) => {
                // only once: another one would end the session of who signs in at the same time
                self.set_cli_secret(id, &random().into(), by).await?;
                info!(user = name, "a user of the OIDC provider has an account");
                id
            }
            Enrolled::Known(id) => id,
            Enrolled::Taken => {
                return Err(refused(
                    "somebody has this name already, or one that looks like it; choose another one",
                ));
            }
        };
        self.keep_provider_token(id, refresh_token, by).await?;
        let who = self.principal(id).await?;
        self.begin_session(who, name).await
    }

    /// Gives a user of the provider a new secret for clients that have no browser.
    pub async fn set_cli_secret(
        &self,
        user: UserId,
        secret: &Secret,
        by: &Actor,
    ) -> Result<(), AccessError> {
        let sealed = self.secrets.seal(&cli_place(user), secret.expose())?.into();
        let change = DirectoryChange::SetCliSecret { user, sealed };
        match self.change_directory(change, by).await? {
            Outcome::Done => Ok(()),
            _ => Err(refused("only users of the OIDC provider have such a secret")),
        }
    }

    /// The secret of a user of the provider for clients that have no browser, to show it to them.
    pub async fn cli_secret(&self, user: UserId) -> Result<Option<Secret>, AccessError> {
        let sealed = self.records.read(|records| records.cli_secret(user)).await?.0;
        Ok(sealed.map(|sealed| self.secrets.open(&cli_place(user), sealed.expose())).transpose()?)
    }

    /// Exchanges a code for what the provider says of its owner, and its refresh token if one was
    /// asked for.
    async fn exchange(
        &self,
        terms: &Terms,
        found: &Discovered,
        begun: &Begun,
        code: &str,
    ) -> Result<(Claims, Option<Secret>), AccessError> {
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &begun.back),
            ("code_verifier", &begun.verifier),
        ];
        let redeemed = match self.redeem(terms, found, &grant).await {
            Ok(redeemed) => redeemed,
            Err(NotRedeemed::Unanswered(error)) => return Err(unanswered(&error)),
            Err(NotRedeemed::Refused(status, error)) => {
                warn!(%status, error, "the OIDC provider gave no token for a code");
                return Err(AccessError::Wrong);
            }
        };
        let meant = Meant::Nonce(&begun.nonce);
        let said = self.said_with(terms, found, &redeemed, meant).await;
        let claims = said.map_err(|e| unanswered(&e))?.ok_or(AccessError::Wrong)?;
        Ok((claims, redeemed.refresh_token.filter(|_| terms.is_offline())))
    }

    /// The user of an ID token of the provider, which is as good as a password while it lasts; `None`
    /// if it is not one, or they have no account here.
    pub(super) async fn check_id_token(
        &self,
        token: &Secret,
    ) -> Result<Option<(Identity, Principal)>, AccessError> {
        let Some((issuer, _)) = unchecked(token) else { return Ok(None) };
        // one of our own is checked without looking at settings
        if issuer == super::SERVICE {
            return Ok(None);
        }
        let Some(terms) = self.oidc().await?.filter(|terms| terms.issuer == issuer) else {
            return Ok(None);
        };
        let checked =
            self.issuers.check(&issuer, &OWNERS, token).await.map_err(|e| unanswered(&e))?;
        let vouched = checked
            .filter(|claims| is_for(claims, &terms.client))
            .and_then(|claims| terms.vouched(&claims));
        let Some(vouched) = vouched else { return Ok(None) };
        let Some((account, _)) = self.account_of(&vouched).await? else { return Ok(None) };
        let who = Principal::User { id: account.id, generation: account.generation };
        let prefix = &self.terms.robot_prefix;
        let now = clock::timestamp();
        let identity = self.records.read(|records| who.identity(records, now, prefix)).await?;
        Ok(found(identity)?.map(|identity| (identity, who)))
    }

    fn sealed<T: Serialize>(&self, place: &str, value: &T) -> Result<Secret, AccessError> {
        let text =
            serde_json::to_string(value).map_err(|e| AccessError::Internal(e.to_string()))?;
        // the seal's own alphabet has characters that a cookie may not have
        let sealed = self.secrets.seal(place, &text)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed).into())
    }

    fn opened<T: for<'de> Deserialize<'de>>(&self, place: &str, cookie: &Secret) -> Option<T> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(cookie.expose()).ok()?;
        let text = self.secrets.open(place, &String::from_utf8(sealed).ok()?).ok()?;
        serde_json::from_str(text.expose()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_of_the_issuer_that_it_names() {
        for (said, always, is) in [
            (Some("https://idp"), true, true),
            (Some("https://idp"), false, true),
            (Some("https://idp/"), false, false),
            (Some("https://other"), true, false),
            (Some(""), false, false),
            (None, true, false),
            (None, false, true),
        ] {
            assert_eq!(is_of(said, "https://idp", always), is, "{said:?} {always}");
        }
    }
}
