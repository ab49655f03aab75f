//! Tokens that clients show: those of the mesh, those of other issuers, the keys of these, and the
//! scopes that clients ask for.
#![no_main]
// only what reads is played
#![allow(dead_code)]

use std::sync::LazyLock;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{EncodingKey, Header};
use libfuzzer_sys::fuzz_target;
use rules::people::access::{RegistryScope, Scope};
use rules::words::secret::Secret;
use serde_json::Value;

#[path = "../../node/registry/src/people/foreign.rs"]
mod foreign;
#[path = "../../node/registry/src/people/signing.rs"]
mod signing;

use signing::{Purpose, Signing};

const SHARED: [u8; 32] = [7; 32];
/// A key of another issuer, whose secret is known here, so that tokens can be signed with it.
const PRIVATE: &[u8] = &[
    48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32, 0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd,
    0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32,
    0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static SIGNING: LazyLock<Signing> = LazyLock::new(Signing::default);
static ISSUER: LazyLock<JwkSet> = LazyLock::new(|| serde_json::from_str(KEYS).unwrap());

fn read(token: &Secret) {
    let shared = Secret::from(SHARED.to_vec());
    let month = Duration::from_secs(30 * 24 * 3600);
    for purpose in [Purpose::Access, Purpose::Refresh, Purpose::Session] {
        let _ = SIGNING.read_in_mesh(token, purpose, &[], Some(&shared), month);
    }
    let _ = SIGNING.read_at_edge(token);
    let said = foreign::unchecked(token);
    if let Some(signed) = foreign::signed(&ISSUER, token) {
        // what a key has signed is what was read without it
        assert_eq!(said.map(|(_, claims)| claims), Some(signed));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind % 4 {
        0 => read(&text.into()),
        // the claims of a token that is signed as it should be
        1 => {
            let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
            let shared = EncodingKey::from_secret(&SHARED);
            let issuer = EncodingKey::from_ed_der(PRIVATE);
            let eddsa = Header::new(jsonwebtoken::Algorithm::EdDSA);
            for (header, key) in [(Header::default(), shared), (eddsa, issuer)] {
                if let Ok(token) = jsonwebtoken::encode(&header, &claims, &key) {
                    read(&Secret::from(token));
                }
            }
        }
        2 => {
            let _ = foreign::check_keys(text);
            if let Ok(set) = serde_json::from_str::<Value>(text) {
                let _ = foreign::signed(&foreign::readable(&set), &"e30.e30.e30".into());
            }
        }
        _ => {
            for word in text.split(' ') {
                let _ = RegistryScope::parse(word);
                if let Some(scope) = Scope::parse(word) {
                    assert!(scope.actions.is_sorted(), "{scope:?}");
                }
            }
        }
    }
});
