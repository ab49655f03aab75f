//! What layers contain: from the ledger, or read out of their bytes, once for all images.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use ground::clock;
use ground::supervise::{at_length, blocking};
use rules::blobs::pacing::Class;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::scanning::{LookForScans, MOST_KEPT, ScannerChange};
use rules::words::digest::{Digest, Hasher};
use rules::words::image::{Image, Layer};
use rules::words::moment::Moment;
use rules::words::names::{OperationId, RepositoryName};
use scan::{LayerError, Limits};
use serde_bytes::ByteBuf;
use store::{BlobReader, OpenBlob};

use super::{ScanError, Scans};
use crate::blobs::flights::Sources;
use crate::writes::settle;

/// The maximum length of a kept layer when it is unpacked, in bytes.
const MOST_UNPACKED: u64 = 64 << 20;
/// The maximum number of layers of an image, and of bytes of what all of them list, as JSON: they are
/// in memory together, and one layer may be listed many times.
const MOST_LAYERS: usize = 500;
const MOST_TOGETHER: usize = 64 << 20;
/// A layer with nothing in it, and its type.
const EMPTY: [u8; 1024] = [0; 1024];
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// How often it is looked whether a scan is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// The layers of one image on their way into one report.
pub(super) struct Reading<'a> {
    pub(super) scans: &'a Scans,
    pub(super) repository: &'a RepositoryName,
    pub(super) digest: &'a Digest,
    /// The number of the scan; `None` if somebody only wants to see its report.
    pub(super) number: Option<u64>,
}

