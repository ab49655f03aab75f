//! A compromised key is known in whatever form it comes, and so is what it has certificates for.

use rules::policies::signatures::{Signer, State};

use super::issued::Root;
use super::*;
use crate::anchor::{self, BadAnchor};
use crate::making::{Identity, bundle, notation};

fn signer(anchor: Anchor, compromised: bool) -> Signer {
    let revoked = State::Revoked { at: Timestamp(0), compromised: true, why: String::new() };
    let state = if compromised { revoked } else { State::Active };
    Signer { logged: false, state, ..Signer::of_the_mesh("one".into(), anchor) }
}

/// A SubjectPublicKeyInfo of an elliptic curve, by the identifier of the curve and a point.
fn pem(curve: &[u8], point: &[u8]) -> String {
    let of = |tag: u8, parts: &[&[u8]]| {
        let all = parts.concat();
        assert!(all.len() < 128, "a short length");
        [&[tag, all.len() as u8][..], &all].concat()
    };
    let algorithm = of(0x30, &[&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], curve]);
    let key = of(0x03, &[&[0], point]);
    crate::anchor::to_pem("PUBLIC KEY", &of(0x30, &[&algorithm, &key]))
}

fn id(pem: &str) -> AnchorId {
    match anchor::key(pem) {
        Ok(Anchor::Key { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_has_one_id_in_whatever_form_it_came() {
    let p256 = p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a key");
    let p384 = p384::ecdsa::SigningKey::from_slice(&[7; 48]).expect("a key");
    let (of_p256, of_p384) =
        (&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7][..], &[6, 5, 0x2b, 0x81, 4, 0, 34][..]);
    let points = |compress: bool| {
        let p256 = p256.verifying_key().to_sec1_point(compress);
        let p384 = p384.verifying_key().to_sec1_point(compress);
        [pem(of_p256, p256.as_bytes()), pem(of_p384, p384.as_bytes())]
    };
    for (long, short) in points(false).iter().zip(&points(true)) {
        assert_ne!(long, short);
        assert_eq!(id(long), id(short));
        assert_eq!(anchor::key(long), anchor::key(short), "and it is kept in one form");
        let spaced = long.replace('\n', "\r\n") + "\n\n";
        assert_eq!(anchor::key(&spaced), anchor::key(long));
    }
    // what cosign calls it is the id of the long form
    let key = SigningKey::from_pkcs8(&signing_key().to_pkcs8().expect("a key")).expect("a key");
    assert_eq!(id(&key.public_pem()), key.id());
    // a certificate is no key by itself
    let refused = anchor::key(&Root::new("x").pem());
    assert!(matches!(refused, Err(BadAnchor::Label { .. })), "{refused:?}");
}

#[test]
fn a_signature_verifies_by_a_key_whose_id_an_earlier_build_took_of_another_form() {
    let key = signing_key();
    let Anchor::Key { pem, .. } = anchor_of(&key) else { panic!("a key") };
    let earlier = Anchor::Key { id: AnchorId([9; 32]), pem };
    let told = Case::of(bundle(&key, &claims()), None).verify(&Anchors::of(&[earlier]));
    assert_eq!(good(&told), Some(AnchorId([9; 32])));
}

#[test]
fn a_compromised_key_is_trusted_under_no_name_nor_as_a_certificate() {
    let key = signing_key();
    let issued = super::issued::self_signed();
    let single = anchor::authority(&issued.pem, "", &[]).expect("a certificate");
    let of_issued = anchor::key(&issued.key.public_key_pem()).expect("a key");
    let known = [signer(anchor_of(&key), true), signer(of_issued.clone(), true)];
    assert!(anchor::compromised(&anchor_of(&key), &known).is_some());
    assert!(anchor::compromised(&single, &known).is_some(), "a certificate of that key");
    assert!(anchor::compromised(&of_issued, &[signer(single.clone(), true)]).is_some());
    assert!(anchor::compromised(&anchor_of(&signing_key()), &known).is_none());
    let trusted = [signer(anchor_of(&key), false)];
    assert!(anchor::compromised(&anchor_of(&key), &trusted).is_none(), "it is not compromised");
    // identities of one authority have nothing to do with each other
    let other = anchor::authority(&issued.pem, "", &["CN=other".into()]).expect("an authority");
    assert!(anchor::compromised(&other, &[signer(single, true)]).is_none());
}

#[test]
fn certificates_of_what_is_compromised_count_for_nothing() {
    let (root, key) = (Root::new("root"), signing_key());
    let chain = format!("{}{}", root.certify(&key), root.pem());
    let identity = Identity::read(&chain, &key).expect("certificates");
    let case = Case::of(notation(&key, &identity, &claims()), None);
    let authority = |pem: &str, subjects: &[&str]| {
        let subjects: Vec<String> = subjects.iter().map(|one| (*one).to_owned()).collect();
        anchor::authority(pem, "", &subjects).expect("an authority")
    };
    let verify = |signers: &[Signer]| case.verify(&Anchors::of_signers(signers));
    let trusted = signer(authority(&root.pem(), &[]), false);
    assert!(counts(&verify(std::slice::from_ref(&trusted))));
    let stolen = |anchor| [trusted.clone(), signer(anchor, true)];
    let told = verify(&stolen(anchor_of(&key)));
    assert!(matches!(fault(&told), Some(Fault::Chain(why)) if why.contains("compromised")));
    assert!(counts(&verify(&stolen(anchor_of(&signing_key())))), "another key");

    // the authority has another certificate with the same key
    let renewed = root.again("root again");
    let told = verify(&stolen(authority(&renewed, &["O=Example"])));
    assert!(!counts(&told), "{told:?}");
    assert!(counts(&verify(&stolen(authority(&renewed, &["O=Other"])))), "another identity");
}
