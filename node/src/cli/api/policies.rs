//! `atoll retention` and `atoll immutable`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use http::Method;
use rules::policies::quota::bytes;
use rules::policies::selectors::Pattern;
use serde_json::{Value, json};

use super::{Api, Asking, part, safe, text, with};
use crate::cli::shown::table;

/// The time between two looks at a run.
const LOOK: Duration = Duration::from_millis(300);

/// Arguments of `retention`.
#[derive(clap::Args)]
pub(in crate::cli) struct RetentionCommand {
    #[command(subcommand)]
    verb: RetentionVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum RetentionVerb {
    /// Show what stays in a project.
    Show {
        /// The project.
        project: String,
    },
    /// Say what stays in a project. Nothing is deleted before the first run.
    Apply(Apply),
    /// Delete what does not stay, now, or say what would be deleted.
    Run {
        /// The project.
        project: String,
        /// Only say what would be deleted.
        #[arg(long)]
        dry_run: bool,
        /// As if it were so many days later.
        #[arg(long, requires = "dry_run", default_value_t = 0)]
        days_later: u32,
        /// Delete also if that is much of the project (retention.confirm_over).
        #[arg(long, conflicts_with = "dry_run")]
        confirm: bool,
    },
    /// Say what would be deleted today, in a week and in a month, if nothing is pushed or pulled until
    /// then: by repository, with bytes. Nothing is deleted or changed.
    Forecast(ForecastArguments),
    /// Let everything stay.
    Remove {
        /// The project.
        project: String,
    },
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("policy").required(true)))]
struct Apply {
    /// The project.
    project: String,
    #[command(flatten)]
    policy: Written,
    /// When it runs by itself, in UTC, as cron has it: "0 3 * * *".
    #[arg(long)]
    cron: Option<String>,
}

#[derive(clap::Args)]
struct ForecastArguments {
    /// The project.
    project: String,
    /// So many days from now, with commas between them.
    #[arg(long, default_value = "0,7,30")]
    days: String,
    #[command(flatten)]
    policy: Written,
}

/// A policy; for a forecast that of the project if it is left out.
#[derive(clap::Args)]
struct Written {
    /// A file with a policy in Harbor's form (JSON): `rules`, and perhaps `trigger`.
    #[arg(long, group = "policy")]
    file: Option<PathBuf>,
    /// Rules by environment: production for 90 days after a push or a pull and its ten newest
    /// artifacts, staging for 30 days, development for 7, what has no tag for 3.
    #[arg(long, group = "policy", value_parser = ["environments"])]
    preset: Option<String>,
    /// Tags of production, as patterns with commas between them.
    #[arg(long, requires = "preset")]
    production: Option<String>,
    /// Tags of staging.
    #[arg(long, requires = "preset")]
    staging: Option<String>,
    /// Tags of development.
    #[arg(long, requires = "preset")]
    development: Option<String>,
}

/// How a project's immutable tag rules are shown.
const RULES: [(&str, &str); 5] = [
    ("ID", "/id"),
    ("TAGS", "/tag_selectors/0/pattern"),
    ("HOW", "/tag_selectors/0/decoration"),
    ("REPOSITORIES", "/scope_selectors/repository/0/pattern"),
    ("DISABLED", "/disabled"),
];

