//! Signs and reads the tokens themselves (JWT, RFC 7519).
//!
//! Replicas sign with the newest of the mesh's keys (Ed25519), whose public part every node knows.
//! Until there is such a key, they sign with the secret that all of them share. An edge signs with
//! a secret of its own, and nobody else accepts that.

use std::collections::HashMap;
use std::time::Duration;

use ground::clock;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mesh::secrets::{SecretError, Secrets};
use parking_lot::Mutex;
use rules::ledger::people::TokenKey;
use rules::people::access::{Identity, Principal, RegistryScope, Scope};
use rules::people::keys;
use rules::people::passes::ScanPass;
use rules::words::moment::Timestamp;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

/// The name of this registry in challenges and tokens.
pub const SERVICE: &str = "atoll";

/// The audience of a token that gets others. It opens nothing by itself.
const REFRESH: &str = "atoll:refresh";

/// The audience of a session's cookie, which is no token.
const SESSION: &str = "atoll:session";

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Requests.
    Access,
    /// Getting access tokens.
    Refresh,
    /// A browser's requests, as a cookie.
    Session,
}

impl Purpose {
    fn audience(self) -> &'static str {
        match self {
            Purpose::Access => SERVICE,
            Purpose::Refresh => REFRESH,
            Purpose::Session => SESSION,
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    /// The name, for logs.
    pub(super) sub: String,
    exp: u64,
    iat: u64,
    /// Scopes in repositories.
    #[serde(default)]
    pub(super) access: Vec<Scope>,
    /// Scopes that are not about a repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) registry: Vec<RegistryScope>,
    /// Who that is. Absent for anonymous clients, and in a mesh without accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) who: Option<Principal>,
    /// What a replica said about who that is, in a token that an edge signed for itself, with the
    /// version of people's records that the edge knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<(Identity, u64)>,
    /// That it is a scanner's, and for which scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scan: Option<ScanPass>,
}

impl Claims {
    /// For `lasts` from `now`.
    pub(super) fn new(purpose: Purpose, sub: &str, now: Timestamp, lasts: Duration) -> Self {
        let iat = now.0 / 1000;
        Claims {
            iss: SERVICE.into(),
            aud: purpose.audience().into(),
            sub: sub.to_owned(),
            exp: iat + lasts.as_secs(),
            iat,
            access: Vec::new(),
            registry: Vec::new(),
            who: None,
            told: None,
            scan: None,
        }
    }

    /// For how long it is still good.
    pub(super) fn left(&self, now: Timestamp) -> Duration {
        Duration::from_secs(self.exp.saturating_sub(now.0 / 1000))
    }

    /// How long ago it was signed.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        Duration::from_secs((now.0 / 1000).saturating_sub(self.iat))
    }
}

/// The keys of this node, and those of the mesh that it has opened.
pub(super) struct Signing {
    /// The secret with which an edge signs its own tokens. They are valid at this edge only, until
    /// it stops.
    edge: [u8; 32],
    opened: Mutex<HashMap<u64, EncodingKey>>,
    /// What tokens say whose signatures were checked lately, by [`Signing::mark`]. A client shows one
    /// token with very many requests, and the check costs more than all else of a small one.
    proven: Mutex<HashMap<[u8; 32], Claims>>,
}

/// The maximum number of tokens that are remembered, and the longest one in bytes.
const REMEMBERED: usize = 4096;
const LONGEST: usize = 2 << 10;

impl Default for Signing {
    fn default() -> Self {
        let (opened, proven) = Default::default();
        Signing { edge: rand::random(), opened, proven }
    }
}

impl Signing {
    /// A token of this edge.
    pub(super) fn at_edge(&self, claims: &Claims) -> Result<Secret, String> {
        encode(claims, Header::new(Algorithm::HS256), &EncodingKey::from_secret(&self.edge))
    }

