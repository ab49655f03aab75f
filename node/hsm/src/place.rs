//! Where a key is, and why it cannot be used.

use std::path::PathBuf;

use crate::DEADLINE;

/// Where a token is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The maker's library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The file with the user's PIN. It is read at each login.
    pub pin_file: PathBuf,
}

/// Why a key cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not looked for yet.
    #[error("it is not looked for yet")]
    Beginning,
    /// The library cannot be loaded.
    #[error("{0}")]
    Module(String),
    /// The token is not there.
    #[error("{0}")]
    Token(String),
    /// The PIN cannot be read, or the token refuses it.
    #[error("{0}")]
    Pin(String),
    /// The key is not there, or there are several, or it is not usable at all.
    #[error("{0}")]
    Key(String),
    /// The module has failed otherwise.
    #[error("{0}")]
    Failed(String),
    /// The module does not answer.
    #[error("the module has not answered for {} s", DEADLINE.as_secs())]
    Silent,
    /// What is to be unwrapped was wrapped with another key or another binding, or is damaged.
    #[error("it was wrapped with another key or for another place, or it is damaged")]
    Closed,
}

/// What is wrapped, as it is stored.
pub type Wrapped = Vec<u8>;
