//! From a document to settings: reads every setting with its bounds, and then checks settings that
//! contradict each other.

use std::{net::SocketAddr, time::Duration};

use rules::ledger::records::Role;

use crate::{
    document::{Document, Section},
    settings::{
        CongestionControl, Edge, LogFormat, ProjectCreation, SealWith, Settings, Signing,
        StaleReads, Tls, TlsFiles, default_name,
    },
    tree::Node,
    value::{self, Fault, written_duration},
};

/// The spelling of each [`StaleReads`].
pub(crate) const STALE_READS: [(&str, StaleReads); 2] =
    [("serve", StaleReads::Serve), ("refuse", StaleReads::Refuse)];
/// The spelling of each [`CongestionControl`].
pub(crate) const CONGESTION: [(&str, CongestionControl); 2] =
    [("delivery", CongestionControl::Delivery), ("cubic", CongestionControl::Cubic)];
/// The spelling of each [`Role`].
pub(crate) const ROLES: [(&str, Role); 2] = [("replica", Role::Replica), ("edge", Role::Edge)];
/// The spelling of each [`ProjectCreation`].
pub(crate) const PROJECT_CREATION: [(&str, ProjectCreation); 2] =
    [("everyone", ProjectCreation::Everyone), ("administrators", ProjectCreation::Administrators)];
/// The spelling of each [`SealWith`].
pub(crate) const SEAL_WITH: [(&str, SealWith); 3] =
    [("hsm", SealWith::Hsm), ("kms", SealWith::Kms), ("passphrase", SealWith::Passphrase)];
/// The spelling of each [`LogFormat`].
pub(crate) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("human", LogFormat::Human), ("json", LogFormat::Json)];

