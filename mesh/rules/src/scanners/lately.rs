//! What scanners said of themselves a moment ago. Anybody who may pull may ask how a scanner is, and a
//! scanner must not be asked as often.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::words::moment::{Moment, Timestamp};
use crate::words::names::ScannerId;

/// How long what a scanner has said does for whoever looks at it.
pub const LATELY: Duration = Duration::from_secs(10);

/// What each scanner said last, and when; as it was registered then.
#[derive(Debug)]
pub struct Lately<T>(BTreeMap<ScannerId, (Moment, Timestamp, T)>);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Lately(BTreeMap::new())
    }
}

impl<T: Clone> Lately<T> {
    /// What this scanner said within [`LATELY`], if its record has not `changed` since.
    pub fn said(&mut self, scanner: ScannerId, changed: Timestamp, now: Moment) -> Option<T> {
        self.0.retain(|_, (at, ..)| now.since(*at) < LATELY);
        let (_, of, said) = self.0.get(&scanner)?;
        (*of == changed).then(|| said.clone())
    }

    /// It has said this now.
    pub fn says(&mut self, scanner: ScannerId, changed: Timestamp, now: Moment, said: T) {
        self.0.insert(scanner, (now, changed, said));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_is_asked_again_after_a_while_and_when_its_record_changes() {
        let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
        let (one, other) = (ScannerId(1), ScannerId(2));
        let (was, is) = (Timestamp(1), Timestamp(2));
        let mut lately = Lately::default();
        assert_eq!(lately.said(one, was, at(100)), None);
        lately.says(one, was, at(100), "well");
        lately.says(other, was, at(105), "ill");
        assert_eq!(lately.said(one, was, at(109)), Some("well"));
        assert_eq!(lately.said(one, is, at(109)), None, "it has another address perhaps");
        assert_eq!(lately.said(one, was, at(110)), None);
        assert_eq!(lately.0.len(), 1, "what is old is forgotten");
        assert_eq!(lately.said(other, was, at(114)), Some("ill"));
    }
}
