//! The mesh's settings that are in the ledger, because they are the same for all nodes and
//! administrators change them while the mesh runs: how people sign in, and when everything is scanned.
//! Their names are those of
//! Harbor's `/configurations` (`src/lib/config/metadata/metadatalist.go`), so that its clients set
//! them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::ledger::directory::{Belonging, CLIENT_SECRET, Configurations, SEARCH_PASSWORD};
use crate::ledger::events::PurgeOrder;
use crate::ledger::jobs::cron::Cron;
use crate::people::groups::subject;
use crate::people::provider_tokens::RenewalTerms;
use crate::policies::trash;
use crate::words::moment::Timestamp;
use crate::words::roles::Provider;

/// The maximum length of a value in bytes.
const LONGEST: usize = 1024;

/// How people without a password here sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all.
    Database,
    /// With a password of an LDAP directory.
    Ldap,
    /// At an OpenID Connect provider.
    Oidc,
}

impl AuthMode {
    /// All of them.
    pub const ALL: [AuthMode; 3] = [AuthMode::Database, AuthMode::Ldap, AuthMode::Oidc];

    /// The word in Harbor's API.
    pub fn word(self) -> &'static str {
        match self {
            AuthMode::Database => "db_auth",
            AuthMode::Ldap => "ldap_auth",
            AuthMode::Oidc => "oidc_auth",
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One of [`AuthMode`].
    Mode,
    /// Any text.
    Text,
    /// A text that is sealed, and never shown.
    Secret,
    /// `https://..`, or `http://` at a loopback address.
    Issuer,
    /// `ldap://..` or `ldaps://..`, without a path.
    Directory,
    /// A filter of LDAP (RFC 4515), in parentheses.
    Filter,
    /// The name of an attribute.
    Attribute,
    /// A distinguished name.
    Name,
    /// Yes or no.
    Flag,
    /// Yes: certificates are always checked.
    Always,
    /// A JSON object of texts, as text: more of the address to which browsers are sent.
    Parameters,
    /// A number from the first to the second.
    Number(u64, u64),
    /// Times that repeat, as in cron; empty for never.
    Times,
    /// A number from 1 on, or -1 for no limit.
    Limit,
    /// `environments`, or empty.
    Preset,
    /// How long a project's trash keeps something.
    Kept,
}

/// A setting.
struct Field {
    name: &'static str,
    form: Form,
    /// As JSON.
    default: &'static str,
}

const fn field(name: &'static str, form: Form, default: &'static str) -> Field {
    Field { name, form, default }
}

/// All settings. Those that begin with `gc_` and `purge_`, `ldap_remember_minutes`, `ldap_starttls`,
/// `oidc_ask_minutes`, `oidc_remember_minutes`, `oidc_sign_in_days`, `repositories_per_project`,
/// `retention_per_project`, `retention_per_project_schedule`, `scan_all_schedule`, `tags_per_project` and
/// `trash_per_project` are Atoll's own.
const FIELDS: &[Field] = &[
    field("auth_mode", Form::Mode, "\"db_auth\""),
    field("gc_schedule", Form::Times, "\"\""),
    field("gc_workers", Form::Number(1, 10), "1"),
    field("ldap_base_dn", Form::Name, "\"\""),
    field("ldap_filter", Form::Filter, "\"\""),
    field("ldap_group_admin_dn", Form::Name, "\"\""),
    field("ldap_group_base_dn", Form::Name, "\"\""),
    field("ldap_group_membership_attribute", Form::Attribute, "\"memberof\""),
    field("ldap_group_search_filter", Form::Filter, "\"\""),
    field("ldap_group_search_scope", Form::Number(0, 2), "2"),
    field("ldap_remember_minutes", Form::Number(0, 43_200), "1440"),
    field("ldap_scope", Form::Number(0, 2), "2"),
    field("ldap_search_dn", Form::Name, "\"\""),
    field("ldap_search_password", Form::Secret, "\"\""),
    field("ldap_starttls", Form::Flag, "false"),
    field("ldap_uid", Form::Attribute, "\"cn\""),
    field("ldap_url", Form::Directory, "\"\""),
    field("ldap_verify_cert", Form::Always, "true"),
    field("oidc_admin_group", Form::Text, "\"\""),
    field("oidc_ask_minutes", Form::Number(0, 1440), "5"),
    field("oidc_auto_onboard", Form::Flag, "false"),
    field("oidc_client_id", Form::Text, "\"\""),
    field("oidc_client_secret", Form::Secret, "\"\""),
    field("oidc_endpoint", Form::Issuer, "\"\""),
    field("oidc_extra_redirect_parms", Form::Parameters, "\"\""),
    field("oidc_groups_claim", Form::Text, "\"\""),
    field("oidc_name", Form::Text, "\"\""),
    field("oidc_remember_minutes", Form::Number(0, 43_200), "1440"),
    field("oidc_scope", Form::Text, "\"openid\""),
    field("oidc_sign_in_days", Form::Number(0, 3650), "90"),
    field("oidc_user_claim", Form::Text, "\"\""),
    field("oidc_verify_cert", Form::Always, "true"),
    field("purge_audit_event_types", Form::Text, "\"\""),
    field("purge_audit_operations", Form::Text, "\"\""),
    field("purge_audit_retention_hours", Form::Number(1, 240_000), "24"),
    field("purge_audit_schedule", Form::Times, "\"\""),
    field("repositories_per_project", Form::Limit, "-1"),
    field("retention_per_project", Form::Preset, "\"\""),
    field("retention_per_project_schedule", Form::Times, "\"0 0 3 * * *\""),
    field("scan_all_schedule", Form::Times, "\"\""),
    field("session_timeout", Form::Number(1, 43_200), "480"),
    field("storage_per_project", Form::Limit, "-1"),
    field("tags_per_project", Form::Limit, "-1"),
    field("trash_per_project", Form::Kept, "\"7d\""),
];

/// Why a change is refused. A sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfiguration {
    /// There is no such setting.
    #[error("{0}: there is no such setting here (docs/people.md lists them)")]
    Unknown(String),
    /// The value cannot be one.
    #[error("{0} is {1}")]
    Value(&'static str, String),
    /// A secret would go to another server than the one that it was given for.
    #[error("{0} is needed: with another {1} the known one would be sent to another server")]
    SecretNeeded(&'static str, &'static str),
    /// Something else is missing.
    #[error("auth_mode {0} needs {1}")]
    Missing(&'static str, &'static str),
}

fn known(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// Whether the value of this setting is sealed.
pub fn is_secret(name: &str) -> bool {
    known(name).is_some_and(|field| field.form == Form::Secret)
}

/// Checks a value that a client has written, and brings it into its one form. Flags and numbers may be
/// written as texts, as some clients do.
pub fn check(name: &str, written: &Value) -> Result<(&'static str, Value), BadConfiguration> {
    let field = known(name).ok_or_else(|| BadConfiguration::Unknown(name.to_owned()))?;
    let wrong = |what: &str| Err(BadConfiguration::Value(field.name, what.to_owned()));
    let text = written.as_str().map(str::trim);
    let flag = written.as_bool().or_else(|| text?.parse().ok());
    let checked = match (field.form, text) {
        (Form::Flag, _) => match flag {
            Some(flag) => Value::Bool(flag),
            None => return wrong("true or false"),
        },
        (Form::Always, _) if flag == Some(true) => Value::Bool(true),
        (Form::Always, _) => {
            return wrong(
                "always true: certificates are checked; name the provider's own CA in the setting upstreams.ca of each replica",
            );
        }
        (Form::Number(least, most), _) => {
            let number = written.as_u64().or_else(|| text?.parse().ok());
            match number.filter(|number| (least..=most).contains(number)) {
                Some(number) => number.into(),
                None => return wrong(&format!("a number from {least} to {most}")),
            }
        }
        (Form::Limit, _) => {
            let number = written.as_i64().or_else(|| text?.parse().ok());
            match number.filter(|number| *number == -1 || *number >= 1) {
                Some(number) => number.into(),
                None => return wrong("a number from 1 on, or -1 for no limit"),
            }
        }
        (Form::Parameters, None) if written.is_object() => {
            return check(name, &Value::String(written.to_string()));
        }
        (_, None) => return wrong("a text"),
        (_, Some(text)) if text.len() > LONGEST || text.chars().any(char::is_control) => {
            return wrong(&format!("at most {LONGEST} bytes long, without control characters"));
        }
        (Form::Mode, Some(text)) => match AuthMode::ALL.iter().find(|mode| mode.word() == text) {
            Some(mode) => mode.word().into(),
            None => return wrong("db_auth, ldap_auth or oidc_auth"),
        },
        // only a secret may begin or end with a space
        (Form::Secret, _) => written.clone(),
        (Form::Issuer, Some(text)) if !text.is_empty() && !is_issuer(text) => {
            return wrong("the issuer's URL: https://.., or http:// at a loopback address");
        }
        (form, Some("")) if form != Form::Kept => "".into(),
        (Form::Parameters, Some(text)) => match parameters(text) {
            Some(all) => Value::String(serde_json::json!(all).to_string()),
            None => {
                return wrong(
                    "a JSON object of texts, like {\"prompt\": \"consent\"}, without what a sign-in has of its own (scope, state, nonce, redirect_uri ..)",
                );
            }
        },
        (Form::Directory, Some(text)) if !is_directory(text) => {
            return wrong("ldap://HOST[:PORT] or ldaps://HOST[:PORT]");
        }
        (Form::Filter, Some(text)) if !(text.starts_with('(') && text.ends_with(')')) => {
            return wrong("a filter in parentheses, like (objectClass=person), or empty");
        }
        (Form::Attribute, Some(text)) if !is_attribute(text) => {
            return wrong("the name of an attribute: letters, digits and dashes");
        }
        (Form::Times, Some(text)) => match text.parse::<Cron>() {
            Ok(cron) => cron.to_string().into(),
            Err(error) => return wrong(&format!("times as in cron, in UTC, or empty: {error}")),
        },
        (Form::Kept, Some(text)) if trash::time(text).is_none() => return wrong(trash::FORM),
        (Form::Preset, Some(text)) if text != "environments" => {
            return wrong("environments, or empty for none");
        }
        (Form::Name, Some(text)) if subject(Provider::Ldap, text).is_none() => {
            return wrong("a distinguished name, like cn=admins,dc=example,dc=com");
        }
        (_, Some(text)) => text.into(),
    };
    Ok((field.name, checked))
}

/// What a sign-in says itself in the address to which browsers are sent.
const OWN_PARAMETERS: [&str; 10] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_type",
    "scope",
    "state",
];

/// More of the address to which browsers are sent, by name; `None` if it cannot be that.
fn parameters(text: &str) -> Option<BTreeMap<String, String>> {
    let all: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    let fits = |name: &String| !name.is_empty() && !OWN_PARAMETERS.contains(&name.as_str());
    all.keys().all(fits).then_some(all)
}

/// Whether this is the URL of an issuer that may be asked: only what is on this machine may be asked
/// without TLS. It has no query (OpenID Connect Discovery 1.0 section 3).
pub fn is_issuer(url: &str) -> bool {
    let authority = |rest: &str| {
        let authority = rest.split('/').next().unwrap_or_default().to_owned();
        let fits = !authority.is_empty() && !rest.contains(['@', '?', '#', ' ']);
        fits.then_some(authority)
    };
    match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => authority(rest).is_some(),
        (_, Some(rest)) => authority(rest).is_some_and(|authority| is_loopback(&authority)),
        _ => false,
    }
}