/// Arguments of `immutable`.
#[derive(clap::Args)]
pub(in crate::cli) struct ImmutableCommand {
    #[command(subcommand)]
    verb: ImmutableVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum ImmutableVerb {
    /// List a project's rules.
    List {
        /// The project.
        project: String,
    },
    /// Make tags immutable: they are not moved or deleted any more.
    Add {
        /// The project.
        project: String,
        /// Which tags, as patterns with commas between them.
        #[arg(long)]
        tags: String,
        /// In which repositories, by their names within the project; all if it is left out.
        #[arg(long, default_value = "**")]
        repositories: String,
    },
    /// Remove a rule.
    Remove {
        /// The project.
        project: String,
        /// The rule's number.
        id: u64,
    },
}

/// Does what `atoll retention` says.
pub(in crate::cli) fn retention(command: &RetentionCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            RetentionVerb::Show { project } => {
                let policy = api.get(&place(project)).await?;
                api.print_policy(&policy);
                Ok(())
            }
            RetentionVerb::Apply(apply) => apply.send(&api).await,
            RetentionVerb::Forecast(arguments) => arguments.ask(&api).await,
            RetentionVerb::Run { project, dry_run, days_later, confirm } => {
                let body =
                    json!({"dry_run": dry_run, "days_later": days_later, "confirmed": confirm});
                run(&api, project, &body).await
            }
            RetentionVerb::Remove { project } => {
                api.send(Method::DELETE, &place(project), None).await?;
                api.say(&format!("project {project} has no retention policy any more"));
                Ok(())
            }
        }
    })
}

fn place(project: &str) -> String {
    format!("/api/v2.0/retentions/{}", part(project))
}

impl Written {
    /// As the API takes it; `None` if there is none.
    fn body(&self) -> io::Result<Option<Value>> {
        Ok(Some(match (&self.file, &self.preset) {
            (None, None) => return Ok(None),
            (Some(file), _) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
                serde_json::from_str::<Value>(&text)
                    .map_err(|e| io::Error::other(format!("{} is no JSON: {e}", file.display())))?
            }
            (None, preset) => json!({"preset": {
                "name": preset,
                "production": self.production,
                "staging": self.staging,
                "development": self.development,
            }}),
        }))
    }
}

impl ForecastArguments {
    async fn ask(&self, api: &Api) -> io::Result<()> {
        let path = format!("{}/forecast?days={}", place(&self.project), part(&self.days));
        let body = self.policy.body()?;
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let told = api.send(method, &path, body.as_ref()).await?.body;
        api.print_forecast(&told);
        Ok(())
    }
}

impl Apply {
    async fn send(&self, api: &Api) -> io::Result<()> {
        let mut body = self.policy.body()?.unwrap_or_default();
        let rules = body["rules"].as_array().map_or(0, Vec::len);
        if let (Some(file), 0) = (&self.policy.file, rules) {
            return Err(io::Error::other(format!(
                "{} has no rules. To end retention: atoll retention remove {}",
                file.display(),
                self.project
            )));
        }
        if let Some(cron) = &self.cron {
            body["trigger"] = json!({"kind": "Schedule", "settings": {"cron": cron}});
        }
        body["scope"] = json!({"level": "project", "ref": self.project});
        let known = api.get(&place(&self.project)).await;
        // the time at which it runs stays unless another one was given
        if let (true, Ok(known)) = (body["trigger"].is_null(), known) {
            body["trigger"] = known["trigger"].clone();
        }
        // the policy may be there already
        match api.send(Method::PUT, &place(&self.project), Some(&body)).await {
            Ok(_) => {}
            Err(error) if error.to_string().contains("has no retention policy") => {
                api.send(Method::POST, "/api/v2.0/retentions", Some(&body)).await?;
            }
            Err(error) => return Err(error),
        }
        let policy = api.get(&place(&self.project)).await?;
        api.print_policy(&policy);
        for rule in policy["rules"].as_array().into_iter().flatten() {
            api.warn_of_nothing(&self.project, &rule["scope_selectors"]).await;
        }
        Ok(())
    }
}

/// Why a rule for these repositories is about none of those that a project has; `None` if it is about
/// some, or the project has none yet. `names` are whole names, `all` says whether they are all.
fn about_nothing(project: &str, pattern: &Pattern, names: &[String], all: bool) -> Option<String> {
    let within = |name: &String| name.split_once('/').map(|(_, rest)| rest.to_owned());
    let within: Vec<String> = names.iter().filter_map(within).collect();
    if within.iter().any(|name| pattern.matches(name)) {
        return None;
    }
    let written = pattern.written();
    let begin = format!("{project}/");
    let whole: Vec<&str> =
        written.split(',').filter_map(|one| one.trim().strip_prefix(&begin)).collect();
    if !whole.is_empty() {
        return Some(format!(
            "the rule for the repositories {written} is about none: patterns match names within the \
             project, without {begin}. You may mean {}",
            whole.join(",")
        ));
    }
    (all && !within.is_empty()).then(|| {
        format!("the rule for the repositories {written} is about none that {project} has now")
    })
}

