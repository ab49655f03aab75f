//! `atoll mirror check`: pulls images through each node in every way that clients use, and hashes
//! every byte.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Asking;
use super::image::{Image, Way};
use super::nodes::{MirrorList, MirrorNode};
use super::pull::{Pulled, Puller};
use crate::cli::client::Client;
use crate::cli::shown::table;

/// Arguments of `mirror check`.
#[derive(clap::Args)]
pub(super) struct Check {
    /// Images of registries that the mesh mirrors, e.g. docker.io/library/alpine:3 or alpine:3.
    /// Each is pulled completely, once for each way and node. Without images: only check whether
    /// each node answers.
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    asking: Asking,
    /// A user name to get tokens with, for registries whose project is private. Without it:
    /// anonymous.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// A file with the password.
    #[arg(long, requires = "user")]
    password_file: Option<PathBuf>,
}

/// Pulls, prints a table, and fails if anything failed.
pub(super) fn run(check: &Check) -> io::Result<()> {
    let images: Vec<Image> =
        check.images.iter().map(|written| Image::read(written)).collect::<io::Result<_>>()?;
    let user = check.user.as_deref().zip(check.password_file.as_deref());
    let url = check.asking.url()?;
    let runtime = crate::cli::small_runtime()?;
    let client = Client::new(&url, user, check.asking.ca.as_deref())?;
    let known = MirrorList::read(&url, &runtime.block_on(client.get("/api/atoll/v1/mirrors"))?)?;
    if let Some(image) = images.iter().find(|image| !known.registries.contains(&image.registry)) {
        let mirrored = known.named();
        let message = format!(
            "{} is not among the registries that the mesh mirrors for {} ({mirrored})",
            image.registry,
            if user.is_some() {
                "this user"
            } else {
                "everyone; a private project's needs --user and --password-file"
            },
        );
        return Err(io::Error::other(message));
    }
    let puller = Puller { user, authority: check.asking.ca.as_deref() };
    let nodes: Vec<&MirrorNode> = known.listed(check.asking.all_regions).collect();
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for node in nodes {
        let answers = runtime.block_on(puller.ping(&node.url));
        if let Err(reason) = answers {
            failures.push(format!("{} ({}): {reason}", node.name, node.url));
            rows.push(row("-", "-", &node.name, Err(())));
            continue;
        }
        if images.is_empty() {
            rows.push(row("-", "answers", &node.name, Ok(None)));
        }
        for image in &images {
            let shown = format!("{}/{}:{}", image.registry, image.repository, image.reference);
            for way in Way::all(&known, &image.registry, &node.url) {
                match runtime.block_on(puller.pull(&node.url, &way, image)) {
                    Ok(pulled) => rows.push(row(&shown, way.name, &node.name, Ok(Some(pulled)))),
                    Err(reason) => {
                        failures.push(format!(
                            "{shown} by {} through {} ({}): {reason}",
                            way.name, node.name, node.url
                        ));
                        rows.push(row(&shown, way.name, &node.name, Err(())));
                    }
                }
            }
        }
    }
    print!(
        "{}",
        table(&["IMAGE", "WAY", "NODE", "DIGEST", "BYTES", "FIRST BYTE", "RESULT"], rows.clone())
    );
    if failures.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} of {} failed:\n  {}",
        failures.len(),
        rows.len(),
        failures.join("\n  ")
    )))
}

fn row(image: &str, way: &str, node: &str, result: Result<Option<Pulled>, ()>) -> Vec<String> {
    let dash = || "-".to_owned();
    let (digest, bytes, first, word) = match result {
        Ok(Some(p)) => (
            p.digest.short(),
            p.bytes.to_string(),
            format!("{:.1} ms", milliseconds(p.first_byte)),
            "ok",
        ),
        Ok(None) => (dash(), dash(), dash(), "ok"),
        Err(()) => (dash(), dash(), dash(), "FAILED"),
    };
    vec![image.into(), way.into(), node.into(), digest, bytes, first, word.into()]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
