//! Secrets in the ledger, sealed under keys that only replicas have.
//!
//! The keys are random and have versions; the ledger says which are in use
//! ([`rules::ledger::sealing`]). Every replica holds them in its `identity` folder, beside the CA's
//! key, and no ledger, snapshot or backup contains them. An edge has none, and can open nothing.
//!
//! Until the first such key is in use, secrets are sealed under one that is derived from the key of the
//! mesh's first CA. When another CA follows, that key is kept for what was sealed or hashed under it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use parking_lot::{Mutex, RwLock};

use rules::ledger::sealing::SealingKey;
use rules::words::digest::Digest;
use rules::words::secret::Secret;

use crate::identity::{Authority, IdentityError, write_private};

/// The purposes of what is derived from the CA's key; each has its own key.
const PURPOSE: &str = "atoll 2026-11-24 secrets in the ledger v1";
const HASHING: &str = "atoll 2026-11-28 hashes of robots' secrets v1";
/// The purposes of what is derived from a key of its own.
const VERSIONED_PURPOSE: &str = "atoll 2026-11-28 secrets in the ledger v2";
const VERSIONED_HASHING: &str = "atoll 2026-11-28 hashes of robots' secrets v2";
/// The place of the secret that signed tokens before there were keys.
pub const TOKEN_SECRET: &str = "token key";
/// The place of the keys that tokens are signed with.
pub const SIGNING: &str = "key that signs tokens";
/// The prefix of a text that is sealed under the CA's key.
const PREFIX: &str = "sealed1.";
/// The prefix of a text that is sealed under a key with a version. The version and a dot follow.
const VERSIONED_PREFIX: &str = "sealed2.";
/// The length of a key in bytes.
const KEY: usize = 32;
/// The file with the keys, in the folder of the node's identity.
const FILE: &str = "sealing.keys";
/// The file with the key of the mesh's first authority, when another has followed.
const FIRST_FILE: &str = "first-authority.key";
/// The place of the key of an authority.
pub const AUTHORITY: &str = "key of the mesh's authority";

/// Why a text could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// This node has no key.
    #[error("this node is an edge, which holds no secrets of the mesh")]
    NoKey,
    /// This replica has not received the key yet. It asks the others; try again.
    #[error(
        "this replica does not have version {0} of the mesh's sealing key yet, and asks the others for it; try again"
    )]
    NotHere(u64),
    /// It was sealed by another mesh, or is damaged.
    #[error(
        "a secret in the ledger cannot be opened: it was sealed by another mesh, or it is damaged; record it again"
    )]
    Damaged,
}

/// A new key to sign tokens with (Ed25519).
pub struct NewSigningKey {
    /// The public key, raw.
    pub public: Vec<u8>,
    /// The private key, as the ledger keeps it; see [`Secrets::signing_key`].
    pub sealed: Secret,
}

/// What one key is used for.
struct Derived {
    seals: RandomizedNonceKey,
    hashes: [u8; 32],
}

impl Derived {
    fn of(material: &[u8], sealing: &str, hashing: &str) -> Option<Self> {
        let seals =
            RandomizedNonceKey::new(&AES_256_GCM, &blake3::derive_key(sealing, material)).ok()?;
        Some(Derived { seals, hashes: blake3::derive_key(hashing, material) })
    }

    fn open(&self, place: &str, encoded: &str) -> Option<Secret> {
        let whole = BASE64_STANDARD_NO_PAD.decode(encoded).ok()?;
        let (nonce, bytes) = whole.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = bytes.to_vec();
        let opened = self.seals.open_in_place(nonce, Aad::from(place.as_bytes()), &mut bytes);
        String::from_utf8(opened.ok()?.to_vec()).map(Secret::from).ok()
    }

