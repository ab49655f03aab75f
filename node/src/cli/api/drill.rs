//! `atoll dr drill`: has a region refuse its clients for a time, and tells what happens.

use std::io;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::super::shown::agreed;
use super::{Api, text};

const DRILL: &str = "/api/atoll/v1/dr/drill";
/// The time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Arguments of `dr drill`.
#[derive(clap::Args)]
pub(super) struct DrillCommand {
    /// The region whose nodes refuse their clients. Without it, show the last drill.
    #[arg(long)]
    region: Option<String>,
    /// How long, at most 1h.
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = config::duration)]
    time: Duration,
    /// End the drill that is under way.
    #[arg(long, conflicts_with = "region")]
    stop: bool,
    /// Do not wait for its end.
    #[arg(long)]
    no_wait: bool,
    /// Do not ask whether to begin.
    #[arg(long)]
    yes: bool,
}

/// Begins, ends or shows a drill.
pub(super) async fn run(api: &Api, command: &DrillCommand) -> io::Result<()> {
    if command.stop {
        api.send(Method::DELETE, DRILL, None).await?;
        api.say("the drill is over; its region's projects return to it in a while");
        return Ok(());
    }
    let Some(region) = &command.region else {
        let shown = api.get(DRILL).await?;
        match api.is_json() {
            true => api.print_one(&shown),
            false => now(&shown).iter().for_each(|line| api.say(line)),
        }
        return Ok(());
    };
    let question = format!(
        "All nodes of {region} will refuse all clients for {} s. Begin?",
        command.time.as_secs()
    );
    if !command.yes && !agreed(&question, "nothing was begun; confirm with --yes")? {
        return Err(io::Error::other("nothing was begun"));
    }
    let body = json!({"region": region, "seconds": command.time.as_secs()});
    let mut shown = api.send(Method::POST, DRILL, Some(&body)).await?.body;
    if api.is_json() && command.no_wait {
        api.print_one(&shown);
        return Ok(());
    }
    let mut told = Vec::new();
    // when it is over, projects return: what counts is what was so until then
    let mut waits = shown["waits_for"].clone();
    loop {
        for line in lines(&shown) {
            if !told.contains(&line) {
                if !api.is_json() {
                    api.say(&line);
                }
                told.push(line);
            }
        }
        if command.no_wait {
            return Ok(());
        }
        if shown["under_way"] == false {
            return end(api, &shown, &waits);
        }
        waits.clone_from(&shown["waits_for"]);
        tokio::time::sleep(LOOK).await;
        // it ends by itself, whoever can be asked
        if let Ok(next) = api.get(DRILL).await {
            shown = next;
        }
    }
}

fn end(api: &Api, shown: &Value, waits: &Value) -> io::Result<()> {
    match api.is_json() {
        true => api.print_one(shown),
        false => api.say("the drill is over; the region's projects return to it in a while"),
    }
    let waits = waits.as_array().into_iter().flatten();
    let waits: Vec<String> = waits.map(text).collect();
    if shown["could_write_without_it"] != true {
        return Err(io::Error::other(format!(
            "without {} nothing could be written: {} of {} voters are elsewhere; start replicas in other regions, or let some join (`atoll invite`)",
            text(&shown["region"]),
            shown["voters_elsewhere"]["up"],
            shown["voters_elsewhere"]["of"]
        )));
    }
    match waits.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "it did not come true that {}; `atoll dr` says what the other regions lack, and a longer drill (--for) gives them more time",
            waits.join("; ")
        ))),
    }
}

/// What is to be said of the last drill when somebody only looks.
fn now(shown: &Value) -> Vec<String> {
    if shown["under_way"] == true {
        return lines(shown);
    }
    if shown["region"].is_null() {
        return vec!["there was no drill".into()];
    }
    let [region, began, until, by] = ["region", "began", "until", "by"].map(|n| text(&shown[n]));
    let mut all = vec![format!(
        "no drill is under way; the last one was of {region}, from {began} to {until}, by {by}"
    )];
    let away = shown["projects"].as_array().into_iter().flatten();
    let away: Vec<String> = away
        .filter(|one| one["region"] != shown["region"])
        .map(|one| format!("{} (at {})", text(&one["project"]), text(&one["primary"])))
        .collect();
    if !away.is_empty() {
        all.push(format!("these projects are at home there and not back yet: {}", away.join(", ")));
    }
    all
}

/// What is to be said of a drill, a line each.
fn lines(shown: &Value) -> Vec<String> {
    let list = |of: &Value| {
        let all = of.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        if all.is_empty() { "no region".to_owned() } else { all.join(", ") }
    };
    if shown["under_way"] == false {
        return Vec::new();
    }
    let mut all = vec![format!(
        "{} refuses all clients until {}: {}. `atoll dr drill --stop` ends it; it ends by itself, too.",
        text(&shown["region"]),
        text(&shown["until"]),
        list(&shown["refusing"])
    )];
    for one in shown["projects"].as_array().into_iter().flatten() {
        if one["region"] != shown["region"] {
            let (project, primary) = (text(&one["project"]), text(&one["primary"]));
            let (home, region) = (text(&one["home"]), text(&one["region"]));
            all.push(format!("{project}: {primary} ({region}) takes over from {home}"));
        }
    }
    for one in shown["waits_for"].as_array().into_iter().flatten() {
        all.push(format!("waits until {}", text(one)));
    }
    all.push(format!("pulls go on in {}", list(&shown["pulls_go_on_in"])));
    all.push(format!("pushes go on in {}", list(&shown["pushes_go_on_in"])));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_over_is_told_once_it_is_in_another_region() {
        let mut shown = json!({
            "under_way": true, "region": "east", "until": "U", "refusing": ["one"],
            "projects": [{"project": "shop", "home": "one", "primary": "one", "region": "east"}],
            "waits_for": ["1 project(s) get a primary in another region"],
            "pulls_go_on_in": ["west"], "pushes_go_on_in": [],
        });
        let told = lines(&shown).join("\n");
        assert!(told.contains("east refuses all clients until U: one.") && !told.contains("takes"));
        assert!(told.contains("pushes go on in no region"), "{told}");
        shown["projects"][0]["primary"] = "two".into();
        shown["projects"][0]["region"] = "west".into();
        let told = lines(&shown).join("\n");
        assert!(told.contains("shop: two (west) takes over from one"), "{told}");
        assert_eq!(now(&shown), lines(&shown), "it is under way");
    }

    #[test]
    fn after_the_end_it_is_said_which_drill_was_the_last_and_who_is_not_back() {
        assert_eq!(now(&json!({"under_way": false, "region": null})), ["there was no drill"]);
        let mut shown = json!({
            "under_way": false, "region": "east", "began": "B", "until": "U", "by": "ann",
            "projects": [{"project": "shop", "home": "one", "primary": "two", "region": "west"}],
        });
        let told = now(&shown);
        assert!(told[0].contains("the last one was of east, from B to U, by ann"), "{told:?}");
        assert!(told[1].contains("shop (at two)"), "{told:?}");
        shown["projects"][0]["region"] = "east".into();
        assert_eq!(now(&shown).len(), 1, "it is back");
    }
}
