//! Distributions with RPM: a root that Debian's `rpm` has installed packages into.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::vulnerabilities::Advisory;
use super::{Dice, advisory, compare, file, tar};

/// Name, version, release and epoch of what is installed.
const PACKAGES: [(&str, &str, &str, u32); 3] = [
    ("openssl-libs", "3.0.7", "18.el9_2", 1),
    ("bash", "5.1.8", "6.el9", 0),
    ("gcc", "11~rc1", "2", 0),
];

fn run(command: &mut Command) {
    let program = command.get_program().to_string_lossy().into_owned();
    let ended = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}. Install it: apt install rpm"));
    assert!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// The database of a root with these packages.
fn database() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let top = folder.path().join("build");
    std::fs::create_dir_all(&top).expect("a folder");
    let define = |what: &str, value: &Path| format!("{what} {}", value.display());
    for (name, version, release, epoch) in PACKAGES {
        let spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: {release}\nEpoch: {epoch}\nSummary: x\n\
             License: MIT\nVendor: Red Hat, Inc.\nBuildArch: noarch\n%description\nx\n%files\n"
        );
        let path = top.join(format!("{name}.spec"));
        std::fs::write(&path, spec).expect("it is written");
        run(Command::new("rpmbuild").args(["-bb", "--define", &define("_topdir", &top)]).arg(path));
    }
    let root = folder.path().join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    let built = std::fs::read_dir(top.join("RPMS/noarch")).expect("rpmbuild has built packages");
    let built = built.map(|one| one.expect("it can be listed").path());
    run(Command::new("rpm")
        .arg("--root")
        .arg(&root)
        .args(["--define", "_db_backend sqlite", "--define", "_dbpath /var/lib/rpm"])
        .args(["-i", "--nodeps", "--noscripts"])
        .args(built));
    std::fs::read(root.join("var/lib/rpm/rpmdb.sqlite")).expect("rpm wrote its database")
}

/// How advisories of a distribution are written, of which `version` mends the fault.
type Write = fn(version: &str, dice: &mut Dice) -> Value;

fn plain(version: &str, _: &mut Dice) -> Value {
    json!({ "FixedVersion": version })
}

fn by_arch(version: &str, dice: &mut Dice) -> Value {
    let arch = dice.one(&["noarch", "noarch", "x86_64"]);
    json!({ "FixedVersion": "", "Entries": [{ "FixedVersion": version, "Arches": [arch] }] })
}

fn by_product(version: &str, dice: &mut Dice) -> Value {
    let (fixed, status) = if dice.roll(4) == 0 { ("", 5) } else { (version, 0) };
    json!({ "Entries": [{
        "FixedVersion": fixed, "Status": status, "Affected": [dice.roll(3)],
        "Cves": [{ "Severity": dice.roll(5) }],
    }] })
}

#[test]
#[ignore = "needs trivy, which takes long to build"]
fn distributions_with_rpm() {
    let mut dice = Dice(0xE703_7ED1_A0B4_28DB);
    let installed = database();
    let systems: [(&str, &str, &str, &str, &str, Write); 9] = [
        ("rocky", "9.3", "etc/rocky-release", "rocky 9", "rocky", by_arch),
        ("almalinux", "9.3", "etc/almalinux-release", "alma 9", "alma", plain),
        ("ol", "9.3", "etc/oracle-release", "Oracle Linux 9", "oracle-oval", by_arch),
        ("rhel", "9.3", "etc/redhat-release", "Red Hat", "redhat", by_product),
        ("amzn", "2023", "etc/system-release", "amazon linux 2023", "amazon", plain),
        ("sles", "15.7", "", "SUSE Linux Enterprise 15.7", "suse-cvrf", plain),
        ("opensuse-leap", "15.6", "", "openSUSE Leap 15.6", "suse-cvrf", plain),
        ("photon", "5.0", "", "Photon OS 5.0", "photon", plain),
        ("azurelinux", "3.0", "", "Azure Linux 3.0", "azure", plain),
    ];
    for (id, release, other, bucket, source, write) in systems {
        let name = match id {
            "rocky" => "Rocky Linux",
            "almalinux" => "AlmaLinux",
            "ol" => "Oracle Linux Server",
            "amzn" => "Amazon Linux",
            _ => "Red Hat Enterprise Linux",
        };
        let mut files = vec![
            file("etc/os-release", format!("ID=\"{id}\"\nVERSION_ID=\"{release}\"\n")),
            file("var/lib/rpm/rpmdb.sqlite", installed.clone()),
        ];
        if !other.is_empty() {
            files.push(file(other, format!("{name} release {release} (x)\n")));
        }
        compare(&[tar(&files)], |_| {
            let mut advisories = Vec::new();
            for (package, version, release, epoch) in PACKAGES {
                for _ in 0..40 {
                    // Amazon's are compared as Debian's by trivy, which does not know `^`
                    let ends = ["", ".1", "~rc1", "_fips", "a", ".10"];
                    let front = dice.one(&["", "0:", "1:", "2:"]);
                    let end = dice.one(&ends);
                    let near = match dice.roll(3) {
                        0 => format!("{front}{version}-{release}{end}"),
                        1 => format!("{front}{version}{end}-1.el9"),
                        _ => format!("{epoch}:{version}-{release}{end}"),
                    };
                    let entry = write(&near, &mut dice);
                    advisories.push(advisory(&mut dice, bucket, source, package, entry));
                }
            }
            if id == "rhel" {
                // which products a repository belongs to
                let products = json!([1, 2]);
                advisories.push(Advisory {
                    bucket: "Red Hat CPE".to_owned(),
                    source: source.to_owned(),
                    package: "repository".to_owned(),
                    id: "rhel-9-for-x86_64-baseos-rpms".to_owned(),
                    entry: products,
                    detail: None,
                });
            }
            advisories
        });
    }
}