    fn seal(&self, place: &str, text: &str) -> Result<String, SecretError> {
        let mut bytes = text.as_bytes().to_vec();
        let nonce = self.seals.seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut bytes);
        let nonce = nonce.map_err(|_| SecretError::Damaged)?;
        Ok(BASE64_STANDARD_NO_PAD.encode([nonce.as_ref().as_slice(), &bytes].concat()))
    }

    fn hash(&self, secret: &Secret) -> Vec<u8> {
        blake3::keyed_hash(&self.hashes, secret.expose().as_bytes()).as_bytes().to_vec()
    }
}

/// A key that this node holds.
struct Held {
    version: u64,
    key: Secret<Vec<u8>>,
    derived: Derived,
}

/// The keys that this node holds, by their sha256, and those that the ledger says are in use.
#[derive(Default)]
struct Ring {
    held: BTreeMap<Digest, Held>,
    used: Vec<SealingKey>,
}

impl Ring {
    fn of_version(&self, version: u64) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |held| held.version == version)
    }

    fn add(&mut self, version: u64, key: Secret<Vec<u8>>) -> Option<Digest> {
        if key.expose().len() != KEY {
            return None;
        }
        let check = Digest::sha256(key.expose());
        let derived = Derived::of(key.expose(), VERSIONED_PURPOSE, VERSIONED_HASHING)?;
        self.held.insert(check, Held { version, key, derived });
        Some(check)
    }

    /// A line for each key: its version and the key in hex.
    fn written(&self) -> Secret {
        let line = |held: &Held| format!("{} {}\n", held.version, hex::encode(held.key.expose()));
        self.held.values().map(line).collect::<String>().into()
    }

    fn read(text: &str) -> Option<Self> {
        let mut ring = Ring::default();
        for line in text.lines() {
            let (version, key) = line.split_once(' ')?;
            ring.add(version.parse().ok()?, hex::decode(key).ok()?.into())?;
        }
        Some(ring)
    }
}

/// What is derived from the key of the mesh's first authority.
#[derive(Clone)]
enum First {
    /// This node is an edge, which has none.
    Edge,
    /// This replica joined under a later authority, and has not read it in the ledger yet.
    Awaited,
    /// It is here.
    Here(Arc<Derived>),
}

impl First {
    fn of(key: &str) -> Self {
        match key.trim() {
            "" => First::Edge,
            key => Derived::of(key.as_bytes(), PURPOSE, HASHING)
                .map_or(First::Edge, |derived| First::Here(Arc::new(derived))),
        }
    }
}

/// Seals and opens.
pub struct Secrets {
    first: RwLock<First>,
    ring: RwLock<Ring>,
    /// Where the keys are kept. Without it they are in memory only.
    file: Option<PathBuf>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

impl Secrets {
    /// Uses the key of `authority`. Without one (at an edge), nothing can be sealed or opened. Keys
    /// with versions are kept in memory only.
    pub fn of(authority: &Authority) -> Self {
        let first = RwLock::new(First::of(&authority.key));
        Secrets { first, ring: RwLock::default(), file: None, writing: Mutex::default() }
    }

    fn first(&self) -> Result<Arc<Derived>, SecretError> {
        match self.first.read().clone() {
            First::Edge => Err(SecretError::NoKey),
            First::Awaited => Err(SecretError::NotHere(0)),
            First::Here(derived) => Ok(derived),
        }
    }

    fn is_edge(&self) -> bool {
        matches!(*self.first.read(), First::Edge)
    }

    /// Whether this replica does not have the key of the mesh's first authority yet.
    pub fn awaits_first(&self) -> bool {
        matches!(*self.first.read(), First::Awaited)
    }

    /// Keeps the key (PEM) of the mesh's first authority: what was sealed or hashed under it can
    /// then be read, also when another authority has followed. It is on the disk when this returns.
    pub fn keep_first(&self, key: &Secret) -> Result<(), IdentityError> {
        if let Some(folder) = self.file.as_ref().and_then(|file| file.parent()) {
            let file = folder.join(FIRST_FILE);
            // once it is there, it stays: what is beside it may be the key of a later authority
            if file.exists() {
                return Ok(());
            }
            write_private(&file, key.expose().as_bytes())?;
        }
        *self.first.write() = First::of(key.expose());
        Ok(())
    }

