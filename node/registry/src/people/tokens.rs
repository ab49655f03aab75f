//! Tokens of the distribution project's token protocol. They are signed with a secret in the
//! ledger, so every replica can check the tokens of all others. An edge lets a replica sign. What
//! an edge signs itself (for anonymous clients, and when no replica answers) only that edge can
//! check.

use std::time::Duration;

use ground::clock;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rules::ledger::records::{Look, MeshRecord, key};
use rules::people::access::{Action, Identity, RegistryScope, Scope, allowed};
use rules::people::guesses::Origin;
use rules::proxies::mirror::Asked;
use rules::wire::{Credentials, Verdict};
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

use super::{Access, AccessError, not_yet};
use crate::view::Records;

/// The name of this registry in challenges.
pub const SERVICE: &str = "atoll";

/// How long a token is valid, in seconds.
const LIFETIME: u64 = 300;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: u64,
    iat: u64,
    access: Vec<Scope>,
    /// Scopes that are not about a repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    registry: Vec<RegistryScope>,
}

/// The scopes that a token grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenReach {
    /// In repositories.
    pub(super) repositories: Vec<Scope>,
    /// In the registry as a whole.
    pub(super) registry: Vec<RegistryScope>,
}

/// A client's request for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    repositories: Vec<Scope>,
    registry: Vec<RegistryScope>,
}

impl TokenRequest {
    /// Parses all scopes of a query or form. There may be several parameters, and several scopes in
    /// one, separated by spaces.
    pub fn read(encoded: &[u8]) -> Self {
        let mut request = TokenRequest::default();
        for (_, value) in form_urlencoded::parse(encoded).filter(|(name, _)| name == "scope") {
            for scope in value.split(' ') {
                request.repositories.extend(Scope::parse(scope));
                request.registry.extend(RegistryScope::parse(scope));
            }
        }
        request
    }
}

/// A token that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// The start of its validity, in whole seconds.
    pub at: Timestamp,
    /// How long it is valid.
    pub lasts: Duration,
}

impl Access {
    /// Issues a token for the user with these credentials, or for an anonymous client, with those
    /// scopes of `request` that they may have. `host` is the name by which the client calls this
    /// node, because clients make scopes of the names that they know.
    pub async fn issue(
        &self,
        request: TokenRequest,
        credentials: Option<(String, Secret)>,
        origin: Origin,
        host: Option<&str>,
    ) -> Result<Issued, AccessError> {
        let TokenRequest { repositories, registry } = request;
        let scopes: Vec<Scope> =
            repositories.into_iter().flat_map(|scope| self.meant(scope, host)).collect();
        let now = clock::timestamp();
        let token = match credentials {
            None => self.sign(&Identity::Anonymous, &scopes, &[], now).await?.0,
            Some((name, password)) => {
                let identity = self.check_password(&name, &password, origin).await?;
                let identity = identity.ok_or(AccessError::Wrong)?;
                // a token signed by a replica is valid everywhere; an edge signs its own only if no
                // replica answers
                let signed = match &self.records {
                    Records::Edge(edge) => edge.token(name, password, scopes.clone()).await,
                    Records::Ledger(..) => None,
                };
                match signed {
                    Some(token) => token,
                    None => self.sign(&identity, &scopes, &registry, now).await?.0,
                }
            }
        };
        Ok(Issued {
            token,
            at: Timestamp(now.0 / 1000 * 1000),
            lasts: Duration::from_secs(LIFETIME),
        })
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
        let Some(identity) = checked else { return Ok(None) };
        let (token, granted) = self.sign(&identity, scopes, &[], clock::timestamp()).await?;
        Ok(Some((token, (identity, Some(granted)))))
    }

    /// Signs a token with those of `scopes` that the identity may have. Also returns what it
    /// grants.
    async fn sign(
        &self,
        identity: &Identity,
        scopes: &[Scope],
        registry: &[RegistryScope],
        now: Timestamp,
    ) -> Result<(Secret, Vec<Scope>), AccessError> {
        let (granted, secret) = self.grant(identity, scopes).await?;
        let now = now.0 / 1000;
        let claims = Claims {
            iss: SERVICE.into(),
            aud: SERVICE.into(),
            sub: identity.name().to_owned(),
            exp: now + LIFETIME,
            iat: now,
            access: granted,
            registry: if matches!(identity, Identity::Administrator(_)) {
                registry.to_vec()
            } else {
                Vec::new()
            },
        };
        let token = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &EncodingKey::from_secret(secret.expose()),
        )
        .map_err(|e| AccessError::Internal(e.to_string()))?;
        Ok((token.into(), claims.access))
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

