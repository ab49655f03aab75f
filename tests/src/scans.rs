//! Images that can be scanned, and the database that a mesh scans them with.

use serde_json::{Value, json};

use crate::formed::Formed;
use crate::image::{Blob, Image, archive};
use crate::vulnerabilities::{self, Advisory};
use crate::wait;

/// The settings of a mesh that scans with the database of [`use_database`].
pub const SCANS: &str = "scan: {database: 'library/trivy-db:2'}\n";
/// The media type of the reports that artifacts are shown with.
pub const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

/// A Debian 12 with these packages, each with its version.
#[must_use]
pub fn debian(packages: &[(&str, &str)]) -> Image {
    let status: String = packages
        .iter()
        .map(|(name, version)| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
            )
        })
        .collect();
    let system = b"ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
    let files: [(&str, &[u8]); 3] = [
        ("etc/os-release", system),
        ("etc/debian_version", b"12.5\n"),
        ("var/lib/dpkg/status", status.as_bytes()),
    ];
    Image::of_layers(vec![Blob::of(archive(&files))])
}

/// What Debian 12 says of a package; how bad it is as trivy-db's number.
#[must_use]
pub fn advisory(package: &str, id: &str, fixed: &str, severity: u8) -> Advisory {
    Advisory::of_distribution("debian 12", "debian", package, id, fixed, (Some(severity), None))
}

/// The image of a database, made on this day of January 2026.
#[must_use]
pub fn database(advisories: &[Advisory], day: u8) -> Image {
    let made = format!("2026-01-{day:02}T00:00:00Z");
    let layer = Blob::of(vulnerabilities::database_of(advisories, &made, "2126-01-01T00:00:00Z"));
    let config = Blob::of("{}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": vulnerabilities::CONFIG,
        "config": {"mediaType": vulnerabilities::CONFIG, "digest": config.digest, "size": config.bytes.len()},
        "layers": [{
            "mediaType": vulnerabilities::LAYER,
            "digest": layer.digest,
            "size": layer.bytes.len(),
            "annotations": vulnerabilities::layer_annotations(),
        }],
    });
    Image { manifest: Blob::of(manifest.to_string()), blobs: vec![config, layer] }
}

/// Pushes a database and waits until the mesh uses it.
///
/// # Panics
/// When it does not.
pub fn use_database(mesh: &Formed, advisories: &[Advisory], day: u8) {
    let image = database(advisories, day);
    wait::until_ok("a database is pushed", || {
        mesh.repository(0, "library/trivy-db").push(&image, "2")
    });
    wait::until("the mesh uses it", || {
        let scanners = mesh.client(0).get("/api/v2.0/scanners").ok()?.json();
        (scanners[0]["database"]["digest"] == image.blobs[1].digest.as_str()).then_some(())
    });
}

/// The summary of what was found in an image, as a node shows it.
#[must_use]
pub fn overview(mesh: &Formed, at: usize, repository: &str, image: &Image) -> Option<Value> {
    let (project, name) = repository.split_once('/')?;
    let digest = image.digest();
    let path = format!(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{digest}?with_scan_overview=true"
    );
    let shown = mesh.client(at).get(&path).ok()?.json();
    shown["scan_overview"].get(REPORT).cloned()
}