    /// The same, with the keys that are kept in `folder`, where new ones are kept, too.
    pub fn load(authority: &Authority, folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(FILE);
        let ring = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let text = Secret::from(text);
                Ring::read(text.expose()).ok_or_else(|| {
                    IdentityError::Certificate(format!("{} is damaged", path.display()))
                })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ring::default(),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let kept = folder.join(FIRST_FILE);
        let first = match std::fs::read_to_string(&kept) {
            Ok(key) => First::of(&key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match First::of(&authority.key) {
                    First::Here(_) if authority.version() > 0 => First::Awaited,
                    first => first,
                }
            }
            Err(source) => return Err(IdentityError::File { path: kept, source }),
        };
        let first = RwLock::new(first);
        Ok(Secrets { first, ring: RwLock::new(ring), file: Some(path), writing: Mutex::default() })
    }

    /// The ledger says that these keys are in use. Others that were offered for the same versions
    /// are forgotten. Writes to the disk if there are such.
    pub fn use_keys(&self, used: &[SealingKey]) -> Result<(), IdentityError> {
        let _turn = self.writing.lock();
        let stray = {
            let mut ring = self.ring.write();
            used.clone_into(&mut ring.used);
            let newest = used.last().map_or(0, |key| key.version);
            let before = ring.held.len();
            let is_used = |check: &Digest| used.iter().any(|key| key.check == *check);
            ring.held.retain(|check, held| held.version > newest || is_used(check));
            ring.held.len() != before
        };
        if stray { self.save() } else { Ok(()) }
    }

    /// Whether this node has all that opens what is sealed while these keys are in use.
    pub fn has(&self, used: &[SealingKey]) -> bool {
        let ring = self.ring.read();
        !self.awaits_first() && used.iter().all(|key| ring.held.contains_key(&key.check))
    }

    /// The first key in use that this node does not have.
    pub fn lacking(&self) -> Option<SealingKey> {
        let ring = self.ring.read();
        ring.used.iter().find(|key| !ring.held.contains_key(&key.check)).cloned()
    }

    /// A key for `version`, which is not in use yet: the one that this node offered before, or a
    /// new one. It is on the disk when this returns.
    pub fn offer(&self, version: u64) -> Result<Secret<Vec<u8>>, IdentityError> {
        if let Some(held) = self.ring.read().of_version(version).next() {
            return Ok(held.key.clone());
        }
        let key: Secret<Vec<u8>> = rand::random::<[u8; KEY]>().to_vec().into();
        self.keep(version, key.clone())?;
        Ok(key)
    }

    /// Keeps a key. It is on the disk when this returns. Returns its sha256.
    pub fn keep(&self, version: u64, key: Secret<Vec<u8>>) -> Result<Digest, IdentityError> {
        if self.is_edge() {
            return Err(IdentityError::Refused("an edge keeps no keys of the mesh".into()));
        }
        let _turn = self.writing.lock();
        let check = Digest::sha256(key.expose());
        if self.ring.read().held.contains_key(&check) {
            return Ok(check);
        }
        let check = self.ring.write().add(version, key);
        let check =
            check.ok_or_else(|| IdentityError::Refused("this is no key that seals".into()))?;
        if let Err(error) = self.save() {
            self.ring.write().held.remove(&check);
            return Err(error);
        }
        Ok(check)
    }

    /// The key with this sha256, if it is here.
    pub fn give(&self, check: &Digest) -> Option<Secret<Vec<u8>>> {
        self.ring.read().held.get(check).map(|held| held.key.clone())
    }

    fn save(&self) -> Result<(), IdentityError> {
        let Some(file) = &self.file else { return Ok(()) };
        let written = self.ring.read().written();
        write_private(file, written.expose().as_bytes())
    }

