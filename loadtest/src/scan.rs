//! `loadtest scan`: what scans cost, of the built-in scanner and of the program trivy over the same image
//! and the same database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rules::words::digest::Digest;
use serde_json::{Value, json};

use crate::content::{Blob, MANIFEST, MIB};
use crate::figures::{median, plain, ratio};
use crate::formed::{Formed, Site};
use crate::report::{Report, Table};
use crate::vulnerabilities::{self, Advisory};
use crate::wire::{Request, Sink};
use crate::{process, registry, tools};

/// How long one scan may take here.
const PATIENCE: Duration = Duration::from_secs(900);
/// The media type of reports.
const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";
/// The number of packages of the image.
const PACKAGES: usize = 400;
/// How much memory a scan may take, in MiB.
const MOST_MEMORY: f64 = 128.0;
/// Clock ticks in a second.
const TICKS: f64 = 100.0;

/// Which image, and how often.
#[derive(Args, Debug)]
pub(crate) struct Scan {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// The program trivy; without it only the built-in scanner is measured
    #[arg(long, value_name = "PATH")]
    trivy: Option<PathBuf>,
    /// The size of the image, unpacked, in MiB
    #[arg(long, default_value_t = 190, value_parser = clap::value_parser!(u32).range(8..=4096))]
    size: u32,
    /// Images of one base that are scanned together, and matched again with another database
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    images: u32,
    /// Images of one base whose lists of packages are matched again by a node that scans 16 at a time;
    /// 100000 take a quarter of an hour
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lists: u32,
    /// How often each scan is repeated
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
}

/// What one scan has cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    cpu: f64,
    /// Bytes that were resident at the most, beside what was before.
    memory: f64,
}

/// An image, and the bytes of its parts.
struct Image {
    manifest: Blob,
    blobs: Vec<Blob>,
}

impl Scan {
    /// Measures and writes `scan.json` and `scan.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("scan", "Scans");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server("atoll", &tools::version(&atoll));
        let program = self.trivy.as_deref().map(std::fs::canonicalize).transpose()?;
        let mut settings =
            "scan:\n  database: library/trivy-db:2\n  rate: null\n  at_a_time: 1\n".to_owned();
        if let Some(program) = &program {
            let version = process::first_line(Command::new(program).arg("--version"));
            report.server("trivy", &version.context("trivy says no version")?);
            settings += &format!("  trivy: {{program: '{}'}}\n", program.display());
        }
        let mesh = Formed::of(&atoll, &[Site::replica(0)], false, &settings)?;
        for project in ["library", "native", "trivy", "many"] {
            mesh.create_project(project, 1)?;
        }
        use_database(&mesh, 1)?;

