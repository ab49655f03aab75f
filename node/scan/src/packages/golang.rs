//! What Go writes into programs: its own version and the modules that were built in
//! (`debug/buildinfo`).

use memchr::memmem;

use crate::package::{Kind, Package};

use super::elf::Elf;
use super::text;

const MAGIC: &[u8] = b"\xFF Go buildinf:";

/// Where it stands in a program is a multiple of this.
const ALIGNED: usize = 16;

/// Bytes of its head.
const HEAD: usize = 32;

/// The most that the list of modules may have. Large programs have 100 KiB.
pub(super) const LARGEST: usize = 4 << 20;

/// The packages of a program. Empty where Go did not write it.
pub(super) fn read(elf: &Elf<'_>) -> Vec<Package> {
    let section = elf.section(".go.buildinfo");
    // a stripped program may have no sections: then it is at the begin of what is written to
    let places = section.into_iter().chain(elf.writable());
    places.into_iter().find_map(|bytes| find(bytes, Some(elf))).unwrap_or_default()
}

/// The packages in bytes that begin at a multiple of [`ALIGNED`].
pub(super) fn find(bytes: &[u8], elf: Option<&Elf<'_>>) -> Option<Vec<Package>> {
    let found = memmem::find_iter(bytes, MAGIC).filter(|at| at % ALIGNED == 0);
    found.into_iter().find_map(|at| head(&bytes[at..], elf))
}

/// Reads the head and what it leads to. From Go 1.18 on two strings follow it; before, it had their
/// addresses.
fn head(bytes: &[u8], elf: Option<&Elf<'_>>) -> Option<Vec<Package>> {
    let flags = *bytes.get(15)?;
    let (version, modules) = if flags & 2 != 0 {
        let (version, rest) = string(bytes.get(HEAD..)?)?;
        let (modules, _) = string(rest)?;
        (version, modules)
    } else {
        let pointer = u64::from(*bytes.get(14)?);
        if pointer != 4 && pointer != 8 {
            return None;
        }
        let elf = elf?;
        let address = |at: usize| {
            let part = bytes.get(at..at + pointer as usize)?;
            let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
            Some(if flags & 1 != 0 {
                part.iter().fold(0, join)
            } else {
                part.iter().rev().fold(0, join)
            })
        };
        let version = elf.go_string(address(16)?, pointer)?;
        let modules = elf.go_string(address(16 + pointer as usize)?, pointer).unwrap_or_default();
        (version, modules)
    };
    let version = text(version);
    version.starts_with("go").then(|| packages(&version, modules))
}

/// A string with its length before it, as a number in base 128.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        let byte = *bytes.get(at)?;
        if at >= 5 {
            return None;
        }
        length |= usize::from(byte & 0x7F) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if length > LARGEST {
        return None;
    }
    Some((bytes.get(at..at.checked_add(length)?)?, &bytes[at + length..]))
}

/// The packages: Go's standard library, the modules that were built in, and the program's own.
fn packages(version: &str, modules: &[u8]) -> Vec<Package> {
    let library = version.trim_start_matches("go");
    // what experiments were on follows it
    let library = library.split(" X:").next().unwrap_or(library);
    let library = library.split("-X:").next().unwrap_or(library);
    let mut packages = vec![Package::new(Kind::Gobinary, "stdlib", format!("v{library}"))];
    // 16 bytes before and after it are a mark
    let framed = modules.len() >= 33 && modules[modules.len() - 17] == b'\n';
    let modules = if framed { &modules[16..modules.len() - 16] } else { &[] };
    let modules = text(modules);
    let (mut main, mut flags) = (None::<(&str, &str)>, String::new());
    let mut built: Vec<(&str, &str)> = Vec::new();
    let mut after_main = false;
    for line in modules.lines() {
        let mut words = line.split('\t');
        let kind = words.next().unwrap_or_default();
        let (path, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match kind {
            "mod" => {
                main = Some((path, version));
                after_main = true;
            }
            "dep" => {
                built.push((path, version));
                after_main = false;
            }
            // what stands in its place
            "=>" if !after_main => {
                if let Some(last) = built.last_mut() {
                    *last = (path, version);
                }
            }
            "build" => {
                if let Some(told) = path.strip_prefix("-ldflags=") {
                    flags = unquoted(told);
                }
            }
            _ => {}
        }
    }
    if let Some((path, version)) = main {
        let version = main_version(path, version, &flags);
        built.push((path, version));
        add(&mut packages, &built);
    } else {
        add(&mut packages, &built);
    }
    packages
}

fn add(packages: &mut Vec<Package>, built: &[(&str, &str)]) {
    let told = built.iter().filter(|(path, version)| {
        // a module of a folder has no version that anyone else knows
        !path.is_empty() && !version.is_empty() && *version != "(devel)"
    });
    packages.extend(told.map(|(path, version)| Package::new(Kind::Gobinary, *path, *version)));
}

/// The version of the program itself: the one that `go install` writes, else the one that the
/// linker was told (`-X main.version=v1.2.3`), as trivy chooses it.
fn main_version<'a>(path: &str, version: &'a str, flags: &'a str) -> &'a str {
    let version = if version == "(devel)" { "" } else { version };
    if !version.is_empty() && !is_pseudo(version) {
        return version;
    }
    let mut told: [Vec<&str>; 3] = Default::default();
    let mut words = words(flags).into_iter();
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix("-X") else { continue };
        let setting = match rest.strip_prefix('=').unwrap_or(rest) {
            "" => words.next().unwrap_or_default(),
            setting => setting,
        };
        let Some((key, value)) = setting.split_once('=') else { continue };
        let lower = key.to_ascii_lowercase();
        if !(lower.ends_with(".version") || lower.ends_with(".ver")) || !is_semver(value) {
            continue;
        }
        let place = if key.strip_prefix(path).is_some_and(|rest| rest.starts_with("/cmd/")) {
            0
        } else {
            let last = lower.rsplit('/').next().unwrap_or(&lower);
            let known = ["main", "common", "version", "cmd"];
            if known.contains(&last.split('.').next().unwrap_or(last)) { 1 } else { 2 }
        };
        told[place].push(value);
    }
    match told.iter().find(|values| !values.is_empty()).map(Vec::as_slice) {
        Some([only]) => only,
        _ => version,
    }
}

