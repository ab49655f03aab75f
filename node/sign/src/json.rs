//! JSON, base64 and times, as strangers write them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rules::policies::signatures::LONGEST_TEXT;
use rules::words::moment::{self, Timestamp};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// The maximum number of claims of one signature that are kept.
const MOST_CLAIMS: usize = 32;
/// The maximum length of a claim's name, in bytes.
const LONGEST_NAME: usize = 128;

/// An object in which no name is written twice. Readers disagree on which of two counts, so one could
/// be shown a digest and another could check another.
pub(crate) struct Unique<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Fields<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("{name:?} is written twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Unique(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Standard base64, with its padding.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

/// Whether a text is short and has no control characters.
pub(crate) fn is_short(text: &str) -> bool {
    text.len() <= LONGEST_TEXT && !text.contains(char::is_control)
}

/// What of these values is short text. At most 32 values are kept, those with the first names.
pub(crate) fn claims(values: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let texts = values.into_iter().filter_map(|(name, value)| match value {
        Value::String(text) if name.len() <= LONGEST_NAME && is_short(&name) && is_short(&text) => {
            Some((name, text))
        }
        _ => None,
    });
    texts.take(MOST_CLAIMS).collect()
}

/// A time of RFC 3339, with any offset; to the second.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let (date, clock) = text.split_once(['T', 't'])?;
    let at = clock.find(['Z', 'z', '+', '-'])?;
    let (clock, offset) = clock.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let time = moment::read(&format!("{date}T{clock}Z"))?;
    if matches!(offset, "Z" | "z") {
        return Some(time);
    }
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let part = |text: &str, most: u64| {
        let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<u64>().ok()).flatten().filter(|number| *number <= most)
    };
    let shift = Duration::from_secs(part(hours, 23)? * 3600 + part(minutes, 59)? * 60);
    match offset.starts_with('+') {
        true => time.0.checked_sub(shift.as_millis() as u64).map(Timestamp),
        false => Some(time.after(shift)),
    }
}

/// Seconds since the Unix epoch. Times before it are taken for it.
pub(crate) fn seconds(seconds: i64) -> Timestamp {
    Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_any_offset() {
        let read = |text: &str| time(text).map(|time| time.to_string());
        let noon = Some("2026-11-30T12:00:00Z".to_owned());
        for text in [
            "2026-11-30T12:00:00Z",
            "2026-11-30T13:00:00+01:00",
            "2026-11-30T06:30:00-05:30",
            "2026-11-30T12:00:00.123456789Z",
        ] {
            assert_eq!(read(text), noon, "{text}");
        }
        for wrong in [
            "",
            "2026-11-30",
            "2026-11-30T12:00:00",
            "2026-11-30T12:00:00.Z",
            "2026-11-30T12:00:00+1:00",
            "2026-11-30T12:00:00+é:00",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_that_is_written_twice_is_refused() {
        let read = |text: &str| serde_json::from_str::<Unique<Value>>(text).map(|map| map.0.len());
        assert_eq!(read(r#"{"a":1,"b":2}"#).ok(), Some(2));
        assert!(read(r#"{"a":1,"a":2}"#).is_err_and(|e| e.to_string().contains("twice")));
    }

    #[test]
    fn claims_are_few_and_short() {
        let long = "x".repeat(LONGEST_TEXT + 1);
        let mut values: BTreeMap<String, Value> =
            (0..99).map(|n| (format!("n{n:02}"), Value::from("v"))).collect();
        values.insert("a".into(), long.into());
        values.insert("b".into(), 7.into());
        values.insert("c".into(), "kept".into());
        values.insert("d".into(), "\u{1b}[31mred".into());
        let kept = claims(values);
        assert_eq!(
            (kept.len(), kept.contains_key("a"), kept.contains_key("b")),
            (32, false, false)
        );
        assert_eq!(kept["c"], "kept");
    }
}
