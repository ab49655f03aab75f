//! Tokens that others have signed (JWT, RFC 7519), and the keys of those others: given with a rule, or
//! discovered at the issuer (OpenID Connect Discovery 1.0).
//!
//! Discovered keys are kept in memory. They are asked for again when a token names one that is not
//! among them, at a bounded rate, and now and then. While the issuer does not answer, the last ones
//! count.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use rules::people::configurations::is_issuer;
use rules::people::trusts::{LONGEST_KEYS, LONGEST_TOKEN};
use rules::words::moment::Moment;
use rules::words::secret::Secret;
use serde_json::Value;
use tracing::warn;
use upstream::UpstreamError;
use upstream::web::Web;

/// What a token claims.
pub(super) type Claims = BTreeMap<String, Value>;

/// How much the issuer's clock may differ, in seconds.
const LEEWAY: u64 = 60;
/// The smallest RSA key that is accepted, in bytes.
const LEAST_RSA: usize = 256;
/// How long discovered keys are used before the issuer is asked again.
const FRESH: Duration = Duration::from_secs(3600);
/// The time between two questions to one issuer: tokens with made-up keys must not flood it.
const PAUSE: Duration = Duration::from_secs(10);
/// The maximum number of issuers that are remembered.
const ISSUERS: usize = 200;

/// The issuer that a token names, and all that it claims, before anything of it was checked.
pub(super) fn unchecked(token: &Secret) -> Option<(String, Claims)> {
    if token.expose().len() > LONGEST_TOKEN {
        return None;
    }
    let read = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token.expose().as_bytes());
    let claims = read.ok()?;
    let issuer = claims.get("iss")?.as_str()?.to_owned();
    Some((issuer, claims))
}

/// What a token claims, if one of these keys has signed it and it has not expired. The algorithm is
/// the key's, and never a secret's: a public key is no secret.
pub(super) fn signed(keys: &JwkSet, token: &Secret) -> Option<Claims> {
    let header = jsonwebtoken::decode_header(token.expose().as_bytes()).ok()?;
    let named = |jwk: &&Jwk| match (&header.kid, &jwk.common.key_id) {
        (Some(wanted), Some(has)) => wanted == has,
        _ => true,
    };
    let fits = |jwk: &&Jwk| algorithms(jwk).contains(&header.alg);
    keys.keys.iter().filter(named).filter(fits).find_map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // the audience is the caller's matter
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let read = jsonwebtoken::decode::<Claims>(token.expose().as_bytes(), &key, &validation);
        Some(read.ok()?.claims)
    })
}

/// What a key may have signed with. Keys that are secrets, or too small, have signed nothing.
fn algorithms(jwk: &Jwk) -> Vec<Algorithm> {
    let all = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.len() * 3 / 4 < LEAST_RSA => vec![],
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => vec![],
        },
        AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => vec![],
        },
        _ => vec![],
    };
    // a key that says what it is for has signed with nothing else
    match jwk.common.key_algorithm {
        Some(only) => {
            all.into_iter().filter(|one| format!("{one:?}") == only.to_string()).collect()
        }
        None => all,
    }
}

/// Checks an issuer's keys, a JWK Set. The error is a sentence.
pub fn check_keys(keys: &str) -> Result<(), String> {
    if keys.len() > LONGEST_KEYS {
        return Err(format!("keys have at most {LONGEST_KEYS} bytes"));
    }
    let set: JwkSet =
        serde_json::from_str(keys).map_err(|e| format!("keys are no JWK Set: {e}"))?;
    if !set.keys.iter().any(is_usable) {
        return Err(
            "keys hold no public key that is used: RSA with 2048 bits or more, P-256, P-384 or Ed25519"
                .into(),
        );
    }
    Ok(())
}

fn is_usable(jwk: &Jwk) -> bool {
    !algorithms(jwk).is_empty() && DecodingKey::from_jwk(jwk).is_ok()
}

/// A JWK Set without the keys that this build does not know: others must not hide those that it does.
fn readable(set: &Value) -> JwkSet {
    let all = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |one: &Value| serde_json::from_value::<Jwk>(one.clone()).ok();
    JwkSet { keys: all.iter().filter_map(read).filter(is_usable).collect() }
}

/// What an issuer says of itself.
#[derive(Clone, Debug)]
pub(super) struct Discovered {
    /// Its document.
    document: Arc<Value>,
    keys: Arc<JwkSet>,
    at: Moment,
}

impl Discovered {
    /// An address in the document, if it may be asked: with TLS, or on this machine.
    pub(super) fn endpoint(&self, name: &str) -> Option<&str> {
        self.document[name].as_str().filter(|url| is_issuer_like(url))
    }

    /// Whether a list in the document has this; `None` if there is no such list.
    pub(super) fn lists(&self, name: &str, word: &str) -> Option<bool> {
        Some(self.document[name].as_array()?.iter().any(|one| one == word))
    }
}

/// An address of an issuer may have a query, its name may not.
fn is_issuer_like(url: &str) -> bool {
    is_issuer(url.split('?').next().unwrap_or_default())
}

