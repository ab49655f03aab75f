//! `X-Request-Id`: the name of one request, in its answer and in the node's log, as in Harbor
//! (`src/server/middleware/requestid`).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of a client's own id in bytes.
const LONGEST: usize = 128;

/// The id of a request: the client's, if it sends one that can be written into a log as it is, else
/// a random one.
pub fn of(headers: &HeaderMap) -> HeaderValue {
    let sent = headers.get(REQUEST_ID).filter(|id| is_sane(id.as_bytes()));
    sent.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

fn is_sane(id: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(b);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_id_is_kept_if_it_is_harmless() {
        let of = |sent: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent).unwrap());
            of(&headers)
        };
        for id in ["a", "0b6b6f4e-60d4-4a36-8e9f-9e9e1c3a2b11", "job:7/step=2@ci"] {
            assert_eq!(of(id.as_bytes()), id);
        }
        let long = "x".repeat(LONGEST + 1);
        for id in ["", "a b", "<b>", "a\"b", "\u{e9}", &long] {
            let made = of(id.as_bytes());
            assert_ne!(made, id);
            assert_eq!(made.len(), 32, "{id}");
        }
        assert_ne!(of(b""), of(b""));
    }
}