    /// The keyed hash of a robot's secret. Such a secret is random, so it needs no slow hash; the
    /// key keeps guesses from whoever has only the ledger.
    pub fn hash(&self, secret: &Secret) -> Result<Secret<Vec<u8>>, SecretError> {
        if self.is_edge() {
            return Err(SecretError::NoKey);
        }
        let ring = self.ring.read();
        let Some(newest) = ring.used.last() else {
            return Ok(self.first()?.hash(secret).into());
        };
        let held = ring.held.get(&newest.check).ok_or(SecretError::NotHere(newest.version))?;
        let version = newest.version.to_be_bytes();
        Ok([version.as_slice(), &held.derived.hash(secret)].concat().into())
    }

    /// Whether `hash` is that of `secret`. The time that this takes tells nothing of the hash.
    pub fn is_hash_of(&self, hash: &Secret<Vec<u8>>, secret: &Secret) -> Result<bool, SecretError> {
        if self.is_edge() {
            return Err(SecretError::NoKey);
        }
        let same = |right: Vec<u8>, kept: &[u8]| {
            aws_lc_rs::constant_time::verify_slices_are_equal(&right, kept).is_ok()
        };
        let kept = hash.expose().as_slice();
        let Some((version, kept)) =
            kept.split_first_chunk().filter(|(_, rest)| rest.len() == blake3::OUT_LEN)
        else {
            return Ok(same(self.first()?.hash(secret), kept));
        };
        let version = u64::from_be_bytes(*version);
        let ring = self.ring.read();
        let mut held = ring.of_version(version).peekable();
        if held.peek().is_none() {
            return Err(SecretError::NotHere(version));
        }
        Ok(held.any(|held| same(held.derived.hash(secret), kept)))
    }

    /// A new key to sign tokens with.
    pub fn new_signing_key(&self) -> Result<NewSigningKey, SecretError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| SecretError::Damaged)?;
        let private = pair.to_pkcs8().map_err(|_| SecretError::Damaged)?;
        Ok(NewSigningKey {
            public: pair.public_key().as_ref().to_vec(),
            sealed: self.seal(SIGNING, &BASE64_STANDARD_NO_PAD.encode(private.as_ref()))?.into(),
        })
    }

    /// The private key (PKCS #8) behind what the ledger keeps.
    pub fn signing_key(&self, sealed: &Secret) -> Result<Secret<Vec<u8>>, SecretError> {
        let opened = self.open(SIGNING, sealed.expose())?;
        let key = BASE64_STANDARD_NO_PAD.decode(opened.expose());
        key.map(Secret::from).map_err(|_| SecretError::Damaged)
    }

    /// Seals `text` for `place`, under the newest key in use. It can only be opened for the same
    /// place.
    pub fn seal(&self, place: &str, text: &str) -> Result<String, SecretError> {
        if self.is_edge() {
            return Err(SecretError::NoKey);
        }
        let ring = self.ring.read();
        let Some(newest) = ring.used.last() else {
            return Ok(format!("{PREFIX}{}", self.first()?.seal(place, text)?));
        };
        let held = ring.held.get(&newest.check).ok_or(SecretError::NotHere(newest.version))?;
        let sealed = held.derived.seal(place, text)?;
        Ok(format!("{VERSIONED_PREFIX}{}.{sealed}", newest.version))
    }

    /// A new secret to sign tokens with, as the ledger keeps it: sealed, so that no ledger,
    /// snapshot or backup reveals it.
    pub fn new_token_key(&self) -> Result<Secret<Vec<u8>>, SecretError> {
        Ok(self.seal(TOKEN_SECRET, &hex::encode(rand::random::<[u8; 32]>()))?.into_bytes().into())
    }

    /// The secret that tokens are signed with, from what the ledger keeps. Before the level `ROLES`
    /// a mesh keeps it unsealed.
    pub fn token_key(&self, kept: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, SecretError> {
        match sealed_text(kept.expose()) {
            Some(sealed) => {
                let key = hex::decode(self.open(TOKEN_SECRET, sealed)?.expose());
                key.map(Secret::from).map_err(|_| SecretError::Damaged)
            }
            None => Ok(kept.clone()),
        }
    }

    /// Opens what [`Secrets::seal`] sealed for the same place, under whichever key.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Secret, SecretError> {
        if self.is_edge() {
            return Err(SecretError::NoKey);
        }
        if let Some(encoded) = sealed.strip_prefix(PREFIX) {
            return self.first()?.open(place, encoded).ok_or(SecretError::Damaged);
        }
        let (version, encoded) = versioned(sealed).ok_or(SecretError::Damaged)?;
        let ring = self.ring.read();
        let mut held = ring.of_version(version).peekable();
        // what is sealed is read in the ledger, which may name a key before this ring hears of it
        let newest = ring.used.last().map_or(0, |key| key.version);
        let is_used = ring.used.iter().any(|key| key.version == version);
        if held.peek().is_none() && (is_used || version > newest) {
            return Err(SecretError::NotHere(version));
        }
        held.find_map(|held| held.derived.open(place, encoded)).ok_or(SecretError::Damaged)
    }

    /// What is sealed for `place`, sealed under the newest key in use; `None` if it is already, or
    /// is not sealed at all.
    pub fn resealed(&self, place: &str, sealed: &[u8]) -> Result<Option<String>, SecretError> {
        let newest = self.ring.read().used.last().map(|key| key.version);
        let Some(sealed) = sealed_text(sealed).filter(|_| newest.is_some()) else {
            return Ok(None);
        };
        if versioned(sealed).map(|(version, _)| version) == newest {
            return Ok(None);
        }
        let text = self.open(place, sealed)?;
        self.seal(place, text.expose()).map(Some)
    }
}

