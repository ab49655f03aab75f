//! A kubelet's call for an image, to a containerd's socket: one gRPC request, by hand.
//!
//! No client of the CRI is packaged, and the protocol's two messages have a field each: an HTTP/2
//! connection for one stream is less than a library would be. What went wrong is not read from the
//! trailers, which are compressed; containerd's log says it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// `ACK` of settings and pings, `END_STREAM` of data and headers.
const LAST: u8 = 1;
const END_HEADERS: u8 = 4;

/// Has containerd pull an image; the id that it gives the image.
///
/// # Errors
/// In words, when it says that it cannot; nothing when it says nothing within `patience`.
pub fn pull(socket: &Path, image: &str, patience: Duration) -> Result<String, Option<String>> {
    pull_with(socket, &field(1, &field(1, image.as_bytes())), patience)
}

/// The same with a name and a password, as a kubelet sends what an imagePullSecret or a credential
/// provider gives it.
///
/// # Errors
/// As [`pull`].
pub fn pull_as(
    socket: &Path,
    image: &str,
    (user, password): (&str, &str),
    patience: Duration,
) -> Result<String, Option<String>> {
    let credentials = [field(1, user.as_bytes()), field(2, password.as_bytes())].concat();
    let request = [field(1, &field(1, image.as_bytes())), field(2, &credentials)].concat();
    pull_with(socket, &request, patience)
}

fn pull_with(socket: &Path, request: &[u8], patience: Duration) -> Result<String, Option<String>> {
    match call(socket, "PullImage", request, patience) {
        // after the five bytes of the frame of gRPC: the answer's only field
        Ok(message) if message.len() > 7 => Ok(String::from_utf8_lossy(&message[7..]).into_owned()),
        Ok(_) => Err(Some("containerd's CRI refused".into())),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            Err(None)
        }
        Err(error) => Err(Some(error.to_string())),
    }
}

/// A field of a protobuf message, with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 1 << 14, "a short message");
    let mut all = vec![number << 3 | 2];
    if bytes.len() > 0x7f {
        all.push((bytes.len() & 0x7f) as u8 | 0x80);
        all.push((bytes.len() >> 7) as u8);
    } else {
        all.push(bytes.len() as u8);
    }
    all.extend_from_slice(bytes);
    all
}

fn call(socket: &Path, method: &str, message: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let mut socket = UnixStream::connect(socket)?;
    let path = format!("/runtime.v1.ImageService/{method}");
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for text in headers.iter().flat_map(|(name, value)| [None, Some(*name), Some(*value)]) {
        match text {
            None => block.push(0), // a name and a value follow, and neither is to be remembered
            Some(text) => {
                block.push(u8::try_from(text.len()).expect("a short header"));
                block.extend_from_slice(text.as_bytes());
            }
        }
    }
    let mut body = vec![0]; // not compressed
    body.extend_from_slice(&u32::try_from(message.len()).expect("a short message").to_be_bytes());
    body.extend_from_slice(message);
    socket.write_all(PREFACE)?;
    frame(&mut socket, SETTINGS, 0, 0, &[])?;
    frame(&mut socket, HEADERS, END_HEADERS, 1, &block)?;
    frame(&mut socket, DATA, LAST, 1, &body)?;
    let mut answer = Vec::new();
    loop {
        let left = end.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut head = [0; 9];
        socket.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & LAST == 0 => frame(&mut socket, SETTINGS, LAST, 0, &[])?,
            PING if flags & LAST == 0 => frame(&mut socket, PING, LAST, 0, &payload)?,
            DATA => answer.extend_from_slice(&payload),
            RESET | GOAWAY => return Err(io::Error::other("containerd ended the call")),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & LAST != 0 {
            return Ok(answer);
        }
    }
}

fn frame(
    socket: &mut UnixStream,
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut all = vec![length[1], length[2], length[3], kind, flags];
    all.extend_from_slice(&stream.to_be_bytes());
    all.extend_from_slice(payload);
    socket.write_all(&all)
}
