//! Installed Python distributions: `METADATA` of wheels, `PKG-INFO` of eggs (core metadata).

use crate::package::{Kind, Package};

use super::{Listing, stanza, text};

/// Whether a path is that of such a head.
pub(crate) fn is_one(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    (name == "METADATA" && (path.contains(".dist-info/") || path.ends_with(".egg-info/METADATA")))
        || path.ends_with("EGG-INFO/PKG-INFO")
        || path.ends_with(".egg-info")
        || path.ends_with(".egg-info/PKG-INFO")
}

/// Reads one head. Nothing where it has no name or version.
pub(crate) fn read(bytes: &[u8]) -> Listing {
    let text = text(bytes);
    let Some(head) = stanza::stanzas(&text).next() else { return Listing::default() };
    let (name, version) = (head.get("Name"), head.get("Version"));
    if name.is_empty() || version.is_empty() {
        return Listing::default();
    }
    let mut package = Package::new(Kind::PythonPkg, name, version);
    let classified = head.all("Classifier").filter_map(|line| line.strip_prefix("License :: "));
    let classified = classified.filter_map(|line| line.rsplit(" :: ").next());
    package.licenses = match (head.get("License-Expression"), head.get("License")) {
        ("", licence) => {
            let mut all: Vec<_> =
                classified.filter(|one| *one != "OSI Approved").map(str::to_owned).collect();
            if all.is_empty() && !licence.is_empty() {
                all.push(licence.to_owned());
            }
            all
        }
        (expression, _) => vec![expression.to_owned()],
    };
    Listing { packages: vec![package], owned: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_and_read() {
        for path in [
            "app/Jinja2-2.10.dist-info/METADATA",
            "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO",
            "usr/lib/python2.7/argparse.egg-info",
            "x/foo.egg/EGG-INFO/PKG-INFO",
        ] {
            assert!(is_one(path), "{path}");
        }
        assert!(!is_one("usr/share/METADATA"));
        let head = "Metadata-Version: 2.1\nName: PyYAML\nVersion: 5.3\nLicense: MIT\n\n\
            Version: 9 in the description\n";
        let packages = read(head.as_bytes()).packages;
        assert_eq!((&*packages[0].name, &*packages[0].version), ("PyYAML", "5.3"));
        assert_eq!(packages[0].licenses, ["MIT"]);
        assert!(read(b"Name: x\n").packages.is_empty());
        assert!(read(&[0xFF, 0xFE, 0]).packages.is_empty());
    }
}
