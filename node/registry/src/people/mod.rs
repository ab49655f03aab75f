//! Authentication and authorization: passwords, secrets of robots and tokens of this mesh, checked
//! on any node against the ledger's records.
//!
//! What a client shows names a [`Principal`]. Each request asks the records who that is now, so a
//! change holds at once, whatever was shown before.

mod credentials;
mod foreign;
mod issuers;
mod ldap;
mod lookups;
mod oidc;
mod provider;
mod provider_tokens;
mod renewing;
mod sessions;
mod signing;
mod tokens;
mod turns;
mod vouching;
mod workloads;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ground::clock;
use ground::supervise::Tasks;
use mesh::secrets::{SecretError, Secrets};
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::people::access::{Action, Identity, Principal, RegistryScope, Scope, allowed};
use rules::people::discovery::Owner;
use rules::people::guesses::{Guesses, Line, Origin};
use rules::people::passes::{SCANNER, ScanPass};
use rules::people::provider_tokens::Watch;
use rules::proxies::budget::Budgets;
use rules::wire::{Credentials, Verdict};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, RepositoryName};
use rules::words::roles::{Operation, Permission, Resource};
use rules::words::secret::Secret;

use tokio::sync::Semaphore;
use upstream::directory::Directory;
use upstream::web::Web;

use crate::proxies::mirrors::Mirrors;
use crate::view::{Freshness, ReadError, Records};

use credentials::{CHECKS, HASHED};
use issuers::Issuers;
use ldap::Asking;
use signing::Signing;
use tokens::{Checked, TokenReach};
use turns::Turns;
use workloads::{NAMED, REFUSED_LINES};

pub use credentials::hash_password;
pub use foreign::check_keys;
pub use lookups::{ListedGroup, ListedPerson, NotImported, WantedGroups};
pub use oidc::{CameBack, NotSignedIn, STEP_SECONDS, SignInBegun, SignInEnded};
pub use sessions::{NewSession, csrf_token};
pub use signing::SERVICE;
pub use tokens::{Issued, TokenProof, TokenRequest, TooManyScopes};
pub use workloads::NotTried;

/// Why a request is not allowed, by what the client can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Credentials are needed, and the request has none. A token would need this scope.
    #[error("credentials are needed")]
    Missing(Option<NeededScope>),
    /// The credentials are wrong, or cannot be read.
    #[error("the user name, the password or the token is not right")]
    Wrong,
    /// The token or the session counts for nothing, or for nothing any more. Another token would need
    /// this scope.
    #[error("the token or the session does not count any more")]
    Ended(Option<NeededScope>),
    /// The token is valid, but not for this. Another one with this scope may be (RFC 6750 section
    /// 3.1).
    #[error("the token is not valid for this")]
    Scope(NeededScope),
    /// The identity may not do this, with whatever credentials.
    #[error("{0}")]
    Denied(String),
    /// Too many wrong passwords came from there, or for this account. It may be tried again after
    /// this time.
    #[error("too many wrong passwords; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
    /// The credentials cannot be checked now. The client should try again.
    #[error("{0}")]
    Unchecked(String),
    /// A fault of this node.
    #[error("{0}")]
    Internal(String),
}

/// A key that is still to come is no fault: the client may try again.
impl From<SecretError> for AccessError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::NotHere(_) => AccessError::Unchecked(error.to_string()),
            SecretError::NoKey | SecretError::Damaged => AccessError::Internal(error.to_string()),
        }
    }
}

/// The scope that a token needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeededScope {
    /// An action in a repository.
    Repository(RepositoryName, Action),
    /// A part of the registry as a whole.
    Registry(RegistryScope),
}

impl NeededScope {
    /// The scope in the words of the token protocol. For a push it includes `pull`, because clients
    /// ask for both at once.
    pub fn scope(&self) -> String {
        let actions = |action: &Action| match action {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete",
        };
        match self {
            NeededScope::Repository(repository, action) => {
                format!("repository:{repository}:{}", actions(action))
            }
            NeededScope::Registry(what) => format!("registry:{}:*", what.name()),
        }
    }
}

