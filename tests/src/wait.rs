//! Waiting for a condition: poll it, and give up loudly.
//!
//! Deadlines only keep a broken mesh from hanging the run. They are generous and say nothing about
//! speed.

use std::time::{Duration, Instant};

/// Long enough for anything that must happen at all, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The value `probe` comes up with, asked again and again.
///
/// # Panics
/// When it has none for as long as [`PATIENCE`]; the message says what was waited for.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, probe).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain until {what}"))
}

/// The value `probe` comes up with before the time is over, or nothing.
pub fn within<T>(time: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Like [`until`], for a probe that knows why it is not yet so; the last reason ends up in the
/// message.
///
/// # Panics
/// When the probe still fails after [`PATIENCE`].
pub fn until_ok<T, E: std::fmt::Display>(what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    let found = within(PATIENCE, || probe().map_err(|reason| last = reason.to_string()).ok());
    found.unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain until {what}; last: {last}"))
}
