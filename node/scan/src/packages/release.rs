//! Files that say which distribution an image is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text;

/// What such a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Says {
    /// `ID` and `VERSION_ID`, and `NAME` where it tells more.
    Release { id: String, version: String, name: String },
    /// Ubuntu's security maintenance after its end is on.
    Extended,
    /// The release of Alpine whose repositories are used: `3.19`, `edge`.
    Repository(String),
    /// From which repositories of Red Hat's the layer was built.
    ContentSets(Vec<String>),
    /// Name, version, release and architecture of Red Hat's image.
    Nvr(String),
}

/// Where they stand, the one that counts most first. Those of one distribution only come after
/// those that all have, because others have them, too.
pub(crate) const RELEASES: [&str; 12] = [
    "etc/os-release",
    "usr/lib/os-release",
    "etc/lsb-release",
    "etc/oracle-release",
    "etc/rocky-release",
    "etc/almalinux-release",
    "etc/centos-release",
    "etc/redhat-release",
    "etc/system-release",
    "usr/lib/system-release",
    "etc/alpine-release",
    "etc/debian_version",
];

const EXTENDED: &str = "var/lib/ubuntu-advantage/status.json";
const REPOSITORIES: &str = "etc/apk/repositories";
const CONTENT_SETS: [&str; 2] = ["root/buildinfo/content_manifests/", "usr/share/buildinfo/"];
const DOCKERFILE: &str = "root/buildinfo/Dockerfile";

/// Whether a path is that of such a file.
pub(crate) fn is_one(path: &str) -> bool {
    RELEASES.contains(&path)
        || path == EXTENDED
        || path == REPOSITORIES
        || path.starts_with(DOCKERFILE)
        || is_content_manifest(path)
}

fn is_content_manifest(path: &str) -> bool {
    path.ends_with(".json")
        && CONTENT_SETS
            .iter()
            .any(|folder| path.strip_prefix(folder).is_some_and(|name| !name.contains('/')))
}

/// Reads such a file. `None` where it says nothing that is understood.
pub(crate) fn read(path: &str, bytes: &[u8]) -> Option<Says> {
    let text = text(bytes);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let release = |id: &str, version: &str| {
        let said = !version.is_empty();
        let (id, version) = (id.to_owned(), version.to_owned());
        said.then_some(Says::Release { id, version, name: String::new() })
    };
    match path {
        "etc/os-release" | "usr/lib/os-release" => os_release(&text),
        "etc/lsb-release" => {
            let field = |name: &str| field(&text, name);
            release(&field("DISTRIB_ID").to_ascii_lowercase(), &field("DISTRIB_RELEASE"))
        }
        "etc/alpine-release" => release("alpine", first),
        "etc/debian_version" => release("debian", first),
        EXTENDED => {
            let status: Value = serde_json::from_slice(bytes).ok()?;
            let services = status["services"].as_array()?;
            let is_on = |one: &Value| one["name"] == "esm-infra" && one["status"] == "enabled";
            services.iter().any(is_on).then_some(Says::Extended)
        }
        REPOSITORIES => repositories(&text).map(Says::Repository),
        _ if path.starts_with(DOCKERFILE) => dockerfile(path, &text).map(Says::Nvr),
        _ if is_content_manifest(path) => {
            let manifest: Value = serde_json::from_slice(bytes).ok()?;
            let sets = manifest["content_sets"].as_array()?.iter();
            let sets: Vec<_> = sets.filter_map(Value::as_str).map(str::to_owned).collect();
            (!sets.is_empty()).then_some(Says::ContentSets(sets))
        }
        _ => red_hat(first),
    }
}

fn field(text: &str, name: &str) -> String {
    let named = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    text.lines().find_map(named).unwrap_or_default()
}

fn os_release(text: &str) -> Option<Says> {
    let [id, version, name] = ["ID", "VERSION_ID", "NAME"].map(|key| field(text, key));
    (!id.is_empty()).then_some(Says::Release { id, version, name })
}

/// `Rocky Linux release 9.3 (Blue Onyx)`, `Amazon Linux release 2 (Karoo)`, `Amazon Linux AMI
/// release 2018.03`.
fn red_hat(line: &str) -> Option<Says> {
    let (name, rest) = line.split_once(" release ")?;
    let version = rest.split_whitespace().next()?;
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let id = match name.to_ascii_lowercase().as_str() {
        "centos" | "centos linux" | "centos stream" => "centos",
        "rocky" | "rocky linux" => "rocky",
        "alma" | "almalinux" | "alma linux" => "almalinux",
        "oracle" | "oracle linux" | "oracle linux server" => "ol",
        "fedora" | "fedora linux" => "fedora",
        name if name.starts_with("amazon linux") => "amzn",
        _ => "rhel",
    };
    let (id, version) = (id.to_owned(), version.to_owned());
    Some(Says::Release { id, version, name: name.to_owned() })
}

