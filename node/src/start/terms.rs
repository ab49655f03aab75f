//! Converts the settings into the terms of each room.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::{CongestionControl, Hsm, SealWith, Settings, Signing, StaleReads};
use ground::supervise::Tasks;
use mesh::ledger::LedgerTerms;
use mesh::links;
use mesh::members::MembersTerms;
use mesh::transfer::TransferTerms;
use parking_lot::Mutex;
use registry::blobs::collecting::CollectionTerms;
use registry::blobs::outgoing::OutgoingTerms;
use registry::events::EventTerms;
use registry::jobs::queue::JobTerms;
use registry::people::{AccessTerms, Providers};
use registry::proxies::resolving;
use registry::pulls::PullTerms;
use registry::scans::ScanTerms;
use registry::scans::adapters::AdapterTerms;
use registry::scans::trivy::TrivyTerms;
use registry::signatures::SignatureTerms;
use registry::signatures::keks::token::{Place, in_token};
use registry::signatures::keks::{Kek, Keks, kek};
use registry::upstreams::UpstreamsTerms;
use registry::writes::WriteTerms;
use rules::ledger::lease::LeaseTerms;
use rules::ledger::records::Role;
use rules::members::failover::FailoverTerms;
use rules::members::keeper::KeeperTerms;
use rules::members::voters::VoterTerms;
use rules::people::crowd::bearable;
use rules::people::windows::Windows;
use rules::proxies::budget::BudgetTerms;
use rules::proxies::mirror::MirrorRules;
use rules::words::names::{BadName, Region};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;
use upstream::directory::Directory;
use upstream::web::Web;
use upstream::{AddressRule, Trust, UpstreamTerms};

use crate::harbor::ProjectCreation;
use crate::http::ConnectionTerms;
use crate::http::door::DoorTerms;
use crate::oci::OciTerms;

/// How long an identity provider may take to answer: one request, or the questions about one sign-in.
const PROVIDER: Duration = Duration::from_secs(10);

/// How long a node may go without renewing its lease before its projects move, whatever the gossip
/// says about it: such a node cannot write.
const SILENT: Duration = Duration::from_secs(10);

/// How long a replica must have been well before it replaces a voter.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn congestion(settings: &Settings) -> links::CongestionControl {
    match settings.links.congestion {
        CongestionControl::Delivery => links::CongestionControl::Delivery,
        CongestionControl::Cubic => links::CongestionControl::Cubic,
    }
}

pub(super) fn access(settings: &Settings) -> AccessTerms {
    AccessTerms {
        robot_prefix: settings.people.robot_prefix.clone(),
        token_lifetime: settings.people.token_lifetime,
        refresh_lifetime: settings.people.refresh_lifetime,
        issuers: settings.people.issuers.clone(),
    }
}

pub(super) fn project_creation(settings: &Settings) -> ProjectCreation {
    match settings.people.project_creation {
        config::ProjectCreation::Everyone => ProjectCreation::Everyone,
        config::ProjectCreation::Administrators => ProjectCreation::Administrators,
    }
}

pub(super) fn members(settings: &Settings) -> MembersTerms {
    MembersTerms {
        probe_period: settings.roster.probe_period,
        probe_rtt: settings.roster.probe_rtt,
        suspect_to_down: settings.roster.suspect_to_down,
    }
}

pub(super) fn ledger(settings: &Settings, older_disk: bool) -> LedgerTerms {
    LedgerTerms {
        heartbeat: settings.ledger.heartbeat,
        election_min: settings.ledger.election_min,
        election_max: settings.ledger.election_max,
        log_bytes: settings.ledger.log_bytes,
        lease: LeaseTerms { duration: settings.lease.duration },
        renew_every: settings.lease.renew_every,
        failover: FailoverTerms {
            hold_down: settings.failover.hold_down,
            return_after: settings.failover.return_after,
            view_age: settings.lease.renew_every * 4,
            silent_for: SILENT,
        },
        voters: VoterTerms { hold_down: settings.failover.replace_voter_after, settle: SETTLE },
        older_disk,
    }
}