impl From<ReadError> for AccessError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Records(error) => AccessError::Internal(error.to_string()),
            ReadError::CutOff => AccessError::Unchecked(error.to_string()),
        }
    }
}

/// The credentials in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// A name and a password.
    Password(String, Secret),
    /// A token.
    Token(Secret),
    /// The cookie of a session.
    Session(Secret),
    /// Something that cannot be read as either.
    Unreadable,
}

impl Presented {
    /// What a request shows: credentials in `Authorization`, else the cookie of a session.
    pub fn of(authorization: Option<&str>, session: Option<Secret>) -> Self {
        match (authorization, session) {
            (None, Some(cookie)) => Presented::Session(cookie),
            (written, _) => Presented::read(written),
        }
    }

    /// Parses an `Authorization` header (RFC 7617, RFC 6750). Some clients that have no credentials
    /// send an empty header, an empty token, or an empty name with an empty password.
    pub fn read(authorization: Option<&str>) -> Self {
        let written = authorization.unwrap_or_default().trim();
        match written.split_once(' ') {
            None if ["", "basic", "bearer"].iter().any(|w| written.eq_ignore_ascii_case(w)) => {
                Presented::Nothing
            }
            Some((scheme, value)) if scheme.eq_ignore_ascii_case("basic") => {
                match decode_basic(value) {
                    Some((name, password)) if name.is_empty() && password.expose().is_empty() => {
                        Presented::Nothing
                    }
                    Some((name, password)) => Presented::Password(name, password),
                    None => Presented::Unreadable,
                }
            }
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Presented::Token(token.trim().into())
            }
            _ => Presented::Unreadable,
        }
    }
}

fn decode_basic(value: &str) -> Option<(String, Secret)> {
    let bytes = BASE64_STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(name, password)| (name.to_owned(), password.into()))
}

/// Settings of [`Access`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTerms {
    /// What robots' names begin with.
    pub robot_prefix: String,
    /// How long a token is valid.
    pub token_lifetime: Duration,
    /// How long a refresh token is valid.
    pub refresh_lifetime: Duration,
    /// The issuers that may be asked for their keys for a trust rule (see
    /// [`may_be_asked`](rules::people::discovery::may_be_asked)).
    pub issuers: Option<Vec<String>>,
}

/// The clients for identity providers.
pub struct Providers {
    /// For OIDC.
    pub web: Web,
    /// For the issuers that trust rules name.
    pub issuers: Web,
    /// For LDAP.
    pub directory: Directory,
    /// Questions end in this group, also when who asked has gone.
    pub tasks: Tasks,
}

/// Checks credentials and permissions.
pub struct Access {
    /// Itself, for questions that go on when who asked has gone.
    me: Weak<Access>,
    tasks: Tasks,
    records: Records,
    /// Opens the sealed keys that tokens are signed with, and hashes secrets of robots.
    secrets: Arc<Secrets>,
    signing: Signing,
    mirrors: Arc<Mirrors>,
    terms: AccessTerms,
    /// Right passwords that were checked lately, see [`Access::check_password`].
    proven: Mutex<HashSet<Digest>>,
    turns: Turns,
    guesses: Mutex<Guesses>,
    issuers: Issuers,
    /// Those that trust rules name. They take nothing from the provider of the mesh's people.
    trusted: Issuers,
    /// How many issuers were named for each project.
    named: Mutex<Budgets<Owner>>,
    /// How many refused tokens of workloads the log has told of.
    refused_lines: Mutex<Budgets<()>>,
    asking: Asking,
    /// What was seen of those who ask the OIDC provider again.
    watch: Mutex<Watch>,
    lines: HashMap<Line, Semaphore>,
    hashing: Semaphore,
}

