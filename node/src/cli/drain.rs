//! `atoll drain`: a replica gives away what others need it for, so that it can be switched off.

use std::io;
use std::time::Duration;

use ground::clock;
use http::{Method, StatusCode};
use serde_json::Value;

use super::client::{Call, Client, refusal};
use super::node::Node;
use super::shown::safe;

/// The least time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long to try while the node answers that it cannot do it yet: it may have just started.
const PATIENCE: Duration = Duration::from_secs(30);
/// The number of looks in a row after which what does not get better by waiting is given up.
const STUCK: u32 = 5;

/// Arguments of `drain`.
#[derive(clap::Args)]
pub(super) struct Drain {
    /// The node's name.
    name: String,
    /// It takes part in everything again.
    #[arg(long)]
    undo: bool,
    /// Do not wait until it can be switched off.
    #[arg(long, conflicts_with = "undo")]
    no_wait: bool,
    #[command(flatten)]
    node: Node,
}

/// Begins or ends it, and says how far it is.
pub(super) fn run(drain: &Drain) -> io::Result<()> {
    let client = drain.node.client()?;
    super::small_runtime()?.block_on(async {
        let path = format!("/api/atoll/v1/nodes/{}/drain", drain.name);
        let name = safe(&drain.name);
        if drain.undo {
            begin(&client, Method::DELETE, &path).await?;
            println!("{name} takes part in everything again; its projects return to it in a while");
            return Ok(());
        }
        let (mut told, mut pause) = (String::new(), LOOK);
        let mut shown = begin(&client, Method::POST, &path).await?;
        let mut stuck = 0;
        loop {
            let now = progress(&shown);
            if now != told {
                println!("{name}: {now}");
                told = now;
            }
            if shown["safe"] == true {
                if let Some(nowhere) = nowhere(&shown) {
                    println!("{nowhere}");
                }
                println!(
                    "{name} can be switched off. `atoll drain {name} --undo` when it is back, or `atoll remove {name}` if it does not come back."
                );
                return Ok(());
            }
            if drain.no_wait {
                return Ok(());
            }
            stuck = if shown["stuck"].is_string() { stuck + 1 } else { 0 };
            if stuck >= STUCK {
                let why = safe(shown["stuck"].as_str().unwrap_or_default());
                return Err(io::Error::other(format!(
                    "{name} cannot be switched off: {why}. {}",
                    goes_on(&name)
                )));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = tokio::signal::ctrl_c() => return Err(io::Error::other(goes_on(&name))),
            }
            let began = clock::now();
            let next = ask(&client, Method::GET, &path).await;
            // all replicas say what they keep for it, which takes long if that is much
            pause = LOOK.max(clock::now().since(began) * 4);
            // a node may be busy for a moment
            if let Ok(next) = next {
                if next["draining"] == false {
                    return Err(io::Error::other(format!("{name} does not drain any more")));
                }
                shown = next;
            }
        }
    })
}

/// What no replica has, whether this one stays or goes; `None` if there is nothing.
fn nowhere(shown: &Value) -> Option<String> {
    let count = shown["nowhere"].as_u64().filter(|count| *count > 0)?;
    Some(format!(
        "{count} blob(s) are on no replica that answers, so they do not depend on it: `atoll dr` names their images"
    ))
}

fn goes_on(name: &str) -> String {
    format!("{name} goes on draining; `atoll drain {name} --undo` ends that")
}

/// Asks again while the node answers that it cannot do it yet.
async fn begin(client: &Client, method: Method, path: &str) -> io::Result<Value> {
    let end = clock::now() + PATIENCE;
    loop {
        match ask(client, method.clone(), path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && clock::now() < end => {
                tokio::time::sleep(LOOK).await;
            }
            answered => return answered,
        }
    }
}

async fn ask(client: &Client, method: Method, path: &str) -> io::Result<Value> {
    let answer = client.send(Call { method, ..Call::get(path) }).await?;
    let status = answer.status;
    let body = answer.whole().await?;
    match status.is_success() {
        true => serde_json::from_slice(&body).map_err(io::Error::other),
        false if status == StatusCode::SERVICE_UNAVAILABLE => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, refusal(status, &body)))
        }
        false => Err(io::Error::other(refusal(status, &body))),
    }
}

/// What it is still needed for, in a sentence.
fn progress(shown: &Value) -> String {
    let waits = shown["waits_for"].as_array().into_iter().flatten();
    let waits: Vec<String> = waits.filter_map(Value::as_str).map(safe).collect();
    match waits.is_empty() {
        true => "nobody needs it".to_owned(),
        false => format!("waits until {}", waits.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_it_waits_for_is_one_sentence() {
        assert_eq!(progress(&json!({"waits_for": []})), "nobody needs it");
        let shown = json!({"waits_for": ["2 project(s) get another primary", "x"]});
        assert_eq!(nowhere(&json!({"nowhere": 0})), None);
        assert!(nowhere(&json!({"nowhere": 3})).is_some_and(|said| said.starts_with("3 blob(s)")));
        assert_eq!(progress(&shown), "waits until 2 project(s) get another primary; x");
    }
}
