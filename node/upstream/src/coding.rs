//! Content codings (RFC 9110 section 8.4). This client asks for none, and some gateways compress all
//! the same; others call a blob that is a gzip file "encoded". The digest tells which of the two it
//! is, so this module only says what the bytes would be.

use std::io::Write;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
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
        _ => Coding::Unknown,
    }
}

/// Decodes gzip piece by piece.
pub(super) struct Decoder {
    decoder: MultiGzDecoder<Vec<u8>>,
    encoded: Bytes,
}

impl Decoder {
    /// Nothing was decoded yet.
    pub(super) fn new() -> Self {
        Decoder { decoder: MultiGzDecoder::new(Vec::new()), encoded: Bytes::new() }
    }

    /// These bytes arrived. Call [`Decoder::piece`] until it has no more.
    pub(super) fn arrived(&mut self, encoded: Bytes) {
        self.encoded = encoded;
    }

    /// The next decoded bytes of what has arrived; `None` when more must arrive first.
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while !self.encoded.is_empty() {
            let most = self.encoded.len().min(PIECE);
            self.decoder.write_all(&self.encoded[..most]).map_err(undecodable)?;
            self.encoded.advance(most);
            if let Some(bytes) = self.taken() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The last decoded bytes. Fails if the encoded bytes were not whole.
    pub(super) fn end(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        self.decoder.try_finish().map_err(undecodable)?;
        Ok(self.taken())
    }

    fn taken(&mut self) -> Option<Bytes> {
        let bytes = std::mem::take(self.decoder.get_mut());
        (!bytes.is_empty()).then(|| bytes.into())
    }
}

/// The whole of `encoded`, decoded, if the headers say that it is gzip. Fails if it is not, or if it
/// has more than `limit` bytes.
pub(super) fn decoded(
    headers: &HeaderMap,
    encoded: &Bytes,
    limit: usize,
) -> Result<Option<Bytes>, UpstreamError> {
    if coding(headers) != Coding::Gzip {
        return Ok(None);
    }
    let (mut decoder, mut all) = (Decoder::new(), Vec::new());
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
    UpstreamError::bad(format!("what came as gzip cannot be decoded: {error}"))
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
    fn only_gzip_is_decoded_and_only_up_to_its_limit() {
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
        let twice = Bytes::from([gzip(b"a"), gzip(b"b")].concat());
        assert_eq!(decoded(&named("gzip"), &twice, 9).unwrap().unwrap(), "ab");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&named("gzip"), &Bytes::from(bytes), 1000);
        }
    }
}
