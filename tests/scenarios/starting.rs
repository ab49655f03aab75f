//! A node answers HTTP from its first moment: while it opens its files it says so, and that clients
//! should come again.
//!
//! A node that was killed may have to check files of many gigabytes. Until it had, its port took
//! connections and answered nothing, so clients and load balancers waited instead of asking another
//! node, and nobody could see what the node did. Here the disk hangs while the files are opened.

use rustix::process::Signal;
use tests::disk::Disk;
use tests::formed::Formed;
use tests::http::Answer;
use tests::image::Image;
use tests::wait;

#[test]
fn a_node_that_opens_its_files_says_so_and_serves_when_it_has() {
    let mesh = Formed::of(&[("one", "a")], "");
    let image = Image::random(&[40 << 10]);
    mesh.repository(0, "demo/starting").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let node = &mesh.members()[0];
    node.stop(Signal::KILL);

    let disk = Disk::new(0);
    disk.hang();
    node.serve_on(&disk);
    let get = |path: &str| node.anyone().get(path).map_err(|none| none.to_string());
    let starting = "this node is starting: opening the index of blobs (store.redb)";
    // its first moment is before that: it answers, and has not begun to open anything
    let ready = wait::until("the port says what is opened", || {
        let answer = get("/readyz").ok()?;
        assert_eq!(answer.status, 503, "{answer}");
        text(&answer).contains(starting).then_some(answer)
    });
    let health = get("/healthz").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(health.status, 200, "it is alive, and must not be killed: {health}");
    for answer in [&ready, &health] {
        assert!(text(answer).contains(starting), "{answer}");
    }
    for path in ["/v2/", "/v2/demo/starting/manifests/1", "/api/atoll/v1/status", "/nothing"] {
        let answer = get(path).unwrap_or_else(|no| panic!("{path}: {no}"));
        assert_eq!(answer.status, 503, "{path}: {answer}");
        assert!(answer.headers.contains_key("retry-after"), "{path}: {answer}");
        assert!(text(&answer).contains(starting), "{path}: {answer}");
    }
    let put = mesh.repository(0, "demo/starting").put_manifest("2", &image);
    assert!(put.is_err(), "nothing can be stored yet");

    disk.mend();
    node.wait_ready();
    let health = get("/healthz").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(text(&health), "alive\n");
    mesh.repository(0, "demo/starting").pull("1").unwrap_or_else(|no| panic!("{no}"));
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
