//! Everything that is wrong, instead of the first thing: a scenario of a hundred small checks names
//! all that fail.

use std::cell::RefCell;

use crate::http::{Answer, Unanswered};
use crate::repository::Refusal;

/// What a scenario has to complain about.
#[derive(Debug, Default)]
pub struct Complaints(RefCell<Vec<String>>);

impl Complaints {
    /// Complains.
    pub fn add(&self, what: String) {
        self.0.borrow_mut().push(what);
    }

    /// Complains unless it is so.
    pub fn unless(&self, so: bool, what: impl FnOnce() -> String) {
        if !so {
            self.add(what());
        }
    }

    /// Complains unless the answer is a refusal: one of these statuses, the specification's
    /// envelope, one of these codes (any if none is named) and a word on what is wrong.
    pub fn unless_refused(
        &self,
        what: &str,
        answer: Result<Answer, Unanswered>,
        status: &[u16],
        codes: &[&str],
    ) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(none) => return self.add(format!("{what}: {none}")),
        };
        self.unless(status.contains(&answer.status), || {
            format!("{what}: {answer}; expected {status:?}")
        });
        match answer.envelope() {
            None if answer.status < 400 => {} // said above
            None => self.add(format!("{what}: not the specification's envelope: {answer}")),
            Some((code, message)) => {
                self.unless(codes.is_empty() || codes.contains(&code.as_str()), || {
                    format!("{what}: {answer}; expected {codes:?}")
                });
                self.unless(!message.trim().is_empty(), || {
                    format!("{what}: no word on what is wrong: {answer}")
                });
            }
        }
    }

    /// The same for something that must not have gone through.
    pub fn unless_failed<T>(
        &self,
        what: &str,
        outcome: Result<T, Refusal>,
        status: &[u16],
        codes: &[&str],
    ) {
        match outcome {
            Ok(_) => self.add(format!("{what}: was accepted")),
            Err(Refusal::Unanswered(none)) => self.add(format!("{what}: {none}")),
            Err(Refusal::Answered(answer)) => self.unless_refused(what, Ok(*answer), status, codes),
        }
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        let all = self.0.take();
        if !std::thread::panicking() {
            assert!(all.is_empty(), "{} complaints:\n- {}", all.len(), all.join("\n- "));
        } else if !all.is_empty() {
            eprintln!("{} complaints before that:\n- {}", all.len(), all.join("\n- "));
        }
    }
}
