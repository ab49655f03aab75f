//! Paths from a certificate to an authority that is trusted, with others between them in any order.

use std::time::Duration;

use rules::policies::signatures::AnchorId;
use rules::words::moment::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::Certificate;

/// The maximum number of certificates between.
pub(crate) const MOST: usize = 10;
/// id-kp-codeSigning (RFC 5280 section 4.2.1.12), as DER contents.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// id-kp-timeStamping.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];

/// What a certificate must be for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Signing code.
    CodeSigning,
    /// Timestamps.
    TimeStamping,
}

/// The trusted certificate to which `leaf` leads at a time. All certificates but the trusted one must
/// be valid then. The error is the end of a sentence.
pub(crate) fn to_authority(
    leaf: &Certificate,
    between: &[Vec<u8>],
    trusted: &[Certificate],
    purpose: Purpose,
    at: Timestamp,
) -> Result<AnchorId, String> {
    if between.len() > MOST {
        return Err(format!("{} certificates are with it", between.len()));
    }
    let is_for_it = leaf.purposes.is_some_and(|(purposes, _)| match purpose {
        Purpose::CodeSigning => purposes.code_signing,
        Purpose::TimeStamping => purposes.time_stamping,
    });
    if !is_for_it {
        return Err("a certificate is for something else".into());
    }
    let leaf = CertificateDer::from(leaf.der.as_slice());
    let between: Vec<CertificateDer<'_>> =
        between.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let entity = EndEntityCert::try_from(&leaf).map_err(|error| error.to_string())?;
    // those between need not say what they are for
    let usage = KeyUsage::required_if_present(match purpose {
        Purpose::CodeSigning => CODE_SIGNING,
        Purpose::TimeStamping => TIME_STAMPING,
    });
    let at = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
    let mut wrong = "no authority is trusted".to_owned();
    // one at a time, because the caller must know which
    for certificate in trusted {
        let der = CertificateDer::from(certificate.der.as_slice());
        let Ok(anchor) = anchor_from_trusted_cert(&der) else { continue };
        let anchors = [anchor];
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        match entity.verify_for_usage(algorithms, &anchors, &between, at, usage, None, None) {
            Ok(_) => return Ok(certificate.id),
            Err(error) => wrong = error.to_string(),
        }
    }
    Err(wrong)
}
