//! Package URLs (https://github.com/package-url/purl-spec).

use std::fmt::Write;

use crate::package::{Kind, Package, System};

/// The package URL of a package of an image with this distribution.
pub(super) fn of(package: &Package, system: Option<&System>) -> String {
    let family = system.map_or("unknown", |system| system.family.as_str());
    let distro = system.map(|system| format!("{}-{}", system.family, system.release));
    let (kind, namespace, name) = parts(package, family);
    let mut version = package.version.as_str();
    let mut qualifiers = Vec::new();
    if package.kind.is_system() {
        if !package.arch.is_empty() {
            qualifiers.push(("arch", package.arch.clone()));
        }
        qualifiers.extend(distro.map(|distro| ("distro", distro)));
        if package.kind == Kind::Rpm
            && let Some((epoch, rest)) = version.split_once(':')
        {
            qualifiers.push(("epoch", epoch.to_owned()));
            version = rest;
        }
        if let Some(source) = package.source.as_ref().filter(|source| source.name != package.name) {
            qualifiers.push(("upstream", source.name.clone()));
        }
    }
    let mut purl = format!("pkg:{kind}/");
    for part in namespace.split('/').filter(|part| !part.is_empty()) {
        purl.push_str(&encoded(part));
        purl.push('/');
    }
    purl.push_str(&encoded(&name));
    if !version.is_empty() {
        let _ = write!(purl, "@{}", encoded(version));
    }
    qualifiers.sort();
    for (at, (key, value)) in qualifiers.iter().enumerate() {
        let sign = if at == 0 { '?' } else { '&' };
        let _ = write!(purl, "{sign}{key}={}", encoded(value));
    }
    purl
}

/// Type, namespace and name.
pub(super) fn parts(package: &Package, family: &str) -> (&'static str, String, String) {
    let name = package.name.clone();
    let split = |at: Option<(&str, &str)>| match at {
        Some((space, name)) => (space.to_owned(), name.to_owned()),
        None => (String::new(), name.clone()),
    };
    let (kind, (space, name)) = match package.kind {
        Kind::Deb => ("deb", (family.to_owned(), name)),
        Kind::Apk => ("apk", (family.to_owned(), name)),
        Kind::Rpm => {
            let family = if family == "rhel" { "redhat" } else { family };
            ("rpm", (family.to_owned(), name))
        }
        Kind::PythonPkg => ("pypi", (String::new(), name.to_lowercase().replace('_', "-"))),
        Kind::NodePkg => ("npm", split(package.name.split_once('/'))),
        Kind::Gobinary => ("golang", split(package.name.rsplit_once('/'))),
        Kind::Rustbinary => ("cargo", (String::new(), name)),
        Kind::Jar => ("maven", split(package.name.split_once(':'))),
        Kind::Other => ("generic", (String::new(), name)),
    };
    (kind, space, name)
}

/// With all but letters, digits and `.-_~` as `%XX`.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Source;

    #[test]
    fn packages_have_their_urls() {
        let debian = System { family: "debian".to_owned(), release: "12.7".to_owned() };
        let mut libssl = Package::new(Kind::Deb, "libssl3", "1:3.0.11-1~deb12u2");
        libssl.arch = "amd64".to_owned();
        libssl.source = Some(Source { name: "openssl".to_owned(), version: "3".to_owned() });
        let rhel = System { family: "rhel".to_owned(), release: "9.2".to_owned() };
        for (package, system, expected) in [
            (
                libssl,
                Some(&debian),
                "pkg:deb/debian/libssl3@1%3A3.0.11-1~deb12u2?arch=amd64&distro=debian-12.7&upstream=openssl",
            ),
            (
                Package::new(Kind::Rpm, "vim", "2:9.0-1.el9"),
                Some(&rhel),
                "pkg:rpm/redhat/vim@9.0-1.el9?distro=rhel-9.2&epoch=2",
            ),
            (Package::new(Kind::NodePkg, "@a/b", "1.0.0"), None, "pkg:npm/%40a/b@1.0.0"),
            (Package::new(Kind::NodePkg, "lodash", "4.17.15"), None, "pkg:npm/lodash@4.17.15"),
            (Package::new(Kind::PythonPkg, "Foo_Bar", "1.0+x"), None, "pkg:pypi/foo-bar@1.0%2Bx"),
            (
                Package::new(Kind::Gobinary, "golang.org/x/net", "v0.1.0"),
                None,
                "pkg:golang/golang.org/x/net@v0.1.0",
            ),
            (Package::new(Kind::Gobinary, "stdlib", "v1.22.3"), None, "pkg:golang/stdlib@v1.22.3"),
            (Package::new(Kind::Jar, "com.x:y", "1"), None, "pkg:maven/com.x/y@1"),
            (Package::new(Kind::Rustbinary, "time", "0.1.42"), None, "pkg:cargo/time@0.1.42"),
        ] {
            assert_eq!(of(&package, system), expected);
        }
    }
}
