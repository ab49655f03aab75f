//! The audit log, in Harbor's two forms (`/audit-logs`, `/auditlog-exts`), which are one here: an
//! entry has the fields of both.

use http::Response;
use rules::ledger::events::{Event, EventId, LookForEvents};
use rules::ledger::records::{Project, ReadRecords, RecordError};
use rules::words::query::{self, Field, Kind, text};
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad};
use crate::http::request::Request;
use crate::http::{Failure, Payload};

/// What `q` may be about.
const FIELDS: &[Field<Event>] = &[
    Field::new("username", Kind::Text, |event| text(&event.by.name)),
    Field::new("resource", Kind::Text, |event| text(event.named().0)),
    Field::new("resource_type", Kind::Text, |event| text(&event.resource_type)),
    Field::new("operation", Kind::Text, |event| text(&event.operation)),
    Field::new("operation_result", Kind::Flag, |event| query::Value::Flag(event.refused.is_none())),
    Field::new("project", Kind::Text, |event| {
        text(event.project.as_ref().map_or("", |project| project.as_str()))
    }),
    Field::new("client", Kind::Text, |event| {
        let address = event.by.address.map(|address| address.to_string());
        query::Value::Text(address.unwrap_or_default().into())
    }),
    Field::new("op_time", Kind::Time, |event| query::Value::Time(event.at)),
];

impl Harbor {
    /// What happened, the newest first, or the oldest with `sort=op_time`; of one project or of all.
    pub(super) async fn list_events(
        &self,
        request: &Request,
        project: Option<&Project>,
    ) -> Result<Response<Payload>, Failure> {
        let page = PageRequest::read(request)?;
        let selection = page.about(FIELDS)?;
        // the log is in the order of time, and too long for another one
        let oldest_first = match selection.sorted_by().collect::<Vec<_>>()[..] {
            [] | [("op_time", true)] => false,
            [("op_time", false)] => true,
            _ => return Err(bad("sort: the log is sorted by op_time or -op_time only")),
        };
        let wanted = |event: &Event| {
            // what happened in an earlier project of that name is for administrators
            let is_its = |project: &Project| {
                event.project.as_ref() == Some(&project.name) && event.at >= project.created
            };
            project.is_none_or(is_its) && selection.admits(event)
        };
        let places = page.few_places();
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
                    return numbered(records, places.clone());
                }
                let (_, total) = numbered(records, 0..0)?;
                let end = total.saturating_sub(places.start);
                let (mut found, _) = numbered(records, end.saturating_sub(places.len())..end)?;
                found.reverse();
                Ok((found, total))
            })
            .await?;
        let shown: Vec<Value> = found.iter().map(|(id, event)| show(*id, event)).collect();
        Ok(page.answer_shown(shown, total))
    }
}

fn show(id: EventId, event: &Event) -> Value {
    let (name, details) = event.named();
    let what = format!("{} {} {name}", event.operation, event.resource_type);
    let what = match details {
        "" => what.trim_end().to_owned(),
        details => format!("{what}: {details}"),
    };
    json!({
        "id": id.number(),
        "username": event.by.name,
        "client": event.by.address.map(|address| address.to_string()),
        "operation": event.operation,
        "operation_description": what,
        "operation_result": event.refused.is_none(),
        "reason": event.refused,
        "resource": name,
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
    use rules::words::query::Query;

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
            let query = Query::parse(q, "").unwrap_or_else(|e| panic!("{q}: {e}"));
            let selection = query.about(FIELDS).unwrap_or_else(|e| panic!("{q}: {e}"));
            assert_eq!(selection.admits(&event), admits, "{q}");
        }
        for q in ["username", "color=red", "op_time=noon", "op_time=[2024]"] {
            let query = Query::parse(q, "");
            assert!(query.and_then(|query| query.about(FIELDS).map(|_| ())).is_err(), "{q}");
        }
    }
}