fn is_directory(url: &str) -> bool {
    let rest = url.strip_prefix("ldap://").or_else(|| url.strip_prefix("ldaps://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '@', ' ']))
}

fn is_attribute(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<core::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The settings with their defaults, without secrets.
#[derive(Clone, Debug)]
pub struct Configured(BTreeMap<&'static str, Value>);

impl Configured {
    /// What the record has. A value that cannot be read is the default.
    pub fn of(record: &Configurations) -> Self {
        let value = |field: &Field| {
            let kept = record.values.get(field.name).map(String::as_str);
            let read = |text: &str| serde_json::from_str(text).ok();
            kept.and_then(read).or_else(|| read(field.default)).unwrap_or(Value::Null)
        };
        let shown = FIELDS.iter().filter(|field| field.form != Form::Secret);
        Configured(shown.map(|field| (field.name, value(field))).collect())
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// A text; empty if it is not set.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A flag.
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A number.
    pub fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    /// A limit; `None` if there is none.
    pub fn limit(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// What scheduled purges of the audit log forget.
    pub fn purge(&self) -> PurgeOrder {
        let words = |name| {
            let words = self.text(name).split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        PurgeOrder {
            hours: self.number("purge_audit_retention_hours"),
            operations: words("purge_audit_operations"),
            event_types: words("purge_audit_event_types"),
            dry_run: false,
        }
    }

    /// The same, as Harbor's clients write it.
    pub fn purge_parameters(&self) -> String {
        let parameters = serde_json::json!({
            "audit_retention_hour": self.number("purge_audit_retention_hours"),
            "include_operations": self.text("purge_audit_operations"),
            "include_event_types": self.text("purge_audit_event_types"),
        });
        parameters.to_string()
    }

    /// How long a browser's session lasts.
    pub fn session(&self) -> Duration {
        Duration::from_secs(60 * self.number("session_timeout"))
    }

    /// How people without a password here sign in.
    pub fn auth_mode(&self) -> AuthMode {
        let word = self.text("auth_mode");
        AuthMode::ALL.into_iter().find(|mode| mode.word() == word).unwrap_or(AuthMode::Database)
    }

    /// More of the address to which browsers are sent to sign in at the OIDC provider, by name.
    pub fn extra_parameters(&self) -> BTreeMap<String, String> {
        parameters(self.text("oidc_extra_redirect_parms")).unwrap_or_default()
    }

    /// How often an OIDC provider is asked again, if that can be done.
    pub fn renewal(&self) -> RenewalTerms {
        let minutes = |name| self.number(name) * 60_000;
        RenewalTerms { fresh: minutes("oidc_ask_minutes"), lasts: minutes("oidc_remember_minutes") }
    }

    /// For how long what an OIDC provider said counts, without another sign-in; `None` for ever.
    pub fn vouched_for(&self) -> Option<Duration> {
        let days = self.number("oidc_sign_in_days");
        (days > 0).then(|| Duration::from_secs(days * 24 * 3600))
    }

    /// Whether a user has not signed in at their OIDC provider for longer than what it said counts.
    /// Of users of a directory it is asked anew, and of others nobody said anything.
    pub fn is_forgotten(&self, belonging: Option<&Belonging>, now: Timestamp) -> bool {
        let of_provider = belonging.filter(|one| one.vouched.provider == Provider::Oidc);
        of_provider
            .zip(self.vouched_for())
            .is_some_and(|(belonging, lasts)| now.apart(belonging.since) > lasts)
    }
}

/// Checks the settings as they would become. `changed` are the names that the client has written.
pub fn check_all(
    was: &Configurations,
    becomes: &Configurations,
    changed: &[String],
) -> Result<(), BadConfiguration> {
    let (before, after) = (Configured::of(was), Configured::of(becomes));
    // who may change an address must not learn the secret by it
    for (place, secret) in [("oidc_endpoint", CLIENT_SECRET), ("ldap_url", SEARCH_PASSWORD)] {
        let moved = !before.text(place).is_empty() && before.text(place) != after.text(place);
        let is_written = changed.iter().any(|name| name == secret);
        if moved && becomes.secrets.contains_key(secret) && !is_written {
            return Err(BadConfiguration::SecretNeeded(secret, place));
        }
    }
    let needed: &[&str] = match after.auth_mode() {
        AuthMode::Database => &[],
        AuthMode::Ldap => &["ldap_url", "ldap_base_dn", "ldap_uid"],
        AuthMode::Oidc => &["oidc_endpoint", "oidc_client_id"],
    };
    match needed.iter().find(|name| after.text(name).is_empty()) {
        Some(name) => Err(BadConfiguration::Missing(after.auth_mode().word(), name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::directory::Vouched;
    use serde_json::json;

    fn record(pairs: &[(&str, Value)]) -> Configurations {
        let mut record = Configurations::default();
        for (name, value) in pairs {
            let (name, value) = check(name, value).unwrap();
            match is_secret(name) {
                true => record.secrets.insert(name.into(), "sealed".into()).map(|_| ()),
                false => record.values.insert(name.into(), value.to_string()).map(|_| ()),
            };
        }
        record
    }

    #[test]
    fn a_sign_in_counts_for_as_many_days_as_the_setting_says() {
        const DAY: u64 = 24 * 3_600_000;
        let since = Timestamp(1_800_000_000_000);
        let of = |provider| Belonging {
            vouched: Vouched {
                provider,
                subject: "https://idp 7".into(),
                groups: vec![],
                administers: false,
            },
            administers: false,
            since,
        };
        let (oidc, ldap) = (of(Provider::Oidc), of(Provider::Ldap));
        let after = |days: Value, who: Option<&Belonging>, age: u64| {
            let record = record(&[("oidc_sign_in_days", days)]);
            Configured::of(&record).is_forgotten(who, Timestamp(since.0 + age))
        };
        assert!(
            !after(json!(7), Some(&oidc), 7 * DAY) && after(json!(7), Some(&oidc), 7 * DAY + 1)
        );
        assert!(!after(json!(7), Some(&ldap), 8 * DAY) && !after(json!(7), None, 8 * DAY));
        assert!(!after(json!(0), Some(&oidc), 5000 * DAY), "for ever");
        let unset = Configurations::default();
        let forgotten =
            |age| Configured::of(&unset).is_forgotten(Some(&oidc), Timestamp(since.0 + age));
        assert!(!forgotten(90 * DAY) && forgotten(90 * DAY + 1));
        let earlier = Timestamp(since.0 - DAY);
        assert!(
            !Configured::of(&unset).is_forgotten(Some(&oidc), earlier),
            "a clock that is behind"
        );
    }

    #[test]
    fn a_default_is_accepted_and_what_is_no_value_is_not() {
        for field in FIELDS {
            let default: Value = serde_json::from_str(field.default).unwrap();
            assert_eq!(check(field.name, &default), Ok((field.name, default)));
        }
        for (name, wrong) in [
            ("session_timeout", json!(0)),
            ("session_timeout", json!("soon")),
            ("session_timeout", json!(1.5)),
            ("auth_mode", json!("http_auth")),
            ("ldap_url", json!("https://directory")),
            ("ldap_url", json!("ldap://directory/dc=x")),
            ("ldap_filter", json!("objectClass=person")),
            ("ldap_uid", json!("uid)(x")),
            ("ldap_base_dn", json!("example.com")),
            ("ldap_scope", json!(3)),
            ("oidc_auto_onboard", json!("maybe")),
            ("oidc_verify_cert", json!(false)),
            ("oidc_client_id", json!(7)),
            ("oidc_client_id", json!("a\nb")),
            ("oidc_client_id", json!("x".repeat(LONGEST + 1))),
            ("oidc_endpoint", json!("http://idp.example")),
            ("oidc_endpoint", json!("https://me@idp.example")),
            ("oidc_endpoint", json!("https://idp.example?x=1")),
            ("oidc_endpoint", json!("http://127.0.0.1.example/")),
            ("oidc_extra_redirect_parms", json!("prompt=consent")),
            ("oidc_extra_redirect_parms", json!({"prompt": 7})),
            ("oidc_extra_redirect_parms", json!({"state": "x"})),
            ("oidc_extra_redirect_parms", json!("{\"scope\": \"x\"}")),
            ("oidc_ask_minutes", json!(1441)),
            ("retention_per_project", json!("all")),
            ("storage_per_project", json!(0)),
            ("trash_per_project", json!("")),
            ("trash_per_project", json!("a week")),
            ("storage_per_project", json!(-2)),
            ("tags_per_project", json!("many")),
        ] {
            assert!(check(name, &wrong).is_err(), "{name} {wrong}");
        }
        for good in ["https://idp.example/realms/a", "http://127.0.0.1:9", "http://[::1]:9/x", ""] {
            assert!(check("oidc_endpoint", &json!(good)).is_ok(), "{good}");
        }
        let text = check("session_timeout", &json!(" 7 "));
        assert_eq!(text, Ok(("session_timeout", json!(7))));
        assert_eq!(check("oidc_auto_onboard", &json!("true")).unwrap().1, json!(true));
        for written in [json!({"prompt": "consent"}), json!("{\"prompt\":  \"consent\"}")] {
            let (name, value) = check("oidc_extra_redirect_parms", &written).unwrap();
            assert_eq!(value, json!("{\"prompt\":\"consent\"}"));
            let record = record(&[(name, value)]);
            assert_eq!(Configured::of(&record).extra_parameters()["prompt"], "consent");
        }
        let limit = check("storage_per_project", &json!("1073741824"));
        assert_eq!(limit, Ok(("storage_per_project", json!(1_073_741_824))));
        let unknown = check("quota_per_project_enable", &json!(true)).unwrap_err();
        assert!(unknown.to_string().contains("quota_per_project_enable"));
    }

    #[test]
    fn what_is_not_set_or_cannot_be_read_is_the_default_and_no_secret_is_shown() {
        let mut record = Configurations::default();
        let minutes = |record: &Configurations| Configured::of(record).session().as_secs() / 60;
        assert_eq!(minutes(&record), 480);
        record.values.insert("session_timeout".into(), "damaged".into());
        assert_eq!(minutes(&record), 480);
        record.values.insert("session_timeout".into(), "7".into());
        assert_eq!(minutes(&record), 7);
        assert!(Configured::of(&record).all().all(|(name, _)| !is_secret(name)));
        assert!(is_secret("oidc_client_secret"));
    }

    #[test]
    fn a_provider_is_used_when_it_can_be_asked_and_its_secret_goes_nowhere_else() {
        let place = ("oidc_endpoint", json!("https://idp"));
        let client = ("oidc_client_id", json!("atoll"));
        let mode = ("auth_mode", json!("oidc_auth"));
        let nothing = Configurations::default();
        let needs = |pairs: &[(&str, Value)]| check_all(&nothing, &record(pairs), &[]);
        assert!(
            needs(std::slice::from_ref(&mode)).is_err()
                && needs(&[mode.clone(), place.clone()]).is_err()
        );
        assert_eq!(needs(&[mode, place.clone(), client]), Ok(()));
        let secret = ("oidc_client_secret", json!("word"));
        let (was, elsewhere) = (record(&[place, secret.clone()]), json!("https://other"));
        let becomes = record(&[("oidc_endpoint", elsewhere), secret]);
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let moved = |changed: &[&str]| check_all(&was, &becomes, &names(changed));
        let needed = BadConfiguration::SecretNeeded("oidc_client_secret", "oidc_endpoint");
        assert_eq!(moved(&["oidc_endpoint"]), Err(needed));
        assert_eq!(moved(&["oidc_endpoint", "oidc_client_secret"]), Ok(()));
        assert_eq!(check_all(&nothing, &becomes, &names(&["oidc_endpoint"])), Ok(()));
    }
}
