//! What stays of a repository, and what goes: Harbor's retention (`src/pkg/retention/policy`).
//!
//! A rule says what is retained, and among which artifacts. An artifact that any rule retains stays
//! with all its tags. A repository that no rule is about is not touched. What has an immutable tag
//! stays in any case.
//!
//! Two things are safer than in Harbor. When pulls have been counted for less time than a rule looks
//! back, nothing counts as never pulled. And a run that would delete more than a share of a project
//! has to be confirmed ([`needs_confirmation`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::selectors::{BadPattern, Pattern, Repositories, Tags};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// The largest number that a rule may have (Harbor's bound).
pub const LARGEST: u32 = 32_766;

const DAY: u64 = 24 * 3600 * 1000;
/// For so many days [`Template::LatestPulled`] does not believe that what was not pulled never was.
const YOUNG: u64 = 30;

/// What a rule retains of the artifacts that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Template {
    /// The number that were pushed last.
    LatestPushed(u32),
    /// The number that were pulled last.
    LatestPulled(u32),
    /// The number that were pushed or pulled last.
    LatestActive(u32),
    /// Those that were pushed within so many days.
    DaysSincePush(u32),
    /// Those that were pulled within so many days.
    DaysSincePull(u32),
    /// The same as [`Template::DaysSincePush`], under Harbor's older name.
    LastDays(u32),
    /// All.
    Always,
    /// None.
    Nothing,
}

impl Template {
    /// The template with Harbor's name, and the parameter of that name. The error is a sentence.
    pub fn named(name: &str, number: Option<u64>) -> Result<Self, String> {
        let number = |otherwise: u32| match number {
            None => Ok(otherwise),
            Some(number) => u32::try_from(number)
                .ok()
                .filter(|number| *number <= LARGEST)
                .ok_or_else(|| format!("{name} takes a number from 0 to {LARGEST}")),
        };
        Ok(match name {
            "latestPushedK" => Template::LatestPushed(number(10)?),
            "latestPulledN" => Template::LatestPulled(number(10)?),
            "latestActiveK" => Template::LatestActive(number(10)?),
            "nDaysSinceLastPush" => Template::DaysSincePush(number(30)?),
            "nDaysSinceLastPull" => Template::DaysSincePull(number(30)?),
            "lastXDays" => Template::LastDays(number(30)?),
            "always" => Template::Always,
            "nothing" => Template::Nothing,
            _ => {
                return Err(format!(
                    "there is no retention template {name:?}: latestPushedK, latestPulledN, latestActiveK, nDaysSinceLastPush, nDaysSinceLastPull, lastXDays, always, nothing"
                ));
            }
        })
    }

    /// Harbor's name, which is also that of the parameter, and the number if it takes one.
    pub fn name(self) -> (&'static str, Option<u32>) {
        match self {
            Template::LatestPushed(number) => ("latestPushedK", Some(number)),
            Template::LatestPulled(number) => ("latestPulledN", Some(number)),
            Template::LatestActive(number) => ("latestActiveK", Some(number)),
            Template::DaysSincePush(days) => ("nDaysSinceLastPush", Some(days)),
            Template::DaysSincePull(days) => ("nDaysSinceLastPull", Some(days)),
            Template::LastDays(days) => ("lastXDays", Some(days)),
            Template::Always => ("always", None),
            Template::Nothing => ("nothing", None),
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRule {
    /// Whether it has no effect.
    pub disabled: bool,
    /// What it retains.
    pub template: Template,
    /// In which repositories.
    pub repositories: Repositories,
    /// Of which artifacts.
    pub tags: Tags,
}

/// An artifact that a rule may be about: it has a tag, or it is no part of an index. What is about
/// another artifact of the repository goes with that, and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its digest.
    pub digest: Digest,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it, or one of its tags, was pushed last.
    pub pushed: Timestamp,
    /// When it was pulled last, as far as that was counted.
    pub pulled: Option<Timestamp>,
    /// Whether one of its tags is immutable.
    pub immutable: bool,
}

/// What becomes of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A rule retains it.
    Retained,
    /// No rule retains it, but one of its tags is immutable.
    Immutable,
    /// It goes.
    Deleted,
}

impl Fate {
    /// The word in Harbor's logs.
    pub fn word(self) -> &'static str {
        match self {
            Fate::Retained => "RETAIN",
            Fate::Immutable => "IMMUTABLE",
            Fate::Deleted => "DEL",
        }
    }
}

