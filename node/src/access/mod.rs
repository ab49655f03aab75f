//! Who is asking: Basic credentials or a token of this mesh, checked against the ledger's records, on any node.

mod tokens;

use std::collections::HashMap;
use std::sync::Arc;

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ground::supervise::blocking;
use http::{Method, header};
use mesh::secrets::Secrets;
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project, User, key};
use rules::people::access::{Action, Identity, RegistryScope, allowed};
use rules::wire::{Credentials, Verdict};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;

use tokio::sync::Semaphore;

use crate::http::request::Request;
use crate::http::{Code, Failure};
use crate::mirrors::Mirrors;
use crate::records::Records;

use tokens::Reach;

pub use tokens::SERVICE;

/// So many proven credentials are remembered.
const REMEMBERED: usize = 1024;

/// So many passwords are checked at a time.
const CHECKS: usize = 2;

/// Checks credentials.
pub struct Access {
    records: Records,
    /// Opens the key that tokens are signed with.
    secrets: Arc<Secrets>,
    /// What an edge signs its own tokens with; they are good at this edge only, for as long as it runs.
    edge_secret: [u8; 32],
    public_url: Option<String>,
    tls: bool,
    mirrors: Arc<Mirrors>,
    proven: Mutex<HashMap<Digest, Identity>>,
    checking: Semaphore,
}

/// Who is asking, and how that was proven.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// With a token: what it is good for. `None` for credentials, which are good for all that the identity may do.
    reach: Option<Reach>,
    /// Whether credentials came that are good.
    presented: bool,
    /// Whether a token came that is not, or that this node cannot check.
    refused: bool,
}

impl Caller {
    /// Whether this caller may read every repository: an administrator who has shown the password. A token may read what its scopes name.
    pub fn may_read_all(&self) -> bool {
        self.reach.is_none() && matches!(self.identity, Identity::Administrator(_))
    }

    /// The repositories that this caller's token lets it pull from; none for whoever came without one.
    pub fn pullable(&self) -> Vec<RepositoryName> {
        let scopes = self.reach.iter().flat_map(|reach| &reach.repositories);
        scopes.filter(|scope| scope.actions.contains(&Action::Pull)).map(|scope| scope.repository.clone()).collect()
    }
}

impl Access {
    /// Challenges name `public_url` if there is one, else the request's own Host.
    pub fn new(
        records: Records,
        secrets: Arc<Secrets>,
        public_url: Option<String>,
        tls: bool,
        mirrors: Arc<Mirrors>,
    ) -> Arc<Self> {
        let (proven, checking) = (Mutex::default(), Semaphore::new(CHECKS));
        Arc::new(Access { records, secrets, edge_secret: rand::random(), public_url, tls, mirrors, proven, checking })
    }

