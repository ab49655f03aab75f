//! Authentication and authorization: passwords or tokens of this mesh, checked on any node against
//! the ledger's records.

mod tokens;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ground::clock;
use ground::supervise::blocking;
use mesh::secrets::Secrets;
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project, User, key};
use rules::people::access::{Action, Identity, RegistryScope, allowed};
use rules::people::guesses::{Guesses, Line, Origin};
use rules::wire::{Credentials, Verdict};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, RepositoryName};
use rules::words::secret::Secret;

use tokio::sync::Semaphore;

use crate::proxies::mirrors::Mirrors;
use crate::view::{EdgeRecords, ReadError, Records};

use tokens::TokenReach;

pub use tokens::{Issued, SERVICE, TokenRequest};

/// The maximum number of checked passwords that are remembered.
const REMEMBERED: usize = 1024;

/// The maximum number of passwords that are checked at a time, for each [`Line`].
const CHECKS: [(Line, usize); 3] = [(Line::Familiar, 2), (Line::Unfamiliar, 1), (Line::Edges, 1)];

/// Why a request is not allowed, by what the client can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Credentials are needed, and the request has none. A token would need this scope.
    #[error("credentials are needed")]
    Missing(Option<NeededScope>),
    /// The credentials are wrong, or cannot be read.
    #[error("the user name, the password or the token is not right")]
    Wrong,
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
    /// Something that cannot be read as either.
    Unreadable,
}

impl Presented {
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

/// Checks credentials and permissions.
pub struct Access {
    records: Records,
    /// Opens the sealed secret that tokens are signed with.
    secrets: Arc<Secrets>,
    /// The secret with which an edge signs its own tokens. They are valid at this edge only, until
    /// it stops.
    edge_secret: [u8; 32],
    mirrors: Arc<Mirrors>,
    proven: Mutex<HashMap<Digest, Identity>>,
    guesses: Mutex<Guesses>,
    lines: HashMap<Line, Semaphore>,
}

/// The authenticated caller of a request, and how it was authenticated.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity.
    pub identity: Identity,
    /// For a token: the scopes that it grants. `None` for a password, which allows everything that
    /// the identity may do.
    reach: Option<TokenReach>,
    /// Whether the request had valid credentials.
    presented: bool,
    /// Whether the request had a token that is not valid, or that this node cannot check.
    refused: bool,
}

impl Caller {
    /// Whether the request had valid credentials.
    pub fn has_presented(&self) -> bool {
        self.presented
    }

    /// Whether this caller may read every repository: only an administrator with a password. With a
    /// token, a caller may read what its scopes name.
    pub fn may_read_all(&self) -> bool {
        self.reach.is_none() && matches!(self.identity, Identity::Administrator(_))
    }

    /// The repositories from which this caller's token allows pulls; empty without a token.
    pub fn pullable(&self) -> Vec<RepositoryName> {
        let scopes = self.reach.iter().flat_map(|reach| &reach.repositories);
        scopes
            .filter(|scope| scope.actions.contains(&Action::Pull))
            .map(|scope| scope.repository.clone())
            .collect()
    }
}