/// The authenticated caller of a request, and how it was authenticated.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity.
    pub identity: Identity,
    /// For a token of this mesh: the scopes that it grants. `None` for a password, which allows everything that
    /// the identity may do.
    reach: Option<TokenReach>,
    /// Whether the request had valid credentials.
    presented: bool,
    /// Whom they have shown to be, if there are accounts.
    who: Option<Principal>,
    /// Why the request's token counts for nothing: it is not valid, or this node cannot check it.
    refused: Option<AccessError>,
    /// That this is a scanner, and what it scans.
    pass: Option<ScanPass>,
}

impl Caller {
    /// Whether the request had valid credentials.
    pub fn has_presented(&self) -> bool {
        self.presented
    }

    /// The pass, if this caller is a scanner: it may read what the pass opens, and nothing else.
    pub fn pass(&self) -> Option<&ScanPass> {
        self.pass.as_ref()
    }

    /// What to answer if this caller has to be somebody, but is not.
    pub fn unknown(&self, needed: Option<NeededScope>) -> AccessError {
        match &self.refused {
            Some(AccessError::Ended(_)) => AccessError::Ended(needed),
            Some(AccessError::Wrong) | None => AccessError::Missing(needed),
            Some(unchecked) => unchecked.clone(),
        }
    }

    /// Whether this caller may read every repository: only an administrator with a password. With a
    /// token, a caller may read what its scopes name.
    pub fn may_read_all(&self) -> bool {
        self.reach.is_none() && self.identity.is_administrator()
    }

    /// The repositories from which this caller's token allows pulls; empty without a token. Whether
    /// the caller still may pull there is another question ([`Access::authorize`]).
    pub fn pullable(&self) -> Vec<RepositoryName> {
        let scopes = self.reach.iter().flat_map(|reach| &reach.repositories);
        scopes
            .filter(|scope| scope.actions.contains(&Action::Pull))
            .map(|scope| scope.repository.clone())
            .collect()
    }
}

impl Access {
    /// No passwords are remembered yet. `providers` ask others about people.
    pub fn new(
        records: Records,
        secrets: Arc<Secrets>,
        mirrors: Arc<Mirrors>,
        providers: Providers,
        terms: AccessTerms,
    ) -> Arc<Self> {
        let issuers = Issuers::new(providers.web);
        let trusted = Issuers::new(providers.issuers);
        let asking = Asking::new(providers.directory);
        let (proven, guesses) = (Mutex::default(), Mutex::default());
        let lines = CHECKS.into_iter().map(|(line, most)| (line, Semaphore::new(most))).collect();
        let signing = Signing::default();
        let tasks = providers.tasks;
        Arc::new_cyclic(|me| Access {
            me: me.clone(),
            tasks,
            records,
            secrets,
            signing,
            mirrors,
            terms,
            proven,
            turns: Turns::default(),
            guesses,
            issuers,
            trusted,
            named: Mutex::new(Budgets::new(NAMED)),
            refused_lines: Mutex::new(Budgets::new(REFUSED_LINES)),
            asking,
            watch: Mutex::default(),
            lines,
            hashing: Semaphore::new(HASHED),
        })
    }

    /// The prefix of robots' names.
    pub fn robot_prefix(&self) -> &str {
        &self.terms.robot_prefix
    }

    /// The caller that has shown `presented`. Without credentials the caller is anonymous. Wrong
    /// credentials are an error and never make the caller anonymous. There is one exception: if the
    /// request only `reads` and shows a token that has expired, or that another edge signed, the
    /// caller may read what everybody may. Clients reuse a token for minutes, at whatever node a
    /// name leads them to.
    pub async fn caller(
        &self,
        presented: Presented,
        origin: Origin,
        reads: bool,
    ) -> Result<Caller, AccessError> {
        let anonymous = Caller {
            identity: Identity::Anonymous,
            reach: None,
            presented: false,
            who: None,
            refused: None,
            pass: None,
        };
        match presented {
            Presented::Nothing => Ok(anonymous),
            Presented::Password(name, pass) if name == SCANNER => {
                let checked = self.check_token(&pass).await?.ok_or(AccessError::Wrong)?;
                let Checked { identity, reach, pass: Some(pass), .. } = checked else {
                    return Err(AccessError::Wrong);
                };
                Ok(Caller { identity, reach, presented: true, pass: Some(pass), ..anonymous })
            }
            Presented::Password(name, password) => {
                let checked = self.check_password(&name, &password, origin).await?;
                let (identity, shown) = checked.ok_or(AccessError::Wrong)?;
                let who = shown.and_then(|shown| shown.principal());
                Ok(Caller { identity, presented: true, who, ..anonymous })
            }
            Presented::Token(token) => match self.check_token(&token).await {
                Ok(Some(Checked { identity, reach, who, pass })) => {
                    Ok(Caller { identity, reach, presented: true, who, refused: None, pass })
                }
                refused => self.as_anyone(refused.err(), reads),
            },
            Presented::Session(cookie) => match self.check_session(&cookie).await {
                Ok(Some((identity, who))) => {
                    Ok(Caller { identity, presented: true, who: Some(who), ..anonymous })
                }
                refused => self.as_anyone(refused.err(), reads),
            },
            Presented::Unreadable => Err(AccessError::Wrong),
        }
    }