/// The fates of all candidates of a repository at `now`, in their order; `None` if no rule is about
/// the repository. `counted_since` is since when pulls are counted.
pub fn fates(
    rules: &[RetentionRule],
    repository: &str,
    candidates: &[Candidate],
    now: Timestamp,
    counted_since: Option<Timestamp>,
) -> Option<Vec<Fate>> {
    let about = |rule: &&RetentionRule| !rule.disabled && rule.repositories.selects(repository);
    let rules: Vec<&RetentionRule> = rules.iter().filter(about).collect();
    if rules.is_empty() {
        return None;
    }
    let mut retained = BTreeSet::new();
    for rule in rules {
        let selects =
            |candidate: &Candidate| rule.tags.selects(candidate.tags.iter().map(String::as_str));
        let selected: Vec<usize> =
            (0..candidates.len()).filter(|at| selects(&candidates[*at])).collect();
        retained.extend(stay(rule.template, selected, candidates, now, counted_since));
    }
    let fate = |(at, candidate): (usize, &Candidate)| match retained.contains(&at) {
        true => Fate::Retained,
        false if candidate.immutable => Fate::Immutable,
        false => Fate::Deleted,
    };
    Some(candidates.iter().enumerate().map(fate).collect())
}

/// Those of `selected` that the template retains.
fn stay(
    template: Template,
    selected: Vec<usize>,
    candidates: &[Candidate],
    now: Timestamp,
    counted_since: Option<Timestamp>,
) -> Vec<usize> {
    let pushed = |at: &usize| candidates[*at].pushed;
    let pulled = |at: &usize, days: u64| {
        let since = counted_since.unwrap_or(now);
        let counted = candidates[*at].pulled;
        // what was not pulled since counting began may have been pulled just before
        let young = since.0 > now.0.saturating_sub(days * DAY);
        if young { counted.max(Some(since)) } else { counted }.unwrap_or(Timestamp(0))
    };
    let within = |time: Timestamp, days: u32| time.0 >= now.0.saturating_sub(u64::from(days) * DAY);
    let latest = |number: u32, time: &dyn Fn(&usize) -> Timestamp| {
        let mut all = selected.clone();
        all.sort_by_key(|at| {
            std::cmp::Reverse((time(at), pushed(at), candidates[*at].digest.to_key()))
        });
        all.truncate(number as usize);
        all
    };
    match template {
        Template::Always => selected,
        Template::Nothing => Vec::new(),
        Template::DaysSincePush(days) | Template::LastDays(days) => {
            selected.into_iter().filter(|at| within(pushed(at), days)).collect()
        }
        Template::DaysSincePull(days) => {
            selected.into_iter().filter(|at| within(pulled(at, u64::from(days)), days)).collect()
        }
        Template::LatestPushed(number) => latest(number, &pushed),
        Template::LatestPulled(number) => latest(number, &|at| pulled(at, YOUNG)),
        Template::LatestActive(number) => {
            latest(number, &|at| candidates[*at].pulled.unwrap_or(Timestamp(0)).max(pushed(at)))
        }
    }
}

/// Whether a run that deletes `deleted` of `all` artifacts has to be confirmed, if more than
/// `percent` of a hundred may go without a word. A single artifact may.
pub fn needs_confirmation(deleted: u64, all: u64, percent: u32) -> bool {
    deleted > 1 && deleted * 100 > all * u64::from(percent)
}

/// Which tags belong to which environment, for [`environments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environments {
    /// Tags of production.
    pub production: String,
    /// Tags of staging.
    pub staging: String,
    /// Tags of development.
    pub development: String,
}

impl Default for Environments {
    fn default() -> Self {
        Environments {
            production: "v[0-9]*,prod*,release*".into(),
            staging: "stag*,rc*,uat*".into(),
            development: "dev*,pr-*,feature*,snapshot*,nightly*".into(),
        }
    }
}

