//! A proxy project is its upstream, byte for byte, at every node, asked once however many ask, and
//! as fresh as the settings say.
//!
//! What was fetched is never rewritten, not even an index whose children were not pulled.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tests::complaints::Complaints;
use tests::http::{Answer, Client};
use tests::image::{ANY_KIND, Blob, DOCKER, DOCKER_LIST, INDEX, Image, MANIFEST};
use tests::mesh::{Mesh, UNHURRIED};
use tests::proxies::{
    ALWAYS_ASK, PROJECTS, create_proxy, make, make_project, make_registry, manifest, warned,
};
use tests::repository::Repository;
use tests::upstream::{Manner, SLOPPY, Upstream};
use tests::{rounds, wait};

const MIB: usize = 1 << 20;

#[test]
fn referrers_are_those_that_the_upstream_has_or_clients_are_sent_to_its_tags() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let image = Image::tiny();
    let signature = Image::about(&image);
    // Debian's registry knows no referrers: they are under a tag, as their clients put them there
    let fallback = image.digest().replace(':', "-");
    let listed = index(INDEX, &[(MANIFEST, &signature.manifest)]);
    for there in [upstream.repository("team/app"), mesh.repository(0, "demo/app")] {
        there
            .push(&image, "1")
            .and_then(|()| there.push(&signature, "signature"))
            .unwrap_or_else(|no| panic!("{no}"));
    }
    upstream
        .repository("team/app")
        .put_bytes(&fallback, INDEX, listed.bytes.clone())
        .unwrap_or_else(|no| panic!("{no}"));
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    // this mesh knows referrers, and is an upstream like others
    create_proxy(&mesh.client(0), "self", "docker-registry", &mesh.nodes()[0].url, true);
    for at in 0..3 {
        let client = mesh.anyone(at);
        let ask = |repository: &str, query: &str| {
            let path = format!("/v2/{repository}/referrers/{}{query}", image.digest());
            client.get(&path).unwrap_or_else(|none| panic!("{path} at {at}: {none}"))
        };
        wrong.unless_refused(
            "without a list",
            Ok(ask("hub/team/app", "")),
            &[404],
            &["MANIFEST_UNKNOWN"],
        );
        same(&wrong, &client, &format!("team/app/manifests/{fallback}"), INDEX, &listed);
        for query in ["", "?artifactType=application%2Fnothing"] {
            let (own, cached) = (ask("demo/app", query), ask("self/demo/app", query));
            let filtered = |answer: &tests::http::Answer| {
                answer.header("oci-filters-applied").map(str::to_owned)
            };
            let alike = cached.status == 200
                && cached.body == own.body
                && filtered(&cached) == filtered(&own);
            wrong.unless(alike, || {
                format!("at {at}{query}: {cached}, and of the project itself: {own}")
            });
            let has = own.body.windows(71).any(|part| part == signature.digest().as_bytes());
            wrong.unless(has == query.is_empty(), || format!("at {at}{query}: {own}"));
        }
    }
    upstream.behave(Manner::Refuse);
    let unasked = mesh.anyone(1).get(&format!("/v2/hub/team/app/referrers/{}", signature.digest()));
    wrong.unless_refused("an upstream that cannot be asked", unasked, &[503], &[]);
}