    /// Where clients reach this node, if the operator says so.
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    /// Who sent `request`. No credentials are the anonymous; wrong ones are an error, never the anonymous. But who only reads and shows a token that has expired, or
    /// that another edge signed, may read what everybody may: clients show a token for minutes, to whatever node a name leads them.
    pub async fn caller(&self, request: &Request) -> Result<Caller, Failure> {
        let anonymous = Caller { identity: Identity::Anonymous, reach: None, presented: false, refused: false };
        let Some(written) = request.header(&header::AUTHORIZATION) else { return Ok(anonymous) };
        match written.split_once(' ') {
            Some((scheme, value)) if scheme.eq_ignore_ascii_case("basic") => {
                let (name, password) = decode_basic(value).ok_or_else(|| self.unauthorized(request, &[]))?;
                let identity = self.check_password(&name, &password).await?;
                let identity = identity.ok_or_else(|| self.unauthorized(request, &[]))?;
                Ok(Caller { identity, presented: true, ..anonymous })
            }
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                let reads = matches!(request.method, Method::GET | Method::HEAD);
                match self.check_token(token.trim()).await {
                    Ok(Some((identity, reach))) => {
                        Ok(Caller { identity, reach: Some(reach), presented: true, refused: false })
                    }
                    Ok(None) | Err(_) if reads => Ok(Caller { refused: true, ..anonymous }),
                    Ok(None) => Err(self.unauthorized(request, &[])),
                    Err(failure) => Err(failure),
                }
            }
            _ => Err(self.unauthorized(request, &[])),
        }
    }

    /// Whose these are: as a replica, for an edge that asks.
    pub async fn identify(&self, credentials: Credentials) -> Result<Option<Verdict>, Failure> {
        Ok(match credentials {
            Credentials::Basic(name, password) => self.check_password(&name, &password).await?.map(|who| (who, None)),
            Credentials::Token(token) => {
                self.check_token(&token).await?.map(|(who, reach)| (who, Some(reach.repositories)))
            }
        })
    }

    /// The identity behind a name and a password, if they are right. A right one is remembered by its hash together with the
    /// record it was checked against, so that a changed password is noticed at once.
    pub async fn check_password(&self, name: &str, password: &str) -> Result<Option<Identity>, Failure> {
        if let Records::Edge(edge) = &self.records {
            let verdict = edge.identify(Credentials::Basic(name.into(), password.into())).await?;
            return Ok(verdict.map(|(identity, _)| identity));
        }
        let read = self.records.read(|r| Ok((r.record::<User>(&key::user(name))?, r.get(&key::mesh())?.is_some())));
        let ((user, mesh_known), _) = read.await?;
        let Some(user) = user else { return if mesh_known { Ok(None) } else { Err(not_yet()) } };
        let proof = Digest::sha256(format!("{name}\0{password}\0{}", user.password_hash).as_bytes());
        if let Some(identity) = self.proven.lock().get(&proof) {
            return Ok(Some(identity.clone()));
        }
        let (hash, password) = (user.password_hash.clone(), password.to_owned());
        // argon2 takes tens of milliseconds and megabytes on purpose: guesses must queue, not fill the machine
        let _turn = self.checking.acquire().await.map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        let right =
            blocking(move || Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()).await;
        if !right.unwrap_or(false) || !user.administrator {
            metrics::counter!("atoll_logins_refused_total").increment(1);
            return Ok(None);
        }
        let identity = Identity::Administrator(name.to_owned());
        let mut proven = self.proven.lock();
        if proven.len() >= REMEMBERED {
            proven.clear();
        }
        proven.insert(proof, identity.clone());
        Ok(Some(identity))
    }

    /// Whether `caller` may do `action` in `repository`, whose project is `project`; else the answer to give.
    pub fn authorize(
        &self,
        request: &Request,
        caller: &Caller,
        action: Action,
        repository: &RepositoryName,
        project: Option<&Project>,
    ) -> Result<(), Failure> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| {
            reach.repositories.iter().any(|s| s.repository == *repository && s.actions.contains(&action))
        });
        let public_pull = action == Action::Pull && project.is_some_and(|p| p.public);
        if allowed(&caller.identity, action, project) && (in_scope || public_pull) {
            if project.is_none() {
                let name = repository.project();
                let message = format!("project {name} does not exist; create it with POST /api/v2.0/projects");
                return Err(Failure::new(Code::NameUnknown, message));
            }
            return Ok(());
        }
        if caller.identity == Identity::Anonymous || !in_scope {
            let scope = format!("repository:{repository}:{}", scope_words(action));
            // the token is good, but for something else: another one may do (RFC 6750)
            let error = (!in_scope).then_some(("error", "insufficient_scope"));
            let parameters: Vec<_> = [("scope", scope.as_str())].into_iter().chain(error).collect();
            return Err(self.unauthorized(request, &parameters));
        }
        Err(Failure::new(Code::Denied, format!("{} may not {} here", caller.identity.name(), action.name())))
    }

    /// Whether `caller` is an administrator and may use `what` of the registry as a whole; else the answer to give. A token may only with a scope for it.
    pub fn administrator(&self, request: &Request, caller: &Caller, what: RegistryScope) -> Result<(), Failure> {
        let in_scope = caller.reach.as_ref().is_none_or(|reach| reach.registry.contains(&what));
        match (&caller.identity, caller.presented || caller.refused) {
            (Identity::Administrator(_), _) if in_scope => Ok(()),
            (Identity::Administrator(_), _) => {
                let scope = format!("registry:{}:*", what.name());
                Err(self.unauthorized(request, &[("scope", &scope), ("error", "insufficient_scope")]))
            }
            // a browser that is challenged so keeps the password for every page; beside the API there is no need to
            (_, false) if what == RegistryScope::Api => {
                Err(Failure::new(Code::Unauthorized, "credentials of an administrator are needed")
                    .header(header::WWW_AUTHENTICATE, "Basic realm=\"atoll\""))
            }
            (_, false) => {
                let scope = format!("registry:{}:*", what.name());
                Err(self.unauthorized(request, &[("scope", &scope)]))
            }
            (_, true) => Err(self.unauthorized(request, &[])),
        }
    }

    /// `/v2/` answers those only who present credentials: that is how clients find out where to get a token.
    pub fn base(&self, request: &Request, caller: &Caller) -> Result<(), Failure> {
        if caller.presented { Ok(()) } else { Err(self.unauthorized(request, &[])) }
    }

    fn unauthorized(&self, request: &Request, parameters: &[(&str, &str)]) -> Failure {
        let realm = format!("{}/service/token", self.url_of(request));
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"");
        for (name, value) in parameters {
            challenge.push_str(&format!(",{name}=\"{value}\""));
        }
        Failure::new(Code::Unauthorized, "credentials are needed, or those given are not right")
            .header(header::WWW_AUTHENTICATE, challenge)
            .closing_unless_read(request)
    }

    /// How the client reached this node: its token must come from the same place.
    fn url_of(&self, request: &Request) -> String {
        let host = request.header(&header::HOST);
        let mirror = self.mirrors.rules().by_host(host).is_some();
        let tls = match &self.public_url {
            // a mirror's host name says which registry's repositories a scope is about
            Some(url) if mirror => url.starts_with("https:"),
            Some(url) => return url.clone(),
            None => self.tls,
        };
        let host = host.unwrap_or("localhost");
        // a Host that is not one must not end up in a header
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || ".:-[]_".contains(*c)).collect();
        format!("{}://{host}", if tls { "https" } else { "http" })
    }
}

/// A node that starts or has just joined knows nobody: that is not the same as a wrong password, which clients do not try again.
fn not_yet() -> Failure {
    Failure::new(Code::Unavailable, "this node has not learnt of its mesh yet; ask again in a moment")
}

fn scope_words(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "pull,push",
        Action::Delete => "delete",
    }
}

fn decode_basic(value: &str) -> Option<(String, String)> {
    let bytes = BASE64_STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

/// The stored form of a password.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt: [u8; 16] = rand::random();
    let hash: argon2::PasswordHash =
        Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).map_err(|e| e.to_string())?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_checks_against_its_own_hash_only() {
        let hash = hash_password("secret").unwrap();
        let check = |p: &str| Argon2::default().verify_password(p.as_bytes(), hash.as_str()).is_ok();
        assert!(check("secret"));
        assert!(!check("other"));
    }

    #[test]
    fn basic_credentials_may_hold_colons() {
        let written = BASE64_STANDARD.encode("admin:a:b");
        assert_eq!(decode_basic(&written), Some(("admin".into(), "a:b".into())));
        assert_eq!(decode_basic("%%%"), None);
    }
}
