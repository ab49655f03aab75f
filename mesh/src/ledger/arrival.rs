//! Snapshots on their way between nodes as files: before the mesh's level is 8, when a peer may be
//! of a build that knows nothing else. From then on records go in ranges ([`super::carried`]).
//!
//! A sender that gives up, for any reason, resets its stream; a dropped stream would look complete
//! to the receiver. The receiver writes each snapshot into a file of its own. It accepts the file
//! only if it has the announced length, ends with the announced hash, and says itself that it is
//! the announced state. Anything else is an error, and the leader sends the snapshot again from its
//! beginning.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::SendStream;
use rules::ledger::fingerprint::Fingerprint;
use rules::words::digest::{Algorithm, Hasher};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::carried::{Earlier, Held, Unfinished};
use super::database::other;
use super::latest::Latest;
use super::snapshot::{HASH_BYTES, snapshot_meta};
use super::state::StateMachine;
use super::types::{SnapshotMeta, Vote};
use ground::supervise::blocking;

/// The beginning of the names of files with arriving snapshots.
const RECEIVED: &str = "snapshot.received";
/// The number of bytes that are read at once.
const CHUNK: usize = 1 << 18;

/// The description of a state that is sent in ranges, before them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Announced {
    /// The leadership under which it is sent.
    pub(super) vote: Vote,
    /// Which state it is.
    pub(super) meta: SnapshotMeta,
    /// The fingerprint of its records, if the sender knows it before it has read them.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// The description of a snapshot, sent before its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The leadership under which it is sent.
    pub(super) vote: Vote,
    /// The state that it contains.
    pub(super) meta: SnapshotMeta,
    /// The file's length in bytes.
    pub(super) length: u64,
    /// The hash at the end of the file.
    pub(super) hash: [u8; HASH_BYTES as usize],
}

/// Opens a snapshot's file for sending. The description is read from the open file, because another
/// file may take its name at any time.
pub(super) async fn open(vote: Vote, path: &Path) -> io::Result<(Header, tokio::fs::File)> {
    let mut file = std::fs::File::open(path)?;
    let (meta, file) = blocking(move || snapshot_meta(&mut file).map(|meta| (meta, file)))
        .await
        .map_err(other)??;
    let length = file.metadata()?.len();
    let mut file = tokio::fs::File::from_std(file);
    let mut hash = [0; HASH_BYTES as usize];
    file.seek(io::SeekFrom::End(-(HASH_BYTES as i64))).await?;
    file.read_exact(&mut hash).await?;
    file.rewind().await?;
    Ok((Header { vote, meta, length, hash }, file))
}

/// Writes `held` into a file of `machine`'s folder and opens it. The file has no name then, so it is
/// gone when it is closed.
pub(super) async fn open_written(
    machine: &StateMachine,
    vote: Vote,
    held: Held,
    name: String,
) -> io::Result<(Header, tokio::fs::File)> {
    let machine = machine.clone();
    let path = blocking(move || machine.write_file(&held, &name)).await.map_err(other)??;
    let opened = open(vote, &path).await;
    std::fs::remove_file(&path)?;
    opened
}

/// Sends `length` bytes. If not all can be sent, or the future is dropped, the stream is reset.
pub(super) async fn send(
    file: impl AsyncRead + Unpin,
    length: u64,
    stream: SendStream,
) -> io::Result<()> {
    let mut stream = Unfinished(Some(stream));
    let mut file = file.take(length);
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    loop {
        let n = file.read(&mut chunk).await?;
        if n == 0 {
            break;
        }
        if let Some(stream) = &mut stream.0 {
            stream.write_all(&chunk[..n]).await.map_err(other)?;
        }
        sent += n as u64;
    }
    if sent < length {
        return Err(other("the snapshot's file is shorter than it was"));
    }
    stream.0.take().map_or(Ok(()), |mut whole| whole.finish().map_err(other))
}

/// The folder where snapshots arrive.
pub(super) struct Arrivals {
    folder: PathBuf,
    next: AtomicU64,
    /// What arrived in ranges, in transfers that broke.
    pub(super) earlier: Earlier,
    /// The number of states that came from a leader, and are this node's since.
    installed: AtomicU64,
    /// Whose records are taken.
    pub(super) latest: Latest,
}

/// A snapshot that arrived completely. Dropping this removes its file.
#[derive(Debug)]
pub(super) struct Arrived(PathBuf);

