//! When every node of a region wants one cold blob at once, no node carries it many times: each
//! passes it on to one other.

use http::Method;
use std::time::Duration;
use tests::formed::{Formed, UNHURRIED};
use tests::http::Client;
use tests::image::Image;
use tests::metrics;
use tests::repository::create_project;

const MIB: usize = 1 << 20;
const SITES: [(&str, &str); 6] = [
    ("far", "far"),
    ("n1", "near"),
    ("n2", "near"),
    ("n3", "near"),
    ("n4", "near"),
    ("n5", "near"),
];

#[test]
fn however_many_nodes_of_a_region_want_a_blob_none_sends_it_more_than_twice() {
    // every node's way to the others is so narrow that a copy takes seconds: all of them are at it
    // at the same time
    let mesh = Formed::of(&SITES, &format!("links: {{caps: {{near: 8MiB}}}}\n{UNHURRIED}"));
    create_project(&mesh.client(0), "alone", true, 1);
    let image = Image::random(&[32 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/hot").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let count = |name: &str| -> Vec<u64> {
        mesh.members().iter().map(|member| metrics::value(&member.anyone(), name)).collect()
    };
    let counts =
        || [count("atoll_link_bytes_sent_total"), count("atoll_link_bytes_received_total")];
    let before = counts();
    let path = format!("/v2/alone/hot/blobs/{}", layer.digest);
    std::thread::scope(|all| {
        for at in 1..SITES.len() {
            let (client, path) = (mesh.client(at).patient_for(Duration::from_secs(120)), &path);
            all.spawn(move || pull(&client, path, &layer.bytes));
        }
    });
    let after = counts();
    let moved = |which: usize| -> Vec<u64> {
        before[which].iter().zip(&after[which]).map(|(b, a)| a - b).collect()
    };
    let (sent, received) = (moved(0), moved(1));
    let whole = layer.bytes.len() as u64;
    assert_eq!(received[1..], [whole; SITES.len() - 1], "each received it once");
    assert_eq!(sent.iter().sum::<u64>(), received.iter().sum::<u64>());
    assert_eq!(sent[0], whole, "it crossed into the region once");
    assert!(
        sent.iter().all(|sent| *sent <= 2 * whole),
        "copies sent by each: {:?}",
        copies(&sent, whole)
    );
    assert!(
        count("atoll_flights_sent_on_total").iter().sum::<u64>() > 0,
        "nobody was sent on to another"
    );
    // when the links of a chain die with their nodes, the rest still gets it
    let image = Image::random(&[32 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/hot").push(&image, "2").unwrap_or_else(|no| panic!("{no}"));
    let path = format!("/v2/alone/hot/blobs/{}", layer.digest);
    std::thread::scope(|all| {
        for at in [1, 2, 4, 5] {
            let (client, path) = (mesh.client(at).patient_for(Duration::from_secs(120)), &path);
            all.spawn(move || pull(&client, path, &layer.bytes));
        }
        let client = mesh.client(3);
        let mut coming =
            client.ask(Method::GET, &path).open().unwrap_or_else(|none| panic!("{none}"));
        let first = coming.next().expect("a first piece").unwrap_or_else(|none| panic!("{none}"));
        assert!(layer.bytes.starts_with(&first));
        mesh.members()[3].stop(rustix::process::Signal::KILL);
    });
}

fn pull(client: &Client, path: &str, bytes: &[u8]) {
    let coming = client.ask(Method::GET, path).open().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(coming.status, 200, "{:?}", coming.headers);
    coming.rest_is(bytes).unwrap_or_else(|no| panic!("at {}: {no}", client.authority()));
}

fn copies(sent: &[u64], whole: u64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let copies = sent.iter().map(|sent| *sent as f64 / whole as f64).collect();
    copies
}