    /// The caller whose token or cookie counts for nothing, for the reason `unchecked` or because it
    /// is not valid.
    fn as_anyone(
        &self,
        unchecked: Option<AccessError>,
        reads: bool,
    ) -> Result<Caller, AccessError> {
        let why = match (unchecked, &self.records) {
            // another edge may have signed it; a client that is asked for a token gets one here
            (Some(_), Records::Edge(_)) if reads => AccessError::Ended(None),
            (why, _) => why.unwrap_or(AccessError::Ended(None)),
        };
        if !reads {
            return Err(why);
        }
        let identity = Identity::Anonymous;
        let (presented, refused) = (false, Some(why));
        Ok(Caller { identity, reach: None, presented, who: None, refused, pass: None })
    }

    /// The identity and scopes behind these credentials. A replica answers this for the edge
    /// `from`.
    pub async fn identify(
        &self,
        from: NodeId,
        credentials: Credentials,
    ) -> Result<Option<Verdict>, AccessError> {
        let from = Origin::Edge(from);
        Ok(match credentials {
            Credentials::Basic(name, password) => {
                self.check_password(&name, &password, from).await?.map(|(who, _)| (who, None))
            }
            Credentials::Token(token) => {
                // an edge would take a scanner's pass for a token of the whole repository
                let checked = self.check_token(&token).await?.filter(|one| one.pass.is_none());
                let reach = |reach: Option<TokenReach>| reach.map(|reach| reach.repositories);
                checked.map(|checked| (checked.identity, reach(checked.reach)))
            }
        })
    }

    /// Whether `caller` may do `action` in `repository`, whose project (if it exists) is `project`
    /// in `records`.
    pub fn authorize(
        &self,
        records: &dyn ReadRecords,
        caller: &Caller,
        action: Action,
        repository: &RepositoryName,
        project: Option<&Project>,
    ) -> Result<Result<(), AccessError>, RecordError> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| {
            let names = |s: &Scope| s.repository == *repository && s.actions.contains(&action);
            reach.repositories.iter().any(names)
        });
        let public_pull = action == Action::Pull && project.is_some_and(|p| p.public);
        if (in_scope || public_pull) && allowed(records, &caller.identity, action, project)? {
            return Ok(Ok(()));
        }
        let scope = || NeededScope::Repository(repository.clone(), action);
        Ok(Err(match &caller.identity {
            _ if !in_scope => AccessError::Scope(scope()),
            Identity::Anonymous => caller.unknown(Some(scope())),
            who => AccessError::Denied(format!("{} may not {} here", who.name(), action.name())),
        }))
    }

    /// Whether `caller`, who was admitted to do `action` in `project` when their request began, may
    /// still do so. The request may have taken long: that their token has expired since is no
    /// reason, but that they may no longer do so is, and that the project was made anew.
    pub fn still_may(
        &self,
        records: &dyn ReadRecords,
        caller: &Caller,
        action: Action,
        project: &Project,
    ) -> Result<bool, RecordError> {
        let Some(project) = records.project_numbered(project.id)? else { return Ok(false) };
        let identity = match caller.who {
            Some(who) => who.identity(records, clock::timestamp(), &self.terms.robot_prefix)?,
            None => Some(caller.identity.clone()),
        };
        match identity {
            Some(identity) => allowed(records, &identity, action, Some(&project)),
            None => Ok(false),
        }
    }

    /// Whether `caller` may use the API at all, with an account or as a robot. With a token, only
    /// if it has the scope for it.
    pub fn signed_in(&self, caller: &Caller, what: RegistryScope) -> Result<(), AccessError> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| reach.registry.contains(&what));
        match (&caller.identity, &caller.refused) {
            (Identity::Anonymous, None) if !caller.presented => {
                Err(AccessError::Missing(Some(NeededScope::Registry(what))))
            }
            (Identity::Anonymous, Some(why)) => Err(why.clone()),
            _ if in_scope => Ok(()),
            _ => Err(AccessError::Scope(NeededScope::Registry(what))),
        }
    }

    /// Whether `caller` has `permission` in the registry as a whole, and may use it for `what`.
    pub fn in_system(
        &self,
        caller: &Caller,
        permission: Permission,
        what: RegistryScope,
    ) -> Result<(), AccessError> {
        self.signed_in(caller, what)?;
        if caller.identity.may_in_system(permission) {
            return Ok(());
        }
        let name = caller.identity.name();
        Err(AccessError::Denied(format!("{name} may not {permission} in this registry")))
    }
}

