//! Timestamps of RFC 3161: who has seen a signature when, by an authority that is trusted for that.
//!
//! A token is a CMS message (RFC 5652). It is read in DER with lengths that are known, as the tokens
//! of all authorities are that notation's tests use.

use std::time::Duration;

use rules::words::moment::Timestamp;
use x509_parser::asn1_rs::{ASN1DateTime, Any, Class, FromDer, GeneralizedTime, Oid, Tag};
use x509_parser::der_parser::oid;
use x509_parser::x509::AlgorithmIdentifier;

use super::Certificate;
use super::path::{self, Purpose};
use crate::json::seconds;
use crate::keys::Hash;

/// The maximum length of a token, in bytes.
pub(crate) const LARGEST: usize = 64 << 10;
/// How much a time may be off by ETSI's baseline policy, if the authority says nothing of its accuracy
/// (ETSI EN 319 421; notaryproject/tspclient-go reads it so). By other policies it is then exact.
const BASELINE: Duration = Duration::from_secs(1);

/// What went wrong, as the end of a sentence.
type Wrong = &'static str;

/// When a timestamp says that `message` was there: not before the first and not after the second
/// time. `trusted` are certificates of timestamp authorities.
pub(crate) fn verify(
    token: &[u8],
    message: &[u8],
    trusted: &[Certificate],
) -> Result<(Timestamp, Timestamp), String> {
    if token.len() > LARGEST {
        return Err("the timestamp is too long".into());
    }
    let token = Token::read(token).ok_or("the timestamp cannot be read")?;
    let info = Info::read(token.info).ok_or("what the timestamp says cannot be read")?;
    if info.hash.hash(message) != info.imprint {
        return Err("the timestamp is of something else".into());
    }
    let (early, late) = info.bounds();
    let mut wrong = "nobody has signed the timestamp".to_owned();
    for signer in token.signers.iter().take(4) {
        match signer.certificate(&token) {
            Ok(certificate) => {
                let path = Purpose::TimeStamping;
                let found =
                    path::to_authority(&certificate, &token.certificates, trusted, path, info.time);
                let valid = early >= certificate.not_before && late <= certificate.not_after;
                match found {
                    Ok(_) if valid => return Ok((early, late)),
                    Ok(_) => wrong = "the timestamp's certificate was not valid then".into(),
                    Err(why) => wrong = format!("the timestamp is by nobody who is trusted: {why}"),
                }
            }
            Err(why) => wrong = why.into(),
        }
    }
    Err(wrong)
}

/// One after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn of(any: &Any<'a>) -> Self {
        Elements(any.data)
    }

    /// The next element, and its bytes.
    fn next(&mut self) -> Option<(Any<'a>, &'a [u8])> {
        let all = self.0;
        let (rest, any) = Any::from_der(all).ok()?;
        self.0 = rest;
        Some((any, &all[..all.len() - rest.len()]))
    }

    fn expect(&mut self, tag: Tag) -> Option<Any<'a>> {
        let (any, _) = self.next()?;
        (any.class() == Class::Universal && any.tag() == tag).then_some(any)
    }

    /// The next element, if it has this number of its context; else it stays.
    fn context(&mut self, number: u32) -> Option<Any<'a>> {
        let before = self.0;
        match self.next() {
            Some((any, _)) if any.class() == Class::ContextSpecific && any.tag().0 == number => {
                Some(any)
            }
            _ => {
                self.0 = before;
                None
            }
        }
    }

    fn oid(&mut self) -> Option<Oid<'a>> {
        self.expect(Tag::Oid)?.oid().ok()
    }
}

/// The one element in these bytes.
fn only<'a>(bytes: &'a [u8]) -> Option<Any<'a>> {
    match Any::from_der(bytes) {
        Ok(([], any)) => Some(any),
        _ => None,
    }
}

struct Token<'a> {
    info: &'a [u8],
    certificates: Vec<Vec<u8>>,
    signers: Vec<Signer<'a>>,
}

