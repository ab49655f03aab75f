//! Whatever a broken or hostile client sends: the right status, an error that says what is wrong,
//! nothing stored, nothing grown.
//!
//! One mesh takes it all, and at the end an honest push and pull go through, the data folders are
//! as large as before and hold no file more. A refusal has the specification's envelope; "the right
//! status" is what the specification names, and where it leaves room, any of the few a client can
//! make sense of.

mod pushes;
mod reads;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::{Blob, INDEX, Image, MANIFEST, digest, manifest_of, random_bytes};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::{footprint, wait, wire};

use pushes::*;
use reads::*;

#[test]
fn hostile_input_is_refused_in_words_and_leaves_nothing_behind() {
    let mesh = Mesh::up(3);
    mesh.create_project("secret", false, 2);
    let repository = mesh.repository(0, "demo/hostile");
    let known = Image::random(&[20 << 10]);
    let secret = Image::random(&[10 << 10]);
    repository.push(&known, "honest").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(0, "secret/vault").push(&secret, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        // a pull brings both everywhere, so that nothing honest is on its way any more
        for (name, tag) in [("demo/hostile", "honest"), ("secret/vault", "1")] {
            mesh.repository(at, name).pull(tag).unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
        }
    }
    footprint::until_held(&mesh, &[known.blobs.as_slice(), &secret.blobs].concat());
    let wrong = Complaints::default();
    let before = footprint::files(&mesh);
    let size = footprint::bytes(&mesh);

    names_with_tricks(&wrong, &mesh.client(0));
    wrong_digests(&wrong, &repository);
    chunks_out_of_order(&wrong, &repository);
    manifests_that_are_none(&wrong, &repository, &known);
    strangers(&wrong, &mesh, &known, &secret);

    footprint::until_as_before(&mesh, &before, size);
    let honest = Image::random(&[20 << 10]);
    repository
        .push(&honest, "after")
        .unwrap_or_else(|no| panic!("an honest push afterwards: {no}"));
    for at in 0..3 {
        for tag in ["honest", "after"] {
            mesh.repository(at, "demo/hostile")
                .pull(tag)
                .unwrap_or_else(|no| panic!("an honest pull of {tag}: {no}"));
        }
    }
}