/// A client waits `first_byte` in total, so a silent peer must leave time to ask another one.
pub(super) fn transfer(settings: &Settings) -> TransferTerms {
    let deadlines = &settings.deadlines;
    TransferTerms {
        first_byte: deadlines.first_byte * 2 / 5,
        stall: deadlines.stall,
        source_stall: deadlines.source_stall.min(deadlines.stall),
    }
}

/// The cap for each region, in bytes per second.
pub(super) fn caps(settings: &Settings) -> io::Result<Vec<(Region, u64)>> {
    let caps = settings.links.caps.iter().map(|(region, rate)| Ok((region.parse()?, *rate)));
    caps.collect::<Result<_, BadName>>().map_err(io::Error::other)
}

pub(super) fn outgoing(settings: &Settings) -> OutgoingTerms {
    OutgoingTerms { first_byte: settings.deadlines.first_byte, stall: settings.deadlines.stall }
}

pub(super) fn writes(settings: &Settings) -> WriteTerms {
    WriteTerms {
        commit: settings.deadlines.commit,
        replicate: settings.deadlines.replicate,
        grant: settings.uploads.expire_after,
    }
}

pub(super) fn collection(settings: &Settings) -> CollectionTerms {
    CollectionTerms {
        grace: settings.collection.grace,
        every: settings.collection.every,
        commit: settings.deadlines.commit,
        counted_for: settings.uploads.expire_after,
    }
}

pub(super) fn events(settings: &Settings) -> EventTerms {
    EventTerms {
        robot_prefix: settings.people.robot_prefix.clone(),
        keep_for: settings.audit.keep_for,
        keep: u64::from(settings.audit.keep),
        pulls: u64::from(settings.audit.pulls),
        pull_times: settings.retention.pulls_every,
        commit: settings.deadlines.commit,
    }
}

pub(super) fn keeper(settings: &Settings) -> KeeperTerms {
    KeeperTerms { after: settings.repair.after, every: settings.repair.every }
}

pub(super) fn jobs(settings: &Settings) -> JobTerms {
    JobTerms {
        at_a_time: settings.jobs.at_a_time as usize,
        keep_for: settings.jobs.keep_for,
        keep: settings.jobs.keep,
        commit: settings.deadlines.commit,
    }
}

pub(super) fn upstreams(settings: &Settings) -> io::Result<UpstreamsTerms> {
    Ok(UpstreamsTerms {
        allowed: settings.role == Role::Replica || settings.edge.upstream_fallback,
        rule: AddressRule {
            allow_private: settings.upstreams.allow_private,
            allow_loopback: settings.upstreams.allow_loopback,
        },
        trust: trust(settings.upstreams.ca.as_deref())?,
        each: UpstreamTerms {
            first_byte: transfer(settings).first_byte,
            // an upstream is asked twice before it is given up, and a client waits `stall` in total
            stall: settings.deadlines.stall / 3,
            question: resolving::QUESTION,
            max_manifest: settings.uploads.max_manifest,
        },
    })
}

/// The clients for identity providers. Administrators say where they are, and they are mostly in a
/// private network. One on this machine is for tests. The issuers of trust rules are others.
pub(super) fn identity_providers(settings: &Settings, tasks: &Tasks) -> io::Result<Providers> {
    let rule = AddressRule { allow_private: true, allow_loopback: true };
    let trust = trust(settings.upstreams.ca.as_deref())?;
    let directory = Directory::new(trust.clone(), PROVIDER, tasks.clone());
    let web = Web::new("identity provider", rule, trust.clone(), PROVIDER, tasks.clone());
    // those that the admins of projects name
    let rule = AddressRule {
        allow_private: settings.people.allow_private_issuers,
        allow_loopback: settings.people.allow_loopback_issuers,
    };
    let issuers = Web::new("issuer of tokens", rule, trust, PROVIDER, tasks.clone());
    Ok(Providers { web, issuers, directory, tasks: tasks.clone() })
}

/// What each client may cause.
pub(super) fn questions(settings: &Settings) -> BudgetTerms {
    let upstreams = &settings.upstreams;
    BudgetTerms { burst: upstreams.questions, per_minute: upstreams.questions_per_minute }
}

