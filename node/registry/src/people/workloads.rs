//! Tokens of other issuers, by which a workload shows who it is: a CI job, or a service account of a
//! cluster. A trust rule says which of them are accepted, and as which robot.

use std::time::Duration;

use ground::clock;
use jsonwebtoken::jwk::JwkSet;
use rules::ledger::level::Level;
use rules::ledger::people::{LookForPeople, TrustRule};
use rules::ledger::records::{Look, ReadRecords, RecordError, key};
use rules::people::access::{Identity, Principal};
use rules::people::discovery::{Owner, may_be_asked};
use rules::people::trusts::matches;
use rules::proxies::budget::BudgetTerms;
use rules::words::secret::Secret;
use serde_json::Value;
use tracing::{info, warn};
use upstream::UpstreamError;

use super::credentials::Shown;
use super::foreign::{Claims, signed, unchecked};
use super::{Access, AccessError, not_yet};

/// Why an issuer is not asked.
const NOT_ASKED: &str =
    "this registry asks no such issuer: people.issuers names those that it does";

/// How many issuers may be named for each project, one after the other, before they answer to a
/// rule: else whoever writes rules could have a node ask without end.
pub(super) const NAMED: BudgetTerms = BudgetTerms { burst: 20, per_minute: 6 };

/// How many refused tokens are told of in the log.
pub(super) const REFUSED_LINES: BudgetTerms = BudgetTerms { burst: 20, per_minute: 20 };
/// How much of a claim is quoted there, in characters.
const QUOTED: usize = 200;

/// Why a workload's token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NotAccepted {
    #[error("no trust rule names its issuer")]
    Issuer,
    #[error("no trust rule of its issuer means its audience, subject and other claims")]
    Claims,
    #[error("its issuer's keys did not sign it, or it has expired")]
    Signature,
    #[error("the robot of the rule that means it is disabled, has expired or is gone")]
    Robot,
}

/// Why an issuer was not found to be one that answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTried {
    /// It is not. A sentence for the caller.
    #[error("{0}")]
    Issuer(String),
    /// Too many were named for this project. It may be tried again after this time.
    #[error("too many issuers were named for this project; try again in {} s", .0.as_secs() + 1)]
    TooMany(Duration),
}

impl Access {
    /// The robot that the owner of this token is; `None` if no rule accepts it. The rules are those
    /// of this moment, and so is the robot.
    ///
    /// A rule whose issuer has to be asked, and does not answer, accepts nothing. If no other rule
    /// does, the token is not wrong: the client may try again.
    pub(super) async fn check_workload(
        &self,
        token: &Secret,
    ) -> Result<Option<(Identity, Option<Shown>)>, AccessError> {
        let Some((issuer, claims)) = unchecked(token) else { return Ok(None) };
        let look = |records: &dyn ReadRecords| {
            // what no rule means costs no signature and no question
            let mut rules = records.trusts_in(&issuer)?;
            let trusted = !rules.is_empty();
            rules.retain(|rule| matches(&rule.terms, &claims));
            let owners = self.owners(records, &rules)?;
            Ok((records.get(&key::mesh())?.is_some(), trusted, rules, owners))
        };
        let ((mesh_known, trusted, rules, owners), _) =
            self.records.read(|records| look(records)).await?;
        if !mesh_known {
            return Err(not_yet());
        }
        let mut refused = match (trusted, rules.is_empty()) {
            (false, _) => NotAccepted::Issuer,
            (true, true) => NotAccepted::Claims,
            (true, false) => NotAccepted::Signature,
        };
        let mut discovered: Option<Result<Option<Claims>, AccessError>> = None;
        for rule in &rules {
            let accepted = match (rule.keys.is_empty(), &discovered) {
                (false, _) => accepts(rule, token),
                (true, _) if owners.is_empty() => false,
                (true, Some(said)) => means(rule, said),
                (true, None) => {
                    let said = self.ask_issuer(&issuer, &owners, token).await;
                    let means = means(rule, &said);
                    discovered = Some(said);
                    means
                }
            };
            if accepted {
                let (found, _) = self.records.read(|records| self.robot(records, rule)).await?;
                if found.is_some() {
                    return Ok(found);
                }
                refused = NotAccepted::Robot;
            }
        }
        if let Some(Err(error)) = discovered {
            return Err(error);
        }
        self.note_refused(&issuer, &claims, refused);
        metrics::counter!("atoll_logins_refused_total").increment(1);
        Ok(None)
    }

