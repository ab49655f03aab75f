//! What dpkg has installed: `status`, and distroless images' `status.d`.

use crate::package::{Kind, Package, Source};

use super::{Listing, owned, stanza, text};

/// Who maintains packages of Debian's format that are neither Debian's nor Ubuntu's: their
/// advisories say nothing about these. (trivy's list, `pkg/fanal/analyzer/pkg/dpkg`.)
const THIRD_PARTIES: [&str; 21] = [
    "support@docker.com",
    "@nvidia.com",
    "Google Cloud CLI Authors",
    "sapmachine@sap.com",
    "@hashicorp.com",
    "@microsoft.com",
    "@mongodb.com",
    "developers@lists.mariadb.org",
    "dev@couchdb.apache.org",
    "info@elastic.co",
    "nginx-packaging@f5.com",
    "@konghq.com",
    "@cloudflare.com",
    "support@influxdb.com",
    "support@gitlab.com",
    "contact@grafana.com",
    "@datadoghq.com",
    "@nodesource.com",
    "info@tailscale.com",
    "@openrobotics.org",
    "@osrfoundation.org",
];

/// The same, where the whole field is this.
const THIRD_PARTIES_WHOLE: [&str; 2] = ["GitHub", "HashiCorp"];

/// Reads `status`, or one file of `status.d`.
pub(crate) fn read(bytes: &[u8]) -> Listing {
    let text = text(bytes);
    let packages = stanza::stanzas(&text).filter_map(|stanza| {
        let (name, version) = (stanza.get("Package"), stanza.get("Version"));
        let state = stanza.get("Status").split_whitespace();
        let gone = state.into_iter().any(|word| matches!(word, "deinstall" | "purge"));
        if gone || name.is_empty() || version.is_empty() {
            return None;
        }
        let maintainer = stanza.get("Maintainer");
        let mut package = Package::new(Kind::Deb, name, plain(version));
        package.arch = stanza.get("Architecture").to_owned();
        package.source = Some(source(stanza.get("Source"), name, version));
        package.vendor = maintainer.to_owned();
        package.third_party = THIRD_PARTIES_WHOLE.contains(&maintainer)
            || THIRD_PARTIES.iter().any(|one| maintainer.contains(one));
        Some(package)
    });
    Listing { packages: packages.collect(), owned: Vec::new() }
}

/// `Source: name (version)`. What it leaves out is as with the package itself; so a rebuild
/// (`+b1`), which leaves the source as it is, names its version.
fn source(field: &str, name: &str, version: &str) -> Source {
    let (told, rest) = field.split_once(' ').unwrap_or((field, ""));
    let told_version = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let name = if told.is_empty() { name } else { told };
    Source { name: name.to_owned(), version: plain(told_version.unwrap_or(version).trim()) }
}

/// Without an epoch of 0, which means none.
fn plain(version: &str) -> String {
    version.strip_prefix("0:").unwrap_or(version).to_owned()
}

/// Reads the files of one package: `info/NAME.list` (a path in each line), or `status.d/NAME.md5sums`
/// (a sum before it).
pub(crate) fn read_files(path: &str, bytes: &[u8]) -> Listing {
    let text = text(bytes);
    let with_sums = path.ends_with(".md5sums");
    let paths = text.lines().filter_map(|line| {
        if with_sums { line.split_once("  ").map(|(_, path)| path) } else { Some(line) }
    });
    Listing { packages: Vec::new(), owned: owned(paths) }
}

/// The package whose files stand at this path.
pub(crate) fn package_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".list").or(name.strip_suffix(".md5sums")).unwrap_or(name);
    name.split(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_their_sources() {
        let status = "Package: libcap2\nStatus: install ok installed\nArchitecture: amd64\n\
            Source: libcap2 (1:2.66-4)\nVersion: 1:2.66-4+b1\n\n\
            Package: apt\nStatus: install ok installed\nVersion: 2.6.1\nDescription: text\n \
            Version: 9\n  more\n\n\n\
            Package: old\nStatus: deinstall ok config-files\nVersion: 1.0\n\n\
            Package: docker-ce\nVersion: 0:5:1\nMaintainer: Docker <support@docker.com>\n\n\
            Package: nothing\n";
        let packages = read(status.as_bytes()).packages;
        let told: Vec<_> = packages
            .iter()
            .map(|one| {
                let source = one.source.as_ref().expect("a source");
                (one.name.as_str(), one.version.as_str(), source.name.as_str(), &*source.version)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("libcap2", "1:2.66-4+b1", "libcap2", "1:2.66-4"),
                ("apt", "2.6.1", "apt", "2.6.1"),
                ("docker-ce", "5:1", "docker-ce", "5:1"),
            ]
        );
        assert_eq!(
            packages.iter().map(|one| one.third_party).collect::<Vec<_>>(),
            [false, false, true]
        );
    }

    #[test]
    fn files_are_kept_where_they_would_be_read() {
        let list = "/.\n/usr\n/usr/bin/pip3\n/usr/lib/python3/dist-packages/six.py\n\
            /usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO\n/usr/share/doc/six/copyright\n";
        let path = "var/lib/dpkg/info/python3-six:amd64.list";
        assert_eq!(
            read_files(path, list.as_bytes()).owned,
            ["usr", "usr/bin/pip3", "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO"]
        );
        assert_eq!(package_of(path), "python3-six");
        let sums = "d41d8cd98f00b204e9800998ecf8427e  usr/bin/x\nno sum\n";
        assert_eq!(
            read_files("var/lib/dpkg/status.d/x.md5sums", sums.as_bytes()).owned,
            ["usr/bin/x"]
        );
    }
}
