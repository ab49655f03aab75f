//! Libraries of Maven: `pom.properties` in JARs, WARs and EARs, and in those inside them; where a
//! JAR has none of its own, its manifest. The rules are trivy's, without a network.

mod zip;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};

use crate::package::{Kind, Package};

use super::{Listing, text};
use zip::{Zip, ZipError};

/// JARs in JARs in JARs: so deep.
const DEPTH: u32 = 6;

/// The most of `pom.properties` and of the manifest that is read.
const HEAD: u64 = 1 << 20;

/// The most packages that one file may list. The largest distributions have some thousands.
const MOST: usize = 50_000;

/// Whether a file's name is that of such a file.
pub(crate) fn is_one(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    ["jar", "war", "ear", "par"].iter().any(|one| ending.eq_ignore_ascii_case(one))
}

/// What reading one file may cost.
pub(crate) struct Budget<'a> {
    /// Bytes that may still be unpacked.
    pub(crate) bytes: Cell<u64>,
    /// Whether to go on.
    pub(crate) keep_on: &'a dyn Fn() -> bool,
}

/// Reads a file as its bytes go by. What comes after a damaged place is lost; `Err` says so.
pub(crate) fn read(
    path: &str,
    input: &mut dyn Read,
    budget: &Budget<'_>,
) -> (Listing, Result<(), String>) {
    let mut found = Vec::new();
    let mut input = BufReader::new(input);
    let ended = archive(path, &mut input, DEPTH, budget, &mut found);
    let mut packages: Vec<Package> = Vec::new();
    for one in found {
        let package = one.package();
        if !packages.iter().any(|known| {
            known.name == package.name
                && known.version == package.version
                && known.path == package.path
        }) {
            packages.push(package);
        }
    }
    (Listing { packages, owned: Vec::new() }, ended.map_err(|error| error.to_string()))
}

/// A library, as one of the files says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Artifact {
    group: String,
    artifact: String,
    version: String,
    path: String,
}

impl Artifact {
    fn is_whole(&self) -> bool {
        !self.group.is_empty() && !self.artifact.is_empty() && !self.version.is_empty()
    }

    fn package(self) -> Package {
        let name = format!("{}:{}", self.group, self.artifact);
        Package { path: self.path, ..Package::new(Kind::Jar, name, self.version) }
    }
}

fn archive(
    path: &str,
    input: &mut dyn BufRead,
    depth: u32,
    budget: &Budget<'_>,
    found: &mut Vec<Artifact>,
) -> Result<(), ZipError> {
    let depth =
        depth.checked_sub(1).ok_or(ZipError::Damaged("archives in it are nested too deep"))?;
    let (name, version) = named(path);
    let (mut own, mut manifest) = (false, Manifest::default());
    let mut zip = Zip::new(input, budget);
    let ended = loop {
        let entry = match zip.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let inner = String::from_utf8_lossy(&entry).into_owned();
        let file = inner.rsplit('/').next().unwrap_or_default();
        let taken = if file == "pom.properties" {
            zip.head(HEAD).map(|bytes| {
                let told = properties(&bytes, path);
                if told.is_whole() {
                    own |= told.artifact == name && told.version == version;
                    found.push(told);
                }
            })
        } else if file == "MANIFEST.MF" {
            zip.head(HEAD).map(|bytes| manifest = Manifest::read(&bytes))
        } else if is_one(file) && !inner.split('/').any(|part| part == "..") {
            let nested = format!("{path}/{inner}");
            // a damaged one inside is passed over, as long as this one can be read further
            zip.nested(|input| archive(&nested, input, depth, budget, found))
        } else {
            Ok(())
        };
        if let Err(error) = taken {
            break Err(error);
        }
        if found.len() > MOST {
            break Err(ZipError::Damaged("it lists too many libraries"));
        }
    };
    if !own {
        let told = manifest.artifact(path);
        found.extend(told.is_whole().then_some(told));
    }
    ended
}

/// Name and version in a file's name: `spring-core-5.3.4-SNAPSHOT.jar`.
fn named(path: &str) -> (&str, &str) {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.strip_suffix(".jar").unwrap_or_default();
    let before_digit = |at: &usize| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let dash = stem.match_indices('-').map(|(at, _)| at).rfind(before_digit);
    dash.map_or(("", ""), |at| (&stem[..at], &stem[at + 1..]))
}

fn properties(bytes: &[u8], path: &str) -> Artifact {
    let mut told = Artifact { path: path.to_owned(), ..Artifact::default() };
    for line in text(bytes).lines() {
        match line.trim().split_once('=') {
            Some(("groupId", value)) => value.clone_into(&mut told.group),
            Some(("artifactId", value)) => value.clone_into(&mut told.artifact),
            Some(("version", value)) => value.clone_into(&mut told.version),
            _ => {}
        }
    }
    told
}

/// The main section of `MANIFEST.MF`.
#[derive(Default)]
struct Manifest {
    attributes: Vec<(String, String)>,
}

impl Manifest {
    /// Reads the section about the whole archive, which the first empty line ends. A line that
    /// begins with a space goes on with the one before.
    fn read(bytes: &[u8]) -> Manifest {
        let text = text(bytes).replace("\r\n", "\n").replace('\r', "\n");
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().take_while(|line| !line.is_empty()) {
            match (line.strip_prefix(' '), lines.last_mut()) {
                (Some(more), Some(last)) => last.push_str(more),
                _ => lines.push(line.to_owned()),
            }
        }
        let attribute = |line: &String| {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            // `%name` stands for a text of another file
            let said = !value.is_empty() && !value.starts_with('%');
            said.then(|| (name.to_owned(), value.to_owned()))
        };
        Manifest { attributes: lines.iter().filter_map(attribute).collect() }
    }

    fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| {
            let named = self.attributes.iter().rev().find(|(told, _)| told == name);
            named.map(|(_, value)| value.as_str())
        })
    }

    fn artifact(&self, path: &str) -> Artifact {
        let symbolic = self.first(&["Bundle-SymbolicName"]).map(|name| {
            // `com.fasterxml.jackson.core.jackson-databind`: the group is before the last point
            name.rsplit_once('.')
                .map_or(name, |(group, _)| if group.is_empty() { name } else { group })
        });
        let group = self
            .first(&["Implementation-Vendor-Id"])
            .or(symbolic)
            .or_else(|| self.first(&["Implementation-Vendor", "Specification-Vendor"]));
        let artifact = self.first(&["Implementation-Title", "Specification-Title", "Bundle-Name"]);
        let version =
            self.first(&["Implementation-Version", "Specification-Version", "Bundle-Version"]);
        let [group, artifact, version] =
            [group, artifact, version].map(|one| one.unwrap_or_default().to_owned());
        Artifact { group, artifact, version, path: path.to_owned() }
    }
}

#[cfg(test)]
mod tests;
