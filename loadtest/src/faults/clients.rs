//! Clients of a mesh under trial: they push and delete images, and set, delete and read tags, at
//! all nodes at once, and write down what they were told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rules::words::digest::{Algorithm, Digest, Hasher};

use super::history::{Done, Histories, Value};
use super::stage::{PROJECT, Stage, locked};
use crate::content::{Blob, manifest};
use crate::mesh::PATIENCE;
use crate::process;
use crate::registry::{self, ACCEPT, blob_path, manifest_path};
use crate::wire::{Client, Request, Sink};

/// Manifests that tags are set to.
const VALUES: Value = 6;
/// Tags that are written to at a time.
const SLOTS: usize = 6;
/// How long a client waits for bytes. A node that is stopped keeps it no longer.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(12);
/// Between two requests of a client: the machine has few cores, and the nodes need them.
const PAUSE: Duration = Duration::from_millis(15);
/// After a failure.
pub(crate) const RETRY: Duration = Duration::from_millis(60);

/// An image that somebody pushed, all of it random.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    /// Its tag, which nobody else uses.
    pub(crate) tag: String,
    /// The sha256 of its manifest.
    pub(crate) manifest: Digest,
    /// Those of its blobs.
    pub(crate) blobs: Vec<Digest>,
}

/// What one trial's clients know.
#[derive(Debug)]
pub(crate) struct Clients {
    /// Where their images and tags are.
    pub(crate) repository: String,
    values: Vec<Blob>,
    /// What they saw of tags.
    pub(crate) histories: Histories,
    /// Images whose push was acknowledged and that nobody tried to delete.
    pub(crate) pushed: Mutex<Vec<Pushed>>,
    /// Images whose deletion was acknowledged.
    pub(crate) deleted: Mutex<Vec<Pushed>>,
    /// What must not be.
    pub(crate) violations: Mutex<Vec<String>>,
    /// Requests that failed or were refused.
    pub(crate) failed: AtomicUsize,
    written: Mutex<(Instant, Duration)>,
}

