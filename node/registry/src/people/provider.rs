//! The OIDC provider of the mesh's people: how it is asked, and what it says of them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use rules::ledger::directory::{
    CLIENT_SECRET, Configurations, LONGEST_SUBJECT, LookForGroups, Vouched,
};
use rules::people::configurations::{AuthMode, Configured};
use rules::people::discovery::Owner;
use rules::people::groups::subjects;
use rules::words::roles::Provider;
use rules::words::secret::Secret;
use serde_json::Value;
use tracing::warn;
use upstream::UpstreamError;

use super::foreign::Claims;
use super::issuers::Discovered;
use super::{Access, AccessError};

/// For whom the provider is asked.
pub(super) const OWNERS: [Owner; 1] = [Owner::Mesh];

/// The scope with which a client asks for a refresh token (OpenID Connect Core 1.0 section 11).
const OFFLINE: &str = "offline_access";
/// Google has parameters for that, as Harbor knows (its `src/pkg/oidc/helper.go`).
const GOOGLE: &str = "https://accounts.google.com/";
const GOOGLE_OFFLINE: [(&str, &str); 2] = [("access_type", "offline"), ("prompt", "consent")];

/// How the provider is asked.
pub(super) struct Terms {
    pub(super) issuer: String,
    pub(super) client: String,
    secret: Option<Secret>,
    scope: String,
    extra: BTreeMap<String, String>,
    groups_claim: String,
    admin_group: String,
    user_claim: String,
    pub(super) auto_onboard: bool,
}

/// What the provider has given for a code or a refresh token.
pub(super) struct Redeemed {
    id_token: Option<Secret>,
    access_token: Option<Secret>,
    /// A refresh token, which replaces the one that was given for it.
    pub(super) refresh_token: Option<Secret>,
}

/// Why it has given nothing.
pub(super) enum NotRedeemed {
    /// It refuses, with this word of RFC 6749 section 5.2.
    Refused(StatusCode, String),
    /// It does not answer as it should.
    Unanswered(UpstreamError),
}

/// Who has to be meant by an answer of the provider.
#[derive(Clone, Copy)]
pub(super) enum Meant<'m> {
    /// Whoever has signed in with this nonce.
    Nonce(&'m str),
    /// Who the provider calls so.
    Subject(&'m str),
}

/// The provider's fault, for the person who waits. What it answered stays in the log.
pub(super) fn unanswered(error: &UpstreamError) -> AccessError {
    warn!(%error, "the OIDC provider could not be asked");
    AccessError::Unchecked("the OIDC provider does not answer as it should; try again later".into())
}

pub(super) fn refused(why: &str) -> AccessError {
    AccessError::Denied(why.into())
}

pub(super) fn text<'c>(claims: &'c Claims, name: &str) -> &'c str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an ID token is meant for this client (OpenID Connect Core 1.0 section 3.1.3.7).
pub(super) fn is_for(claims: &Claims, client: &str) -> bool {
    let (audience, several) = match claims.get("aud") {
        Some(Value::String(one)) => (one == client, false),
        Some(Value::Array(all)) => (all.iter().any(|one| one == client), all.len() > 1),
        _ => (false, false),
    };
    let party = claims.get("azp").and_then(Value::as_str);
    audience && party.map_or(!several, |party| party == client)
}

/// The scopes to ask for. Without `openid` there is no ID token.
fn scopes(written: &str) -> Vec<&str> {
    let mut words: Vec<&str> =
        written.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).collect();
    if !words.contains(&"openid") {
        words.insert(0, "openid");
    }
    words
}

impl Terms {
    /// Whether the provider may be asked for a refresh token.
    pub(super) fn is_offline(&self) -> bool {
        scopes(&self.scope).contains(&OFFLINE)
    }

    /// The scopes for a sign-in at `endpoint`, and more of its address.
    pub(super) fn asked_at(&self, endpoint: &str) -> (String, BTreeMap<String, String>) {
        let mut words = scopes(&self.scope);
        let mut extra = BTreeMap::new();
        if self.is_offline() && endpoint.starts_with(GOOGLE) {
            words.retain(|word| *word != OFFLINE);
            extra.extend(GOOGLE_OFFLINE.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        extra.extend(self.extra.clone());
        (words.join(" "), extra)
    }

    /// What the mesh calls somebody whom the provider calls `sub`.
    fn subject(&self, sub: &str) -> String {
        format!("{} {sub}", self.issuer)
    }

    /// What the provider calls somebody, if the mesh has this name of them from this provider.
    pub(super) fn sub_of<'s>(&self, subject: &'s str) -> Option<&'s str> {
        subject.strip_prefix(self.issuer.as_str())?.strip_prefix(' ')
    }

