//! What a database says about itself: `metadata.json`.

use rules::words::moment::Timestamp;
use serde::{Deserialize, Serialize};

use super::DatabaseError;

/// The schema that this build reads.
pub(super) const SCHEMA: u64 = 2;

/// What a database says about itself (`metadata.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The number of its schema.
    pub version: u64,
    /// When it was made.
    pub updated_at: Timestamp,
    /// When the next one should be there.
    pub next_update: Timestamp,
}

/// The file's form (trivy-db, `pkg/metadata`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(default)]
    version: u64,
    updated_at: String,
    next_update: String,
}

impl About {
    /// Reads `metadata.json`. A schema other than 2 is an error.
    pub(super) fn parse(bytes: &[u8]) -> Result<About, DatabaseError> {
        let told: Metadata = serde_json::from_slice(bytes)
            .map_err(|error| DatabaseError::Damaged(format!("its metadata.json: {error}")))?;
        if told.version != SCHEMA {
            return Err(DatabaseError::Schema(told.version));
        }
        let time = |text: &str| {
            let wrong =
                || DatabaseError::Damaged(format!("its metadata.json: {text:?} is no time"));
            timestamp(text).ok_or_else(wrong)
        };
        Ok(About {
            version: told.version,
            updated_at: time(&told.updated_at)?,
            next_update: time(&told.next_update)?,
        })
    }
}

/// The moment that RFC 3339 writes so, or `None` for another text. Times before 1970 are 1970 (Go writes the year 1 for none).
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let between = |at: usize, allowed: &str| -> Option<()> {
        allowed.contains(char::from(*text.as_bytes().get(at)?)).then_some(())
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    for (at, allowed) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        between(at, allowed)?;
    }
    let good = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !good || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let fraction = rest
        .strip_prefix('.')
        .map_or(0, |more| 1 + more.bytes().take_while(u8::is_ascii_digit).count());
    let millis: i64 = match rest.get(1..fraction) {
        Some(digits) if fraction > 1 => format!("{digits:0<3}").get(..3)?.parse().ok()?,
        _ => 0,
    };
    let zone = rest.get(fraction..)?;
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(4..6)?.parse().ok()?;
            let offset = (hours * 60 + minutes) * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Timestamp(u64::try_from(seconds * 1000 + millis).unwrap_or_default()))
}

/// Howard Hinnant's `days_from_civil`: days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_go_are_read() {
        let read = |text| timestamp(text).map(|time| (time.0 % 1000, time.to_string()));
        let at = |millis, text: &str| Some((millis, text.to_owned()));
        assert_eq!(read("2024-02-29T12:34:56Z"), at(0, "2024-02-29T12:34:56Z"));
        assert_eq!(read("2026-08-13T06:15:54.123456789Z"), at(123, "2026-08-13T06:15:54Z"));
        assert_eq!(read("2026-08-13T06:15:54.5+02:00"), at(500, "2026-08-13T04:15:54Z"));
        assert_eq!(read("2025-12-31T23:59:59-00:30"), at(0, "2026-01-01T00:29:59Z"));
        assert_eq!(read("0001-01-01T00:00:00Z"), at(0, "1970-01-01T00:00:00Z"));
        for wrong in
            ["", "2024-02-29", "2024-13-01T00:00:00Z", "2024-02-29T12:34:56", "é024-02-29T"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn another_schema_is_refused() {
        let metadata = |version: u64| {
            format!(
                "{{\"Version\":{version},\"UpdatedAt\":\"2026-01-01T00:00:00Z\",\
                 \"NextUpdate\":\"2026-01-02T00:00:00Z\"}}"
            )
        };
        let about = About::parse(metadata(2).as_bytes()).expect("schema 2");
        assert_eq!(about.next_update.0 - about.updated_at.0, 86_400_000);
        assert!(matches!(About::parse(metadata(3).as_bytes()), Err(DatabaseError::Schema(3))));
        assert!(matches!(About::parse(b"{}"), Err(DatabaseError::Damaged(_))));
    }
}