        let base = layer(self.size as usize * MIB);
        report.heading("One image");
        report.say(&format!(
            "An image like Debian's of {} MiB, unpacked, with {PACKAGES} packages in one layer that is \
             compressed ({} MiB), at one node, one scan at a time; median of {} rounds. The database is \
             small ({PACKAGES} advisories), where trivy's own has some hundred MiB.",
            self.size,
            base.packed.bytes.len() / MIB,
            self.rounds
        ));
        let mut table = Table::new(&["scan", "seconds", "CPU, s", "peak memory, MiB"]);
        let mut found = BTreeMap::new();
        let mut add = |name: &str, costs: &[Cost]| {
            let of = |field: fn(&Cost) -> f64| {
                median(&costs.iter().map(field).collect::<Vec<_>>()).unwrap_or_default()
            };
            let cost = Cost {
                seconds: of(|one| one.seconds),
                cpu: of(|one| one.cpu),
                memory: of(|one| one.memory) / MIB as f64,
            };
            let cells = [cost.seconds, cost.cpu, cost.memory].map(plain);
            table.row([vec![name.to_owned()], cells.to_vec()].concat());
            found.insert(name.to_owned(), cost);
        };
        let [mut first, mut again, mut by_trivy] = [const { Vec::new() }; 3];
        for _ in 0..self.rounds {
            // a layer of its own, of which nothing is known
            let image = image(&[&layer(self.size as usize * MIB)]);
            push(&mesh, "native/web", "1", &image)?;
            first.push(scan(&mesh, "native/web", &image)?);
            again.push(scan(&mesh, "native/web", &image)?);
        }
        add("built in, first image with this layer", &first);
        add("built in, layer known", &again);
        if let Some(program) = &program {
            let made =
                mesh.make("/api/v2.0/scanners", &json!({"name": "trivy", "url": "program:trivy"}))?;
            let uuid = made.rsplit('/').next().unwrap_or_default().to_owned();
            let chosen = json!({ "uuid": uuid });
            send(&mesh, "PUT", "/api/v2.0/projects/trivy/scanner", &chosen, 200)?;
            let image = image(&[&base]);
            push(&mesh, "trivy/web", "1", &image)?;
            for _ in 0..self.rounds {
                by_trivy.push(scan(&mesh, "trivy/web", &image)?);
            }
            add("trivy, started by the node", &by_trivy);
            let (cold, warm) = alone(program, &image, self.rounds)?;
            add("trivy alone, cold", &cold);
            add("trivy alone, its cache kept", &warm);
        }
        report.table(&table);
        if let (Some(ours), Some(cold), Some(warm)) = (
            found.get("built in, first image with this layer"),
            found.get("trivy alone, cold"),
            found.get("trivy alone, its cache kept"),
        ) {
            let known = found.get("built in, layer known").map_or(0.0, |one| one.seconds);
            let shown = |a: f64, b: f64| ratio(a, b).map_or_else(|| "-".to_owned(), plain);
            report.say(&format!(
                "The built-in scanner takes {} of trivy's time when both are cold, {} of its CPU and {} of \
                 its memory; {} of its time when both are warm.",
                shown(ours.seconds, cold.seconds),
                shown(ours.cpu, cold.cpu),
                shown(ours.memory, cold.memory),
                shown(known, warm.seconds)
            ));
        }
        if let Some(ours) = found.get("built in, first image with this layer") {
            let verdict = if ours.memory <= MOST_MEMORY { "met" } else { "missed" };
            report.say(&format!(
                "The goal for the memory of a scan, at most {MOST_MEMORY} MiB, is {verdict}: {} MiB.",
                plain(ours.memory)
            ));
        }
        let recorded = found.iter().map(|(name, cost)| {
            json!({"scan": name, "seconds": cost.seconds, "cpu": cost.cpu, "mib": cost.memory})
        });
        report.record("scans", recorded.collect());
        self.many(&mesh, &base, &mut report)?;
        drop(mesh);
        self.lists(&atoll, &mut report)?;
        report.write(out)
    }

    /// Images of one base are scanned, and matched again with another database.
    fn many(&self, mesh: &Formed, base: &Layer, report: &mut Report) -> Result<()> {
        let pid = mesh.pid(0)?;
        for at in 0..self.images {
            let own = small(at);
            push(mesh, "many/web", &at.to_string(), &image(&[base, &own]))?;
        }
        let (before, begun) = (ticks(pid)?, Instant::now());
        let schedule = json!({"schedule": {"type": "Manual"}});
        send(mesh, "POST", "/api/v2.0/system/scanAll/schedule", &schedule, 201)?;
        process::until("all are scanned", PATIENCE, || {
            let stats = get(mesh, "/api/v2.0/scans/all/metrics")?;
            let (total, done) = (stats["total"].as_u64(), stats["completed"].as_u64());
            let all = u64::from(self.images);
            Ok((total >= Some(all) && total == done).then_some(()))
        })?;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), ticks(pid)? - before);
        report.heading("Images of one base");
        report.say(&format!(
            "{} images, each with the base of above and a small layer of its own: all are scanned in {} s \
             ({} CPU-s).",
            self.images,
            plain(seconds),
            plain(cpu)
        ));
        let (before, begun) = (ticks(pid)?, Instant::now());
        use_database(mesh, 2)?;
        process::until("all reports are of the new database", PATIENCE, || {
            let path = "/api/v2.0/projects/many/repositories/web/artifacts/\
                        ?with_scan_overview=true&page_size=100";
            // the oldest reports are matched last
            let listed = get(mesh, &path.replace("artifacts/?", "artifacts?"))?;
            let stale = listed
                .as_array()
                .into_iter()
                .flatten()
                .any(|one| one["scan_overview"][REPORT]["stale"] != json!(false));
            Ok((!stale).then_some(()))
        })?;
        let again = begun.elapsed().as_secs_f64();
        let cpu_again = ticks(pid)? - before;
        report.heading("Matched again");
        report.say(&format!(
            "With another database, the reports of the {} images (or the newest 100 of them) are of it after \
             {} s ({} CPU-s), the node's look at the tag every 2 s included. Nothing is scanned.",
            self.images,
            plain(again),
            plain(cpu_again)
        ));
        report.record(
            "many",
            json!({"images": self.images, "seconds": seconds, "cpu": cpu,
                "matched_seconds": again, "matched_cpu": cpu_again}),
        );
        Ok(())
    }
}

