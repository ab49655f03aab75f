//! `atoll audit`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::projects::path;
use super::{Api, Asking, Output, part, text, with};

/// The time between two looks for what is new.
const LOOK: Duration = Duration::from_secs(1);
/// The number of entries that are asked for at a time.
const PAGE: usize = 100;

/// Arguments of `audit`.
#[derive(clap::Args)]
pub(in crate::cli) struct AuditCommand {
    /// Only what happened in this project.
    #[arg(long)]
    project: Option<String>,
    /// Only what this user or robot did. (--user is who asks.)
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only this: create, delete, update, pull, push, login, failover, ...
    #[arg(long)]
    operation: Option<String>,
    /// Only this kind of resource: artifact, tag, project, member, robot, user, ...
    #[arg(long, value_name = "RESOURCE")]
    kind: Option<String>,
    /// Only what was refused or has failed.
    #[arg(long)]
    refused: bool,
    /// Only from this time on: 2026-11-29, or 2026-11-29T02:00:00Z (UTC).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only up to this time; a day counts to its end.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The maximum number of entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print what is new, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    asking: Asking,
}

impl AuditCommand {
    /// The path of the list, with the conditions.
    fn place(&self) -> io::Result<String> {
        for value in
            [&self.by, &self.operation, &self.kind, &self.since, &self.until].into_iter().flatten()
        {
            if value.contains([',', '~', '[', ']']) {
                return Err(io::Error::other(format!("'{value}' has a sign that no name has")));
            }
        }
        let mut conditions = Vec::new();
        conditions.extend(self.by.as_ref().map(|name| format!("username={name}")));
        conditions.extend(self.operation.as_ref().map(|what| format!("operation={what}")));
        conditions.extend(self.kind.as_ref().map(|kind| format!("resource_type={kind}")));
        conditions.extend(self.refused.then(|| "operation_result=false".to_owned()));
        if self.since.is_some() || self.until.is_some() {
            let text = |time: &Option<String>| time.clone().unwrap_or_default();
            conditions.push(format!("op_time=[{}~{}]", text(&self.since), text(&self.until)));
        }
        let list = match &self.project {
            Some(project) => path(project) + "/auditlog-exts",
            None => "/api/v2.0/auditlog-exts".to_owned(),
        };
        Ok(format!("{list}?q={}", part(&conditions.join(","))))
    }
}

/// Does what `atoll audit` says.
pub(in crate::cli) fn audit(command: &AuditCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let place = command.place()?;
        let mut list = newest(&api, &place, command.limit as usize).await?;
        let columns = [
            ("TIME", "/op_time"),
            ("WHO", "/username"),
            ("FROM", "/client"),
            ("WHAT", "/operation"),
            ("KIND", "/resource_type"),
            ("NAME", "/resource"),
            ("TIMES", "/count"),
            ("REFUSED", "/reason"),
        ];
        if !command.follow {
            api.print(&list, &columns);
            return Ok(());
        }
        // entries come in the order of two tables, so the last ones are known by their numbers
        let mut known: VecDeque<Value> = VecDeque::new();
        loop {
            list.reverse();
            for entry in list.iter().filter(|entry| !known.contains(&entry["id"])) {
                match api.output {
                    Output::Json => println!("{entry}"),
                    Output::Table => {
                        let cells = columns
                            .iter()
                            .map(|(_, place)| text(entry.pointer(place).unwrap_or(&Value::Null)));
                        println!("{}", cells.collect::<Vec<_>>().join("  "));
                    }
                }
            }
            for entry in &list {
                if !known.contains(&entry["id"]) {
                    known.push_back(entry["id"].clone());
                }
            }
            while known.len() > 4 * PAGE {
                known.pop_front();
            }
            tokio::time::sleep(LOOK).await;
            list = newest(&api, &place, PAGE).await?;
        }
    })
}

/// Up to `most` entries, the newest first.
async fn newest(api: &Api, place: &str, most: usize) -> io::Result<Vec<Value>> {
    let (mut all, mut page) = (Vec::new(), 1);
    while all.len() < most {
        let place = format!("{place}&page={page}&page_size={PAGE}");
        let list = api.get(&place).await?.as_array().cloned().unwrap_or_default();
        let last = list.len() < PAGE;
        all.extend(list);
        if last {
            break;
        }
        page += 1;
    }
    all.truncate(most);
    Ok(all)
}
