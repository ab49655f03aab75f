//! What is vulnerable in the whole mesh, in Harbor's API (`handler/security.go`): numbers, and a list
//! of findings.
//!
//! The ledger has of each image its ids with their severities. Packages and texts are made anew from
//! what is kept of the layers, for the images on the page only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;

use http::{Response, StatusCode};
use rules::ledger::records::{Look, Project, ReadRecords, RecordError, key as records_key};
use rules::ledger::scanning::{LookForScans, Report};
use rules::policies::vulnerabilities::{Severity, Weakness};
use rules::words::digest::Digest;
use rules::words::names::{ProjectId, RepositoryName};
use rules::words::query::{self, Field, Kind, Selection, text};
use scan::Finding;
use serde_json::{Value, json};

use super::Harbor;
use super::lists::PageRequest;
use super::repositories::repositories;
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// How many of the worst images and ids a summary names.
const WORST: usize = 5;
/// The maximum number of ids whose scores are compared for a summary.
const COMPARED: usize = 2_000;
/// The last entry of the list that can be asked for: what comes later is found with `q`.
const DEEPEST: usize = 10_000;
/// The maximum number of images whose packages are looked through for one list.
const LOOKED_THROUGH: usize = 50;

/// An image with a report.
struct Reported {
    project: ProjectId,
    repository: RepositoryName,
    digest: Digest,
    found: Vec<Weakness>,
}

/// Calls `take` with each image that has a report.
fn each_report(
    records: &dyn ReadRecords,
    projects: &[Project],
    mut take: impl FnMut(Reported) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    for project in projects {
        records.each_scan(&project.name, |repository, digest, record| match record.report {
            Some(Report { found, .. }) => {
                take(Reported { project: project.id, repository, digest, found })
            }
            None => Ok(()),
        })?;
    }
    Ok(())
}

/// Numbers of the whole mesh.
#[derive(Debug, Default)]
struct Tally {
    scanned: usize,
    fixable: usize,
    by_severity: BTreeMap<Severity, usize>,
    /// The images with the most of the worst, the worst first.
    worst: Vec<([usize; 3], ProjectId, RepositoryName, Digest)>,
    /// An image for each of the worst ids.
    ids: BTreeMap<(Reverse<Severity>, String), (RepositoryName, Digest)>,
}

impl Tally {
    fn take(&mut self, one: Reported) {
        self.scanned += 1;
        let count = |severity| one.found.iter().filter(|weak| weak.severity == severity).count();
        for weakness in &one.found {
            self.fixable += usize::from(weakness.fixable);
            *self.by_severity.entry(weakness.severity).or_default() += 1;
            let id = (Reverse(weakness.severity), weakness.id.to_string());
            let place = || (one.repository.clone(), one.digest);
            self.ids.entry(id).or_insert_with(place);
            if self.ids.len() > COMPARED {
                self.ids.pop_last();
            }
        }
        let counts = [Severity::Critical, Severity::High, Severity::Medium].map(count);
        if counts != [0; 3] {
            self.worst.push((counts, one.project, one.repository, one.digest));
            self.worst.sort_by(|one, other| other.cmp(one));
            self.worst.truncate(WORST);
        }
    }
}

/// One line of the list: an id in an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    severity: Reverse<Severity>,
    repository: RepositoryName,
    digest: Digest,
    id: String,
    project: ProjectId,
    fixable: bool,
    tags: Vec<String>,
    /// Only known if the client asks for it.
    packages: Vec<String>,
}

/// What `q` may be about.
const FIELDS: &[Field<Line>] = &[
    Field::new("cve_id", Kind::Text, |one| text(&one.id)),
    Field::new("severity", Kind::Text, |one| text(one.severity.0.word())),
    Field::new("project_id", Kind::Number, |one| query::number(one.project.0)),
    Field::new("repository_name", Kind::Text, |one| text(one.repository.as_str())),
    Field::new("digest", Kind::Text, |one| query::Value::Text(one.digest.to_string().into())),
    Field::new("tag", Kind::Several, |one| query::Value::Several(one.tags.clone())),
    Field::new("package", Kind::Several, |one| query::Value::Several(one.packages.clone())),
    Field::new("fixable", Kind::Flag, |one| query::Value::Flag(one.fixable)),
];

