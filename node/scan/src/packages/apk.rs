//! What apk has installed: `installed`, a stanza of `X:value` lines for each package.

use crate::package::{Kind, Package, Source};

use super::{Listing, owned, text};

/// Reads apk's list. Of two packages with one name the first counts.
pub(crate) fn read(bytes: &[u8]) -> Listing {
    let text = text(bytes);
    let mut listing = Listing::default();
    let mut files = Vec::new();
    let mut current = Reading::default();
    for line in text.lines() {
        if line.len() < 2 {
            current.end(&mut listing.packages);
            continue;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        match key {
            "P" => value.clone_into(&mut current.name),
            "V" => value.clone_into(&mut current.version),
            "A" => value.clone_into(&mut current.arch),
            "o" => value.clone_into(&mut current.origin),
            "m" => value.clone_into(&mut current.maintainer),
            "L" => value.clone_into(&mut current.licence),
            "F" => value.clone_into(&mut current.folder),
            "R" => files.push(format!("{}/{value}", current.folder)),
            _ => {}
        }
    }
    current.end(&mut listing.packages);
    listing.owned = owned(files.iter().map(String::as_str));
    listing
}

/// The stanza that is being read.
#[derive(Default)]
struct Reading {
    name: String,
    version: String,
    arch: String,
    origin: String,
    maintainer: String,
    licence: String,
    folder: String,
}

impl Reading {
    fn end(&mut self, packages: &mut Vec<Package>) {
        let read = std::mem::take(self);
        let known = packages.iter().any(|one| one.name == read.name);
        if read.name.is_empty() || read.version.is_empty() || known {
            return;
        }
        let source = if read.origin.is_empty() { read.name.clone() } else { read.origin };
        let mut package = Package::new(Kind::Apk, read.name, read.version.clone());
        package.arch = read.arch;
        package.source = Some(Source { name: source, version: read.version });
        package.vendor = read.maintainer;
        package.licenses.extend(Some(read.licence).filter(|licence| !licence.is_empty()));
        packages.push(package);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_their_origins() {
        let installed = "C:Q1x\nP:libssl3\nV:3.1.4-r1\nA:x86_64\nL:Apache-2.0\no:openssl\n\
            F:lib\nR:libssl.so.3\na:0:0:755\nF:usr/bin\nR:tool\n\nP:musl\nV:1.2.4-r2\n\n\
            P:musl\nV:9\n\nP:broken\n";
        let listing = read(installed.as_bytes());
        let told: Vec<_> = listing
            .packages
            .iter()
            .map(|one| (&*one.name, &*one.version, one.source.as_ref().map(|one| &*one.name)))
            .collect();
        assert_eq!(
            told,
            [("libssl3", "3.1.4-r1", Some("openssl")), ("musl", "1.2.4-r2", Some("musl"))]
        );
        assert_eq!(listing.owned, ["usr/bin/tool"]);
    }
}
