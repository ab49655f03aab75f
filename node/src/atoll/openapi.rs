//! The document of the API (`/api/openapi.json`, OpenAPI 3.1): every path and method that
//! [`rules::people::doors`] lists under `/api/`, with what it takes and answers.
//!
//! Paths and methods come from that table, by which requests are routed and admitted. What is said of
//! each is in [`operations`]; a test compares the two, and `tests/scenarios/openapi.rs` compares the
//! document with what a running node answers.

mod operations;
mod schemas;

use std::sync::OnceLock;

use http::{HeaderValue, Response, header};
use rules::people::doors::{DOORS, Need};
use serde_json::{Map, Value, json};

use crate::http::Payload;
use operations::{Answer, Operation, find};

/// The answer with the document.
pub(super) fn answer() -> Response<Payload> {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| document().to_string());
    let mut response = Response::new(Payload::full(text.clone()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The variable parts of a path.
fn variables(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// What a variable part of a path is. In Atoll's own API ids are hexadecimal.
fn variable(path: &str, name: &str) -> Value {
    let schema = match name {
        "id" if path.starts_with("/api/atoll/") => {
            json!({"type": "string", "pattern": "^[0-9a-f]{1,32}$"})
        }
        "id" | "user" | "label" | "trust" => json!({"type": "integer", "minimum": 1}),
        // a number names a project, too
        "project" => schemas::of_pattern(schemas::PART, 255),
        "name" if path.contains("/repositories/") => schemas::of_pattern(schemas::PARTS, 1024),
        "reference" => schemas::of_pattern(schemas::REFERENCE, 135),
        "signer" => schemas::of_pattern("^[a-z0-9._-]{1,64}$", 64),
        "scanner" => json!({"type": "string", "format": "uuid"}),
        "tag" => schemas::of_pattern(schemas::TAG, 128),
        _ => json!({"type": "string", "minLength": 1}),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

fn reference(schema: &str) -> Value {
    match schema.strip_suffix("[]") {
        Some(one) => json!({"type": "array", "items": reference(one)}),
        None => json!({"$ref": format!("#/components/schemas/{schema}")}),
    }
}

fn success(operation: &Operation) -> (&'static str, Value) {
    let described = |schema: Value, kind: &str| json!({kind: {"schema": schema}});
    let (status, content) = match operation.answer {
        Answer::Shows(schema) => ("200", Some(described(reference(schema), "application/json"))),
        Answer::Text => ("200", Some(described(json!({"type": "string"}), "text/plain"))),
        Answer::Table => ("200", Some(described(json!({"type": "string"}), "text/csv"))),
        Answer::Done => ("200", None),
        Answer::Created => ("201", None),
        Answer::CreatedShows(schema) => {
            ("201", Some(described(reference(schema), "application/json")))
        }
        Answer::Accepted(schema) => ("202", Some(described(reference(schema), "application/json"))),
        Answer::Begun => ("202", None),
        Answer::NoContent => ("204", None),
    };
    let mut response = json!({"description": "done"});
    if let Some(content) = content {
        response["content"] = content;
    }
    let mut headers = json!({"X-Request-Id": {"schema": {"type": "string"}}});
    if matches!(status, "201" | "202") {
        headers["Location"] = json!({"schema": {"type": "string"}});
    }
    if operation.is_list() {
        headers["X-Total-Count"] = json!({"schema": {"type": "integer"}});
        headers["Link"] = json!({"schema": {"type": "string"}});
    }
    response["headers"] = headers;
    (status, response)
}

/// The statuses of errors, with what they mean here. The one table of them is `http::errors`.
const ERRORS: [(&str, &str, bool); 10] = [
    ("400", "the request cannot be understood", false),
    ("401", "credentials are needed, or wrong", false),
    ("403", "the caller may not do this, or the mesh's feature level is too low", false),
    ("404", "there is no such thing", false),
    ("405", "not here: this node is an edge", false),
    ("409", "it exists already, or something else does", true),
    ("412", "the present state does not allow it", true),
    ("413", "the body is too large", true),
    ("415", "the body's media type is not application/json", true),
    ("429", "too many requests", false),
];

fn described(path: &str, method: &str, need: Need, operation: &Operation) -> Value {
    let changes = method != "GET";
    let (status, response) = success(operation);
    let mut responses = Map::from_iter([(status.to_owned(), response)]);
    if let Some(other) = operation.other {
        responses.insert(other.to_string(), json!({"description": "done"}));
    }
    let error = |meaning: &str| {
        let content = json!({"application/json": {"schema": reference("Errors")}});
        json!({"description": meaning, "content": content})
    };
    for (status, meaning, of_changes) in ERRORS {
        if changes || !of_changes {
            responses.insert(status.to_owned(), error(meaning));
        }
    }
    responses.insert("503".to_owned(), error("not possible now; try again"));
    let mut parameters: Vec<Value> = variables(path).map(|name| variable(path, name)).collect();
    parameters.extend(operation.parameters().map(operations::parameter));
    parameters.extend(operation.header.map(|name| {
        let schema = json!({"type": "string"});
        json!({"name": name, "in": "header", "required": true, "schema": schema})
    }));
    let mut shown = json!({
        "operationId": operation.id(),
        "summary": operation.summary,
        "tags": [operation.tag()],
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(schema) = operation.body {
        let content = json!({"application/json": {"schema": reference(schema)}});
        shown["requestBody"] = json!({"required": true, "content": content});
    }
    if need == Need::Nothing {
        shown["security"] = json!([{}, {"basic": []}, {"bearer": []}]);
    }
    shown
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for row in DOORS.iter().filter(|row| row.path.starts_with("/api/")) {
        let entry = paths.entry(row.path).or_insert_with(|| json!({}));
        for method in row.methods {
            if let Some(operation) = find(row.path, method) {
                let shown = described(row.path, method, row.need, operation);
                entry[method.to_lowercase()] = shown;
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Harbor's API (/api/v2.0) and Atoll's own (/api/atoll/v1). \
                HEAD works wherever GET does.",
        },
        "security": [{"basic": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_of_the_api_is_described_once_and_nothing_else_is() {
        let routed: BTreeSet<(&str, &str)> = DOORS
            .iter()
            .filter(|row| row.path.starts_with("/api/"))
            .flat_map(|row| row.methods.iter().map(|method| (row.path, *method)))
            .collect();
        let all = operations::OPERATIONS;
        let told: BTreeSet<(&str, &str)> = all.iter().map(|one| (one.path, one.method)).collect();
        assert_eq!(told, routed, "operations.rs on the left, doors.rs on the right");
        assert_eq!(all.len(), told.len(), "something is described twice");
        let ids: BTreeSet<String> = all.iter().map(Operation::id).collect();
        assert_eq!(ids.len(), all.len(), "{ids:?}");
    }

    #[test]
    fn the_document_refers_to_nothing_that_it_lacks() {
        let document = document();
        let text = document.to_string();
        for place in text.split("\"$ref\":\"#").skip(1) {
            let place = place.split('"').next().unwrap();
            assert!(document.pointer(place).is_some(), "{place}");
        }
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in schemas.keys() {
            assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is unused");
        }
    }
}
