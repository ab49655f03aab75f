//! A package, and the system that it belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which ecosystem a package is of. The text is trivy's `Type` of a language's results, and the
/// format of a distribution's packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Debian's format: Debian, Ubuntu, distroless.
    Deb,
    /// Alpine's format: Alpine, Wolfi, Chainguard.
    Apk,
    /// Red Hat's and SUSE's format.
    Rpm,
    /// An installed Python distribution.
    PythonPkg,
    /// An installed package of npm.
    NodePkg,
    /// A module that was built into a program by Go, or Go's standard library.
    Gobinary,
    /// A crate that was built into a program by `cargo auditable`.
    Rustbinary,
    /// A library of Maven in a JAR.
    Jar,
    /// Not told: another scanner has found the package.
    Other,
}

impl Kind {
    /// Whether packages of this kind are a distribution's.
    pub fn is_system(self) -> bool {
        matches!(self, Kind::Deb | Kind::Apk | Kind::Rpm)
    }

    /// The word for this kind, as in the serialized form.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Deb => "deb",
            Kind::Apk => "apk",
            Kind::Rpm => "rpm",
            Kind::PythonPkg => "python-pkg",
            Kind::NodePkg => "node-pkg",
            Kind::Gobinary => "gobinary",
            Kind::Rustbinary => "rustbinary",
            Kind::Jar => "jar",
            Kind::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The source package that a distribution's package was built from. Advisories name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its version, with epoch and release as its format writes them.
    pub version: String,
}

/// One package of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Package {
    /// Its ecosystem.
    pub kind: Kind,
    /// Its name. For Maven `group:artifact`.
    pub name: String,
    /// Its version, with epoch and release as its format writes them.
    pub version: String,
    /// Its architecture, where its ecosystem has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// The source package, of a distribution's package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The module of a package of Red Hat's: `name:stream:version:context`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module: String,
    /// Who built it, where the package says so: RPM's `Vendor`, Debian's `Maintainer`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Whether it is of a distribution's format, but not the distribution's own: then the
    /// distribution's advisories say nothing about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub third_party: bool,
    /// Which of the inventory's builds it belongs to, of an image of Red Hat's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<u32>,
    /// Its licences as it writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// The file in which it was found, without a leading slash. A JAR in another is
    /// `outer.war/WEB-INF/lib/inner.jar`.
    pub path: String,
    /// The layer that brought it in this version, counted from the bottom, from 0.
    #[serde(default)]
    pub layer: u32,
}

impl Package {
    /// A package of which no more than this is known.
    pub fn new(kind: Kind, name: impl Into<String>, version: impl Into<String>) -> Self {
        Package {
            kind,
            name: name.into(),
            version: version.into(),
            arch: String::new(),
            source: None,
            module: String::new(),
            vendor: String::new(),
            third_party: false,
            build: None,
            licenses: Vec::new(),
            path: String::new(),
            layer: 0,
        }
    }
}

/// The distribution of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `ID` of os-release: `debian`, `alpine`, `rhel`.
    pub family: String,
    /// Its release as it writes it: `12.7`, `3.20.3`, `9.4`.
    pub release: String,
}

/// From which repositories of Red Hat's a layer was built: they decide which advisories count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Names of repositories (content sets).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_sets: Vec<String>,
    /// Name, version, release and architecture of the image itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nvr: String,
}
