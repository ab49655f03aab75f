//! `atoll sign`: the mesh signs an image with the key of its project.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::projects::by_name;
use super::stored::artifact_path;
use super::{Api, Asking, text, with};
use crate::cli::shown::safe;

/// Arguments of `sign`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct SignCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    #[arg(required = true)]
    image: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key for a project, or another one.
    Key {
        /// The project.
        #[arg(long)]
        project: String,
        /// Make another key although there is one: the old one only verifies from then on.
        #[arg(long)]
        rotate: bool,
        /// Take the key of this file of cosign's (cosign.key), and make none.
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// A file with its passphrase. Without it, it is read from the standard input.
        #[arg(long, value_name = "FILE", requires = "import")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Sign for notation, too: the mesh makes an authority for the project, or takes certificates.
    Notation {
        /// The project.
        #[arg(long)]
        project: String,
        /// Certificates of the project's key (PEM): its own first, its authority's last.
        #[arg(long, value_name = "FILE")]
        certificates: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Show a project's keys, and what clients elsewhere need to verify with them.
    Show {
        /// The project.
        #[arg(long)]
        project: String,
        /// Print only this: policy.json, registries.d, policy-controller, kyverno, cosign, notation,
        /// or keys.
        #[arg(long = "for", value_name = "CLIENT")]
        client: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// List what a project's keys have signed.
    Log {
        /// The project.
        #[arg(long)]
        project: String,
        /// Check that no entry is missing or was changed.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Runs it.
pub(in crate::cli) fn run(command: &SignCommand) -> io::Result<()> {
    match (&command.image, &command.verb) {
        (_, Some(Verb::Key { project, rotate, import, passphrase_file, asking })) => {
            with(asking, |api| async move {
                let path = format!("{}/signing", path_of(&api, project).await?);
                let mut body = json!({"rotate": rotate});
                if let Some(file) = import {
                    body["import"] = json!({
                        "key": read("--import", file)?,
                        "passphrase": passphrase(passphrase_file.as_deref(), file)?,
                    });
                }
                let sent = api.send(Method::POST, &path, Some(&body)).await?;
                said(&api, &sent.body);
                Ok(())
            })
        }
        (_, Some(Verb::Notation { project, certificates, asking })) => {
            with(asking, |api| async move {
                let path = format!("{}/signing", path_of(&api, project).await?);
                let file = certificates.as_deref();
                let certificates = file.map(|file| read("--certificates", file)).transpose()?;
                let body = json!({"notation": {"certificates": certificates}});
                let sent = api.send(Method::POST, &path, Some(&body)).await?;
                said(&api, &sent.body);
                Ok(())
            })
        }
        (_, Some(Verb::Show { project, client, asking })) => with(asking, |api| async move {
            let path = format!("{}/signing", path_of(&api, project).await?);
            show(&api, &api.get(&path).await?, client.as_deref())
        }),
        (_, Some(Verb::Log { project, verify, asking })) => with(asking, |api| async move {
            let path = format!("{}/signing/log", path_of(&api, project).await?);
            log(&api, &path, *verify).await
        }),
        (Some(image), None) => with(&command.asking, |api| async move {
            let path = format!("{}/signatures", artifact_path(image)?);
            let sent = api.send(Method::POST, &path, None).await?;
            said(&api, &sent.body);
            Ok(())
        }),
        (None, None) => Ok(()),
    }
}

fn read(option: &str, file: &Path) -> io::Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        io::Error::new(error.kind(), format!("{option} {}: {error}", file.display()))
    })
}

/// The passphrase of a file: never from an argument, which others on the machine see.
fn passphrase(file: Option<&Path>, of: &Path) -> io::Result<String> {
    let mut text = match file {
        Some(file) => read("--passphrase-file", file)?,
        None => {
            if io::stdin().is_terminal() {
                eprintln!("passphrase of {}, then Enter and Ctrl-D:", of.display());
            }
            io::read_to_string(io::stdin())?
        }
    };
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

async fn path_of(api: &Api, project: &str) -> io::Result<String> {
    let name = by_name(api, project).await?["name"].clone();
    Ok(format!("/api/v2.0/projects/{}", name.as_str().unwrap_or_default()))
}

fn said(api: &Api, answer: &Value) {
    match api.is_json() {
        true => api.print_one(answer),
        false => println!("{}", text(&answer["result"])),
    }
}

fn show(api: &Api, answer: &Value, client: Option<&str>) -> io::Result<()> {
    let Some(client) = client else {
        if api.is_json() {
            api.print_one(answer);
            return Ok(());
        }
        let keys = answer["keys"].as_array().cloned().unwrap_or_default();
        api.print(
            &keys,
            &[
                ("SIGNER", "/signer"),
                ("STATE", "/state"),
                ("KEY", "/id"),
                ("MADE", "/created_at"),
                ("ONLY BY IT", "/only_by_it"),
            ],
        );
        if let Some(waits) = answer["waits"].as_str() {
            println!("nothing is signed now: {}", safe(waits));
        }
        if let Some(rule) = answer["rule"].as_str() {
            println!("signs by itself: tags {}", safe(rule));
        }
        if let Some(until) = answer["notation"]["until"].as_str() {
            println!("signs for notation, with a certificate until {}", safe(until));
        }
        let old = |key: &&Value| key["state"] != "active" && key["only_by_it"] != 0;
        let left: u64 = keys.iter().filter(old).filter_map(|key| key["only_by_it"].as_u64()).sum();
        if left > 0 {
            println!("{left} manifests are signed by keys only that sign no more");
        }
        if answer["host"].is_null() && !keys.is_empty() {
            eprintln!(
                "nothing is signed until it is said under which name clients know this registry: signature_host"
            );
        }
        return Ok(());
    };
    let wanted = &answer["clients"][client];
    if let (true, Some(files)) = (client == "notation", wanted["files"].as_object()) {
        // as files have it; where each belongs, below notation's folder, is said beside it
        for (file, pem) in files {
            eprintln!("{file}:");
            print!("{}", pem.as_str().unwrap_or_default());
        }
        eprintln!("trustpolicy.json:");
        let policy = &wanted["trustpolicy.json"];
        println!("{}", serde_json::to_string_pretty(policy).unwrap_or_default());
        return Ok(());
    }
    if let (true, Some(keys)) = (client == "keys", wanted.as_array()) {
        // as files have it; where each belongs is said beside it
        for key in keys {
            eprintln!("{}:", text(&key["file"]));
            print!("{}", key["pem"].as_str().unwrap_or_default());
        }
        return Ok(());
    }
    match wanted {
        Value::Null => Err(io::Error::other(
            "there is nothing for that; there is policy.json, registries.d, policy-controller, kyverno, cosign and keys, once the project has a key, and notation, once it signs for that (atoll sign notation)",
        )),
        Value::Array(lines) if lines.iter().all(Value::is_string) => {
            for line in lines {
                println!("{}", text(line));
            }
            Ok(())
        }
        wanted => {
            println!("{}", serde_json::to_string_pretty(wanted).unwrap_or_default());
            Ok(())
        }
    }
}

async fn log(api: &Api, path: &str, verify: bool) -> io::Result<()> {
    let (mut entries, mut after) = (Vec::new(), 0);
    let whole = loop {
        let check = if verify && after == 0 { "&verify=true" } else { "" };
        let page = api.get(&format!("{path}?after={after}{check}")).await?;
        let broken = (page["whole"] == false).then(|| text(&page["broken_at"]));
        let some = page["entries"].as_array().cloned().unwrap_or_default();
        let last = some.last().and_then(|one| one["number"].as_u64());
        entries.extend(some);
        if let Some(at) = broken {
            return Err(io::Error::other(format!("the log is broken at entry {at}")));
        }
        match last {
            Some(last) if last < page["last"]["number"].as_u64().unwrap_or_default() => {
                after = last
            }
            _ => break page["last"]["hash"].clone(),
        }
    };
    let columns = [
        ("NUMBER", "/number"),
        ("AT", "/at"),
        ("ARTIFACT", "/artifact"),
        ("NAME", "/reference"),
        ("BY", "/by"),
        ("EPOCH", "/epoch"),
    ];
    api.print(&entries, &columns);
    if verify && !api.is_json() {
        println!(
            "the log is whole: {} entries, the hash of the last is {}",
            entries.len(),
            text(&whole)
        );
    }
    Ok(())
}
