//! The same images and the same database, given to trivy and to this engine: equal findings.
//!
//! The database's severities contradict each other, some are missing, and its ranges and versions are
//! made to be near each other. What trivy gets wrong is left out of it, and is listed in
//! docs/scanner.md. trivy is not quick to build, so this runs when it is asked for:
//!
//! ```sh
//! cargo test -p scan --test trivy -- --ignored
//! ```

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../../../tests/src/bolt.rs"]
mod bolt;
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../../../tests/src/vulnerabilities.rs"]
mod vulnerabilities;

mod rpm;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use scan::{Database, Inventory, Limits, Status, judge, merge, read_layer};
use serde_json::{Value, json};
use vulnerabilities::Advisory;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Numbers that look random and are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

/// An archive of files: name, mode, bytes.
fn tar(files: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, bytes) in files {
        assert!(name.len() <= 100, "{name}");
        let mut head = vec![0; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        head[108..115].copy_from_slice(b"0000000");
        head[116..123].copy_from_slice(b"0000000");
        head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        head[136..147].copy_from_slice(b"00000000000");
        head[156] = b'0';
        head[257..265].copy_from_slice(b"ustar\x0000");
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(head);
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn written<W: Write>(
    mut to: W,
    bytes: &[u8],
    end: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> Vec<u8> {
    to.write_all(bytes).expect("memory takes bytes");
    end(to).expect("memory takes bytes")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    written(GzEncoder::new(Vec::new(), Compression::fast()), bytes, GzEncoder::finish)
}

/// An image as a folder in OCI's layout, and its inventory.
fn image(folder: &Path, layers: &[Vec<u8>]) -> Inventory {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes).to_string();
        let name = digest.rsplit(':').next().expect("hex");
        std::fs::write(blobs.join(name), bytes).expect("it is written");
        json!({ "digest": digest, "size": bytes.len() })
    };
    let (mut described, mut ids, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for layer in layers {
        let packed = gzip(layer);
        let mut one = put(&packed);
        one["mediaType"] = json!(LAYER);
        described.push(one);
        ids.push(Digest::sha256(layer).to_string());
        read.push(read_layer(&packed[..], LAYER, &Limits::default(), &|| true).expect("a layer"));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let mut config = put(config.to_string().as_bytes());
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": described });
    let mut manifest = put(manifest.to_string().as_bytes());
    manifest["mediaType"] = json!(kind);
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("it is written");
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("written");
    merge(&read)
}

/// Id, package, installed and fixed version, severity, and what is being done.
type Told = BTreeSet<[String; 6]>;

fn trivys(folder: &Path, cache: &Path) -> Told {
    let program = std::env::var("ATOLL_TRIVY").unwrap_or_else(|_| "trivy".to_owned());
    let ended = Command::new(&program)
        .args(["image", "--quiet", "--format", "json", "--scanners", "vuln", "--offline-scan"])
        .args(["--skip-db-update", "--skip-java-db-update", "--cache-backend", "memory"])
        .arg("--cache-dir")
        .arg(cache)
        .arg("--input")
        .arg(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{program}: {error}. Install trivy (https://trivy.dev/latest/getting-started), or \
                 name it in ATOLL_TRIVY"
            )
        });
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program}: {complaint}");
    let report: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    let results = report["Results"].as_array().cloned().unwrap_or_default();
    let findings = results.iter().filter_map(|result| result["Vulnerabilities"].as_array());
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    findings
        .flatten()
        .map(|one| {
            ["VulnerabilityID", "PkgName", "InstalledVersion", "FixedVersion", "Severity", "Status"]
                .map(|field| text(one, field))
        })
        .collect()
}

fn ours(inventory: &Inventory, database: &Database) -> Told {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let report = judge(inventory, database, Timestamp(now)).expect("a report");
    let findings = report.findings.into_iter();
    findings
        .map(|one| {
            [
                one.id,
                one.package,
                one.installed,
                one.fixed.unwrap_or_default(),
                one.severity.word().to_uppercase(),
                Status::name(one.status).to_owned(),
            ]
        })
        .collect()
}

/// Gives one image to both, and demands equal findings, of which there are some.
fn compare(layers: &[Vec<u8>], advise: impl FnOnce(&Inventory) -> Vec<Advisory>) {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = folder.path().join("image");
    let inventory = image(&layout, layers);
    let advisories = advise(&inventory);
    let (file, metadata) =
        vulnerabilities::files(&advisories, "2026-11-29T00:00:00Z", "2126-11-30T00:00:00Z");
    let cache = folder.path().join("cache");
    let path = cache.join("db").join("trivy.db");
    std::fs::create_dir_all(cache.join("db")).expect("a folder");
    std::fs::write(&path, file).expect("it is written");
    std::fs::write(cache.join("db/metadata.json"), &metadata).expect("it is written");
    java(&cache.join("java-db"));
    let (theirs, ours) =
        (trivys(&layout, &cache), ours(&inventory, &Database::open(&path).expect("a database")));
    let only_theirs: Vec<_> = theirs.difference(&ours).take(20).collect();
    let only_ours: Vec<_> = ours.difference(&theirs).take(20).collect();
    assert!(
        only_theirs.is_empty() && only_ours.is_empty(),
        "of {} findings of trivy's only these: {only_theirs:#?}\nof {} here only these: {only_ours:#?}",
        theirs.len(),
        ours.len()
    );
    assert!(ours.len() >= advisories.len() / 10, "only {} findings", ours.len());
}

/// An empty database of Java's, without which trivy reads no JAR.
fn java(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let dates = "2126-11-30T00:00:00Z";
    let metadata =
        json!({ "Version": 1, "NextUpdate": dates, "UpdatedAt": dates, "DownloadedAt": dates });
    std::fs::write(folder.join("metadata.json"), metadata.to_string()).expect("it is written");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT)')\n\
        db.execute('CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT)')\n\
        db.commit()\n";
    let made =
        Command::new("python3").args(["-c", script]).arg(folder.join("trivy-java.db")).status();
    assert!(made.expect("python3 is installed (apt install python3)").success());
}

