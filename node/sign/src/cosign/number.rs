//! Numbers of 64 bits in protobuf's JSON.

use serde::Deserialize;

/// A number of 64 bits, which protobuf's JSON writes as a text, and leaves out if it is 0.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Text(String),
    Number(i64),
}

impl Default for Number {
    fn default() -> Self {
        Number::Number(0)
    }
}

impl Number {
    /// Its value, if it is one.
    pub(super) fn value(&self) -> Option<i64> {
        match self {
            Number::Text(text) => text.parse().ok(),
            Number::Number(number) => Some(*number),
        }
    }
}