/// How many images of [`Scan::lists`] a repository has, and how many clients push them.
const TOGETHER: u32 = 1_000;
const CLIENTS: u32 = 8;

impl Scan {
    /// Many images whose layers are known are scanned, and their lists of packages matched again.
    fn lists(&self, atoll: &Path, report: &mut Report) -> Result<()> {
        let settings =
            "scan:\n  database: library/trivy-db:2\n  rate: null\n  at_a_time: 16\n".to_owned();
        let mesh = Formed::of(atoll, &[Site::replica(0)], false, &settings)?;
        for project in ["library", "lists"] {
            mesh.create_project(project, 1)?;
        }
        use_database(&mesh, 1)?;
        let base = layer(MIB);
        std::thread::scope(|scope| {
            let pushed: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (mesh, base) = (&mesh, &base);
                    scope.spawn(move || {
                        for at in (client..self.lists).step_by(CLIENTS as usize) {
                            let repository = format!("lists/r{}", at / TOGETHER);
                            // its configuration is its own
                            push(mesh, &repository, &at.to_string(), &image(&[base]))?;
                        }
                        Ok::<_, anyhow::Error>(())
                    })
                })
                .collect();
            pushed.into_iter().try_for_each(|one| one.join().expect("a client does not panic"))
        })?;
        let (pid, all) = (mesh.pid(0)?, u64::from(self.lists));
        let (before, begun) = (ticks(pid)?, Instant::now());
        let schedule = json!({"schedule": {"type": "Manual"}});
        send(&mesh, "POST", "/api/v2.0/system/scanAll/schedule", &schedule, 201)?;
        process::until("all are scanned", PATIENCE, || {
            let stats = get(&mesh, "/api/v2.0/scans/all/metrics")?;
            let (total, done) = (stats["total"].as_u64(), stats["completed"].as_u64());
            Ok((total >= Some(all) && total == done).then_some(()))
        })?;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), ticks(pid)? - before);
        let (peak, before, begun) = (Peak::begin(pid), ticks(pid)?, Instant::now());
        // each report says something else by this database
        use_database(&mesh, 2)?;
        process::until("all lists are matched again", PATIENCE, || {
            Ok((changed_reports(&mesh)? >= self.lists as f64).then_some(()))
        })?;
        let (again, cpu_again) = (begun.elapsed().as_secs_f64(), ticks(pid)? - before);
        let (memory, rate) = (peak.end() / MIB as f64, f64::from(self.lists) / again);
        report.heading("Many lists of packages");
        report.say(&format!(
            "{all} images in repositories of {TOGETHER}, with {PACKAGES} packages each, whose layers are \
             known: all are scanned in {} s ({} CPU-s), 16 at a time. With another database, by which each \
             report changes, all lists are matched again in {} s ({} CPU-s, {} a second, {} MiB more than \
             before), the node's look at the tag every 2 s included: 100,000 would take {} s at this rate.",
            plain(seconds),
            plain(cpu),
            plain(again),
            plain(cpu_again),
            plain(rate),
            plain(memory),
            plain(100_000.0 / rate)
        ));
        report.record(
            "lists",
            json!({"images": all, "seconds": seconds, "cpu": cpu, "matched_seconds": again,
                "matched_cpu": cpu_again, "mib": memory}),
        );
        Ok(())
    }
}

