//! Tokens of the distribution project's token protocol. Replicas sign them with the mesh's keys, so
//! every node can check them without asking. An edge lets a replica sign. What an edge signs itself
//! (for anonymous clients, and when no replica answers) only that edge can check.

use std::time::Duration;

use ground::clock;
use mesh::secrets::SecretError;
use rules::ledger::people::{LookForPeople, TokenKey};
use rules::ledger::records::{Look, MeshRecord, ReadRecords, RecordError, key};
use rules::people::access::{Identity, Principal, RegistryScope, Scope, allowed};
use rules::people::guesses::Origin;
use rules::people::passes::{SCANNER, ScanPass};
use rules::people::trusts::WORKLOAD;
use rules::proxies::mirror::Asked;
use rules::wire::{Credentials, Verdict};
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;
use rules::words::secret::Secret;

use super::credentials::{Shown, is_forgotten};
use super::signing::{Claims, Purpose};
use super::{Access, AccessError, CATALOG, OUTDATED, found, not_yet};
use crate::view::{EdgeRecords, Freshness, ReadError, Records};

/// The scopes that a token grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenReach {
    /// In repositories.
    pub(super) repositories: Vec<Scope>,
    /// In the registry as a whole.
    pub(super) registry: Vec<RegistryScope>,
}

/// What a right token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Who that is now.
    pub(super) identity: Identity,
    /// What it is for; `None` for an ID token, which allows what a password does.
    pub(super) reach: Option<TokenReach>,
    /// Whom it names, if it names an account or a robot.
    pub(super) who: Option<Principal>,
    /// That it is a scanner's, and for which scan.
    pub(super) pass: Option<ScanPass>,
}

/// A client's request for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    repositories: Vec<Scope>,
    registry: Vec<RegistryScope>,
    /// Whether a refresh token is wanted, too.
    offline: bool,
}

/// What a client shows for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenProof {
    /// Nothing: for an anonymous client.
    Nothing,
    /// A name and a password.
    Password(String, Secret),
    /// A refresh token.
    Refresh(Secret),
}

impl TokenRequest {
    /// Parses all scopes of a query or form. There may be several parameters, and several scopes in
    /// one, separated by spaces. Fails if there are too many of them: each is looked up.
    pub fn read(encoded: &[u8]) -> Result<Self, TooManyScopes> {
        let (mut request, mut scopes) = (TokenRequest::default(), 0);
        for (name, value) in form_urlencoded::parse(encoded) {
            match name.as_ref() {
                "scope" => {
                    for scope in value.split(' ') {
                        scopes += 1;
                        if scopes > SCOPES {
                            return Err(TooManyScopes);
                        }
                        request.repositories.extend(Scope::parse(scope));
                        request.registry.extend(RegistryScope::parse(scope));
                    }
                }
                // GET says the one, the form of OAuth2 the other
                "offline_token" => request.offline |= value == "true",
                "access_type" => request.offline |= value == "offline",
                _ => {}
            }
        }
        Ok(request)
    }
}

/// The maximum number of scopes in one request for a token. Clients that mount blobs ask for a few.
const SCOPES: usize = 256;

/// A request for a token has too many scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has at most {SCOPES} scopes")]
pub struct TooManyScopes;

/// A token that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// A token that gets others, if one was asked for and this node can give one.
    pub refresh: Option<Secret>,
    /// The start of its validity, in whole seconds.
    pub at: Timestamp,
    /// How long it is valid.
    pub lasts: Duration,
}

/// What is read of the ledger to sign a token.
struct Granting {
    repositories: Vec<Scope>,
    keys: Vec<TokenKey>,
    shared: Option<Secret<Vec<u8>>>,
    people_version: u64,
}

