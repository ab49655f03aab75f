//! `atoll mirror docker`: sets `registry-mirrors` and `insecure-registries` in `daemon.json`, and
//! leaves everything else in it as it is.

use std::io;
use std::path::{Path, PathBuf};

use http::Uri;
use rules::proxies::mirror::DOCKER_HUB;
use serde_json::{Map, Value, json};

use super::Asking;
use super::files::{keep, named, put_authority, replace};
use super::nodes::{MirrorList, authority, is_plain};

/// Arguments of `mirror docker`.
#[derive(clap::Args)]
pub(super) struct Docker {
    #[command(flatten)]
    asking: Asking,
    /// Write the file. Without it the result is printed.
    #[arg(long)]
    install: bool,
    /// dockerd's settings file. The settings are merged into it; before the first change it is
    /// copied to FILE.bak.
    #[arg(long, default_value = "/etc/docker/daemon.json", value_name = "FILE")]
    daemon_json: PathBuf,
}

/// The two lists that this command adds to.
const LISTS: [&str; 2] = ["registry-mirrors", "insecure-registries"];

/// Prints or writes the file.
pub(super) fn run(docker: &Docker) -> io::Result<()> {
    let known = docker.asking.ask()?;
    let mirrors = mirrors(&known, &docker.asking.nodes(&known))?;
    if !known.registries.iter().any(|name| name == DOCKER_HUB) {
        eprintln!(
            "the mesh does not mirror {DOCKER_HUB} for everyone yet: dockerd will get 404 and ask Docker Hub itself"
        );
    }
    let path = &docker.daemon_json;
    let there = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(named(path, &error)),
    };
    let before: Value = match there.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(text).map_err(|e| {
            io::Error::other(format!(
                "{}: {e}; it was not changed; make it valid JSON first",
                path.display()
            ))
        })?,
        None => json!({}),
    };
    let Value::Object(before) = before else {
        return Err(io::Error::other(format!(
            "{} does not contain a JSON object; it was not changed",
            path.display()
        )));
    };
    let ours = beside(path, "atoll");
    let earlier: Value = std::fs::read(&ours)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let (after, added) = merge(before, &mirrors, &earlier).map_err(|what| {
        io::Error::other(format!(
            "{}: {what} is not a list of strings; the file was not changed",
            path.display()
        ))
    })?;
    let text = format!("{}\n", serde_json::to_string_pretty(&after).map_err(io::Error::other)?);
    if docker.install {
        if let Some(there) = &there {
            keep(&beside(path, "bak"), there.as_bytes(), path)?;
        }
        replace(path, text.as_bytes())?;
        // the entries that a later run may remove
        replace(&ours, added.to_string().as_bytes())?;
        println!("written: {}", path.display());
    } else {
        println!("{text}");
    }
    if let Some(ca) = docker.asking.authority()? {
        let folder = path.parent().unwrap_or(path).join("certs.d");
        for mirror in mirrors.iter().filter(|mirror| !is_plain(mirror)) {
            put_authority(&folder, authority(mirror), &ca, docker.install)?;
        }
        eprintln!("{}", system_store(&ca));
    }
    eprintln!(
        "dockerd reads this after `systemctl reload docker`. It asks mirrors for images of {DOCKER_HUB} only."
    );
    if known.gated.iter().any(|name| name == DOCKER_HUB) {
        eprintln!(
            "The mesh refuses some images of {DOCKER_HUB}. dockerd asks {DOCKER_HUB} itself then, and no file can keep it from that: pull by names of the mesh, or keep this machine from \
             reaching {DOCKER_HUB}."
        );
    }
    Ok(())
}

/// The URLs for dockerd. dockerd's requests do not name the registry, so the mesh must know it from
/// its settings or from the host name.
fn mirrors(known: &MirrorList, nodes: &[String]) -> io::Result<Vec<String>> {
    if known.default.as_deref() == Some(DOCKER_HUB) {
        return Ok(nodes.to_vec());
    }
    let Some(domain) = &known.domain else {
        return Err(io::Error::other(
            "dockerd does not tell its mirrors which registry it means: set `mirrors: {default: docker.io}` in every node's settings (or mirrors.domain, \
             with host names that lead to the nodes), and run this again",
        ));
    };
    let first = nodes.first().and_then(|url| url.parse::<Uri>().ok());
    let scheme = first.as_ref().and_then(|url| url.scheme_str()).unwrap_or("https");
    let port = first
        .as_ref()
        .and_then(|url| url.port_u16())
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    Ok(vec![format!("{scheme}://{DOCKER_HUB}.{domain}{port}")])
}