/// How many reports another database has changed at the node.
fn changed_reports(mesh: &Formed) -> Result<f64> {
    let mut said = Vec::new();
    let mut client = mesh.administrator(0);
    client.send(&Request::new("GET", "/metrics"), &mut Sink::Keep(&mut said))?;
    let said = String::from_utf8_lossy(&said);
    let of = said.lines().find_map(|line| line.strip_prefix("atoll_scan_reports_changed_total "));
    Ok(of.and_then(|value| value.parse().ok()).unwrap_or_default())
}

/// A layer as it is pushed, and the sha256 of its archive.
struct Layer {
    packed: Blob,
    unpacked: Digest,
}

/// A tar archive of these files.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, bytes) in files {
        let mut header = [0; 512];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000755");
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
        all.extend_from_slice(&header);
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

fn gzip(archive: &[u8]) -> Layer {
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    packed.write_all(archive).expect("memory takes bytes");
    let packed = packed.finish().expect("memory takes bytes");
    Layer { packed: Blob::of(packed), unpacked: Digest::sha256(archive) }
}

/// Something like a Debian: a list of packages, and files that shrink to about 40 %, as programs do.
fn layer(bytes: usize) -> Layer {
    let status: String = (0..PACKAGES)
        .map(|n| {
            format!(
                "Package: package-{n}\nStatus: install ok installed\nArchitecture: amd64\n\
                 Version: 1.{n}-1\nDescription: the package number {n}\n\n"
            )
        })
        .collect();
    let system = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
    let mut files = vec![
        ("etc/os-release".to_owned(), system.into()),
        ("etc/debian_version".to_owned(), b"12.5\n".to_vec()),
        ("var/lib/dpkg/status".to_owned(), status.into_bytes()),
    ];
    let (mut left, mut number) = (bytes, 0);
    while left > 0 {
        let length = left.min(256 << 10);
        let mut content = vec![0; length];
        // two fifths are random, as in programs
        for piece in content.chunks_mut(1000) {
            let random = piece.len() * 2 / 5;
            rand::fill(&mut piece[..random]);
        }
        files.push((format!("usr/lib/x86_64-linux-gnu/file-{number}.so"), content));
        (left, number) = (left - length, number + 1);
    }
    gzip(&archive(&files))
}

fn small(number: u32) -> Layer {
    let text = format!("image {number} {:032x}", rand::random::<u128>());
    gzip(&archive(&[(format!("srv/{number}"), text.into_bytes())]))
}

fn image(layers: &[&Layer]) -> Image {
    let ids: Vec<String> = layers.iter().map(|layer| layer.unpacked.to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "author": format!("loadtest {:032x}", rand::random::<u128>()),
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = Blob::of(config.to_string().into_bytes());
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let described = |blob: &Blob, kind: &str| json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.bytes.len()});
    let listed: Vec<Value> = layers.iter().map(|layer| described(&layer.packed, kind)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": listed,
    });
    let mut blobs = vec![config];
    blobs.extend(layers.iter().map(|layer| layer.packed.clone()));
    Image { manifest: Blob::of(manifest.to_string().into_bytes()), blobs }
}

fn push(mesh: &Formed, repository: &str, tag: &str, image: &Image) -> Result<()> {
    let mut client = mesh.administrator(0);
    for blob in &image.blobs {
        let path = registry::blob_path(repository, &blob.digest);
        let there = client.send(&Request::new("HEAD", &path), &mut Sink::Discard)?;
        if there.status != 200 {
            registry::upload_blob(&mut client, repository, blob)?;
        }
    }
    registry::put_manifest(&mut client, repository, tag, &image.manifest)
}

