//! The schemas of the API's bodies and answers. Answers may have more fields than are named here.

use serde_json::{Map, Value, json};

const TEXT: &str = "text";

// The grammars of `rules::words::names`; a test compares them.
/// A part of a repository's name, such as a project.
pub(super) const PART: &str = r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$";
/// A repository's name without its project; in paths slashes are encoded.
pub(super) const PARTS: &str = r"^[a-z0-9]+((\.|_|__|-+|/|%2F|%252F)[a-z0-9]+)*$";
/// A tag.
pub(super) const TAG: &str = r"^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$";
/// A tag, or a digest.
pub(super) const REFERENCE: &str =
    r"^([a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$";
/// A robot's name, without the prefix and without its project.
const ROBOT: &str = r"^[a-z0-9]+([._-][a-z0-9]+)*$";
/// A user's name. Characters that cannot be seen are refused, too.
const USER: &str =
    "^[^\\s\\x00-\\x1f\\x7f,\"~#$%:]([^\\x00-\\x1f\\x7f,\"~#$%:]*[^\\s\\x00-\\x1f\\x7f,\"~#$%:])?$";

/// A text of this form.
pub(super) fn of_pattern(pattern: &str, most: u32) -> Value {
    json!({"type": "string", "pattern": pattern, "minLength": 1, "maxLength": most})
}