    /// A token that is valid in the whole mesh. `keys` are the mesh's; without one, `shared` signs.
    pub(super) fn in_mesh(
        &self,
        claims: &Claims,
        keys: &[TokenKey],
        shared: &Secret<Vec<u8>>,
        secrets: &Secrets,
    ) -> Result<Secret, SecretError> {
        let Some(key) = keys::signing(keys, clock::timestamp()) else {
            let shared = secrets.token_key(shared)?;
            let key = EncodingKey::from_secret(shared.expose());
            return encode(claims, Header::new(Algorithm::HS256), &key)
                .map_err(|_| SecretError::Damaged);
        };
        let mut opened = self.opened.lock();
        if !opened.contains_key(&key.number) {
            let private = secrets.signing_key(&key.sealed)?;
            // there are few keys at a time, and those of long ago are not needed
            if opened.len() >= 16 {
                opened.clear();
            }
            opened.insert(key.number, EncodingKey::from_ed_der(private.expose()));
        }
        let signing = opened.get(&key.number).ok_or(SecretError::Damaged)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.number.to_string());
        // a key that signs nothing is none
        encode(claims, header, signing).map_err(|_| SecretError::Damaged)
    }

    /// What a token whose signature is right is remembered by: all of it, what it is for, and the key.
    /// Under another key, or as something else, it is another one.
    fn mark(token: &Secret, purpose: Purpose, key: &TokenKey) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        for part in [purpose.audience().as_bytes(), &key.public, token.expose().as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        *hash.finalize().as_bytes()
    }

    /// What a token of this edge says; `None` if it is not one, or has expired.
    pub(super) fn read_at_edge(&self, token: &Secret) -> Option<Claims> {
        decode(token, Purpose::Access, Algorithm::HS256, &DecodingKey::from_secret(&self.edge))
    }

    /// What a token of the mesh says; `None` if it is not valid. `shared` is the mesh's secret of
    /// before there were keys; an edge does not have it. `most` is the longest validity of a token
    /// of that kind.
    pub(super) fn read_in_mesh(
        &self,
        token: &Secret,
        purpose: Purpose,
        keys: &[TokenKey],
        shared: Option<&Secret<Vec<u8>>>,
        most: Duration,
    ) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token.expose().as_bytes()).ok()?;
        match header.alg {
            Algorithm::EdDSA => {
                let key = keys::accepted(keys, header.kid?.parse().ok()?)?;
                let mark = Self::mark(token, purpose, key);
                let known = self.proven.lock().get(&mark).cloned();
                if let Some(claims) = known {
                    return (claims.exp > clock::timestamp().0 / 1000).then_some(claims);
                }
                let public = DecodingKey::from_ed_der(&key.public);
                let claims = decode(token, purpose, Algorithm::EdDSA, &public)?;
                if token.expose().len() <= LONGEST {
                    let mut proven = self.proven.lock();
                    if proven.len() >= REMEMBERED {
                        proven.clear();
                    }
                    proven.insert(mark, claims.clone());
                }
                Some(claims)
            }
            Algorithm::HS256 => {
                let key = DecodingKey::from_secret(shared?.expose());
                let claims = decode(token, purpose, Algorithm::HS256, &key)?;
                let issued = Timestamp(claims.iat.saturating_mul(1000));
                let short = claims.exp.saturating_sub(claims.iat) <= most.as_secs();
                (short && keys::accepts_shared_secret(keys, issued)).then_some(claims)
            }
            _ => None,
        }
    }
}

fn encode(claims: &Claims, header: Header, key: &EncodingKey) -> Result<Secret, String> {
    jsonwebtoken::encode(&header, claims, key).map(Secret::from).map_err(|e| e.to_string())
}

