//! Content codings (RFC 9110 section 8.4). This client asks for none, and some gateways compress all
//! the same; others call a blob that is a gzip file "encoded". The digest tells which of the two it
//! is, so this module only says what the bytes would be.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use super::UpstreamError;
use crate::headers::text;

/// How much is decoded at a time. gzip makes at most 1,032 bytes of one, so this bounds the memory
/// that an upstream can take.
const PIECE: usize = 4 << 10;

/// How an answer's bytes are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Identity,
    /// As gzip.
    Gzip,
    /// In zlib's format.
    Deflate,
    /// In a way that this client does not read. The bytes may still be what was asked for.
    Unknown,
}

/// What the headers of an answer say about its bytes.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    if headers.get_all(header::CONTENT_ENCODING).iter().count() > 1 {
        return Coding::Unknown;
    }
    let name = text(headers, header::CONTENT_ENCODING).unwrap_or_default().trim();
    match name.to_ascii_lowercase().as_str() {
        "" | "identity" => Coding::Identity,
        "gzip" | "x-gzip" => Coding::Gzip,
        "deflate" => Coding::Deflate,
        _ => Coding::Unknown,
    }
}

/// Decodes piece by piece.
pub(super) struct Decoder {
    kind: Kind,
    encoded: Bytes,
}

enum Kind {
    Gzip(MultiGzDecoder<Vec<u8>>),
    Deflate(ZlibDecoder<Vec<u8>>),
}

impl Decoder {
    /// Nothing was decoded yet. `None` if there is nothing to decode, or nobody can.
    pub(super) fn of(coding: Coding) -> Option<Self> {
        let kind = match coding {
            Coding::Identity | Coding::Unknown => return None,
            Coding::Gzip => Kind::Gzip(MultiGzDecoder::new(Vec::new())),
            Coding::Deflate => Kind::Deflate(ZlibDecoder::new(Vec::new())),
        };
        Some(Decoder { kind, encoded: Bytes::new() })
    }

    /// These bytes arrived. Call [`Decoder::piece`] until it has no more.
    pub(super) fn arrived(&mut self, encoded: Bytes) {
        self.encoded = encoded;
    }

    /// The next decoded bytes of what has arrived; `None` when more must arrive first.
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while !self.encoded.is_empty() {
            let most = self.encoded.len().min(PIECE);
            let piece = &self.encoded[..most];
            let written = match &mut self.kind {
                Kind::Gzip(decoder) => decoder.write_all(piece),
                Kind::Deflate(decoder) => decoder.write_all(piece),
            };
            written.map_err(undecodable)?;
            self.encoded.advance(most);
            if let Some(bytes) = self.taken() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The last decoded bytes. Fails if the encoded bytes were not whole.
    pub(super) fn end(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let ended = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.try_finish(),
            Kind::Deflate(decoder) => decoder.try_finish(),
        };
        ended.map_err(undecodable)?;
        Ok(self.taken())
    }

    fn taken(&mut self) -> Option<Bytes> {
        let bytes = std::mem::take(match &mut self.kind {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Deflate(decoder) => decoder.get_mut(),
        });
        (!bytes.is_empty()).then(|| bytes.into())
    }
}

/// The whole of `encoded`, decoded, if the headers say that it is encoded and it does not begin as
/// JSON does: some servers say so of plain bytes. Fails if it cannot be decoded, or has more than
/// `limit` bytes then.
pub(super) fn decoded(
    headers: &HeaderMap,
    encoded: &Bytes,
    limit: usize,
) -> Result<Option<Bytes>, UpstreamError> {
    // neither gzip nor zlib begins like this
    if encoded.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let Some(mut decoder) = Decoder::of(coding(headers)) else { return Ok(None) };
    let mut all = Vec::new();
    decoder.arrived(encoded.clone());
    loop {
        let (bytes, last) = match decoder.piece()? {
            Some(bytes) => (bytes, false),
            None => (decoder.end()?.unwrap_or_default(), true),
        };
        all.extend_from_slice(&bytes);
        if all.len() > limit {
            let why = format!("what came has more than {limit} bytes when it is decoded");
            return Err(UpstreamError::Unusable(why.into()));
        }
        if last {
            return Ok(Some(all.into()));
        }
    }
}

fn undecodable(error: std::io::Error) -> UpstreamError {
    UpstreamError::bad(format!("what came encoded cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn named(name: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, name.parse().unwrap())])
    }

    #[test]
    fn what_is_encoded_is_decoded_up_to_its_limit_and_plain_text_is_left() {
        let text = b"{}".repeat(50_000);
        let encoded = Bytes::from(gzip(&text));
        let read = |name: &str, limit| decoded(&named(name), &encoded, limit);
        for name in ["gzip", "x-gzip", " GZIP "] {
            assert_eq!(read(name, text.len()).unwrap().unwrap(), text, "{name}");
        }
        for name in ["", "identity", "br", "gzip, br"] {
            assert_eq!(read(name, text.len()), Ok(None), "{name}");
        }
        assert!(matches!(read("gzip", text.len() - 1), Err(UpstreamError::Unusable(_))));
        let torn = encoded.slice(..encoded.len() - 9);
        assert!(matches!(decoded(&named("gzip"), &torn, 1 << 20), Err(UpstreamError::Bad(_))));
        for name in ["gzip", "deflate"] {
            let plain = Bytes::from_static(b" {}");
            assert_eq!(decoded(&named(name), &plain, 9), Ok(None), "{name}");
        }
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let zlib = Bytes::from(zlib.finish().unwrap());
        assert_eq!(decoded(&named("deflate"), &zlib, text.len()).unwrap().unwrap(), text);
        let twice = Bytes::from([gzip(b"a"), gzip(b"b")].concat());
        assert_eq!(decoded(&named("gzip"), &twice, 9).unwrap().unwrap(), "ab");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for name in ["gzip", "deflate"] {
                let _ = decoded(&named(name), &Bytes::from(bytes.clone()), 1000);
            }
        }
    }
}
