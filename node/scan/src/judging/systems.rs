//! What is known of distributions: the bucket that their advisories are in, what these name, how
//! versions compare, and which releases have ended.

use rules::words::moment::Timestamp;

use crate::database::about::timestamp;
use crate::package::System;

use super::ended;

/// What an advisory names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The source package, and its version.
    Source,
    /// The source package, and the package's own version.
    SourceName,
    /// The package.
    Package,
}

/// How advisories are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advised {
    /// One for each id.
    Once,
    /// One for each id; packages of modules have the module in their names.
    Module,
    /// The same, with parts for architectures.
    ModuleAndArch,
    /// With parts for architectures.
    Arch,
    /// By product.
    RedHat,
}

/// How versions compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Deb,
    Apk,
    Rpm,
}

/// How a distribution's packages are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// The bucket of its release.
    pub(super) bucket: String,
    /// The part of the release that the bucket is about.
    pub(super) release: String,
    pub(super) by: By,
    pub(super) advised: Advised,
    pub(super) order: Order,
    /// Advisories without a fixed version count: nothing mends them yet.
    pub(super) unfixed: bool,
    /// Who says severities for single packages, and what is being done, where advisories have these.
    pub(super) own_severity: Option<&'static str>,
    /// The fixed version is shown without an epoch of 0.
    pub(super) plain_fixed: bool,
    /// The day on which the release ended, if that is past.
    pub(super) ended: Option<&'static str>,
}

/// `12` of `12.7`.
fn major(release: &str) -> &str {
    release.split('.').next().unwrap_or(release)
}

/// `3.20` of `3.20.3`.
fn minor(release: &str) -> &str {
    let second = release.match_indices('.').nth(1).map_or(release.len(), |(at, _)| at);
    &release[..second]
}

/// The last day of a release, if `now` is after it.
fn ended(family: &str, release: &str, now: Timestamp) -> Option<&'static str> {
    let (_, day) = ended::of(family).iter().find(|(one, _)| *one == release)?;
    let end = timestamp(&format!("{day}T23:59:59Z"))?;
    (now >= end).then_some(*day)
}

