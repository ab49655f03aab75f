//! Requests that are too large, too slow or cut off delay no other request and leave nothing
//! behind.
//!
//! A node is a disk and some sockets, and any client that may open a connection can try to occupy
//! both. So every body has a limit or a watchdog, every header has a deadline, and an upload that
//! was given up is removed with its bytes, on every node that had some.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::{Image, MANIFEST, random_bytes};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::{footprint, metrics, wait, wire};

#[test]
fn oversized_and_cut_requests_leave_nothing_behind() {
    let mesh = Mesh::up(3);
    let repository = mesh.repository(0, "demo/greedy");
    let image = Image::random(&[20 << 10]);
    repository.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/greedy").pull("1").unwrap_or_else(|no| panic!("{no}"));
    }
    footprint::until_held(&mesh, &image.blobs);
    let wrong = Complaints::default();
    let (before, size) = (footprint::files(&mesh), footprint::bytes(&mesh));
    too_much(&wrong, &mesh, &repository);
    half_closed_uploads(&repository);
    footprint::until_as_before(&mesh, &before, size);
    for at in 0..3 {
        mesh.repository(at, "demo/greedy")
            .pull("1")
            .unwrap_or_else(|no| panic!("an honest pull afterwards: {no}"));
    }
}

#[test]
fn slow_senders_are_let_go_and_hold_up_nobody() {
    let mesh = Mesh::up(3);
    let repository = mesh.repository(0, "demo/slow");
    let image = Image::random(&[20 << 10]);
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let authority = repository.client().authority().to_owned();
    let head = format!("GET /v2/ HTTP/1.1\r\nhost: {authority}\r\nx-slow: ");
    let path = place.split_once(&authority).map_or(place.as_str(), |(_, path)| path);
    let body = format!(
        "PATCH {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
         content-length: 1000000\r\n\r\nonly this much",
        credentials(repository.client())
    );
    let patience = Duration::from_secs(240);
    let mut slow: Vec<_> =
        (0..64).map(|_| (wire::connect(&authority, patience), head.clone())).collect();
    slow.push((wire::connect(&authority, patience), body));
    for (socket, text) in &mut slow {
        socket.write_all(text.as_bytes()).expect("the kernel takes it");
    }
    repository.push(&image, "1").unwrap_or_else(|no| panic!("a push beside slow senders: {no}"));
    repository.pull("1").unwrap_or_else(|no| panic!("a pull beside slow senders: {no}"));
    for (socket, text) in &mut slow {
        // an answer or just the end, but an end: `answer` fails when the node keeps the connection
        // for ever
        if let Some(answer) = wire::answer(socket) {
            assert!(
                (400..500).contains(&answer.status),
                "a slow sender of {text:?} is told {answer}"
            );
        }
    }
}

fn too_much(wrong: &Complaints, mesh: &Mesh, repository: &Repository) {
    let large = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"junk\":\"{}\"}}",
        "x".repeat(10 << 20)
    );
    wrong.unless_failed(
        "a manifest of 10 MB",
        repository.put_bytes("large", MANIFEST, Bytes::from(large)),
        &[413],
        &[],
    );
    let client = mesh.anyone(0);
    let header = format!(
        "GET /v2/ HTTP/1.1\r\nhost: {}\r\nx-large: {}\r\n\r\n",
        client.authority(),
        "x".repeat(2 << 20)
    );
    if let Some(answer) = wire::say(client.authority(), header.as_bytes()) {
        wrong.unless(matches!(answer.status, 400 | 413 | 431), || {
            format!("a header of 2 MB: {answer}")
        });
    }
    for garbage in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut socket = wire::connect(client.authority(), Duration::from_secs(60));
        let _ = socket.write_all(garbage.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        if let Some(answer) = wire::answer(&mut socket) {
            wrong.unless((400..=505).contains(&answer.status), || format!("{garbage:?}: {answer}"));
        }
    }
}

/// Uploads whose connection is cut in the body. The bytes that came may stay until the upload is
/// given up; then they must go.
fn half_closed_uploads(repository: &Repository) {
    for round in 0..20 {
        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let client = repository.client();
        let path = place.split_once(client.authority()).map_or(place.as_str(), |(_, path)| path);
        let (verb, query) = if round % 2 == 0 {
            ("PATCH", String::new())
        } else {
            (
                "PUT",
                format!(
                    "{}digest=sha256:{}",
                    if path.contains('?') { '&' } else { '?' },
                    "1".repeat(64)
                ),
            )
        };
        let mut socket = wire::connect(client.authority(), Duration::from_secs(60));
        let head = format!(
            "{verb} {path}{query} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
             content-length: 8000000\r\n\r\n",
            client.authority(),
            credentials(client)
        );
        socket
            .write_all(head.as_bytes())
            .and_then(|()| socket.write_all(&random_bytes(1 << 20)))
            .expect("the node takes it");
        drop(socket);
        wait::until_ok("a cut upload can be given up", || {
            let gone =
                client.ask(Method::DELETE, &place).send().map_err(|none| none.to_string())?;
            if matches!(gone.status, 204 | 404) { Ok(()) } else { Err(gone.to_string()) }
        });
    }
}

fn credentials(client: &Client) -> String {
    client.credentials().expect("this client has credentials").to_owned()
}

/// A client that opens connections and does nothing with them takes no more than its part, and
/// reads why the next is closed.
#[test]
fn one_address_has_a_bounded_number_of_connections() {
    let mesh = Mesh::up_with(1, &[("http.max_connections_per_address", "20")]);
    let authority = mesh.client(0).authority().to_owned();
    let connect = || {
        let stream = TcpStream::connect(&authority).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream
    };
    let idle: Vec<TcpStream> = wait::until("all places are taken", || {
        let idle: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
        // one that was refused is closed by the node
        let mut one_more = connect();
        let mut said = String::new();
        let refused = one_more.read_to_string(&mut said).is_ok();
        (refused && said.starts_with("HTTP/1.1 503") && said.contains("retry-after"))
            .then_some(idle)
    });
    drop(idle);
    wait::until("who goes away makes room", || {
        mesh.anyone(0).get("/healthz").ok().filter(|answer| answer.status == 200)
    });
    assert!(metrics::value(&mesh.client(0), "atoll_connections_refused_total") > 0);
    let scopes = "&scope=repository:demo/a:pull".repeat(300);
    let many = mesh.anyone(0).get(&format!("/service/token?service=a{scopes}"));
    let many = many.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(many.status, 400, "{many}");
}