    /// What the provider says of somebody.
    pub(super) fn vouched(&self, claims: &Claims) -> Option<Vouched> {
        let subject = self.subject(text(claims, "sub"));
        if text(claims, "sub").is_empty() || subject.len() > LONGEST_SUBJECT {
            return None;
        }
        let said = match claims.get(&self.groups_claim) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => vec![],
        };
        let administers = !self.admin_group.is_empty() && said.contains(&self.admin_group.as_str());
        let (groups, too_many) = subjects(Provider::Oidc, said);
        if too_many {
            warn!(subject, "the OIDC provider names more groups than count");
        }
        Some(Vouched { provider: Provider::Oidc, subject, groups, administers })
    }

    /// The name that somebody gets or may like.
    pub(super) fn name<'c>(&self, claims: &'c Claims) -> &'c str {
        let claims_in_order = [self.user_claim.as_str(), "preferred_username", "name", "email"];
        let tried =
            if self.user_claim.is_empty() { &claims_in_order[1..] } else { &claims_in_order[..1] };
        tried
            .iter()
            .map(|name| text(claims, name))
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }

    /// The form that redeems a code or a refresh token, and the `Authorization` that goes with it.
    fn form(&self, found: &Discovered, grant: &[(&str, &str)]) -> (String, Option<Secret>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(grant);
        // the default is Basic (OpenID Connect Discovery 1.0 section 3)
        let basic = found.lists("token_endpoint_auth_methods_supported", "client_secret_basic");
        match &self.secret {
            Some(secret) if basic.unwrap_or(true) => {
                let part = |text: &str| -> String {
                    form_urlencoded::byte_serialize(text.as_bytes()).collect()
                };
                let pair = format!("{}:{}", part(&self.client), part(secret.expose()));
                let authorization = format!("Basic {}", BASE64_STANDARD.encode(pair));
                return (form.finish(), Some(authorization.into()));
            }
            Some(secret) => {
                form.append_pair("client_id", &self.client)
                    .append_pair("client_secret", secret.expose());
            }
            None => {
                form.append_pair("client_id", &self.client);
            }
        }
        (form.finish(), None)
    }
}

impl Access {
    /// The settings, if people sign in at an OIDC provider.
    pub(super) async fn oidc(&self) -> Result<Option<Terms>, AccessError> {
        let record = self.records.read(|records| records.configurations()).await?.0;
        self.oidc_of(&record)
    }

    pub(super) fn oidc_of(&self, record: &Configurations) -> Result<Option<Terms>, AccessError> {
        let configured = Configured::of(record);
        if configured.auth_mode() != AuthMode::Oidc {
            return Ok(None);
        }
        let own = |name: &str| configured.text(name).to_owned();
        let sealed = record.secrets.get(CLIENT_SECRET);
        let secret =
            sealed.map(|sealed| self.secrets.open(CLIENT_SECRET, sealed.expose())).transpose()?;
        Ok(Some(Terms {
            issuer: own("oidc_endpoint"),
            client: own("oidc_client_id"),
            secret,
            scope: own("oidc_scope"),
            extra: configured.extra_parameters(),
            groups_claim: own("oidc_groups_claim"),
            admin_group: own("oidc_admin_group"),
            user_claim: own("oidc_user_claim"),
            auto_onboard: configured.flag("oidc_auto_onboard"),
        }))
    }

    pub(super) async fn oidc_needed(&self) -> Result<Terms, AccessError> {
        self.oidc().await?.ok_or_else(|| refused("nobody signs in with OIDC here (auth_mode)"))
    }

    /// Redeems a code or a refresh token at the provider.
    pub(super) async fn redeem(
        &self,
        terms: &Terms,
        found: &Discovered,
        grant: &[(&str, &str)],
    ) -> Result<Redeemed, NotRedeemed> {
        let none = || UpstreamError::bad("its document has no token_endpoint that can be used");
        let endpoint = found.endpoint("token_endpoint").ok_or_else(none);
        let endpoint = endpoint.map_err(NotRedeemed::Unanswered)?;
        let (form, authorization) = terms.form(found, grant);
        let asked = self.issuers.web().post(endpoint, form, authorization.as_ref()).await;
        let (status, answer) = asked.map_err(NotRedeemed::Unanswered)?;
        if !status.is_success() {
            // a word of RFC 6749 section 5.2
            let error = answer["error"].as_str().unwrap_or_default();
            return Err(NotRedeemed::Refused(status, error.chars().take(60).collect()));
        }
        let secret = |name: &str| answer[name].as_str().map(Secret::from);
        Ok(Redeemed {
            id_token: secret("id_token"),
            access_token: secret("access_token"),
            refresh_token: secret("refresh_token"),
        })
    }

