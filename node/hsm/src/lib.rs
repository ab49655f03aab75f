//! Keys in a hardware security module (PKCS#11), and what they wrap and unwrap.
//!
//! A module is a library of its maker's that may hang, and that may not be called by two threads at
//! a time. So [`Token`] gives it one thread of its own, and nobody waits for that longer than
//! [`DEADLINE`]. Every [`LOOK`] the thread asks whether the keys are there.

mod module;
mod place;
mod token;

pub use place::{Fault, Place, Wrapped};
pub use token::{Key, Token};

use std::time::Duration;

/// The longest time that somebody waits for the module.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The time between two looks whether the keys can be used.
pub const LOOK: Duration = Duration::from_secs(5);
