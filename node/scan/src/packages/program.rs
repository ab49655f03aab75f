//! Programs: ELF files, in which Go and `cargo auditable` list what was built in.

use super::elf::{self, Elf};
use super::{Listing, golang, rust};

/// Whether a file begins as programs do.
pub(crate) fn is_one(head: &[u8]) -> bool {
    elf::is_one(head)
}

/// Reads a whole program.
pub(crate) fn read(bytes: &[u8]) -> Listing {
    let Some(elf) = Elf::parse(bytes) else { return Listing::default() };
    let mut packages = golang::read(&elf);
    packages.extend(rust::read(&elf));
    Listing { packages, owned: Vec::new() }
}

/// A program that is too large to be held: only what Go from 1.18 on writes is found in it, while
/// its bytes go by.
#[derive(Default)]
pub(crate) struct Large {
    window: Vec<u8>,
    found: Option<Listing>,
}

impl Large {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.found.is_some() {
            return;
        }
        self.window.extend_from_slice(bytes);
        // whatever begins in the first half is whole
        if self.window.len() >= 4 * golang::LARGEST {
            self.look();
            self.window.drain(..2 * golang::LARGEST);
        }
    }

    fn look(&mut self) {
        if let Some(packages) = golang::find(&self.window, None) {
            self.found = Some(Listing { packages, owned: Vec::new() });
        }
    }

    /// What was found.
    pub(crate) fn end(mut self) -> Listing {
        if self.found.is_none() {
            self.look();
        }
        self.found.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// An ELF file of 64 bits with one section.
    fn elf_with(name: &str, contents: &[u8]) -> Vec<u8> {
        let names = format!("\0{name}\0");
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7FELF\x02\x01");
        let contents_at = file.len();
        file.extend(contents);
        let names_at = file.len();
        file.extend(names.as_bytes());
        let table = file.len();
        let mut section = |name: u32, kind: u32, offset: usize, size: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend(header);
        };
        section(1, 1, contents_at, contents.len());
        section(0, 3, names_at, names.len());
        file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&2_u16.to_le_bytes());
        file[62..64].copy_from_slice(&1_u16.to_le_bytes());
        file
    }

    fn auditable() -> Vec<u8> {
        let json = r#"{"packages":[{"name":"smallvec","version":"1.6.0","source":"crates.io"},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(json.as_bytes()).expect("memory takes bytes");
        elf_with(".dep-v0", &zlib.finish().expect("memory takes bytes"))
    }

    #[test]
    fn crates_are_read() {
        let packages = read(&auditable()).packages;
        let told: Vec<_> = packages.iter().map(|one| (&*one.name, &*one.version)).collect();
        assert_eq!(told, [("smallvec", "1.6.0")]);
        assert!(read(b"\x7FELF").packages.is_empty());
        assert!(read(&elf_with(".text", b"")).packages.is_empty());
    }

    #[test]
    fn programs_of_go_are_read_whole_and_while_they_go_by() {
        // what the compiler here makes, if there is one that makes Go's programs: cargo's own
        // programs are none, so this one is put together
        let mut info = b"\xFF Go buildinf:\x08\x02".to_vec();
        info.extend([0; 16]);
        info.extend(b"\x08go1.22.3\x00");
        let file = elf_with(".go.buildinfo", &info);
        let expected = read(&file).packages;
        assert_eq!(expected[0].version, "v1.22.3");
        for before in [0, 3 * golang::LARGEST, 9 * golang::LARGEST] {
            let mut large = Large::default();
            for piece in [vec![0; before], file.clone(), vec![0; 100]] {
                large.feed(&piece);
            }
            assert_eq!(large.end().packages, expected, "{before}");
        }
    }

    proptest! {
        #[test]
        fn broken_programs_end(changes in prop::collection::vec((0_usize..300, any::<u8>()), 1..20)) {
            let mut file = auditable();
            for (at, byte) in changes {
                let at = at % file.len();
                file[at] = byte;
            }
            read(&file);
        }
    }
}