impl Access {
    /// The pass with which a scanner may read one image, for at most `lasts`. It ends with the scan.
    pub async fn scan_pass(&self, pass: ScanPass, lasts: Duration) -> Result<Secret, AccessError> {
        let mut claims = Claims::new(Purpose::Access, SCANNER, clock::timestamp(), lasts);
        claims.access = vec![pass.scope()];
        claims.scan = Some(pass);
        self.sign_alone(&claims).await
    }

    /// What a scanner gets for its pass: the same again, because that is a token already.
    async fn shown_again(&self, pass: &Secret) -> Result<Issued, AccessError> {
        if self.check_token(pass).await?.is_none_or(|checked| checked.pass.is_none()) {
            return Err(AccessError::Wrong);
        }
        let claims = self.read_token(pass, Purpose::Access, self.terms.token_lifetime).await?;
        let now = clock::timestamp();
        let lasts = claims.ok_or(AccessError::Wrong)?.left(now);
        Ok(Issued { token: pass.clone(), refresh: None, at: Timestamp(now.0 / 1000 * 1000), lasts })
    }

    /// Whoever shows a pass, if its scan runs.
    async fn check_pass(&self, pass: ScanPass) -> Result<Option<Checked>, AccessError> {
        let identity = found(self.records.read(|records| pass.identity(records)).await?)?;
        Ok(identity.map(|identity| {
            let repositories = vec![pass.scope()];
            let reach = Some(TokenReach { repositories, registry: Vec::new() });
            Checked { identity, reach, who: None, pass: Some(pass) }
        }))
    }

    /// Issues a token for whoever has shown this, or for an anonymous client, with those scopes of
    /// `request` that they may have. `host` is the name by which the client calls this node,
    /// because clients make scopes of the names that they know.
    pub async fn issue(
        &self,
        request: TokenRequest,
        proof: TokenProof,
        origin: Origin,
        host: Option<&str>,
    ) -> Result<Issued, AccessError> {
        if let TokenProof::Password(name, pass) = &proof
            && name == SCANNER
        {
            return self.shown_again(pass).await;
        }
        let TokenRequest { repositories, registry, offline } = request;
        let scopes: Vec<Scope> =
            repositories.into_iter().flat_map(|scope| self.meant(scope, host)).collect();
        let at = Timestamp(clock::timestamp().0 / 1000 * 1000);
        let lasts = self.terms.token_lifetime;
        let issued = |token, refresh| Issued { token, refresh, at, lasts };
        // what outlives the issuer's token would be good without the issuer
        let by_issuer = matches!(&proof, TokenProof::Password(name, _) if name == WORKLOAD);
        let (identity, shown) = match &proof {
            TokenProof::Nothing => (Identity::Anonymous, None),
            TokenProof::Password(name, password) => {
                let checked = self.check_password(name, password, origin).await?;
                checked.ok_or(AccessError::Wrong)?
            }
            TokenProof::Refresh(token) => {
                let checked = self.check_refresh(token).await?;
                checked.ok_or(AccessError::Wrong)?
            }
        };
        // a token signed by a replica is valid everywhere; an edge signs its own only if no replica
        // answers
        if let (Records::Edge(edge), TokenProof::Password(name, password)) = (&self.records, proof)
            && let Some(token) = edge.token(name, password, scopes.clone()).await
        {
            return Ok(issued(token, None));
        }
        let refresh = match (&shown, &self.records) {
            (Some(shown), Records::Ledger(..)) if offline && !by_issuer => {
                Some((shown, identity.name()))
            }
            _ => None,
        };
        let (token, _, granting) = self.sign(&identity, shown.as_ref(), &scopes, &registry).await?;
        let refresh = match refresh {
            Some((Shown::Principal(who), name)) => {
                let lasts = self.terms.refresh_lifetime;
                let mut claims = Claims::new(Purpose::Refresh, name, clock::timestamp(), lasts);
                claims.who = Some(*who);
                Some(self.sign_claims(&claims, &granting)?)
            }
            _ => None,
        };
        Ok(issued(token, refresh))
    }