/// The text, if it is sealed.
fn sealed_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (text.starts_with(PREFIX) || text.starts_with(VERSIONED_PREFIX)).then_some(text)
}

/// The version of the key that sealed a text, and what follows it.
fn versioned(sealed: &str) -> Option<(u64, &str)> {
    let (version, encoded) = sealed.strip_prefix(VERSIONED_PREFIX)?.split_once('.')?;
    Some((version.parse().ok()?, encoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::words::moment::Timestamp;

    #[test]
    fn the_key_of_tokens_opens_in_its_mesh_and_an_old_one_is_as_it_was() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let kept = secrets.new_token_key().unwrap();
        let key = secrets.token_key(&kept).unwrap();
        assert_eq!(key.expose().len(), 32);
        assert!(
            !kept.expose().windows(key.expose().len()).any(|part| part == key.expose())
                && kept != secrets.new_token_key().unwrap()
        );
        assert!(Secrets::of(&Authority::generate().unwrap()).token_key(&kept).is_err());
        assert_eq!(secrets.token_key(&vec![9; 32].into()).unwrap(), vec![9; 32].into());
    }

    #[test]
    fn a_robots_secret_is_hashed_under_the_meshs_key() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let hash = secrets.hash(&"hidden word".into()).unwrap();
        assert!(secrets.is_hash_of(&hash, &"hidden word".into()).unwrap());
        assert!(!secrets.is_hash_of(&hash, &"hidden work".into()).unwrap());
        assert!(!secrets.is_hash_of(&Vec::new().into(), &"hidden word".into()).unwrap());
        let other = Secrets::of(&Authority::generate().unwrap());
        assert_ne!(other.hash(&"hidden word".into()).unwrap(), hash);
        let edge = Secrets::of(&Authority { key: String::new(), ..authority });
        assert!(matches!(edge.hash(&"hidden word".into()), Err(SecretError::NoKey)));
    }

    #[test]
    fn a_key_that_signs_opens_in_its_mesh_only() {
        let secrets = Secrets::of(&Authority::generate().unwrap());
        let new = secrets.new_signing_key().unwrap();
        let private = secrets.signing_key(&new.sealed).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(private.expose()).unwrap();
        assert_eq!(pair.public_key().as_ref(), new.public);
        assert!(Secrets::of(&Authority::generate().unwrap()).signing_key(&new.sealed).is_err());
    }

    #[test]
    fn a_secret_opens_for_its_place_under_its_mesh_and_nowhere_else() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let sealed = secrets.seal("hub", "hidden word").unwrap();
        assert!(!sealed.contains("hidden"));
        assert_ne!(sealed, secrets.seal("hub", "hidden word").unwrap(), "a nonce is used once");
        assert_eq!(Secrets::of(&authority).open("hub", &sealed).unwrap(), "hidden word".into());
        assert!(matches!(secrets.open("quay", &sealed), Err(SecretError::Damaged)));
        let other = Secrets::of(&Authority::generate().unwrap());
        assert!(matches!(other.open("hub", &sealed), Err(SecretError::Damaged)));
        for broken in ["", "sealed1.", "sealed1.AAAA", "hidden word", &sealed[..sealed.len() - 2]] {
            assert!(matches!(secrets.open("hub", broken), Err(SecretError::Damaged)), "{broken}");
        }
        let edge = Secrets::of(&Authority { key: String::new(), ..authority });
        assert!(matches!(edge.open("hub", &sealed), Err(SecretError::NoKey)));
    }

    fn used(keys: &[(u64, Digest)]) -> Vec<SealingKey> {
        let key = |(version, check): &(u64, Digest)| SealingKey {
            version: *version,
            check: *check,
            since: Timestamp(*version),
        };
        keys.iter().map(key).collect()
    }

    #[test]
    fn what_is_sealed_names_the_version_of_its_key_and_older_ones_stay_readable() {
        let secrets = Secrets::of(&Authority::generate().unwrap());
        let of_authority = secrets.seal("hub", "hidden word").unwrap();
        let hash = secrets.hash(&"robot".into()).unwrap();
        let first = Digest::sha256(secrets.offer(1).unwrap().expose());
        assert_eq!(secrets.offer(1).unwrap(), secrets.give(&first).unwrap(), "one is enough");
        assert!(secrets.resealed("hub", of_authority.as_bytes()).unwrap().is_none());
        secrets.use_keys(&used(&[(1, first)])).unwrap();
        let of_first = secrets.resealed("hub", of_authority.as_bytes()).unwrap().unwrap();
        assert!(of_first.starts_with("sealed2.1."), "{of_first}");
        let second = Digest::sha256(secrets.offer(2).unwrap().expose());
        secrets.use_keys(&used(&[(1, first), (2, second)])).unwrap();
        let of_second = secrets.seal("hub", "hidden word").unwrap();
        assert!(of_second.starts_with("sealed2.2."), "{of_second}");
        for sealed in [&of_authority, &of_first, &of_second] {
            assert_eq!(secrets.open("hub", sealed).unwrap(), "hidden word".into());
        }
        assert!(matches!(secrets.open("quay", &of_second), Err(SecretError::Damaged)));
        assert!(secrets.resealed("hub", of_second.as_bytes()).unwrap().is_none());
        assert!(secrets.resealed("hub", &[9; 32]).unwrap().is_none(), "never sealed");
        let newer = secrets.hash(&"robot".into()).unwrap();
        assert_ne!(newer, hash);
        for hash in [&hash, &newer] {
            assert!(secrets.is_hash_of(hash, &"robot".into()).unwrap());
            assert!(!secrets.is_hash_of(hash, &"rabot".into()).unwrap());
        }
        // the CA's key alone opens nothing of it
        let thief =
            Secrets::of(&Authority { key: String::new(), ..Authority::generate().unwrap() });
        assert!(thief.open("hub", &of_second).is_err());
    }

    #[test]
    fn the_cas_key_opens_nothing_that_a_key_of_its_own_sealed() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let check = Digest::sha256(secrets.offer(1).unwrap().expose());
        secrets.use_keys(&used(&[(1, check)])).unwrap();
        let sealed = secrets.seal("hub", "hidden word").unwrap();
        let other = Secrets::of(&authority);
        // one that waits for the key says so, and does not call the secret damaged: neither before
        // it has heard that the key is in use, nor then
        assert!(matches!(other.open("hub", &sealed), Err(SecretError::NotHere(1))));
        assert!(!other.has(&used(&[(1, check)])) && other.has(&[]));
        other.use_keys(&used(&[(1, check)])).unwrap();
        assert_eq!(other.lacking().unwrap().check, check);
        assert!(matches!(other.open("hub", &sealed), Err(SecretError::NotHere(1))));
        assert!(matches!(other.seal("hub", "x"), Err(SecretError::NotHere(1))));
        assert!(matches!(other.hash(&"x".into()), Err(SecretError::NotHere(1))));
        other.keep(1, secrets.give(&check).unwrap()).unwrap();
        assert_eq!(other.open("hub", &sealed).unwrap(), "hidden word".into());
        assert!(other.lacking().is_none() && other.has(&used(&[(1, check)])));
        // a key of before those that are in use comes no more
        other.use_keys(&used(&[(2, check)])).unwrap();
        let old = sealed.replacen("1.", "0.", 1);
        assert!(old != sealed && matches!(other.open("hub", &old), Err(SecretError::Damaged)));
    }

    #[test]
    fn the_first_authoritys_key_is_kept_once_and_read_before_that_of_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::generate().unwrap();
        let secrets = Secrets::load(&first, folder.path()).unwrap();
        let hash = secrets.hash(&"robot".into()).unwrap();
        secrets.keep_first(&first.key.clone().into()).unwrap();
        let later = Authority::successor(1).unwrap();
        // a changeover that was cut off has the later key beside the first certificate
        let mixed = Authority { certificate: first.certificate.clone(), key: later.key.clone() };
        for authority in [&later, &mixed, &first] {
            let again = Secrets::load(authority, folder.path()).unwrap();
            again.keep_first(&authority.key.clone().into()).unwrap();
            assert!(again.is_hash_of(&hash, &"robot".into()).unwrap());
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let joined = Secrets::load(&later, elsewhere.path()).unwrap();
        assert!(joined.awaits_first());
        assert!(matches!(joined.is_hash_of(&hash, &"robot".into()), Err(SecretError::NotHere(0))));
        joined.keep_first(&first.key.into()).unwrap();
        assert!(joined.is_hash_of(&hash, &"robot".into()).unwrap());
    }

    #[test]
    fn keys_are_on_the_disk_for_their_owner_only_and_stray_ones_go() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::load(&authority, folder.path()).unwrap();
        let mine = Digest::sha256(secrets.offer(1).unwrap().expose());
        let theirs = secrets.keep(1, vec![7; KEY].into()).unwrap();
        let again = Secrets::load(&authority, folder.path()).unwrap();
        assert!(again.give(&mine).is_some() && again.give(&theirs).is_some());
        again.use_keys(&used(&[(1, theirs)])).unwrap();
        let again = Secrets::load(&authority, folder.path()).unwrap();
        assert!(again.give(&mine).is_none(), "the ledger chose the other one");
        assert!(again.give(&theirs).is_some());
        let file = folder.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(again.keep(2, vec![7; 3].into()).is_err(), "too short to be one");
        std::fs::write(&file, "1 not hex").unwrap();
        assert!(Secrets::load(&authority, folder.path()).is_err(), "damage is not forgotten keys");
        let edge = Authority { key: String::new(), ..authority };
        assert!(Secrets::of(&edge).keep(1, vec![7; KEY].into()).is_err());
    }
}