/// What is known of an id: severities that contradict each other, or are missing.
fn detail(dice: &mut Dice, source: &str) -> Option<Value> {
    if dice.roll(10) == 0 {
        return None;
    }
    let mut severities = serde_json::Map::new();
    for who in ["nvd", "redhat", "ghsa", source] {
        if dice.roll(3) > 0 {
            // others than the source say no 0: before 0.60 trivy took that for an answer
            let number = if who == source { dice.roll(5) } else { 1 + dice.roll(4) };
            severities.insert(who.to_owned(), json!(number));
        }
    }
    let words = ["", "UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL"];
    Some(json!({ "Title": "x", "VendorSeverity": severities, "Severity": dice.one(&words) }))
}

fn advisory(dice: &mut Dice, bucket: &str, source: &str, package: &str, entry: Value) -> Advisory {
    let detail = detail(dice, source);
    let kind = if dice.roll(5) == 0 { "GHSA" } else { "CVE" };
    Advisory {
        bucket: bucket.to_owned(),
        source: source.to_owned(),
        package: package.to_owned(),
        id: format!("{kind}-2024-{}", dice.roll(1 << 40)),
        entry,
        detail,
    }
}

fn file(name: &str, text: impl Into<Vec<u8>>) -> (String, u32, Vec<u8>) {
    (name.to_owned(), 0o644, text.into())
}