/// What to do if certs.d is not enough.
fn system_store(ca: &Path) -> String {
    format!(
        "Docker 28 and later does not look into certs.d when it asks for a token, so pulls from private projects fail there with 'certificate signed by unknown authority'. \
         For those, put the CA into the system's store and restart dockerd: cp {} /usr/local/share/ca-certificates/atoll.crt && update-ca-certificates (Debian), or cp it to \
         /etc/pki/ca-trust/source/anchors/ and run update-ca-trust (Fedora, RHEL).",
        ca.display()
    )
}

/// dockerd treats 127.0.0.0/8 as insecure by itself.
fn is_insecure_anyway(authority: &str) -> bool {
    authority.starts_with("127.") || authority.split(':').next() == Some("localhost")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

/// Puts our entries first. Entries of an earlier run that are no longer wanted are removed;
/// everything else stays. Also returns the entries that are ours now. The error is the name of the
/// list that cannot be changed.
fn merge(
    mut settings: Map<String, Value>,
    mirrors: &[String],
    earlier: &Value,
) -> Result<(Value, Value), &'static str> {
    let insecure = mirrors.iter().filter(|url| is_plain(url)).map(|url| authority(url));
    let insecure: Vec<String> =
        insecure.filter(|one| !is_insecure_anyway(one)).map(str::to_owned).collect();
    let mut added = Map::new();
    for (list, wanted) in LISTS.into_iter().zip([mirrors.to_vec(), insecure]) {
        let there = settings.get(list).cloned().unwrap_or_else(|| json!([]));
        let there: Vec<String> = serde_json::from_value(there).map_err(|_| list)?;
        let once: Vec<String> = serde_json::from_value(earlier[list].clone()).unwrap_or_default();
        // an entry from before our first run is not ours, even if it is what we want
        let theirs = |one: &String| there.contains(one) && !once.contains(one);
        let ours: Vec<String> = wanted.iter().filter(|one| !theirs(one)).cloned().collect();
        let rest = there.iter().filter(|one| !once.contains(one) && !wanted.contains(one)).cloned();
        let all: Vec<String> = wanted.iter().cloned().chain(rest).collect();
        if all.is_empty() && there.is_empty() {
            continue;
        }
        settings.insert(list.into(), json!(all));
        added.insert(list.into(), json!(ours));
    }
    Ok((Value::Object(settings), Value::Object(added)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_there_stays_and_what_was_ours_goes() {
        let before = object(
            json!({"log-driver": "json-file", "registry-mirrors": ["https://theirs"], "nested": {"a": [1]}}),
        );
        let mirrors = ["http://10.0.0.1:5000".to_owned(), "http://127.0.0.1:5000".to_owned()];
        let (first, ours) = merge(before, &mirrors, &Value::Null).unwrap();
        assert_eq!(
            first["registry-mirrors"],
            json!(["http://10.0.0.1:5000", "http://127.0.0.1:5000", "https://theirs"])
        );
        assert_eq!(
            first["insecure-registries"],
            json!(["10.0.0.1:5000"]),
            "loopback needs no leave"
        );
        assert_eq!(
            (&first["log-driver"], &first["nested"]),
            (&json!("json-file"), &json!({"a": [1]}))
        );
        let (again, _) = merge(object(first.clone()), &mirrors, &ours).unwrap();
        assert_eq!(again, first, "the second time changes nothing");
        let (moved, _) = merge(object(first), &["https://new".to_owned()], &ours).unwrap();
        assert_eq!(moved["registry-mirrors"], json!(["https://new", "https://theirs"]));
        assert_eq!(moved["insecure-registries"], json!([]));
        let strange = object(json!({"registry-mirrors": "https://theirs"}));
        assert_eq!(merge(strange, &mirrors, &Value::Null).unwrap_err(), "registry-mirrors");
    }

    #[test]
    fn an_entry_of_somebody_else_is_never_taken_out() {
        let before = object(json!({"registry-mirrors": ["https://both"]}));
        let (first, ours) = merge(before, &["https://both".to_owned()], &Value::Null).unwrap();
        let (moved, _) = merge(object(first), &["https://new".to_owned()], &ours).unwrap();
        assert_eq!(moved["registry-mirrors"], json!(["https://new", "https://both"]));
    }

    #[test]
    fn a_mesh_that_cannot_know_what_dockerd_means_is_no_mirror_for_it() {
        let answer = |default: Value, domain: Value| {
            let answer = json!({"node": "n", "region": "r", "nodes": [], "registries": [], "default": default, "domain": domain});
            mirrors(
                &MirrorList::read("http://n:5000", &answer).unwrap(),
                &["http://n:5000".to_owned()],
            )
        };
        assert_eq!(answer(json!("docker.io"), Value::Null).unwrap(), ["http://n:5000"]);
        assert_eq!(
            answer(Value::Null, json!("m.example")).unwrap(),
            ["http://docker.io.m.example:5000"]
        );
        assert!(
            answer(json!("quay.io"), Value::Null)
                .unwrap_err()
                .to_string()
                .contains("mirrors: {default: docker.io}")
        );
    }
}
