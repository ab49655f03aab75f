//! Length-prefixed frames on a stream.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use rules::wire::{self, LARGEST};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::LinkError;

/// How long a frame may make no progress while it arrives.
pub(super) const STALLED: Duration = Duration::from_secs(30);

/// Writes one frame.
pub async fn write_frame(send: &mut SendStream, body: &[u8]) -> Result<(), LinkError> {
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= LARGEST);
    let length = length
        .ok_or_else(|| LinkError::Broken(format!("a frame of {} bytes is too long", body.len())))?;
    send.write_all(&length.to_be_bytes()).await.map_err(LinkError::broken)?;
    send.write_all(body).await.map_err(LinkError::broken)
}

/// Reads a frame's length in bytes, with which it begins. If it is more than `largest`, this is an
/// error, and nothing is read or allocated for it.
pub async fn begin_frame(receive: &mut RecvStream, largest: usize) -> Result<usize, LinkError> {
    let mut length = [0; 4];
    receive.read_exact(&mut length).await.map_err(LinkError::broken)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > largest {
        return Err(LinkError::Broken(format!(
            "a frame of {length} bytes is longer than is taken here ({largest})"
        )));
    }
    Ok(length)
}

/// Continues to read a frame until `body` has `length` bytes. Memory is allocated for bytes that
/// have arrived, not for those announced. Fails if no bytes arrive for `patience`; the total time
/// is not limited.
pub(super) async fn fill_frame(
    receive: &mut RecvStream,
    body: &mut Vec<u8>,
    length: usize,
    patience: Duration,
) -> Result<(), LinkError> {
    while body.len() < length {
        let chunk = timeout(patience, receive.read_chunk(length - body.len(), true)).await;
        let chunk = chunk.map_err(|_| LinkError::Deadline)?.map_err(LinkError::broken)?;
        let chunk =
            chunk.ok_or_else(|| LinkError::Broken("the stream ended within a frame".into()))?;
        body.extend_from_slice(&chunk.bytes);
    }
    Ok(())
}

/// Reads the rest of a frame that has begun and has `length` bytes.
pub async fn finish_frame(receive: &mut RecvStream, length: usize) -> Result<Vec<u8>, LinkError> {
    let mut body = Vec::new();
    fill_frame(receive, &mut body, length, STALLED).await?;
    Ok(body)
}

/// Reads the rest of a message whose frame has begun.
pub async fn finish_message<T: DeserializeOwned>(
    receive: &mut RecvStream,
    length: usize,
    patience: Duration,
) -> Result<T, LinkError> {
    let mut body = Vec::new();
    fill_frame(receive, &mut body, length, patience).await?;
    Ok(wire::decode(&body)?)
}

/// Writes a message as a frame.
pub async fn write_message<T: Serialize>(
    send: &mut SendStream,
    message: &T,
) -> Result<(), LinkError> {
    write_frame(send, &wire::encode(message)).await
}

/// Reads a message from a frame of at most `largest` bytes. There is no limit for the time until it
/// begins.
pub async fn read_message_within<T: DeserializeOwned>(
    receive: &mut RecvStream,
    largest: usize,
) -> Result<T, LinkError> {
    let length = begin_frame(receive, largest).await?;
    finish_message(receive, length, STALLED).await
}

/// Reads a message of at most [`wire::SMALL`] bytes, which is enough for most kinds.
pub async fn read_message<T: DeserializeOwned>(receive: &mut RecvStream) -> Result<T, LinkError> {
    read_message_within(receive, wire::SMALL).await
}
