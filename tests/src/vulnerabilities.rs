//! Vulnerability databases of tests: what trivy-db publishes, with advisories that a test chooses.
//!
//! trivy itself reads what is written here.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::bolt::{self, Bucket};

/// The media type of the artifact's configuration, and its artifact type.
pub const CONFIG: &str = "application/vnd.aquasec.trivy.config.v1+json";

/// The media type of the artifact's one layer.
pub const LAYER: &str = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip";

/// What one bucket says of one package.
#[derive(Clone, Debug)]
pub struct Advisory {
    /// The bucket: `debian 12`, `npm::GitHub Security Advisory npm`.
    pub bucket: String,
    /// Who says it: `debian`, `ghsa`.
    pub source: String,
    /// The package: for a distribution's its source package.
    pub package: String,
    /// The id: a CVE, or the source's own.
    pub id: String,
    /// The rest of the entry: `{"FixedVersion": "1.2"}`, `{"VulnerableVersions": ["<1.2"]}`.
    pub entry: Value,
    /// What is known of the id (`{"Title": .., "VendorSeverity": {"nvd": 3}}`), if anything.
    pub detail: Option<Value>,
}

impl Advisory {
    /// A distribution's advisory: `package`, which is a source package, is mended in `fixed`, and
    /// not at all yet where that is empty. The distribution and NVD say how bad it is, with
    /// trivy-db's numbers: 0 unknown, 1 low, 2 medium, 3 high, 4 critical.
    pub fn of_distribution(
        bucket: &str,
        source: &str,
        package: &str,
        id: &str,
        fixed: &str,
        (vendor, nvd): (Option<u8>, Option<u8>),
    ) -> Self {
        let entry = if fixed.is_empty() { json!({}) } else { json!({ "FixedVersion": fixed }) };
        let mut severities = serde_json::Map::new();
        for (who, number) in [(source, vendor), ("nvd", nvd)] {
            severities.extend(number.map(|number| (who.to_owned(), json!(number))));
        }
        let detail = json!({
            "Title": format!("{id} in {package}"),
            "Description": format!("{package} has a fault."),
            "VendorSeverity": severities,
            "References": [format!("https://example.org/{id}")],
        });
        Advisory {
            bucket: bucket.to_owned(),
            source: source.to_owned(),
            package: package.to_owned(),
            id: id.to_owned(),
            entry,
            detail: Some(detail),
        }
    }
}

/// The two files of a database: `trivy.db` and `metadata.json`. It was made at `updated` and is to
/// be replaced at `next` (RFC 3339).
pub fn files(advisories: &[Advisory], updated: &str, next: &str) -> (Vec<u8>, Vec<u8>) {
    let mut root = Bucket::new();
    let bytes = |value: &Value| serde_json::to_vec(value).expect("JSON");
    for one in advisories {
        bolt::put(&mut root, &[&one.bucket, &one.package], &one.id, bytes(&one.entry));
        let source = json!({
            "ID": one.source,
            "Name": one.bucket,
            "URL": format!("https://example.org/{}", one.source),
        });
        bolt::put(&mut root, &["data-source"], &one.bucket, bytes(&source));
        if let Some(detail) = &one.detail {
            bolt::put(&mut root, &["vulnerability"], &one.id, bytes(detail));
        }
    }
    let metadata = json!({
        "Version": 2,
        "NextUpdate": next,
        "UpdatedAt": updated,
        "DownloadedAt": "0001-01-01T00:00:00Z",
    });
    (bolt::file(&root), bytes(&metadata))
}

/// The layer of the artifact (tar, gzip), made at `updated` and to be replaced at `next`.
pub fn database_of(advisories: &[Advisory], updated: &str, next: &str) -> Vec<u8> {
    let (database, metadata) = files(advisories, updated, next);
    let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, bytes) in [("trivy.db", &database), ("metadata.json", &metadata)] {
        let mut header = vec![0; 512];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, "0000644");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let padding = vec![0; bytes.len().next_multiple_of(512) - bytes.len()];
        for part in [&header, bytes, &padding] {
            layer.write_all(part).expect("memory takes bytes");
        }
    }
    layer.write_all(&[0; 1024]).expect("memory takes bytes");
    layer.finish().expect("memory takes bytes")
}

/// The layer of the artifact, with dates of this week's kind: made in 2026, good until 2126.
pub fn database(advisories: &[Advisory]) -> Vec<u8> {
    database_of(advisories, "2026-11-29T00:00:00Z", "2126-11-30T00:00:00Z")
}

/// The artifact's annotations, without which trivy refuses it.
pub fn layer_annotations() -> Value {
    json!({ "org.opencontainers.image.title": "db.tar.gz" })
}
