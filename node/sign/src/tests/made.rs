//! What the mesh signs is verified, and opens only for those who may.

use rules::ledger::sign_log::KekId;
use rules::policies::signatures::{COSIGN_SIGNATURE, Format};
use rules::words::moment::Timestamp;

use super::issued::Root;
use super::*;
use crate::making::cosign_key::{CosignKeyError, export, import};
use crate::making::sealed::{InMemory, SealedError, Wrapping};
use crate::making::{Identity, authority, bundle, classic, notation, sealed};

#[test]
fn what_is_made_is_verified_and_says_what_was_claimed() {
    let key = signing_key();
    let (classic_made, bundle_made) = (classic(&key, &claims()), bundle(&key, &claims()));
    let classic_case = Case::of(classic_made.clone(), Some(".sig"));
    let told = classic_case.verify(&trust(&key));
    assert_eq!(good(&told), Some(key.id()), "{told:?}");
    let [one] = &told[..] else { panic!("{told:?}") };
    assert_eq!(one.format, Format::Cosign);
    assert_eq!(one.payload, classic_made.payload);
    assert_eq!(one.reference.as_deref(), Some("registry.example/shop/web:v1"));
    assert_eq!(one.signed, Some(Timestamp(NOW.0 / 1000 * 1000)));
    assert_eq!(one.claims["mesh.epoch"], "7");
    assert_eq!(one.predicate, None);

    let bundle_case = Case::of(bundle_made.clone(), None);
    let told = bundle_case.verify(&trust(&key));
    assert_eq!(good(&told), Some(key.id()), "{told:?}");
    let [one] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one.format, one.payload), (Format::Bundle, bundle_made.payload));
    assert_eq!(one.predicate.as_deref(), Some(COSIGN_SIGNATURE));
    assert_eq!(one.reference, None, "a bundle has no name that counts");
    assert_eq!(one.signed, Some(Timestamp(NOW.0 / 1000 * 1000)));
    assert_eq!(one.claims["mesh.epoch"], "7");
    assert_eq!(bundle_case.evidence().and_then(|evidence| evidence.subject), Some(subject()));
}

#[test]
fn what_is_made_for_notation_is_verified_under_the_authority_of_its_certificates() {
    let (root, key) = (Root::new("root"), signing_key());
    let chain = format!("{}{}", root.certify(&key), root.pem());
    let identity = Identity::read(&chain, &key).expect("certificates");
    assert_eq!(identity.validity().1.to_string(), "2027-01-01T00:00:00Z");
    let made = notation(&key, &identity, &claims());
    assert_eq!(made, notation(&key, &identity, &claims()), "the same claims make the same bytes");
    let told = Case::of(made.clone(), None).verify(&super::notation::store(&root.pem(), ""));
    let [one] = &told[..] else { panic!("{told:?}") };
    assert!(counts(&told), "{told:?}");
    assert_eq!((one.format, one.payload), (Format::NotationJws, made.payload));
    assert_eq!(one.signed, Some(Timestamp(NOW.0 / 1000 * 1000)));
    assert_eq!(one.claims["mesh.epoch"], "7");
    assert_eq!(crate::accessory(&made.manifest), Some("signature.notation"));
    let other = Case::of(made, None).verify(&super::notation::store(&Root::new("x").pem(), ""));
    assert!(!counts(&other));
    let refused = |pem: &str, key: &SigningKey| {
        Identity::read(pem, key).map(|_| ()).expect_err("refused").to_string()
    };
    assert!(refused(&chain, &signing_key()).contains("another key"));
    assert!(refused(&root.certify(&key), &key).contains("does not end"));
    assert!(refused("", &key).contains("0 certificates"));
    assert!(refused(&key.public_pem(), &key).contains("CERTIFICATE"));
}

#[test]
fn the_same_claims_make_the_same_bytes() {
    let key = signing_key();
    assert_eq!(classic(&key, &claims()), classic(&key, &claims()));
    assert_eq!(bundle(&key, &claims()), bundle(&key, &claims()));
    let later = Claims { timestamp: Timestamp(NOW.0 + 1000), ..claims() };
    assert_ne!(classic(&key, &claims()), classic(&key, &later));
}

