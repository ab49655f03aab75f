//! Certificates for tests.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SubjectPublicKeyInfo, date_time_ymd,
};

use crate::making::SigningKey;

/// A key and its certificate.
pub(super) struct Issued {
    pub(super) key: KeyPair,
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

impl Issued {
    /// Signs as envelopes of notation have it.
    pub(super) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        self.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, message)
    }

    pub(super) fn sign_asn1(&self, message: &[u8]) -> Vec<u8> {
        self.sign(&ECDSA_P256_SHA256_ASN1_SIGNING, message)
    }

    fn sign(&self, how: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(how, &self.key.serialize_der()).expect("a key");
        key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }
}

/// An authority.
pub(super) struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

/// Parameters of a certificate that is valid in 2026.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "DE");
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

impl Root {
    pub(super) fn new(name: &str) -> Self {
        let params = Root::params(name);
        Root { issuer: CertifiedIssuer::self_signed(params, key()).expect("a certificate") }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.issuer.as_ref().der().to_vec()
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// Another certificate of the same authority, with the same key.
    pub(super) fn again(&self, name: &str) -> String {
        let certificate = Root::params(name).self_signed(self.issuer.key());
        certificate.expect("a certificate").pem()
    }

    /// An authority below this one.
    pub(super) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Root {
        let mut params = Root::params(name);
        change(&mut params);
        let issuer = CertifiedIssuer::signed_by(params, key(), &self.issuer);
        Root { issuer: issuer.expect("a certificate") }
    }

    /// A certificate for signing code with a key of the mesh.
    pub(super) fn certify(&self, key: &SigningKey) -> String {
        let mut params = params("mesh");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = SubjectPublicKeyInfo::from_pem(&key.public_pem()).expect("a public key");
        params.signed_by(&key, &self.issuer).expect("a certificate").pem()
    }

    /// A certificate for signing code.
    pub(super) fn signer(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = params("signer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        change(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { key, der: certificate.der().to_vec(), pem: certificate.pem() }
    }
}

/// A certificate for signing code that has signed itself, as `notation cert generate-test` makes it.
pub(super) fn self_signed() -> Issued {
    let mut params = params("signer");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let key = key();
    let certificate = params.self_signed(&key).expect("a certificate");
    Issued { key, der: certificate.der().to_vec(), pem: certificate.pem() }
}
