//! Bytes on a socket, without the manners of a client library: what a broken or hostile client
//! sends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::Answer;

/// Opens a connection that reads and writes with `patience`.
///
/// # Panics
/// When nothing listens.
#[must_use]
pub fn connect(authority: &str, patience: Duration) -> TcpStream {
    let socket =
        TcpStream::connect(authority).unwrap_or_else(|error| panic!("{authority}: {error}"));
    socket.set_read_timeout(Some(patience)).expect("a timeout can be set");
    socket.set_write_timeout(Some(patience)).expect("a timeout can be set");
    socket
}

/// Sends `bytes` as they are and reads one answer; nothing if the node just closes the connection.
///
/// # Panics
/// When the node neither answers nor closes for half a minute.
#[must_use]
pub fn say(authority: &str, bytes: &[u8]) -> Option<Answer> {
    let mut socket = connect(authority, Duration::from_secs(30));
    // A node may answer and close before all is said: that is an answer too.
    let _ = socket.write_all(bytes);
    answer(&mut socket)
}

/// Reads one answer to its end (by length, by chunks, or by close).
///
/// # Panics
/// When nothing comes for as long as the socket's patience.
pub fn answer(socket: &mut TcpStream) -> Option<Answer> {
    let mut got = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(answer) = whole(&got) {
            return Some(answer);
        }
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                panic!("neither an answer nor a close; so far {:?}", String::from_utf8_lossy(&got))
            }
            Err(_) => break, // reset: whatever came before it counts
        }
    }
    let (status, headers, body) = head(&got)?;
    Some(Answer { status, headers, body: Bytes::copy_from_slice(body) })
}

/// The answer, if it is complete by its own account.
fn whole(got: &[u8]) -> Option<Answer> {
    let (status, headers, body) = head(got)?;
    let length =
        headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let body = match length {
        Some(length) if body.len() >= length => Bytes::copy_from_slice(&body[..length]),
        None if matches!(status, 204 | 304) => Bytes::new(),
        _ => return None,
    };
    Some(Answer { status, headers, body })
}

fn head(got: &[u8]) -> Option<(u16, HeaderMap, &[u8])> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&got[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim()))
        {
            headers.append(name, value);
        }
    }
    Some((status, headers, &got[end + 4..]))
}