fn decode(
    token: &Secret,
    purpose: Purpose,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Option<Claims> {
    let mut validation = Validation::new(algorithm);
    // it is valid exactly as long as it says, without the extra minute that the library would add
    validation.leeway = 0;
    validation.set_audience(&[purpose.audience()]);
    validation.set_issuer(&[SERVICE]);
    let read = jsonwebtoken::decode::<Claims>(token.expose().as_bytes(), key, &validation);
    Some(read.ok()?.claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::identity::Authority;
    use rules::words::names::UserId;

    const LASTS: Duration = Duration::from_secs(300);

    struct Mesh {
        secrets: Secrets,
        keys: Vec<TokenKey>,
        shared: Secret<Vec<u8>>,
        signing: Signing,
    }

    impl Mesh {
        fn new(keys: u64) -> Self {
            let secrets = Secrets::of(&Authority::generate().unwrap());
            let keys = (1..=keys).map(|number| {
                let new = secrets.new_signing_key().unwrap();
                let created = Timestamp(clock::timestamp().0 - 10_000_000);
                TokenKey { number, public: new.public, sealed: new.sealed, created }
            });
            let keys = keys.collect();
            let shared = vec![7; 32].into();
            Mesh { secrets, keys, shared, signing: Signing::default() }
        }

        fn sign(&self, claims: &Claims) -> Secret {
            self.signing.in_mesh(claims, &self.keys, &self.shared, &self.secrets).unwrap()
        }

        fn reads(&self, token: &Secret, purpose: Purpose) -> bool {
            let shared = Some(&self.shared);
            self.signing.read_in_mesh(token, purpose, &self.keys, shared, LASTS).is_some()
        }
    }

    fn claims(age: u64) -> Claims {
        let now = Timestamp(clock::timestamp().0 - age * 1000);
        let who = Some(Principal::User { id: UserId(7), generation: 2 });
        Claims { who, ..Claims::new(Purpose::Access, "ann", now, LASTS) }
    }

    #[test]
    fn a_token_is_good_for_as_long_as_it_says_and_no_longer() {
        for mesh in [Mesh::new(0), Mesh::new(2)] {
            assert!(mesh.reads(&mesh.sign(&claims(0)), Purpose::Access));
            assert!(!mesh.reads(&mesh.sign(&claims(305)), Purpose::Access));
            assert!(!mesh.reads(&mesh.sign(&claims(0)), Purpose::Refresh), "it gets no others");
            let now = clock::timestamp();
            let refresh = mesh.sign(&Claims::new(Purpose::Refresh, "ann", now, LASTS));
            assert!(!mesh.reads(&refresh, Purpose::Access), "it opens nothing by itself");
            assert!(mesh.reads(&refresh, Purpose::Refresh));
            let session = mesh.sign(&Claims::new(Purpose::Session, "ann", now, LASTS));
            assert!(mesh.reads(&session, Purpose::Session));
            for other in [Purpose::Access, Purpose::Refresh] {
                assert!(!mesh.reads(&session, other), "a cookie is no token");
            }
            assert!(!mesh.reads(&refresh, Purpose::Session), "and no token a cookie");
        }
    }

    #[test]
    fn what_another_mesh_or_an_edge_signed_is_nothing_here() {
        let (ours, theirs) = (Mesh::new(1), Mesh::new(1));
        assert!(!ours.reads(&theirs.sign(&claims(0)), Purpose::Access));
        let of_edge = ours.signing.at_edge(&claims(0)).unwrap();
        assert!(!ours.reads(&of_edge, Purpose::Access));
        assert!(ours.signing.read_at_edge(&of_edge).is_some());
        assert!(theirs.signing.read_at_edge(&of_edge).is_none());
        assert!(ours.signing.read_at_edge(&ours.sign(&claims(0))).is_none());
    }

    #[test]
    fn a_public_key_signs_nothing_whatever_the_token_says_of_its_algorithm() {
        // the classic confusion: the public key taken for a shared secret
        let mesh = Mesh::new(1);
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("1".into());
        let key = EncodingKey::from_secret(&mesh.keys[0].public);
        let forged = encode(&claims(0), header, &key).unwrap();
        assert!(!mesh.reads(&forged, Purpose::Access));
        let part = |text: &str| {
            use base64::Engine;
            base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
        };
        let signed = mesh.sign(&claims(0));
        let body = signed.expose().split('.').nth(1).unwrap();
        let unsigned = format!("{}.{body}.", part(r#"{"alg":"none","typ":"JWT"}"#));
        assert!(!mesh.reads(&unsigned.as_str().into(), Purpose::Access));
    }

    #[test]
    fn the_shared_secret_signs_nothing_new_once_there_is_a_key() {
        let mut mesh = Mesh::new(0);
        let old = mesh.sign(&claims(0));
        assert!(mesh.reads(&old, Purpose::Access));
        // a key that was made just now: what was signed before it stays good
        let new = mesh.secrets.new_signing_key().unwrap();
        let created = clock::timestamp();
        mesh.keys = vec![TokenKey { number: 1, public: new.public, sealed: new.sealed, created }];
        assert!(mesh.reads(&old, Purpose::Access));
        mesh.keys[0].created = Timestamp(created.0 - 1_000_000);
        assert!(!mesh.reads(&old, Purpose::Access));
        assert!(mesh.reads(&mesh.sign(&claims(0)), Purpose::Access));
    }

    #[test]
    fn a_token_of_an_earlier_key_is_good_while_the_key_is_known() {
        let mut mesh = Mesh::new(1);
        let token = mesh.sign(&claims(0));
        mesh.keys.extend(Mesh::new(2).keys.pop());
        assert!(mesh.reads(&token, Purpose::Access));
        let removed = mesh.keys.remove(0);
        assert!(!mesh.reads(&token, Purpose::Access));
        // a key of another mesh with its number is another one
        let other = TokenKey { public: Mesh::new(1).keys[0].public.clone(), ..removed.clone() };
        mesh.keys.push(other);
        assert!(!mesh.reads(&token, Purpose::Access));
        mesh.keys.push(removed);
        mesh.keys.remove(1);
        assert!(mesh.reads(&token, Purpose::Access));
    }

    #[test]
    fn a_token_that_was_right_before_is_right_as_it_was_and_until_it_ends() {
        let mesh = Mesh::new(1);
        let token = mesh.sign(&claims(0));
        for _ in 0..2 {
            assert!(mesh.reads(&token, Purpose::Access));
            assert!(!mesh.reads(&token, Purpose::Refresh) && !mesh.reads(&token, Purpose::Session));
        }
        assert_eq!(mesh.signing.proven.lock().len(), 1, "what is wrong is not remembered");
        let text = token.expose();
        let (head, signature) = text.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{head}.{flipped}{}", &signature[1..]);
        assert!(!mesh.reads(&changed.as_str().into(), Purpose::Access));
        // it ends though it is remembered
        for claims in mesh.signing.proven.lock().values_mut() {
            claims.exp = clock::timestamp().0 / 1000;
        }
        assert!(!mesh.reads(&token, Purpose::Access));
    }

    #[test]
    fn so_many_tokens_are_remembered_and_none_that_is_long() {
        let mesh = Mesh::new(1);
        let long = Claims { sub: "x".repeat(LONGEST), ..claims(0) };
        assert!(mesh.reads(&mesh.sign(&long), Purpose::Access));
        assert!(mesh.signing.proven.lock().is_empty());
        for n in 0..REMEMBERED as u64 {
            mesh.signing
                .proven
                .lock()
                .insert(*blake3::hash(&n.to_le_bytes()).as_bytes(), claims(0));
        }
        assert!(mesh.reads(&mesh.sign(&claims(0)), Purpose::Access));
        assert_eq!(mesh.signing.proven.lock().len(), 1);
    }
}