impl Reading<'_> {
    /// What all layers contain, the bottom one first, and what there is to say about how that was
    /// found. What was read anew is kept for other images.
    pub(super) async fn all(&self, image: &Image) -> Result<(Vec<scan::Layer>, String), ScanError> {
        self.within(image, self.scans.terms.timeout).await
    }

    /// The same, within a time.
    pub(super) async fn within(
        &self,
        image: &Image,
        most: Duration,
    ) -> Result<(Vec<scan::Layer>, String), ScanError> {
        let end = clock::now() + most;
        let cached = self.scans.is_cached(self.repository)?;
        let (mut found, mut log, mut bound) = (Vec::new(), String::new(), Bound::default());
        for layer in &image.layers {
            let digest = &layer.digest;
            if cached {
                self.scans.check_shown(self.repository, digest).await?;
            }
            // of an attestation nothing is kept: the same bytes may be a layer elsewhere
            let kept = match image.attests() {
                true => None,
                false => self.scans.kept_layer(digest)?,
            };
            let kept = kept.or_else(|| unpack(&self.scans.cached.list(digest).filter(|_| cached)?));
            let (contents, how) = match kept {
                Some(kept) => (kept, "known"),
                None => (self.read(image, layer, end).await?, "read"),
            };
            bound.take(&contents)?;
            if how == "read" && !image.attests() {
                match cached {
                    true => self.scans.keep_for_a_while(digest, &contents)?,
                    false => self.scans.keep(digest, &contents).await?,
                }
            }
            log += &format!("layer {digest}: {how}, {} packages\n", contents.packages());
            found.push(contents);
        }
        Ok((found, log))
    }

    async fn read(
        &self,
        image: &Image,
        layer: &Layer,
        end: Moment,
    ) -> Result<scan::Layer, ScanError> {
        let blob = self.open(&layer.digest, end).await?;
        let terms = &self.scans.terms;
        let limits = Limits { bytes: terms.unpacked, ..Limits::default() };
        let (stop, late) = (Arc::new(AtomicBool::new(false)), clock::now() >= end);
        let mut first = [0; 6];
        let length =
            blob.bytes.read_at(&mut first, 0).map_err(|e| ScanError::Again(e.to_string()))?;
        let attests = image.attests();
        let zipped = ["gzip", "zstd"].iter().any(|word| layer.media_type.ends_with(word));
        if !zipped && is_compressed(&first[..length]) {
            // runtimes look at the bytes, not at the type
            return Err(ScanError::Hopeless(format!(
                "layer {}: its bytes are compressed, and its type says that they are not",
                layer.digest
            )));
        }
        let mut bytes = Checked::new(Paced::new(&blob, terms.rate), layer.digest);
        let (media_type, stopped) = (layer.media_type.clone(), stop.clone());
        let work = blocking(move || {
            let keep_on = || !stopped.load(Ordering::Relaxed);
            let read = match attests {
                true => match is_text(&mut bytes) {
                    Ok(true) => scan::read_layer(&EMPTY[..], TAR, &limits, &keep_on),
                    Ok(false) => Err(LayerError::Damaged("an attestation is a text".into())),
                    Err(error) => Err(LayerError::Read(error)),
                },
                false => scan::read_layer(
                    io::BufReader::with_capacity(1 << 18, &mut bytes),
                    &media_type,
                    &limits,
                    &keep_on,
                ),
            };
            match read {
                Err(error @ (LayerError::Stopped | LayerError::Read(_))) => Err(error),
                read => match bytes.are_right(&keep_on) {
                    Ok(true) => read.map(Some),
                    // whatever was read of them
                    Ok(false) => Ok(None),
                    Err(_) if !keep_on() => Err(LayerError::Stopped),
                    Err(error) => Err(LayerError::Read(error)),
                },
            }
        });
        tokio::pin!(work);
        let mut out_of_time = late;
        let read = loop {
            tokio::select! {
                read = &mut work => break read,
                () = tokio::time::sleep(LOOK) => {
                    out_of_time |= clock::now() >= end;
                    let is_wanted =
                        |number| self.scans.is_wanted(self.repository, self.digest, number);
                    let wanted = self.number.is_none_or(is_wanted);
                    if out_of_time || !wanted {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        match read.map_err(|e| ScanError::Hopeless(format!("the scan failed: {e}")))? {
            Ok(Some(read)) => Ok(read),
            Ok(None) => {
                let digest = layer.digest;
                self.scans.rechecks.complained(digest);
                Err(ScanError::Again(format!(
                    "this node's copy of layer {digest} is damaged, and is replaced by another node's: look at its disk"
                )))
            }
            Err(LayerError::Stopped) if out_of_time => Err(ScanError::Hopeless(format!(
                "it took longer than {} s (scan.timeout)",
                terms.timeout.as_secs()
            ))),
            Err(LayerError::Stopped) => Err(ScanError::Stopped),
            Err(error @ LayerError::Read(_)) => Err(ScanError::Again(error.to_string())),
            Err(error) => Err(ScanError::Hopeless(format!("layer {}: {error}", layer.digest))),
        }
    }

    /// The bytes of a layer, or of a configuration, at this node, fetched if they are elsewhere.
    pub(super) async fn open(&self, digest: &Digest, end: Moment) -> Result<OpenBlob, ScanError> {
        let digest = *digest;
        if self.scans.is_cached(self.repository)? {
            self.scans.check_shown(self.repository, &digest).await?;
        }
        if let Some(open) = self.scans.store.open_sound(&digest).await? {
            return Ok(open);
        }
        let (via, class) = match self.scans.is_cached(self.repository)? {
            true => (Some(self.repository.clone()), Class::Preheat),
            false => (None, Class::Copy),
        };
        let flight = self.scans.flights.join(digest, Sources::Find { via }, class);
        let wait = self.scans.terms.fetch.min(end.since(clock::now()));
        let fetched = tokio::time::timeout(wait, flight.finished()).await;
        match fetched {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(ScanError::Again(format!("layer {digest} is not here: {error}")));
            }
            Err(_) => {
                return Err(ScanError::Again(format!("layer {digest} did not arrive in time")));
            }
        }
        let gone = || ScanError::Again(format!("layer {digest} was here for a moment only"));
        self.scans.store.open_sound(&digest).await?.ok_or_else(gone)
    }
}

impl Scans {
    /// What is kept of all layers of an image.
    pub(super) fn kept_layers(&self, image: &Image) -> Result<Vec<scan::Layer>, ScanError> {
        let (mut found, mut bound) = (Vec::new(), Bound::default());
        if image.attests() {
            return Ok(found);
        }
        for layer in &image.layers {
            let kept = self.kept_layer(&layer.digest)?.ok_or_else(|| {
                let digest = &layer.digest;
                ScanError::Again(format!("layer {digest} must be read again: scan the image"))
            })?;
            bound.take(&kept)?;
            found.push(kept);
        }
        Ok(found)
    }

    fn kept_layer(&self, digest: &Digest) -> Result<Option<scan::Layer>, ScanError> {
        let kept = self.neighbours.records.view()?.layer_contents(digest)?;
        // one of another form is read again
        Ok(kept.and_then(|kept| unpack(&kept)))
    }

    /// Keeps what a layer of a cached image contains in the memory of this node: the ledger has
    /// nothing of what is cached.
    fn keep_for_a_while(&self, digest: &Digest, layer: &scan::Layer) -> Result<(), ScanError> {
        let packed = at_length(|| pack(layer)).map_err(|e| ScanError::Hopeless(e.to_string()))?;
        if packed.len() <= MOST_KEPT {
            self.cached.keep_list(*digest, packed);
        }
        Ok(())
    }

    async fn keep(&self, digest: &Digest, layer: &scan::Layer) -> Result<(), ScanError> {
        let packed = at_length(|| pack(layer)).map_err(|e| ScanError::Hopeless(e.to_string()))?;
        if packed.len() > MOST_KEPT {
            return Err(ScanError::Hopeless(format!(
                "layer {digest} has more packages than can be kept ({} of {MOST_KEPT} bytes)",
                packed.len()
            )));
        }
        let change = ScannerChange::Layers(vec![(*digest, ByteBuf::from(packed))]);
        let (operation, command) =
            (OperationId(rand::random()), Command::Scanner(Box::new(change)));
        let records = &self.neighbours.records;
        let proposed = records.propose(operation, command, self.terms.commit).await;
        let proposed = proposed.map_err(|e| ScanError::Again(e.to_string()))?;
        debug_assert_ne!(proposed.outcome, Outcome::NotFound);
        settle(proposed.outcome)?;
        Ok(())
    }
}

/// How much the layers of one image list together.
#[derive(Default)]
struct Bound {
    layers: usize,
    bytes: usize,
}

impl Bound {
    /// One layer more, or the reason why it is too much.
    fn take(&mut self, layer: &scan::Layer) -> Result<(), ScanError> {
        let mut counted = Counted(0);
        serde_json::to_writer(&mut counted, layer)
            .map_err(|e| ScanError::Hopeless(e.to_string()))?;
        self.layers += 1;
        self.bytes += counted.0;
        if self.layers > MOST_LAYERS {
            return Err(ScanError::Hopeless(format!("it has more than {MOST_LAYERS} layers")));
        }
        if self.bytes > MOST_TOGETHER {
            let why = format!("its layers list more than {MOST_TOGETHER} bytes of names together");
            return Err(ScanError::Hopeless(why));
        }
        Ok(())
    }
}

/// Counts what is written.
struct Counted(usize);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the first bytes of a layer say of its compression.
fn is_compressed(first: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"];
    // zstd's frames that are passed over
    let skipped = first.len() >= 4 && first[0] & 0xf0 == 0x50 && first[1..4] == *b"\x2a\x4d\x18";
    skipped || MAGIC.iter().any(|magic| first.starts_with(magic))
}

/// An attestation or an SBOM is a text, and no archive that a runtime could unpack: no byte of it is
/// zero.
fn is_text(bytes: &mut impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].contains(&0) => return Ok(false),
            _ => {}
        }
    }
}

