//! Reads the head of an HTTP/1.1 response: the few fields that a measurement needs, and nothing
//! else.

use std::fmt;

/// The longest head that is read; a longer one is a mistake of the server.
pub(crate) const LONGEST: usize = 64 << 10;

/// What a response's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// How the end of the body is found.
    pub(crate) framing: Framing,
    /// Where to go on, as the server wrote it.
    pub(crate) location: Option<String>,
    /// Whether it warns that it may be stale.
    pub(crate) warned: bool,
    /// Whether the connection may carry another request.
    pub(crate) keep: bool,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the chunk of length zero.
    Chunked,
    /// When the server closes the connection.
    UntilClose,
}

/// Why bytes are not the head of an HTTP/1.1 response. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// The first line is not `HTTP/1.x CODE ...`.
    StatusLine,
    /// A line without a colon.
    Field,
    /// A `Content-Length` that is no number, or two that differ.
    Length,
    /// More than [`LONGEST`] bytes without an empty line.
    TooLong,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadHead::StatusLine => "the answer does not begin with an HTTP/1.x status line",
            BadHead::Field => "the answer has a header line without a colon",
            BadHead::Length => "the answer's Content-Length is not one number",
            BadHead::TooLong => "the answer's head does not end",
        })
    }
}

impl std::error::Error for BadHead {}

/// The head at the beginning of `bytes` and its length, or nothing if more bytes are needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadHead> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > LONGEST { Err(BadHead::TooLong) } else { Ok(None) };
    };
    let mut lines = bytes[..end]
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (status, persistent) =
        status_line(lines.next().unwrap_or_default()).ok_or(BadHead::StatusLine)?;
    let mut head = Head {
        status,
        framing: Framing::UntilClose,
        location: None,
        warned: false,
        keep: persistent,
    };
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BadHead::Field)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = number(value).ok_or(BadHead::Length)?;
            if length.replace(value).is_some_and(|other| other != value) {
                return Err(BadHead::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked |= has_word(value, b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.keep = (head.keep || has_word(value, b"keep-alive")) && !has_word(value, b"close");
        } else if name.eq_ignore_ascii_case(b"location") {
            head.location = Some(String::from_utf8_lossy(value).into_owned());
        } else if name.eq_ignore_ascii_case(b"warning") {
            head.warned |= value.starts_with(b"11"); // RFC 7234, 5.5: 110 and 111
        }
    }
    head.framing = match (chunked, length) {
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    Ok(Some((head, end + 4)))
}

/// The length that a chunk's first line announces.
pub(crate) fn chunk_length(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}

/// The status code, and whether this version of HTTP keeps connections open unless told otherwise.
fn status_line(line: &[u8]) -> Option<(u16, bool)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, code) = (rest.first()?, rest.get(2..5)?);
    let well_formed =
        minor.is_ascii_digit() && rest[1] == b' ' && matches!(rest.get(5), None | Some(b' '));
    let status = number(code).filter(|code| well_formed && (100..600).contains(code))?;
    Some((u16::try_from(status).ok()?, *minor != b'0'))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

fn has_word(value: &[u8], word: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, BadHead> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_plain_answer_is_read_whatever_the_case_of_its_fields() {
        let text = "HTTP/1.1 201 Created\r\nLOCATION: /v2/a/b\r\ncontent-length:  12 \r\n\r\nrest";
        let (read, used) = head(text).unwrap().unwrap();
        assert_eq!(used, text.len() - 4);
        let location = Some("/v2/a/b".to_owned());
        assert_eq!(
            read,
            Head { status: 201, framing: Framing::Length(12), location, warned: false, keep: true }
        );
    }

    #[test]
    fn chunked_counts_more_than_a_length_and_close_more_than_the_version() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: gzip, Chunked\r\nConnection: close\r\n\r\n";
        let (read, _) = head(text).unwrap().unwrap();
        assert_eq!((read.framing, read.keep), (Framing::Chunked, false));
        let (old, _) = head("HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!((old.framing, old.keep), (Framing::UntilClose, false));
    }

    #[test]
    fn half_a_head_needs_more_and_an_endless_one_is_refused() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-"), Ok(None));
        assert_eq!(parse(&vec![b'x'; LONGEST + 1]), Err(BadHead::TooLong));
    }

    #[test]
    fn what_is_no_head_is_named() {
        assert_eq!(head("SSH-2.0\r\n\r\n"), Err(BadHead::StatusLine));
        assert_eq!(head("HTTP/1.1 20x OK\r\n\r\n"), Err(BadHead::StatusLine));
        assert_eq!(head("HTTP/1.1 200 OK\r\nnothing\r\n\r\n"), Err(BadHead::Field));
        assert_eq!(
            head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            Err(BadHead::Length)
        );
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), Err(BadHead::Length));
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n"), Err(BadHead::Length));
    }

    #[test]
    fn a_chunk_may_carry_an_extension() {
        assert_eq!(chunk_length(b"1F;name=value"), Some(31));
        assert_eq!(chunk_length(b""), None);
        assert_eq!(chunk_length(b"+1"), None);
        assert_eq!(chunk_length(b"11111111111111111"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = chunk_length(&bytes);
        }

        #[test]
        fn no_damage_to_a_head_makes_it_panic(at in 0_usize..80, byte in any::<u8>(), cut in 0_usize..80) {
            let mut text = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\nLocation: /x\r\n\r\n".to_vec();
            let (at, cut) = (at % text.len(), cut % text.len());
            text[at] = byte;
            if let Ok(Some((_, used))) = parse(&text) {
                prop_assert!(used <= text.len());
            }
            let _ = parse(&text[cut..]);
        }

        #[test]
        fn the_head_is_the_same_however_much_follows(more in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\n";
            let whole = [text.as_slice(), &more].concat();
            prop_assert_eq!(parse(&whole), parse(text));
        }
    }
}