#[test]
fn lists_of_tags_are_the_upstreams_asked_once_and_what_was_pulled_if_it_cannot_be_asked() {
    // the machine may be busy for longer than answers are remembered by default
    let long = [("upstreams.fresh_for", "1h"), ("upstreams.missing_for", "1h")];
    let (mesh, upstream) = (Mesh::up_with(3, &long), Upstream::start());
    let wrong = Complaints::default();
    let (image, all) = (Image::tiny(), ["0.1", "0.2", "0.3", "1.0", "latest"]);
    // Debian's registry gives each list whole; this mesh has pages, and is an upstream like others
    for there in [upstream.repository("team/app"), mesh.repository(0, "demo/app")] {
        for tag in all {
            there.push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
        }
    }
    let registry = make_registry(&mesh.client(0), &upstream);
    make_project(&mesh.client(0), "hub", &registry);
    let few = json!({"project_name": "few", "registry_id": registry,
        "metadata": {"public": "true", "proxy_cache_filter_pattern": "library/*"}});
    make(&mesh.client(0), PROJECTS, &few);
    create_proxy(&mesh.client(0), "self", "docker-registry", &mesh.nodes()[0].url, true);
    let kept = json!({"project_name": "kept", "registry_id": registry,
        "metadata": {"public": "true", "proxy_cache_local_on_not_found": "true"}});
    make(&mesh.client(0), PROJECTS, &kept);

    // nothing of it was pulled, and many want to know at once
    let path = "/v2/hub/team/app/tags/list";
    let asking: Vec<_> = [0, 1, 2, 0, 1, 2]
        .into_iter()
        .map(|at| {
            let client = mesh.anyone(at);
            std::thread::spawn(move || (at, client.get(path)))
        })
        .collect();
    for one in asking {
        let (at, list) = one.join().expect("a thread");
        let list = list.unwrap_or_else(|none| panic!("{path} at {at}: {none}"));
        let whole = list.json()["name"] == "hub/team/app" && sorted(&list) == all;
        wrong.unless(whole && !warned(&list), || format!("{path} at {at}: {list}"));
    }
    let asked = upstream.asked_for(&Method::GET, "tags/list").len();
    wrong.unless(asked == 1, || format!("the upstream was asked {asked} times for one list"));
    for at in 0..3 {
        let client = mesh.anyone(at);
        for repository in ["hub/team/app", "self/demo/app"] {
            let (mut next, mut came) =
                (Some(format!("/v2/{repository}/tags/list?n=2")), Vec::<Value>::new());
            while let Some(path) = next.take() {
                let page = client.get(&path).unwrap_or_else(|none| panic!("{path}: {none}"));
                let tags = page.json()["tags"].as_array().cloned().unwrap_or_default();
                let within = path.starts_with(&format!("/v2/{repository}/tags/list?"));
                let right = page.status == 200 && within && !tags.is_empty() && tags.len() <= 2;
                wrong.unless(right, || format!("{path} at {at}: {page}"));
                came.extend(tags);
                let link = page.header("link").and_then(|link| link.strip_prefix('<'));
                let link = link.and_then(|link| link.split_once('>')).map(|(to, _)| to.to_owned());
                next = link.filter(|_| right);
            }
            wrong.unless(came == all, || format!("pages of {repository} at {at}: {came:?}"));
        }
        for nowhere in ["hub/team/none", "few/team/app"] {
            let list = client.get(&format!("/v2/{nowhere}/tags/list"));
            wrong.unless_refused(nowhere, list, &[404], &["NAME_UNKNOWN"]);
        }
    }
    let through_few = upstream.asked_for(&Method::GET, "tags/list").len();
    let expected = 1 + 3 + 1; // the whole list, its pages by two, and that there is none
    wrong.unless(through_few == expected, || {
        format!("{through_few} questions instead of {expected}")
    });

    // pages that nobody has asked for yet
    assert_eq!(manifest(&mesh.anyone(1), "team/app", "0.2").status, 200);
    upstream.behave(Manner::Refuse);
    for at in 0..3 {
        let list = |query: &str| mesh.anyone(at).get(&format!("{path}{query}"));
        let remembered = list("").unwrap_or_else(|none| panic!("{none}"));
        let whole = sorted(&remembered) == all;
        wrong.unless(whole && !warned(&remembered), || format!("remembered at {at}: {remembered}"));
        let pulled = list("?n=7").unwrap_or_else(|none| panic!("{none}"));
        let right = pulled.json()["tags"] == json!(["0.2"]) && warned(&pulled);
        wrong.unless(right, || format!("what was pulled, at {at}: {pulled}"));
        let other = mesh.anyone(at).get("/v2/hub/team/other/tags/list");
        wrong.unless_refused("nothing was pulled", other, &[503], &[]);
        // a page in words of the upstream's own is none of what was pulled
        wrong.unless_refused("a page of its own", list("?next_page=x"), &[503], &[]);
    }

    // the upstream has deleted the repository
    upstream.behave(Manner::Honest);
    let pulled = mesh.anyone(1).get("/v2/kept/team/app/manifests/0.3");
    assert_eq!(pulled.map(|answer| answer.status).ok(), Some(200));
    upstream.behave(Manner::Answer(404));
    for at in 0..3 {
        let list =
            |project: &str| mesh.anyone(at).get(&format!("/v2/{project}/team/app/tags/list?n=6"));
        let left = list("kept").unwrap_or_else(|none| panic!("{none}"));
        let right = left.json()["tags"] == json!(["0.3"]) && warned(&left);
        wrong.unless(right, || format!("what was pulled and is kept, at {at}: {left}"));
        wrong.unless_refused("what is not kept", list("hub"), &[404], &["NAME_UNKNOWN"]);
    }
}