fn pack(layer: &scan::Layer) -> io::Result<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&serde_json::to_vec(layer)?)?;
    packed.finish()
}

fn unpack(kept: &[u8]) -> Option<scan::Layer> {
    let mut bytes = Vec::new();
    let whole = ZlibDecoder::new(kept).take(MOST_UNPACKED).read_to_end(&mut bytes);
    whole.ok()?;
    let layer: scan::Layer = serde_json::from_slice(&bytes).ok()?;
    (layer.format == scan::Layer::FORMAT).then_some(layer)
}

/// A blob's bytes, not faster than is allowed: pulls come first.
pub(super) struct Paced {
    blob: BlobReader,
    rate: Option<u64>,
    begun: Moment,
}

impl Paced {
    /// From the start of the blob, wherever others read.
    pub(super) fn new(blob: &OpenBlob, rate: Option<u64>) -> Self {
        Paced { blob: blob.reader(), rate, begun: clock::now() }
    }
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.blob.position() as f64 / rate.max(1) as f64);
            let wait = due.saturating_sub(clock::now().since(self.begun));
            // a stop must not wait long
            std::thread::sleep(wait.min(Duration::from_millis(200)));
        }
        self.blob.read(buffer)
    }
}

/// Bytes that are hashed while they are read: a node does not check what it reads from its disk.
struct Checked<R> {
    bytes: R,
    expected: Digest,
    hasher: Hasher,
}