impl<'a> Token<'a> {
    /// ContentInfo with SignedData (RFC 5652 sections 3 and 5.1), of a TSTInfo.
    fn read(token: &'a [u8]) -> Option<Self> {
        let mut content = Elements::of(&only(token).filter(|any| any.tag() == Tag::Sequence)?);
        if content.oid()? != oid!(1.2.840.113549.1.7.2) {
            return None;
        }
        let signed = only(content.context(0)?.data)?;
        let mut signed = Elements::of(&signed);
        signed.expect(Tag::Integer)?;
        signed.expect(Tag::Set)?;
        let mut encapsulated = Elements::of(&signed.expect(Tag::Sequence)?);
        if encapsulated.oid()? != oid!(1.2.840.113549.1.9.16.1.4) {
            return None;
        }
        let info = only(encapsulated.context(0)?.data)?;
        let info = (info.tag() == Tag::OctetString).then_some(info.data)?;
        let mut certificates = Vec::new();
        if let Some(set) = signed.context(0) {
            let mut set = Elements::of(&set);
            while let Some((_, der)) = set.next() {
                certificates.push(der.to_vec());
            }
        }
        signed.context(1);
        let mut set = Elements::of(&signed.expect(Tag::Set)?);
        let mut signers = Vec::new();
        while !set.0.is_empty() {
            signers.push(Signer::read(&set.expect(Tag::Sequence)?)?);
        }
        (certificates.len() <= path::MOST).then_some(Token { info, certificates, signers })
    }
}

struct Signer<'a> {
    issuer: &'a [u8],
    serial: &'a [u8],
    hash: Hash,
    attributes: Any<'a>,
    algorithm: AlgorithmIdentifier<'a>,
    signature: &'a [u8],
}

impl<'a> Signer<'a> {
    /// SignerInfo (RFC 5652 section 5.3), whose signer is named by issuer and serial number.
    fn read(signer: &Any<'a>) -> Option<Self> {
        let mut fields = Elements::of(signer);
        fields.expect(Tag::Integer)?;
        let mut name = Elements::of(&fields.expect(Tag::Sequence)?);
        let (_, issuer) = name.next()?;
        let serial = name.expect(Tag::Integer)?.data;
        let mut digest = Elements::of(&fields.expect(Tag::Sequence)?);
        let hash = Hash::of(&digest.oid()?)?;
        let attributes = fields.context(0)?;
        let (_, algorithm) = fields.next()?;
        let (_, algorithm) = AlgorithmIdentifier::from_der(algorithm).ok()?;
        let signature = fields.expect(Tag::OctetString)?.data;
        Some(Signer { issuer, serial, hash, attributes, algorithm, signature })
    }