fn send(mesh: &Formed, method: &str, path: &str, what: &Value, status: u16) -> Result<()> {
    let body = what.to_string().into_bytes();
    let body: [&[u8]; 1] = [&body];
    let headers = [("Content-Type", "application/json")];
    let request = Request::new(method, path).headers(&headers).body(&body);
    let answer = mesh.administrator(0).send(&request, &mut Sink::Discard)?;
    registry::expect(&answer, status, method, path).map(drop)
}

fn get(mesh: &Formed, path: &str) -> Result<Value> {
    let mut body = Vec::new();
    let mut client = mesh.administrator(0);
    let answer = client.send(&Request::new("GET", path), &mut Sink::Keep(&mut body))?;
    ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
    Ok(serde_json::from_slice(&body)?)
}

/// Pushes a database made on this day of January, and waits until the node uses it.
fn use_database(mesh: &Formed, day: u8) -> Result<()> {
    let severity = |n: usize| Some((n % 5) as u8);
    let advisories: Vec<Advisory> = (0..PACKAGES)
        .map(|n| {
            let (package, id) = (format!("package-{n}"), format!("CVE-2026-{day}{n:04}"));
            let fixed = format!("1.{n}-2");
            let bad = (severity(n), None);
            Advisory::of_distribution("debian 12", "debian", &package, &id, &fixed, bad)
        })
        .collect();
    let made = format!("2026-01-{day:02}T00:00:00Z");
    let layer = Blob::of(vulnerabilities::database_of(&advisories, &made, "2126-01-01T00:00:00Z"));
    let config = Blob::of(b"{}".to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": vulnerabilities::CONFIG,
        "config": {"mediaType": vulnerabilities::CONFIG, "digest": config.digest.to_string(), "size": 2},
        "layers": [{
            "mediaType": vulnerabilities::LAYER,
            "digest": layer.digest.to_string(),
            "size": layer.bytes.len(),
            "annotations": vulnerabilities::layer_annotations(),
        }],
    });
    let digest = layer.digest.to_string();
    let manifest = Blob::of(manifest.to_string().into_bytes());
    push(mesh, "library/trivy-db", "2", &Image { manifest, blobs: vec![config, layer] })?;
    process::until("the node uses the database", PATIENCE, || {
        let scanners = get(mesh, "/api/v2.0/scanners")?;
        Ok((scanners[0]["database_here"]["open"] == digest.as_str()).then_some(()))
    })
}

/// CPU-seconds of a process and of its children that have ended.
fn ticks(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a stat without a name")?;
    let fields: Vec<u64> =
        rest.split(' ').skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
    Ok(fields.iter().sum::<u64>() as f64 / TICKS)
}

