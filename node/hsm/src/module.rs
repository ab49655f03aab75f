//! The module itself, as the one thread sees it that may call it.

use std::path::Path;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::place::{Fault, Place};

/// The length of a nonce.
const NONCE: usize = 12;
/// The length of the tag in bits.
const TAG: u64 = 128;
/// What every key encrypts to show which it is. Nothing else is encrypted with the nonce of zeros:
/// all others are random.
const SAMPLE: &[u8] = b"atoll key-encryption key 1";

/// An open session with a token.
struct Open {
    session: Session,
    module: Pkcs11,
}

/// What the thread has of the module.
pub(crate) struct Module {
    place: Place,
    open: Option<Open>,
    /// A PIN that was refused: the same one is not shown again, because tokens count.
    refused: Option<Zeroizing<Vec<u8>>>,
}

/// An error in few words: the crate's own are paragraphs of the standard.
fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(error, function) => format!("{function} says {error:?}"),
        error => error.to_string(),
    }
}

fn failed(what: &str) -> impl Fn(Error) -> Fault {
    move |error| Fault::Failed(format!("{what}: {}", said(&error)))
}

fn end(module: Pkcs11) {
    if let Err(error) = module.finalize() {
        tracing::debug!(%error, "a PKCS#11 module does not end in order");
    }
}

impl Module {
    pub(crate) fn new(place: Place) -> Self {
        Module { place, open: None, refused: None }
    }

    /// Forgets the session: the next call begins anew.
    pub(crate) fn close(&mut self) {
        let Some(Open { session, module }) = self.open.take() else { return };
        drop(session);
        end(module);
    }

    fn session(&mut self) -> Result<&Session, Fault> {
        if self.open.is_none() {
            let pin = self.pin()?;
            let module = load(&self.place.module)?;
            match log_in(&module, &self.place, &pin) {
                Ok(session) => {
                    self.refused = None;
                    self.open = Some(Open { session, module });
                }
                Err(fault) => {
                    if matches!(fault, Fault::Pin(_)) {
                        self.refused = Some(pin);
                    }
                    end(module);
                    return Err(fault);
                }
            }
        }
        let open = self.open.as_ref();
        open.map(|open| &open.session).ok_or_else(|| Fault::Failed("no session".into()))
    }

    fn pin(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let file = &self.place.pin_file;
        let read = std::fs::read(file).map(Zeroizing::new);
        let read = read.map_err(|error| Fault::Pin(format!("{}: {error}", file.display())))?;
        let pin = Zeroizing::new(read.trim_ascii().to_vec());
        if self.refused.as_ref() == Some(&pin) {
            return Err(Fault::Pin(format!(
                "the token has refused the PIN in {}; it is not shown again until the file changes",
                file.display()
            )));
        }
        Ok(pin)
    }

    fn find(&mut self, label: &str) -> Result<(&Session, ObjectHandle), Fault> {
        let (key, token) = (label.to_owned(), self.place.token.clone());
        let session = self.session()?;
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
        ];
        let found = session.find_objects(&wanted).map_err(failed("keys cannot be listed"))?;
        match found[..] {
            [one] => Ok((session, one)),
            [] => Err(Fault::Key(format!("the token {token} has no AES key {key}"))),
            _ => Err(Fault::Key(format!("the token {token} has several AES keys {key}"))),
        }
    }

    /// What the key makes of the same bytes each time: it tells the key from others.
    pub(crate) fn sample(&mut self, label: &str) -> Result<Vec<u8>, Fault> {
        let (session, key) = self.find(label)?;
        let mut nonce = [0; NONCE];
        let sample = encrypt(session, key, &mut nonce, SAMPLE, SAMPLE)?;
        match nonce == [0; NONCE] {
            true => Ok(sample),
            false => Err(Fault::Key("the module chooses nonces itself, so its keys cannot be told apart: it cannot be used".into())),
        }
    }

    pub(crate) fn wrap(
        &mut self,
        label: &str,
        private: &[u8],
        binding: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let (session, key) = self.find(label)?;
        let mut nonce: [u8; NONCE] = rand::random();
        let wrapped = encrypt(session, key, &mut nonce, binding, private)?;
        Ok([&nonce[..], &wrapped].concat())
    }

    pub(crate) fn unwrap(
        &mut self,
        label: &str,
        wrapped: &[u8],
        binding: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let (nonce, wrapped) = wrapped.split_at_checked(NONCE).ok_or(Fault::Closed)?;
        let mut nonce = nonce.to_vec();
        let (session, key) = self.find(label)?;
        let params = GcmParams::new(&mut nonce, binding, TAG.into()).map_err(failed("AES-GCM"))?;
        let opened = session.decrypt(&Mechanism::AesGcm(params), key, wrapped);
        match opened {
            Ok(private) => Ok(Zeroizing::new(private)),
            Err(error) => {
                // modules say the most different things of a tag that is wrong: one that still
                // encrypts has not failed
                match self.sample(label) {
                    Ok(_) => Err(Fault::Closed),
                    Err(_) => Err(failed("it does not decrypt")(error)),
                }
            }
        }
    }
}

