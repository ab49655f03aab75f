//! One layer, read once, front to back.

use std::cell::Cell;
use std::io::{self, Read};

use rules::words::digest::{Algorithm, Digest, Hasher};

use crate::archive::compression::{Compression, decompress};
use crate::archive::tar::{Entry, Kind, Tar, TarError};
use crate::packages::{Listing, What, apk, dpkg, jar, node, program, python, release, rpm};

use super::{Contents, Layer, LayerError, Limits};

/// What the engine keeps of one layer, at most: bytes of paths, names and versions.
const KEPT: usize = 24 << 20;

/// What each package costs beside its texts, and what each path.
const EACH: usize = 256;
const EACH_PATH: usize = 32;

/// The longest path that is kept. Linux takes 4 KiB.
const PATH: usize = 4096;

/// Reads one layer, once, as it is stored: gzip, zstd or not compressed, by its media type.
///
/// `keep_on` is asked at each entry and for each 64 KiB or less: the first `false` ends it. A file
/// in the layer that is damaged is passed over, as long as the layer itself can be read further; if
/// a distribution lists its packages in it, the inventory says so ([`super::Inventory::gaps`]).
///
/// Memory: [`Limits::file`], 32 MiB for a program of Go that is larger, a window of at most 32 MiB
/// of zstd, and what is kept (24 MiB at most, which few images come near).
pub fn read_layer(
    compressed: impl Read,
    media_type: &str,
    limits: &Limits,
    keep_on: &dyn Fn() -> bool,
) -> Result<Layer, LayerError> {
    let compression = Compression::of(media_type);
    let compression = compression.ok_or_else(|| LayerError::MediaType(media_type.to_owned()))?;
    let ends = Ends::default();
    let source = Source { inner: compressed, ends: &ends };
    let metered = Metered {
        inner: decompress(source, compression),
        left: limits.bytes,
        keep_on,
        ends: &ends,
    };
    let mut reading = Reading {
        tar: Tar::new(metered),
        limits,
        keep_on,
        kept: 0,
        layer: Layer {
            format: Layer::FORMAT,
            files: Default::default(),
            whiteouts: Vec::new(),
            opaque: Vec::new(),
            replaced: Vec::new(),
            gaps: Default::default(),
        },
    };
    match reading.all() {
        Ok(()) => Ok(reading.layer),
        Err(Ended::Layer(error)) => Err(error),
        Err(Ended::Tar(TarError::Damaged(what))) => Err(LayerError::Damaged(what.to_owned())),
        Err(Ended::Tar(TarError::Read(error))) => Err(ends.error(error, limits.bytes)),
    }
}

/// The sha256 of a layer's unpacked bytes, as configurations of images list it (`diff_ids`). Reads at
/// most `most` unpacked bytes; `keep_on` is asked as in [`read_layer`].
pub fn unpacked_digest(
    compressed: impl Read,
    media_type: &str,
    most: u64,
    keep_on: &dyn Fn() -> bool,
) -> Result<Digest, LayerError> {
    let compression = Compression::of(media_type);
    let compression = compression.ok_or_else(|| LayerError::MediaType(media_type.to_owned()))?;
    let ends = Ends::default();
    let source = Source { inner: compressed, ends: &ends };
    let inner = decompress(source, compression);
    let mut unpacked = Metered { inner, left: most, keep_on, ends: &ends };
    let (mut hasher, mut buffer) = (Hasher::new(Algorithm::Sha256), vec![0; 64 << 10]);
    loop {
        match unpacked.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ends.error(error, most)),
        }
    }
}

/// Why the bytes ended, where an [`io::Error`] does not say it.
#[derive(Default)]
struct Ends {
    why: Cell<Why>,
}

impl Ends {
    /// The error of a layer that may have `most` unpacked bytes.
    fn error(&self, error: io::Error, most: u64) -> LayerError {
        match self.why.get() {
            Why::Stopped => LayerError::Stopped,
            Why::TooLarge => LayerError::TooLarge(format!("it unpacks to more than {most} bytes")),
            Why::Source => LayerError::Read(error),
            Why::Other if error.kind() == io::ErrorKind::UnexpectedEof => {
                LayerError::Damaged("its compressed bytes end too early".to_owned())
            }
            Why::Other => LayerError::Damaged(error.to_string()),
        }
    }
}

#[derive(Clone, Copy, Default)]
enum Why {
    #[default]
    Other,
    Stopped,
    TooLarge,
    Source,
}

/// The compressed bytes: errors of theirs are not the layer's fault.
struct Source<'a, R> {
    inner: R,
    ends: &'a Ends,
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.ends.why.set(Why::Source);
            }
        })
    }
}