    /// The one value of an attribute that is there once.
    fn attribute(&self, wanted: &Oid<'_>) -> Option<Any<'a>> {
        let mut all = Elements::of(&self.attributes);
        let mut found = None;
        while !all.0.is_empty() {
            let mut attribute = Elements::of(&all.expect(Tag::Sequence)?);
            if attribute.oid()? != *wanted {
                continue;
            }
            let value = only(attribute.expect(Tag::Set)?.data)?;
            if found.replace(value).is_some() {
                return None;
            }
        }
        found
    }

    /// The certificate whose key has signed the token, which names it in what is signed (RFC 5816).
    fn certificate(&self, token: &Token<'_>) -> Result<Certificate, Wrong> {
        let kind = self.attribute(&oid!(1.2.840.113549.1.9.3));
        let kind = kind.and_then(|any| any.oid().ok()).ok_or("the timestamp has no type")?;
        if kind != oid!(1.2.840.113549.1.9.16.1.4) {
            return Err("what was signed is no timestamp");
        }
        let digest = self.attribute(&oid!(1.2.840.113549.1.9.4));
        let digest = digest.filter(|any| any.tag() == Tag::OctetString);
        if digest.ok_or("the timestamp has no digest")?.data != self.hash.hash(token.info) {
            return Err("the timestamp was changed");
        }
        let certificate = token.certificates.iter().filter_map(|der| Certificate::read(der).ok());
        let mut certificate =
            certificate.filter(|certificate| certificate.is_named(self.issuer, self.serial));
        let certificate = certificate.next().ok_or("the timestamp's certificate is missing")?;
        let (hash, expected) =
            self.certificate_hash().ok_or("the timestamp does not name its certificate")?;
        if hash.hash(&certificate.der) != expected {
            return Err("the timestamp names another certificate");
        }
        match certificate.purposes {
            Some((purposes, true))
                if purposes.time_stamping
                    && !purposes.excluded
                    && !purposes.code_signing
                    && !purposes.other => {}
            _ => return Err("the certificate is not for timestamps alone"),
        }
        // as a SET and not as [0] (RFC 5652 section 5.4)
        let mut signed = vec![0x31];
        let length = self.attributes.data.len();
        match length {
            0..128 => signed.push(length as u8),
            128..256 => signed.extend([0x81, length as u8]),
            _ => signed.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        signed.extend_from_slice(self.attributes.data);
        let is_signed = certificate.key.verifies_x509(
            &self.algorithm,
            Some(self.hash),
            &signed,
            self.signature,
        );
        if is_signed { Ok(certificate) } else { Err("the timestamp's signature is wrong") }
    }

    /// The hash of the first certificate in SigningCertificateV2 (RFC 5035 section 4).
    fn certificate_hash(&self) -> Option<(Hash, Vec<u8>)> {
        let value = self.attribute(&oid!(1.2.840.113549.1.9.16.2.47))?;
        let mut list = Elements::of(&Elements::of(&value).expect(Tag::Sequence)?);
        let mut first = Elements::of(&list.expect(Tag::Sequence)?);
        let (any, _) = first.next()?;
        if any.tag() == Tag::OctetString {
            return Some((Hash::Sha256, any.data.to_vec()));
        }
        let hash = Hash::of(&Elements::of(&any).oid()?)?;
        Some((hash, first.expect(Tag::OctetString)?.data.to_vec()))
    }
}

struct Info {
    hash: Hash,
    imprint: Vec<u8>,
    time: Timestamp,
    accuracy: Duration,
}

impl Info {
    /// TSTInfo (RFC 3161 section 2.4.2).
    fn read(info: &[u8]) -> Option<Self> {
        let mut fields = Elements::of(&only(info)?);
        let version = fields.expect(Tag::Integer)?.data;
        let policy = fields.oid()?;
        let mut imprint = Elements::of(&fields.expect(Tag::Sequence)?);
        let hash = Hash::of(&Elements::of(&imprint.expect(Tag::Sequence)?).oid()?)?;
        let imprint = imprint.expect(Tag::OctetString)?.data.to_vec();
        fields.expect(Tag::Integer)?;
        let (_, time) = fields.next()?;
        let (_, time) = GeneralizedTime::from_der(time).ok()?;
        let time = Info::moment(&time.0)?;
        // it stands before what is not read, and nothing else there is a SEQUENCE
        let accuracy = match fields.expect(Tag::Sequence) {
            Some(accuracy) => Info::accuracy(&accuracy)?,
            None if policy == oid!(0.4.0.2023.1.1) => BASELINE,
            None => Duration::ZERO,
        };
        (version == [1]).then_some(Info { hash, imprint, time, accuracy })
    }

    fn moment(time: &ASN1DateTime) -> Option<Timestamp> {
        let moment = time.to_datetime().ok()?.unix_timestamp();
        Some(seconds(moment).after(Duration::from_millis(u64::from(time.millisecond.unwrap_or(0)))))
    }

    fn accuracy(accuracy: &Any<'_>) -> Option<Duration> {
        let mut fields = Elements::of(accuracy);
        let number = |any: Any<'_>| {
            let fits = any.data.len() <= 4 && any.data.first().is_some_and(|byte| byte & 0x80 == 0);
            fits.then(|| any.data.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let before = fields.0;
        let seconds = match fields.expect(Tag::Integer) {
            Some(any) => number(any)?,
            None => {
                fields.0 = before;
                0
            }
        };
        let millis = fields.context(0).map_or(Some(0), number)?;
        let micros = fields.context(1).map_or(Some(0), number)?;
        let parts = Duration::from_millis(millis) + Duration::from_micros(micros);
        Some(Duration::from_secs(seconds) + parts)
    }

    fn bounds(&self) -> (Timestamp, Timestamp) {
        let millis = self.accuracy.as_micros().div_ceil(1000).min(u128::from(u64::MAX)) as u64;
        let early = Timestamp(self.time.0.saturating_sub(millis));
        (early, Timestamp(self.time.0.saturating_add(millis)))
    }
}