    /// Issues a token for the user with this name and password, on behalf of an edge. Returns the
    /// token and what it grants; `None` if the name or the password is wrong.
    pub async fn token_for(
        &self,
        from: NodeId,
        name: &str,
        password: &Secret,
        scopes: &[Scope],
    ) -> Result<Option<(Secret, Verdict)>, AccessError> {
        let checked = self.check_password(name, password, Origin::Edge(from)).await?;
        let Some((identity, shown)) = checked else { return Ok(None) };
        let (token, granted, _) = self.sign(&identity, shown.as_ref(), scopes, &[]).await?;
        Ok(Some((token, (identity, Some(granted)))))
    }

    /// Signs a token with those of `scopes` that the identity may have. Also returns what it
    /// grants.
    async fn sign(
        &self,
        identity: &Identity,
        shown: Option<&Shown>,
        scopes: &[Scope],
        registry: &[RegistryScope],
    ) -> Result<(Secret, Vec<Scope>, Granting), AccessError> {
        let (granting, freshness) =
            self.records.read(|records| self.grant(records, identity, scopes)).await?;
        // with a token for less a client gives up
        let lacks = granting.repositories.len() < scopes.len();
        if lacks && freshness == Freshness::Stale && *identity != Identity::Anonymous {
            return Err(AccessError::Unchecked(OUTDATED.into()));
        }
        let may = |scope: &RegistryScope| match scope {
            RegistryScope::Catalog => identity.may_in_system(CATALOG),
            RegistryScope::Api => *identity != Identity::Anonymous,
        };
        let (now, lasts) = (clock::timestamp(), self.terms.token_lifetime);
        let mut claims = Claims::new(Purpose::Access, identity.name(), now, lasts);
        claims.access = granting.repositories.clone();
        claims.registry = registry.iter().copied().filter(may).collect();
        match (&self.records, shown) {
            (Records::Ledger(..), Some(Shown::Principal(who))) => claims.who = Some(*who),
            (Records::Ledger(..), _) => {}
            (Records::Edge(_), _) if *identity == Identity::Anonymous => {}
            (Records::Edge(_), _) => {
                claims.told = Some((identity.clone(), granting.people_version));
            }
        }
        let token = self.sign_claims(&claims, &granting)?;
        Ok((token, claims.access, granting))
    }

    /// Signs something for no scopes.
    pub(super) async fn sign_alone(&self, claims: &Claims) -> Result<Secret, AccessError> {
        let nobody = Identity::Anonymous;
        let read = self.records.read(|records| self.grant(records, &nobody, &[])).await?;
        self.sign_claims(claims, &read.0)
    }

    fn sign_claims(&self, claims: &Claims, granting: &Granting) -> Result<Secret, AccessError> {
        match (&self.records, &granting.shared) {
            (Records::Edge(_), _) => self.signing.at_edge(claims).map_err(AccessError::Internal),
            (Records::Ledger(..), Some(shared)) => {
                let signed = self.signing.in_mesh(claims, &granting.keys, shared, &self.secrets);
                signed.map_err(AccessError::from)
            }
            (Records::Ledger(..), None) => Err(not_yet()),
        }
    }

    /// The scopes that `scope` may stand for. A client takes its scope from the challenge, which
    /// names a repository of this mesh, or makes it of names that it knows, which may be those of
    /// another registry. A client that leaves `library/` out is redirected. The scope is granted
    /// under every name, as far as the identity may have it.
    fn meant(&self, scope: Scope, host: Option<&str>) -> Vec<Scope> {
        let asked = Asked { host, written: scope.repository.as_str(), ..Asked::default() };
        let mut names = vec![scope.repository.clone()];
        names.extend(
            self.mirrors.meant(&asked).ok().filter(|repository| *repository != scope.repository),
        );
        let elsewhere: Vec<_> =
            names.iter().filter_map(|repository| self.mirrors.in_library(repository)).collect();
        names.extend(elsewhere);
        names
            .into_iter()
            .map(|repository| Scope { repository, actions: scope.actions.clone() })
            .collect()
    }