#[test]
fn what_the_upstream_has_comes_through_unchanged() {
    let (mesh, upstream, wrong) = (Mesh::up(6), Upstream::start(), Complaints::default());
    let here = upstream.repository("team/app");
    let (image, child, sibling, lost) =
        (Image::tiny(), Image::tiny(), Image::tiny(), Image::tiny());
    for one in [&image, &child, &sibling, &lost] {
        here.push(one, one.digest()).unwrap_or_else(|no| panic!("{no}"));
    }
    // as no program would write it, so that nothing that reads and writes it again leaves it as it
    // is
    let odd = odd_manifest(&image);
    let docker = docker_manifest(&image);
    let objects = [
        ("plain", MANIFEST, image.manifest.clone()),
        ("odd", MANIFEST, odd),
        ("docker", DOCKER, docker.clone()),
        (
            "index",
            INDEX,
            index(
                INDEX,
                &[
                    (MANIFEST, &child.manifest),
                    (MANIFEST, &sibling.manifest),
                    (MANIFEST, &lost.manifest),
                ],
            ),
        ),
        ("list", DOCKER_LIST, index(DOCKER_LIST, &[(DOCKER, &docker)])),
    ];
    for (tag, kind, object) in &objects {
        here.put_bytes(tag, kind, object.bytes.clone()).unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    // an index that is sparse already upstream
    let gone = here
        .client()
        .ask(Method::DELETE, &here.path(&format!("manifests/{}", lost.digest())))
        .send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);

    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    for at in 0..6 {
        for (tag, kind, object) in &objects {
            for reference in [*tag, &object.digest] {
                same(
                    &wrong,
                    &mesh.anyone(at),
                    &format!("team/app/manifests/{reference}"),
                    kind,
                    object,
                );
            }
        }
    }
    let asked = upstream.asked_for_content();
    for unasked in [&child, &sibling, &lost] {
        let fetched = asked.iter().any(|one| one.path.contains(unasked.digest()));
        wrong.unless(!fetched, || {
            format!("a child that nobody pulled was fetched: {}", unasked.digest())
        });
    }
    for at in 0..6 {
        let there = Repository::new(&mesh.anyone(at), "hub/team/app");
        for reference in ["plain", "odd", "docker", child.digest()] {
            there.pull(reference).unwrap_or_else(|no| panic!("{reference} at {at}: {no}"));
        }
        let lost = manifest(&mesh.anyone(at), "team/app", lost.digest());
        wrong.unless_refused("a child the upstream lacks", Ok(lost), &[404], &["MANIFEST_UNKNOWN"]);
    }

    // all of it is here now: by digest the upstream is not asked
    let present = [image.digest(), &objects[1].2.digest, &docker.digest, child.digest()];
    wait::until_ok("a pull by digest asks the upstream nothing", || {
        upstream.forget();
        present.iter().try_for_each(|one| {
            Repository::new(&mesh.anyone(0), "hub/team/app")
                .pull(one)
                .map(drop)
                .map_err(|no| no.to_string())
        })?;
        let asked = upstream.asked_for_content();
        if asked.is_empty() { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    for at in 0..6 {
        for one in present {
            let there = Repository::new(&mesh.anyone(at), "hub/team/app");
            there.pull(one).unwrap_or_else(|no| panic!("{one} at {at}: {no}"));
        }
    }
    let asked = upstream.asked_for_content();
    wrong.unless(asked.is_empty(), || format!("asked for what the mesh has: {asked:?}"));
}

#[test]
fn however_many_ask_a_cold_blob_is_fetched_once() {
    let (mesh, upstream) = (Mesh::up_with(6, &UNHURRIED), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let of = |region: &str| -> Vec<_> {
        (0..6).filter(|at| mesh.nodes()[*at].region == region).collect()
    };
    let places = [of("us-east-1"), of("us-west-2")].concat();
    assert_eq!(places.len(), 4, "six nodes are two in each region");
    let image = Image::random(&[32 * MIB]);
    let layer = &image.blobs[1];
    upstream.repository("cold").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let name = format!("blobs/{}", layer.digest);
    Repository::new(&mesh.anyone(places[3]), "hub/cold")
        .resolve("1")
        .unwrap_or_else(|no| panic!("{no}"));
    upstream.pause(Duration::from_millis(3)); // they meet; if they do not, one fetch is still enough
    std::thread::scope(|all| {
        for at in &places {
            for (from, stays) in [(0, true), (0, true), (20 * MIB, true), (5 * MIB, false)] {
                let client = mesh.anyone(*at);
                all.spawn(move || {
                    Repository::new(&client, "hub/cold").read_from(layer, from, stays)
                });
            }
        }
    });
    for at in 0..6 {
        let there = Repository::new(&mesh.anyone(at), "hub/cold");
        there.pull("1").unwrap_or_else(|no| panic!("all of it, at {at}: {no}"));
        let size = layer.bytes.len();
        for (range, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            (format!("bytes={MIB}-{}", MIB + 99), MIB, MIB + 100),
            ("bytes=-1000".to_owned(), size - 1000, size),
        ] {
            let part =
                there.client().ask(Method::GET, &there.path(&name)).header("range", &range).send();
            let part = part.unwrap_or_else(|none| panic!("{range} at {at}: {none}"));
            assert_eq!(part.status, 206, "{range} at {at}");
            assert_eq!(
                part.header("content-range"),
                Some(format!("bytes {from}-{}/{size}", to - 1).as_str())
            );
            assert!(part.body == layer.bytes[from..to], "wrong bytes: {range} at {at}");
        }
    }
    let asked = upstream.asked_for(&Method::GET, &name);
    assert!(asked.len() == 1, "the upstream was asked more than once: {asked:?}");
    assert_eq!(asked[0].sent, layer.bytes.len());
}

#[test]
fn a_tag_moved_upstream_is_seen_by_who_always_asks() {
    let (mesh, upstream) = (Mesh::up_with(6, &ALWAYS_ASK), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let mut before: Option<Image> = None;
    for round in 0..rounds(5) {
        let image = Image::tiny();
        upstream.repository("moving").push(&image, "latest").unwrap_or_else(|no| panic!("{no}"));
        for at in 0..6 {
            let there = Repository::new(&mesh.anyone(at), "hub/moving");
            let head = there
                .client()
                .ask(Method::HEAD, &there.path("manifests/latest"))
                .header("accept", MANIFEST)
                .send();
            let head = head.unwrap_or_else(|none| panic!("round {round} at {at}: {none}"));
            assert_eq!(
                head.header("docker-content-digest"),
                Some(image.digest()),
                "round {round}: HEAD at {at}"
            );
            let answer = manifest(&mesh.anyone(at), "moving", "latest");
            assert!(
                answer.body == image.manifest.bytes,
                "round {round}: stale or rewritten at {at}: {answer}"
            );
            assert!(!warned(&answer), "round {round}: a warning at {at}: {:?}", answer.headers);
            there.pull("latest").unwrap_or_else(|no| panic!("round {round} at {at}: {no}"));
            if let Some(before) = &before {
                there
                    .pull(before.digest())
                    .unwrap_or_else(|no| panic!("round {round}, by digest at {at}: {no}"));
            }
        }
        before = Some(image);
    }
}

#[test]
fn what_an_upstream_said_is_believed_for_as_long_as_the_settings_say() {
    let changes = [("upstreams.fresh_for", "24h"), ("upstreams.missing_for", "1h")];
    let (mesh, upstream) = (Mesh::up_with(3, &changes), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let (old, new) = (Image::tiny(), Image::tiny());
    let here = upstream.repository("believed");
    here.push(&old, "latest").unwrap_or_else(|no| panic!("{no}"));
    Repository::new(&mesh.anyone(0), "hub/believed")
        .pull("latest")
        .unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(manifest(&mesh.anyone(0), "believed", "soon").status, 404);
    here.push(&new, "latest")
        .and_then(|()| here.push(&new, "soon"))
        .unwrap_or_else(|no| panic!("{no}"));
    upstream.forget();
    for at in 0..3 {
        let answer = manifest(&mesh.anyone(at), "believed", "latest");
        assert!(answer.body == old.manifest.bytes, "at {at}: {answer}");
        assert!(!warned(&answer), "what is fresh needs no warning, at {at}: {:?}", answer.headers);
        let missing = manifest(&mesh.anyone(at), "believed", "soon");
        assert_eq!(missing.status, 404, "at {at}: {missing}");
    }
    let asked = upstream.asked_for_content();
    assert!(asked.is_empty(), "one node's answer is the whole mesh's: {asked:?}");
}

/// Complains unless an object is there as the upstream has it: bytes, digest and kind, for GET and
/// HEAD.
/// What a gateway between the two does to an answer takes nothing away: bytes are served under the
/// digest that they have.
#[test]
fn what_a_gateway_compresses_and_misnames_comes_through_as_it_was() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let image = Image::random(&[3 << 20, 512]);
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    upstream.behave(Manner::Gateway);
    for at in 0..3 {
        let there = Repository::new(&mesh.anyone(at), "hub/app");
        for reference in ["1", image.digest()] {
            same(
                &wrong,
                &mesh.anyone(at),
                &format!("app/manifests/{reference}"),
                MANIFEST,
                &image.manifest,
            );
            let pulled = there.pull(reference).map(|found| found.digest);
            wrong.unless(pulled.as_deref().is_ok_and(|digest| digest == image.digest()), || {
                format!("{reference} at {at}: {pulled:?}")
            });
        }
    }
}

/// What a registry may write that no client minds goes through as it is.
#[test]
fn a_manifest_with_a_mark_and_without_sizes_comes_through() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let sloppy = Blob::of(SLOPPY);
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    upstream.behave(Manner::Sloppy);
    for at in 0..3 {
        for reference in ["sloppy", &sloppy.digest] {
            let path = format!("app/manifests/{reference}");
            same(&wrong, &mesh.anyone(at), &path, INDEX, &sloppy);
        }
    }
}

fn same(wrong: &Complaints, client: &Client, path: &str, kind: &str, object: &Blob) {
    for method in [Method::GET, Method::HEAD] {
        let what = format!("{method} {path} at {}", client.authority());
        let answer = client
            .ask(method.clone(), &format!("/v2/hub/{path}"))
            .header("accept", &ANY_KIND.join(", "))
            .send();
        let answer = match answer {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return wrong.add(format!("{what}: {answer}")),
            Err(none) => return wrong.add(format!("{what}: {none}")),
        };
        wrong.unless(method == Method::HEAD || answer.body == object.bytes, || {
            format!("{what}: other bytes: {answer}")
        });
        let length = object.bytes.len().to_string();
        for (name, value) in [
            ("content-type", kind),
            ("docker-content-digest", &object.digest),
            ("content-length", &length),
        ] {
            wrong.unless(answer.header(name) == Some(value), || {
                format!("{what}: {name}: {:?}", answer.header(name))
            });
        }
    }
}

/// The tags of a list: Debian's registry gives them in any order.
fn sorted(list: &Answer) -> Vec<String> {
    let tags = list.json()["tags"].as_array().cloned().unwrap_or_default();
    let mut tags: Vec<String> =
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
    tags.sort_unstable();
    tags
}

/// The image's manifest with other white space, fields in another order, and fields that nobody
/// knows.
fn odd_manifest(image: &Image) -> Blob {
    let told: Value = serde_json::from_slice(&image.manifest.bytes).expect("a manifest is JSON");
    let text = format!(
        "{{\n\t\"layers\": {},\n\t\"config\" : {},\n\n\t\"x-unknown\": [1.0, \"\\u00e9\"],\n\t\"mediaType\":\"{MANIFEST}\",\
         \n\t\"schemaVersion\": 2\n}}\n",
        told["layers"], told["config"]
    );
    Blob::of(text)
}

/// The same image as docker has it.
fn docker_manifest(image: &Image) -> Blob {
    let named = |kind: &str, blob: &Blob| json!({"mediaType": format!("application/vnd.docker.{kind}"), "size": blob.bytes.len(), "digest": blob.digest});
    let told = json!({"schemaVersion": 2, "mediaType": DOCKER,
        "config": named("container.image.v1+json", &image.blobs[0]),
        "layers": [named("image.rootfs.diff.tar.gzip", &image.blobs[1])]});
    Blob::of(Bytes::from(serde_json::to_vec_pretty(&told).expect("JSON can be written")))
}

/// An index of manifests, each for a platform of its own.
fn index(kind: &str, children: &[(&str, &Blob)]) -> Blob {
    let platforms = ["amd64", "arm64", "s390x"];
    let named = |(at, (kind, child)): (usize, &(&str, &Blob))| {
        json!({"mediaType": kind, "digest": child.digest, "size": child.bytes.len(),
            "platform": {"os": "linux", "architecture": platforms[at]}})
    };
    let children: Vec<_> = children.iter().enumerate().map(named).collect();
    Blob::of(json!({"schemaVersion": 2, "mediaType": kind, "manifests": children}).to_string())
}
