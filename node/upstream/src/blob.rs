//! A blob that arrives from an upstream. Its bytes are counted here and not hashed: whoever stores
//! them checks the digest of the whole.

use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rules::words::digest::{Digest, Hasher};

use super::UpstreamError;
use crate::coding::{Coding, Decoder, coding};

/// A blob from some byte on.
pub struct BlobStream {
    /// The length of the whole blob in bytes.
    pub size: u64,
    body: Option<Incoming>,
    first: Option<Bytes>,
    skip: u64,
    position: u64,
    stall: Duration,
    decoder: Option<Decoder>,
}

/// The beginning of an answer to a request for a blob.
pub(super) enum Beginning {
    /// Bytes, with their number known.
    Stream(BlobStream),
    /// Bytes, with their number unknown.
    Unmeasured(Unmeasured),
    /// A part of encoded bytes, which is of no use: the whole blob has to be asked for.
    EncodedPart,
}

/// What is known of a blob before its bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// Its length in bytes.
    pub(super) length: u64,
    /// Whether it is what comes encoded, decoded.
    pub(super) decoded: bool,
}

/// All bytes of a blob whose length the upstream does not say, or that come encoded.
pub(super) struct Unmeasured {
    all: BlobStream,
    coding: Coding,
}

/// Bytes that may be the blob.
struct Candidate {
    length: u64,
    hasher: Hasher,
}

impl Candidate {
    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

impl Unmeasured {
    /// Whether the bytes are the blob's as they are, so that any answer that has a length has its.
    pub(super) fn is_plain(&self) -> bool {
        self.coding == Coding::Identity
    }

    /// Reads to the end and returns what the blob is, if the bytes, as they came or decoded, have
    /// this digest: an error page with status 200 has no length either.
    pub(super) async fn measure(mut self, digest: &Digest) -> Result<Measured, UpstreamError> {
        let candidate = || Candidate { length: 0, hasher: Hasher::new(digest.algorithm()) };
        let (mut came, mut meant) = (candidate(), candidate());
        let mut decoder = Decoder::of(self.coding);
        while let Some(bytes) = self.all.arrived().await? {
            came.update(&bytes);
            if let Some(encoded) = &mut decoder {
                encoded.arrived(bytes);
                let mut piece = encoded.piece();
                while let Ok(Some(bytes)) = &piece {
                    meant.update(bytes);
                    piece = encoded.piece();
                }
                if piece.is_err() {
                    decoder = None;
                }
            }
        }
        if let Some(Ok(Some(last))) = decoder.as_mut().map(Decoder::end) {
            meant.update(&last);
        }
        let actual = came.hasher.finish();
        if actual == *digest {
            return Ok(Measured { length: came.length, decoded: false });
        }
        if decoder.is_some() && meant.hasher.finish() == *digest {
            return Ok(Measured { length: meant.length, decoded: true });
        }
        Err(UpstreamError::bad(format!(
            "{digest} was asked for, the bytes that came hash to {actual}"
        )))
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream")
            .field("size", &self.size)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl BlobStream {
    /// Takes an answer of 2xx or 416 to a request for the bytes from `offset` on, and waits for the
    /// first bytes. An upstream without support for ranges, or one that was not asked for a range,
    /// sends the whole blob; the bytes before `offset` are then read and dropped. `known` is what
    /// is known of the blob, in case the answer does not say it. `whole` says that no range was
    /// asked for.
    pub(super) async fn begin(
        status: StatusCode,
        headers: &HeaderMap,
        body: Incoming,
        offset: u64,
        known: Option<Measured>,
        whole: bool,
        stall: Duration,
    ) -> Result<Beginning, UpstreamError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let range = text(header::CONTENT_RANGE).and_then(ContentRange::parse);
        let coding = coding(headers);
        if coding != Coding::Identity && status == StatusCode::PARTIAL_CONTENT {
            return Ok(Beginning::EncodedPart);
        }
        let stream = |size, body: Option<Incoming>, skip, position| BlobStream {
            size,
            body,
            first: None,
            skip,
            position,
            stall,
            decoder: None,
        };
        let mut decoder = None;
        let (size, skip) = match (status, range) {
            (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { first, last, size }))
                if first == offset =>
            {
                (size.unwrap_or(last + 1), 0)
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange::None { size }))
                if size == offset =>
            {
                return Ok(Beginning::Stream(stream(size, None, 0, size)));
            }
            // a gateway may call what it passes on 203 (RFC 9110 section 15.3.4); the digest decides
            (status, _)
                if status.is_success() && (status != StatusCode::PARTIAL_CONTENT || whole) =>
            {
                let told = text(header::CONTENT_LENGTH)
                    .and_then(|length| length.trim().parse::<u64>().ok())
                    .filter(|_| coding == Coding::Identity);
                let Some(size) = told.or(known.map(|known| known.length)) else {
                    let all = stream(u64::MAX, Some(body), 0, 0);
                    return Ok(Beginning::Unmeasured(Unmeasured { all, coding }));
                };
                let decoded = known.is_some_and(|known| known.decoded);
                decoder = if decoded { Decoder::of(coding) } else { None };
                (size, offset)
            }
            (status, _) => {
                return Err(UpstreamError::bad(format!(
                    "a range from {offset} was answered {status}"
                )));
            }
        };
        if skip > size {
            return Err(UpstreamError::bad(format!("a blob of {size} bytes has none at {offset}")));
        }
        let mut stream = stream(size, Some(body), skip, offset);
        stream.decoder = decoder;
        stream.first = stream.frame().await?;
        Ok(Beginning::Stream(stream))
    }