    /// Tells the operator why a token was not accepted. Its owner is told no more than that it is
    /// wrong. Anybody may send tokens, so lines are few, and what they quote is short.
    fn note_refused(&self, issuer: &str, claims: &Claims, why: NotAccepted) {
        if self.refused_lines.lock().take(clock::now(), &()).is_err() {
            return;
        }
        let quoted = |text: &str| text.chars().take(QUOTED).collect::<String>();
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let (issuer, subject) = (quoted(issuer), quoted(subject));
        info!(?issuer, ?subject, "a workload's token is refused: {why}");
    }

    /// For whom the issuer of these rules has to be asked: those whose robots may do anything now.
    fn owners(
        &self,
        records: &dyn ReadRecords,
        rules: &[TrustRule],
    ) -> Result<Vec<Owner>, RecordError> {
        let mut owners = Vec::new();
        // below that level other replicas would refuse what this one accepts
        if records.level()? < Level::DISCOVERY {
            return Ok(owners);
        }
        for rule in rules.iter().filter(|rule| rule.keys.is_empty()) {
            if self.robot(records, rule)?.is_some() {
                owners.push(owner(records, rule)?);
            }
        }
        owners.sort();
        owners.dedup();
        Ok(owners)
    }

    async fn ask_issuer(
        &self,
        issuer: &str,
        owners: &[Owner],
        token: &Secret,
    ) -> Result<Option<Claims>, AccessError> {
        if !may_be_asked(self.terms.issuers.as_deref(), issuer) {
            return Ok(None);
        }
        self.trusted.check(issuer, owners, token).await.map_err(|error| {
            warn!(issuer, %error, "the issuer of a workload's token could not be asked");
            let message = "the issuer of this token does not answer as it should; try again later";
            AccessError::Unchecked(message.into())
        })
    }

    /// Asks an issuer for its keys, before a rule without keys is recorded for a robot of this owner.
    /// The error has nothing of the answer, and does not say at which address the
    /// issuer is: whoever writes rules must not look around in the operator's network with it.
    pub async fn try_issuer(&self, issuer: &str, owner: Owner) -> Result<(), NotTried> {
        if !may_be_asked(self.terms.issuers.as_deref(), issuer) {
            return Err(NotTried::Issuer(NOT_ASKED.into()));
        }
        self.named.lock().take(clock::now(), &owner).map_err(NotTried::TooMany)?;
        let asked = self.trusted.discover(issuer, &[owner]).await;
        asked.map(|_| ()).map_err(|error| {
            info!(issuer, %error, "an issuer that a trust rule names could not be asked");
            let why = match error {
                UpstreamError::Refused(_) => {
                    "the issuer is at an address that this registry does not ask \
                     (people.allow_private_issuers); give its keys with the rule"
                }
                UpstreamError::Bad(_) => {
                    "what the issuer has at /.well-known/openid-configuration, or its keys, cannot \
                     be used: `issuer` must be what is written there, and a key RSA with 2048 bits \
                     or more, P-256, P-384 or Ed25519"
                }
                _ => {
                    "the issuer cannot be asked for its keys now; give them with the rule, or try \
                      again in some minutes"
                }
            };
            NotTried::Issuer(why.to_owned())
        })
    }

    /// The robot of a rule, if it may do anything now.
    fn robot(
        &self,
        records: &dyn ReadRecords,
        rule: &TrustRule,
    ) -> Result<Option<(Identity, Option<Shown>)>, RecordError> {
        let Some(robot) = records.robot(rule.robot)? else { return Ok(None) };
        let who = Principal::Robot { id: robot.id, generation: robot.generation };
        let identity = who.identity(records, clock::timestamp(), &self.terms.robot_prefix)?;
        Ok(identity.map(|identity| (identity, Some(Shown::Principal(who)))))
    }
}

/// The owner of a rule's robot.
fn owner(records: &dyn ReadRecords, rule: &TrustRule) -> Result<Owner, RecordError> {
    let project = records.robot(rule.robot)?.and_then(|robot| robot.project);
    Ok(project.map_or(Owner::Mesh, |(id, _)| Owner::Project(id)))
}

/// Whether what the issuer says of a token is meant by the rule.
fn means(rule: &TrustRule, said: &Result<Option<Claims>, AccessError>) -> bool {
    matches!(said, Ok(Some(claims)) if matches(&rule.terms, claims))
}

