//! What a node that starts is opening, and how far it is. Its HTTP port answers with this until the
//! node serves.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// What is opened now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Opening(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    what: &'static str,
    /// The share of the file that is checked, in percent, if a crash left it unfinished.
    checked: Option<u8>,
}

impl Opening {
    /// `what` is opened from now on, in words for operators: `the ledger (ledger/ledger.redb)`.
    pub fn begin(&self, what: &'static str) {
        *self.0.lock() = State { what, checked: None };
        tracing::debug!(what, "opening");
    }

    /// The file was not closed, and this share of it (0 to 1) is checked.
    pub(crate) fn checked(&self, share: f64) {
        let percent = (share.clamp(0.0, 1.0) * 100.0) as u8;
        let mut state = self.0.lock();
        let before = state.checked.replace(percent);
        if before.is_none_or(|before| before / 10 != percent / 10) {
            let what = state.what;
            tracing::info!(what, percent, "checking a file after a crash");
        }
    }
}

/// A sentence without an end: `opening the ledger (ledger/ledger.redb): 40 % of it is checked after
/// a crash`.
impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        match (state.what, state.checked) {
            ("", _) => f.write_str("about to open its files"),
            (what, None) => write!(f, "opening {what}"),
            (what, Some(percent)) => {
                write!(f, "opening {what}: {percent} % of it is checked after a crash")
            }
        }
    }
}