    /// The first byte that an answer of 206 brings.
    pub(super) fn first_of(headers: &HeaderMap) -> Option<u64> {
        let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
        match ContentRange::parse(text)? {
            ContentRange::Part { first, .. } => Some(first),
            ContentRange::None { .. } => None,
        }
    }

    /// The number of bytes read so far, from which to continue if the stream breaks off.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; `None` at the end, when all of `size` have come. If the stream breaks off,
    /// or makes no progress for longer than the terms allow, this call and all later ones return
    /// [`UpstreamError::Unreachable`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let Some(mut bytes) = self.arrived().await? else {
                if self.position == self.size && self.skip == 0 {
                    return Ok(None);
                }
                self.body = None;
                return Err(UpstreamError::unreachable(format!(
                    "a blob of {} bytes ended at {}",
                    self.size, self.position
                )));
            };
            let skipped = self.skip.min(bytes.len() as u64);
            bytes.advance(skipped as usize);
            self.skip -= skipped;
            if bytes.is_empty() {
                continue;
            }
            if bytes.len() as u64 > self.size - self.position {
                self.body = None;
                return Err(UpstreamError::bad("a blob is longer than was said"));
            }
            self.position += bytes.len() as u64;
            return Ok(Some(bytes));
        }
    }

    async fn arrived(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let arrived = match tokio::time::timeout(self.stall, self.frame()).await {
            Ok(arrived) => arrived,
            Err(_) => Err(UpstreamError::unreachable(format!(
                "a blob made no progress at byte {}",
                self.position
            ))),
        };
        if arrived.is_err() {
            self.body = None;
        }
        arrived
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            if let Some(decoder) = &mut self.decoder
                && let Some(bytes) = decoder.piece()?
            {
                return Ok(Some(bytes));
            }
            match body.frame().await {
                None => {
                    return match self.decoder.take() {
                        Some(mut decoder) => decoder.end(),
                        None => Ok(None),
                    };
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => {
                        metrics::counter!("atoll_upstream_bytes_received_total")
                            .increment(bytes.len() as u64);
                        match &mut self.decoder {
                            Some(decoder) => decoder.arrived(bytes),
                            None => return Ok(Some(bytes)),
                        }
                    }
                    // trailers
                    Err(_) => {}
                },
                Some(Err(error)) => {
                    return Err(UpstreamError::unreachable(format!(
                        "a blob broke off at {}: {error}",
                        self.position
                    )));
                }
            }
        }
    }
}

/// A `Content-Range` of bytes (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentRange {
    Part { first: u64, last: u64, size: Option<u64> },
    None { size: u64 },
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| *n < u64::MAX);
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, size) = rest.split_once('/')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if range.trim() == "*" {
            return Some(ContentRange::None { size: number(size)? });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let size = if size.trim() == "*" { None } else { Some(number(size)?) };
        (first <= last && size.is_none_or(|size| last < size)).then_some(ContentRange::Part {
            first,
            last,
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_ranges_are_read_and_impossible_ones_are_not() {
        let part = |first, last, size| Some(ContentRange::Part { first, last, size });
        assert_eq!(ContentRange::parse("bytes 5-9/10"), part(5, 9, Some(10)));
        assert_eq!(ContentRange::parse(" Bytes 5-9/*"), part(5, 9, None));
        assert_eq!(ContentRange::parse("bytes */10"), Some(ContentRange::None { size: 10 }));
        for bad in [
            "",
            "bytes",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes 5-/10",
            "bytes */*",
            "lines 1-2/3",
            "bytes -1-2/3",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic_and_a_range_lies_within_its_size(text in "(bytes )?[0-9*/ -]{0,40}") {
            if let Some(ContentRange::Part { first, last, size }) = ContentRange::parse(&text) {
                prop_assert!(first <= last && size.is_none_or(|size| last < size));
            }
        }
    }
}
