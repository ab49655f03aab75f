//! A client that does what a patient one does: goes on where an answer broke off, then at the next
//! host, compares every byte, and times the first.

use std::time::{Duration, Instant};

use http::Method;

use crate::http::Client;
use crate::image::{Blob, Image, MANIFEST};

/// What a pull through several hosts came to.
#[derive(Debug, Default)]
pub struct Pulled {
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// The longest that any request waited for its first byte, or for the answer that there is
    /// none.
    pub first_byte: Duration,
    /// How many answers had bytes that are not the image's, and broke off before their end.
    pub spoilt: usize,
    /// An answer that came whole, with bytes that are not the image's.
    pub wrong: Option<String>,
    /// The manifest came with a warning that it may be stale.
    pub warned: bool,
    /// The first host's refusal of the manifest, if it refused: its status, and whether that was in
    /// the specification's envelope.
    pub refused: Option<(u16, bool)>,
    /// How many answers broke off in the middle.
    pub broken: usize,
}

/// How one request ended.
enum End {
    Whole,
    /// After so many bytes of the object.
    Broken(usize, String),
    /// Not these bytes.
    Spoilt(String),
    Refused(String),
}

/// Pulls an image by its tag from the first of the hosts that has it, each object anew, as
/// containerd does.
///
/// An answer that breaks off is gone on with at the same host, as long as that gives more bytes,
/// then at the next. One with wrong bytes is begun anew twice.
#[must_use]
pub fn pull(hosts: &[Client], repository: &str, tag: &str, image: &Image) -> Pulled {
    let mut pulled = Pulled::default();
    object(hosts, &format!("/v2/{repository}/manifests/{tag}"), &image.manifest, &mut pulled);
    for blob in &image.blobs {
        if pulled.failed.is_none() {
            object(hosts, &format!("/v2/{repository}/blobs/{}", blob.digest), blob, &mut pulled);
        }
    }
    pulled
}

fn object(hosts: &[Client], path: &str, object: &Blob, pulled: &mut Pulled) {
    let (mut have, mut anew, mut reasons) = (0, 0, Vec::new());
    for (number, host) in hosts.iter().enumerate() {
        loop {
            match request(host, path, object, have, number == 0, pulled) {
                End::Whole => return,
                End::Broken(now, why) => {
                    pulled.broken += 1;
                    reasons.push(format!("{}: after {now} bytes: {why}", host.authority()));
                    if std::mem::replace(&mut have, now) >= now {
                        break;
                    }
                }
                End::Spoilt(why) if anew < 2 => {
                    (have, anew) = (0, anew + 1);
                    reasons.push(format!("{}: {why}", host.authority()));
                }
                End::Refused(why) | End::Spoilt(why) => {
                    reasons.push(format!("{}: {why}", host.authority()));
                    break;
                }
            }
        }
    }
    pulled.failed = Some(reasons.join("; "));
}

fn request(
    host: &Client,
    path: &str,
    object: &Blob,
    have: usize,
    first: bool,
    pulled: &mut Pulled,
) -> End {
    let begun = Instant::now();
    let mut ask = host.ask(Method::GET, path).header("accept", MANIFEST);
    if have > 0 {
        ask = ask.header("range", &format!("bytes={have}-"));
    }
    let mut waits = true;
    let mut heard = |pulled: &mut Pulled| {
        if std::mem::take(&mut waits) {
            pulled.first_byte = pulled.first_byte.max(begun.elapsed());
        }
    };
    let mut coming = match ask.open() {
        Ok(coming) => coming,
        Err(none) => {
            heard(pulled);
            return End::Refused(none.to_string());
        }
    };
    let (status, manifest) = (coming.status, path.contains("/manifests/"));
    if status != if have > 0 { 206 } else { 200 } {
        let body = coming.by_ref().map_while(Result::ok).collect::<Vec<_>>().concat();
        heard(pulled);
        let text = String::from_utf8_lossy(&body).into_owned();
        if manifest && first {
            pulled.refused = Some((status, text.contains("\"errors\"")));
        }
        return End::Refused(format!("{status} {}", text.trim()));
    }
    if manifest {
        pulled.warned |= coming
            .headers
            .get_all("warning")
            .iter()
            .any(|value| value.as_bytes().starts_with(b"11"));
    }
    let (mut now, mut right) = (have, true);
    for piece in coming {
        heard(pulled);
        let piece = match piece {
            Ok(piece) => piece,
            Err(_) if !right => {
                pulled.spoilt += 1;
                return End::Spoilt(format!("wrong bytes, and no more after {now}"));
            }
            Err(none) => return End::Broken(now, none.to_string()),
        };
        right &= object.bytes.get(now..now + piece.len()) == Some(&piece[..]);
        now += piece.len();
    }
    if !right {
        pulled.wrong = Some(format!("all {now} bytes of {path} at {}", host.authority()));
        return End::Spoilt("wrong bytes to the end".into());
    }
    if now == object.bytes.len() { End::Whole } else { End::Broken(now, "it ended well".into()) }
}