/// Reads the whole document. The result is valid only if `document` has no mistakes afterwards.
pub(crate) fn settings(document: &Document, root: Node) -> Settings {
    let mut top = Section::new(document, "", root);
    let data_dir = top.required("data_dir", "/var/lib/atoll", |t| value::path(t, "/var/lib/atoll"));
    let region = top.required("region", "us-east-1", |t| value::name(t, "us-east-1"));
    let mut s = Settings::new(data_dir.unwrap_or_default(), region.unwrap_or_default());
    top.read("name", &mut s.name, |t| value::name(t, "us-east-1-a"));
    top.read("role", &mut s.role, |t| value::choice(t, &ROLES));
    http(&mut top.section("http"), &mut s);
    mesh(&mut top.section("mesh"), &mut s);

    let mut roster = top.section("roster");
    roster.duration("probe_period", &mut s.roster.probe_period, ms(100)..=secs(30));
    roster.duration("probe_rtt", &mut s.roster.probe_rtt, ms(10)..=secs(10));
    roster.duration("suspect_to_down", &mut s.roster.suspect_to_down, ms(100)..=secs(120));

    let mut ledger = top.section("ledger");
    ledger.duration("heartbeat", &mut s.ledger.heartbeat, ms(10)..=secs(10));
    ledger.duration("election_min", &mut s.ledger.election_min, ms(30)..=secs(60));
    ledger.duration("election_max", &mut s.ledger.election_max, ms(30)..=secs(60));
    ledger.size("log_bytes", &mut s.ledger.log_bytes, 64 << 10..=64 << 30);
    if ledger.retired("snapshot_every") {
        s.retired.push(
            "ledger.snapshot_every has no effect any more: remove the line; ledger.log_bytes says \
             how much of the log is kept",
        );
    }

    let mut lease = top.section("lease");
    lease.duration("duration", &mut s.lease.duration, ms(100)..=secs(60));
    lease.duration("renew_every", &mut s.lease.renew_every, ms(10)..=secs(30));

    let mut failover = top.section("failover");
    failover.duration("hold_down", &mut s.failover.hold_down, Duration::ZERO..=secs(60));
    failover.duration("return_after", &mut s.failover.return_after, Duration::ZERO..=hours(24));
    failover.duration(
        "replace_voter_after",
        &mut s.failover.replace_voter_after,
        secs(1)..=hours(720),
    );

    top.section("projects").count("durability", &mut s.projects.durability, 1..=5);

    let mut people = top.section("people");
    people.read("robot_prefix", &mut s.people.robot_prefix, value::robot_prefix);
    people.read("project_creation", &mut s.people.project_creation, |t| {
        value::choice(t, &PROJECT_CREATION)
    });
    people.duration("token_lifetime", &mut s.people.token_lifetime, secs(60)..=hours(24));
    people.duration("refresh_lifetime", &mut s.people.refresh_lifetime, hours(1)..=hours(8760));
    s.people.issuers = people.optional("issuers", value::issuers);
    people.flag("allow_private_issuers", &mut s.people.allow_private_issuers);
    people.flag("allow_loopback_issuers", &mut s.people.allow_loopback_issuers);

    let mut uploads = top.section("uploads");
    uploads.duration("expire_after", &mut s.uploads.expire_after, secs(1)..=hours(720));
    uploads.size("max_manifest", &mut s.uploads.max_manifest, (64 << 10)..=(8 << 20));
    uploads.count("max_open", &mut s.uploads.max_open, 1..=100_000);

    let mut repair = top.section("repair");
    repair.duration("after", &mut s.repair.after, secs(5)..=hours(720));
    repair.duration("every", &mut s.repair.every, secs(60)..=hours(720));
    repair.duration("read_all", &mut s.repair.read_all, secs(5)..=hours(8760));

    let mut collection = top.section("collection");
    collection.duration("grace", &mut s.collection.grace, secs(1)..=hours(8760));
    collection.duration("every", &mut s.collection.every, secs(1)..=hours(720));

    let mut retention = top.section("retention");
    retention.count("confirm_over", &mut s.retention.confirm_over, 0..=100);
    retention.duration("pulls_every", &mut s.retention.pulls_every, secs(1)..=hours(24));

    let mut scan = top.section("scan");
    s.scan.database = scan.optional("database", value::image);
    scan.count("at_a_time", &mut s.scan.at_a_time, 1..=16);
    scan.limit("rate", &mut s.scan.rate, (1 << 20)..=(100 << 30));
    scan.duration("timeout", &mut s.scan.timeout, secs(5)..=hours(24));
    scan.size("unpacked", &mut s.scan.unpacked, (16 << 20)..=(1 << 40));
    scan.count("cached_per_minute", &mut s.scan.cached_per_minute, 1..=10_000);
    trivy(&mut scan.section("trivy"), &mut s);
    drop(scan);

    let mut signing = top.section("signing");
    s.signing.passphrase_file =
        signing.optional("passphrase_file", |t| value::path(t, "/etc/atoll/signing.passphrase"));
    s.signing.previous_passphrase_file = signing
        .optional("previous_passphrase_file", |t| value::path(t, "/etc/atoll/signing.previous"));
    s.signing.seal_with = signing.optional("seal_with", |t| value::choice(t, &SEAL_WITH));
    let mut hsm = signing.section("hsm");
    s.signing.hsm.module = hsm
        .optional("module", |t| value::path(t, "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"));
    s.signing.hsm.token = hsm.optional("token", |t| value::label(t, "atoll"));
    s.signing.hsm.key = hsm.optional("key", |t| value::label(t, "atoll-1"));
    s.signing.hsm.previous_key = hsm.optional("previous_key", |t| value::label(t, "atoll-0"));
    s.signing.hsm.pin_file = hsm.optional("pin_file", |t| value::path(t, "/etc/atoll/hsm.pin"));
    let mut kms = signing.section("kms");
    s.signing.kms.key = kms.optional("key", |t| value::word(t, "alias/atoll"));
    s.signing.kms.region = kms.optional("region", |t| value::word(t, "eu-west-1"));
    s.signing.kms.url = kms.optional("url", value::origin);
    s.signing.kms.credentials_file =
        kms.optional("credentials_file", |t| value::path(t, "/etc/atoll/aws.credentials"));

    let mut jobs = top.section("jobs");
    jobs.count("at_a_time", &mut s.jobs.at_a_time, 1..=100);
    jobs.duration("keep_for", &mut s.jobs.keep_for, hours(1)..=hours(8760));
    jobs.count("keep", &mut s.jobs.keep, 10..=1_000);

    let mut audit = top.section("audit");
    audit.duration("keep_for", &mut s.audit.keep_for, hours(1)..=hours(87_600));
    audit.count("keep", &mut s.audit.keep, 100..=200_000);
    audit.count("pulls", &mut s.audit.pulls, 0..=1_000_000);

    let mut upstreams = top.section("upstreams");
    upstreams.flag("allow_private", &mut s.upstreams.allow_private);
    upstreams.flag("allow_loopback", &mut s.upstreams.allow_loopback);
    upstreams.duration("fresh_for", &mut s.upstreams.fresh_for, Duration::ZERO..=hours(24));
    upstreams.duration("missing_for", &mut s.upstreams.missing_for, Duration::ZERO..=hours(1));
    upstreams.count("questions", &mut s.upstreams.questions, 0..=1_000_000);
    upstreams.count("questions_per_minute", &mut s.upstreams.questions_per_minute, 1..=1_000_000);
    s.upstreams.ca = upstreams.optional("ca", |t| value::path(t, "/etc/atoll/upstreams-ca.pem"));

    let mut cache = top.section("cache");
    cache.limit("budget", &mut s.cache.budget, (16 << 20)..=(1 << 60));
    cache.count("manifests", &mut s.cache.manifests, 10..=1_000_000);

    let mut edge = top.section("edge");
    edge.duration("access_age", &mut s.edge.access_age, Duration::ZERO..=hours(24));
    edge.duration("alone_for", &mut s.edge.alone_for, Duration::ZERO..=hours(8760));
    edge.flag("upstream_fallback", &mut s.edge.upstream_fallback);
    let mut mirrors = top.section("mirrors");
    s.mirrors.names = mirrors.optional("names", value::registries).unwrap_or_default();
    s.mirrors.domain = mirrors.optional("domain", value::domain);
    s.mirrors.default = mirrors.optional("default", value::registry);
    if let Some(aliases) = mirrors.optional_section("aliases") {
        s.mirrors.aliases = aliases.pairs(value::registry, value::project);
    }

    let mut deadlines = top.section("deadlines");
    deadlines.duration("first_byte", &mut s.deadlines.first_byte, ms(100)..=secs(60));
    deadlines.duration("stall", &mut s.deadlines.stall, ms(100)..=secs(600));
    deadlines.duration("source_stall", &mut s.deadlines.source_stall, ms(100)..=secs(600));
    deadlines.duration("commit", &mut s.deadlines.commit, ms(100)..=secs(600));
    deadlines.duration("replicate", &mut s.deadlines.replicate, ms(100)..=hours(1));

    let mut links = top.section("links");
    links.read("congestion", &mut s.links.congestion, |t| value::choice(t, &CONGESTION));
    s.links.caps = links.section("caps").sizes(("us-east-1", 20 << 20), (64 << 10)..=(100 << 30));

    top.section("reads")
        .read("without_lease", &mut s.reads.without_lease, |t| value::choice(t, &STALE_READS));

    let mut log = top.section("log");
    log.read("level", &mut s.log.level, value::log_level);
    log.read("format", &mut s.log.format, |t| value::choice(t, &LOG_FORMATS));

    top.duration("drain", &mut s.drain, Duration::ZERO..=secs(600));
    contradictions(document, &s);
    s
}

