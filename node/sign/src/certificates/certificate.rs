//! One certificate.

use rules::policies::signatures::AnchorId;
use rules::words::moment::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::json::seconds;
use crate::keys::{self, PublicKey};

/// The maximum length of a certificate, in bytes.
const LARGEST: usize = 16 << 10;

/// What is read of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) id: AnchorId,
    pub(crate) key: PublicKey,
    /// The id of the key, as of one that is trusted by itself.
    pub(crate) key_id: AnchorId,
    /// The subject as `CN=..,O=..,C=..` (RFC 4514).
    pub(crate) subject: String,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Whether it says to be an authority's, and how many authorities may follow.
    pub(crate) authority: Option<Option<u32>>,
    /// What its key may do, and whether that is critical.
    pub(crate) usage: Option<(Usage, bool)>,
    /// What it is for, and whether that is critical.
    pub(crate) purposes: Option<(Purposes, bool)>,
    /// Identities of its owner: mail addresses and URIs.
    pub(crate) identities: Vec<String>,
    /// Extensions in Fulcio's arc: the last number, and the value in DER.
    pub(crate) fulcio: Vec<(u64, Vec<u8>)>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) signs: bool,
    pub(crate) signs_certificates: bool,
    /// Anything but signing and non-repudiation.
    pub(crate) other: bool,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Purposes {
    pub(crate) code_signing: bool,
    pub(crate) time_stamping: bool,
    /// For TLS, mail or OCSP.
    pub(crate) excluded: bool,
    /// For anything, or something that is not known.
    pub(crate) other: bool,
}

impl Certificate {
    /// Reads a certificate in DER. The error is the end of a sentence.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        if der.len() > LARGEST {
            return Err("a certificate is too long".into());
        }
        let Ok(([], read)) = X509Certificate::from_der(der) else {
            return Err("a certificate cannot be read".into());
        };
        let key =
            PublicKey::of_info(read.public_key()).and_then(|key| Ok((keys::id(&key.spki()?), key)));
        let (key_id, key) =
            key.map_err(|error| format!("the key of a certificate does not count: {error}"))?;
        if read.signature_algorithm != read.tbs_certificate.signature {
            return Err("a certificate names two algorithms".into());
        }
        let mut certificate = Certificate {
            der: der.to_vec(),
            id: keys::id(der),
            key,
            key_id,
            subject: written(read.subject()),
            subject_der: read.subject().as_raw().to_vec(),
            issuer_der: read.issuer().as_raw().to_vec(),
            not_before: seconds(read.validity().not_before.timestamp()),
            not_after: seconds(read.validity().not_after.timestamp()),
            authority: None,
            usage: None,
            purposes: None,
            identities: Vec::new(),
            fulcio: Vec::new(),
        };
        certificate.read_extensions(&read)?;
        Ok(certificate)
    }

    fn read_extensions(&mut self, read: &X509Certificate<'_>) -> Result<(), String> {
        let mut seen: Vec<&Oid<'_>> = Vec::new();
        for extension in read.extensions() {
            if seen.contains(&&extension.oid) {
                return Err("a certificate has an extension twice".into());
            }
            seen.push(&extension.oid);
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => {
                    self.authority = basic.ca.then_some(basic.path_len_constraint);
                }
                ParsedExtension::KeyUsage(usage) => {
                    self.usage = Some((Usage::of(usage), extension.critical));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let purposes = Purposes {
                        code_signing: usage.code_signing,
                        time_stamping: usage.time_stamping,
                        excluded: usage.server_auth
                            || usage.client_auth
                            || usage.email_protection
                            || usage.ocsp_signing,
                        other: usage.any || !usage.other.is_empty(),
                    };
                    self.purposes = Some((purposes, extension.critical));
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    let identity = |name: &GeneralName<'_>| match name {
                        GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
                            Some((*text).to_owned())
                        }
                        _ => None,
                    };
                    self.identities = names.general_names.iter().filter_map(identity).collect();
                }
                ParsedExtension::CertificatePolicies(_) => {}
                _ if extension.critical => {
                    return Err(format!(
                        "a certificate has a critical extension that is not understood ({})",
                        extension.oid
                    ));
                }
                _ => {
                    let oid = extension.oid.to_id_string();
                    let number = oid.strip_prefix("1.3.6.1.4.1.57264.1.");
                    if let Some(number) = number.and_then(|number| number.parse().ok()) {
                        self.fulcio.push((number, extension.value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether `issuer` has signed this certificate, and is named in it as its issuer.
    pub(crate) fn is_issued_by(&self, issuer: &Certificate) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        self.issuer_der == issuer.subject_der
            && issuer.key.verifies_x509(
                &read.signature_algorithm,
                None,
                read.tbs_certificate.as_ref(),
                &read.signature_value.data,
            )
    }

    /// The serial number and the issuer's name in DER, by which CMS names a certificate.
    pub(crate) fn is_named(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        self.issuer_der == issuer && read.raw_serial() == serial
    }
}

impl Usage {
    fn of(usage: &KeyUsage) -> Self {
        Usage {
            signs: usage.digital_signature(),
            signs_certificates: usage.key_cert_sign(),
            other: usage.key_encipherment()
                || usage.data_encipherment()
                || usage.key_agreement()
                || usage.key_cert_sign()
                || usage.crl_sign()
                || usage.encipher_only()
                || usage.decipher_only(),
        }
    }
}

/// A name as RFC 4514 writes it: the last part first.
fn written(name: &X509Name<'_>) -> String {
    let parts = name.iter_rdn().map(|part| {
        let attributes: Vec<String> = part.iter().map(attribute).collect();
        attributes.join("+")
    });
    let mut parts: Vec<String> = parts.collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let name = match id.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return format!("{id}=#{}", hex::encode(attribute.as_slice())),
    };
    match attribute.as_str() {
        Ok(value) => format!("{name}={}", escaped(value)),
        Err(_) => format!("{name}=#{}", hex::encode(attribute.as_slice())),
    }
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', character]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            _ if character.is_control() => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).bytes();
                bytes.for_each(|byte| text.push_str(&format!("\\{byte:02X}")));
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_is_special_in_a_name_is_escaped() {
        assert_eq!(escaped("Example, Inc."), "Example\\, Inc.");
        assert_eq!(escaped(" #a "), "\\ #a\\ ");
        assert_eq!(escaped("#a"), "\\#a");
        assert_eq!(escaped(" "), "\\ ");
        assert_eq!(escaped(""), "");
        assert_eq!(escaped("a\0\u{1b}b"), "a\\00\\1Bb");
    }
}
