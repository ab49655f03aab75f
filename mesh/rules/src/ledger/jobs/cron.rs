//! Times that repeat, as cron writes them: five fields (minute, hour, day, month, day of the week)
//! or six (a second before them). All times are UTC.
//!
//! The reader is our own: the crates that read cron bring a calendar of their own with them
//! (chrono, jiff), which the rules must not reach, and all that is needed is below.
//!
//! As in cron, and in Harbor's scheduler: if both the day of the month and the day of the week are
//! given, either of them is enough. A field with `*` counts as not given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::moment::{Timestamp, civil_from_days};

const DAY: u64 = 86_400;
/// How many days are looked through for the next time: two leap years are at most eight years
/// apart, and seven of those bring any weekday to any date.
const LOOK: u64 = 8 * 366 * 7;
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Why a text is no schedule, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCron(String);

/// A schedule. It is at most once a minute, and at least once in some years.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    written: String,
    second: u32,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    either_day: bool,
}

impl Cron {
    /// The first time after `after`. `None` only at the end of all times.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let first = (after.0 / 1000).checked_add(1)?;
        let (today, mut second_of_day) = (first / DAY, first % DAY);
        for day in today..today.checked_add(LOOK)? {
            if self.has_day(day)
                && let Some(second) = self.in_day(second_of_day)
            {
                return (day * DAY + second).checked_mul(1000).map(Timestamp);
            }
            second_of_day = 0;
        }
        None
    }

    fn has_day(&self, days: u64) -> bool {
        let (_, month, day) = civil_from_days(days as i64);
        // 1970-01-01 was a Thursday
        let weekday = (days + 4) % 7;
        let (day, weekday) = (has(self.day, u64::from(day)), has(self.weekday, weekday));
        let right = if self.either_day { day || weekday } else { day && weekday };
        has(self.month, u64::from(month)) && right
    }

    /// The first second of a day that fits, not before `from`.
    fn in_day(&self, from: u64) -> Option<u64> {
        let second = u64::from(self.second);
        (from / 60..DAY / 60)
            .filter(|minute| has(self.hour, minute / 60) && has(self.minute, minute % 60))
            .map(|minute| minute * 60 + second)
            .find(|time| *time >= from)
    }
}

fn has(set: u64, number: u64) -> bool {
    set >> number & 1 == 1
}

impl FromStr for Cron {
    type Err = BadCron;

    fn from_str(text: &str) -> Result<Self, BadCron> {
        if text.len() > 200 {
            return Err(BadCron("a schedule has at most 200 characters".into()));
        }
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let (second, rest) = match fields.as_slice() {
            [_, _, _, _, _] => ("0", fields.as_slice()),
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            _ => {
                return Err(BadCron(format!(
                    "'{text}' has {} fields; a schedule has five (minute, hour, day, month, day of the week) or six (a second before them), e.g. 0 3 * * *",
                    fields.len()
                )));
            }
        };
        let (seconds, _) = field("second", second, 0, 59, &[])?;
        if seconds.count_ones() != 1 {
            return Err(BadCron(format!(
                "'{text}' is more often than once a minute; write one number for the second"
            )));
        }
        let (minute, _) = field("minute", rest[0], 0, 59, &[])?;
        let (hour, _) = field("hour", rest[1], 0, 23, &[])?;
        let (day, any_day) = field("day of the month", rest[2], 1, 31, &[])?;
        let (month, _) = field("month", rest[3], 1, 12, &MONTHS)?;
        let (weekday, any_weekday) = field("day of the week", rest[4], 0, 7, &WEEKDAYS)?;
        let cron = Cron {
            written: format!("{second} {}", rest.join(" ")),
            second: seconds.trailing_zeros(),
            minute,
            hour,
            day,
            month,
            // 7 is Sunday, too
            weekday: weekday & 0x7f | weekday >> 7,
            either_day: !any_day && !any_weekday,
        };
        match cron.next(Timestamp(0)) {
            Some(_) => Ok(cron),
            None => Err(BadCron(format!("'{text}' never comes: no such month has such a day"))),
        }
    }
}

/// Reads a field: the numbers in it as a set of bits, and whether it says nothing (`*`).
fn field(
    name: &str,
    text: &str,
    low: u64,
    high: u64,
    words: &[&str],
) -> Result<(u64, bool), BadCron> {
    let wrong = |part: &str| {
        BadCron(format!(
            "'{part}' is no {name}; write numbers of {low} to {high}, ranges (1-5), steps (*/10) or lists (1,15)"
        ))
    };
    let number = |part: &str, whole: &str| {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(part));
        // months count from 1, weekdays from 0
        let word = word.map(|at| at as u64 + low.min(1));
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let read = word.or_else(|| digits.then(|| part.parse().ok()).flatten());
        read.filter(|n| (low..=high).contains(n)).ok_or_else(|| wrong(whole))
    };
    let (mut set, mut any) = (0, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let read = step.parse::<u64>().ok();
                let read = read.filter(|_| step.bytes().all(|b| b.is_ascii_digit()));
                (range, Some(read.filter(|n| (1..=high).contains(n)).ok_or_else(|| wrong(part))?))
            }
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" || range == "?" => {
                any |= step.is_none_or(|step| step == 1);
                // 7 would be Sunday again
                (low, if words.len() == 7 { 6 } else { high })
            }
            Some((from, to)) => (number(from, part)?, number(to, part)?),
            None => {
                let from = number(range, part)?;
                (from, if step.is_some() { high } else { from })
            }
        };
        if from > to {
            return Err(wrong(part));
        }
        for n in (from..=to).step_by(step.unwrap_or(1) as usize) {
            set |= 1 << n;
        }
    }
    Ok((set, any))
}