    /// Those of `scopes` that the identity may have, and what to sign them with.
    fn grant(
        &self,
        records: &dyn ReadRecords,
        identity: &Identity,
        scopes: &[Scope],
    ) -> Result<Granting, RecordError> {
        let mut repositories = Vec::new();
        for scope in scopes {
            let project = records.project(&scope.project())?;
            let mut actions = Vec::new();
            for action in &scope.actions {
                if allowed(records, identity, *action, project.as_ref())? {
                    actions.push(*action);
                }
            }
            if !actions.is_empty() {
                repositories.push(Scope { repository: scope.repository.clone(), actions });
            }
        }
        // an edge may not read the mesh's own record, and does not sign for the mesh
        if let Records::Edge(edge) = &self.records {
            let people_version = edge.people_version();
            return Ok(Granting { repositories, keys: Vec::new(), shared: None, people_version });
        }
        let keys = records.token_keys()?;
        let shared = records.record::<MeshRecord>(&key::mesh())?.map(|mesh| mesh.token_secret);
        Ok(Granting { repositories, keys, shared, people_version: 0 })
    }

    /// The identity and scopes of a token; `None` if it is not valid. An ID token of the OIDC
    /// provider has no scopes: it allows what a password does.
    pub(super) async fn check_token(&self, token: &Secret) -> Result<Option<Checked>, AccessError> {
        if let Records::Edge(edge) = &self.records {
            return self.check_token_at_edge(edge, token).await;
        }
        let claims = self.read_token(token, Purpose::Access, self.terms.token_lifetime).await?;
        let Some(claims) = claims else {
            let checked = self.check_id_token(token).await?;
            let of_user =
                |(identity, who)| Checked { identity, reach: None, who: Some(who), pass: None };
            return Ok(checked.map(of_user));
        };
        if let Some(pass) = claims.scan.clone() {
            return self.check_pass(pass).await;
        }
        let identity = self.identity_of(&claims).await?;
        Ok(identity.map(|identity| checked(identity, claims)))
    }

    /// Whose refresh token this is; `None` if it is not valid. An edge issues none, and takes none.
    async fn check_refresh(
        &self,
        token: &Secret,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        if let Records::Edge(_) = &self.records {
            let reason = "an edge takes no refresh tokens; use the password, or ask a replica";
            return Err(AccessError::Denied(reason.into()));
        }
        let claims = self.read_token(token, Purpose::Refresh, self.terms.refresh_lifetime).await?;
        let Some(Claims { who: Some(who), .. }) = claims else { return Ok(None) };
        if let Principal::User { id, .. } = who
            && self.records.read(|records| is_forgotten(records, id)).await?.0
        {
            return Ok(None);
        }
        if let Principal::User { id, .. } = who
            && !(self.is_still_in_directory(id).await? && self.is_still_vouched_for(id).await?)
        {
            return Ok(None);
        }
        let shown = Shown::Principal(who);
        let prefix = &self.terms.robot_prefix;
        let identity = found(self.records.read(|records| shown.identity(records, prefix)).await?)?;
        Ok(identity.map(|identity| (identity, Some(shown))))
    }