/// An object with these fields. A `?` at the end of a name means that the field may be missing, or
/// null.
fn object(fields: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in fields {
        match name.strip_suffix('?') {
            Some(name) => {
                let optional = json!({"anyOf": [schema, {"type": "null"}]});
                properties.insert(name.to_owned(), optional);
            }
            None => {
                properties.insert((*name).to_owned(), schema.clone());
                required.push(*name);
            }
        }
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn kind(word: &str) -> Value {
    match word {
        TEXT => json!({"type": "string"}),
        word => json!({"type": word}),
    }
}

fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

/// What retention would have deleted by some days.
fn in_days() -> Value {
    let number = kind("integer");
    let day = [("days", number.clone()), ("deleted", number.clone()), ("bytes", number)];
    list(object(&day))
}

fn texts() -> Value {
    json!({"type": "object", "additionalProperties": kind(TEXT)})
}

fn numbers() -> Value {
    json!({"type": "object", "additionalProperties": kind("integer")})
}

/// When something of the mesh runs.
fn times() -> Value {
    let words = json!({"enum": ["Hourly", "Daily", "Weekly", "Custom", "None", "Manual"]});
    object(&[("type", words), ("cron?", kind(TEXT))])
}

fn answers() -> Vec<(&'static str, Value)> {
    let (text, number, flag) = (kind(TEXT), kind("integer"), kind("boolean"));
    let id = || ("id", kind("integer"));
    let error = object(&[("code", text.clone()), ("message", text.clone())]);
    vec![
        ("Anything", json!({})),
        ("Errors", object(&[("errors", list(error))])),
        ("Metadata", texts()),
        (
            "Project",
            object(&[
                ("project_id", number.clone()),
                ("name", text.clone()),
                ("creation_time", text.clone()),
                ("metadata", texts()),
                ("registry_id?", number.clone()),
                ("current_user_role_id", number.clone()),
            ]),
        ),
        (
            "Member",
            object(&[
                id(),
                ("project_id", number.clone()),
                ("entity_name", text.clone()),
                ("entity_id", number.clone()),
                ("entity_type", json!({"enum": ["u", "g"]})),
                ("role_id", number.clone()),
                ("role_name", text.clone()),
            ]),
        ),
        (
            "Repository",
            object(&[
                id(),
                ("project_id", number.clone()),
                ("name", text.clone()),
                ("artifact_count", number.clone()),
                ("creation_time", text.clone()),
            ]),
        ),
        (
            "Artifact",
            object(&[
                id(),
                ("digest", text.clone()),
                ("type", text.clone()),
                ("size", number.clone()),
                ("manifest_media_type", text.clone()),
                ("push_time", text.clone()),
                ("tags", list(json!({"$ref": "#/components/schemas/Tag"}))),
                ("extra_attrs?", kind("object")),
            ]),
        ),
        ("Tag", object(&[id(), ("name", text.clone()), ("push_time", text.clone())])),
        (
            "Label",
            object(&[
                id(),
                ("name", text.clone()),
                ("description", text.clone()),
                ("color", text.clone()),
                ("scope", json!({"enum": ["g", "p"]})),
                ("project_id", number.clone()),
            ]),
        ),
        (
            "Quota",
            object(&[
                id(),
                ("ref", kind("object")),
                ("hard", numbers()),
                ("used", numbers()),
                ("creation_time", text.clone()),
                ("update_time", text.clone()),
            ]),
        ),
        (
            "Registry",
            object(&[
                id(),
                ("name", text.clone()),
                ("type", text.clone()),
                ("url", text.clone()),
                ("credential", kind("object")),
            ]),
        ),
        (
            "User",
            object(&[
                ("user_id", number.clone()),
                ("username", text.clone()),
                ("email", text.clone()),
                ("realname", text.clone()),
                ("sysadmin_flag", flag.clone()),
            ]),
        ),
        (
            "UserGroup",
            object(&[id(), ("group_name", text.clone()), ("group_type", number.clone())]),
        ),
        (
            "Robot",
            object(&[
                id(),
                ("name", text.clone()),
                ("level", text.clone()),
                ("duration", number.clone()),
                ("disable", flag.clone()),
                ("expires_at", number.clone()),
                ("permissions", list(kind("object"))),
            ]),
        ),
        ("RobotSecret", object(&[id(), ("name", text.clone()), ("secret", text.clone())])),
        (
            "Event",
            object(&[
                id(),
                ("username", text.clone()),
                ("operation", text.clone()),
                ("resource", text.clone()),
                ("resource_type", text.clone()),
                ("op_time", text.clone()),
                ("operation_result", flag),
            ]),
        ),
        (
            "Job",
            object(&[
                ("id", text.clone()),
                ("project", text.clone()),
                ("kind", text.clone()),
                ("state", text.clone()),
                ("runs", number),
            ]),
        ),
        (
            "ImmutableRule",
            object(&[
                id(),
                ("project_id", kind("integer")),
                ("disabled", kind("boolean")),
                ("tag_selectors", list(kind("object"))),
                ("scope_selectors", kind("object")),
            ]),
        ),
        (
            "Retention",
            object(&[
                id(),
                ("algorithm", text.clone()),
                ("rules", list(kind("object"))),
                ("trigger", kind("object")),
                ("scope", kind("object")),
            ]),
        ),
        (
            "Forecast",
            object(&[
                ("at", text.clone()),
                ("artifacts", kind("integer")),
                ("forecast", in_days()),
                (
                    "repositories",
                    list(object(&[
                        ("repository", text.clone()),
                        ("artifacts", kind("integer")),
                        ("forecast", in_days()),
                    ])),
                ),
                ("more_repositories", kind("integer")),
                ("confirm_over", kind("integer")),
                ("has_to_be_confirmed", kind("boolean")),
            ]),
        ),
        (
            "RetentionRun",
            object(&[
                id(),
                ("policy_id", kind("integer")),
                ("status", text.clone()),
                ("trigger", text.clone()),
                ("dry_run", kind("boolean")),
            ]),
        ),
        (
            "UpkeepRun",
            object(&[
                id(),
                ("job_name", text.clone()),
                ("job_kind", text.clone()),
                ("job_parameters", text.clone()),
                ("job_status", text.clone()),
                ("creation_time", text.clone()),
                ("update_time", text.clone()),
            ]),
        ),
        ("StoppedRun", object(&[("status", json!({"type": "string", "enum": ["Stopped"]}))])),
        ("Asked", object(&[("id", text.clone()), ("project", text)])),
    ]
}

/// What can be said of a signer; what makes it known, too, if it is `new`.
fn signer(new: bool) -> Value {
    let text = kind("string");
    let texts = list(text.clone());
    let authority = object(&[
        ("certificates", text.clone()),
        ("timestamps?", text.clone()),
        ("subjects?", texts.clone()),
    ]);
    let keyless = object(&[
        ("certificates", text.clone()),
        ("rekor?", text.clone()),
        ("issuer", text.clone()),
        ("subject", text.clone()),
    ]);
    let states = ["pending", "active", "verify-only", "superseded", "compromised"];
    object(&[
        (if new { "name" } else { "name?" }, text.clone()),
        ("key?", text.clone()),
        ("authority?", authority),
        ("keyless?", keyless),
        ("formats?", texts.clone()),
        ("predicates?", texts),
        ("repositories?", text.clone()),
        ("tags?", text.clone()),
        ("not_before?", json!({"type": "integer", "minimum": 0})),
        ("not_after?", json!({"type": "integer", "minimum": 0})),
        ("state?", json!({"enum": states})),
        ("reason?", text),
    ])
}

fn bodies() -> Vec<(&'static str, Value)> {
    let (text, number, flag) = (kind(TEXT), kind("integer"), kind("boolean"));
    let long = |most: u32| json!({"type": "string", "maxLength": most});
    let name = || json!({"type": "string", "pattern": "^[a-z0-9]{1,20}$"});
    let password = || json!({"type": "string", "minLength": 8, "maxLength": 128});
    let role = || json!({"type": "integer", "minimum": 1, "maximum": 5});
    let access = object(&[("resource", text.clone()), ("action", text.clone())]);
    let grant = object(&[
        ("kind", json!({"enum": ["system", "project"]})),
        ("namespace", text.clone()),
        ("access", list(access)),
    ]);
    let label = |first: Vec<(&'static str, Value)>| {
        let terms = [("name", long(128)), ("description?", long(1024)), ("color?", long(16))];
        object(&first.into_iter().chain(terms).collect::<Vec<_>>())
    };
    let credential = object(&[
        ("type?", text.clone()),
        ("access_key?", text.clone()),
        ("access_secret?", text.clone()),
    ]);
    let schedule = object(&[
        ("name", name()),
        ("type?", text.clone()),
        ("cron?", text.clone()),
        ("spread?", number.clone()),
    ]);
    let metadata = || texts();
    let selector = |decorations: &[&str]| {
        object(&[
            ("kind", json!({"enum": ["doublestar"]})),
            ("decoration", json!({"enum": decorations})),
            ("pattern", long(100)),
        ])
    };
    let scope = || {
        let one = list(selector(&["repoMatches", "repoExcludes"]));
        object(&[("repository", one)])
    };
    let templates = ["latestPushedK", "latestPulledN", "nDaysSinceLastPush", "always", "nothing"];
    let rule = object(&[
        ("template", json!({"enum": templates})),
        ("params", json!({"type": "object"})),
        ("tag_selectors", list(selector(&["matches", "excludes"]))),
        ("scope_selectors", scope()),
    ]);
    vec![
        (
            "NewProject",
            object(&[
                ("project_name", of_pattern(PART, 255)),
                ("public?", flag.clone()),
                ("registry_id?", number.clone()),
                ("storage_limit?", json!({"type": "integer", "minimum": -1})),
                ("metadata", metadata()),
            ]),
        ),
        ("ProjectChange", object(&[("public?", flag.clone()), ("metadata", metadata())])),
        (
            "NewMember",
            object(&[
                ("role_id", role()),
                (
                    "member_user?",
                    object(&[("user_id?", number.clone()), ("username?", text.clone())]),
                ),
                (
                    "member_group?",
                    object(&[("id?", number.clone()), ("group_type?", number.clone())]),
                ),
            ]),
        ),
        ("RoleChange", object(&[("role_id", role())])),
        ("NewTag", object(&[("name", of_pattern(TAG, 128))])),
        ("AttachedLabel", object(&[("id", json!({"type": "integer", "minimum": 1}))])),
        (
            "NewLabel",
            label(vec![("scope", json!({"enum": ["g", "p"]})), ("project_id?", number.clone())]),
        ),
        ("LabelTerms", label(Vec::new())),
        (
            "NewRegistry",
            object(&[
                ("name", name()),
                ("url", text.clone()),
                ("type", text.clone()),
                ("description?", long(1024)),
                ("insecure?", flag.clone()),
                ("credential?", credential.clone()),
            ]),
        ),
        (
            "RegistryChange",
            object(&[
                ("name?", name()),
                ("url?", text.clone()),
                ("type?", text.clone()),
                ("description?", long(1024)),
                ("credential?", credential.clone()),
            ]),
        ),
        (
            "RegistryPing",
            object(&[
                ("id?", number.clone()),
                ("url?", text.clone()),
                ("type?", text.clone()),
                ("credential?", credential),
            ]),
        ),
        (
            "NewUser",
            object(&[
                ("username", of_pattern(USER, 255)),
                ("password", password()),
                ("email", text.clone()),
                ("realname", long(255)),
                ("comment", long(255)),
            ]),
        ),
        (
            "UserChange",
            object(&[
                ("email?", text.clone()),
                ("realname?", long(255)),
                ("comment?", long(255)),
                ("disabled?", flag.clone()),
            ]),
        ),
        ("Sysadmin", object(&[("sysadmin_flag", flag.clone())])),
        ("NewPassword", object(&[("old_password?", text.clone()), ("new_password", password())])),
        ("NewSecret", object(&[("secret", text.clone())])),
        (
            "NewUserGroup",
            object(&[
                ("group_name", long(255)),
                ("group_type", json!({"enum": [1, 3]})),
                ("ldap_group_dn", text.clone()),
            ]),
        ),
        ("GroupName", object(&[("group_name", long(255))])),
        (
            "NewRobot",
            object(&[
                ("name", of_pattern(ROBOT, 128)),
                ("level", json!({"enum": ["system", "project"]})),
                ("duration?", number),
                ("disable", flag),
                ("description", long(1024)),
                ("permissions", list(grant)),
            ]),
        ),
        (
            "NewTrust",
            object(&[
                ("issuer", text.clone()),
                ("audience", text.clone()),
                ("subject", text.clone()),
                ("claims", texts()),
                ("keys", kind("object")),
            ]),
        ),
        ("TrustKeys", object(&[("keys", kind("object"))])),
        ("Settings", kind("object")),
        (
            "NewPreheat",
            object(&[
                ("images", list(text.clone())),
                ("regions", list(text.clone())),
                ("platforms", list(text.clone())),
                ("schedule?", schedule),
            ]),
        ),
        (
            "NewImmutableRule",
            object(&[
                ("disabled", kind("boolean")),
                ("tag_selectors", list(selector(&["matches", "excludes"]))),
                ("scope_selectors", scope()),
            ]),
        ),
        (
            "NewRetention",
            object(&[
                ("rules", list(rule)),
                ("trigger?", kind("object")),
                (
                    "scope",
                    object(&[("level", json!({"enum": ["project"]})), ("ref", kind("integer"))]),
                ),
            ]),
        ),
        (
            "NewRetentionRun",
            object(&[("dry_run", kind("boolean")), ("confirmed", kind("boolean"))]),
        ),
        (
            "Allowlist",
            object(&[
                ("items?", list(object(&[("cve_id", text.clone())]))),
                ("expires_at?", json!({"type": ["integer", "null"], "minimum": 0})),
            ]),
        ),
        ("ScanAll", object(&[("schedule", times())])),
        (
            "NewCollectionSchedule",
            object(&[
                ("schedule", times()),
                (
                    "parameters?",
                    object(&[
                        ("dry_run?", kind("boolean")),
                        ("workers?", json!({"type": "integer", "minimum": 1, "maximum": 10})),
                    ]),
                ),
            ]),
        ),
        (
            "NewPurgeSchedule",
            object(&[
                ("schedule", times()),
                (
                    "parameters",
                    object(&[
                        (
                            "audit_retention_hour",
                            json!({"type": "integer", "minimum": 1, "maximum": 240_000}),
                        ),
                        ("include_operations", of_pattern("^[a-z,]*$", 255)),
                        ("dry_run?", kind("boolean")),
                    ]),
                ),
            ]),
        ),
        ("NewSigner", signer(true)),
        ("SignerChange", signer(false)),
        ("NewSigningKey", object(&[("rotate?", kind("boolean"))])),
        ("NewExemption", object(&[("reason", text.clone()), ("until", kind("integer"))])),
        (
            "NewScanner",
            object(&[
                ("name", text.clone()),
                ("url", text.clone()),
                ("description?", text.clone()),
                ("auth?", json!({"enum": ["", "Basic", "Bearer", "X-ScannerAdapter-API-Key"]})),
                ("access_credential?", text.clone()),
                ("skip_certVerify?", kind("boolean")),
                ("use_internal_addr?", kind("boolean")),
                ("disabled?", kind("boolean")),
            ]),
        ),
        (
            "NewExport",
            object(&[
                ("job_name?", text.clone()),
                ("projects", list(json!({"type": "integer", "minimum": 1}))),
                ("labels?", list(json!({"type": "integer", "minimum": 1}))),
                ("repositories?", of_pattern("^[^ ]*$", 255)),
                ("cveIds?", of_pattern("^[^ ]*$", 255)),
                ("tags?", of_pattern("^[^ ]*$", 255)),
            ]),
        ),
        ("ScannerChoice", object(&[("uuid", text.clone())])),
        ("ScannerDefault", object(&[("is_default", kind("boolean"))])),
        ("ScanKind", object(&[("scan_type?", json!({"enum": ["vulnerability", "sbom"]}))])),
        (
            "NewQuota",
            object(&[(
                "hard",
                json!({"type": "object", "minProperties": 1, "properties": {
                    "storage": {"type": "integer", "minimum": 1},
                    "tags": {"type": "integer", "minimum": 1},
                    "repositories": {"type": "integer", "minimum": 1},
                }, "additionalProperties": false}),
            )]),
        ),
        ("RunAction", object(&[("action", json!({"enum": ["stop"]}))])),
        ("TriedProvider", object(&[("url", text.clone()), ("verify_cert?", kind("boolean"))])),
        ("ImportedPeople", object(&[("ldap_uid_list", list(text.clone()))])),
        (
            "NewCollection",
            object(&[
                ("older_than_seconds?", json!({"type": "integer", "minimum": 0})),
                ("dry_run", kind("boolean")),
            ]),
        ),
        ("NewRestoration", object(&[("repository", text.clone()), ("reference?", text.clone())])),
        (
            "NewDrill",
            object(&[
                ("region", text.clone()),
                ("seconds", json!({"type": "integer", "minimum": 1, "maximum": 3600})),
            ]),
        ),
        ("NewJob", object(&[("kind", text.clone()), ("project", text)])),
    ]
}

/// All schemas, by name.
pub(super) fn all() -> Value {
    let all = answers().into_iter().chain(bodies());
    Value::Object(all.map(|(name, schema)| (name.to_owned(), schema)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::words::names::{ProjectName, Reference, RobotName, Tag, UserName};

    #[test]
    fn patterns_of_names_are_what_is_accepted() {
        let fits = |pattern: &str, text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
        let long = "a".repeat(128);
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "a",
            "7",
            "a.b",
            "a..b",
            "a__b",
            "a___b",
            "a--b",
            "-a",
            "a-",
            "A",
            "a_b.c",
            "a/b",
            "a b",
            "",
            "_a",
            ".a",
            "ü",
            "a:b",
            "a$b",
            "a#",
            " a",
            "a ",
            "ann@example.com",
            "a\u{7}",
            &long,
            &digest,
        ] {
            assert_eq!(fits(PART, text), text.parse::<ProjectName>().is_ok(), "project {text:?}");
            assert_eq!(fits(TAG, text), text.parse::<Tag>().is_ok(), "tag {text:?}");
            assert_eq!(fits(REFERENCE, text), text.parse::<Reference>().is_ok(), "{text:?}");
            assert_eq!(fits(ROBOT, text), text.parse::<RobotName>().is_ok(), "robot {text:?}");
            assert_eq!(fits(USER, text), text.parse::<UserName>().is_ok(), "user {text:?}");
        }
        assert!(fits(PARTS, "deep/er") && fits(PARTS, "deep%252Fer") && !fits(PARTS, "deep//er"));
    }
}
