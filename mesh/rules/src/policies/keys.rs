//! The keys of a project's metadata.

use super::alone::ALONE;
use super::caching::UNUSED_AFTER;
use super::signatures::metadata::{AUTO, CHILDREN, HOST, MODE, NAME, REQUIRE, STATUS, WAIT};
use super::trash::{COUNTED, TRASH};
use super::vulnerabilities::metadata::{FIXABLE, INSUFFICIENT, SBOM_SOURCE, SCHEDULE, UNSCANNED};

/// Those that are fields of a project's record.
pub const FIELDS: [&str; 8] = [
    "durability",
    "edges",
    "proxy_cache_deny_pattern",
    "proxy_cache_filter_pattern",
    "proxy_cache_local_on_not_found",
    "public",
    "sparse_images",
    "sparse_indexes",
];

/// Those that are stored as they come. Some of them have an effect here; the others are Harbor's, so
/// that clients read back what they wrote.
pub const STORED: [&str; 28] = [
    "auto_sbom_generation",
    "auto_scan",
    "enable_content_trust",
    "enable_content_trust_cosign",
    "max_upstream_conn",
    "prevent_vul",
    "proxy_cache_filter_kind",
    "proxy_referrer_api",
    "proxy_speed_kb",
    "reuse_sys_cve_allowlist",
    "severity",
    AUTO,
    CHILDREN,
    HOST,
    MODE,
    NAME,
    REQUIRE,
    STATUS,
    WAIT,
    FIXABLE,
    SBOM_SOURCE,
    SCHEDULE,
    INSUFFICIENT,
    UNSCANNED,
    TRASH,
    COUNTED,
    UNUSED_AFTER,
    ALONE,
];

/// Whether a project can have this entry. Harbor drops what is none.
pub fn is_known(key: &str) -> bool {
    FIELDS.contains(&key) || STORED.contains(&key)
}