fn http(http: &mut Section<'_>, s: &mut Settings) {
    http.read("listen", &mut s.http.listen, |t| value::address(t, "0.0.0.0:5000"));
    s.http.public_url = http.optional("public_url", value::origin);
    s.http.trusted_proxies = http.optional("trusted_proxies", value::networks).unwrap_or_default();
    http.count("max_connections", &mut s.http.max_connections, 10..=1_000_000);
    http.count(
        "max_connections_per_address",
        &mut s.http.max_connections_per_address,
        1..=1_000_000,
    );
    http.count("wasted_connections", &mut s.http.wasted_connections, 0..=1_000_000);
    http.count("max_streams", &mut s.http.max_streams, 1..=1000);
    http.size("upload_memory", &mut s.http.upload_memory, 0..=(64 << 30));
    http.size("max_header_bytes", &mut s.http.max_header_bytes, (8 << 10)..=(256 << 10));
    http.count("max_headers", &mut s.http.max_headers, 20..=1000);
    http.duration("head_timeout", &mut s.http.head_timeout, secs(1)..=secs(600));
    if let Some(mut tls) = http.optional_section("tls") {
        let issuer = tls.optional("issuer", |t| value::choice(t, &[("mesh", ())]));
        if issuer.is_some() {
            let names = tls.optional("names", value::hosts).unwrap_or_default();
            s.http.tls = Some(Tls::Mesh { names });
            return;
        }
        let certificate = tls.required("certificate", "/etc/atoll/tls.crt", |t| {
            value::path(t, "/etc/atoll/tls.crt")
        });
        let key =
            tls.required("key", "/etc/atoll/tls.key", |t| value::path(t, "/etc/atoll/tls.key"));
        let files = certificate.zip(key);
        s.http.tls = files.map(|(certificate, key)| Tls::Files(TlsFiles { certificate, key }));
    }
}

