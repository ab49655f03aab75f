//! When a scanner is asked whether its report is there.
//!
//! There is one deadline for a scan, from its beginning. Harbor's client arms its timer anew with each
//! answer (`src/pkg/scan/job.go`), so that a scanner which always answers "not yet" is asked for ever.

use std::time::Duration;

use crate::words::moment::Moment;

/// The time until the first question.
const FIRST: Duration = Duration::from_secs(1);
/// The time between two questions if the scanner does not say it (Harbor's).
const USUAL: Duration = Duration::from_secs(5);
/// The most seconds that `Refresh-After` may say (Harbor reads an int8). More counts as nothing.
const MOST_SAID: u64 = 127;
/// The longest time between two questions, whatever the scanner says: a report that is there should
/// not wait.
const LONGEST: Duration = Duration::from_secs(30);

/// The questions about one report.
#[derive(Clone, Copy, Debug)]
pub struct Polling {
    next: Moment,
    end: Moment,
}

impl Polling {
    /// A scan was begun at `now`, and may take so long.
    pub fn new(now: Moment, most: Duration) -> Self {
        Polling { next: now + FIRST, end: now + most }
    }

    /// How long to wait until the next question; `None` if the deadline comes first.
    pub fn wait(&self, now: Moment) -> Option<Duration> {
        (self.next < self.end).then(|| self.next.since(now))
    }

    /// The scanner has answered that there is no report yet, with this in `Refresh-After`.
    pub fn handle_not_yet(&mut self, now: Moment, refresh_after: Option<&str>) {
        let said = refresh_after.and_then(|text| text.trim().parse::<u64>().ok());
        let said = said.filter(|seconds| (1..=MOST_SAID).contains(seconds));
        self.next = now + said.map_or(USUAL, Duration::from_secs).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_that_is_never_ready_is_given_up_at_one_deadline() {
        let begun = Moment::from_micros(1_000_000);
        let (mut polling, mut now, mut asked) =
            (Polling::new(begun, Duration::from_secs(60)), begun, 0);
        while let Some(wait) = polling.wait(now) {
            now = now + wait;
            asked += 1;
            polling.handle_not_yet(now, Some("3"));
        }
        assert_eq!(asked, 20, "at 1, 4, 7 .. 58 s");
        assert!(now.since(begun) < Duration::from_secs(60));
    }

    #[test]
    fn what_a_scanner_says_of_the_next_question_is_taken_within_bounds() {
        let now = Moment::from_micros(0);
        let pause = |said| {
            let mut polling = Polling::new(now, Duration::from_secs(3600));
            polling.handle_not_yet(now, said);
            polling.wait(now).unwrap().as_secs()
        };
        assert_eq!([None, Some(""), Some("soon"), Some("0"), Some("-1")].map(pause), [5; 5]);
        assert_eq!([Some("1"), Some(" 7 "), Some("127"), Some("128")].map(pause), [1, 7, 30, 5]);
        assert_eq!(pause(Some("99999999999999999999")), 5);
    }
}
