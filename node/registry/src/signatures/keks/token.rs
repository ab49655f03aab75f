//! Key-encryption keys in a hardware security module.

use std::sync::Arc;

pub use hsm::Place;
use hsm::{Fault, Key, Token};
use rules::ledger::sign_log::KekId;
use sign::making::sealed::{SealedError, Wrapping, name_of};
use zeroize::Zeroizing;

/// A key in a token, with its label and the setting that names it.
struct InToken {
    key: Key,
    label: String,
    setting: &'static str,
}

/// The settings of the first key and of the one before it.
const SETTINGS: [&str; 2] = ["signing.hsm.key", "signing.hsm.previous_key"];

/// The keys with these labels in a token, in the order of [`SETTINGS`]. They are looked for from now
/// on; nothing waits for that.
///
/// # Errors
/// If the system has no thread.
pub fn in_token(place: Place, labels: Vec<String>) -> std::io::Result<Vec<Arc<dyn Wrapping>>> {
    let keys = Token::open(place, labels.clone())?;
    let keys = keys.into_iter().zip(labels).zip(SETTINGS);
    let keys = keys.map(|((key, label), setting)| {
        Arc::new(InToken { key, label, setting }) as Arc<dyn Wrapping>
    });
    Ok(keys.collect())
}

impl InToken {
    /// What failed, with the setting that it is about and what helps.
    fn told(&self, fault: Fault) -> SealedError {
        let InToken { label, setting, .. } = self;
        SealedError::Unusable(match fault {
            Fault::Beginning => return SealedError::Beginning,
            Fault::Closed => return SealedError::Closed,
            Fault::Module(why) => format!("signing.hsm.module: {why}"),
            Fault::Token(why) => format!("signing.hsm.token: {why}"),
            Fault::Pin(why) => format!("signing.hsm.pin_file: {why}"),
            Fault::Key(why) => format!(
                "{setting}: {why} (pkcs11-tool --keygen --key-type AES:32 --label {label} makes one)"
            ),
            fault @ (Fault::Failed(_) | Fault::Silent) => {
                format!("signing.hsm: {fault}; it is tried again, see the module's own log")
            }
        })
    }
}

impl Wrapping for InToken {
    fn id(&self) -> Result<KekId, SealedError> {
        self.key.sample().map(|sample| name_of(&sample)).map_err(|fault| self.told(fault))
    }

    fn wrap(&self, private: &[u8], binding: &[u8]) -> Result<Vec<u8>, SealedError> {
        self.key.wrap(private, binding).map_err(|fault| self.told(fault))
    }

    fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        self.key.unwrap(wrapped, binding).map_err(|fault| self.told(fault))
    }
}