/// The public authorities, and those in the file that `upstreams.ca` names.
fn trust(ca: Option<&Path>) -> io::Result<Trust> {
    let named = |error: &dyn std::fmt::Display| match ca {
        Some(ca) => io::Error::other(format!("upstreams.ca, {}: {error}", ca.display())),
        None => io::Error::other(error.to_string()),
    };
    let pem = ca.map(std::fs::read).transpose().map_err(|e| named(&e))?;
    Trust::with_authorities(&pem.unwrap_or_default()).map_err(|e| named(&e))
}

/// The projects to which the operator has assigned registries.
pub(super) fn mirrors(settings: &config::Mirrors) -> MirrorRules {
    MirrorRules {
        names: settings.names.iter().cloned().collect(),
        domain: settings.domain.clone(),
        default: settings.default.clone(),
        aliases: settings.aliases.clone(),
    }
}

pub(super) fn door(settings: &Settings, tls: bool) -> DoorTerms {
    DoorTerms {
        public_url: settings.http.public_url.clone(),
        tls,
        refuse_stale: settings.reads.without_lease == StaleReads::Refuse,
        edge: (settings.role == Role::Edge).then(|| settings.name.clone()),
    }
}

pub(super) fn pulls(settings: &Settings) -> PullTerms {
    PullTerms {
        first_byte: settings.deadlines.first_byte,
        stall: settings.deadlines.stall,
        grant: settings.uploads.expire_after,
    }
}

pub(super) fn scans(settings: &Settings) -> ScanTerms {
    ScanTerms {
        database: settings.scan.database.clone(),
        at_a_time: settings.scan.at_a_time as usize,
        rate: settings.scan.rate,
        timeout: settings.scan.timeout,
        unpacked: settings.scan.unpacked,
        cached_per_minute: settings.scan.cached_per_minute,
        fetch: settings.scan.timeout,
        commit: settings.deadlines.commit,
    }
}

/// Where other scanners pull from: the node's own address is that at which it listens, or, where it
/// listens at all of them, the one for other nodes.
pub(super) fn adapters(settings: &Settings) -> io::Result<AdapterTerms> {
    let UpstreamsTerms { rule, trust, .. } = upstreams(settings)?;
    let scheme = if settings.http.tls.is_some() { "https" } else { "http" };
    let mut own = settings.http.listen;
    if own.ip().is_unspecified() {
        own.set_ip(super::mesh_address(settings).ip());
    }
    let internal_url = format!("{scheme}://{own}");
    Ok(AdapterTerms { rule, trust, url: super::public_url(settings), internal_url })
}

pub(super) fn trivy(settings: &Settings) -> TrivyTerms {
    let config::Trivy { program, server, token_file, java_database, memory } =
        settings.scan.trivy.clone();
    TrivyTerms {
        program,
        server,
        token_file,
        java_database,
        memory,
        unpacked: settings.scan.unpacked,
        rate: settings.scan.rate,
        node: settings.name.clone(),
        folder: settings.data_dir.join("trivy"),
    }
}

pub(super) fn signatures(settings: &Settings, tasks: &Tasks) -> io::Result<SignatureTerms> {
    let signing = &settings.signing;
    if signing.passphrase_file.is_none() && signing.previous_passphrase_file.is_some() {
        return Err(io::Error::other(
            "signing.previous_passphrase_file needs signing.passphrase_file: what is sealed anew",
        ));
    }
    let mut keks = [
        (SealWith::Hsm, in_hsm(&signing.hsm)?),
        (SealWith::Kms, in_kms(settings, tasks)?),
        (SealWith::Passphrase, passphrases(signing)?),
    ];
    // the others stay in their order
    keks.sort_by_key(|(kind, _)| Some(*kind) != signing.seal_with);
    let keks = keks.into_iter().flat_map(|(_, keks)| keks).collect();
    let (keks, commit) = (Keks::new(keks), settings.deadlines.commit);
    Ok(SignatureTerms { fetch: settings.deadlines.replicate, keks, commit })
}