impl Clients {
    /// Pushes what the tags of a trial will be set to.
    pub(crate) fn prepare(stage: &Stage, seed: u64) -> Result<Self> {
        let repository = format!("{PROJECT}/s{seed:x}-{:04x}", rand::random::<u16>());
        let (layer, config) = (Blob::random(4096), Blob::config());
        let mut values = Vec::new();
        let ready = |what: &str, mut work: Box<dyn FnMut() -> Result<()> + '_>| {
            process::until(what, PATIENCE, || Ok(work().is_ok().then_some(())))
        };
        let client = || stage.mesh.administrator(0).patient_for(CLIENT_PATIENCE);
        for blob in [&layer, &config] {
            ready(
                "blobs are pushed",
                Box::new(|| registry::upload_blob(&mut client(), &repository, blob)),
            )?;
        }
        for number in 0..usize::from(VALUES) {
            // they differ in how often they name the layer
            let layers = vec![(layer.digest, layer.bytes.len()); number + 1];
            let value = manifest(&config, &layers);
            let name = value.digest.to_string();
            ready(
                "manifests are pushed",
                Box::new(|| registry::put_manifest(&mut client(), &repository, &name, &value)),
            )?;
            values.push(value);
        }
        Ok(Clients {
            repository,
            values,
            histories: Histories::default(),
            pushed: Mutex::default(),
            deleted: Mutex::default(),
            violations: Mutex::default(),
            failed: AtomicUsize::new(0),
            written: Mutex::new((Instant::now(), Duration::ZERO)),
        })
    }

    /// The longest time, up to now, in which no write was acknowledged to anybody.
    pub(crate) fn longest_wait(&self) -> Duration {
        let (last, longest) = *locked(&self.written);
        longest.max(last.elapsed())
    }

    /// Works at one node until `over`.
    pub(crate) fn work(&self, stage: &Stage, at: usize, seed: u64, over: &AtomicBool) {
        let dice = &mut StdRng::seed_from_u64(seed);
        let mut client = stage.mesh.administrator(at).patient_for(CLIENT_PATIENCE);
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            let well = match dice.random_range(0..if at < stage.replicas() { 20 } else { 7 }) {
                // an edge takes no pushes
                0..3 if at >= stage.replicas() => self.pull(&mut client, dice),
                0..7 => self.read(&mut client, &self.some_tag(dice)),
                7..12 => self.set(&mut client, dice),
                12..14 => self.delete_tag(&mut client, dice),
                14..17 => {
                    number += 1;
                    self.push(&mut client, format!("n{at}-{seed:x}-{number}"), dice)
                }
                17 => self.delete_image(&mut client, dice),
                _ => self.pull(&mut client, dice),
            };
            if !well {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            sleep(if well { PAUSE } else { RETRY });
        }
    }

    fn some_tag(&self, dice: &mut StdRng) -> String {
        self.histories.tag(dice.random_range(0..SLOTS))
    }

    /// Reads a tag; whether it was answered.
    pub(crate) fn read(&self, client: &mut Client, tag: &str) -> bool {
        let called = self.histories.now();
        match get(client, &manifest_path(&self.repository, tag)) {
            Some((200, found)) => {
                let value = self.values.iter().position(|value| value.digest == found);
                match value.and_then(|value| Value::try_from(value).ok()) {
                    Some(value) => self.histories.answered(tag, called, Done::Read(Some(value))),
                    None => self.violate(format!("{tag} is {found}, which nobody wrote")),
                }
                true
            }
            Some((404, _)) => {
                self.histories.answered(tag, called, Done::Read(None));
                true
            }
            _ => false,
        }
    }

    fn set(&self, client: &mut Client, dice: &mut StdRng) -> bool {
        let (tag, value) = (self.some_tag(dice), dice.random_range(0..VALUES));
        let called = self.histories.now();
        let done = Done::Wrote(value);
        let blob = &self.values[usize::from(value)];
        match registry::put_manifest(client, &self.repository, &tag, blob) {
            Ok(()) => {
                self.histories.answered(&tag, called, done);
                self.acknowledged();
                true
            }
            Err(_) => {
                self.histories.open(&tag, called, done);
                false
            }
        }
    }

    fn delete_tag(&self, client: &mut Client, dice: &mut StdRng) -> bool {
        let tag = self.some_tag(dice);
        let called = self.histories.now();
        match delete(client, &manifest_path(&self.repository, &tag)) {
            Some(202) => self.histories.answered(&tag, called, Done::Deleted),
            Some(404) => self.histories.answered(&tag, called, Done::NotThere),
            _ => {
                self.histories.open(&tag, called, Done::MayBeDeleted);
                return false;
            }
        }
        self.acknowledged();
        true
    }

    fn push(&self, client: &mut Client, tag: String, dice: &mut StdRng) -> bool {
        let (layer, config) = (Blob::random(dice.random_range(1..96) << 10), Blob::config());
        let whole = manifest(&config, &[(layer.digest, layer.bytes.len())]);
        let pushed = registry::upload_blob(client, &self.repository, &layer)
            .and_then(|()| registry::upload_blob(client, &self.repository, &config))
            .and_then(|()| registry::put_manifest(client, &self.repository, &tag, &whole));
        if pushed.is_ok() {
            self.acknowledged();
            locked(&self.pushed).push(Pushed {
                tag,
                manifest: whole.digest,
                blobs: vec![layer.digest, config.digest],
            });
        }
        pushed.is_ok()
    }

    fn delete_image(&self, client: &mut Client, dice: &mut StdRng) -> bool {
        let mut pushed = locked(&self.pushed);
        if pushed.is_empty() {
            return true;
        }
        let at = dice.random_range(0..pushed.len());
        let image = pushed.swap_remove(at); // whatever comes of it: nobody knows any more
        drop(pushed);
        let path = manifest_path(&self.repository, &image.manifest.to_string());
        let answer = delete(client, &path);
        if answer == Some(202) {
            self.acknowledged();
            locked(&self.deleted).push(image);
        } else if answer == Some(404) {
            self.violate(format!(
                "{path} was acknowledged, and its deletion says that it is not there"
            ));
        }
        answer == Some(202)
    }

    /// Pulls an image that was acknowledged: what comes is right, and its manifest is not unknown.
    fn pull(&self, client: &mut Client, dice: &mut StdRng) -> bool {
        let Some(image) = locked(&self.pushed).choose(dice).cloned() else { return true };
        let path = manifest_path(&self.repository, &image.tag);
        let kept = |image: &Pushed| {
            locked(&self.pushed).iter().any(|pushed| pushed.manifest == image.manifest)
        };
        match get(client, &path) {
            Some((200, found)) if found != image.manifest => {
                self.violate(format!("{path} is {found}, not {}", image.manifest));
                return true;
            }
            Some((404, _)) if kept(&image) => {
                self.violate(format!("{path} was acknowledged and is not there"));
                return true;
            }
            Some((200, _)) => {}
            answer => return answer.is_some_and(|(status, _)| status == 404),
        }
        image.blobs.iter().all(|blob| {
            let got = get(client, &blob_path(&self.repository, blob));
            if let Some((200, found)) = got
                && found != *blob
            {
                self.violate(format!("blob {blob} came as {found}"));
            }
            got.is_some_and(|(status, _)| status == 200)
        })
    }

    fn acknowledged(&self) {
        let (last, longest) = &mut *locked(&self.written);
        *longest = (*longest).max(last.elapsed());
        *last = Instant::now();
    }

    pub(crate) fn violate(&self, what: String) {
        locked(&self.violations).push(what);
    }
}

/// The status of a GET and the sha256 of what came, if an answer came whole and does not warn that it
/// may be stale.
pub(crate) fn get(client: &mut Client, path: &str) -> Option<(u16, Digest)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let request = Request::new("GET", path);
    let answer = client.send(&request.headers(&[ACCEPT]), &mut Sink::Hash(&mut hasher)).ok()?;
    (!answer.warned).then(|| (answer.status, hasher.finish()))
}

fn delete(client: &mut Client, path: &str) -> Option<u16> {
    Some(client.send(&Request::new("DELETE", path), &mut Sink::Discard).ok()?.status)
}
