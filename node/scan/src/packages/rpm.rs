//! What RPM has installed: the packages' heads, in SQLite (Fedora 33, RHEL 9 and later), in RPM's own
//! "ndb" (SUSE), or in Berkeley DB (RHEL 8 and before).

mod berkeley;
mod header;
mod ndb;
mod sqlite;

use crate::package::{Kind, Package, Source};

use super::{Listing, owned};
use header::Header;

/// In what a database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `rpmdb.sqlite`.
    Sqlite,
    /// `Packages.db`.
    Ndb,
    /// `Packages`.
    BerkeleyDb,
}

impl Format {
    pub(super) fn of(name: &str) -> Option<Format> {
        match name {
            "rpmdb.sqlite" => Some(Format::Sqlite),
            "Packages.db" => Some(Format::Ndb),
            "Packages" => Some(Format::BerkeleyDb),
            _ => None,
        }
    }
}

/// Whose packages are a distribution's own: so `Vendor` begins. (trivy's list,
/// `pkg/fanal/analyzer/pkg/rpm`.)
const VENDORS: [&str; 13] = [
    "Amazon Linux",
    "Amazon.com",
    "CentOS",
    "Fedora Project",
    "Oracle America",
    "Red Hat",
    "AlmaLinux",
    "CloudLinux",
    "VMware",
    "SUSE",
    "openSUSE",
    "Microsoft Corporation",
    "Rocky",
];

/// Reads a database. An error says why it cannot be read.
pub(crate) fn read(format: Format, bytes: &[u8]) -> Result<Listing, &'static str> {
    let heads = match format {
        Format::Sqlite => sqlite::blobs(bytes, "Packages"),
        Format::Ndb => ndb::blobs(bytes),
        Format::BerkeleyDb => berkeley::blobs(bytes),
    };
    let heads = heads.ok_or("it is damaged")?;
    let mut listing = Listing::default();
    for head in heads {
        let head = Header::parse(&head).ok_or("a package's head in it is damaged")?;
        // keys that packages are signed with stand among them
        if let Some((package, files)) = package(&head).filter(|(one, _)| one.name != "gpg-pubkey") {
            if !package.third_party {
                listing.owned.extend(owned(files.iter().map(String::as_str)));
            }
            listing.packages.push(package);
        }
    }
    Ok(listing)
}

fn package(head: &Header<'_>) -> Option<(Package, Vec<String>)> {
    let text = |tag| head.text(tag).filter(|text| *text != "(none)").unwrap_or_default();
    let (name, version, release) =
        (text(header::NAME), text(header::VERSION), text(header::RELEASE));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let epoch = match head.numbers(header::EPOCH).first() {
        Some(epoch) if *epoch != 0 => format!("{epoch}:"),
        _ => String::new(),
    };
    let full = |version: &str, release: &str| {
        let release = if release.is_empty() { String::new() } else { format!("-{release}") };
        format!("{epoch}{version}{release}")
    };
    let mut package = Package::new(Kind::Rpm, name, full(version, release));
    package.arch =
        Some(text(header::ARCH)).filter(|arch| !arch.is_empty()).unwrap_or("None").to_owned();
    // `NAME-VERSION-RELEASE.src.rpm`
    let source = text(header::SOURCE).strip_suffix(".rpm").and_then(|file| {
        let (file, _) = file.rsplit_once('.')?;
        let (rest, release) = file.rsplit_once('-')?;
        let (name, version) = rest.rsplit_once('-')?;
        Some(Source { name: name.to_owned(), version: full(version, release) })
    });
    package.source = source;
    package.module = text(header::MODULE).to_owned();
    package.vendor = text(header::VENDOR).to_owned();
    package.third_party = if package.vendor.is_empty() {
        !release.contains("amzn")
    } else {
        !VENDORS.iter().any(|vendor| package.vendor.starts_with(vendor))
    };
    let licence = text(header::LICENCE);
    package.licenses.extend((!licence.is_empty()).then(|| licence.to_owned()));
    let folders = head.texts(header::FOLDERS);
    let places = head.numbers(header::FOLDER_OF);
    let files = head.texts(header::FILES).into_iter().zip(places).filter_map(|(file, folder)| {
        folders.get(folder as usize).map(|folder| format!("{folder}{file}"))
    });
    Some((package, files.collect()))
}

#[cfg(test)]
mod tests;