/// The unpacked bytes, counted.
struct Metered<'a, R> {
    inner: R,
    left: u64,
    keep_on: &'a dyn Fn() -> bool,
    ends: &'a Ends,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !(self.keep_on)() {
            self.ends.why.set(Why::Stopped);
            return Err(io::Error::other("stopped"));
        }
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                self.ends.why.set(Why::TooLarge);
                return Err(io::Error::other("too large"));
            }
        }
        Ok(read)
    }
}

enum Ended {
    Layer(LayerError),
    Tar(TarError),
}

impl From<TarError> for Ended {
    fn from(error: TarError) -> Self {
        Ended::Tar(error)
    }
}

struct Reading<'a, R> {
    tar: Tar<R>,
    limits: &'a Limits,
    keep_on: &'a dyn Fn() -> bool,
    kept: usize,
    layer: Layer,
}

impl<R: Read> Reading<'_, R> {
    fn all(&mut self) -> Result<(), Ended> {
        let mut entries = 0;
        while let Some(entry) = self.tar.next()? {
            entries += 1;
            if entries > self.limits.files {
                return Err(too_large(format!("it has more than {} entries", self.limits.files)));
            }
            let Some(path) = clean(&entry.name) else { continue };
            self.entry(&path, &entry)?;
            if self.kept > KEPT {
                return Err(too_large(
                    "it lists too many packages, or has too many links".to_owned(),
                ));
            }
        }
        self.tar.finish()?;
        Ok(())
    }

    fn entry(&mut self, path: &str, entry: &Entry) -> Result<(), Ended> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ".wh..wh..opq" {
            self.kept += folder.len() + EACH_PATH;
            self.layer.opaque.push(folder.to_owned());
            return Ok(());
        }
        if let Some(deleted) = name.strip_prefix(".wh.") {
            // what begins so twice is aufs' own
            if !deleted.is_empty() && !deleted.starts_with(".wh.") {
                let path = if folder.is_empty() {
                    deleted.to_owned()
                } else {
                    format!("{folder}/{deleted}")
                };
                self.kept += path.len() + EACH_PATH;
                self.layer.whiteouts.push(path);
            }
            return Ok(());
        }
        let what = What::of(path);
        match entry.kind {
            Kind::Folder => Ok(()),
            Kind::File => self.file(path, what, entry),
            Kind::HardLink => {
                self.hard_link(path, what, &entry.target);
                Ok(())
            }
            Kind::SymbolicLink => {
                self.symbolic_link(path, folder, what, &entry.target);
                Ok(())
            }
            Kind::Other => {
                self.replace(path);
                Ok(())
            }
        }
    }

    /// Whatever those below have at this path is hidden.
    fn replace(&mut self, path: &str) {
        self.layer.files.remove(path);
        self.layer.gaps.remove(path);
        self.kept += path.len() + EACH_PATH;
        self.layer.replaced.push(path.to_owned());
    }

    fn gap(&mut self, path: &str, why: impl Into<String>) {
        self.layer.files.remove(path);
        let why = why.into();
        self.kept += path.len() + why.len() + EACH;
        self.layer.gaps.insert(path.to_owned(), why);
    }

    /// Another name of a file of this layer: it says the same there.
    fn hard_link(&mut self, path: &str, what: Option<What>, target: &[u8]) {
        let target = clean(target).unwrap_or_default();
        let Some(what) = what else { return self.replace(path) };
        match self.layer.files.get(&target).cloned().filter(|_| What::of(&target) == Some(what)) {
            Some(contents) => self.keep(path, contents),
            None if what.is_of_language() => self.replace(path),
            None => self.gap(path, format!("it is a link to {target}, which is not read")),
        }
    }

    fn symbolic_link(&mut self, path: &str, folder: &str, what: Option<What>, target: &[u8]) {
        self.replace(path);
        // where it leads is read there, if anything is
        let target = if target.starts_with(b"/") {
            clean(target)
        } else {
            clean(&[folder.as_bytes(), b"/", target].concat())
        };
        let target = target.unwrap_or_default();
        let lists = matches!(what, Some(What::Dpkg | What::Apk | What::Rpm(_)));
        if lists && What::of(&target) != what {
            self.gap(path, format!("it is a link to {target}, which is not read"));
        }
    }

    fn file(&mut self, path: &str, what: Option<What>, entry: &Entry) -> Result<(), Ended> {
        match what {
            Some(What::Jar) => self.jar(path),
            Some(_) if entry.size > self.limits.file => {
                self.gap(path, format!("it is larger than {} bytes", self.limits.file));
                Ok(())
            }
            Some(what) => {
                let bytes = self.whole(b"", entry)?;
                self.listed(path, what, &bytes);
                Ok(())
            }
            None if entry.mode & 0o111 != 0 => self.program(path, entry),
            None => {
                // it may stand where a program stood
                let folder = path.rsplit('/').nth(1).unwrap_or_default();
                if matches!(folder, "bin" | "sbin" | "libexec") {
                    self.replace(path);
                }
                Ok(())
            }
        }
    }

    /// The whole of an entry, with what was read of it already before it.
    fn whole(&mut self, read: &[u8], entry: &Entry) -> Result<Vec<u8>, Ended> {
        // it is no larger than the limit, and takes no more memory than it has bytes
        let mut bytes = Vec::with_capacity(entry.size as usize);
        bytes.extend_from_slice(read);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.tar.read(&mut buffer)? {
                0 => return Ok(bytes),
                read => bytes.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn listed(&mut self, path: &str, what: What, bytes: &[u8]) {
        let listing = match what {
            What::Dpkg => dpkg::read(bytes),
            What::DpkgFiles => dpkg::read_files(path, bytes),
            What::Apk => apk::read(bytes),
            What::Rpm(format) => match rpm::read(format, bytes) {
                Ok(listing) => listing,
                Err(why) => return self.gap(path, why),
            },
            What::Python => python::read(bytes),
            What::Node => node::read(bytes),
            What::Jar => Listing::default(),
            What::Release => {
                let says = release::read(path, bytes);
                return self.keep(path, Contents { says, ..Contents::default() });
            }
        };
        self.keep(path, Contents { listing, says: None });
    }

    fn keep(&mut self, path: &str, mut contents: Contents) {
        self.kept += path.len() + EACH;
        for package in &mut contents.listing.packages {
            // a JAR in another has its own
            if package.path.is_empty() || !package.path.starts_with(path) {
                path.clone_into(&mut package.path);
            }
            self.kept += EACH + package.path.len() + package.name.len() + package.version.len();
        }
        self.kept +=
            contents.listing.owned.iter().map(|path| path.len() + EACH_PATH).sum::<usize>();
        self.layer.gaps.remove(path);
        self.layer.files.insert(path.to_owned(), contents);
    }

    fn jar(&mut self, path: &str) -> Result<(), Ended> {
        let failed = Cell::new(None);
        let budget = jar::Budget { bytes: Cell::new(self.limits.bytes), keep_on: self.keep_on };
        let mut body = Body { tar: &mut self.tar, failed: &failed };
        let (listing, ended) = jar::read(path, &mut body, &budget);
        // the layer itself ended, not the file in it
        if let Some(error) = failed.take() {
            return Err(error.into());
        }
        if ended.is_err() && budget.bytes.get() == 0 {
            return Err(too_large(format!(
                "{path} unpacks to more than {} bytes",
                self.limits.bytes
            )));
        }
        self.keep(path, Contents { listing, says: None });
        Ok(())
    }

    fn program(&mut self, path: &str, entry: &Entry) -> Result<(), Ended> {
        let mut head = [0; 4];
        let mut filled = 0;
        while filled < head.len() {
            match self.tar.read(&mut head[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if !program::is_one(&head[..filled]) {
            self.replace(path);
            return Ok(());
        }
        let listing = if entry.size <= self.limits.file {
            program::read(&self.whole(&head[..filled], entry)?)
        } else {
            let mut large = program::Large::default();
            large.feed(&head);
            let mut buffer = vec![0; 256 << 10];
            loop {
                match self.tar.read(&mut buffer)? {
                    0 => break large.end(),
                    read => large.feed(&buffer[..read]),
                }
            }
        };
        if listing.packages.is_empty() {
            self.replace(path);
        } else {
            self.keep(path, Contents { listing, says: None });
        }
        Ok(())
    }
}

fn too_large(what: String) -> Ended {
    Ended::Layer(LayerError::TooLarge(what))
}

/// The bytes of the current entry.
struct Body<'a, R> {
    tar: &'a mut Tar<R>,
    failed: &'a Cell<Option<TarError>>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tar.read(buffer).map_err(|error| {
            self.failed.set(Some(error));
            io::Error::other("the layer ended")
        })
    }
}

/// A path as it is seen from the root: without `.`, `..` and double slashes. `None` for the root
/// itself, and for paths that are too long to be any.
fn clean(name: &[u8]) -> Option<String> {
    if name.len() > PATH {
        return None;
    }
    let name = String::from_utf8_lossy(name);
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