#[test]
fn a_key_comes_back_from_pkcs8_and_from_cosigns_file() {
    let key = signing_key();
    let again = SigningKey::from_pkcs8(&key.to_pkcs8().expect("bytes")).expect("a key");
    assert_eq!((again.id(), again.sign(b"x")), (key.id(), key.sign(b"x")));
    let file = export(&key, b"secret").expect("a file");
    assert!(file.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
    assert_eq!(import(&file, b"secret").map(|key| key.id()), Ok(key.id()));
    let older = file.replace("SIGSTORE", "COSIGN");
    assert_eq!(import(&older, b"secret").map(|key| key.id()), Ok(key.id()));
    assert_eq!(import(&file, b"Secret").map(|key| key.id()), Err(CosignKeyError::Passphrase));
    assert!(!format!("{key:?}").contains("PRIVATE"));
}

/// A file that would cost gigabytes or hours is refused for what it says, and nothing is computed.
#[test]
fn the_cost_of_a_file_is_bounded_before_it_is_spent() {
    let file = |n: u64, r: u64, p: u64, kdf: &str| {
        let json = serde_json::json!({
            "kdf": {"name": kdf, "params": {"N": n, "r": r, "p": p}, "salt": "AAAA"},
            "cipher": {"name": "nacl/secretbox", "nonce": "A".repeat(32)},
            "ciphertext": "AAAA",
        });
        crate::anchor::to_pem("ENCRYPTED COSIGN PRIVATE KEY", json.to_string().as_bytes())
    };
    let costs = [
        (1 << 18, 8, 1),
        (1 << 30, 8, 1),
        (u64::MAX, 8, 1),
        (1 << 16, 9, 1),
        (1 << 16, 8, 5),
        (1 << 16, 0, 1),
        (1 << 16, 8, 0),
        (65_535, 8, 1),
        (0, 8, 1),
        (1, 8, 1),
    ];
    for (n, r, p) in costs {
        let refused = import(&file(n, r, p, "scrypt"), b"x").err();
        assert!(matches!(refused, Some(CosignKeyError::Cost { .. })), "{n} {r} {p}: {refused:?}");
    }
    for wrong in [file(2, 1, 1, "argon2"), "".into(), "-----BEGIN X-----\n-----END X-----\n".into()]
    {
        assert!(matches!(import(&wrong, b"x"), Err(CosignKeyError::Form(_))), "{wrong}");
    }
    assert_eq!(import(&file(2, 1, 1, "scrypt"), b"x").err(), Some(CosignKeyError::Passphrase));
    let long = format!("{}\n{}", file(2, 1, 1, "scrypt"), " ".repeat(64 << 10));
    assert!(matches!(import(&long, b"x"), Err(CosignKeyError::Form(_))));
}

#[test]
fn a_sealed_key_opens_only_under_its_key_and_at_its_place() {
    let key = signing_key();
    let kek = |byte: u8| InMemory::new(zeroize::Zeroizing::new([byte; 32]));
    let (right, other) = (kek(7), kek(8));
    assert_ne!(right.id(), other.id());
    assert_eq!(right.id(), kek(7).id());
    let place: &[u8] = b"mesh|shop|1";
    for named in [false, true] {
        let seal = || sealed::seal(&key, &right, place, named).expect("sealed");
        let closed = seal();
        let open = |bytes: &[u8], keks: &[&dyn Wrapping], place: &[u8]| {
            sealed::open(bytes, keks, place).map(|key| key.id())
        };
        assert_eq!(open(&closed, &[&right], place), Ok(key.id()));
        assert_eq!(open(&closed, &[&other, &right], place), Ok(key.id()));
        let absent = match named {
            true => SealedError::Absent(right.id().expect("a name")),
            false => SealedError::Closed,
        };
        assert_eq!(open(&closed, &[&other], place), Err(absent.clone()));
        assert_eq!(open(&closed, &[], place), Err(absent));
        assert_eq!(open(&closed, &[&right], b"mesh|other|1"), Err(SealedError::Closed));
        for at in 1..closed.len() {
            let mut damaged = closed.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged, &[&right], place).is_err(), "{at}");
            assert!(open(&closed[..at], &[&right], place).is_err(), "{at}");
        }
        let mut later = closed.clone();
        later[0] = 3;
        assert_eq!(open(&later, &[&right], place), Err(SealedError::Form));
        assert_eq!(open(&[], &[&right], b""), Err(SealedError::Form));
        assert_ne!(closed, seal());
    }
}

/// A key-encryption key that is kept elsewhere and cannot be reached.
struct Away;

impl Wrapping for Away {
    fn id(&self) -> Result<KekId, SealedError> {
        Err(SealedError::Unusable("away".into()))
    }

    fn wrap(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, SealedError> {
        Err(SealedError::Unusable("away".into()))
    }

    fn unwrap(&self, _: &[u8], _: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, SealedError> {
        panic!("nobody knows that it is the one")
    }
}

#[test]
fn a_key_that_cannot_be_reached_is_not_said_to_be_another_one() {
    let key = signing_key();
    let here = InMemory::new(zeroize::Zeroizing::new([7; 32]));
    let other = InMemory::new(zeroize::Zeroizing::new([8; 32]));
    let place: &[u8] = b"mesh|shop|1";
    let away = SealedError::Unusable("away".into());
    assert_eq!(sealed::seal(&key, &Away, place, true), Err(away.clone()));
    let closed = sealed::seal(&key, &here, place, true).expect("sealed");
    let open = |keks: &[&dyn Wrapping]| sealed::open(&closed, keks, place).map(|key| key.id());
    assert_eq!(open(&[&Away, &other]), Err(away.clone()));
    assert_eq!(open(&[&other, &Away]), Err(away));
    // another one opens it
    assert_eq!(open(&[&Away, &here]), Ok(key.id()));
}

/// The mesh's own authority for a project: what its certificates sign is what notation accepts, and
/// the next key's certificate is of the same authority.
#[test]
fn an_authority_that_the_mesh_makes_certifies_each_key_of_the_project() {
    let (ca, first, next) = (signing_key(), signing_key(), signing_key());
    let certificate = authority::authority(&ca, "shop", NOW).expect("a certificate");
    for key in [&first, &next] {
        let chain = authority::certify(key, "mesh", "shop", (&ca, &certificate), NOW);
        let chain = chain.expect("certificates");
        let identity = Identity::read(&chain, key).expect("an identity");
        assert_eq!(identity.authority_pem(), certificate);
        assert!(identity.subject().contains("O=shop"), "{}", identity.subject());
        assert!(identity.validity().0 < NOW && identity.validity().1 > NOW);
        let made = notation(key, &identity, &claims());
        let told = Case::of(made, None).verify(&super::notation::store(&certificate, ""));
        assert!(counts(&told), "{told:?}");
    }
    let another = authority::authority(&first, "shop", NOW).expect("a certificate");
    let chain = authority::certify(&next, "mesh", "shop", (&ca, &another), NOW);
    let wrong = chain.map(|chain| Identity::read(&chain, &next).is_ok());
    assert_ne!(wrong, Ok(true), "the authority's key and certificate do not belong together");
}