fn trivy(trivy: &mut Section<'_>, s: &mut Settings) {
    let terms = &mut s.scan.trivy;
    terms.program = trivy.optional("program", |t| value::path(t, "/usr/bin/trivy"));
    terms.server = trivy.optional("server", value::origin);
    terms.token_file = trivy.optional("token_file", |t| value::path(t, "/etc/atoll/trivy.token"));
    terms.java_database =
        trivy.optional("java_database", |t| value::path(t, "/var/lib/trivy/java-db"));
    trivy.size("memory", &mut terms.memory, (256 << 20)..=(1 << 40));
}

fn mesh(mesh: &mut Section<'_>, s: &mut Settings) {
    mesh.read("listen", &mut s.mesh.listen, |t| value::address(t, "0.0.0.0:7946"));
    s.mesh.advertise = mesh.optional("advertise", dialable);
}

/// An address to which another node can connect.
fn dialable(text: &str) -> Result<SocketAddr, Fault> {
    let address = value::address(text, "10.0.0.11:7946")?;
    if address.ip().is_unspecified() || address.port() == 0 {
        let problem = format!("'{text}' is not an address that other nodes can dial");
        return Err(Fault::new(
            problem,
            "write the IP address and port of this node, e.g. 10.0.0.11:7946",
        ));
    }
    Ok(address)
}

/// Whether what seals is there, and all that it needs.
fn signing(document: &Document, s: &Signing) {
    let (hsm, kms) = (&s.hsm, &s.kms);
    let hsm_needs = [
        ("signing.hsm.module", hsm.module.is_some(), "the PKCS#11 library of the module's maker"),
        ("signing.hsm.token", hsm.token.is_some(), "the token's label"),
        ("signing.hsm.key", hsm.key.is_some(), "the label of an AES key"),
        ("signing.hsm.pin_file", hsm.pin_file.is_some(), "the file with the user's PIN"),
    ];
    let kms_needs = [
        ("signing.kms.key", kms.key.is_some(), "the key's id, ARN or alias"),
        ("signing.kms.region", kms.region.is_some(), "AWS's region"),
        (
            "signing.kms.credentials_file",
            kms.credentials_file.is_some(),
            "the file with an access key",
        ),
    ];
    let groups = [
        ("signing.hsm", &hsm_needs[..], hsm.previous_key.is_some()),
        ("signing.kms", &kms_needs[..], kms.url.is_some()),
    ];
    for (group, needs, is_begun) in groups {
        let settings: Vec<&str> = needs.iter().map(|(setting, ..)| *setting).collect();
        if !document.is_sound(&settings) || !is_begun && needs.iter().all(|(_, there, _)| !there) {
            continue;
        }
        for (setting, _, what) in needs.iter().filter(|(_, is_there, _)| !is_there) {
            let problem = format!("is missing, and others of {group} are set");
            document.mistake(setting, problem, format!("set it: {what}"));
        }
    }
    let (lacks, is_there) = match s.seal_with {
        Some(SealWith::Hsm) => ("signing.hsm.module", hsm.module.is_some()),
        Some(SealWith::Kms) => ("signing.kms.key", kms.key.is_some()),
        Some(SealWith::Passphrase) => ("signing.passphrase_file", s.passphrase_file.is_some()),
        None => return,
    };
    if !is_there && document.is_sound(&["signing.seal_with", lacks]) {
        document.mistake(
            "signing.seal_with",
            format!("names what is not there: {lacks} is not set"),
            format!("set {lacks} or remove the line"),
        );
    }
}

