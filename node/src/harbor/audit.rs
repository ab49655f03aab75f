//! The audit log, in Harbor's two forms (`/audit-logs`, `/auditlog-exts`), which are one here: an
//! entry has the fields of both.

use http::{Response, StatusCode};
use rules::ledger::events::{Event, EventId, LookForEvents};
use rules::ledger::records::{Project, ReadRecords, RecordError};
use serde_json::{Value, json};

use super::{Harbor, bad};
use crate::http::answer::{json_answer, set};
use crate::http::request::Request;
use crate::http::{Failure, Payload};

/// The default and the maximum number of entries on a page.
const PAGE: usize = 10;
const LARGEST: usize = 100;

/// A condition in `q`.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    /// The field is this.
    Is(String, String),
    /// The field has this in it.
    Has(String, String),
    /// `op_time=[from~to]`: either may be missing. Times are RFC 3339 in UTC, or the beginning of
    /// one: a day.
    Between(String, String),
}

/// The fields that a condition may be about.
const FIELDS: &[&str] = &[
    "username",
    "resource",
    "resource_type",
    "operation",
    "operation_result",
    "project",
    "client",
];

/// Parses `q`: conditions, separated by commas.
fn conditions(q: &str) -> Result<Vec<Condition>, Failure> {
    let one = |text: &str| {
        let wrong = || {
            bad(format!(
                "q: '{text}' is not field=value, field=~part or op_time=[from~to]; the fields are {}",
                FIELDS.join(", ")
            ))
        };
        let (field, value) = text.split_once('=').ok_or_else(wrong)?;
        let field = field.trim().to_lowercase();
        if field == "op_time" {
            let range = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            let (from, to) = range.and_then(|range| range.split_once('~')).ok_or_else(wrong)?;
            let plain = |time: &str| time.trim().replace(' ', "T");
            return Ok(Condition::Between(plain(from), plain(to)));
        }
        if !FIELDS.contains(&field.as_str()) {
            return Err(wrong());
        }
        Ok(match value.strip_prefix('~') {
            Some(part) => Condition::Has(field, part.to_owned()),
            None => Condition::Is(field, value.to_owned()),
        })
    };
    q.split(',').filter(|text| !text.trim().is_empty()).map(one).collect()
}

impl Condition {
    fn admits(&self, event: &Event) -> bool {
        match self {
            Condition::Is(name, value) => field(event, name) == *value,
            Condition::Has(name, part) => field(event, name).contains(part),
            Condition::Between(from, to) => {
                let at = event.at.to_string();
                // what begins like the end is before it: a day lasts until its end
                at.as_str() >= from.as_str()
                    && (to.is_empty() || at.as_str() <= to.as_str() || at.starts_with(to.as_str()))
            }
        }
    }
}

fn field(event: &Event, name: &str) -> String {
    match name {
        "username" => event.by.name.clone(),
        "resource" => event.resource.clone(),
        "resource_type" => event.resource_type.clone(),
        "operation" => event.operation.clone(),
        "operation_result" => event.refused.is_none().to_string(),
        "project" => event.project.as_ref().map(ToString::to_string).unwrap_or_default(),
        "client" => event.by.address.map(|address| address.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

impl Harbor {
    /// What happened, the newest first, or the oldest with `sort=op_time`; of one project or of all.
    pub(super) async fn list_events(
        &self,
        request: &Request,
        project: Option<&Project>,
    ) -> Result<Response<Payload>, Failure> {
        let number = |name: &str, otherwise: usize, most: usize| {
            let Some(text) = request.query(name) else { return Ok(otherwise) };
            let number = text.parse().ok().filter(|n| (1..=most).contains(n));
            number.ok_or_else(|| bad(format!("{name} is a number from 1 to {most}")))
        };
        let (page, size) = (number("page", 1, 1_000_000)?, number("page_size", PAGE, LARGEST)?);
        let oldest_first = match request.query("sort") {
            None | Some("-op_time") => false,
            Some("op_time") => true,
            Some(other) => return Err(bad(format!("sort: '{other}' is not op_time or -op_time"))),
        };
        let conditions = conditions(request.query("q").unwrap_or_default())?;
        let wanted = |event: &Event| {
            project.is_none_or(|project| event.project.as_ref() == Some(&project.name))
                && conditions.iter().all(|condition| condition.admits(event))
        };
        let skip = (page - 1).saturating_mul(size);
        // only what is shown is kept in memory
        let numbered = |records: &dyn ReadRecords, places: std::ops::Range<usize>| {
            let (mut kept, mut place) = (Vec::new(), 0);
            (&records).newest_events(|id, event| {
                if wanted(&event) {
                    if places.contains(&place) {
                        kept.push((id, event));
                    }
                    place += 1;
                }
                true
            })?;
            Ok::<_, RecordError>((kept, place))
        };
        let (found, total) = self
            .read_at_length(|records| {
                if !oldest_first {
                    return numbered(records, skip..skip.saturating_add(size));
                }
                let (_, total) = numbered(records, 0..0)?;
                let end = total.saturating_sub(skip);
                let (mut found, _) = numbered(records, end.saturating_sub(size)..end)?;
                found.reverse();
                Ok((found, total))
            })
            .await?;
        let shown: Vec<Value> = found.iter().map(|(id, event)| show(*id, event)).collect();
        let mut response = json_answer(StatusCode::OK, &Value::from(shown));
        set(&mut response, "x-total-count", total.to_string());
        Ok(response)
    }
}

fn show(id: EventId, event: &Event) -> Value {
    let what = format!("{} {} {}", event.operation, event.resource_type, event.resource);
    json!({
        "id": id.number(),
        "username": event.by.name,
        "client": event.by.address.map(|address| address.to_string()),
        "operation": event.operation,
        "operation_description": what.trim_end(),
        "operation_result": event.refused.is_none(),
        "reason": event.refused,
        "resource": event.resource,
        "resource_type": event.resource_type,
        "project": event.project.as_ref().map(|project| project.as_str()),
        "op_time": event.at.to_string(),
        "count": event.count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::events::Actor;
    use rules::words::moment::Timestamp;

    #[test]
    fn conditions_choose_by_field_part_and_time() {
        let event = Event {
            at: Timestamp(1_709_210_096_000), // 2024-02-29T12:34:56Z
            by: Actor { name: "ann".into(), address: Some([192, 0, 2, 7].into()) },
            operation: "create".into(),
            resource_type: "artifact".into(),
            resource: "team/app:1".into(),
            project: Some("team".parse().unwrap()),
            refused: None,
            count: 1,
        };
        for (q, admits) in [
            ("", true),
            ("username=ann,operation=create", true),
            ("username=an", false),
            ("username=~an", true),
            ("resource=~app", true),
            ("project=team", true),
            ("client=192.0.2.7", true),
            ("operation_result=false", false),
            ("op_time=[2024-02-29~2024-02-29]", true),
            ("op_time=[2024-02-29 12:00:00~]", true),
            ("op_time=[2024-03-01~]", false),
            ("op_time=[~2024-02-28]", false),
            ("op_time=[2024-02-01~2024-03]", true),
        ] {
            let conditions = conditions(q).unwrap_or_else(|_| panic!("{q}"));
            assert_eq!(conditions.iter().all(|c| c.admits(&event)), admits, "{q}");
        }
        for q in ["username", "color=red", "op_time=2024", "op_time=[2024]"] {
            assert_eq!(conditions(q).unwrap_err().status(), 400, "{q}");
        }
    }
}