    /// What a token of the mesh says; `None` if it is not valid.
    pub(super) async fn read_token(
        &self,
        token: &Secret,
        purpose: Purpose,
        most: Duration,
    ) -> Result<Option<Claims>, AccessError> {
        let read = self.records.read(|records| {
            let shared = records.record::<MeshRecord>(&key::mesh())?.map(|mesh| mesh.token_secret);
            Ok((shared, records.token_keys()?))
        });
        let ((shared, keys), _) = read.await?;
        let shared = shared.ok_or_else(not_yet)?;
        let shared = match self.secrets.token_key(&shared) {
            Ok(shared) => Some(shared),
            // tokens of today do not need it
            Err(SecretError::NotHere(_)) if !keys.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(self.signing.read_in_mesh(token, purpose, &keys, shared.as_ref(), most))
    }

    /// Who a valid token is about, now.
    pub(super) async fn identity_of(
        &self,
        claims: &Claims,
    ) -> Result<Option<Identity>, AccessError> {
        let shown = match claims.who {
            Some(who) => Shown::Principal(who),
            None if claims.sub == Identity::Anonymous.name() => {
                return Ok(Some(Identity::Anonymous));
            }
            None => Shown::Named(claims.sub.clone()),
        };
        let prefix = &self.terms.robot_prefix;
        found(self.records.read(|records| shown.identity(records, prefix)).await?)
    }

    /// An edge checks its own tokens and those of the mesh's keys by itself. Only a replica can
    /// check one that was signed before there were keys, or with a key that this edge has not heard
    /// of; and only another edge its own.
    async fn check_token_at_edge(
        &self,
        edge: &EdgeRecords,
        token: &Secret,
    ) -> Result<Option<Checked>, AccessError> {
        if let Some(claims) = self.signing.read_at_edge(token) {
            let Some((identity, version)) = claims.told.clone() else {
                return Ok(Some(checked(Identity::Anonymous, claims)));
            };
            // what a replica said of them may have changed
            return Ok(edge.believes(version).then(|| checked(identity, claims)));
        }
        // those that it has: a replica of an earlier build would refuse the question
        let keys = self.records.view().and_then(|view| view.token_keys());
        let keys = keys.map_err(ReadError::from)?;
        let most = self.terms.token_lifetime;
        let claims = self.signing.read_in_mesh(token, Purpose::Access, &keys, None, most);
        // scanners pull from replicas, which know whether the scan still runs
        if claims.as_ref().is_some_and(|claims| claims.scan.is_some()) {
            return Ok(None);
        }
        let known =
            |claims: &Claims| claims.who.is_some() || claims.sub == Identity::Anonymous.name();
        if let Some(claims) = claims.filter(known) {
            let identity = self.identity_of(&claims).await?;
            return Ok(identity.map(|identity| checked(identity, claims)));
        }
        let verdict = edge.identify(Credentials::Token(token.clone())).await?;
        // a replica reports only the repository scopes to an edge, and none of an ID token
        let reach = |scopes: Option<Vec<Scope>>| {
            scopes.map(|repositories| TokenReach { repositories, ..TokenReach::default() })
        };
        let told =
            |(identity, scopes)| Checked { identity, reach: reach(scopes), who: None, pass: None };
        Ok(verdict.map(told))
    }
}

fn checked(identity: Identity, claims: Claims) -> Checked {
    let reach = TokenReach { repositories: claims.access, registry: claims.registry };
    Checked { identity, reach: Some(reach), who: claims.who, pass: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_scopes_may_come_in_two_ways() {
        let two = TokenRequest::read(
            b"service=x&scope=repository%3Ademo%2Fa%3Apull&scope=repository:demo/b:push,pull",
        )
        .unwrap();
        assert_eq!(two.repositories.len(), 2);
        let reach = TokenRequest::read(
            b"scope=repository:demo/a:pull+repository:demo/b:pull+registry:catalog:*",
        )
        .unwrap();
        assert_eq!((reach.repositories.len(), reach.registry), (2, vec![RegistryScope::Catalog]));
    }

    #[test]
    fn scopes_are_counted_before_they_are_looked_up() {
        let scopes = |n: usize| "scope=repository:demo/a:pull&".repeat(n);
        assert!(TokenRequest::read(scopes(SCOPES).as_bytes()).is_ok());
        assert_eq!(TokenRequest::read(scopes(SCOPES + 1).as_bytes()), Err(TooManyScopes));
        let in_one = format!("scope={}", "repository:demo/a:pull+".repeat(SCOPES + 1));
        assert_eq!(TokenRequest::read(in_one.as_bytes()), Err(TooManyScopes));
    }
}