impl Arrived {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Arrivals {
    /// Receives into `folder`, and removes what a killed process has left there.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(RECEIVED) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Arrivals {
            folder: folder.into(),
            next: AtomicU64::new(1),
            earlier: Earlier::default(),
            installed: AtomicU64::new(0),
            latest: Latest::default(),
        })
    }

    /// A state that came from a leader is this node's now.
    pub(super) fn note_installed(&self) {
        self.installed.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("atoll_ledger_snapshots_total").increment(1);
    }

    /// How many states came from leaders since this process began.
    pub(super) fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    fn name(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{RECEIVED}.{number}"))
    }

    /// A file for what arrives in ranges. It has no name, so it is gone when nobody uses it.
    pub(super) fn nameless(&self) -> io::Result<std::fs::File> {
        let path = self.name();
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(file)
    }

    /// Receives the snapshot that `header` announces. After an error no file is left.
    pub(super) async fn take(
        &self,
        header: &Header,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Arrived> {
        let arrived = Arrived(self.name());
        let body = header
            .length
            .checked_sub(HASH_BYTES)
            .ok_or_else(|| other("a snapshot without a hash"))?;
        let mut file = tokio::fs::File::create(&arrived.0).await?;
        let (mut hasher, mut hash) = (Hasher::new(Algorithm::Sha256), Vec::new());
        let (mut length, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let n = stream.read(&mut chunk).await?;
            if n == 0 {
                break;
            }
            if length + n as u64 > header.length {
                return Err(other("the snapshot is longer than announced"));
            }
            let of_body = n.min(usize::try_from(body.saturating_sub(length)).unwrap_or(n));
            hasher.update(&chunk[..of_body]);
            hash.extend_from_slice(&chunk[of_body..n]);
            length += n as u64;
            file.write_all(&chunk[..n]).await?;
        }
        if length < header.length {
            return Err(other(format!(
                "the snapshot is cut off: {length} of {} bytes",
                header.length
            )));
        }
        if hash != header.hash || hasher.finish().as_bytes() != hash {
            return Err(other("the snapshot's hash does not match"));
        }
        file.sync_all().await?;
        let path = arrived.0.clone();
        let meta = blocking(move || snapshot_meta(&mut std::fs::File::open(path)?))
            .await
            .map_err(other)??;
        if meta != header.meta {
            return Err(other("the snapshot is of another state than announced"));
        }
        Ok(arrived)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rules::words::names::NodeId;

    use super::*;
    use crate::identity::Authority;
    use crate::ledger::database::Store;
    use crate::ledger::types::Membership;
    use crate::links::{self, CongestionControl};

    /// A snapshot's header, bytes and path.
    async fn snapshot(folder: &Path) -> (Header, Vec<u8>, PathBuf) {
        let store =
            Store::open(&folder.join("ledger.redb"), &ground::opening::Opening::default()).unwrap();
        let machine = StateMachine::open(store, folder).unwrap();
        let path = machine.write_file(&machine.held().unwrap(), "snapshot.file").unwrap();
        let (header, _) = open(Vote::new(1, 1), &path).await.unwrap();
        (header, std::fs::read(&path).unwrap(), path)
    }

    fn received(folder: &Path) -> usize {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(RECEIVED)).count()
    }

    #[tokio::test]
    async fn only_a_whole_snapshot_is_believed_and_two_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let (header, bytes, _) = snapshot(folder.path()).await;
        std::fs::write(folder.path().join("snapshot.received.7"), "of a process that was killed")
            .unwrap();
        let arrivals = Arrivals::open(folder.path()).unwrap();
        assert_eq!(received(folder.path()), 0);
        let first = arrivals.take(&header, &mut bytes.as_slice()).await.unwrap();
        let second = arrivals.take(&header, &mut bytes.as_slice()).await.unwrap();
        assert_ne!(first.path(), second.path());
        assert_eq!(std::fs::read(first.path()).unwrap(), bytes);
        drop((first, second));
        for length in 0..bytes.len() {
            let error = arrivals.take(&header, &mut &bytes[..length]).await.unwrap_err();
            assert!(error.to_string().contains("cut off"), "{length} bytes: {error}");
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            arrivals.take(&header, &mut other.as_slice()).await.unwrap_err();
        }
        let longer = [bytes.clone(), vec![0]].concat();
        arrivals.take(&header, &mut longer.as_slice()).await.unwrap_err();
        let mut announced = header.clone();
        let voters = vec![[1].into()];
        let nodes =
            std::collections::BTreeMap::from([(1, openraft::impls::BasicNode::new("127.0.0.1:1"))]);
        announced.meta.last_membership =
            Membership::new(None, openraft::Membership::new(voters, nodes).unwrap());
        let error = arrivals.take(&announced, &mut bytes.as_slice()).await.unwrap_err();
        assert!(error.to_string().contains("another state"), "{error}");
        assert_eq!(received(folder.path()), 0, "broken ones leave nothing behind");
    }

    #[tokio::test]
    async fn a_sender_that_gives_up_does_not_seem_to_have_finished() {
        let folder = tempfile::tempdir().unwrap();
        let (header, bytes, path) = snapshot(folder.path()).await;
        let authority = Authority::generate().unwrap();
        let [here, there] = [1, 2].map(|node| {
            links::open_for_tests(&authority, NodeId(node), CongestionControl::Delivery)
        });
        here.know(there.me(), there.local_address().unwrap());
        let (dialled, accepted) = links::connect_for_tests(&here, &there).await;
        let arrivals = Arc::new(Arrivals::open(folder.path()).unwrap());
        let receive = || async {
            let (_, mut stream) = accepted.accept_bi().await.unwrap();
            arrivals
                .take(&header, &mut stream)
                .await
                .map(|arrived| std::fs::read(arrived.path()).unwrap())
        };

        // all bytes but the last arrive, and then no more; the future that waits for the rest is
        // dropped
        let (stream, _answers) = dialled.open_bi().await.unwrap();
        let (rest, file) = tokio::io::duplex(bytes.len());
        let (mut rest, given_up) = (
            rest,
            tokio::time::timeout(Duration::from_millis(200), send(file, header.length, stream)),
        );
        tokio::io::AsyncWriteExt::write_all(&mut rest, &bytes[..bytes.len() - 1]).await.unwrap();
        let (given_up, error) = tokio::join!(given_up, receive());
        assert!(given_up.is_err());
        let error = error.unwrap_err();
        assert!(!error.to_string().contains("cut off"), "it looked like an end: {error}");

        let (stream, _answers) = dialled.open_bi().await.unwrap();
        let (header, file) = open(Vote::new(1, 1), &path).await.unwrap();
        let (sent, whole) = tokio::join!(send(file, header.length, stream), receive());
        sent.unwrap();
        assert_eq!(whole.unwrap(), bytes);
    }
}
