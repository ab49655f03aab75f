//! The bodies of Harbor's API for pluggable scanners, version 1.2
//! (`goharbor/pluggable-scanner-spec`): what a registry sends a scanner, and what comes back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`metadata`] | what a scanner is and can do |
//! | [`request`] | what is to be scanned |
//! | [`report`] | what was found: written by this engine, and read from others |
//!
//! Both sides distrust each other. Who reads a body has bounded its length; what is in it is bounded
//! here.

pub mod metadata;
pub mod report;
pub mod request;

/// Where the API begins below a scanner's URL.
pub const BASE: &str = "/api/v1";
/// The media type of [`metadata::Metadata`], as a scanner answers it.
pub const METADATA: &str = "application/vnd.scanner.adapter.metadata+json; version=1.1";
/// The same of version 1.0, which Harbor asks for.
pub const METADATA_1_0: &str = "application/vnd.scanner.adapter.metadata+json; version=1.0";
/// The media type of [`request::ScanRequest`].
pub const SCAN_REQUEST: &str = "application/vnd.scanner.adapter.scan.request+json; version=1.1";
/// The media type of [`request::ScanAccepted`].
pub const SCAN_RESPONSE: &str = "application/vnd.scanner.adapter.scan.response+json; version=1.0";
/// The media type of an error.
pub const ERROR: &str = "application/vnd.scanner.adapter.error; version=1.0";
/// The media type of a report.
pub const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";
/// The media type of a report in older scanners.
pub const LEGACY_REPORT: &str =
    "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0";
/// The media type of an SBOM in an envelope of this API.
pub const SBOM_REPORT: &str = "application/vnd.security.sbom.report+json; version=1.0";
/// The header with a key for a scanner.
pub const API_KEY: &str = "X-ScannerAdapter-API-Key";
/// The header that says after how many seconds to ask again. It is not `Retry-After`.
pub const REFRESH_AFTER: &str = "Refresh-After";
/// The manifests that a scanner of this API takes: never an index.
pub const IMAGES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Whether two media types are the same: case and spaces do not count.
pub fn is_same_type(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace(' ', "");
    plain(one) == plain(other)
}
