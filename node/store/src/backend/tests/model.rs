//! Any steps, with each backend and with a model that is a few maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rules::blobs::uploads::UploadId;
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::NodeId;

use super::super::{Arrival, Backend, KeptUpload, Nameless, ReadAt};
use super::Site;
use super::checks::{all_of, bytes_of, content, everything};

/// The blobs that there are to choose from, and the uploads.
const BLOBS: u8 = 6;
const UPLOADS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// An arrival is written, and ends so.
    Arrive(u8, End),
    Remove(Vec<u8>),
    /// Somebody begins to read a blob, or all that are read are read to their end.
    Open(u8),
    ReadAll,
    List(Option<u8>, usize),
    /// An upload begins, or goes on, and rests, or becomes a blob, or is forgotten.
    Upload(u8, Vec<u8>),
    Finish(u8, End),
    Forget(u8),
    KeepOutboard(u8, Vec<u8>),
    DropOutboards(Vec<u8>),
    /// The process stops in order, or at once.
    Restart,
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Named,
    Dropped,
    DroppedWhole,
    /// Until the process ends.
    Left,
}

fn step() -> impl Strategy<Value = Step> {
    let end = || {
        prop_oneof![4 => Just(End::Named), 1 => Just(End::Dropped), 1 => Just(End::DroppedWhole),
            1 => Just(End::Left)]
    };
    let some = || prop::collection::vec(0..BLOBS, 0..4);
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        6 => (0..BLOBS, end()).prop_map(|(blob, end)| Step::Arrive(blob, end)),
        3 => some().prop_map(Step::Remove),
        3 => (0..BLOBS).prop_map(Step::Open),
        2 => Just(Step::ReadAll),
        3 => (prop::option::of(0..BLOBS), 0..5_usize).prop_map(|(at, most)| Step::List(at, most)),
        3 => (0..UPLOADS, bytes()).prop_map(|(upload, bytes)| Step::Upload(upload, bytes)),
        2 => (0..UPLOADS, end()).prop_map(|(upload, end)| Step::Finish(upload, end)),
        1 => (0..UPLOADS).prop_map(Step::Forget),
        1 => (0..BLOBS, bytes()).prop_map(|(blob, list)| Step::KeepOutboard(blob, list)),
        1 => some().prop_map(Step::DropOutboards),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

fn blob(number: u8) -> (Digest, Vec<u8>) {
    let length = [0, 1, 1000, 64 << 10, 70_000, 5][usize::from(number)];
    let algorithm = [Algorithm::Sha256, Algorithm::Sha512][usize::from(number % 2)];
    let bytes = content(number, length);
    (Digest::of(algorithm, &bytes), bytes)
}

fn id(number: u8) -> UploadId {
    UploadId::new(number.into(), NodeId(1))
}

/// What there should be.
#[derive(Default)]
struct Model {
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// What was removed, and may return with a crash.
    removed: BTreeMap<Digest, Vec<u8>>,
    /// With their notes. Whatever became of an upload, its id is not used again.
    uploads: BTreeMap<u8, (String, Vec<u8>)>,
    used: u8,
    outboards: BTreeMap<Digest, Vec<u8>>,
}

/// A process: a backend, and what is open.
struct Process {
    backend: Arc<dyn Backend>,
    reading: Vec<(Arc<dyn ReadAt>, Vec<u8>)>,
    left: Vec<Box<dyn Arrival>>,
    nameless: Vec<Box<dyn Nameless>>,
}

impl Process {
    fn start(site: &Site) -> Self {
        let (reading, left, nameless) = Default::default();
        Process { backend: site.backend(), reading, left, nameless }
    }

    /// Ends an arrival. Whether it is a blob now.
    async fn end(&mut self, arrival: Box<dyn Arrival>, end: End, digest: Digest) -> bool {
        match end {
            End::Named => {
                arrival.sync().await.unwrap().name(digest).await.unwrap();
                return true;
            }
            End::Dropped => drop(arrival),
            End::DroppedWhole => drop(arrival.sync().await.unwrap()),
            End::Left if (self.left.len() + self.nameless.len()).is_multiple_of(2) => {
                self.left.push(arrival);
            }
            End::Left => self.nameless.push(arrival.sync().await.unwrap()),
        }
        false
    }

    async fn take(&mut self, step: &Step, model: &mut Model) {
        let backend = self.backend.clone();
        match step {
            Step::Arrive(number, end) => {
                let (digest, bytes) = blob(*number);
                let mut arrival = backend.arrive().unwrap();
                for piece in bytes.chunks(30_000) {
                    arrival.write(piece).unwrap();
                }
                if self.end(arrival, *end, digest).await {
                    model.blobs.insert(digest, bytes);
                }
            }
            Step::Remove(numbers) => {
                let digests: Vec<_> = numbers.iter().map(|number| blob(*number).0).collect();
                for digest in &digests {
                    model.removed.extend(model.blobs.remove_entry(digest));
                }
                backend.remove(digests).await.unwrap();
            }
            Step::Open(number) => {
                let digest = blob(*number).0;
                let opened = backend.open(digest).await.unwrap();
                let expected = model.blobs.get(&digest).cloned();
                assert_eq!(
                    opened.as_ref().map(|opened| opened.length),
                    expected.as_ref().map(|bytes| bytes.len() as u64)
                );
                self.reading.extend(opened.map(|opened| opened.bytes).zip(expected));
            }
            Step::ReadAll => {
                for (bytes, expected) in self.reading.drain(..) {
                    assert!(all_of(&*bytes).unwrap() == expected);
                }
            }
            Step::List(number, most) => {
                let after = number.map(|number| blob(number).0);
                let behind = model.blobs.iter().filter(|(d, _)| after.is_none_or(|a| **d > a));
                let expected: Vec<_> =
                    behind.take(*most).map(|(d, bytes)| (*d, bytes.len() as u64)).collect();
                assert_eq!(backend.list(after, *most).await.unwrap(), expected);
            }
            Step::Upload(number, bytes) => {
                let mut arrival = match model.uploads.get(number) {
                    Some(_) => backend.resume_upload(&id(*number)).unwrap(),
                    None if model.used & (1 << number) != 0 => {
                        assert!(backend.resume_upload(&id(*number)).is_err());
                        return;
                    }
                    None => backend.begin_upload(&id(*number), "a note").unwrap(),
                };
                model.used |= 1 << number;
                arrival.write(bytes).unwrap();
                let (_, known) =
                    model.uploads.entry(*number).or_insert_with(|| ("a note".into(), Vec::new()));
                known.extend_from_slice(bytes);
                assert_eq!(all_of(&*arrival.bytes()).unwrap(), *known);
            }
            Step::Finish(number, end) => {
                let Some((_, bytes)) = model.uploads.get(number).cloned() else { return };
                // its bytes have no second owner
                let end = if matches!(end, End::Left) { End::Dropped } else { *end };
                let digest = Digest::sha256(&bytes);
                let arrival = backend.resume_upload(&id(*number)).unwrap();
                if self.end(arrival, end, digest).await {
                    model.blobs.insert(digest, bytes);
                }
                if !matches!(end, End::Dropped) {
                    model.uploads.remove(number);
                }
            }
            Step::Forget(number) => {
                backend.forget_upload(&id(*number)).unwrap();
                model.uploads.remove(number);
            }
            Step::KeepOutboard(number, list) => {
                let digest = blob(*number).0;
                backend.keep_outboard(digest, list.clone()).await.unwrap();
                model.outboards.insert(digest, list.clone());
            }
            Step::DropOutboards(numbers) => {
                let digests: Vec<_> = numbers.iter().map(|number| blob(*number).0).collect();
                digests.iter().for_each(|digest| drop(model.outboards.remove(digest)));
                backend.drop_outboards(digests).await.unwrap();
            }
            Step::Restart | Step::Crash => {}
        }
    }

    async fn compare(&self, model: &Model) {
        let expected: Vec<_> = model.blobs.iter().map(|(d, b)| (*d, b.len() as u64)).collect();
        assert_eq!(everything(&*self.backend).await, expected);
        let all = (0..BLOBS).map(|number| blob(number).0).chain(model.blobs.keys().copied());
        let digests: Vec<_> = all.collect();
        let lengths = self.backend.lengths(digests.clone()).await.unwrap();
        for (digest, length) in digests.into_iter().zip(lengths) {
            assert_eq!(length, model.blobs.get(&digest).map(|bytes| bytes.len() as u64));
            assert!(bytes_of(&*self.backend, digest).await == model.blobs.get(&digest).cloned());
            let list = self.backend.outboard(digest).await.unwrap();
            assert_eq!(list, model.outboards.get(&digest).cloned());
        }
        let mut uploads = self.backend.uploads().unwrap();
        uploads.sort_by_key(|upload| upload.id);
        let expected: Vec<_> = model
            .uploads
            .iter()
            .map(|(number, (note, bytes))| KeptUpload {
                id: id(*number),
                note: note.clone(),
                length: bytes.len() as u64,
            })
            .collect();
        assert_eq!(uploads, expected);
        let arriving = self.backend.arriving().unwrap().count;
        assert_eq!(arriving as usize, self.left.len() + self.nameless.len());
    }
}

async fn play(site: &Site, steps: &[Step]) {
    let mut model = Model::default();
    let mut process = Process::start(site);
    for step in steps {
        match step {
            Step::Restart => {
                model.removed.clear();
                drop(process);
                process = Process::start(site);
            }
            Step::Crash => {
                std::mem::forget((process.reading, process.left, process.nameless));
                process = Process::start(site);
                for (digest, bytes) in std::mem::take(&mut model.removed) {
                    if process.backend.open(digest).await.unwrap().is_some() {
                        model.blobs.insert(digest, bytes);
                    }
                }
            }
            step => process.take(step, &mut model).await,
        }
        process.compare(&model).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn every_backend_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for site in Site::each() {
            runtime.block_on(play(&site, &steps));
        }
    }
}
