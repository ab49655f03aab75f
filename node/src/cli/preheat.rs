//! `atoll preheat`: brings images into regions before clients there ask for them, and shows the
//! progress.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::node::Node;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// The maximum number of times in a row that the node may fail to answer.
const FAILURES: usize = 20;

/// Arguments of `preheat`.
#[derive(clap::Args)]
pub(super) struct Preheat {
    /// Images: of a project (hub/library/nginx:1) or of a registry that the mesh mirrors
    /// (docker.io/library/nginx:1).
    #[arg(required_unless_present = "stop", value_name = "IMAGE")]
    images: Vec<String>,
    /// The regions that should hold them, separated by commas.
    #[arg(
        long,
        required_unless_present = "stop",
        value_delimiter = ',',
        value_name = "REGION,..."
    )]
    regions: Vec<String>,
    /// Only these platforms of images for several platforms, e.g. linux/amd64, separated by commas.
    /// Without it: all.
    #[arg(long, value_delimiter = ',', value_name = "OS/ARCH,...")]
    platform: Vec<String>,
    /// Do it at these times (UTC) instead of now: cron with 5 or 6 fields, e.g. "0 3 * * *".
    #[arg(long, value_name = "CRON", requires = "name")]
    schedule: Option<String>,
    /// The schedule's name within its project. One of the same name is replaced.
    #[arg(long, value_name = "NAME", requires = "schedule")]
    name: Option<String>,
    /// Begin each time up to so many seconds later.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "schedule")]
    spread: u32,
    /// Stop the preheat with this number instead. Blobs that are on their way still arrive; nothing
    /// new is begun.
    #[arg(long, value_name = "ID", conflicts_with_all = ["images", "regions", "platform", "schedule"])]
    stop: Option<String>,
    /// The node to ask. Any replica will do.
    #[command(flatten)]
    node: Node,
}

/// Starts a preheat and follows it to its end, or stops one.
pub(super) fn run(preheat: &Preheat) -> io::Result<()> {
    let client = preheat.node.client()?;
    let runtime = super::small_runtime()?;
    match &preheat.stop {
        Some(id) => runtime.block_on(stop(&client, id)),
        None if preheat.schedule.is_some() => runtime.block_on(schedule(&client, preheat)),
        None => runtime.block_on(follow(&client, preheat)),
    }
}

async fn stop(client: &Client, id: &str) -> io::Result<()> {
    let path = format!("/api/atoll/v1/preheats/{id}");
    let answer = client.send(Call { method: Method::DELETE, ..Call::get(&path) }).await?;
    let status = answer.status;
    let told: Value = serde_json::from_slice(&answer.whole().await?).unwrap_or_default();
    if status != StatusCode::ACCEPTED {
        return Err(refused(status, &told));
    }
    for (_, line) in lines(&told) {
        println!("{line}");
    }
    println!("preheat {id} is stopped; blobs that are on their way still arrive");
    Ok(())
}

fn refused(status: StatusCode, told: &Value) -> io::Error {
    let reason = told["errors"][0]["message"].as_str().map(str::to_owned);
    io::Error::other(reason.unwrap_or_else(|| format!("the node answered {status}")))
}

/// Makes a schedule of the preheat.
async fn schedule(client: &Client, preheat: &Preheat) -> io::Result<()> {
    let mut order = order(preheat);
    order["schedule"] =
        json!({"name": preheat.name, "cron": preheat.schedule, "spread": preheat.spread});
    let call = Call {
        method: Method::POST,
        body: Bytes::from(order.to_string()),
        ..Call::get("/api/atoll/v1/preheats")
    };
    let answer = client.send(call).await?;
    let status = answer.status;
    let told: Value = serde_json::from_slice(&answer.whole().await?).unwrap_or_default();
    if status != StatusCode::CREATED {
        return Err(refused(status, &told));
    }
    let text = |name: &str| told[name].as_str().unwrap_or("-").to_owned();
    println!("schedule {} of project {}: {}", text("schedule"), text("project"), text("cron"));
    println!("`atoll jobs schedules` shows the next time");
    Ok(())
}

fn order(preheat: &Preheat) -> Value {
    json!({"images": preheat.images, "regions": preheat.regions, "platforms": preheat.platform})
}

async fn follow(client: &Client, preheat: &Preheat) -> io::Result<()> {
    let order = order(preheat);
    let call = Call {
        method: Method::POST,
        body: Bytes::from(order.to_string()),
        ..Call::get("/api/atoll/v1/preheats")
    };
    let answer = client.send(call).await?;
    let (status, place) = (answer.status, answer.header("location").map(str::to_owned));
    let body = answer.whole().await?;
    let (StatusCode::ACCEPTED, Some(place)) = (status, place) else {
        return Err(refused(status, &serde_json::from_slice(&body).unwrap_or_default()));
    };
    println!("preheat {}", place.rsplit('/').next().unwrap_or_default());
    let mut said = BTreeMap::new();
    let mut failures = 0;
    loop {
        let told = match client.get(&place).await {
            Ok(told) => told,
            Err(error) if failures == FAILURES => return Err(error),
            Err(_) => {
                failures += 1;
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        failures = 0;
        for (key, line) in lines(&told) {
            if said.get(&key) != Some(&line) {
                println!("{line}");
                said.insert(key, line);
            }
        }
        match told["state"].as_str() {
            Some("done") => return Ok(()),
            Some("stopped") => {
                return Err(io::Error::other("it was stopped before everything had arrived"));
            }
            Some("failed") => return Err(io::Error::other(errors(&told).join("\n"))),
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// A line for each image in each region, with the image and region as its key.
fn lines(told: &Value) -> Vec<((String, String), String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = Vec::new();
    for image in list(told, "images") {
        for region in list(image, "regions") {
            let key = (text(&image["image"]), text(&region["region"]));
            let line = match region["state"].as_str() {
                Some(state) if state == "resolving" || region["blobs"]["wanted"].is_null() => {
                    format!("{} in {}: {state}", key.0, key.1)
                }
                state => format!(
                    "{} in {}: {}, {} of {} blobs, {} of {} bytes",
                    key.0,
                    key.1,
                    state.unwrap_or("-"),
                    region["blobs"]["held"],
                    region["blobs"]["wanted"],
                    region["bytes"]["held"],
                    region["bytes"]["wanted"]
                ),
            };
            lines.push((key, line));
        }
    }
    lines
}

fn errors(told: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for image in list(told, "images") {
        for region in list(image, "regions") {
            let about = format!(
                "{} in {}",
                image["image"].as_str().unwrap_or("-"),
                region["region"].as_str().unwrap_or("-")
            );
            errors.extend(
                list(region, "errors").map(|e| format!("{about}: {}", e.as_str().unwrap_or("-"))),
            );
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_and_errors_name_image_and_region() {
        let told = json!({"state": "failed", "images": [{"image": "hub/a:1", "regions": [
            {"region": "b", "state": "failed", "blobs": {"wanted": 3, "held": 2}, "bytes": {"wanted": 30, "held": 20}, "errors": ["gone"]},
            {"region": "c", "state": "waiting", "blobs": {"wanted": null, "held": null}, "bytes": {"wanted": null, "held": null}, "errors": []},
        ]}]});
        assert_eq!(lines(&told)[1].1, "hub/a:1 in c: waiting", "nobody tells how far it is");
        assert_eq!(lines(&told)[0].1, "hub/a:1 in b: failed, 2 of 3 blobs, 20 of 30 bytes");
        assert_eq!(errors(&told), ["hub/a:1 in b: gone"]);
    }
}