/// A line of a process's status, in bytes.
fn status(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The most that the process and its children had resident, beside what it had at the beginning.
struct Peak {
    pid: u32,
    before: u64,
    most: u64,
}

impl Peak {
    fn begin(pid: u32) -> Self {
        // forgets what was before
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Peak { pid, before: status(pid, "VmRSS:").unwrap_or(0), most: 0 }
    }

    fn look(&mut self) {
        let children: u64 =
            every_child(self.pid).into_iter().filter_map(|pid| status(pid, "VmHWM:")).sum();
        self.most = self.most.max(children);
    }

    fn end(self) -> f64 {
        let own = status(self.pid, "VmHWM:").unwrap_or(0).saturating_sub(self.before);
        (own + self.most) as f64
    }
}

/// The children of all threads of a process.
fn every_child(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| {
        let listed = std::fs::read_to_string(thread.path().join("children")).ok()?;
        Some(listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
    });
    children.flatten().collect()
}

/// Has an image scanned, and waits for its report.
fn scan(mesh: &Formed, repository: &str, image: &Image) -> Result<Cost> {
    let (project, name) = repository.split_once('/').context("a project and a name")?;
    let digest = image.manifest.digest;
    let path = format!("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{digest}");
    let shown = format!("{path}?with_scan_overview=true");
    let number = |one: &Value| one["scan_overview"][REPORT]["report_id"].clone();
    let before = number(&get(mesh, &shown)?);
    let pid = mesh.pid(0)?;
    let (mut peak, cpu, begun) = (Peak::begin(pid), ticks(pid)?, Instant::now());
    send(mesh, "POST", &format!("{path}/scan"), &json!({}), 202)?;
    let overview = process::until("the image is scanned", PATIENCE, || {
        peak.look();
        let one = get(mesh, &shown)?;
        let overview = one["scan_overview"][REPORT].clone();
        let status = overview["scan_status"].as_str().unwrap_or_default();
        let ended = matches!(status, "Success" | "Error") && number(&one) != before;
        Ok(ended.then_some(overview))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(overview["scan_status"] == "Success", "the scan has failed: {}", overview["error"]);
    let found = overview["summary"]["total"].as_u64().unwrap_or(0);
    ensure!(found == PACKAGES as u64, "{found} findings, and there are {PACKAGES}");
    Ok(Cost { seconds, cpu: ticks(pid)? - cpu, memory: peak.end() })
}

/// trivy without a registry, on the same image as a folder: with an empty cache, and again with what the
/// first run has kept.
fn alone(program: &Path, image: &Image, rounds: u32) -> Result<(Vec<Cost>, Vec<Cost>)> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let folder = tempfile::TempDir::with_prefix("loadtest-trivy-")?;
        let layout = folder.path().join("layout");
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        for blob in image.blobs.iter().chain([&image.manifest]) {
            let digest = blob.digest.to_string();
            std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), &blob.bytes)?;
        }
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST,
            "digest": image.manifest.digest.to_string(),
            "size": image.manifest.bytes.len(),
        }]});
        std::fs::write(layout.join("index.json"), index.to_string())?;
        std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
        let database = folder.path().join("cache/db");
        std::fs::create_dir_all(&database)?;
        let advisories: Vec<Advisory> = (0..PACKAGES)
            .map(|n| {
                let (package, id) = (format!("package-{n}"), format!("CVE-2026-1{n:04}"));
                let (fixed, bad) = (format!("1.{n}-2"), (Some((n % 5) as u8), None));
                Advisory::of_distribution("debian 12", "debian", &package, &id, &fixed, bad)
            })
            .collect();
        let made = "2026-01-01T00:00:00Z";
        let (bolt, about) = vulnerabilities::files(&advisories, made, "2126-01-01T00:00:00Z");
        std::fs::write(database.join("trivy.db"), bolt)?;
        std::fs::write(database.join("metadata.json"), about)?;
        cold.push(once(program, folder.path())?);
        warm.push(once(program, folder.path())?);
    }
    Ok((cold, warm))
}

fn once(program: &Path, folder: &Path) -> Result<Cost> {
    let own = std::process::id();
    let (before, begun) = (ticks(own)?, Instant::now());
    let mut child = Command::new(program)
        .current_dir(folder)
        .args(["image", "--input", "layout", "--cache-dir", "cache", "--format", "json"])
        .args(["--scanners", "vuln", "--offline-scan", "--skip-db-update"])
        .args(["--skip-java-db-update", "--no-progress", "--output", "report.json"])
        .env("TRIVY_SKIP_VERSION_CHECK", "true")
        .env("TRIVY_DISABLE_TELEMETRY", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut most = 0;
    let ended = loop {
        most = most.max(status(child.id(), "VmHWM:").unwrap_or(0));
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    ensure!(ended.success(), "trivy has failed: {ended}");
    let seconds = begun.elapsed().as_secs_f64();
    let text = std::fs::read_to_string(folder.join("report.json"))?;
    let found = text.matches("\"VulnerabilityID\"").count();
    ensure!(found == PACKAGES, "trivy has {found} findings, and there are {PACKAGES}");
    // what this thread itself did meanwhile is next to nothing
    Ok(Cost { seconds, cpu: ticks(own)? - before, memory: most as f64 })
}