/// Checks settings that may contradict each other. A pair is compared only if both settings were
/// read without a mistake.
fn contradictions(document: &Document, s: &Settings) {
    if document.is_sound(&["region"])
        && !document.is_written("name")
        && let Err(fault) = value::name(&default_name(&s.region), "us-east-1-a")
    {
        document.mistake(
            "name",
            fault.problem,
            "set name, since region is too long to make one from",
        );
    }
    if document.is_sound(&["mesh.listen", "mesh.advertise"])
        && s.mesh.listen.ip().is_unspecified()
        && s.mesh.advertise.is_none()
    {
        document.mistake(
            "mesh.advertise",
            format!("is missing, and mesh.listen ({}) is every interface", s.mesh.listen),
            "set mesh.advertise to the address that other nodes dial, e.g. 10.0.0.11:7946",
        );
    }
    if s.role == Role::Edge
        && matches!(s.http.tls, Some(Tls::Mesh { .. }))
        && document.is_sound(&["role", "http.tls.issuer"])
    {
        document.mistake(
            "http.tls.issuer",
            "is for replicas: an edge does not have the key of the mesh's CA",
            "write certificate and key in http.tls instead",
        );
    }
    if s.role == Role::Replica {
        for setting in ["edge.access_age", "edge.alone_for", "edge.upstream_fallback"] {
            if document.is_written(setting)
                && document.is_sound(&["role"])
                && s.edge != Edge::default()
            {
                document.mistake(
                    setting,
                    "is for edges, and role is replica",
                    "set role: edge, or remove the edge section",
                );
                break;
            }
        }
    }
    signing(document, &s.signing);
    let (roster, ledger, lease) = (&s.roster, &s.ledger, &s.lease);
    let below = |small: (&str, Duration), large: (&str, Duration), why: &str| {
        if document.is_sound(&[small.0, large.0]) && small.1 >= large.1 {
            let (low, high) = (written_duration(small.1), written_duration(large.1));
            let blamed = if document.is_written(small.0) { small.0 } else { large.0 };
            let problem = format!("{} ({low}) is not below {} ({high}): {why}", small.0, large.0);
            document.mistake(blamed, problem, format!("lower {} or raise {}", small.0, large.0));
        }
    };
    below(
        ("roster.probe_rtt", roster.probe_rtt),
        ("roster.probe_period", roster.probe_period),
        "a probe must end before the next begins",
    );
    below(
        ("roster.probe_period", roster.probe_period),
        ("roster.suspect_to_down", roster.suspect_to_down),
        "a suspect needs a probe to object in",
    );
    below(
        ("ledger.election_min", ledger.election_min),
        ("ledger.election_max", ledger.election_max),
        "voters must draw different waits",
    );
    below(
        ("lease.renew_every", lease.renew_every),
        ("lease.duration", lease.duration),
        "a lease must be renewed before it runs out",
    );
    if document.is_sound(&["ledger.heartbeat", "ledger.election_min"])
        && ledger.election_min <= 2 * ledger.heartbeat
    {
        let (heartbeat, election) =
            (written_duration(ledger.heartbeat), written_duration(ledger.election_min));
        let written = document.is_written("ledger.election_min");
        document.mistake(
            if written { "ledger.election_min" } else { "ledger.heartbeat" },
            format!(
                "ledger.election_min ({election}) is not above twice ledger.heartbeat ({heartbeat}): one lost heartbeat \
                 would start an election"
            ),
            "raise ledger.election_min or lower ledger.heartbeat",
        );
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{REFERENCE, tree};

    #[test]
    fn the_reference_lists_every_setting_and_no_other() {
        let document = Document::new("reference.yaml");
        settings(&document, tree::read(REFERENCE).unwrap());
        assert_eq!(document.written(), document.known());
        // tls is none by default, so its two settings stand in the comment
        assert!(REFERENCE.contains("#     certificate: ") && REFERENCE.contains("#     key: "));
    }
}
