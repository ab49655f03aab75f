//! Three regions of four replicas and thirty edges pull one new image at once: the upstream is
//! asked once, and each region fetches it once.

use tests::formed::Formed;
use tests::image::Image;
use tests::proxies::{make_project, make_registry};
use tests::repository::Repository;
use tests::upstream::Upstream;
use tests::{metrics, wait};

use http::Method;

const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-central-1"];
const REPLICAS: usize = 12;
const EDGES: usize = 30;
const MIB: usize = 1 << 20;

#[test]
fn twelve_replicas_and_thirty_edges_fetch_an_image_once_for_each_region() {
    let upstream = Upstream::start();
    // so many processes on a small machine answer probes late and send haltingly: neither must look
    // like a death, for a node that takes others for dead fetches by itself
    let more = "upstreams:\n  allow_loopback: true\nlog:\n  level: warn\nroster:\n  probe_period: 2s\n  probe_rtt: 1s\n  suspect_to_down: 20s\ndeadlines:\n  first_byte: 30s\n  source_stall: 30s\n";
    let names: Vec<String> = (0..REPLICAS).map(|n| format!("replica-{n}")).collect();
    let sites: Vec<(&str, &str)> =
        names.iter().zip(REGIONS.iter().cycle()).map(|(n, r)| (n.as_str(), *r)).collect();
    let mut mesh = Formed::of(&sites, more);
    for n in 0..EDGES {
        mesh.add_edge(&format!("edge-{n}"), REGIONS[n % 3], more);
    }
    for member in mesh.members() {
        member.wait_ready();
    }
    let everybody = REPLICAS + EDGES;
    wait::until("everybody has met everybody", || {
        let status = mesh.status(0).ok()?;
        let up = status["nodes"].as_array()?.iter().filter(|n| n["state"] == "up").count();
        (up == everybody).then_some(())
    });
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));

    let image = Image::random(&[4 * MIB, MIB]);
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    upstream.forget();
    std::thread::scope(|scope| {
        for member in mesh.members() {
            let there = Repository::new(&member.anyone(), "hub/app");
            let digest = image.digest();
            scope.spawn(move || {
                assert_eq!(pulled(&there, &member.name), digest, "{}", member.name);
            });
        }
    });
    for blob in &image.blobs {
        let gets = upstream.asked_for(&Method::GET, &blob.digest);
        assert_eq!(
            gets.len(),
            1,
            "the upstream was asked {} times for {}",
            gets.len(),
            blob.digest
        );
    }
    // every node but one got every byte once, over links
    let size = image.blobs.iter().map(|b| b.bytes.len() as u64).sum::<u64>();
    let received: Vec<u64> = mesh
        .members()
        .iter()
        .map(|m| metrics::value(&m.anyone(), "atoll_link_bytes_received_total"))
        .collect();
    for (member, received) in mesh.members().iter().zip(&received) {
        assert!(
            *received <= size + size / 20,
            "{} received {received} bytes of an image of {size}",
            member.name
        );
    }
    let total = received.iter().sum::<u64>();
    assert!(total <= size * everybody as u64, "{total} bytes moved");
}

/// Pulls the image as clients do, which come again when they are told to wait; its digest. A node
/// that gets no turn on a CPU for seconds has no answer from the primary in time.
fn pulled(there: &Repository, who: &str) -> String {
    wait::until(&format!("{who} pulls"), || match there.pull("1") {
        Ok(found) => Some(found.digest),
        Err(no) if no.answer().is_some_and(|answer| answer.status == 503) => None,
        Err(no) => panic!("{who}: {no}"),
    })
}