/// `v0.0.0-20200622213623-75b288015ac9`: a time and a commit.
fn is_pseudo(version: &str) -> bool {
    let version = version.split('+').next().unwrap_or(version);
    let Some((rest, commit)) = version.rsplit_once('-') else { return false };
    let time = rest.rsplit(['-', '.']).next().unwrap_or(rest);
    commit.len() == 12 && time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_semver(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let numbers: Vec<_> = text[..end].split('.').collect();
    let is_number = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    numbers.len() <= 3 && numbers.iter().all(is_number) && (end == text.len() || numbers.len() == 3)
}

/// What Go quotes: `"..."` with backslashes.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.trim_matches('`').to_owned();
    };
    let mut plain = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or(' ') } else { letter });
    }
    plain
}

/// The words of a command line, without the quotes around them.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote) = (Vec::new(), None, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                start.get_or_insert(at);
            }
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                words.extend(start.take().map(|from| &text[from..at]))
            }
            _ => {
                start.get_or_insert(at);
            }
        }
    }
    words.extend(start.map(|from| &text[from..]));
    let quotes: &[char] = &['\'', '"'];
    words.into_iter().map(|word| word.trim_matches(quotes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head as Go from 1.18 on writes it, with some bytes before it.
    fn written(version: &str, modules: &str) -> Vec<u8> {
        let framed = format!("0123456789abcdef{modules}0123456789abcdef");
        let mut bytes = vec![7; 48];
        bytes.extend(MAGIC);
        bytes.extend([8, 2]);
        bytes.extend([0; 16]);
        for text in [version, &framed] {
            let mut length = text.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    fn told(bytes: &[u8]) -> Option<Vec<(String, String)>> {
        let packages = find(bytes, None)?;
        Some(packages.into_iter().map(|one| (one.name, one.version)).collect())
    }

    #[test]
    fn modules_are_read_with_what_stands_in_their_place() {
        let modules = "path\texample.org/cmd\nmod\texample.org\t(devel)\t\n\
            dep\tgolang.org/x/net\tv0.1.0\th1:x=\ndep\tgithub.com/a/b\tv1.0.0\n\
            =>\tgithub.com/fork/b\tv1.2.0\th1:y=\ndep\tlocal\t(devel)\n\
            build\t-ldflags=\"-s -X 'main.version=1.4.2' -X main.commit=abc\"\n";
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(
            told(&written("go1.22.3 X:boringcrypto", modules)).expect("Go's"),
            [
                pair("stdlib", "v1.22.3"),
                pair("golang.org/x/net", "v0.1.0"),
                pair("github.com/fork/b", "v1.2.0"),
                pair("example.org", "1.4.2"),
            ]
        );
    }

    #[test]
    fn what_ends_too_early_or_is_another_text_is_nothing() {
        let whole = written("go1.21.0", "mod\tx\tv1.0.0\n");
        for cut in 0..whole.len() {
            assert!(told(&whole[..cut]).is_none(), "{cut}");
        }
        assert!(told(&written("rust1.0", "")).is_none());
        let mut shifted = whole.clone();
        shifted.insert(0, 0);
        assert!(told(&shifted).is_none(), "it stands at a multiple of 16 only");
    }

    #[test]
    fn versions_of_programs_are_chosen() {
        let pseudo = "v0.0.0-20240102030405-0123456789ab";
        for (version, flags, expected) in [
            ("v1.2.3", "-X main.version=9", "v1.2.3"),
            (pseudo, "-X main.version=v2.0.0", "v2.0.0"),
            (pseudo, "", pseudo),
            ("(devel)", "-X=x/pkg/version.Version=1.0.0 -X x/other.ver=2.0.0", "1.0.0"),
            ("(devel)", "-X main.version=1.0.0 -X main.ver=2.0.0", ""),
            ("(devel)", "-X main.version=latest", ""),
            ("(devel)", "-X x/cmd/a.version=3.0.0 -X main.version=1.0.0", "3.0.0"),
        ] {
            assert_eq!(main_version("x", version, flags), expected, "{version} {flags}");
        }
    }
}