impl Access {
    /// No passwords are remembered yet.
    pub fn new(records: Records, secrets: Arc<Secrets>, mirrors: Arc<Mirrors>) -> Arc<Self> {
        let (proven, guesses) = (Mutex::default(), Mutex::default());
        let lines = CHECKS.into_iter().map(|(line, most)| (line, Semaphore::new(most))).collect();
        Arc::new(Access {
            records,
            secrets,
            edge_secret: rand::random(),
            mirrors,
            proven,
            guesses,
            lines,
        })
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
        let anonymous =
            Caller { identity: Identity::Anonymous, reach: None, presented: false, refused: false };
        match presented {
            Presented::Nothing => Ok(anonymous),
            Presented::Password(name, password) => {
                let identity = self.check_password(&name, &password, origin).await?;
                let identity = identity.ok_or(AccessError::Wrong)?;
                Ok(Caller { identity, presented: true, ..anonymous })
            }
            Presented::Token(token) => match self.check_token(&token).await {
                Ok(Some((identity, reach))) => {
                    Ok(Caller { identity, reach: Some(reach), presented: true, refused: false })
                }
                Ok(None) | Err(_) if reads => Ok(Caller { refused: true, ..anonymous }),
                Ok(None) => Err(AccessError::Wrong),
                Err(error) => Err(error),
            },
            Presented::Unreadable => Err(AccessError::Wrong),
        }
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
                self.check_password(&name, &password, from).await?.map(|who| (who, None))
            }
            Credentials::Token(token) => {
                self.check_token(&token).await?.map(|(who, reach)| (who, Some(reach.repositories)))
            }
        })
    }

    /// The identity behind a name and a password; `None` if they are wrong. A password that was
    /// right is remembered by its hash, together with the record it was checked against, so that a
    /// changed password takes effect at once, and costs nothing. How many others are checked
    /// depends on the `origin` and on the account ([`Guesses`]).
    pub async fn check_password(
        &self,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<Option<Identity>, AccessError> {
        if let Records::Edge(edge) = &self.records {
            return self.check_at_edge(edge, name, password, origin).await;
        }
        let read = self
            .records
            .read(|r| Ok((r.record::<User>(&key::user(name))?, r.get(&key::mesh())?.is_some())));
        let ((user, mesh_known), _) = read.await?;
        let Some(user) = user else { return if mesh_known { Ok(None) } else { Err(not_yet()) } };
        let (hash, password) = (user.password_hash, password.clone());
        let proof =
            Digest::sha256(format!("{name}\0{}\0{}", password.expose(), hash.expose()).as_bytes());
        if let Some(identity) = self.proven.lock().get(&proof) {
            return Ok(Some(identity.clone()));
        }
        // argon2 takes tens of milliseconds and megabytes on purpose: guesses must queue, and not
        // use up the machine
        let line = self.begin(origin, name)?;
        let turn = match self.lines.get(&line) {
            Some(line) => {
                Some(line.acquire().await.map_err(|e| AccessError::Internal(e.to_string()))?)
            }
            None => None,
        };
        let right = blocking(move || verify(&password, &hash)).await;
        drop(turn);
        if !right.unwrap_or(false) || !user.administrator {
            metrics::counter!("atoll_logins_refused_total").increment(1);
            return Ok(None);
        }
        self.guesses.lock().handle_right(origin, name);
        let identity = Identity::Administrator(name.to_owned());
        let mut proven = self.proven.lock();
        if proven.len() >= REMEMBERED {
            proven.clear();
        }
        proven.insert(proof, identity.clone());
        Ok(Some(identity))
    }

    /// A password is about to be checked.
    fn begin(&self, origin: Origin, name: &str) -> Result<Line, AccessError> {
        self.guesses.lock().begin(clock::now(), origin, name).map_err(|wait| {
            metrics::counter!("atoll_logins_throttled_total").increment(1);
            AccessError::TooMany(wait)
        })
    }

    /// A replica checks the password. What it said lately is used again, and costs nothing.
    async fn check_at_edge(
        &self,
        edge: &EdgeRecords,
        name: &str,
        password: &Secret,
        origin: Origin,
    ) -> Result<Option<Identity>, AccessError> {
        let credentials = Credentials::Basic(name.into(), password.clone());
        let counted = !edge.knows(&credentials);
        if counted {
            self.begin(origin, name)?;
        }
        let verdict = edge.identify(credentials).await;
        if counted {
            match &verdict {
                Ok(Some(_)) => self.guesses.lock().handle_right(origin, name),
                Ok(None) => {}
                Err(_) => self.guesses.lock().handle_unproven(origin, name),
            }
        }
        Ok(verdict?.map(|(identity, _)| identity))
    }

    /// Whether `caller` may do `action` in `repository`, whose project (if it exists) is `project`.
    pub fn authorize(
        &self,
        caller: &Caller,
        action: Action,
        repository: &RepositoryName,
        project: Option<&Project>,
    ) -> Result<(), AccessError> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| {
            reach
                .repositories
                .iter()
                .any(|s| s.repository == *repository && s.actions.contains(&action))
        });
        let public_pull = action == Action::Pull && project.is_some_and(|p| p.public);
        if allowed(&caller.identity, action, project) && (in_scope || public_pull) {
            return Ok(());
        }
        let scope = || NeededScope::Repository(repository.clone(), action);
        match &caller.identity {
            _ if !in_scope => Err(AccessError::Scope(scope())),
            Identity::Anonymous => Err(AccessError::Missing(Some(scope()))),
            Identity::Administrator(name) => {
                Err(AccessError::Denied(format!("{name} may not {} here", action.name())))
            }
        }
    }

    /// Whether `caller` is an administrator and may use `what`. With a token, only if it has a
    /// scope for it.
    pub fn administrator(&self, caller: &Caller, what: RegistryScope) -> Result<(), AccessError> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| reach.registry.contains(&what));
        match (&caller.identity, caller.presented || caller.refused) {
            (Identity::Administrator(_), _) if in_scope => Ok(()),
            (Identity::Administrator(_), _) => Err(AccessError::Scope(NeededScope::Registry(what))),
            (_, false) => Err(AccessError::Missing(Some(NeededScope::Registry(what)))),
            (_, true) => Err(AccessError::Wrong),
        }
    }
}

/// A node that starts, or has just joined, does not know any users yet. This must not look like a
/// wrong password, with which clients do not try again.
fn not_yet() -> AccessError {
    AccessError::Unchecked(
        "this node has not received its mesh's records yet; try again in a moment".into(),
    )
}

fn verify(password: &Secret, hash: &Secret) -> bool {
    Argon2::default().verify_password(password.expose().as_bytes(), hash.expose().as_str()).is_ok()
}

/// Computes the stored form of a password.
pub fn hash_password(password: &Secret) -> Result<Secret, String> {
    let salt: [u8; 16] = rand::random();
    let hash: argon2::PasswordHash = Argon2::default()
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map_err(|e| e.to_string())?;
    Ok(hash.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_checks_against_its_own_hash_only() {
        let hash = hash_password(&"secret".into()).unwrap();
        assert!(verify(&"secret".into(), &hash));
        assert!(!verify(&"other".into(), &hash));
    }

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
