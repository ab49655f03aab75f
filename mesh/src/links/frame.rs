//! Length-prefixed frames on a stream.

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use rules::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::LinkError;

/// The longest frame: a few of the largest manifests in one message of the consensus.
pub const MAX_FRAME: usize = 40 << 20;

/// Writes one frame.
pub async fn write_frame(send: &mut SendStream, body: &[u8]) -> Result<(), LinkError> {
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| LinkError::Broken(format!("a frame of {} bytes is too long", body.len())))?;
    send.write_all(&length.to_be_bytes()).await.map_err(LinkError::broken)?;
    send.write_all(body).await.map_err(LinkError::broken)
}

/// Reads a frame's length in bytes, with which it begins.
pub async fn begin_frame(receive: &mut RecvStream) -> Result<usize, LinkError> {
    let mut length = [0; 4];
    receive.read_exact(&mut length).await.map_err(LinkError::broken)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(LinkError::Broken(format!("a frame of {length} bytes is too long")));
    }
    Ok(length)
}

/// Reads one frame.
pub async fn read_frame(receive: &mut RecvStream) -> Result<Vec<u8>, LinkError> {
    let length = begin_frame(receive).await?;
    let mut body = vec![0; length];
    receive.read_exact(&mut body).await.map_err(LinkError::broken)?;
    Ok(body)
}

/// Reads the rest of a frame that has begun, which may be megabytes: it must not stand still for `patience`, however long all of it takes.
pub async fn finish_message<T: DeserializeOwned>(
    receive: &mut RecvStream,
    length: usize,
    patience: Duration,
) -> Result<T, LinkError> {
    let mut body = Vec::new();
    while body.len() < length {
        let chunk = timeout(patience, receive.read_chunk(length - body.len(), true)).await;
        let chunk = chunk.map_err(|_| LinkError::Deadline)?.map_err(LinkError::broken)?;
        let chunk = chunk.ok_or_else(|| LinkError::Broken("the stream ended within a frame".into()))?;
        body.extend_from_slice(&chunk.bytes);
    }
    Ok(wire::decode(&body)?)
}

/// Writes one message as a frame.
pub async fn write_message<T: Serialize>(send: &mut SendStream, message: &T) -> Result<(), LinkError> {
    write_frame(send, &wire::encode(message)).await
}

/// Reads one message from a frame.
pub async fn read_message<T: DeserializeOwned>(receive: &mut RecvStream) -> Result<T, LinkError> {
    Ok(wire::decode(&read_frame(receive).await?)?)
}