    /// Those of `scopes` that the identity may have, and the secret to sign them with.
    async fn grant(
        &self,
        identity: &Identity,
        scopes: &[Scope],
    ) -> Result<(Vec<Scope>, Secret<Vec<u8>>), AccessError> {
        let (granted, _) = self
            .records
            .read(|records| {
                let mut granted = Vec::new();
                for scope in scopes {
                    let project = records.project(&scope.project())?;
                    let may = |action: &Action| allowed(identity, *action, project.as_ref());
                    let actions: Vec<Action> = scope.actions.iter().copied().filter(may).collect();
                    if !actions.is_empty() {
                        granted.push(Scope { repository: scope.repository.clone(), actions });
                    }
                }
                if let Records::Edge(_) = &self.records {
                    return Ok(Some((granted, self.edge_secret.to_vec().into())));
                }
                let mesh = records.record::<MeshRecord>(&key::mesh())?;
                Ok(mesh.map(|mesh| (granted, mesh.token_secret)))
            })
            .await?;
        let (granted, kept) = granted.ok_or_else(not_yet)?;
        Ok((granted, self.token_key(&kept)?))
    }

    /// The identity and scopes of a token; `None` if it is not valid.
    pub(super) async fn check_token(
        &self,
        token: &Secret,
    ) -> Result<Option<(Identity, TokenReach)>, AccessError> {
        if let Records::Edge(edge) = &self.records {
            // It is one of this edge's own tokens; or a replica signed it, and only a replica can
            // check it; or another edge signed it, and only that edge can.
            if let Some(own) = decode(token, &self.edge_secret) {
                return Ok(Some(own));
            }
            let verdict = edge.identify(Credentials::Token(token.clone())).await?;
            // a replica reports only the repository scopes to an edge
            let reach = |scopes: Option<Vec<Scope>>| TokenReach {
                repositories: scopes.unwrap_or_default(),
                ..TokenReach::default()
            };
            return Ok(verdict.map(|(identity, scopes)| (identity, reach(scopes))));
        }
        let (mesh, _) =
            self.records.read(|records| records.record::<MeshRecord>(&key::mesh())).await?;
        let mesh = mesh.ok_or_else(not_yet)?;
        Ok(decode(token, self.token_key(&mesh.token_secret)?.expose()))
    }

    /// The secret behind what the ledger keeps. An edge signs with its own.
    fn token_key(&self, kept: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, AccessError> {
        match &self.records {
            Records::Edge(_) => Ok(kept.clone()),
            Records::Ledger(..) => {
                self.secrets.token_key(kept).map_err(|e| AccessError::Internal(e.to_string()))
            }
        }
    }
}

/// The identity and scopes of a token, if it was signed with `secret` and has not expired.
fn decode(token: &Secret, secret: &[u8]) -> Option<(Identity, TokenReach)> {
    let mut validation = Validation::new(Algorithm::HS256);
    // it is valid exactly as long as it says, without the extra minute that the library would add
    validation.leeway = 0;
    validation.set_audience(&[SERVICE]);
    validation.set_issuer(&[SERVICE]);
    let token = jsonwebtoken::decode::<Claims>(
        token.expose(),
        &DecodingKey::from_secret(secret),
        &validation,
    )
    .ok()?;
    let Claims { sub, access, registry, .. } = token.claims;
    let anonymous = sub == Identity::Anonymous.name();
    let identity = if anonymous { Identity::Anonymous } else { Identity::Administrator(sub) };
    Some((identity, TokenReach { repositories: access, registry }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_as_long_as_it_says_and_no_longer() {
        let now = clock::timestamp().0 / 1000;
        let until = |exp: u64| {
            let (iss, aud, sub) = (SERVICE.to_owned(), SERVICE.to_owned(), "admin".to_owned());
            let claims = Claims {
                iss,
                aud,
                sub,
                exp,
                iat: now - LIFETIME,
                access: Vec::new(),
                registry: Vec::new(),
            };
            let key = EncodingKey::from_secret(b"secret");
            Secret::from(
                jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap(),
            )
        };
        assert!(decode(&until(now + LIFETIME), b"secret").is_some());
        assert_eq!(decode(&until(now - 5), b"secret"), None);
        assert_eq!(decode(&until(now + LIFETIME), b"another"), None);
    }

    #[test]
    fn two_scopes_may_come_in_two_ways() {
        let two = TokenRequest::read(
            b"service=x&scope=repository%3Ademo%2Fa%3Apull&scope=repository:demo/b:push,pull",
        );
        assert_eq!(two.repositories.len(), 2);
        let reach = TokenRequest::read(
            b"scope=repository:demo/a:pull+repository:demo/b:pull+registry:catalog:*",
        );
        assert_eq!((reach.repositories.len(), reach.registry), (2, vec![RegistryScope::Catalog]));
    }
}