/// Begins a run, and prints its log and its end. Fails if the run did.
async fn run(api: &Api, project: &str, body: &Value) -> io::Result<()> {
    let path = format!("{}/executions", place(project));
    let begun = api.send(Method::POST, &path, Some(body)).await?.body;
    let id = &begun["id"];
    let ended = loop {
        let all = api.all(&path).await?;
        let ours = all.into_iter().find(|one| one["id"] == *id).unwrap_or_default();
        // nodes of an earlier build say the second words
        let over = ["Success", "Error", "Stopped", "Succeed", "Failed"];
        if ours["status"].as_str().is_some_and(|status| over.contains(&status)) {
            break ours;
        }
        tokio::time::sleep(LOOK).await;
    };
    let log = api.plain(&format!("{path}/{}/tasks/0", text(id))).await;
    if api.is_json() {
        let mut shown = ended.clone();
        shown["log"] = log.unwrap_or_default().lines().collect();
        api.print_one(&shown);
    } else if let Ok(log) = log {
        // each line begins with its time
        for line in log.lines().filter_map(|line| Some(line.split_once(' ')?.1)) {
            println!("{}", safe(line));
        }
    } else {
        println!("{}", text(&ended["result"]));
    }
    match ended["status"].as_str() {
        Some("Success" | "Succeed") => Ok(()),
        _ => Err(io::Error::other(format!("the run has ended: {}", text(&ended["result"])))),
    }
}

/// Does what `atoll immutable` says.
pub(in crate::cli) fn immutable(command: &ImmutableCommand) -> io::Result<()> {
    let rules = |project: &str| format!("/api/v2.0/projects/{}/immutabletagrules", part(project));
    with(&command.asking, |api| async move {
        match &command.verb {
            ImmutableVerb::List { project } => {
                let all = api.all(&rules(project)).await?;
                api.print(&all, &RULES);
                Ok(())
            }
            ImmutableVerb::Add { project, tags, repositories } => {
                let body = json!({
                    "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": tags}],
                    "scope_selectors": {"repository": [
                        {"kind": "doublestar", "decoration": "repoMatches", "pattern": repositories},
                    ]},
                });
                api.send(Method::POST, &rules(project), Some(&body)).await?;
                api.print(&api.all(&rules(project)).await?, &RULES);
                api.warn_of_nothing(project, &body["scope_selectors"]).await;
                Ok(())
            }
            ImmutableVerb::Remove { project, id } => {
                let path = format!("{}/{id}", rules(project));
                api.send(Method::DELETE, &path, None).await?;
                api.say(&format!("rule {id} of {project} is removed"));
                Ok(())
            }
        }
    })
}

/// The table's heads, and what stands under them for one repository or for all.
fn heads(forecast: &Value) -> Vec<String> {
    let days = forecast.as_array().into_iter().flatten();
    let head = |day: &Value| match day["days"].as_u64() {
        Some(0) => "NOW".to_owned(),
        Some(1) => "IN 1 DAY".to_owned(),
        days => format!("IN {} DAYS", days.unwrap_or_default()),
    };
    let days = days.flat_map(|day| [head(day), "BYTES".to_owned()]);
    ["REPOSITORY".to_owned(), "ARTIFACTS".to_owned()].into_iter().chain(days).collect()
}