/// The latest release among Alpine's repositories: `http://host/alpine/v3.19/main`.
fn repositories(text: &str) -> Option<String> {
    let mut latest: Option<(u64, u64, String)> = None;
    for line in text.lines() {
        let Some((_, rest)) = line.trim().split_once("://") else { continue };
        let mut parts = rest.split('/').skip(1);
        if parts.next() != Some("alpine") {
            continue;
        }
        let Some(release) = parts.next() else { continue };
        let release = release.strip_prefix('v').unwrap_or(release);
        let rank = if release == "edge" {
            (u64::MAX, 0)
        } else {
            let (major, minor) = release.split_once('.').unwrap_or((release, "0"));
            let minor = minor.split('.').next().unwrap_or_default();
            let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
            (major, minor)
        };
        if latest.as_ref().is_none_or(|(major, minor, _)| rank > (*major, *minor)) {
            latest = Some((rank.0, rank.1, release.to_owned()));
        }
    }
    latest.map(|(.., release)| release)
}

/// `root/buildinfo/Dockerfile-ubi8-8.5-204`: the name of the component and the architecture are
/// labels in it; version and release are in its own name.
fn dockerfile(path: &str, text: &str) -> Option<String> {
    let label = |names: &[&str]| {
        let words = text.split_whitespace().filter_map(|word| word.split_once('='));
        let mut words = words.map(|(key, value)| (key.trim_matches('"'), value.trim_matches('"')));
        words.find(|(key, _)| names.iter().any(|name| key.eq_ignore_ascii_case(name)))
    };
    let (_, component) = label(&["com.redhat.component", "bzcomponent"])?;
    let (_, arch) = label(&["architecture"])?;
    let name = path.rsplit('/').next()?;
    let mut parts = name.rsplitn(3, '-');
    let (release, version) = (parts.next()?, parts.next()?);
    parts.next()?;
    if component.contains('$') || arch.contains('$') {
        return None; // variables are not followed
    }
    Some(format!("{component}-{version}-{release}-{arch}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(id: &str, version: &str, name: &str) -> Option<Says> {
        let [id, version, name] = [id, version, name].map(str::to_owned);
        Some(Says::Release { id, version, name })
    }

    #[test]
    fn distributions_say_who_they_are() {
        let os = "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(
            read("etc/os-release", os.as_bytes()),
            release("debian", "12", "Debian GNU/Linux")
        );
        for (path, text, expected) in [
            ("etc/debian_version", "11.11\n", release("debian", "11.11", "")),
            ("etc/alpine-release", "3.19.1\n", release("alpine", "3.19.1", "")),
            (
                "etc/lsb-release",
                "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n",
                release("ubuntu", "22.04", ""),
            ),
            (
                "etc/redhat-release",
                "Rocky Linux release 9.3 (Blue Onyx)\n",
                release("rocky", "9.3", "Rocky Linux"),
            ),
            (
                "etc/system-release",
                "Amazon Linux AMI release 2018.03\n",
                release("amzn", "2018.03", "Amazon Linux AMI"),
            ),
            ("etc/redhat-release", "nonsense", None),
            ("etc/debian_version", "", None),
            (
                "etc/apk/repositories",
                "#x\nhttps://dl-cdn.alpinelinux.org/alpine/v3.9/main\n\
                 https://dl-cdn.alpinelinux.org/alpine/v3.19/community\n",
                Some(Says::Repository("3.19".to_owned())),
            ),
            (
                "etc/apk/repositories",
                "http://x/alpine/edge/main\nhttp://x/alpine/v3.2/main",
                Some(Says::Repository("edge".to_owned())),
            ),
            (
                "root/buildinfo/content_manifests/ubi8.json",
                r#"{"content_sets":["rhel-8-for-x86_64-baseos-rpms"]}"#,
                Some(Says::ContentSets(vec!["rhel-8-for-x86_64-baseos-rpms".to_owned()])),
            ),
            (
                "root/buildinfo/Dockerfile-ubi8-8.5-204",
                "FROM x\nLABEL com.redhat.component=\"ubi8-container\" \\\n architecture=\"x86_64\"",
                Some(Says::Nvr("ubi8-container-8.5-204-x86_64".to_owned())),
            ),
            (
                "var/lib/ubuntu-advantage/status.json",
                r#"{"services":[{"name":"esm-infra","status":"enabled"}]}"#,
                Some(Says::Extended),
            ),
        ] {
            assert!(is_one(path), "{path}");
            assert_eq!(read(path, text.as_bytes()), expected, "{path}");
        }
    }
}
