//! From settings to the text of a `node.yaml`.

use std::{collections::BTreeMap, fmt, path::Path};

use crate::value::NO_ISSUER;
use crate::{
    meaning::{CONGESTION, LOG_FORMATS, PROJECT_CREATION, ROLES, SEAL_WITH, STALE_READS},
    settings::{Settings, Tls},
    value::{quoted, written_duration, written_size},
};

/// Writes a `node.yaml` with every setting, which [`crate::parse`] reads back as the same settings.
/// Paths that are not UTF-8 cannot be written in YAML, and their invalid bytes are replaced.
pub fn render(settings: &Settings) -> String {
    let s = settings;
    let tls = match &s.http.tls {
        Some(Tls::Mesh { names }) if names.is_empty() => "\n    issuer: mesh".to_owned(),
        Some(Tls::Mesh { names }) => {
            format!("\n    issuer: mesh\n    names: {}", quoted(&names.join(", ")))
        }
        Some(Tls::Files(tls)) => {
            format!("\n    certificate: {}\n    key: {}", path(&tls.certificate), path(&tls.key))
        }
        None => " null".to_owned(),
    };
    let aliases = match s.mirrors.aliases.is_empty() {
        true => " null".to_owned(),
        false => s
            .mirrors
            .aliases
            .iter()
            .map(|(k, v)| format!("\n    {}: {}", quoted(k), quoted(v.as_str())))
            .collect(),
    };
    format!(
        "\
data_dir: {data_dir}
name: {name}
region: {region}
role: {role}
http:
  listen: {http_listen}
  public_url: {public_url}
  tls:{tls}
  trusted_proxies: {trusted_proxies}
  max_connections: {max_connections}
  max_connections_per_address: {max_connections_per_address}
  wasted_connections: {wasted_connections}
  max_streams: {max_streams}
  upload_memory: {upload_memory}
  max_header_bytes: {max_header_bytes}
  max_headers: {max_headers}
  head_timeout: {head_timeout}
mesh:
  listen: {mesh_listen}
  advertise: {advertise}
roster:
  probe_period: {probe_period}
  probe_rtt: {probe_rtt}
  suspect_to_down: {suspect_to_down}
ledger:
  heartbeat: {heartbeat}
  election_min: {election_min}
  election_max: {election_max}
  log_bytes: {log_bytes}
lease:
  duration: {lease_duration}
  renew_every: {renew_every}
failover:
  hold_down: {hold_down}
  return_after: {return_after}
  replace_voter_after: {replace_voter_after}
projects:
  durability: {durability}
people:
  robot_prefix: {robot_prefix}
  project_creation: {project_creation}
  token_lifetime: {token_lifetime}
  refresh_lifetime: {refresh_lifetime}
  issuers: {issuers}
  allow_private_issuers: {allow_private_issuers}
  allow_loopback_issuers: {allow_loopback_issuers}
uploads:
  expire_after: {expire_after}
  max_manifest: {max_manifest}
  max_open: {max_open}
repair:
  after: {repair_after}
  every: {repair_every}
  read_all: {read_all}
collection:
  grace: {collection_grace}
  every: {collection_every}
retention:
  confirm_over: {confirm_over}
  pulls_every: {pulls_every}
scan:
  database: {scan_database}
  at_a_time: {scans}
  rate: {scan_rate}
  timeout: {scan_timeout}
  unpacked: {scan_unpacked}
  cached_per_minute: {scan_cached}
  trivy:
    program: {trivy_program}
    server: {trivy_server}
    token_file: {trivy_token}
    java_database: {trivy_java}
    memory: {trivy_memory}
signing:
  passphrase_file: {signing_passphrase}
  previous_passphrase_file: {signing_previous}
  seal_with: {seal_with}
  hsm:
    module: {hsm_module}
    token: {hsm_token}
    key: {hsm_key}
    previous_key: {hsm_previous}
    pin_file: {hsm_pin}
  kms:
    key: {kms_key}
    region: {kms_region}
    url: {kms_url}
    credentials_file: {kms_credentials}
jobs:
  at_a_time: {at_a_time}
  keep_for: {keep_for}
  keep: {keep}
audit:
  keep_for: {events_for}
  keep: {events}
  pulls: {pulls}
upstreams:
  allow_private: {allow_private}
  allow_loopback: {allow_loopback}
  fresh_for: {fresh_for}
  missing_for: {missing_for}
  questions: {questions}
  questions_per_minute: {questions_per_minute}
  ca: {ca}
cache:
  budget: {budget}
  manifests: {manifests}
edge:
  access_age: {access_age}
  alone_for: {alone_for}
  upstream_fallback: {upstream_fallback}
mirrors:
  names: {names}
  domain: {domain}
  default: {default}
  aliases:{aliases}
deadlines:
  first_byte: {first_byte}
  stall: {stall}
  source_stall: {source_stall}
  commit: {commit}
  replicate: {replicate}
links:
  congestion: {congestion}
  caps: {caps}
reads:
  without_lease: {without_lease}
log:
  level: {level}
  format: {format}
drain: {drain}
",
        data_dir = path(&s.data_dir),
        name = quoted(&s.name),
        region = quoted(&s.region),
        role = word(&ROLES, s.role),
        http_listen = address(s.http.listen),
        public_url = or_null(s.http.public_url.as_deref().map(quoted)),
        trusted_proxies = or_null(
            Some(s.http.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>())
                .filter(|networks| !networks.is_empty())
                .map(|networks| quoted(&networks.join(", ")))
        ),
        max_connections = s.http.max_connections,
        max_connections_per_address = s.http.max_connections_per_address,
        wasted_connections = s.http.wasted_connections,
        max_streams = s.http.max_streams,
        upload_memory = written_size(s.http.upload_memory),
        max_header_bytes = written_size(s.http.max_header_bytes),
        max_headers = s.http.max_headers,
        head_timeout = written_duration(s.http.head_timeout),
        mesh_listen = address(s.mesh.listen),
        advertise = or_null(s.mesh.advertise.map(address)),
        probe_period = written_duration(s.roster.probe_period),
        probe_rtt = written_duration(s.roster.probe_rtt),
        suspect_to_down = written_duration(s.roster.suspect_to_down),
        heartbeat = written_duration(s.ledger.heartbeat),
        election_min = written_duration(s.ledger.election_min),
        election_max = written_duration(s.ledger.election_max),
        log_bytes = written_size(s.ledger.log_bytes),
        lease_duration = written_duration(s.lease.duration),
        renew_every = written_duration(s.lease.renew_every),
        hold_down = written_duration(s.failover.hold_down),
        return_after = written_duration(s.failover.return_after),
        replace_voter_after = written_duration(s.failover.replace_voter_after),
        durability = s.projects.durability,
        robot_prefix = quoted(&s.people.robot_prefix),
        project_creation = word(&PROJECT_CREATION, s.people.project_creation),
        token_lifetime = written_duration(s.people.token_lifetime),
        refresh_lifetime = written_duration(s.people.refresh_lifetime),
        issuers = or_null(s.people.issuers.as_ref().map(|all| match all.as_slice() {
            [] => NO_ISSUER.to_owned(),
            all => quoted(&all.join(", ")),
        })),
        allow_private_issuers = s.people.allow_private_issuers,
        allow_loopback_issuers = s.people.allow_loopback_issuers,
        expire_after = written_duration(s.uploads.expire_after),
        max_manifest = written_size(s.uploads.max_manifest),
        max_open = s.uploads.max_open,
        repair_after = written_duration(s.repair.after),
        repair_every = written_duration(s.repair.every),
        read_all = written_duration(s.repair.read_all),
        confirm_over = s.retention.confirm_over,
        pulls_every = written_duration(s.retention.pulls_every),
        collection_grace = written_duration(s.collection.grace),
        collection_every = written_duration(s.collection.every),
        scan_database =
            or_null(s.scan.database.as_ref().map(|(name, tag)| format!("{name}:{tag}"))),
        scans = s.scan.at_a_time,
        scan_rate = or_null(s.scan.rate.map(written_size)),
        scan_timeout = written_duration(s.scan.timeout),
        scan_unpacked = written_size(s.scan.unpacked),
        scan_cached = s.scan.cached_per_minute,
        trivy_program = or_null(s.scan.trivy.program.as_deref().map(path)),
        trivy_server = or_null(s.scan.trivy.server.as_deref().map(quoted)),
        trivy_token = or_null(s.scan.trivy.token_file.as_deref().map(path)),
        trivy_java = or_null(s.scan.trivy.java_database.as_deref().map(path)),
        trivy_memory = written_size(s.scan.trivy.memory),
        signing_previous = or_null(s.signing.previous_passphrase_file.as_deref().map(path)),
        signing_passphrase = or_null(s.signing.passphrase_file.as_deref().map(path)),
        seal_with = or_null(s.signing.seal_with.map(|one| word(&SEAL_WITH, one).to_owned())),
        hsm_module = or_null(s.signing.hsm.module.as_deref().map(path)),
        hsm_token = or_null(s.signing.hsm.token.as_deref().map(quoted)),
        hsm_key = or_null(s.signing.hsm.key.as_deref().map(quoted)),
        hsm_previous = or_null(s.signing.hsm.previous_key.as_deref().map(quoted)),
        hsm_pin = or_null(s.signing.hsm.pin_file.as_deref().map(path)),
        kms_key = or_null(s.signing.kms.key.as_deref().map(quoted)),
        kms_region = or_null(s.signing.kms.region.as_deref().map(quoted)),
        kms_url = or_null(s.signing.kms.url.as_deref().map(quoted)),
        kms_credentials = or_null(s.signing.kms.credentials_file.as_deref().map(path)),
        at_a_time = s.jobs.at_a_time,
        keep_for = written_duration(s.jobs.keep_for),
        keep = s.jobs.keep,
        events_for = written_duration(s.audit.keep_for),
        events = s.audit.keep,
        pulls = s.audit.pulls,
        allow_private = s.upstreams.allow_private,
        allow_loopback = s.upstreams.allow_loopback,
        fresh_for = written_duration(s.upstreams.fresh_for),
        missing_for = written_duration(s.upstreams.missing_for),
        questions = s.upstreams.questions,
        questions_per_minute = s.upstreams.questions_per_minute,
        ca = or_null(s.upstreams.ca.as_deref().map(path)),
        budget = or_null(s.cache.budget.map(written_size)),
        manifests = s.cache.manifests,
        access_age = written_duration(s.edge.access_age),
        alone_for = written_duration(s.edge.alone_for),
        upstream_fallback = s.edge.upstream_fallback,
        names = or_null(
            Some(s.mirrors.names.join(", "))
                .filter(|names| !names.is_empty())
                .as_deref()
                .map(quoted)
        ),
        domain = or_null(s.mirrors.domain.as_deref().map(quoted)),
        default = or_null(s.mirrors.default.as_deref().map(quoted)),
        aliases = aliases,
        first_byte = written_duration(s.deadlines.first_byte),
        stall = written_duration(s.deadlines.stall),
        source_stall = written_duration(s.deadlines.source_stall),
        commit = written_duration(s.deadlines.commit),
        replicate = written_duration(s.deadlines.replicate),
        congestion = word(&CONGESTION, s.links.congestion),
        caps = caps(&s.links.caps),
        without_lease = word(&STALE_READS, s.reads.without_lease),
        level = quoted(&s.log.level),
        format = word(&LOG_FORMATS, s.log.format),
        drain = written_duration(s.drain),
    )
}

fn caps(caps: &BTreeMap<String, u64>) -> String {
    let one =
        |(region, bytes): (&String, &u64)| format!("{}: {}", quoted(region), written_size(*bytes));
    format!("{{{}}}", caps.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Quoted, because `[::]:5000` would otherwise begin a list.
fn address(address: impl fmt::Display) -> String {
    format!("\"{address}\"")
}

fn or_null(text: Option<String>) -> String {
    text.unwrap_or_else(|| "null".to_owned())
}

fn word<T: PartialEq>(choices: &[(&'static str, T)], wanted: T) -> &'static str {
    choices.iter().find(|(_, meaning)| *meaning == wanted).map_or("null", |(word, _)| word)
}
