//! Schedules of the whole mesh in Harbor's form (`handler/schedule.go`): now, never, or at times.

use ground::clock;
use rules::ledger::jobs::cron::Cron;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bad;
use crate::http::Failure;

/// Harbor's words for schedules, and what they mean.
const WORDS: [(&str, &str); 3] =
    [("Hourly", "0 0 * * * *"), ("Daily", "0 0 0 * * *"), ("Weekly", "0 0 0 * * 0")];

/// `schedule` of a body.
#[derive(Deserialize)]
pub(super) struct Times {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    cron: Option<String>,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Now,
    Never,
    At(Cron),
}

impl Times {
    pub(super) fn wants(&self) -> Result<Wants, Failure> {
        let word = WORDS.iter().find(|(word, _)| *word == self.kind);
        let cron = match (self.kind.as_str(), word, self.cron.as_deref()) {
            ("Manual", ..) => return Ok(Wants::Now),
            ("None" | "", ..) => return Ok(Wants::Never),
            // Harbor takes the client's times, if there are some
            (_, Some(_), Some(cron)) if !cron.is_empty() => cron,
            (_, Some((_, cron)), _) => cron,
            ("Custom", _, Some(cron)) => cron,
            _ => {
                return Err(bad(
                    "schedule.type is Hourly, Daily, Weekly, Custom (with schedule.cron), None or Manual",
                ));
            }
        };
        cron.parse().map(Wants::At).map_err(|e| bad(format!("schedule.cron: {e}")))
    }
}

/// `schedule` of an answer; null if there is none.
pub(super) fn show(cron: &str) -> Value {
    let Ok(times) = cron.parse::<Cron>() else { return Value::Null };
    let word = WORDS.iter().find(|(_, of)| *of == cron).map_or("Custom", |(word, _)| word);
    let next = times.next(clock::timestamp());
    json!({
        "type": word,
        "cron": cron,
        "next_scheduled_time": next.map(|next| next.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harbors_words_are_times_and_a_clients_own_times_come_first() {
        let times = |kind: &str, cron: Option<&str>| {
            Times { kind: kind.into(), cron: cron.map(str::to_owned) }.wants()
        };
        let at = |cron: &str| Wants::At(cron.parse().unwrap());
        assert_eq!(times("Daily", None).unwrap(), at("0 0 0 * * *"));
        assert_eq!(times("Daily", Some("0 0 4 * * *")).unwrap(), at("0 0 4 * * *"));
        assert_eq!(times("Custom", Some("5 4 * * 1")).unwrap(), at("0 5 4 * * 1"));
        assert_eq!(times("Manual", Some("x")).unwrap(), Wants::Now);
        assert_eq!(times("None", None).unwrap(), Wants::Never);
        for (kind, cron) in [("Custom", None), ("Custom", Some("never")), ("Yearly", Some(""))] {
            assert!(times(kind, cron).is_err(), "{kind}");
        }
        assert_eq!(show("0 0 0 * * *")["type"], "Daily");
        assert_eq!(show("0 5 4 * * 1")["type"], "Custom");
        assert_eq!(show(""), Value::Null);
    }
}
