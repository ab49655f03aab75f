//! What layers contain: from the ledger, or read out of their bytes, once for all images.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
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
use rules::words::digest::Digest;
use rules::words::image::{Image, Layer};
use rules::words::moment::Moment;
use rules::words::names::{OperationId, RepositoryName};
use scan::{LayerError, Limits};
use serde_bytes::ByteBuf;
use store::OpenBlob;

use super::{ScanError, Scans};
use crate::blobs::flights::Sources;
use crate::writes::settle;

/// The maximum length of a kept layer when it is unpacked, in bytes.
const MOST_UNPACKED: u64 = 64 << 20;
/// The maximum number of packages in all layers of an image: they are in memory together.
const MOST_PACKAGES: usize = 200_000;
/// How often it is looked whether a scan is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// The layers of one image on their way into one report.
pub(super) struct Reading<'a> {
    pub(super) scans: &'a Scans,
    pub(super) repository: &'a RepositoryName,
    pub(super) digest: &'a Digest,
    pub(super) number: u64,
}

impl Reading<'_> {
    /// What all layers contain, the bottom one first, and what there is to say about how that was
    /// found. What was read anew is kept for other images.
    pub(super) async fn all(&self, image: &Image) -> Result<(Vec<scan::Layer>, String), ScanError> {
        let end = clock::now() + self.scans.terms.timeout;
        let (mut found, mut log, mut packages) = (Vec::new(), String::new(), 0);
        for layer in &image.layers {
            let digest = &layer.digest;
            let kept = self.scans.kept_layer(digest)?;
            let how = if kept.is_some() { "known" } else { "read" };
            let read = match kept {
                Some(kept) => kept,
                None => self.read(layer, end).await?,
            };
            packages += read.packages();
            if packages > MOST_PACKAGES {
                let why = format!("its layers have more than {MOST_PACKAGES} packages");
                return Err(ScanError::Hopeless(why));
            }
            if how == "read" {
                self.scans.keep(digest, &read).await?;
            }
            log += &format!("layer {digest}: {how}, {} packages\n", read.packages());
            found.push(read);
        }
        Ok((found, log))
    }

    async fn read(&self, layer: &Layer, end: Moment) -> Result<scan::Layer, ScanError> {
        let blob = self.open(layer, end).await?;
        let terms = &self.scans.terms;
        let limits = Limits { bytes: terms.unpacked, ..Limits::default() };
        let (stop, late) = (Arc::new(AtomicBool::new(false)), clock::now() >= end);
        let bytes = Paced { blob, at: 0, rate: terms.rate, begun: clock::now() };
        let (media_type, stopped) = (layer.media_type.clone(), stop.clone());
        let work = blocking(move || {
            let keep_on = || !stopped.load(Ordering::Relaxed);
            scan::read_layer(
                io::BufReader::with_capacity(1 << 18, bytes),
                &media_type,
                &limits,
                &keep_on,
            )
        });
        tokio::pin!(work);
        let mut out_of_time = late;
        let read = loop {
            tokio::select! {
                read = &mut work => break read,
                () = tokio::time::sleep(LOOK) => {
                    out_of_time |= clock::now() >= end;
                    let wanted = self.scans.is_wanted(self.repository, self.digest, self.number);
                    if out_of_time || !wanted {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        };
        match read.map_err(|e| ScanError::Hopeless(format!("the scan failed: {e}")))? {
            Ok(read) => Ok(read),
            Err(LayerError::Stopped) if out_of_time => Err(ScanError::Hopeless(format!(
                "it took longer than {} s (scan.timeout)",
                terms.timeout.as_secs()
            ))),
            Err(LayerError::Stopped) => Err(ScanError::Stopped),
            Err(error @ LayerError::Read(_)) => Err(ScanError::Again(error.to_string())),
            Err(error) => Err(ScanError::Hopeless(format!("layer {}: {error}", layer.digest))),
        }
    }

    /// The layer's bytes at this node, fetched if they are elsewhere.
    async fn open(&self, layer: &Layer, end: Moment) -> Result<OpenBlob, ScanError> {
        let digest = layer.digest;
        if let Some(open) = self.scans.store.open_sound(&digest).await? {
            return Ok(open);
        }
        let flight = self.scans.flights.join(digest, Sources::Find { via: None }, Class::Copy);
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
        let kept = image.layers.iter().map(|layer| {
            let kept = self.kept_layer(&layer.digest)?;
            kept.ok_or_else(|| {
                ScanError::Again(format!(
                    "layer {} must be read again: scan the image",
                    layer.digest
                ))
            })
        });
        kept.collect()
    }

    fn kept_layer(&self, digest: &Digest) -> Result<Option<scan::Layer>, ScanError> {
        let kept = self.neighbours.records.view()?.layer_contents(digest)?;
        // one of another form is read again
        Ok(kept.and_then(|kept| unpack(&kept)))
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
struct Paced {
    blob: OpenBlob,
    at: u64,
    rate: Option<u64>,
    begun: Moment,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.at as f64 / rate.max(1) as f64);
            let wait = due.saturating_sub(clock::now().since(self.begun));
            // a stop must not wait long
            std::thread::sleep(wait.min(Duration::from_millis(200)));
        }
        let file: &File = &self.blob.file;
        let read = file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
