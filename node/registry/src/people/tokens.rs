//! Tokens, as the distribution project's token protocol has them. They are signed with a secret of
//! the ledger, so every node checks those of every other. An edge has a replica sign them; what it
//! signs itself, for the anonymous and when no replica answers, it alone can check.

use std::time::Duration;

use ground::clock;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rules::ledger::records::{Look, MeshRecord, key};
use rules::people::access::{Action, Identity, RegistryScope, Scope, allowed};
use rules::proxies::mirror::Asked;
use rules::wire::{Credentials, Verdict};
use rules::words::moment::Timestamp;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

use super::{Access, AccessError, not_yet};
use crate::view::Records;

/// What challenges call this registry.
pub const SERVICE: &str = "atoll";

/// How long a token is good for, in seconds.
const LIFETIME: u64 = 300;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: u64,
    iat: u64,
    access: Vec<Scope>,
    /// Scopes that are about no repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    registry: Vec<RegistryScope>,
}

/// What a token is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenReach {
    /// In repositories.
    pub(super) repositories: Vec<Scope>,
    /// In the registry as a whole.
    pub(super) registry: Vec<RegistryScope>,
}

/// What a client asks a token for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    repositories: Vec<Scope>,
    registry: Vec<RegistryScope>,
}

impl TokenRequest {
    /// Every scope of a query or form: several parameters, and several in one, separated by spaces.
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

/// A token that was given out.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// Since when it is good, in whole seconds.
    pub at: Timestamp,
    /// For how long.
    pub lasts: Duration,
}

impl Access {
    /// A token for whoever has these credentials, or for the anonymous, for what of `request` they
    /// may have. `host` is what the client calls this node: clients make scopes of the names that
    /// they know.
    pub async fn issue(
        &self,
        request: TokenRequest,
        credentials: Option<(String, Secret)>,
        host: Option<&str>,
    ) -> Result<Issued, AccessError> {
        let TokenRequest { repositories, registry } = request;
        let scopes: Vec<Scope> =
            repositories.into_iter().flat_map(|scope| self.meant(scope, host)).collect();
        let now = clock::timestamp();
        let token = match credentials {
            None => self.sign(&Identity::Anonymous, &scopes, &[], now).await?.0,
            Some((name, password)) => {
                let identity =
                    self.check_password(&name, &password).await?.ok_or(AccessError::Wrong)?;
                // one that a replica signs is good everywhere; an edge's own is for when none
                // answers
                let signed = match &self.records {
                    Records::Edge(edge) => edge.token(name, password, scopes.clone()).await,
                    Records::Ledger(_) => None,
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

    /// As a replica, for an edge that asks: a token for whoever has this name and password, and
    /// what it says; `None` if nobody has.
    pub async fn token_for(
        &self,
        name: &str,
        password: &Secret,
        scopes: &[Scope],
    ) -> Result<Option<(Secret, Verdict)>, AccessError> {
        let Some(identity) = self.check_password(name, password).await? else { return Ok(None) };
        let (token, granted) = self.sign(&identity, scopes, &[], clock::timestamp()).await?;
        Ok(Some((token, (identity, Some(granted)))))
    }

    /// A token for what of `scopes` the identity may have, and what that is.
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

    /// What `scope` may be about: clients take it from the challenge, which names a repository of
    /// this mesh, or make it of the names that they know, which may be those of another registry;
    /// and who leaves `library/` out is sent on to where it is. What is granted is what the
    /// identity may have, by every name.
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

    /// What of `scopes` the identity may have, and the secret to sign that with.
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

    /// Whom a token was given to, and for what; `None` if it is not a good one.
    pub(super) async fn check_token(
        &self,
        token: &Secret,
    ) -> Result<Option<(Identity, TokenReach)>, AccessError> {
        if let Records::Edge(edge) = &self.records {
            // one of its own; or one that a replica signed, which only a replica can check, or
            // another edge, which nobody else can
            if let Some(own) = decode(token, &self.edge_secret) {
                return Ok(Some(own));
            }
            let verdict = edge.identify(Credentials::Token(token.clone())).await?;
            // a replica tells an edge of repositories only
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

    /// The key behind what the ledger keeps. An edge signs with its own.
    fn token_key(&self, kept: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, AccessError> {
        match &self.records {
            Records::Edge(_) => Ok(kept.clone()),
            Records::Ledger(_) => {
                self.secrets.token_key(kept).map_err(|e| AccessError::Internal(e.to_string()))
            }
        }
    }
}

/// Whom a token was given to, and for what, if it was signed with `secret` and is still good.
fn decode(token: &Secret, secret: &[u8]) -> Option<(Identity, TokenReach)> {
    let mut validation = Validation::new(Algorithm::HS256);
    // it is good for as long as it says, and not for the minute more that the library would give it
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
