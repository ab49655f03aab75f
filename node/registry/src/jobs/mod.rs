//! Background work, for which no client waits.

pub mod preheats;
