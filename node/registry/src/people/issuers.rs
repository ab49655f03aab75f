//! Issuers of tokens that are asked for their keys (OpenID Connect Discovery 1.0).
//!
//! What they say is kept in memory. They are asked again when a token names a key that is not known,
//! at a bounded rate, and now and then. While one does not answer, its last keys count for a day
//! ([`rules::people::discovery`]).

use std::collections::HashMap;
use std::sync::Arc;

use ground::clock;
use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use rules::people::configurations::is_issuer;
use rules::people::discovery::{Asked, Owner, Places, Step, Wanted};
use rules::people::trusts::LONGEST_KEYS;
use rules::words::moment::Moment;
use rules::words::secret::Secret;
use serde_json::Value;
use tracing::warn;
use upstream::UpstreamError;
use upstream::web::Web;

use super::foreign::{Claims, readable, signed};

/// What is used of an issuer's document, and the longest value in bytes.
const USED: [&str; 5] = [
    "authorization_endpoint",
    "authorization_response_iss_parameter_supported",
    "token_endpoint",
    "token_endpoint_auth_methods_supported",
    "userinfo_endpoint",
];
const LONGEST_ENTRY: usize = 4 << 10;

/// What an issuer says of itself.
#[derive(Clone, Debug)]
pub(super) struct Discovered {
    /// Of its document, what is [`USED`].
    document: Arc<Value>,
    keys: Arc<JwkSet>,
    at: Moment,
}

impl Discovered {
    /// An address in the document, if it may be asked: with TLS, or on this machine.
    pub(super) fn endpoint(&self, name: &str) -> Option<&str> {
        self.document[name].as_str().filter(|url| is_issuer_like(url))
    }

    /// Whether the document says yes to this.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.document[name] == true
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

/// What is used of an issuer's document: many are kept, and what they write is theirs.
fn used(document: &Value) -> Value {
    let fits = |name: &&str| document[*name].to_string().len() <= LONGEST_ENTRY;
    let all = USED.into_iter().filter(fits);
    all.map(|name| (name.to_owned(), document[name].clone())).collect()
}

#[derive(Default)]
struct Slot {
    asked: Mutex<Asked>,
    known: Mutex<Option<Discovered>>,
    turn: tokio::sync::Mutex<()>,
}

impl Slot {
    fn known(&self) -> Option<Discovered> {
        self.known.lock().clone()
    }
}

/// A question that is under way, for an owner.
struct Turn<'i>(&'i Mutex<Places>, Owner);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().end(self.1);
    }
}

/// The issuers that this node has asked.
pub(super) struct Issuers {
    web: Web,
    places: Mutex<Places>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl Issuers {
    /// Asks with this client.
    pub(super) fn new(web: Web) -> Self {
        Issuers { web, places: Mutex::default(), slots: Mutex::default() }
    }

    /// The client.
    pub(super) fn web(&self) -> &Web {
        &self.web
    }

    /// What the issuer says of itself, perhaps as it said it lately. It is asked for these owners.
    pub(super) async fn discover(
        &self,
        issuer: &str,
        owners: &[Owner],
    ) -> Result<Discovered, UpstreamError> {
        self.ask(issuer, owners, Wanted::Known).await
    }

    /// Asks an issuer now, whatever it has said before, and keeps nothing of the answer.
    pub(super) async fn try_now(&self, issuer: &str) -> Result<Discovered, UpstreamError> {
        self.fetch(issuer).await
    }

    /// What a token claims, if this issuer has signed it and it has not expired.
    pub(super) async fn check(
        &self,
        issuer: &str,
        owners: &[Owner],
        token: &Secret,
    ) -> Result<Option<Claims>, UpstreamError> {
        let known = self.discover(issuer, owners).await?;
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
        let newer = self.ask(issuer, owners, Wanted::NewerThan(known.at)).await?;
        Ok(signed(&newer.keys, token).and_then(of_issuer))
    }

    fn slot(&self, issuer: &str, owners: &[Owner]) -> Arc<Slot> {
        let forgotten = self.places.lock().admit(clock::now(), issuer, owners);
        let mut slots = self.slots.lock();
        for gone in forgotten {
            slots.remove(&gone);
        }
        slots.entry(issuer.to_owned()).or_default().clone()
    }

    /// What is known, if it is what is `wanted`, or if the issuer is left alone now or does not
    /// answer. Those who need an answer wait for one question together.
    async fn ask(
        &self,
        issuer: &str,
        owners: &[Owner],
        wanted: Wanted,
    ) -> Result<Discovered, UpstreamError> {
        let slot = self.slot(issuer, owners);
        let step = || slot.asked.lock().step(clock::now(), wanted);
        let left_alone = || {
            UpstreamError::unreachable(format!("{issuer} did not answer as it should a moment ago"))
        };
        let used = |step| match step {
            Step::Use => slot.known(),
            Step::Ask | Step::Refuse => None,
        };
        let first = step();
        if let Some(known) = used(first) {
            return Ok(known);
        }
        if first == Step::Refuse {
            return Err(left_alone());
        }
        // what is only due keeps nobody waiting for a question that another one asks
        let _turn = match (slot.turn.try_lock(), wanted, self.kept(&slot)) {
            (Ok(turn), ..) => turn,
            (Err(_), Wanted::Known, Some(kept)) => return Ok(kept),
            (Err(_), ..) => slot.turn.lock().await,
        };
        let second = step();
        if let Some(known) = used(second) {
            return Ok(known);
        }
        if second == Step::Refuse {
            return Err(left_alone());
        }
        let begun = self.places.lock().begin(owners);
        let asked = match begun {
            Some(owner) => {
                let _under_way = Turn(&self.places, owner);
                slot.asked.lock().begin(clock::now(), wanted);
                let fetched = self.fetch(issuer).await;
                match &fetched {
                    Ok(found) => {
                        *slot.known.lock() = Some(found.clone());
                        slot.asked.lock().handle_answer(found.at);
                    }
                    Err(_) => slot.asked.lock().handle_failure(clock::now()),
                }
                fetched
            }
            None => Err(UpstreamError::unreachable("too many issuers are being asked")),
        };
        match (asked, self.kept(&slot)) {
            (Ok(found), _) => Ok(found),
            (Err(error), Some(kept)) => {
                warn!(issuer, %error, "an issuer's keys cannot be asked for; the last ones count");
                Ok(kept)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What is known, if it counts while the issuer does not answer.
    fn kept(&self, slot: &Slot) -> Option<Discovered> {
        let counts = slot.asked.lock().counts(clock::now());
        slot.known().filter(|_| counts)
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
        let keys = self.web.get(place, None).await?;
        if keys.to_string().len() > LONGEST_KEYS {
            return Err(UpstreamError::bad(format!(
                "its keys have more than {LONGEST_KEYS} bytes"
            )));
        }
        let keys = readable(&keys);
        if keys.keys.is_empty() {
            return Err(UpstreamError::bad("it has no key that is used"));
        }
        Ok(Discovered {
            document: Arc::new(used(&document)),
            keys: Arc::new(keys),
            at: clock::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