/// What the list of all repositories needs.
pub const CATALOG: Permission = Permission::new(Resource::Catalog, Operation::Read);

/// Who was found in records, or nobody. Records that may be old do not say that there is nobody: with
/// a 401 clients give up, and their user may have been made a moment ago.
fn found<T>((found, freshness): (Option<T>, Freshness)) -> Result<Option<T>, AccessError> {
    match (found, freshness) {
        (None, Freshness::Stale) => Err(AccessError::Unchecked(OUTDATED.into())),
        (found, _) => Ok(found),
    }
}

const OUTDATED: &str = "this node cannot reach the leader of the ledger, so it cannot tell what \
                        these credentials are good for; ask another node, or try again";

/// A node that starts, or has just joined, does not know any users yet. This must not look like a
/// wrong password, with which clients do not try again.
fn not_yet() -> AccessError {
    AccessError::Unchecked(
        "this node has not received its mesh's records yet; try again in a moment".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_empty_are_none() {
        let nobody = format!("Basic {}", BASE64_STANDARD.encode(":"));
        for empty in ["", " ", "Basic", "bearer ", &nobody] {
            let read = Presented::read(Some(empty));
            assert!(matches!(read, Presented::Nothing), "{empty:?}: {read:?}");
        }
        let half = format!("Basic {}", BASE64_STANDARD.encode("admin:"));
        assert!(matches!(Presented::read(Some(&half)), Presented::Password(..)));
        for other in ["Basic !", "Digest x", "nonsense"] {
            let read = Presented::read(Some(other));
            assert!(matches!(read, Presented::Unreadable), "{other:?}: {read:?}");
        }
    }

    #[test]
    fn what_a_client_shows_is_not_printed() {
        for (written, shown) in [
            (
                format!("Basic {}", BASE64_STANDARD.encode("admin:hidden-word")),
                r#"Password("admin", (secret))"#,
            ),
            ("Bearer hidden-word".to_owned(), "Token((secret))"),
        ] {
            assert_eq!(format!("{:?}", Presented::read(Some(&written))), shown);
        }
        let issued = Issued {
            token: "hidden-word".into(),
            refresh: Some("hidden-word".into()),
            at: Default::default(),
            lasts: Default::default(),
        };
        assert!(!format!("{issued:?}").contains("hidden-word"));
    }

    #[test]
    fn basic_credentials_may_hold_colons() {
        let written = BASE64_STANDARD.encode("admin:a:b");
        assert_eq!(decode_basic(&written), Some(("admin".into(), "a:b".into())));
        assert_eq!(decode_basic("%%%"), None);
    }
}
