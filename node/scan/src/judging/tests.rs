//! Inventories against databases that the tests' writer makes.

use serde_json::json;

use super::*;
use crate::bolt;
use crate::package::{Build, Kind, Source};

/// A database with these entries: a path of buckets, a key, and what stands there.
fn database(entries: &[(&[&str], &str, serde_json::Value)]) -> (tempfile::TempDir, Database) {
    let mut root = bolt::Bucket::new();
    for (path, key, value) in entries {
        bolt::put(&mut root, path, key, serde_json::to_vec(value).expect("JSON"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trivy.db");
    std::fs::write(&file, bolt::file(&root)).expect("it is written");
    let metadata = json!({
        "Version": 2, "UpdatedAt": "2026-11-29T00:00:00Z", "NextUpdate": "2026-11-30T00:00:00Z",
    });
    std::fs::write(folder.path().join("metadata.json"), metadata.to_string()).expect("written");
    let database = Database::open(&file).expect("a database");
    (folder, database)
}

fn now() -> Timestamp {
    crate::database::about::timestamp("2026-11-29T12:00:00Z").expect("a time")
}

fn inventory(system: Option<(&str, &str)>, packages: Vec<Package>) -> Inventory {
    let system = system
        .map(|(family, release)| System { family: family.to_owned(), release: release.to_owned() });
    Inventory {
        format: Inventory::FORMAT,
        system,
        repository: None,
        packages,
        builds: Vec::new(),
        gaps: Vec::new(),
    }
}

fn deb(name: &str, version: &str, source: (&str, &str)) -> Package {
    let source = Source { name: source.0.to_owned(), version: source.1.to_owned() };
    Package { source: Some(source), ..Package::new(Kind::Deb, name, version) }
}

/// Id, package, fixed version, severity, who said it, and what is being done.
type Told<'a> = (&'a str, &'a str, Option<&'a str>, Severity, &'a str, Status);

fn told(report: &Report) -> Vec<Told<'_>> {
    let findings = report.findings.iter();
    findings
        .map(|one| {
            let (id, package) = (one.id.as_str(), one.package.as_str());
            (id, package, one.fixed.as_deref(), one.severity, &*one.severity_source, one.status)
        })
        .collect()
}

#[test]
fn the_distributions_severity_counts_before_nvds() {
    let source = (&["data-source"][..], "debian 12", json!({"ID": "debian", "Name": "Debian"}));
    let of =
        |id: &'static str, entry: serde_json::Value| (&["debian 12", "openssl"][..], id, entry);
    let detail = |id: &'static str, entry: serde_json::Value| (&["vulnerability"][..], id, entry);
    let (_folder, database) = database(&[
        source,
        of("CVE-1", json!({"FixedVersion": "3.0.12-1"})),
        of("CVE-2", json!({"FixedVersion": "3.0.11-1"})),
        of("CVE-3", json!({"Status": 6})),
        of("CVE-4", json!({"Severity": 1})),
        of("CVE-5", json!({"FixedVersion": "3.0.12-1"})),
        of("CVE-6", json!({"FixedVersion": "3.0.12-1"})),
        of("CVE-7", json!({"FixedVersion": "not a version"})),
        detail(
            "CVE-1",
            json!({"VendorSeverity": {"debian": 2, "nvd": 4}, "Title": "one",
            "References": ["https://x"], "CVSS": {"nvd": {"V3Score": 9.8, "V3Vector": "CVSS:3.1/AV:N"}},
            "CweIDs": ["CWE-79"]}),
        ),
        detail("CVE-3", json!({"VendorSeverity": {"nvd": 4, "redhat": 1}})),
        detail("CVE-4", json!({"VendorSeverity": {"nvd": 4}})),
        detail("CVE-5", json!({"VendorSeverity": {"redhat": 3}, "Severity": "HIGH"})),
    ]);
    // a rebuild (+b1) is of the source that it names
    let package = deb("libssl3", "3.0.11-1+b1", ("openssl", "3.0.11-1"));
    let report = judge(&inventory(Some(("debian", "12.7")), vec![package]), &database, now());
    let report = report.expect("a report");
    assert_eq!(report.coverage, Coverage::Whole);
    let (fixed, package) = (Some("3.0.12-1"), "libssl3");
    assert_eq!(
        told(&report),
        [
            ("CVE-3", package, None, Severity::Critical, "nvd", Status::FixDeferred),
            ("CVE-5", package, fixed, Severity::High, "", Status::Fixed),
            ("CVE-1", package, fixed, Severity::Medium, "debian", Status::Fixed),
            ("CVE-4", package, None, Severity::Low, "debian", Status::Affected),
            ("CVE-6", package, fixed, Severity::Unknown, "", Status::Fixed),
        ]
    );
    let one = &report.findings[2];
    assert_eq!(one.links, ["https://nvd.nist.gov/vuln/detail/CVE-1", "https://x"]);
    assert_eq!(one.cvss.as_ref().and_then(|scores| scores.v3_score), Some(9.8));
    assert_eq!((one.title.as_str(), one.cwe_ids.as_slice()), ("one", &["CWE-79".to_owned()][..]));
    let json = serde_json::to_vec(&report).expect("JSON");
    assert_eq!(serde_json::from_slice::<Report>(&json).expect("a report"), report);
}

#[test]
fn what_cannot_be_judged_is_never_clean() {
    let (_folder, database) = database(&[
        (&["debian 11", "openssl"], "CVE-1", json!({"FixedVersion": "2"})),
        (&["debian 12", "openssl"], "CVE-1", json!({"FixedVersion": "2"})),
        (&["debian 13", "openssl"], "CVE-1", json!({"FixedVersion": "2"})),
    ]);
    let package = || deb("openssl", "1", ("openssl", "1"));
    let mended = || deb("openssl", "2", ("openssl", "2"));
    let why = |inventory: &Inventory| match judge(inventory, &database, now()).expect("a report") {
        Report { coverage: Coverage::Insufficient { why }, findings, .. } => (why, findings.len()),
        report => panic!("{report:?}"),
    };
    for (system, packages, expected, findings) in [
        (None, vec![], "no packages", 0),
        (None, vec![package()], "no file in it says", 0),
        (Some(("arch", "1")), vec![package()], "nothing is known", 0),
        (Some(("debian", "12")), vec![], "no list of its packages", 0),
        (Some(("debian", "14")), vec![package()], "has nothing about debian 14", 0),
        (Some(("debian", "11")), vec![package()], "has ended (2026-08-14)", 1),
        (Some(("debian", "11")), vec![mended()], "has ended (2026-08-14)", 0),
    ] {
        let (said, found) = why(&inventory(system, packages));
        assert!(said.contains(expected), "{said}");
        assert_eq!(found, findings, "{said}");
    }
    let mut gap = inventory(Some(("debian", "12")), vec![package()]);
    gap.gaps = vec!["var/lib/dpkg/status: damaged".to_owned(); 5];
    assert!(why(&gap).0.contains("(and 2 more)"));
    // the twins of one that has ended
    for release in ["12.12", "13.1"] {
        for (package, found) in [(package(), 1), (mended(), 0)] {
            let twin = inventory(Some(("debian", release)), vec![package]);
            let report = judge(&twin, &database, now()).expect("a report");
            let said = (report.coverage, report.findings.len());
            assert_eq!(said, (Coverage::Whole, found), "{release}");
        }
    }
    // one that has none of a distribution
    let library = Package::new(Kind::NodePkg, "lodash", "1.0.0");
    let report = judge(&inventory(None, vec![library]), &database, now()).expect("a report");
    assert_eq!(report.coverage, Coverage::Whole);
}

#[test]
fn packages_of_others_are_not_judged_by_the_distributions_advisories() {
    let (_folder, database) =
        database(&[(&["debian 12", "docker-ce"], "CVE-1", json!({"FixedVersion": "99"}))]);
    let mut package = deb("docker-ce", "5:1", ("docker-ce", "5:1"));
    package.third_party = true;
    let report = judge(&inventory(Some(("debian", "12")), vec![package]), &database, now());
    assert!(report.expect("a report").findings.is_empty());
}

#[test]
fn all_sources_of_an_ecosystem_count() {
    let (_folder, database) = database(&[
        (
            &["pip::GitHub Security Advisory Pip", "pyyaml"],
            "CVE-1",
            json!({
                "VulnerableVersions": ["<5.3.1"], "PatchedVersions": ["5.3.1"], "VendorIDs": ["GHSA-1"],
            }),
        ),
        (&["pip::Another", "pyyaml"], "CVE-1", json!({"VulnerableVersions": [">=9"]})),
        (&["pip::Another", "pyyaml"], "GHSA-2", json!({"VulnerableVersions": ["<6"]})),
        (&["pipx::Other", "pyyaml"], "CVE-3", json!({"VulnerableVersions": ["<6"]})),
        (&["data-source"], "pip::GitHub Security Advisory Pip", json!({"ID": "ghsa"})),
        (&["data-source"], "pip::Another", json!({"ID": "osv"})),
        (&["vulnerability"], "CVE-1", json!({"VendorSeverity": {"ghsa": 4, "nvd": 1}})),
        (&["vulnerability"], "GHSA-2", json!({"VendorSeverity": {"ghsa": 3, "nvd": 2}})),
    ]);
    let package = Package::new(Kind::PythonPkg, "PyYAML", "5.3");
    let report = judge(&inventory(None, vec![package]), &database, now()).expect("a report");
    assert_eq!(
        told(&report),
        [
            ("CVE-1", "PyYAML", Some("5.3.1"), Severity::Critical, "ghsa", Status::Fixed),
            ("GHSA-2", "PyYAML", Some("6"), Severity::High, "ghsa", Status::Fixed),
        ]
    );
    assert_eq!(report.findings[0].aliases, ["GHSA-1"]);
}

#[test]
fn red_hats_advisories_count_by_product() {
    let (_folder, database) = database(&[
        (
            &["Red Hat", "openssl-libs"],
            "RHSA-1",
            json!({"Entries": [
                {"FixedVersion": "1:3.0.7-20.el9", "Affected": [3], "Arches": ["x86_64"],
                 "Cves": [{"ID": "CVE-1", "Severity": 3}]},
                {"FixedVersion": "1:3.0.7-90.el9", "Affected": [7], "Cves": [{"ID": "CVE-1", "Severity": 3}]},
            ]}),
        ),
        (
            &["Red Hat", "openssl-libs"],
            "RHSA-2",
            json!({"Entries": [
                {"FixedVersion": "1:3.0.7-17.el9", "Affected": [3], "Cves": [{"ID": "CVE-2"}]},
            ]}),
        ),
        (
            &["Red Hat", "openssl-libs"],
            "CVE-3",
            json!({"Entries": [
                {"Affected": [3], "Status": 5, "Cves": [{"Severity": 1}]},
            ]}),
        ),
        (
            &["Red Hat", "openssl-libs"],
            "RHSA-4",
            json!({"Entries": [
                {"FixedVersion": "9", "Affected": [3], "Arches": ["s390x"], "Cves": [{"ID": "CVE-4"}]},
            ]}),
        ),
        (&["Red Hat CPE", "repository"], "rhel-9-for-x86_64-baseos-rpms", json!([1, 3])),
        (&["Red Hat CPE", "repository"], "other", json!([7])),
        (&["vulnerability"], "CVE-1", json!({"VendorSeverity": {"nvd": 4}})),
    ]);
    let package = Package {
        arch: "x86_64".to_owned(),
        ..Package::new(Kind::Rpm, "openssl-libs", "1:3.0.7-18.el9")
    };
    let mut image = inventory(Some(("rhel", "9.2")), vec![package]);
    let report = judge(&image, &database, now()).expect("a report");
    assert_eq!(report.coverage, Coverage::Whole);
    let (name, source) = ("openssl-libs", "redhat");
    assert_eq!(
        told(&report),
        [
            ("CVE-1", name, Some("1:3.0.7-20.el9"), Severity::High, source, Status::Fixed),
            ("CVE-3", name, None, Severity::Low, source, Status::WillNotFix),
        ]
    );
    assert_eq!(report.findings[0].aliases, ["RHSA-1"]);
    // built from other repositories
    image.builds = vec![Build { content_sets: vec!["other__9".to_owned()], nvr: String::new() }];
    image.packages[0].build = Some(0);
    let report = judge(&image, &database, now()).expect("a report");
    assert_eq!(report.findings[0].fixed.as_deref(), Some("1:3.0.7-90.el9"));
    image.builds[0].content_sets = vec!["unknown".to_owned()];
    let report = judge(&image, &database, now()).expect("a report");
    assert!(matches!(report.coverage, Coverage::Insufficient { .. }));
}

#[test]
fn rpm_distributions_compare_as_each_says() {
    let entries = json!({"FixedVersion": "", "Entries": [
        {"FixedVersion": "0:2-1.el9", "Arches": ["x86_64"]},
        {"FixedVersion": "0:9-1.el9", "Arches": ["aarch64"]},
    ]});
    let (_folder, database) = database(&[
        (&["rocky 9", "nodejs:12::npm"], "CVE-1", entries.clone()),
        (&["Oracle Linux 9", "npm"], "CVE-1", entries),
        (&["alma 9", "nodejs:12::npm"], "CVE-1", json!({"FixedVersion": "0:2-1.el9"})),
        (&["SUSE Linux Enterprise 15.7", "npm"], "CVE-1", json!({"FixedVersion": "0:2-1.el9"})),
        (&["amazon linux 2023", "npm"], "CVE-1", json!({"FixedVersion": "2-1.amzn2023"})),
        (&["Photon OS 5.0", "node"], "CVE-1", json!({"FixedVersion": "2-1.ph5"})),
        (&["Azure Linux 3.0", "node"], "CVE-1", json!({})),
        (&["wolfi", "node"], "CVE-1", json!({"FixedVersion": "2-r0"})),
        (&["wolfi", "node"], "CVE-2", json!({"FixedVersion": "0"})),
        (&["alpine 3.22", "node"], "CVE-1", json!({"FixedVersion": "2-r0"})),
    ]);
    let package = |kind, version: &str| Package {
        arch: "x86_64".to_owned(),
        module: "nodejs:12:80:1".to_owned(),
        source: Some(Source { name: "node".to_owned(), version: version.to_owned() }),
        ..Package::new(kind, "npm", version)
    };
    for (system, kind, version, expected) in [
        (("rocky", "9.3"), Kind::Rpm, "1-1.el9", Some(Some("2-1.el9"))),
        (("rocky", "9.3"), Kind::Rpm, "2-1.el9", None),
        (("ol", "9.3"), Kind::Rpm, "1-1.el9", Some(Some("0:2-1.el9"))),
        (("ol", "9.3"), Kind::Rpm, "1-1.ksplice1.el9", None),
        (("almalinux", "9"), Kind::Rpm, "1-1.el9", Some(Some("2-1.el9"))),
        (("sles", "15.7"), Kind::Rpm, "1-1", Some(Some("0:2-1.el9"))),
        (("amzn", "2023.1"), Kind::Rpm, "1-1.amzn2023", Some(Some("2-1.amzn2023"))),
        (("photon", "5.0"), Kind::Rpm, "1-1.ph5", Some(Some("2-1.ph5"))),
        (("azurelinux", "3.0"), Kind::Rpm, "1-1", Some(None)),
        (("wolfi", "20230201"), Kind::Apk, "1-r0", Some(Some("2-r0"))),
        (("alpine", "3.22.1"), Kind::Apk, "1-r0", Some(Some("2-r0"))),
        (("alpine", "3.22.1"), Kind::Apk, "2-r0", None),
    ] {
        let image = inventory(Some(system), vec![package(kind, version)]);
        let report = judge(&image, &database, now()).expect("a report");
        let fixed: Vec<_> = report.findings.iter().map(|one| one.fixed.as_deref()).collect();
        assert_eq!(fixed, expected.into_iter().collect::<Vec<_>>(), "{system:?} {version}");
        assert_eq!(report.coverage, Coverage::Whole, "{system:?}");
    }
}

#[test]
fn a_report_that_grows_without_end_ends_and_says_so() {
    let ids: Vec<String> = (0..200).map(|number| format!("CVE-{number}")).collect();
    let entries: Vec<_> = ids
        .iter()
        .map(|id| (&["npm::X", "lodash"][..], id.as_str(), json!({"VulnerableVersions": ["<9"]})))
        .collect();
    let (_folder, database) = database(&entries);
    let packages = (0..1000).map(|number| Package {
        path: format!("{number}/package.json"),
        ..Package::new(Kind::NodePkg, "lodash", "1.0.0")
    });
    let report = judge(&inventory(None, packages.collect()), &database, now()).expect("a report");
    assert_eq!(report.findings.len(), MOST);
    assert!(matches!(report.coverage, Coverage::Insufficient { why } if why.contains("more than")));
}