    /// What the provider says of whoever it has given this for; `None` if that is not who is meant.
    pub(super) async fn said_with(
        &self,
        terms: &Terms,
        found: &Discovered,
        redeemed: &Redeemed,
        meant: Meant<'_>,
    ) -> Result<Option<Claims>, UpstreamError> {
        let is_meant = |claims: &Claims| match meant {
            Meant::Nonce(nonce) => text(claims, "nonce") == nonce,
            Meant::Subject(sub) => text(claims, "sub") == sub,
        };
        let mut claims = match (&redeemed.id_token, meant) {
            (Some(token), _) => {
                let checked = self.issuers.check(&terms.issuer, &OWNERS, token).await?;
                let checked = checked.filter(|claims| is_for(claims, &terms.client));
                let Some(claims) = checked.filter(is_meant) else { return Ok(None) };
                claims
            }
            (None, Meant::Nonce(_)) => return Ok(None),
            // not every provider gives one for a refresh token (OpenID Connect Core 1.0 section 12.2)
            (None, Meant::Subject(sub)) => Claims::from([("sub".to_owned(), sub.into())]),
        };
        let place = found.endpoint("userinfo_endpoint");
        let (Some(bearer), Some(place)) = (&redeemed.access_token, place) else {
            return match &redeemed.id_token {
                Some(_) => Ok(Some(claims)),
                None => Err(UpstreamError::bad("it says nothing of whom it knows")),
            };
        };
        // groups and names are often said there only
        let more = self.issuers.web().get(place, Some(bearer)).await?;
        if more["sub"].as_str() != Some(text(&claims, "sub")) {
            return Ok(None);
        }
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            claims.entry(name).or_insert(value);
        }
        Ok(Some(claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    fn terms(scope: &str) -> Terms {
        Terms {
            issuer: "https://idp".into(),
            client: "atoll".into(),
            secret: None,
            scope: scope.into(),
            extra: BTreeMap::from([("prompt".into(), "login".into())]),
            groups_claim: "groups".into(),
            admin_group: "lords".into(),
            user_claim: String::new(),
            auto_onboard: true,
        }
    }

    #[test]
    fn an_id_token_is_for_the_client_that_it_names() {
        for (said, is) in [
            (json!({"aud": "atoll"}), true),
            (json!({"aud": ["atoll"]}), true),
            (json!({"aud": ["atoll", "other"], "azp": "atoll"}), true),
            (json!({"aud": ["atoll", "other"]}), false),
            (json!({"aud": "atoll", "azp": "other"}), false),
            (json!({"aud": "other"}), false),
            (json!({"aud": 7}), false),
            (json!({}), false),
        ] {
            assert_eq!(is_for(&claims(said.clone()), "atoll"), is, "{said}");
        }
    }

    #[test]
    fn scopes_are_asked_for_with_openid() {
        assert_eq!(scopes("profile, email").join(" "), "openid profile email");
        assert_eq!(scopes("email openid").join(" "), "email openid");
        assert_eq!(scopes("").join(" "), "openid");
    }

    #[test]
    fn a_refresh_token_is_asked_for_as_the_provider_wants_it() {
        let elsewhere = "https://idp/authorize";
        let (scope, extra) = terms("openid,offline_access").asked_at(elsewhere);
        assert_eq!(scope, "openid offline_access");
        assert_eq!(extra, BTreeMap::from([("prompt".into(), "login".into())]));
        let google = "https://accounts.google.com/o/oauth2/v2/auth";
        let (scope, extra) = terms("openid,offline_access").asked_at(google);
        assert_eq!((scope.as_str(), extra["access_type"].as_str()), ("openid", "offline"));
        assert_eq!(extra["prompt"], "login", "what an administrator has written counts");
        let (_, extra) = terms("openid").asked_at(google);
        assert!(!extra.contains_key("access_type") && !terms("openid").is_offline());
    }

    #[test]
    fn a_name_of_another_provider_is_nobodys_here() {
        let terms = terms("");
        assert_eq!(terms.sub_of(&terms.subject("7")), Some("7"));
        for other in ["https://idp/ 7", "https://idp2 7", "https://idp7", "https://other 7"] {
            assert_eq!(terms.sub_of(other), None, "{other}");
        }
    }

    #[test]
    fn groups_are_a_list_or_one_text() {
        let terms = terms("");
        let of = |said: Value| terms.vouched(&claims(said));
        let both = of(json!({"sub": "7", "groups": ["devs", "lords", 7]})).unwrap();
        assert_eq!(both.groups, ["devs", "lords"]);
        assert_eq!((both.administers, both.subject.as_str()), (true, "https://idp 7"));
        let one = of(json!({"sub": "7", "groups": "devs"})).unwrap();
        assert_eq!((one.groups, one.administers), (vec!["devs".to_owned()], false));
        assert!(of(json!({"sub": "7"})).unwrap().groups.is_empty());
        assert_eq!(of(json!({"groups": ["devs"]})), None, "somebody has a subject");
        assert_eq!(of(json!({"sub": "x".repeat(600)})), None);
    }
}
