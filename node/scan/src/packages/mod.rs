//! The files in which packages are listed. Each reader takes bytes of strangers.
//!
//! | module | what it reads |
//! |---|---|
//! | [`dpkg`], [`apk`], [`rpm`] | what a distribution has installed |
//! | [`python`], [`node`], [`jar`] | what languages' own installers have |
//! | [`program`] | programs: what Go and `cargo auditable` write into them |
//! | [`release`] | which distribution it is |

pub(crate) mod apk;
pub(crate) mod dpkg;
mod elf;
mod golang;
pub(crate) mod jar;
pub(crate) mod node;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod release;
pub(crate) mod rpm;
mod rust;
mod stanza;

use serde::{Deserialize, Serialize};

use crate::package::Package;

/// What one file lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// Packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) packages: Vec<Package>,
    /// Files that a distribution's packages have installed, of those that this crate would read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) owned: Vec<String>,
}

/// What a file is, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// dpkg's list of packages, or one package of it (`status.d`).
    Dpkg,
    /// The files of one package of dpkg's.
    DpkgFiles,
    /// apk's list.
    Apk,
    /// RPM's database.
    Rpm(rpm::Format),
    /// The head of an installed Python distribution.
    Python,
    /// The head of a package of npm.
    Node,
    /// A JAR, WAR, EAR or PAR.
    Jar,
    /// A file that says something about the whole system.
    Release,
}

impl What {
    /// What the file at this path is, if it is any of these. The path has no leading slash.
    pub(crate) fn of(path: &str) -> Option<What> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let folder = path.strip_suffix(name).unwrap_or_default();
        match path {
            "var/lib/dpkg/status" => return Some(What::Dpkg),
            "lib/apk/db/installed" | "usr/lib/apk/db/installed" => return Some(What::Apk),
            _ if release::is_one(path) => return Some(What::Release),
            _ => {}
        }
        match folder {
            "var/lib/dpkg/status.d/" => {
                let files = name.ends_with(".md5sums");
                return Some(if files { What::DpkgFiles } else { What::Dpkg });
            }
            "var/lib/dpkg/info/" if name.ends_with(".list") => return Some(What::DpkgFiles),
            "var/lib/rpm/" | "usr/lib/sysimage/rpm/" | "usr/share/rpm/" => {
                return rpm::Format::of(name).map(What::Rpm);
            }
            _ => {}
        }
        if python::is_one(path) {
            return Some(What::Python);
        }
        if name == "package.json" {
            return Some(What::Node);
        }
        jar::is_one(name).then_some(What::Jar)
    }

    /// Whether it is of a language, and so may be a distribution's own file.
    pub(crate) fn is_of_language(self) -> bool {
        matches!(self, What::Python | What::Node | What::Jar)
    }
}

/// Whether this crate would read a file with this path if no distribution owned it: as a list of a
/// language's, or as a program. (Programs have no endings.)
fn may_be_read(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    What::of(path).is_some_and(What::is_of_language)
        || (!name.contains('.') && !path.contains("usr/share/"))
}

/// The owned files among `paths`, as they are kept: without leading slashes.
fn owned<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let plain = paths.into_iter().map(|path| path.trim_start_matches('/'));
    plain.filter(|path| !path.is_empty() && may_be_read(path)).map(str::to_owned).collect()
}

/// Text of a stranger: what is no UTF-8 becomes a replacement character.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
