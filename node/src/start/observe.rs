//! Logs and metrics.

use std::io;

use config::{Log, LogFormat};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Buckets of request durations, in seconds.
const BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// Starts logging to standard error, as `log` says.
pub fn start_logging(log: &Log) -> io::Result<()> {
    let directives = format!("{},{}", mesh::ledger::QUIET, log.level);
    let filter =
        EnvFilter::try_new(directives).map_err(|e| io::Error::other(format!("log.level: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Human => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|e| io::Error::other(e.to_string()))
}

/// Starts counting. The handle renders what `/metrics` shows.
pub fn start_metrics() -> io::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
        .map_err(io::Error::other)?;
    let handle = builder.install_recorder().map_err(io::Error::other)?;
    describe();
    Ok(handle)
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("atoll_requests_total", "requests answered, by route, method and status");
    describe_histogram!(
        "atoll_request_seconds",
        "time from a request's head to its response's head, by route"
    );
    describe_gauge!("atoll_drill", "whether a drill has this node refuse its clients");
    describe_counter!("atoll_drill_refused_total", "requests refused because of a drill");
    describe_counter!("atoll_blob_bytes_served_total", "bytes of blobs sent to clients");
    describe_counter!(
        "atoll_blobs_stored_total",
        "blobs that this node has begun to hold, by upload, copy or fetch"
    );
    describe_counter!("atoll_blob_bytes_stored_total", "bytes of those blobs");
    describe_counter!(
        "atoll_blob_misses_total",
        "blob pulls that had to be fetched from another node or an upstream"
    );
    describe_counter!("atoll_manifest_pulls_total", "manifests read");
    describe_counter!(
        "atoll_mounts_total",
        "blobs taken into a repository from another one, without an upload"
    );
    describe_counter!(
        "atoll_upload_copies_failed_total",
        "copies of uploads to another region that broke off"
    );
    describe_gauge!(
        "atoll_jobs_waiting",
        "jobs that wait, of the projects whose primary this node is"
    );
    describe_gauge!("atoll_jobs_running", "jobs that run, of those projects");
    describe_counter!("atoll_scrub_blobs_total", "blobs that this node read again to check them");
    describe_counter!("atoll_scrub_bytes_total", "bytes of those blobs");
    describe_counter!(
        "atoll_collected_blobs_total",
        "blobs that nothing referred to, removed here"
    );
    describe_counter!("atoll_sboms_made_total", "SBOMs that this node made and kept beside images");
    describe_counter!(
        "atoll_signatures_total",
        "signatures that this node verified, by whether they had a fault"
    );
    describe_counter!(
        "atoll_signatures_sought_total",
        "questions to upstreams for signatures of an image, by result"
    );
    describe_counter!("atoll_signed_total", "manifests that this node signed");
    describe_gauge!(
        "atoll_signing_keys_closed",
        "projects that sign whose key this node could not open as their primary"
    );
    describe_counter!(
        "atoll_unsigned_pulls_total",
        "pulls of what lacks signatures, by whether they were refused"
    );
    describe_counter!(
        "atoll_gate_decisions_total",
        "pulls from projects that refuse some images, by what decided: what is remembered, or the records"
    );
    describe_counter!("atoll_scans_total", "scans that this node carried out, by result");
    describe_counter!(
        "atoll_scan_reports_changed_total",
        "reports that another database of vulnerabilities has changed"
    );
    describe_counter!(
        "atoll_pulls_prevented_total",
        "pulls of manifests that were refused for vulnerabilities"
    );
    describe_counter!("atoll_collected_bytes_total", "bytes of those blobs");
    describe_gauge!(
        "atoll_garbage_blobs",
        "blobs that nothing refers to, at the ledger's leader; 0 elsewhere"
    );
    describe_gauge!("atoll_garbage_bytes", "their bytes in one copy, as far as the ledger knows");
    describe_gauge!("atoll_garbage_oldest_seconds", "for how long the oldest is garbage");
    describe_counter!(
        "atoll_repair_copies_total",
        "copies of blobs that repairs of this node made"
    );
    describe_counter!("atoll_repair_bytes_total", "bytes of those copies");
    describe_gauge!(
        "atoll_replication_lag_blobs",
        "blobs that the last repairs of this node found missing in a region, and that are not copied yet"
    );
    describe_gauge!("atoll_replication_lag_bytes", "bytes of those blobs");
    describe_gauge!(
        "atoll_repair_blobs_lost",
        "blobs of which the last repairs of this node found no sound copy on a replica that was up"
    );
    describe_counter!("atoll_job_runs_failed_total", "runs of jobs on this node that failed");
    describe_gauge!("atoll_connections_open", "connections of clients that are open");
    describe_counter!(
        "atoll_connections_refused_total",
        "connections that were not served, because too many were open or their address is punished"
    );
    describe_counter!(
        "atoll_connections_displaced_total",
        "connections that were told to end, to make room for a client that has fewer"
    );
    describe_counter!(
        "atoll_clients_punished_total",
        "penalties of addresses that wasted too many connections"
    );
    describe_counter!("atoll_http2_connections_total", "connections of clients that spoke HTTP/2");
    describe_counter!(
        "atoll_connections_reset_rapidly_total",
        "HTTP/2 connections that were ended because their client broke off most requests"
    );
    describe_counter!(
        "atoll_uploads_relayed_total",
        "requests of uploads that were passed on to the node that has the upload"
    );
    describe_counter!("atoll_uploads_expired_total", "uploads given up after uploads.expire_after");
    describe_counter!(
        "atoll_logins_refused_total",
        "passwords that were wrong, or of users who are not administrators"
    );
    describe_counter!(
        "atoll_mirror_unknown_total",
        "requests and images that name a registry which is not mirrored"
    );
    describe_counter!(
        "atoll_flights_total",
        "blobs fetched from other nodes or an upstream, one for all requests that wait for it"
    );
    describe_counter!("atoll_flights_failed_total", "fetches that found no source or broke off");
    describe_counter!(
        "atoll_flights_deserted_total",
        "fetches that were given up because nobody waited for them"
    );
    describe_counter!(
        "atoll_logins_throttled_total",
        "passwords that were not checked (429) because too many wrong ones had come"
    );
    describe_counter!(
        "atoll_upstream_questions_refused_total",
        "requests refused (429) because their client used up its budget (upstreams.questions)"
    );
    describe_counter!(
        "atoll_flights_wrong_bytes_total",
        "fetched blobs that did not hash to their name"
    );
    describe_counter!(
        "atoll_peers_lied_total",
        "times a node was caught sending wrong bytes, by peer and kind"
    );
    describe_counter!(
        "atoll_pulls_passed_on_total",
        "pulls of blobs for which this node had no room"
    );
    describe_counter!(
        "atoll_sources_stalled_total",
        "sources that stalled in the middle of a blob"
    );
    describe_counter!(
        "atoll_flights_sent_on_total",
        "fetches that followed another node than the one they asked"
    );
    describe_counter!(
        "atoll_outboards_rebuilt_total",
        "lists of groups that were computed again from a blob's bytes"
    );
    describe_counter!(
        "atoll_upstream_requests_total",
        "requests for upstream registries, by registry and status"
    );
    describe_counter!(
        "atoll_upstream_bytes_received_total",
        "bytes of blobs received from upstream registries"
    );
    describe_counter!(
        "atoll_upstream_logins_total",
        "tokens and passwords requested from upstream registries"
    );
    describe_counter!(
        "atoll_proxy_stale_total",
        "references that could not be checked upstream; what was cached was served, if anything"
    );
    describe_counter!(
        "atoll_proxy_direct_total",
        "references that a node asked an upstream about itself, because the primary could not be reached or had no majority"
    );
    describe_counter!(
        "atoll_link_bytes_received_total",
        "bytes of blobs received from other nodes"
    );
    describe_counter!("atoll_link_bytes_sent_total", "bytes of blobs sent to other nodes");
    describe_counter!(
        "atoll_reads_stale_total",
        "reads answered without a lease and without the leader"
    );
    describe_counter!(
        "atoll_reads_waiting_for_release_total",
        "reads that waited for a write to be released"
    );
    describe_counter!(
        "atoll_writes_fenced_total",
        "writes refused because the project has another primary"
    );
    describe_counter!(
        "atoll_writes_retried_total",
        "writes tried again, for example during a failover"
    );
    describe_counter!(
        "atoll_failovers_total",
        "projects given another primary by this node as the ledger's leader"
    );
    describe_counter!(
        "atoll_ledger_commands_total",
        "commands committed by this node as the ledger's leader, by command"
    );
    describe_counter!(
        "atoll_ledger_terms_led_total",
        "terms in which this node became the ledger's leader"
    );
    describe_counter!(
        "atoll_gossip_forged_total",
        "gossip packets dropped because they named another sender than their certificate"
    );
    describe_counter!(
        "atoll_gossip_ignored_total",
        "claims in gossip about nodes that it may not speak of"
    );
    describe_counter!("atoll_links_refused_total", "connections between nodes that were refused");
    describe_counter!("atoll_messages_refused_total", "messages of members that were not read");
    describe_counter!(
        "atoll_joins_refused_total",
        "joins refused because the token's secret was not valid"
    );
    describe_counter!(
        "atoll_certificate_renewals_failed_total",
        "failed tries to renew this node's certificate"
    );
    describe_counter!(
        "atoll_datagrams_too_large_total",
        "gossip packets that were too large for the path to a peer and were not sent"
    );
    describe_counter!(
        "atoll_roster_changes_total",
        "members that came or went, as this node sees it"
    );
    describe_counter!(
        "atoll_clients_stalled_total",
        "connections given up because the client read nothing"
    );
    describe_counter!(
        "atoll_ledger_slow_disk_total",
        "times that the ledger's disk took so long for a write that other nodes took over"
    );
    describe_counter!(
        "atoll_ledger_snapshots_total",
        "times that this node took the records that it lacked, because no log had what it missed"
    );
    describe_counter!(
        "atoll_ledger_snapshot_bytes_total",
        "compressed bytes of such records that came, in transfers that broke, too"
    );
    describe_counter!(
        "atoll_ledger_snapshots_broken_total",
        "snapshots of the ledger that did not arrive completely and were sent again"
    );
    describe_counter!(
        "atoll_lease_recalls_total",
        "times that this node gave its read lease back because writes had to wait for it"
    );
    describe_counter!(
        "atoll_ledger_returned_with_less_total",
        "replicas that came back with less than this node had seen of their disks"
    );
    describe_counter!(
        "atoll_ledger_differed_total",
        "times that this node's records were not those of the other replicas, and it took theirs"
    );
    describe_counter!("atoll_task_panics_total", "tasks that panicked, by task; never expected");
    describe_counter!(
        "atoll_blobs_damaged_total",
        "blobs in data_dir that no longer hashed to their name, or could not be read"
    );
    describe_counter!("atoll_cache_evicted_total", "cached blobs evicted");
    describe_gauge!("atoll_cache_blobs", "blobs that are cached: they may be evicted");
    describe_gauge!("atoll_cache_bytes", "bytes of cached blobs");
    describe_gauge!("atoll_cache_budget_bytes", "cache.budget");
    describe_gauge!("atoll_cache_manifests", "manifests of proxy projects that are cached here");
    describe_gauge!("atoll_cache_manifest_bytes", "bytes of cached manifests");
    describe_counter!("atoll_cache_manifests_evicted_total", "cached manifests evicted");
    describe_counter!(
        "atoll_cache_found_elsewhere_total",
        "records of proxy projects that another replica had cached, and this one had not"
    );
    describe_gauge!("atoll_disk_free_bytes", "bytes that are free on data_dir's file system");
    describe_counter!(
        "atoll_edge_reads_alone_total",
        "reads of an edge for which no replica could be asked"
    );
    describe_counter!(
        "atoll_edge_read_again_total",
        "kept records that had changed or were gone, which this edge has read again"
    );
    describe_gauge!("atoll_edge_heard_seconds_ago", "how long ago a replica answered this edge");
    describe_gauge!("atoll_uploads_open", "uploads that are open on this node");
    describe_gauge!("atoll_ledger_applied", "the ledger's entry that this node has applied");
    describe_gauge!(
        "atoll_ledger_released",
        "the ledger's entry up to which all changes are released to readers"
    );
    describe_gauge!("atoll_read_lease", "1 if this node answers reads from its own records");
}