impl Rules {
    /// The rules for a distribution. `None`: nothing is known of it. `repository` is the release of
    /// Alpine whose packages it takes.
    pub(super) fn of(system: &System, repository: Option<&str>, now: Timestamp) -> Option<Rules> {
        let told = system.release.as_str();
        let family = match system.family.as_str() {
            "opensuse" => "opensuse-leap",
            "sl-micro" | "sle-micro-rancher" => "sle-micro",
            "redhat" => "rhel",
            family => family,
        };
        let rpm = |bucket: &str, release: &str, by, advised| {
            let bucket =
                if release.is_empty() { bucket.to_owned() } else { format!("{bucket} {release}") };
            Rules {
                bucket,
                release: release.to_owned(),
                by,
                advised,
                order: Order::Rpm,
                unfixed: false,
                own_severity: None,
                plain_fixed: false,
                ended: ended(family, release, now),
            }
        };
        let once = |bucket, release| rpm(bucket, release, By::Package, Advised::Once);
        let major = major(told);
        Some(match family {
            "debian" => Rules {
                order: Order::Deb,
                unfixed: true,
                own_severity: Some("debian"),
                ..rpm("debian", major, By::Source, Advised::Once)
            },
            "ubuntu" => {
                // until it has ended, its extended maintenance says nothing of its own
                let plain = told.strip_suffix("-ESM").unwrap_or(told);
                let is_listed = ended::of("ubuntu").iter().any(|(one, _)| *one == told);
                let release = match ended("ubuntu", plain, now) {
                    None if !is_listed => plain,
                    _ => told,
                };
                Rules {
                    order: Order::Deb,
                    unfixed: true,
                    ..rpm("ubuntu", release, By::Source, Advised::Once)
                }
            }
            "alpine" => {
                let stream = repository.map_or(minor(told), minor);
                Rules {
                    order: Order::Apk,
                    unfixed: true,
                    ended: ended("alpine", minor(told), now),
                    ..rpm("alpine", stream, By::Source, Advised::Once)
                }
            }
            "wolfi" | "chainguard" => {
                Rules { order: Order::Apk, ..rpm(family, "", By::Source, Advised::Once) }
            }
            "rhel" | "centos" => Rules {
                bucket: "Red Hat".to_owned(),
                ..rpm("Red Hat", major, By::Package, Advised::RedHat)
            },
            "rocky" => Rules {
                plain_fixed: true,
                ..rpm("rocky", major, By::Package, Advised::ModuleAndArch)
            },
            "almalinux" => {
                Rules { plain_fixed: true, ..rpm("alma", major, By::Package, Advised::Module) }
            }
            "ol" => rpm("Oracle Linux", major, By::Package, Advised::Arch),
            "amzn" => {
                let known = ["2", "2022", "2023"].contains(&major);
                once("amazon linux", if known { major } else { "1" })
            }
            "sles" => once("SUSE Linux Enterprise", told),
            "sle-micro" => once("SUSE Linux Enterprise Micro", told),
            "opensuse-leap" => once("openSUSE Leap", told),
            "opensuse-tumbleweed" => once("openSUSE Tumbleweed", ""),
            "photon" => rpm("Photon OS", told, By::SourceName, Advised::Once),
            "azurelinux" => Rules {
                unfixed: true,
                plain_fixed: true,
                ..rpm("Azure Linux", minor(told), By::Source, Advised::Once)
            },
            "mariner" => Rules {
                unfixed: true,
                plain_fixed: true,
                ..rpm("CBL-Mariner", minor(told), By::Source, Advised::Once)
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(family: &str, release: &str, day: &str) -> Option<(String, Option<&'static str>)> {
        let system = System { family: family.to_owned(), release: release.to_owned() };
        let now = timestamp(&format!("{day}T12:00:00Z")).expect("a day");
        Rules::of(&system, None, now).map(|rules| (rules.bucket, rules.ended))
    }

    #[test]
    fn distributions_have_their_buckets_until_they_end() {
        for (family, release, day, bucket, ended) in [
            ("debian", "12.7", "2026-11-29", "debian 12", None),
            ("debian", "11.11", "2026-11-29", "debian 11", Some("2026-08-14")),
            ("debian", "11.11", "2026-08-14", "debian 11", None),
            ("ubuntu", "22.04", "2026-11-29", "ubuntu 22.04", None),
            ("ubuntu", "20.04", "2026-11-29", "ubuntu 20.04", Some("2025-05-31")),
            ("ubuntu", "20.04-ESM", "2026-11-29", "ubuntu 20.04-ESM", None),
            ("ubuntu", "22.04-ESM", "2026-11-29", "ubuntu 22.04", None),
            ("alpine", "3.19.1", "2026-11-29", "alpine 3.19", Some("2025-11-01")),
            ("alpine", "3.23.0", "2026-11-29", "alpine 3.23", None),
            ("wolfi", "20230201", "2026-11-29", "wolfi", None),
            ("rhel", "9.4", "2026-11-29", "Red Hat", None),
            ("centos", "7", "2026-11-29", "Red Hat", Some("2024-06-30")),
            ("rocky", "9.3", "2026-11-29", "rocky 9", None),
            ("almalinux", "8.9", "2026-11-29", "alma 8", None),
            ("ol", "8.9", "2026-11-29", "Oracle Linux 8", None),
            ("amzn", "2023", "2026-11-29", "amazon linux 2023", None),
            ("amzn", "2018.03", "2026-11-29", "amazon linux 1", Some("2023-12-31")),
            ("sles", "15.7", "2026-11-29", "SUSE Linux Enterprise 15.7", None),
            ("opensuse-leap", "15.6", "2026-11-29", "openSUSE Leap 15.6", Some("2025-12-31")),
            ("photon", "5.0", "2026-11-29", "Photon OS 5.0", None),
            ("azurelinux", "3.0", "2026-11-29", "Azure Linux 3.0", None),
        ] {
            let expected = Some((bucket.to_owned(), ended));
            assert_eq!(rules(family, release, day), expected, "{family} {release}");
        }
        for family in ["", "arch", "kali", "centos-stream", "fedora"] {
            assert_eq!(rules(family, "1", "2026-11-29"), None, "{family}");
        }
    }

    #[test]
    fn each_day_of_an_end_can_be_read() {
        let families = [
            "debian",
            "ubuntu",
            "alpine",
            "rhel",
            "centos",
            "rocky",
            "almalinux",
            "ol",
            "amzn",
            "sles",
            "sle-micro",
            "opensuse-leap",
            "photon",
        ];
        for family in families {
            assert!(!ended::of(family).is_empty(), "{family}");
            for (release, day) in ended::of(family) {
                assert!(timestamp(&format!("{day}T23:59:59Z")).is_some(), "{family} {release}");
            }
        }
    }
}