/// Whether the rule's issuer signed the token, it has not expired, and it is meant by the rule.
fn accepts(rule: &TrustRule, token: &Secret) -> bool {
    let Ok(keys) = serde_json::from_str::<JwkSet>(&rule.keys) else { return false };
    signed(&keys, token).is_some_and(|claims| matches(&rule.terms, &claims))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::foreign::check_keys;
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use rules::ledger::people::TrustTerms;
    use rules::people::trusts::{LONGEST_KEYS, LONGEST_TOKEN};
    use rules::words::moment::Timestamp;
    use rules::words::names::{RobotId, TrustId};
    use serde_json::json;

    const ISSUER: &str = "https://issuer.example";

    struct Issuer {
        key: EncodingKey,
        jwk: Value,
    }

    impl Issuer {
        fn new(kid: &str) -> Self {
            let pair = Ed25519KeyPair::generate().unwrap();
            let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
            Issuer {
                key: EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref()),
                jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA"}),
            }
        }

        fn sign(&self, kid: &str, claims: &Value) -> Secret {
            let mut header = Header::new(Algorithm::EdDSA);
            header.kid = Some(kid.into());
            jsonwebtoken::encode(&header, claims, &self.key).unwrap().into()
        }
    }

    fn rule(keys: Value) -> TrustRule {
        TrustRule {
            id: TrustId(1),
            robot: RobotId(2),
            terms: TrustTerms {
                issuer: ISSUER.into(),
                audience: "atoll".into(),
                subject: "job:*".into(),
                claims: BTreeMap::new(),
            },
            keys: keys.to_string(),
            created: Timestamp(0),
        }
    }

    fn claims(lasts: i64) -> Value {
        let now = (clock::timestamp().0 / 1000) as i64;
        json!({"iss": ISSUER, "aud": "atoll", "sub": "job:7", "exp": now + lasts})
    }

    #[test]
    fn a_token_is_accepted_by_the_key_that_signed_it_while_it_lasts() {
        let (issuer, other) = (Issuer::new("a"), Issuer::new("b"));
        let rule = rule(json!({"keys": [other.jwk, issuer.jwk]}));
        assert!(accepts(&rule, &issuer.sign("a", &claims(300))));
        assert!(!accepts(&rule, &issuer.sign("b", &claims(300))), "another key's name");
        assert!(!accepts(&rule, &issuer.sign("a", &claims(-120))), "expired");
        assert!(!accepts(&rule, &Issuer::new("a").sign("a", &claims(300))), "a stranger's key");
        let mut elsewhere = claims(300);
        elsewhere["aud"] = "somebody else".into();
        assert!(!accepts(&rule, &issuer.sign("a", &elsewhere)));
        let mut endless = claims(300);
        endless.as_object_mut().unwrap().remove("exp");
        assert!(!accepts(&rule, &issuer.sign("a", &endless)), "a token must end");
        let mut early = claims(300);
        early["nbf"] = json!(claims(200)["exp"]);
        assert!(!accepts(&rule, &issuer.sign("a", &early)), "not yet");
    }

    #[test]
    fn a_public_key_is_not_taken_for_a_secret() {
        let issuer = Issuer::new("a");
        let x = BASE64_URL_SAFE_NO_PAD.decode(issuer.jwk["x"].as_str().unwrap()).unwrap();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("a".into());
        let secret = EncodingKey::from_secret(&x);
        let forged: Secret = jsonwebtoken::encode(&header, &claims(300), &secret).unwrap().into();
        assert!(!accepts(&rule(json!({"keys": [issuer.jwk]})), &forged));
        // nor is a secret in a set used at all
        let k = BASE64_URL_SAFE_NO_PAD.encode(&x);
        let octets = json!({"keys": [{"kty": "oct", "k": k, "kid": "a"}]});
        assert!(!accepts(&rule(octets.clone()), &forged));
        assert!(check_keys(&octets.to_string()).is_err());
    }

    #[test]
    fn keys_are_checked_when_they_are_given() {
        let issuer = Issuer::new("a");
        assert_eq!(check_keys(&json!({"keys": [issuer.jwk]}).to_string()), Ok(()));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"keys": []}"#,
            r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#,
        ] {
            assert!(check_keys(bad).is_err(), "{bad}");
        }
        assert!(check_keys(&" ".repeat(LONGEST_KEYS + 1)).is_err());
    }

    #[test]
    fn what_is_no_token_names_no_issuer() {
        for text in ["", "a.b.c", "e30.e30.", &"x".repeat(LONGEST_TOKEN + 1)] {
            assert_eq!(unchecked(&text.into()), None, "{}", text.len());
        }
        let issuer = Issuer::new("a");
        let (named, said) = unchecked(&issuer.sign("a", &claims(1))).unwrap();
        assert_eq!((named.as_str(), said["sub"].as_str()), (ISSUER, Some("job:7")));
    }
}
