//! cosign's file of a private key (`cosign.key`): PKCS#8 in a NaCl secretbox, under a key that scrypt
//! makes of a passphrase (secure-systems-lab/go-securesystemslib `encrypted`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{BadSigningKey, SigningKey};
use crate::json::base64;

/// The label that cosign writes today, and the one of before, which skopeo writes.
const LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// The largest file that is read, in bytes.
const LARGEST: usize = 64 << 10;
/// What scrypt may cost: 128 MiB, and four times as long as what cosign writes (N = 65,536, r = 8,
/// p = 1). The file chooses it, and whoever made the file may want to stop this node.
const MOST: Params = Params { n: 1 << 17, r: 8, p: 4 };
/// What is written, as cosign does.
const WRITTEN: Params = Params { n: 1 << 16, r: 8, p: 1 };

/// Why a file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignKeyError {
    /// Not a file of this kind.
    #[error("it is no private key of cosign: {0}")]
    Form(String),
    /// scrypt would cost too much.
    #[error(
        "opening this key costs more than is allowed (scrypt N={n} r={r} p={p}; at most N={most_n} r={most_r} p={most_p})",
        most_n = MOST.n, most_r = MOST.r, most_p = MOST.p
    )]
    Cost {
        /// Blocks.
        n: u64,
        /// The size of one.
        r: u32,
        /// How many times.
        p: u32,
    },
    /// Another passphrase, or a damaged file.
    #[error("the passphrase is wrong, or the file is damaged")]
    Passphrase,
    /// A key of another kind.
    #[error(transparent)]
    Key(#[from] BadSigningKey),
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize, Serialize)]
struct File {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize, Serialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize, Serialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Reads a file with its passphrase. What that costs is checked before it is spent.
///
/// # Errors
/// If it is no such file, is too costly, does not open, or has a key of another kind than P-256.
pub fn import(pem: &str, passphrase: &[u8]) -> Result<SigningKey, CosignKeyError> {
    let form = |why: &str| CosignKeyError::Form(why.to_owned());
    if pem.len() > LARGEST {
        return Err(form("it is too long"));
    }
    let block = pem::parse(pem).map_err(|error| CosignKeyError::Form(error.to_string()))?;
    if !LABELS.contains(&block.tag()) {
        let tag: String = block.tag().chars().take(64).collect();
        return Err(CosignKeyError::Form(format!("it says to be a {tag}")));
    }
    let file: File = serde_json::from_slice(block.contents())
        .map_err(|error| CosignKeyError::Form(error.to_string()))?;
    if file.kdf.name != "scrypt" || file.cipher.name != "nacl/secretbox" {
        return Err(form("only scrypt with nacl/secretbox is known"));
    }
    let salt = base64(&file.kdf.salt).ok_or_else(|| form("its salt is no base64"))?;
    let nonce = base64(&file.cipher.nonce).and_then(|nonce| <[u8; 24]>::try_from(nonce).ok());
    let nonce = nonce.ok_or_else(|| form("its nonce is not 24 bytes"))?;
    let sealed = base64(&file.ciphertext).ok_or_else(|| form("its ciphertext is no base64"))?;
    let key = derive(passphrase, &salt, file.kdf.params)?;
    let opened = XSalsa20Poly1305::new((&*key).into()).decrypt(&Nonce::from(nonce), &*sealed);
    let opened = opened.map(Zeroizing::new).map_err(|_| CosignKeyError::Passphrase)?;
    Ok(SigningKey::from_pkcs8(&opened)?)
}

/// Writes a file that cosign and skopeo read.
///
/// # Errors
/// If the system has no random bytes.
pub fn export(key: &SigningKey, passphrase: &[u8]) -> Result<String, CosignKeyError> {
    write(&key.to_pkcs8()?, passphrase)
}

/// Writes such a file of a private key of any kind (PKCS#8 in DER), which is not looked at.
///
/// # Errors
/// If the system has no random bytes.
pub fn write(pkcs8: &[u8], passphrase: &[u8]) -> Result<String, CosignKeyError> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let filled = aws_lc_rs::rand::fill(&mut salt).and_then(|()| aws_lc_rs::rand::fill(&mut nonce));
    filled.map_err(|_| BadSigningKey)?;
    let derived = derive(passphrase, &salt, WRITTEN)?;
    let closed = XSalsa20Poly1305::new((&*derived).into());
    let sealed = closed.encrypt(&Nonce::from(nonce), pkcs8).map_err(|_| BadSigningKey)?;
    let file = File {
        kdf: Kdf { name: "scrypt".into(), params: WRITTEN, salt: BASE64_STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: BASE64_STANDARD.encode(nonce) },
        ciphertext: BASE64_STANDARD.encode(sealed),
    };
    let json = serde_json::to_vec(&file).map_err(|_| BadSigningKey)?;
    Ok(crate::anchor::to_pem(LABELS[0], &json))
}

fn derive(
    passphrase: &[u8],
    salt: &[u8],
    params: Params,
) -> Result<Zeroizing<[u8; 32]>, CosignKeyError> {
    let Params { n, r, p } = params;
    let fits = n.is_power_of_two()
        && (2..=MOST.n).contains(&n)
        && (1..=MOST.r).contains(&r)
        && (1..=MOST.p).contains(&p);
    if !fits {
        return Err(CosignKeyError::Cost { n, r, p });
    }
    let cost = CosignKeyError::Cost { n, r, p };
    let terms = scrypt::Params::new(n.ilog2() as u8, r, p).map_err(|_| cost.clone())?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase, salt, &terms, key.as_mut_slice()).map_err(|_| cost)?;
    Ok(key)
}
