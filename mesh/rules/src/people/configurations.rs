//! The mesh's settings that are in the ledger, because they are the same for all nodes and
//! administrators change them while the mesh runs. Their names are those of Harbor's
//! `/configurations` (`src/lib/config/metadata/metadatalist.go`), so that its clients set them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::ledger::directory::Configurations;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A number from the first to the second.
    Number(u64, u64),
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

/// All settings, in the order of their names.
const FIELDS: &[Field] = &[field("session_timeout", Form::Number(1, 43_200), "480")];

/// Why a change is refused. A sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfiguration {
    /// There is no such setting.
    #[error("{0}: there is no such setting here (docs/people.md lists them)")]
    Unknown(String),
    /// The value cannot be one.
    #[error("{0} is {1}")]
    Value(&'static str, String),
}

/// Checks a value that a client has written, and brings it into its one form. Numbers may be written
/// as texts, as some clients do.
pub fn check(name: &str, written: &Value) -> Result<(&'static str, Value), BadConfiguration> {
    let field = FIELDS.iter().find(|field| field.name == name);
    let field = field.ok_or_else(|| BadConfiguration::Unknown(name.to_owned()))?;
    let wrong = |what: String| Err(BadConfiguration::Value(field.name, what));
    let Form::Number(least, most) = field.form;
    let number = written.as_u64().or_else(|| written.as_str()?.trim().parse().ok());
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok((field.name, number.into())),
        None => wrong(format!("a number from {least} to {most}")),
    }
}

/// The settings with their defaults.
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
        Configured(FIELDS.iter().map(|field| (field.name, value(field))).collect())
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// A number.
    pub fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    /// How long a browser's session lasts.
    pub fn session(&self) -> Duration {
        Duration::from_secs(60 * self.number("session_timeout"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_default_is_accepted_and_what_is_no_value_is_not() {
        for field in FIELDS {
            let default: Value = serde_json::from_str(field.default).unwrap();
            assert_eq!(check(field.name, &default), Ok((field.name, default)));
        }
        for wrong in [json!(0), json!(43_201), json!("soon"), json!(null), json!(-1), json!(1.5)] {
            assert!(check("session_timeout", &wrong).is_err(), "{wrong}");
        }
        assert_eq!(check("session_timeout", &json!(" 7 ")), Ok(("session_timeout", json!(7))));
        let unknown = check("quota_per_project_enable", &json!(true)).unwrap_err();
        assert!(unknown.to_string().contains("quota_per_project_enable"));
    }

    #[test]
    fn what_is_not_set_or_cannot_be_read_is_the_default() {
        let mut record = Configurations::default();
        let minutes = |record: &Configurations| Configured::of(record).session().as_secs() / 60;
        assert_eq!(minutes(&record), 480);
        record.values.insert("session_timeout".into(), "damaged".into());
        assert_eq!(minutes(&record), 480);
        record.values.insert("session_timeout".into(), "7".into());
        assert_eq!(minutes(&record), 7);
        assert_eq!(Configured::of(&record).all().count(), FIELDS.len());
    }
}
