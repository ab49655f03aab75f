//! ELF files: their sections and segments.

/// A file's sections and segments.
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
    sections: Vec<Section<'a>>,
    segments: Vec<Segment>,
}

struct Section<'a> {
    name: &'a [u8],
    bytes: &'a [u8],
}

/// A part of the file that is loaded.
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    is_writable: bool,
}

/// Sections and segments, at most. A program has some dozens.
const MOST: u64 = 20_000;

/// Whether bytes begin as ELF files do.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.starts_with(b"\x7FELF")
}

impl<'a> Elf<'a> {
    /// Reads the headers. What lies outside of the file is left out.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !is_one(bytes) {
            return None;
        }
        let wide = match bytes.get(4)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let big = *bytes.get(5)? == 2;
        let mut elf = Elf { bytes, wide, big, sections: Vec::new(), segments: Vec::new() };
        let _ = elf.read_segments();
        let _ = elf.read_sections();
        Some(elf)
    }

    /// A number of so many bytes, in the file's order.
    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if self.big { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    }

    /// A number of the width of an address.
    fn word(&self, at: u64) -> Option<u64> {
        self.number(at, if self.wide { 8 } else { 4 })
    }

    fn part(&self, offset: u64, size: u64) -> Option<&'a [u8]> {
        let (offset, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
        self.bytes.get(offset..offset.checked_add(size)?)
    }

    fn read_segments(&mut self) -> Option<()> {
        let start = self.word(if self.wide { 32 } else { 28 })?;
        let (each, count) = if self.wide { (54, 56) } else { (42, 44) };
        let (each, count) = (self.number(each, 2)?, self.number(count, 2)?.min(MOST));
        for index in 0..count {
            let at = start.checked_add(index * each)?;
            if self.number(at, 4)? != 1 {
                continue; // none that is loaded
            }
            let [flags, offset, address, size] =
                if self.wide { [4, 8, 16, 32] } else { [24, 4, 8, 16] };
            let segment = Segment {
                address: self.word(at + address)?,
                offset: self.word(at + offset)?,
                size: self.word(at + size)?,
                is_writable: self.number(at + flags, 4)? & 2 != 0,
            };
            self.segments.push(segment);
        }
        Some(())
    }

    fn read_sections(&mut self) -> Option<()> {
        let start = self.word(if self.wide { 40 } else { 32 })?;
        let (each, count, names) = if self.wide { (58, 60, 62) } else { (46, 48, 50) };
        let (each, count) = (self.number(each, 2)?, self.number(count, 2)?.min(MOST));
        let place = |elf: &Self, index: u64| {
            let at = start.checked_add(index.checked_mul(each)?)?;
            let (offset, size) = if elf.wide { (24, 32) } else { (16, 20) };
            let kind = elf.number(at.checked_add(4)?, 4)?;
            let bytes =
                elf.part(elf.word(at.checked_add(offset)?)?, elf.word(at.checked_add(size)?)?);
            // 8: it takes no place in the file
            Some((at, bytes.filter(|_| kind != 8)?))
        };
        let (_, names) = place(self, self.number(names, 2)?)?;
        for index in 0..count {
            let Some((at, bytes)) = place(self, index) else { continue };
            let name = usize::try_from(self.number(at, 4)?).ok()?;
            let name = names.get(name..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            self.sections.push(Section { name, bytes });
        }
        Some(())
    }

    /// The bytes of the section with this name.
    pub(super) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let mut named = self.sections.iter().filter(|one| one.name == name.as_bytes());
        named.next().map(|section| section.bytes)
    }

    /// The bytes of the segments that are written to while the program runs.
    pub(super) fn writable(&self) -> impl Iterator<Item = &'a [u8]> {
        let writable = self.segments.iter().filter(|segment| segment.is_writable);
        writable.filter_map(|segment| self.part(segment.offset, segment.size))
    }

    /// The bytes at an address of the running program.
    pub(super) fn at(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            let fits = inside.checked_add(size)? <= segment.size;
            fits.then(|| self.part(segment.offset.checked_add(inside)?, size))?
        })
    }

    /// A string as Go keeps it: an address that points to an address and a length.
    pub(super) fn go_string(&self, address: u64, pointer: u64) -> Option<&'a [u8]> {
        let header = self.at(address, 2 * pointer)?;
        let read = |from: u64| {
            let part = header.get(from as usize..(from + pointer) as usize)?;
            let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
            Some(if self.big { part.iter().fold(0, join) } else { part.iter().rev().fold(0, join) })
        };
        self.at(read(0)?, read(pointer)?)
    }
}