/// Advisories about each package of a distribution, whose fixed versions are near the installed one.
fn near(inventory: &Inventory, bucket: &str, source: &str, dice: &mut Dice) -> Vec<Advisory> {
    let mut advisories = Vec::new();
    let mut seen = BTreeSet::new();
    for package in &inventory.packages {
        let told = package.source.as_ref().filter(|_| source != "rocky");
        let (name, version) = told
            .map_or((&package.name, &package.version), |source| (&source.name, &source.version));
        if !package.kind.is_system() || !seen.insert(name.clone()) {
            continue;
        }
        let ends = ["", "~", "~rc1", "+1", "a", ".1", "_p1", "_rc1", "-r99", "^1", "+deb12u9"];
        for _ in 0..6 {
            let near = match dice.roll(4) {
                0 => version.clone(),
                1 => format!("{}{version}", dice.one(&["0:", "1:", "9"])),
                2 => {
                    let cut = version.rfind(['.', '-', '+']).unwrap_or(version.len());
                    format!("{}{}", &version[..cut], dice.one(&ends))
                }
                _ => format!("{version}{}", dice.one(&ends)),
            };
            let entry = match dice.roll(8) {
                0 => json!({ "Status": dice.roll(8) }),
                1 if source == "debian" => {
                    json!({ "FixedVersion": near, "Severity": dice.roll(5) })
                }
                _ => json!({ "FixedVersion": near }),
            };
            advisories.push(advisory(dice, bucket, source, name, entry));
        }
    }
    advisories
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn debian_with_what_is_installed_here() {
    let status = std::fs::read("/var/lib/dpkg/status").unwrap_or_default();
    let more = "\n\nPackage: libcap3\nStatus: install ok installed\nArchitecture: amd64\n\
        Source: libcap (1:2.66-4)\nVersion: 1:2.66-4+b1\n\nPackage: gone\nVersion: 1\n\
        Status: deinstall ok config-files\n\nPackage: zlib1g\nArchitecture: amd64\n\
        Status: install ok installed\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\n";
    // before 0.70 trivy judged packages of others, too
    let here = String::from_utf8_lossy(&status);
    let others = ["@nodesource.com", "Google Cloud CLI", "@microsoft.com", "support@docker.com"];
    let stanzas = here.split("\n\n").filter(|one| !others.iter().any(|who| one.contains(who)));
    let status = stanzas.map(str::trim).collect::<Vec<_>>().join("\n\n") + more;
    let layer = tar(&[
        file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
        file("etc/debian_version", "12.7\n"),
        file("var/lib/dpkg/status", status),
    ]);
    let upper = tar(&[
        file("app/.wh.x", ""),
        file(
            "var/lib/dpkg/status.d/extra",
            "Package: extra\nVersion: 2:1.0~b1-3\nArchitecture: all\n",
        ),
    ]);
    compare(&[layer, upper], |inventory| {
        near(inventory, "debian 12", "debian", &mut Dice(0x2545_F491_4F6C_DD1D))
    });
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn ubuntu_alpine_and_wolfi() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let stanza = |number: usize, version: &str| {
        format!("Package: p{number}\nStatus: install ok installed\nVersion: {version}\n\n")
    };
    let versions = ["1.0-1", "2:3.4-5ubuntu1.2", "1.0~rc1-1", "1.0+dfsg-1build1", "7"];
    let status: String = versions.iter().enumerate().map(|(at, one)| stanza(at, one)).collect();
    let ubuntu = tar(&[
        file("etc/os-release", "ID=ubuntu\nVERSION_ID=\"24.04\"\n"),
        file("etc/lsb-release", "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=24.04\n"),
        file("var/lib/dpkg/status", status),
    ]);
    compare(&[ubuntu], |inventory| near(inventory, "ubuntu 24.04", "ubuntu", &mut dice));
    let stanza = |number: usize, version: &str| {
        format!("P:p{number}\nV:{version}\nA:x86_64\no:origin{}\n\n", number / 2)
    };
    let versions =
        ["1.2.3-r0", "3.0_rc1-r2", "2.0a-r1", "1.05-r0", "20230201-r5", "1.0_git20200101-r0"];
    let installed: String = versions.iter().enumerate().map(|(at, one)| stanza(at, one)).collect();
    for (release, bucket) in [
        ("ID=alpine\nVERSION_ID=3.22.1\n", "alpine 3.22"),
        ("ID=wolfi\nVERSION_ID=\"20230201\"\n", "wolfi"),
    ] {
        let layer = tar(&[
            file("etc/os-release", release),
            file("lib/apk/db/installed", installed.clone()),
        ]);
        let source = bucket.split(' ').next().expect("a word");
        compare(&[layer], |inventory| near(inventory, bucket, source, &mut dice));
    }
}

/// Versions and ranges that are near each other.
const VERSIONS: [&str; 16] = [
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.2.3",
    "1.10.0",
    "2.0.0",
    "2.0.0-rc.1",
    "1.2.3-alpha.2",
    "0.9.9",
    "1.2.3+build",
    "0.0.1",
    "10.0.0",
    "1.2.3-beta",
    "1.3.0-0",
    "2.1.0",
    "0.2.5",
];
const RANGES: [&str; 20] = [
    "<1.2.3",
    "<=1.2.3",
    ">=1.0.0, <1.2.3",
    ">1.0.0,<2.0.0",
    "=1.2.3",
    "1.2.3",
    ">=2",
    "<2",
    ">= 1.0, < 1.10",
    "<1.2.3-beta",
    ">=1.2.3-alpha.1, <1.2.3",
    "<0",
    "^1.2.0",
    "~1.2.3",
    "^0.2.3",
    ">=0.9 <1.0.1",
    "<2.0.0-rc.2",
    "!=1.2.3",
    "<1.2.x",
    "nonsense",
];

/// Advisories with ranges about these packages.
fn ranged(bucket: &str, packages: &[String], dice: &mut Dice) -> Vec<Advisory> {
    let mut advisories = Vec::new();
    for package in packages {
        for _ in 0..40 {
            let some = |dice: &mut Dice, most: usize| -> Vec<&str> {
                (0..dice.roll(most)).map(|_| dice.one(&RANGES)).collect()
            };
            let entry = json!({
                "VulnerableVersions": some(dice, 3),
                "PatchedVersions": some(dice, 2),
                "UnaffectedVersions": some(dice, 2),
            });
            advisories.push(advisory(dice, bucket, "ghsa", package, entry));
        }
    }
    advisories
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p{number}")).collect()
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn packages_of_npm() {
    let mut dice = Dice(0xD1B5_4A32_D192_ED03);
    let bucket = "npm::GitHub Security Advisory npm";
    let heads = |number: usize, version: &str| {
        let head = format!(r#"{{"name":"p{number}","version":"{version}"}}"#);
        file(&format!("app/node_modules/p{number}/package.json"), head)
    };
    let files: Vec<_> = VERSIONS.iter().enumerate().map(|(at, one)| heads(at, one)).collect();
    compare(&[tar(&files)], |_| ranged(bucket, &names(VERSIONS.len()), &mut dice));
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn packages_of_python() {
    let mut dice = Dice(0xA076_1D64_95B1_CF3D);
    let pythons = [
        "1.0",
        "1.2.3",
        "1.2.3rc1",
        "1.2.3.post1",
        "2.0.0.dev3",
        "1.2.3a1",
        "0.2.5",
        "1!1.0",
        "2.0.0",
        "1.2.3+local",
        "1.10",
        "1.0.1b2.dev1",
    ];
    let heads = |number: usize, version: &str| {
        let head = format!("Metadata-Version: 2.1\nName: P{number}\nVersion: {version}\n");
        file(&format!("app/p{number}-{version}.dist-info/METADATA"), head)
    };
    let files: Vec<_> = pythons.iter().enumerate().map(|(at, one)| heads(at, one)).collect();
    let bucket = "pip::GitHub Security Advisory Pip";
    compare(&[tar(&files)], |_| {
        // trivy takes `-alpha.1` for `a` and `1`
        let words = |one: &Advisory| one.entry.to_string().contains("-alpha");
        let all = ranged(bucket, &names(pythons.len()), &mut dice).into_iter();
        all.filter(|one| !words(one)).collect()
    });
}

/// A JAR with the head of one library.
fn jar(group: &str, artifact: &str, version: &str) -> Vec<u8> {
    let name = format!("META-INF/maven/{group}/{artifact}/pom.properties");
    let head = format!("groupId={group}\nartifactId={artifact}\nversion={version}\n");
    let packed = written(
        DeflateEncoder::new(Vec::new(), Compression::fast()),
        head.as_bytes(),
        DeflateEncoder::finish,
    );
    let mut sum = flate2::Crc::new();
    sum.update(head.as_bytes());
    let entry = |begin: &[u8], end: &[u8]| {
        let mut bytes = begin.to_vec();
        for word in [20_u16, 0, 8, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [sum.sum(), packed.len() as u32, head.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(end);
        bytes.extend(name.as_bytes());
        bytes
    };
    let mut file = entry(b"PK\x03\x04", b"");
    file.extend(&packed);
    let list = file.len();
    // made by, then as before; no comment, disk 0, no attributes, at the begin
    file.extend(entry(b"PK\x01\x02\x14\x00", &[0; 14]));
    let length = file.len() - list;
    file.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    file.extend((length as u32).to_le_bytes());
    file.extend((list as u32).to_le_bytes());
    file.extend([0, 0]);
    file
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn libraries_of_maven() {
    let mut dice = Dice(0x94D0_49BB_1331_11EB);
    let versions = [
        "1.0.0",
        "1.2.3",
        "1.2.3.RELEASE",
        "1.2.3-SNAPSHOT",
        "2.0.0-M1",
        "1.10",
        "1.2.3-rc1",
        "2.0.0.Final",
        "1.2.3-jre",
        "1.2.3.v20200101",
        "0.9.9",
        "1",
    ];
    let files: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(at, version)| {
            file(&format!("app/p{at}.jar"), jar("org.x", &format!("p{at}"), version))
        })
        .collect();
    let packages: Vec<_> =
        names(versions.len()).iter().map(|name| format!("org.x:{name}")).collect();
    let bucket = "maven::GitHub Security Advisory Maven";
    compare(&[tar(&files)], |_| {
        // Maven has no `^`, `~` and `x`: its library reads what it does not know as letters
        let known = |one: &Advisory| !one.entry.to_string().contains(['^', '~', 'x', 's']);
        let all = ranged(bucket, &packages, &mut dice);
        let mut all: Vec<_> = all.into_iter().filter(known).collect();
        for package in &packages {
            let entry =
                json!({ "VulnerableVersions": ["[1.0,1.2.3]", "(,0.9.9),[2.0.0-M1,2.0.0]"] });
            all.push(advisory(&mut dice, bucket, "ghsa", package, entry));
        }
        all
    });
}

/// A program of 64 bits with one section that is loaded.
fn program(name: &str, contents: &[u8]) -> Vec<u8> {
    let names = format!("\0{name}\0.shstrtab\0");
    let contents_at = 0x1000_usize;
    let names_at = contents_at + contents.len();
    let table = (names_at + names.len()).next_multiple_of(16);
    let mut file = b"\x7FELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let mut words = |bytes: &[u64], size: usize| {
        for word in bytes {
            file.extend(&word.to_le_bytes()[..size]);
        }
    };
    words(&[2, 62], 2); // a program for x86-64
    words(&[1], 4);
    words(&[0x40_1000, 64, table as u64], 8);
    words(&[0], 4);
    words(&[64, 56, 1, 64, 3, 2], 2);
    words(&[1, 6], 4); // one segment, which is read and written
    let size = contents.len() as u64;
    words(&[0x1000, 0x40_1000, 0x40_1000, size, size, 0x1000], 8);
    file.resize(contents_at, 0);
    file.extend(contents);
    file.extend(names.as_bytes());
    file.resize(table + 64, 0);
    let mut section = |name: u32, kind: u32, flags: u64, address: u64, at: usize, size: usize| {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [flags, address, at as u64, size as u64] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 8]);
        file.extend(16_u64.to_le_bytes());
        file.extend([0; 8]);
    };
    section(1, 1, 3, 0x40_1000, contents_at, contents.len());
    section(name.len() as u32 + 2, 3, 0, 0, names_at, names.len());
    file
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn programs_of_go_and_rust() {
    let mut dice = Dice(0xBF58_476D_1CE4_E5B9);
    let versions: Vec<_> = VERSIONS.iter().map(|version| format!("v{version}")).collect();
    let modules: String = versions
        .iter()
        .enumerate()
        .map(|(at, version)| format!("dep\texample.org/P{at}\t{version}\th1:x=\n"))
        .collect();
    let modules = format!(
        "0123456789abcdefpath\tx\nmod\tx\t(devel)\t\n{modules}\
         dep\texample.org/old\tv0.0.1\n=>\texample.org/new\tv1.2.3\th1:y=\n\
         build\t-ldflags=\"-X main.version=1.2.0\"\n0123456789abcdef"
    );
    let mut info = b"\xFF Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    for text in ["go1.22.3", &modules] {
        let mut length = text.len();
        while length >= 0x80 {
            info.push(length as u8 | 0x80);
            length >>= 7;
        }
        info.push(length as u8);
        info.extend(text.as_bytes());
    }
    let layer = tar(&[("usr/bin/tool".to_owned(), 0o755, program(".go.buildinfo", &info))]);
    compare(&[layer], |_| {
        let mut packages: Vec<_> =
            (0..versions.len()).map(|at| format!("example.org/P{at}")).collect();
        packages.extend(["stdlib", "x", "example.org/new", "example.org/old"].map(str::to_owned));
        ranged("go::The Go Vulnerability Database", &packages, &mut dice)
    });
    let crates: Vec<_> = VERSIONS
        .iter()
        .enumerate()
        .map(|(at, version)| json!({ "name": format!("p{at}"), "version": version, "source": "crates.io" }))
        .collect();
    let list = json!({ "packages": crates }).to_string();
    let list = written(
        ZlibEncoder::new(Vec::new(), Compression::fast()),
        list.as_bytes(),
        ZlibEncoder::finish,
    );
    let layer = tar(&[("usr/bin/tool".to_owned(), 0o755, program(".dep-v0", &list))]);
    compare(&[layer], |_| {
        ranged("cargo::Open Source Vulnerability", &names(VERSIONS.len()), &mut dice)
    });
}
