//! An authority for notation that the mesh makes for one project: it certifies the project's keys and
//! nothing else.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use rules::words::moment::Timestamp;
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::SigningKey;

/// How long an authority's certificate is valid: 20 years.
const AUTHORITY_FOR: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a key's is: 5 years. A signature without a timestamp ends with it.
const KEY_FOR: Duration = Duration::from_secs(5 * 365 * 86_400);
/// A clock may be this far behind the mesh's.
const SKEW: Duration = Duration::from_secs(3600);

/// A certificate could not be made. A sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct NoCertificate(String);

impl From<rcgen::Error> for NoCertificate {
    fn from(error: rcgen::Error) -> Self {
        NoCertificate(error.to_string())
    }
}

fn params(
    name: &str,
    organization: &str,
    from: Timestamp,
    valid_for: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // notation's trust policies name subjects by country, state and organization, all of them
    params.distinguished_name.push(DnType::CountryName, "XX");
    params.distinguished_name.push(DnType::StateOrProvinceName, "Atoll");
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = date_time_ymd(1970, 1, 1);
    let begin = Duration::from_millis(from.0 / 1000 * 1000);
    params.not_before = epoch + begin.saturating_sub(SKEW);
    params.not_after = epoch + begin + valid_for;
    params.key_identifier_method = KeyIdMethod::Sha256;
    params
}

fn pair(key: &SigningKey) -> Result<KeyPair, NoCertificate> {
    let private = key.to_pkcs8().map_err(|error| NoCertificate(error.to_string()))?;
    Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(private.as_slice()))?)
}

/// The certificate of an authority for a project, as PEM, that `key` signs for itself.
///
/// # Errors
/// If the system has no random bytes.
pub fn authority(
    key: &SigningKey,
    project: &str,
    from: Timestamp,
) -> Result<String, NoCertificate> {
    let name = format!("authority for signatures of {project}");
    let mut params = params(&name, project, from, AUTHORITY_FOR);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(&pair(key)?)?.pem())
}

/// The certificates of a project's key as PEM, its own first: `authority` is that of `ca`.
///
/// # Errors
/// If the authority's certificate cannot be read, or the system has no random bytes.
pub fn certify(
    key: &SigningKey,
    name: &str,
    project: &str,
    (ca, authority): (&SigningKey, &str),
    from: Timestamp,
) -> Result<String, NoCertificate> {
    let mut params = params(name, project, from, KEY_FOR);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(authority, pair(ca)?)?;
    let public = SubjectPublicKeyInfo::from_pem(&key.public_pem())?;
    let own = params.signed_by(&public, &issuer)?;
    Ok(format!("{}{authority}", own.pem()))
}