/// The key-encryption keys of the passphrases, the present one first.
fn passphrases(signing: &Signing) -> io::Result<Vec<Kek>> {
    let files = [
        ("signing.passphrase_file", &signing.passphrase_file),
        ("signing.previous_passphrase_file", &signing.previous_passphrase_file),
    ];
    let mut keks = Vec::new();
    for (setting, file) in files {
        let Some(file) = file else { continue };
        let at = |said: String| io::Error::other(format!("{setting} {}: {said}", file.display()));
        let passphrase = std::fs::read(file).map_err(|error| at(error.to_string()))?;
        keks.push(Kek { setting, wrapping: Arc::new(kek(passphrase).map_err(at)?) });
    }
    Ok(keks)
}

/// The key-encryption keys in a hardware security module, the present one first. That it cannot be
/// reached keeps no node from starting.
fn in_hsm(hsm: &Hsm) -> io::Result<Vec<Kek>> {
    let Hsm {
        module: Some(module),
        token: Some(token),
        key: Some(key),
        previous_key,
        pin_file: Some(pin_file),
    } = hsm
    else {
        return Ok(Vec::new());
    };
    let (module, token, pin_file) = (module.clone(), token.clone(), pin_file.clone());
    let labels = std::iter::once(key).chain(previous_key).cloned().collect();
    let keys = in_token(Place { module, token, pin_file }, labels)?;
    let settings = ["signing.hsm", "signing.hsm.previous_key"];
    let keys = settings.into_iter().zip(keys);
    Ok(keys.map(|(setting, wrapping)| Kek { setting, wrapping }).collect())
}

/// The key-encryption key in AWS KMS. That it cannot be reached keeps no node from starting.
#[cfg(feature = "kms")]
fn in_kms(settings: &Settings, tasks: &Tasks) -> io::Result<Vec<Kek>> {
    use registry::signatures::keks::kms::{self, KmsTerms};
    let config::KmsKey { key: Some(key), region: Some(region), url, credentials_file: Some(file) } =
        &settings.signing.kms
    else {
        return Ok(Vec::new());
    };
    let url = url.as_deref().map(str::parse).transpose();
    let terms = KmsTerms {
        key: key.clone(),
        region: region.clone(),
        url: url.map_err(|error| io::Error::other(format!("signing.kms.url: {error}")))?,
        credentials_file: file.clone(),
        trust: trust(settings.upstreams.ca.as_deref())?,
    };
    let wrapping = kms::in_kms(terms, tasks).map_err(io::Error::other)?;
    Ok(vec![Kek { setting: "signing.kms", wrapping }])
}

/// This build has none.
#[cfg(not(feature = "kms"))]
fn in_kms(settings: &Settings, _: &Tasks) -> io::Result<Vec<Kek>> {
    match settings.signing.kms.key {
        Some(_) => Err(io::Error::other("signing.kms: this build has no feature kms")),
        None => Ok(Vec::new()),
    }
}

pub(super) fn oci(settings: &Settings) -> OciTerms {
    OciTerms {
        replicate: settings.deadlines.replicate,
        grant: settings.uploads.expire_after,
        max_manifest: settings.uploads.max_manifest,
    }
}

/// Open files that are not those of connections: databases, links, blobs that arrive.
const OTHER_FILES: u64 = 512;

/// How many connections of clients are served. The soft limit of open files is raised to the hard
/// one; if that is too low for `http.max_connections`, fewer are.
pub(super) fn connections(settings: &Settings) -> ConnectionTerms {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let wanted = settings.http.max_connections as usize;
    // no limit at all is written as none
    let most = bearable(wanted, files.unwrap_or(u64::MAX), OTHER_FILES);
    if most < wanted {
        warn!(
            http.max_connections = wanted,
            most,
            "the limit of open files allows fewer connections: raise it (ulimit -n, LimitNOFILE)"
        );
    }
    ConnectionTerms {
        stall: settings.deadlines.stall,
        most,
        each: settings.http.max_connections_per_address as usize,
        wasted: settings.http.wasted_connections,
        proxies: settings.http.trusted_proxies.clone(),
        head: settings.http.head_timeout,
        header_bytes: settings.http.max_header_bytes as usize,
        headers: settings.http.max_headers as usize,
        streams: settings.http.max_streams,
        windows: Arc::new(Mutex::new(Windows::new(settings.http.upload_memory))),
    }
}