impl fmt::Display for Cron {
    /// With six fields, as Harbor writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> String {
        cron.written
    }
}

impl TryFrom<String> for Cron {
    type Error = BadCron;
    fn try_from(text: String) -> Result<Self, BadCron> {
        text.parse()
    }
}

/// The schedule of Harbor's `{"type": .., "cron": ..}`; `None` for the type `None`, which means no
/// schedule.
pub fn harbor(kind: &str, cron: &str) -> Result<Option<Cron>, BadCron> {
    let text = match kind {
        "None" | "Manual" => return Ok(None),
        "Hourly" => "0 0 * * * *",
        "Daily" => "0 0 0 * * *",
        "Weekly" => "0 0 0 * * 0",
        "Custom" => cron,
        other => {
            return Err(BadCron(format!(
                "'{other}' is no type of a schedule; write Hourly, Daily, Weekly, Custom (with cron) or None"
            )));
        }
    };
    text.parse().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-29T02:00:00Z, a Sunday.
    const NOW: Timestamp = Timestamp(1_795_917_600_000);

    fn next(text: &str) -> String {
        text.parse::<Cron>().unwrap().next(NOW).unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_the_first_that_fits_and_later_than_now() {
        for (text, then) in [
            ("* * * * *", "2026-11-29T02:01:00Z"),
            ("0 0 * * *", "2026-11-30T00:00:00Z"),
            ("0 0 0 * * *", "2026-11-30T00:00:00Z"),
            ("30 0 2 * * *", "2026-11-29T02:00:30Z"),
            ("0 2 * * *", "2026-11-30T02:00:00Z"),
            ("*/15 * * * *", "2026-11-29T02:15:00Z"),
            ("5/20 2 * * *", "2026-11-29T02:05:00Z"),
            ("0 3 1 * *", "2026-12-01T03:00:00Z"),
            ("0 0 31 * *", "2026-12-31T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("0 0 29 feb mon", "2027-02-01T00:00:00Z"),
            ("0 0 * * 7", "2026-12-06T00:00:00Z"),
            ("0 0 * * SUN", "2026-12-06T00:00:00Z"),
            ("0 12 * * mon-fri", "2026-11-30T12:00:00Z"),
            ("0 0 1,15 * ?", "2026-12-01T00:00:00Z"),
            ("59 59 23 31 12 *", "2026-12-31T23:59:59Z"),
            ("0 0 13 * 5", "2026-12-04T00:00:00Z"),
        ] {
            assert_eq!(next(text), then, "{text}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("* * * * * * *", "7 fields"),
            ("60 * * * *", "0 to 59"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of the week"),
            ("5-1 * * * *", "'5-1'"),
            ("*/0 * * * *", "'*/0'"),
            ("+5 * * * *", "'+5'"),
            ("1,,2 * * * *", "'' is no minute"),
            ("a * * * *", "'a'"),
            ("* * * * * *", "once a minute"),
            ("0,30 * * * * *", "once a minute"),
            ("0 0 30 2 *", "never"),
            ("0 0 31 4,6,9,11 *", "never"),
        ] {
            let error = text.parse::<Cron>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn harbors_words_are_its_own_six_fields() {
        let six = |kind, cron| harbor(kind, cron).unwrap().map(|cron| cron.to_string());
        assert_eq!(six("Hourly", "").as_deref(), Some("0 0 * * * *"));
        assert_eq!(six("Daily", "ignored").as_deref(), Some("0 0 0 * * *"));
        assert_eq!(six("Weekly", "").as_deref(), Some("0 0 0 * * 0"));
        assert_eq!(six("Custom", "0 3 * * *").as_deref(), Some("0 0 3 * * *"));
        assert_eq!(six("None", ""), None);
        assert!(harbor("daily", "").is_err() && harbor("Custom", "").is_err());
    }

    fn fields() -> impl Strategy<Value = String> {
        let number = |low: u64, high: u64| {
            prop_oneof![
                Just("*".to_owned()),
                (low..=high).prop_map(|n| n.to_string()),
                (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
                (1..=high).prop_map(|n| format!("*/{n}")),
                (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
            ]
        };
        (0u64..60, number(0, 59), number(0, 23), number(1, 31), number(1, 12), number(0, 6))
            .prop_map(|(s, m, h, d, mo, w)| format!("{s} {m} {h} {d} {mo} {w}"))
    }

    proptest! {
        /// Against the plain meaning: minute by minute, the first that fits is the next.
        #[test]
        fn nothing_that_fits_is_passed_over(text in fields(), at in 0u64..4_000_000_000) {
            let Ok(cron) = text.parse::<Cron>() else { return Ok(()) };
            let next = cron.next(Timestamp(at * 1000)).unwrap().0 / 1000;
            prop_assert!(next > at);
            let fits = |time: u64| {
                let (days, rest) = (time / DAY, time % DAY);
                cron.has_day(days) && has(cron.hour, rest / 3600)
                    && has(cron.minute, rest / 60 % 60) && u64::from(cron.second) == rest % 60
            };
            prop_assert!(fits(next));
            for time in at + 1..next.min(at + 2 * DAY) {
                prop_assert!(!fits(time), "{text}: {time} was passed over");
            }
            prop_assert_eq!(cron.to_string().parse::<Cron>().unwrap(), cron);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9*/,?a-zA-Z -]{0,40}") {
            let _ = text.parse::<Cron>();
        }
    }
}
