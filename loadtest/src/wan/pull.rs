//! One pull as a client sees it: when the first byte came, when the last, and the longest silence
//! in between.

use std::time::{Duration, Instant};

use rules::words::digest::{Algorithm, Digest, Hasher};
use serde::Serialize;

use crate::formed::Formed;
use crate::registry::blob_path;
use crate::wire::{Request, Sink, Target};

/// How long a client waits for a byte, as containerd does for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a pull went. Times count from before the connection was opened.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Pulled {
    /// Until the first byte of content.
    pub(crate) first_ms: f64,
    /// Until the last.
    pub(crate) total_ms: f64,
    /// The longest time without a byte after the first.
    pub(crate) stall_ms: f64,
    /// Bytes of content that came.
    pub(crate) bytes: u64,
    /// What went wrong, if anything did.
    pub(crate) error: Option<String>,
}

/// Whose, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The node that the client sits beside.
    pub(crate) beside: usize,
    /// The node that it asks.
    pub(crate) to: usize,
}

impl Way {
    /// A client beside the node that it asks.
    pub(crate) fn at(node: usize) -> Self {
        Way { beside: node, to: node }
    }
}

/// GETs a blob over a fresh connection and compares it with its name. `look` is called with the
/// number of bytes so far, and may take its time.
pub(crate) fn pull(
    target: &Target,
    repository: &str,
    digest: &Digest,
    look: &mut dyn FnMut(u64),
) -> Pulled {
    let mut client = target.client().patient_for(PATIENCE);
    let path = blob_path(repository, digest);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut pulled = Pulled::default();
    let begun = Instant::now();
    let mut latest = None;
    let mut take = |piece: &[u8]| {
        let now = Instant::now();
        match latest.replace(now) {
            None => pulled.first_ms = ms(now - begun),
            Some(before) => pulled.stall_ms = pulled.stall_ms.max(ms(now - before)),
        }
        hasher.update(piece);
        pulled.bytes += piece.len() as u64;
        look(pulled.bytes);
    };
    let answer = client.send(&Request::new("GET", &path), &mut Sink::Look(&mut take));
    pulled.total_ms = ms(begun.elapsed());
    pulled.error = match answer {
        Err(error) => Some(error.to_string()),
        Ok(answer) if answer.status != 200 => Some(format!("status {}", answer.status)),
        Ok(_) if hasher.finish() != *digest => {
            Some("the bytes are not those of the name".to_owned())
        }
        Ok(_) => None,
    };
    pulled
}

/// The same, which must go well.
pub(crate) fn must_pull(
    mesh: &Formed,
    way: Way,
    repository: &str,
    digest: &Digest,
) -> anyhow::Result<Pulled> {
    crate::stop::check()?;
    let pulled = pull(&mesh.target(way.beside, way.to), repository, digest, &mut |_| {});
    match &pulled.error {
        None => Ok(pulled),
        Some(error) => anyhow::bail!("node {} beside node {}: {error}", way.to, way.beside),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