/// The lines with the smallest places in the order, and how many there are in all.
struct Page {
    most: usize,
    total: usize,
    lines: BinaryHeap<Line>,
}

impl Page {
    fn take(&mut self, line: Line) {
        self.total += 1;
        self.lines.push(line);
        if self.lines.len() > self.most {
            self.lines.pop();
        }
    }
}

fn tags(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<String>, RecordError> {
    let prefix = records_key::all_named(repository, digest);
    let named = records.scan(&prefix, None, usize::MAX)?;
    let tag = |place: &[u8]| String::from_utf8_lossy(&place[prefix.len()..]).into_owned();
    Ok(named.iter().map(|(place, _)| tag(place)).collect())
}

/// The findings with this id.
fn of_id<'f>(findings: &'f [Finding], id: &str) -> Vec<&'f Finding> {
    findings.iter().filter(|finding| finding.id == id).collect()
}

/// Names without repetition, in one text.
fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = names.filter(|name| !name.is_empty() && seen.insert(*name)).collect();
    names.join(", ")
}

fn score(findings: &[&Finding]) -> Option<f64> {
    findings.iter().filter_map(|one| one.cvss.as_ref()?.v3_score).reduce(f64::max)
}

impl Harbor {
    pub(super) async fn show_security(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let (tally, artifacts) = self
            .read_at_length(|records| {
                let mut tally = Tally::default();
                let projects = records.projects()?;
                each_report(records, &projects, |one| {
                    tally.take(one);
                    Ok(())
                })?;
                let mut artifacts = 0;
                for project in &projects {
                    let repositories = repositories(records, &project.name)?;
                    artifacts += repositories.iter().map(|one| one.manifests()).sum::<u64>();
                }
                Ok::<_, RecordError>((tally, artifacts))
            })
            .await?;
        let count = |severity| tally.by_severity.get(&severity).copied().unwrap_or_default();
        let mut shown = json!({
            "critical_cnt": count(Severity::Critical),
            "high_cnt": count(Severity::High),
            "medium_cnt": count(Severity::Medium),
            "low_cnt": count(Severity::Low),
            "none_cnt": count(Severity::Negligible),
            "unknown_cnt": count(Severity::Unknown),
            "total_vuls": tally.by_severity.values().sum::<usize>(),
            "fixable_cnt": tally.fixable,
            "scanned_cnt": tally.scanned,
            "total_artifact": artifacts,
        });
        if request.query("with_dangerous_artifact") == Some("true") {
            let show = |(counts, project, repository, digest): &(
                [usize; 3],
                ProjectId,
                RepositoryName,
                Digest,
            )| {
                json!({
                    "project_id": project.0,
                    "repository_name": repository.as_str(),
                    "digest": digest.to_string(),
                    "critical_cnt": counts[0],
                    "high_cnt": counts[1],
                    "medium_cnt": counts[2],
                })
            };
            shown["dangerous_artifacts"] = tally.worst.iter().map(show).collect();
        }
        if request.query("with_dangerous_cve") == Some("true") {
            shown["dangerous_cves"] = self.worst_ids(&tally).await?.into();
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// The worst ids, by their severity and then by their score, each with an image's package.
    async fn worst_ids(&self, tally: &Tally) -> Result<Vec<Value>, Failure> {
        let scores = self.scans.scores(tally.ids.keys().map(|(_, id)| id.as_str()))?;
        let mut ids: Vec<_> = tally.ids.iter().collect();
        let score_of = |id: &str| scores.get(id).copied().unwrap_or_default();
        ids.sort_by(|((severity, id), _), ((other_severity, other), _)| {
            severity.cmp(other_severity).then(score_of(other).total_cmp(&score_of(id)))
        });
        let mut shown = Vec::new();
        for ((severity, id), (repository, digest)) in ids.into_iter().take(WORST) {
            let found = self.scans.findings(repository, digest).await?;
            let findings = found.map(|found| found.findings).unwrap_or_default();
            let of_id = of_id(&findings, id);
            let first = of_id.first();
            shown.push(json!({
                "cve_id": id,
                "severity": severity.0.word(),
                "cvss_score_v3": score_of(id),
                "desc": first.map(|one| one.title.clone()).unwrap_or_default(),
                "package": joined(of_id.iter().map(|one| one.package.as_str())),
                "version": joined(of_id.iter().map(|one| one.installed.as_str())),
            }));
        }
        Ok(shown)
    }

    pub(super) async fn list_vulnerabilities(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let selection = wanted.about(FIELDS)?;
        if request.query("sort").is_some_and(|sort| !sort.is_empty()) {
            let message = "this list has one order: the worst first";
            return Err(Failure::new(Code::BadRequest, message));
        }
        let places = wanted.few_places();
        if places.end > DEEPEST {
            let message = format!("entries after the {DEEPEST}th are found with q only");
            return Err(Failure::new(Code::BadRequest, message));
        }
        let packages = match selection.needs("package") {
            true => Some(self.packages(&wanted).await?),
            false => None,
        };
        let (lines, total) = self
            .read_at_length(|records| lines(records, &selection, &places, packages.as_ref()))
            .await?;
        let mut found: BTreeMap<(RepositoryName, Digest), Vec<Finding>> = BTreeMap::new();
        let mut shown = Vec::new();
        let mut ids: BTreeMap<(RepositoryName, Digest), BTreeSet<String>> = BTreeMap::new();
        for line in &lines {
            let of_image = ids.entry((line.repository.clone(), line.digest)).or_default();
            of_image.insert(line.id.to_string());
        }
        for line in lines {
            let image = (line.repository.clone(), line.digest);
            if !found.contains_key(&image) {
                // it may be gone by now
                let report = self.scans.findings(&image.0, &image.1).await?;
                let mut findings = report.map(|one| one.findings).unwrap_or_default();
                // no more of many images than is shown
                findings.retain(|one| ids.get(&image).is_some_and(|ids| ids.contains(&one.id)));
                found.insert(image.clone(), findings);
            }
            let findings = found.get(&image).map(Vec::as_slice).unwrap_or_default();
            shown.push(show(&line, &of_id(findings, &line.id)));
        }
        Ok(wanted.answer_shown(shown, total))
    }

    /// The packages that have each id, of all images that the rest of `q` may be about.
    async fn packages(&self, wanted: &PageRequest) -> Result<Packages, Failure> {
        let repository = wanted.wants("repository_name").map(str::to_owned);
        let digest = wanted.wants("digest").map(str::to_owned);
        let id = wanted.wants("cve_id").map(str::to_owned);
        let project = wanted.wants("project_id").and_then(|number| number.parse().ok());
        let images = self
            .read_at_length(|records| {
                let mut images = Vec::new();
                each_report(records, &records.projects()?, |one| {
                    let fits = repository.as_deref().is_none_or(|is| is == one.repository.as_str())
                        && digest.as_deref().is_none_or(|is| is == one.digest.to_string())
                        && project.is_none_or(|is: u64| is == one.project.0)
                        && id.as_deref().is_none_or(|is| {
                            one.found.iter().any(|weakness| weakness.id.to_string() == is)
                        });
                    if fits && images.len() <= LOOKED_THROUGH {
                        images.push((one.repository, one.digest));
                    }
                    Ok(())
                })?;
                Ok::<_, RecordError>(images)
            })
            .await?;
        if images.len() > LOOKED_THROUGH {
            let message = format!(
                "q: package is looked for in at most {LOOKED_THROUGH} images; name a cve_id, a project_id or a repository_name, too"
            );
            return Err(Failure::new(Code::BadRequest, message));
        }
        let mut packages = Packages::new();
        for (repository, digest) in images {
            let Some(found) = self.scans.findings(&repository, &digest).await? else { continue };
            let of_image = packages.entry((repository, digest)).or_default();
            for finding in found.findings {
                of_image.entry(finding.id).or_default().push(finding.package);
            }
        }
        Ok(packages)
    }
}

/// The packages of each image, by the ids that they have.
type Packages = BTreeMap<(RepositoryName, Digest), BTreeMap<String, Vec<String>>>;

/// The wanted lines at these places, in their order, and the number of all.
fn lines(
    records: &dyn ReadRecords,
    selection: &Selection<'_, Line>,
    places: &Range<usize>,
    packages: Option<&Packages>,
) -> Result<(Vec<Line>, usize), RecordError> {
    let mut page = Page { most: places.end, total: 0, lines: BinaryHeap::new() };
    let by_tag = selection.needs("tag");
    each_report(records, &records.projects()?, |one| {
        let tags_of = || tags(records, &one.repository, &one.digest);
        let tags = if by_tag { tags_of()? } else { Vec::new() };
        let of_image = packages.map(|all| all.get(&(one.repository.clone(), one.digest)));
        for weakness in &one.found {
            let id = weakness.id.to_string();
            let packages = of_image.flatten().and_then(|all| all.get(&id)).cloned();
            let line = Line {
                severity: Reverse(weakness.severity),
                repository: one.repository.clone(),
                digest: one.digest,
                id,
                project: one.project,
                fixable: weakness.fixable,
                tags: tags.clone(),
                packages: packages.unwrap_or_default(),
            };
            if selection.admits(&line) {
                page.take(line);
            }
        }
        Ok(())
    })?;
    let mut lines: Vec<Line> =
        page.lines.into_sorted_vec().into_iter().skip(places.start).collect();
    for line in &mut lines {
        line.tags = tags(records, &line.repository, &line.digest)?;
    }
    Ok((lines, page.total))
}

fn show(line: &Line, findings: &[&Finding]) -> Value {
    let first = findings.first();
    json!({
        "project_id": line.project.0,
        "repository_name": line.repository.as_str(),
        "digest": line.digest.to_string(),
        "tags": line.tags,
        "cve_id": line.id,
        "severity": line.severity.0.word(),
        "status": first.map(|one| one.status.name()).unwrap_or_default(),
        "cvss_v3_score": score(findings).unwrap_or_default(),
        "package": joined(findings.iter().map(|one| one.package.as_str())),
        "version": joined(findings.iter().map(|one| one.installed.as_str())),
        "fixed_version": joined(findings.iter().filter_map(|one| one.fixed.as_deref())),
        "desc": first.map(|one| one.title.clone()).unwrap_or_default(),
        "links": first.map(|one| one.links.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use rules::policies::vulnerabilities::VulnerabilityId;

    use super::*;

    fn reported(name: &str, found: &[(&str, Severity, bool)]) -> Reported {
        let weak = |(id, severity, fixable): &(&str, Severity, bool)| Weakness {
            id: VulnerabilityId::from(*id),
            severity: *severity,
            fixable: *fixable,
        };
        Reported {
            project: ProjectId(1),
            repository: name.parse().unwrap(),
            digest: Digest::sha256(name.as_bytes()),
            found: found.iter().map(weak).collect(),
        }
    }

    #[test]
    fn the_worst_images_come_first_and_few_of_them() {
        let mut tally = Tally::default();
        for n in 0..9_usize {
            let found: Vec<_> = (0..n).map(|_| ("CVE-2024-0001", Severity::High, true)).collect();
            tally.take(reported(&format!("shop/n{n}"), &found));
        }
        tally.take(reported("shop/bad", &[("CVE-2024-0002", Severity::Critical, false)]));
        assert_eq!((tally.scanned, tally.fixable), (10, 36));
        let names: Vec<&str> = tally.worst.iter().map(|(_, _, name, _)| name.as_str()).collect();
        assert_eq!(names, ["shop/bad", "shop/n8", "shop/n7", "shop/n6", "shop/n5"]);
        let first = tally.ids.keys().next().unwrap();
        assert_eq!(first.1, "CVE-2024-0002");
    }

    #[test]
    fn a_page_keeps_the_first_lines_and_counts_all() {
        let mut page = Page { most: 2, total: 0, lines: BinaryHeap::new() };
        for (id, severity) in
            [("a", Severity::Low), ("b", Severity::Critical), ("c", Severity::High)]
        {
            page.take(Line {
                severity: Reverse(severity),
                repository: "shop/web".parse().unwrap(),
                digest: Digest::sha256(b"image"),
                id: id.into(),
                project: ProjectId(1),
                fixable: false,
                tags: Vec::new(),
                packages: Vec::new(),
            });
        }
        let ids: Vec<String> =
            page.lines.into_sorted_vec().into_iter().map(|line| line.id).collect();
        assert_eq!((page.total, ids), (3, vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!(joined(["a", "b", "a", ""].into_iter()), "a, b");
    }
}
