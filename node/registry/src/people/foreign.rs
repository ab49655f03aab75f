//! Tokens that others have signed (JWT, RFC 7519), and the keys of those others.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rules::people::trusts::{LONGEST_KEYS, LONGEST_TOKEN};
use rules::words::secret::Secret;
use serde_json::Value;

/// What a token claims.
pub(super) type Claims = BTreeMap<String, Value>;

/// How much the issuer's clock may differ, in seconds.
const LEEWAY: u64 = 60;
/// The smallest RSA key that is accepted, in bits.
const LEAST_RSA: u64 = 2048;

/// The issuer that a token names, and all that it claims, before anything of it was checked.
pub(super) fn unchecked(token: &Secret) -> Option<(String, Claims)> {
    if token.expose().len() > LONGEST_TOKEN {
        return None;
    }
    let read = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token.expose().as_bytes());
    let claims = read.ok()?;
    let issuer = claims.get("iss")?.as_str()?.to_owned();
    Some((issuer, claims))
}

/// What a token claims, if one of these keys has signed it and it has not expired. The algorithm is
/// the key's, and never a secret's: a public key is no secret.
pub(super) fn signed(keys: &JwkSet, token: &Secret) -> Option<Claims> {
    let header = jsonwebtoken::decode_header(token.expose().as_bytes()).ok()?;
    if demands_more(token) {
        return None;
    }
    let named = |jwk: &&Jwk| match (&header.kid, &jwk.common.key_id) {
        (Some(wanted), Some(has)) => wanted == has,
        _ => true,
    };
    let fits = |jwk: &&Jwk| algorithms(jwk).contains(&header.alg);
    keys.keys.iter().filter(named).filter(fits).find_map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // the audience is the caller's matter
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let read = jsonwebtoken::decode::<Claims>(token.expose().as_bytes(), &key, &validation);
        Some(read.ok()?.claims)
    })
}

/// Whether a token says that it must not be accepted by whoever does not understand something of it
/// (RFC 7515 section 4.1.11). Nothing of that kind is understood here.
fn demands_more(token: &Secret) -> bool {
    let head = token.expose().split('.').next().unwrap_or_default();
    let read = BASE64_URL_SAFE_NO_PAD.decode(head).ok();
    let read = read.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    read.is_none_or(|head| !head["crit"].is_null())
}

/// How long a number is, in bits, as a key writes it (RFC 7518 section 2): zeros before it do not make
/// it longer.
fn bits(written: &str) -> u64 {
    let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(written) else { return 0 };
    let mut rest = bytes.iter().skip_while(|byte| **byte == 0);
    let first = rest.next().map_or(0, |byte| u64::from(8 - byte.leading_zeros()));
    first + 8 * rest.count() as u64
}

/// What a key may have signed with. Keys that are secrets, or too small, have signed nothing.
fn algorithms(jwk: &Jwk) -> Vec<Algorithm> {
    let all = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if bits(&rsa.n) < LEAST_RSA => vec![],
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => vec![],
        },
        AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => vec![],
        },
        _ => vec![],
    };
    // a key that says what it is for has signed with nothing else
    match jwk.common.key_algorithm {
        Some(only) => {
            all.into_iter().filter(|one| format!("{one:?}") == only.to_string()).collect()
        }
        None => all,
    }
}

/// Checks an issuer's keys, a JWK Set. The error is a sentence.
pub fn check_keys(keys: &str) -> Result<(), String> {
    if keys.len() > LONGEST_KEYS {
        return Err(format!("keys have at most {LONGEST_KEYS} bytes"));
    }
    let set: JwkSet =
        serde_json::from_str(keys).map_err(|e| format!("keys are no JWK Set: {e}"))?;
    if !set.keys.iter().any(is_usable) {
        return Err(
            "keys hold no public key that is used: RSA with 2048 bits or more, P-256, P-384 or Ed25519"
                .into(),
        );
    }
    Ok(())
}

fn is_usable(jwk: &Jwk) -> bool {
    !algorithms(jwk).is_empty() && DecodingKey::from_jwk(jwk).is_ok()
}

/// A JWK Set without the keys that this build does not know: others must not hide those that it does.
pub(super) fn readable(set: &Value) -> JwkSet {
    let all = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |one: &Value| serde_json::from_value::<Jwk>(one.clone()).ok();
    JwkSet { keys: all.iter().filter_map(read).filter(is_usable).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_that_is_not_known_hides_no_other() {
        let good = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let set = json!({"keys": [{"kty": "LMS", "pub": "x"}, good, {"kty": "oct", "k": "AAAA"}]});
        assert_eq!(readable(&set).keys.len(), 1);
        assert!(readable(&json!({"keys": 7})).keys.is_empty());
    }

    #[test]
    fn zeros_make_a_short_key_no_longer() {
        let key = |zeros: usize, bytes: usize| {
            let mut n = vec![0; zeros];
            n.extend(vec![0xc5; bytes]);
            let n = BASE64_URL_SAFE_NO_PAD.encode(n);
            json!({"keys": [{"kty": "RSA", "e": "AQAB", "n": n}]})
        };
        for (zeros, bytes, is_used) in
            [(0, 256, true), (1, 256, true), (0, 128, false), (128, 128, false), (200, 255, false)]
        {
            let found = check_keys(&key(zeros, bytes).to_string());
            assert_eq!(found.is_ok(), is_used, "{zeros} {bytes}: {found:?}");
            assert_eq!(readable(&key(zeros, bytes)).keys.len(), usize::from(is_used));
        }
        assert_eq!(["", "AA", "AQ", "AAH_", "!"].map(bits), [0, 0, 1, 9, 0]);
    }

    #[test]
    fn a_token_that_demands_what_nobody_here_knows_is_refused() {
        let token = |head: Value| -> Secret {
            format!("{}.e30.c2ln", BASE64_URL_SAFE_NO_PAD.encode(head.to_string())).into()
        };
        assert!(!demands_more(&token(json!({"alg": "ES256", "typ": "JWT"}))));
        for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("x"), json!(false)] {
            assert!(demands_more(&token(json!({"alg": "ES256", "crit": crit}))), "{crit}");
        }
        assert!(demands_more(&"no token".into()));
    }
}
