//! Timestamps of RFC 3161, made by an authority of the tests: a signature whose certificates have
//! ended since counts if one says when it was there.

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rules::words::moment;

use super::issued::{Issued, Root};
use super::notation::{jws, referrer, store};
use super::*;
use crate::layers::JWS;

/// An element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = match contents.len() {
        length @ 0..128 => vec![length as u8],
        length @ 128..256 => vec![0x81, length as u8],
        length => vec![0x82, (length >> 8) as u8, length as u8],
    };
    [&[tag][..], &length, &contents].concat()
}

fn oid(hex: &str) -> Vec<u8> {
    der(0x06, &[&hex::decode(hex).expect("hex")])
}

const TST_INFO: &str = "2a864886f70d0109100104";
const SHA256: &str = "608648016503040201";

/// What a token is made of.
struct Stamp {
    time: &'static str,
    message: Vec<u8>,
    /// What is changed: the contents, the certificate that is named, the signature.
    other_contents: bool,
    other_certificate: bool,
    other_signature: bool,
}

impl Stamp {
    fn at(time: &'static str, message: &[u8]) -> Self {
        Stamp {
            time,
            message: message.to_vec(),
            other_contents: false,
            other_certificate: false,
            other_signature: false,
        }
    }

    fn token(&self, signer: &Issued) -> Vec<u8> {
        let sha256 = der(0x30, &[&oid(SHA256)]);
        let imprint = der(0x04, &[Digest::sha256(&self.message).as_bytes()]);
        let accuracy = der(0x30, &[&der(0x02, &[&[2]])]);
        let info = der(
            0x30,
            &[
                &der(0x02, &[&[1]]),
                &oid("2a0304"),
                &der(0x30, &[&sha256, &imprint]),
                &der(0x02, &[&[9]]),
                &der(0x18, &[self.time.as_bytes()]),
                &accuracy,
            ],
        );
        let named = if self.other_certificate { b"another" } else { signer.der.as_slice() };
        let attribute =
            |kind: &str, value: Vec<u8>| der(0x30, &[&oid(kind), &der(0x31, &[&value])]);
        let hash = der(0x04, &[Digest::sha256(named).as_bytes()]);
        let attributes = [
            attribute("2a864886f70d010903", oid(TST_INFO)),
            attribute("2a864886f70d010904", der(0x04, &[Digest::sha256(&info).as_bytes()])),
            attribute("2a864886f70d010910022f", der(0x30, &[&der(0x30, &[&der(0x30, &[&hash])])])),
        ]
        .concat();
        let mut signed = der(0x31, &[&attributes]);
        if self.other_signature {
            signed.push(0);
        }
        let signature = signer.sign_asn1(&signed);
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&signer.der).expect("a certificate");
        let serial = der(0x02, &[certificate.raw_serial()]);
        let signer_info = der(
            0x30,
            &[
                &der(0x02, &[&[1]]),
                &der(0x30, &[certificate.issuer().as_raw(), &serial]),
                &sha256,
                &der(0xa0, &[&attributes]),
                &der(0x30, &[&oid("2a8648ce3d040302")]),
                &der(0x04, &[&signature]),
            ],
        );
        let mut contents = info.clone();
        if self.other_contents {
            let last = contents.len() - 1;
            contents[last] ^= 1;
        }
        let signed_data = der(
            0x30,
            &[
                &der(0x02, &[&[3]]),
                &der(0x31, &[&sha256]),
                &der(0x30, &[&oid(TST_INFO), &der(0xa0, &[&der(0x04, &[&contents])])]),
                &der(0xa0, &[&signer.der]),
                &der(0x31, &[&signer_info]),
            ],
        );
        der(0x30, &[&oid("2a864886f70d010702"), &der(0xa0, &[&signed_data])])
    }
}

/// The extension of a certificate that is for timestamps, critical as RFC 3161 section 2.3 wants it.
fn for_timestamps(params: &mut CertificateParams) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![];
    let purposes = der(0x30, &[&oid("2b06010505070308")]);
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 37], purposes);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
}

/// A signature with this token, as it is verified by one who trusts both authorities.
fn told(stamper: &Root, make: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<Timestamp> {
    let root = Root::new("root");
    let signer = root.signer(|_| {});
    let chain = [signer.der.as_slice(), &root.der()];
    let envelope = jws(&signer, &chain, |_, _| {}, |signature| Some(make(signature)));
    let told = referrer(JWS, &envelope).verify(&store(&root.pem(), &stamper.pem()));
    assert!(counts(&told), "without the timestamp it counts as long as its certificates: {told:?}");
    told[0].until
}

#[test]
fn a_timestamp_lets_a_signature_outlive_its_certificates() {
    let stamper = Root::new("stamper");
    let signer = stamper.signer(for_timestamps);
    let end = moment::read("2027-01-01");
    assert!(end.is_some());
    let time = "20260601120000Z";
    assert_eq!(told(&stamper, |it| Stamp::at(time, it).token(&signer)), None);
    assert_eq!(told(&stamper, |it| Stamp::at("20260601120000.5Z", it).token(&signer)), None);
    // what is no timestamp of this signature, in its time, by the trusted authority, changes nothing
    assert_eq!(told(&stamper, |_| Stamp::at(time, b"other").token(&signer)), end);
    assert_eq!(told(&stamper, |it| Stamp::at("20251231235959Z", it).token(&signer)), end);
    assert_eq!(told(&stamper, |it| Stamp::at("20270101000000Z", it).token(&signer)), end);
    // two seconds of doubt reach beyond the end
    assert_eq!(told(&stamper, |it| Stamp::at("20261231235959Z", it).token(&signer)), end);
    assert_eq!(told(&stamper, |it| Stamp::at("not a time", it).token(&signer)), end);
    for (contents, certificate, signature) in
        [(true, false, false), (false, true, false), (false, false, true)]
    {
        let changed = |it: &[u8]| Stamp {
            other_contents: contents,
            other_certificate: certificate,
            other_signature: signature,
            ..Stamp::at(time, it)
        };
        assert_eq!(told(&stamper, |it| changed(it).token(&signer)), end);
    }
    let stranger = Root::new("stamper").signer(for_timestamps);
    assert_eq!(told(&stamper, |it| Stamp::at(time, it).token(&stranger)), end);
    let not_critical = stamper.signer(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
    });
    assert_eq!(told(&stamper, |it| Stamp::at(time, it).token(&not_critical)), end);
    let for_code = stamper.signer(|_| {});
    assert_eq!(told(&stamper, |it| Stamp::at(time, it).token(&for_code)), end);
    assert_eq!(told(&stamper, |_| vec![0x30]), end);
    assert_eq!(told(&stamper, |_| vec![0; (64 << 10) + 1]), end);
}

#[test]
fn damaged_timestamps_change_nothing() {
    let stamper = Root::new("stamper");
    let signer = stamper.signer(for_timestamps);
    let trusted = [crate::certificates::Certificate::read(&stamper.der()).expect("a certificate")];
    let verify =
        |token: &[u8]| crate::certificates::timestamp::verify(token, b"signature", &trusted);
    let token = Stamp::at("20260601120000Z", b"signature").token(&signer);
    let good = verify(&token).expect("a timestamp");
    for at in 0..token.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = token.clone();
            damaged[at] ^= change;
            if let Ok(told) = verify(&damaged) {
                assert_eq!(told, good, "byte {at}");
            }
        }
        assert!(verify(&token[..at]).is_err());
    }
}