/// A pattern that no tag matches: a tag does not begin with a dash.
const NO_TAG: &str = "-";

/// The rules that keep production for 90 days after a push or a pull and its ten newest artifacts,
/// staging for 30 days, development for 7 and what has no tag for 3. All other tags stay.
pub fn environments(of: &Environments) -> Result<Vec<RetentionRule>, BadPattern> {
    let rule = |template, pattern: &str, excludes: bool, untagged: bool| {
        let tags = Tags { excludes, pattern: Pattern::new(pattern)?, untagged };
        Ok(RetentionRule { disabled: false, template, repositories: Repositories::default(), tags })
    };
    let known = [&of.production, &of.staging, &of.development].map(String::as_str).join(",");
    [
        rule(Template::DaysSincePush(90), &of.production, false, false),
        rule(Template::DaysSincePull(90), &of.production, false, false),
        rule(Template::LatestPushed(10), &of.production, false, false),
        rule(Template::DaysSincePush(30), &of.staging, false, false),
        rule(Template::DaysSincePush(7), &of.development, false, false),
        rule(Template::DaysSincePush(3), NO_TAG, false, true),
        rule(Template::Always, &known, true, true),
    ]
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10_000 * DAY;
    /// Pulls have been counted for long.
    const LONG: Option<Timestamp> = Some(Timestamp(0));

    fn days_ago(days: u64) -> Timestamp {
        Timestamp(NOW - days * DAY)
    }

    fn artifact(tags: &[&str], pushed: u64, pulled: Option<u64>) -> Candidate {
        Candidate {
            digest: Digest::sha256(format!("{tags:?} {pushed} {pulled:?}").as_bytes()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            pushed: days_ago(pushed),
            pulled: pulled.map(days_ago),
            immutable: false,
        }
    }

    fn rule(template: Template, repository: &str, tag: &str) -> RetentionRule {
        RetentionRule {
            disabled: false,
            template,
            repositories: Repositories {
                excludes: false,
                pattern: Pattern::new(repository).unwrap(),
            },
            tags: Tags { pattern: Pattern::new(tag).unwrap(), ..Tags::default() },
        }
    }

    fn kept(rules: &[RetentionRule], all: &[Candidate], since: Option<Timestamp>) -> Vec<bool> {
        let fates = fates(rules, "app", all, Timestamp(NOW), since).unwrap();
        fates.into_iter().map(|fate| fate != Fate::Deleted).collect()
    }

    #[test]
    fn each_template_retains_what_harbor_retains() {
        let all = [
            artifact(&["a"], 50, Some(1)),
            artifact(&["b"], 40, None),
            artifact(&["c"], 5, Some(35)),
            artifact(&[], 20, Some(10)),
        ];
        for (template, expected) in [
            (Template::LatestPushed(2), [false, false, true, true]),
            (Template::LatestPulled(2), [true, false, false, true]),
            (Template::LatestActive(2), [true, false, true, false]),
            (Template::LatestPushed(0), [false; 4]),
            (Template::DaysSincePush(20), [false, false, true, true]),
            (Template::LastDays(5), [false, false, true, false]),
            (Template::DaysSincePull(30), [true, false, false, true]),
            (Template::DaysSincePull(0), [false; 4]),
            (Template::Always, [true; 4]),
            (Template::Nothing, [false; 4]),
        ] {
            assert_eq!(kept(&[rule(template, "", "")], &all, LONG), expected, "{template:?}");
        }
    }

    #[test]
    fn selectors_come_before_the_number_and_rules_are_joined() {
        let all =
            [artifact(&["v1"], 9, None), artifact(&["v2"], 8, None), artifact(&["x"], 1, None)];
        let newest = rule(Template::LatestPushed(1), "", "v*");
        assert_eq!(kept(std::slice::from_ref(&newest), &all, LONG), [false, true, false]);
        let both = [newest.clone(), rule(Template::Always, "", "x")];
        assert_eq!(kept(&both, &all, LONG), [false, true, true]);
        let disabled = RetentionRule { disabled: true, ..newest };
        assert_eq!(fates(&[disabled], "app", &all, Timestamp(NOW), LONG), None);
        let elsewhere = rule(Template::Nothing, "other", "");
        assert_eq!(fates(&[elsewhere], "app", &all, Timestamp(NOW), LONG), None, "not touched");
    }

    #[test]
    fn one_tag_that_stays_keeps_the_artifact_and_an_immutable_one_is_never_deleted() {
        let mut all = [artifact(&["dev-1", "prod-1"], 99, None), artifact(&["dev-2"], 99, None)];
        all[1].immutable = true;
        let rules = [rule(Template::Always, "", "prod-*")];
        let fates = fates(&rules, "app", &all, Timestamp(NOW), LONG).unwrap();
        assert_eq!(fates, [Fate::Retained, Fate::Immutable]);
    }

    #[test]
    fn while_pulls_are_counted_for_too_short_a_time_nothing_was_never_pulled() {
        let all = [artifact(&["a"], 99, None), artifact(&["b"], 99, Some(2))];
        let rules = [rule(Template::DaysSincePull(30), "", "")];
        assert_eq!(kept(&rules, &all, LONG), [false, true]);
        assert_eq!(kept(&rules, &all, Some(days_ago(10))), [true, true]);
        assert_eq!(kept(&rules, &all, Some(days_ago(31))), [false, true]);
        assert_eq!(kept(&rules, &all, None), [true, true], "an upgrade a moment ago");
    }

    /// The table of the users: production 90 days, staging 30, development 7, untagged 3.
    #[test]
    fn the_environments_keep_what_they_say() {
        let rules = environments(&Environments::default()).unwrap();
        let mut others: Vec<Candidate> =
            (0..10).map(|n| artifact(&[&format!("v9.{n}")], 1, None)).collect();
        for (tags, pushed, pulled, stays) in [
            (&["v1.0"][..], 89, None, true),
            (&["v1.0"], 91, None, false),
            (&["v1.0"], 400, Some(89), true),
            (&["prod-eu"], 400, Some(91), false),
            (&["staging-1"], 30, None, true),
            (&["staging-1"], 31, Some(1), false),
            (&["dev-1"], 7, None, true),
            (&["dev-1"], 8, None, false),
            (&["pr-17"], 8, Some(0), false),
            (&[], 3, None, true),
            (&[], 4, Some(0), false),
            (&["dev-1", "v1.0"], 80, None, true),
            (&["dev-1", "staging-1"], 20, None, true),
            (&["latest"], 4000, None, true),
            (&["dev-1", "latest"], 4000, None, true),
        ] {
            others.truncate(10);
            others.push(artifact(tags, pushed, pulled));
            let kept = kept(&rules, &others, LONG);
            assert!(kept[..10].iter().all(|kept| *kept));
            assert_eq!(kept[10], stays, "{tags:?}, pushed {pushed} and pulled {pulled:?} days ago");
        }
        let old = [artifact(&["v1.0"], 4000, None)];
        assert_eq!(kept(&rules, &old, LONG), [true], "the newest stay, however old");
    }

    #[test]
    fn templates_are_read_by_harbors_names() {
        for name in [
            "latestPushedK",
            "latestPulledN",
            "latestActiveK",
            "nDaysSinceLastPush",
            "nDaysSinceLastPull",
            "lastXDays",
            "always",
            "nothing",
        ] {
            let template = Template::named(name, Some(5)).unwrap();
            assert_eq!(template.name().0, name);
            assert!(template.name().1.is_none_or(|number| number == 5));
        }
        assert_eq!(Template::named("latestPushedK", None), Ok(Template::LatestPushed(10)));
        assert_eq!(Template::named("nDaysSinceLastPull", None), Ok(Template::DaysSincePull(30)));
        assert!(Template::named("latestPushedK", Some(32_767)).is_err());
        assert!(Template::named("newest", Some(1)).unwrap_err().contains("latestPushedK"));
    }

    #[test]
    fn a_run_that_deletes_much_has_to_be_confirmed() {
        assert!(!needs_confirmation(30, 100, 30) && needs_confirmation(31, 100, 30));
        assert!(!needs_confirmation(1, 1, 30), "one artifact");
        assert!(needs_confirmation(2, 2, 30) && !needs_confirmation(2, 2, 100));
    }
}