fn row(name: &str, one: &Value) -> Vec<String> {
    let days = one["forecast"].as_array().into_iter().flatten();
    let days = days.flat_map(|day| {
        let freed = day["bytes"].as_u64().unwrap_or_default();
        [text(&day["deleted"]), bytes(freed)]
    });
    [name.to_owned(), text(&one["artifacts"])].into_iter().chain(days).collect()
}

/// How many repositories are looked at for a warning.
const LOOKED_AT: usize = 100;

impl Api {
    /// Warns if a rule is about no repository of a project.
    async fn warn_of_nothing(&self, project: &str, scope: &Value) {
        let one = &scope["repository"][0];
        let pattern = Pattern::new(one["pattern"].as_str().unwrap_or_default());
        let Some(pattern) = pattern.ok().filter(|_| one["decoration"] != "repoExcludes") else {
            return;
        };
        let path =
            format!("/api/v2.0/projects/{}/repositories?page_size={LOOKED_AT}", part(project));
        // a rule is set whether they can be listed or not
        let Ok(listed) = self.get(&path).await else { return };
        let names = listed.as_array().into_iter().flatten();
        let names = names.filter_map(|one| one["name"].as_str().map(str::to_owned));
        let names: Vec<String> = names.collect();
        let all = names.len() < LOOKED_AT;
        if let Some(warning) = about_nothing(project, &pattern, &names, all) {
            eprintln!("atoll: {}", safe(&warning));
        }
    }

    fn print_forecast(&self, told: &Value) {
        if self.is_json() {
            return self.print_one(told);
        }
        let heads = heads(&told["forecast"]);
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let each = told["repositories"].as_array().into_iter().flatten();
        let each = each.map(|one| row(one["repository"].as_str().unwrap_or_default(), one));
        print!("{}", table(&heads, each.chain([row("(the project)", told)]).collect()));
        match told["more_repositories"].as_u64() {
            None | Some(0) => {}
            Some(more) => println!("and {more} more repositories, which lose less"),
        }
        if told["has_to_be_confirmed"] == true {
            let percent = text(&told["confirm_over"]);
            println!("a run now would have to be confirmed: it deletes more than {percent} %");
        }
    }

    fn print_policy(&self, policy: &Value) {
        let rules = policy["rules"].as_array().cloned().unwrap_or_default();
        let shown: Vec<Value> = rules
            .into_iter()
            .map(|mut rule| {
                let template = rule["template"].as_str().unwrap_or_default().to_owned();
                rule["number"] = rule["params"][&template].clone();
                rule
            })
            .collect();
        if self.is_json() {
            return self.print_one(policy);
        }
        let columns = [
            ("RETAINS", "/template"),
            ("NUMBER", "/number"),
            ("TAGS", "/tag_selectors/0/pattern"),
            ("HOW", "/tag_selectors/0/decoration"),
            ("REPOSITORIES", "/scope_selectors/repository/0/pattern"),
            ("DISABLED", "/disabled"),
        ];
        self.print(&shown, &columns);
        let cron = text(&policy["trigger"]["settings"]["cron"]);
        println!(
            "{}",
            if cron.is_empty() {
                "runs when it is asked to".into()
            } else {
                format!("runs at {cron} (UTC)")
            }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_about_no_repository_is_told() {
        let names = ["team/app".to_owned(), "team/deep/er".to_owned()];
        let told = |written: &str, all| {
            about_nothing("team", &Pattern::new(written).unwrap(), &names, all)
        };
        for right in ["app", "**", "deep/*", "other,app", "team/*,app"] {
            assert_eq!(told(right, true), None, "{right}");
        }
        let said = told("team/app", true).unwrap();
        assert!(said.contains("without team/. You may mean app"), "{said}");
        assert!(told("team/app,team/x", false).unwrap().contains("mean app,x"));
        assert!(told("other", true).unwrap().contains("none that team has now"));
        assert_eq!(told("other", false), None, "it may be about one that was not looked at");
        let none = about_nothing("team", &Pattern::new("other").unwrap(), &[], true);
        assert_eq!(none, None, "a new project has no repositories yet");
    }
}