#[derive(Default)]
struct Slot {
    known: Mutex<Option<Discovered>>,
    tried: Mutex<Option<Moment>>,
    turn: tokio::sync::Mutex<()>,
}

/// The issuers that this node has asked.
pub(super) struct Issuers {
    web: Web,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl Issuers {
    /// Asks with this client.
    pub(super) fn new(web: Web) -> Self {
        Issuers { web, slots: Mutex::default() }
    }

    /// The client.
    pub(super) fn web(&self) -> &Web {
        &self.web
    }

    /// What the issuer says of itself, perhaps as it said it lately.
    pub(super) async fn discover(&self, issuer: &str) -> Result<Discovered, UpstreamError> {
        self.ask(issuer, FRESH).await
    }

    /// What a token claims, if this issuer has signed it and it has not expired.
    pub(super) async fn check(
        &self,
        issuer: &str,
        token: &Secret,
    ) -> Result<Option<Claims>, UpstreamError> {
        let known = self.discover(issuer).await?;
        let of_issuer = |claims: Claims| {
            (claims.get("iss").and_then(Value::as_str) == Some(issuer)).then_some(claims)
        };
        if let Some(claims) = signed(&known.keys, token) {
            return Ok(of_issuer(claims));
        }
        let header = jsonwebtoken::decode_header(token.expose().as_bytes());
        let Ok(Some(kid)) = header.map(|header| header.kid) else { return Ok(None) };
        let has = |known: &Discovered| {
            known.keys.keys.iter().any(|jwk| jwk.common.key_id.as_deref() == Some(kid.as_str()))
        };
        if has(&known) {
            return Ok(None);
        }
        // the issuer may have another key by now
        let newer = self.ask(issuer, Duration::ZERO).await?;
        Ok(signed(&newer.keys, token).and_then(of_issuer))
    }

    fn slot(&self, issuer: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= ISSUERS && !slots.contains_key(issuer) {
            slots.clear();
        }
        slots.entry(issuer.to_owned()).or_default().clone()
    }

    /// What is known, if it is younger than `fresh`, or if the issuer was asked a moment ago or does
    /// not answer. Those who ask at once wait for one question.
    async fn ask(&self, issuer: &str, fresh: Duration) -> Result<Discovered, UpstreamError> {
        let slot = self.slot(issuer);
        let known = |fresh: Duration| {
            let known = slot.known.lock().clone();
            known.filter(|one| clock::now().since(one.at) < fresh)
        };
        if let Some(known) = known(fresh) {
            return Ok(known);
        }
        let _turn = slot.turn.lock().await;
        let tried = *slot.tried.lock();
        let lately = tried.is_some_and(|tried| clock::now().since(tried) < PAUSE);
        let kept = slot.known.lock().clone();
        if let Some(known) = known(fresh).or_else(|| kept.clone().filter(|_| lately)) {
            return Ok(known);
        }
        if lately {
            return Err(UpstreamError::unreachable(format!(
                "{issuer} did not answer as it should a moment ago"
            )));
        }
        let fetched = self.fetch(issuer).await;
        // an answer that was due keeps nobody from asking for a key that came after it
        if fresh.is_zero() || fetched.is_err() {
            *slot.tried.lock() = Some(clock::now());
        }
        match (fetched, kept) {
            (Ok(found), _) => {
                *slot.known.lock() = Some(found.clone());
                Ok(found)
            }
            (Err(error), Some(kept)) => {
                warn!(issuer, %error, "an issuer's keys cannot be asked for; the last ones count");
                Ok(kept)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn fetch(&self, issuer: &str) -> Result<Discovered, UpstreamError> {
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.web.get(&place, None).await?;
        // another issuer's document would make its tokens this one's
        if document["issuer"] != issuer {
            return Err(UpstreamError::bad(format!(
                "the document at {issuer} is about another issuer; write it as the document does"
            )));
        }
        let place = document["jwks_uri"].as_str().filter(|url| is_issuer_like(url));
        let place = place.ok_or_else(|| UpstreamError::bad("it names no place of its keys"))?;
        let keys = readable(&self.web.get(place, None).await?);
        if keys.keys.is_empty() {
            return Err(UpstreamError::bad("it has no key that is used"));
        }
        let at = clock::now();
        Ok(Discovered { document: Arc::new(document), keys: Arc::new(keys), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_is_not_known_hides_no_other() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let set = json!({"keys": [{"kty": "LMS", "pub": "x"}, good, {"kty": "oct", "k": "AAAA"}]});
        assert_eq!(readable(&set).keys.len(), 1);
        assert!(readable(&json!({"keys": 7})).keys.is_empty());
    }

    #[test]
    fn an_endpoint_without_tls_is_on_this_machine_only() {
        let document = json!({"a": "https://idp.example/token?tenant=1", "b": "http://idp.example",
            "c": "http://127.0.0.1:9/x", "d": 7});
        let keys = Arc::new(JwkSet { keys: vec![] });
        let found = Discovered { document: Arc::new(document), keys, at: clock::now() };
        assert_eq!(
            ["a", "b", "c", "d"].map(|name| found.endpoint(name).is_some()),
            [true, false, true, false]
        );
    }
}