/// What a maker's library finds its settings or its tokens by, if that is not where it looks otherwise.
const SETTINGS: [(&str, &str); 5] = [
    ("softhsm", "SOFTHSM2_CONF"),
    ("tpm2_pkcs11", "TPM2_PKCS11_STORE"),
    ("yubihsm", "YUBIHSM_PKCS11_CONF"),
    ("cryptoki", "ChrystokiConfigurationPath"),
    ("cs_pkcs11", "CS_PKCS11_R3_CFG"),
];

/// What may help if a library finds nothing: a variable of its maker's that the service lacks.
fn hint(module: &Path, is_set: impl Fn(&str) -> bool) -> String {
    let name = module.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let known = SETTINGS.iter().find(|(library, _)| name.contains(library));
    match known.filter(|(_, variable)| !is_set(variable)) {
        Some((_, variable)) => format!(
            " (the library may need {variable}, which is not set for this process; with systemd: \
             Environment={variable}=...)"
        ),
        None => String::new(),
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

/// What a library or its loader says, after the library's path, once.
fn with_path(module: &Path, said: &str) -> String {
    let path = module.display().to_string();
    if said.contains(&path) { said.to_owned() } else { format!("{path}: {said}") }
}

fn load(module: &Path) -> Result<Pkcs11, Fault> {
    let at = |error: Error| Fault::Module(with_path(module, &said(&error)) + &hint(module, is_set));
    let loaded = Pkcs11::new(module).map_err(at)?;
    match loaded.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // when its last end went wrong
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(loaded),
        Err(error) => Err(at(error)),
    }
}

fn log_in(module: &Pkcs11, place: &Place, pin: &[u8]) -> Result<Session, Fault> {
    let token = &place.token;
    let slots = module.get_slots_with_token().map_err(failed("slots cannot be listed"))?;
    let mut found = Vec::new();
    for slot in slots {
        // a slot that says nothing is not ours to mend
        let info = module.get_token_info(slot);
        if info.is_ok_and(|info| info.token_initialized() && info.label() == *token) {
            found.push(slot);
        }
    }
    let slot = match found[..] {
        [one] => one,
        [] => {
            let hint = hint(&place.module, is_set);
            return Err(Fault::Token(format!("there is no token {token}{hint}")));
        }
        _ => return Err(Fault::Token(format!("there are several tokens {token}"))),
    };
    let session = module.open_ro_session(slot).map_err(failed("no session"))?;
    let pin = std::str::from_utf8(pin).map_err(|_| Fault::Pin("the PIN is no text".into()))?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(Error::Pkcs11(
            error @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked),
            _,
        )) => Err(Fault::Pin(format!("the token {token} refuses the PIN ({error:?})"))),
        Err(error) => Err(failed("nobody can log in")(error)),
    }
}

fn encrypt(
    session: &Session,
    key: ObjectHandle,
    nonce: &mut [u8; NONCE],
    binding: &[u8],
    clear: &[u8],
) -> Result<Vec<u8>, Fault> {
    let params = GcmParams::new(nonce, binding, TAG.into()).map_err(failed("AES-GCM"))?;
    session.encrypt(&Mechanism::AesGcm(params), key, clear).map_err(failed("it does not encrypt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_finds_nothing_is_told_with_what_it_may_lack() {
        let softhsm = Path::new("/usr/lib/softhsm/libsofthsm2.so");
        assert!(hint(softhsm, |_| false).contains("SOFTHSM2_CONF, which is not set"));
        assert_eq!(hint(softhsm, |variable| variable == "SOFTHSM2_CONF"), "");
        assert_eq!(hint(Path::new("/opt/maker/libother.so"), |_| false), "");
        assert!(
            hint(Path::new("/usr/safenet/libCryptoki2_64.so"), |_| false).contains("Chrystoki")
        );
    }

    #[test]
    fn the_path_of_a_library_is_said_once() {
        let path = Path::new("/x/lib.so");
        let loader = "/x/lib.so: cannot open shared object file";
        assert_eq!(with_path(path, loader), loader);
        assert_eq!(
            with_path(path, "C_Initialize says GeneralError"),
            "/x/lib.so: C_Initialize says GeneralError"
        );
        let missing = Path::new("/nowhere/libsofthsm2.so");
        let Err(Fault::Module(why)) = load(missing) else { panic!("there is none") };
        assert_eq!(why.matches("/nowhere/libsofthsm2.so").count(), 1, "{why}");
    }
}