/// Not hostile requests, but those of other registries' users, caches and clients: they are
/// accepted, or refused in the way that makes the client continue or stop.
#[test]
fn what_other_registries_take_is_taken_here() {
    let mesh = Mesh::up_with(3, &[("uploads.expire_after", "10s")]);
    let (repository, wrong) = (mesh.repository(0, "demo/guests"), Complaints::default());
    let image = Image::random(&[50_000]);
    repository.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.create_project("locked", false, 2);
    mesh.repository(0, "locked/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));

    kept_when_named(&wrong, &mesh, &repository);
    hints_and_empty_parameters(&wrong, &repository, &image);
    conditions(&wrong, &mesh, &image);
    conditional_writes(&wrong, &mesh);
    written_otherwise(&wrong, &repository, &image);
    paths(&wrong, &mesh, &image);
    ranges(&wrong, &mesh, &image.blobs[1]);
    heads(&wrong, &mesh, &image);
    first_mistakes(&wrong, &mesh, &image);
    lost_connections(&wrong, &repository);
    promises_of_a_head(&wrong, &repository);
}

/// Mistakes that everybody makes are answered so that the client stops at once and shows why.
fn first_mistakes(wrong: &Complaints, mesh: &Mesh, image: &Image) {
    let client = mesh.client(0);
    for (method, path) in
        [(Method::POST, "/v2/app/blobs/uploads/"), (Method::GET, "/v2/app/manifests/1")]
    {
        let answer = client.ask(method.clone(), path).send();
        let says = answer
            .as_ref()
            .ok()
            .and_then(tests::http::Answer::envelope)
            .map(|(_, message)| message);
        wrong.unless(says.is_some_and(|says| says.contains("project/name")), || {
            format!("{path}: no word on projects")
        });
        wrong.unless_refused(&format!("{method} {path}"), answer, &[404], &["NAME_UNKNOWN"]);
    }
    let blob = &image.blobs[1].digest;
    for (method, path, allowed) in [
        (Method::PATCH, "/v2/demo/guests/tags/list".to_owned(), "GET, HEAD"),
        (Method::POST, "/v2/demo/guests/manifests/1".to_owned(), "GET, HEAD, PUT, DELETE"),
        (Method::GET, "/v2/demo/guests/blobs/uploads/".to_owned(), "POST"),
        (Method::DELETE, format!("/v2/demo/guests/blobs/{blob}"), "GET, HEAD"),
        (Method::DELETE, "/api/v2.0/projects".to_owned(), "GET, HEAD, POST"),
        (Method::PUT, "/service/token".to_owned(), "GET, HEAD, POST"),
        (Method::DELETE, "/v2/".to_owned(), "GET, HEAD"),
    ] {
        let answer = client
            .ask(method.clone(), &path)
            .send()
            .unwrap_or_else(|none| panic!("{path}: {none}"));
        let said = answer.header("allow");
        let right = (answer.status, said) == (405, Some(allowed));
        wrong.unless(right, || format!("{method} {path}: {answer}, Allow: {said:?}"));
    }
    // a name may be as long as the specification lets it be
    let long = Repository::new(&client, &format!("demo/{}", "a".repeat(250)));
    let pushed = long.push(&Image::tiny(), "1");
    wrong.unless(pushed.is_ok(), || {
        format!("a long name: {}", pushed.err().map(|no| no.to_string()).unwrap_or_default())
    });
}

fn names_with_tricks(wrong: &Complaints, client: &Client) {
    let long = "a".repeat(300);
    let tricks = [
        "../../etc",
        "demo/../../etc",
        "demo/%2e%2e/%2e%2e/etc",
        "demo/..%2f..%2fetc",
        "demo/UPPER",
        "demo//double",
        "demo/",
        "/demo/x",
        "demo/.hidden",
        "demo/-dash",
        "demo/a..b..",
        "demo/a b",
        "demo/nul%00",
        "demo/back\\slash",
        "demo/ünicode",
        &format!("demo/{long}"),
    ];
    for name in tricks {
        for (method, what) in
            [("GET", "manifests/1"), ("POST", "blobs/uploads/"), ("PUT", "manifests/1")]
        {
            let authorization = credentials(client);
            let request = format!(
                "{method} /v2/{name}/{what} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\ncontent-type: {MANIFEST}\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{{}}",
                client.authority()
            );
            let what = format!("{method} of the name {name:?}");
            match wire::say(client.authority(), request.as_bytes()) {
                Some(answer) => {
                    wrong.unless(matches!(answer.status, 400 | 404), || format!("{what}: {answer}"))
                }
                None => wrong.add(format!("{what}: no answer")),
            }
        }
    }
    for tag in ["-dash", ".dot", "a/b", "%2e%2e", "white%20space", &"t".repeat(129)] {
        let put = client
            .ask(Method::PUT, &format!("/v2/demo/hostile/manifests/{tag}"))
            .header("content-type", MANIFEST)
            .body("{}")
            .send();
        wrong.unless_refused(&format!("the tag {tag:?}"), put, &[400, 404], &[]);
    }
}

fn strangers(wrong: &Complaints, mesh: &Mesh, known: &Image, secret: &Image) {
    let anyone = mesh.anyone(1);
    let here = Repository::new(&anyone, "demo/hostile");
    for (method, what) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::PUT, "manifests/honest".to_owned()),
        (Method::DELETE, "manifests/honest".to_owned()),
        (Method::DELETE, format!("blobs/{}", known.blobs[1].digest)),
    ] {
        let answer = anyone
            .ask(method.clone(), &here.path(&what))
            .header("content-type", MANIFEST)
            .body("{}")
            .send();
        wrong.unless_refused(
            &format!("{method} {what} by nobody"),
            answer,
            &[401],
            &["UNAUTHORIZED"],
        );
    }
    let guessed = anyone.clone().basic("admin", "not the password").get("/v2/");
    wrong.unless_refused("a wrong password", guessed, &[401], &["UNAUTHORIZED"]);
    wrong.unless_refused("a forged token", anyone.clone().bearer("a.b.c").get("/v2/"), &[401], &[]);

    // what a repository does not refer to is not read through it, nor mounted by who may not read
    // its source
    let layer = &secret.blobs[1].digest;
    wrong.unless_refused(
        "a private manifest",
        anyone.get("/v2/secret/vault/manifests/1"),
        &[401],
        &[],
    );
    wrong.unless_refused(
        "a private blob",
        anyone.get(&format!("/v2/secret/vault/blobs/{layer}")),
        &[401],
        &[],
    );
    wrong.unless_refused(
        "a private blob through a public repository",
        anyone.get(&here.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
    let token =
        mesh.client(1).get("/service/token?service=atoll&scope=repository:demo/hostile:pull,push");
    let token = token.unwrap_or_else(|none| panic!("{none}")).json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let narrow = Repository::new(&anyone.bearer(&token), "demo/hostile");
    for from in ["secret/vault", "demo/nowhere"] {
        let mount = narrow
            .client()
            .ask(Method::POST, &narrow.path(&format!("blobs/uploads/?mount={layer}&from={from}")))
            .send();
        let mount = mount.unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(mount.status == 202, || {
            format!("a mount from {from} is an upload and no mount: {mount}")
        });
        if let Some(place) = mount.header("location").filter(|_| mount.status == 202) {
            let _ = narrow.client().ask(Method::DELETE, place).send();
        }
    }
    wrong.unless_refused(
        "the same after the tries",
        narrow.client().get(&narrow.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
}

fn credentials(client: &Client) -> String {
    client.credentials().expect("this client has credentials").to_owned()
}