impl<R: Read> Checked<R> {
    fn new(bytes: R, expected: Digest) -> Self {
        Checked { bytes, expected, hasher: Hasher::new(expected.algorithm()) }
    }

    /// Reads what is left, and says whether all of it is what it should be.
    fn are_right(mut self, keep_on: &dyn Fn() -> bool) -> io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {
            if !keep_on() {
                return Err(io::Error::other("it was stopped"));
            }
        }
        Ok(self.hasher.finish() == self.expected)
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_right_or_wrong_however_much_of_them_was_read() {
        let bytes = vec![7; 200 << 10];
        for (expected, right) in [(Digest::sha256(&bytes), true), (Digest::sha256(b"x"), false)] {
            for beginning in [0, 1, bytes.len()] {
                let mut checked = Checked::new(&bytes[..], expected);
                checked.read_exact(&mut vec![0; beginning]).unwrap();
                assert_eq!(checked.are_right(&|| true).unwrap(), right, "after {beginning}");
            }
        }
        assert!(Checked::new(&bytes[..], Digest::sha256(&bytes)).are_right(&|| false).is_err());
    }

    #[test]
    fn bytes_and_not_types_say_whether_a_layer_is_compressed() {
        for zipped in [&b"\x1f\x8b\x08"[..], b"\x28\xb5\x2f\xfd", b"\x53\x2a\x4d\x18", b"BZh9"] {
            assert!(is_compressed(zipped), "{zipped:?}");
        }
        for plain in [&b""[..], b"etc/os", b"\x53\x2a\x4d", b"{\"a\":1"] {
            assert!(!is_compressed(plain), "{plain:?}");
        }
        assert!(is_text(&mut &b"{}"[..]).unwrap() && !is_text(&mut &EMPTY[..]).unwrap());
    }

    #[test]
    fn a_layer_that_is_listed_very_often_is_too_much() {
        let layer = scan::read_layer(&EMPTY[..], TAR, &Limits::default(), &|| true).unwrap();
        let mut bound = Bound::default();
        for n in 1..=MOST_LAYERS {
            assert!(bound.take(&layer).is_ok(), "{n}");
        }
        assert!(bound.take(&layer).is_err());
        bound = Bound { layers: 0, bytes: MOST_TOGETHER };
        assert!(matches!(bound.take(&layer), Err(ScanError::Hopeless(_))));
        let kept = pack(&layer).unwrap();
        assert_eq!(unpack(&kept), Some(layer));
    }
}
