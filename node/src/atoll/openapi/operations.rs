//! What each operation of the API takes and answers.

use serde_json::{Value, json};

/// What an operation answers when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200 with this schema; `X[]` is a list.
    Shows(&'static str),
    /// 200 with plain text.
    Text,
    /// 200 with CSV.
    Table,
    /// 200 without a body.
    Done,
    /// 201 with `Location`.
    Created,
    /// The same, with this schema.
    CreatedShows(&'static str),
    /// 202 with this schema, and `Location` if something new was begun.
    Accepted(&'static str),
    /// 202 without a body.
    Begun,
    /// 204.
    NoContent,
}

/// An operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) summary: &'static str,
    /// The parameters of the query besides those of lists.
    query: &'static [&'static str],
    /// A header that it needs.
    pub(super) header: Option<&'static str>,
    /// The schema of the body.
    pub(super) body: Option<&'static str>,
    pub(super) answer: Answer,
    /// Another status when it is done.
    pub(super) other: Option<u16>,
    list: List,
}

/// Which parameters a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    No,
    Paged,
    Chosen,
}

impl Operation {
    pub(super) fn is_list(&self) -> bool {
        self.list != List::No
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &'static str> {
        let paged: &[&str] = if self.is_list() { &["page", "page_size"] } else { &[] };
        let chosen: &[&str] = if self.list == List::Chosen { &["q", "sort"] } else { &[] };
        self.query.iter().chain(paged).chain(chosen).copied()
    }

    /// The group that it is shown in: the first part of its path.
    pub(super) fn tag(&self) -> &'static str {
        self.path.split('/').nth(3).unwrap_or("openapi")
    }

    /// A name for generated clients.
    pub(super) fn id(&self) -> String {
        let parts = self.path.split('/').skip(2).map(|part| part.trim_matches(['{', '}']));
        let parts: Vec<String> =
            parts.map(|part| part.replace(['.', '-'], "_").trim_matches('_').to_owned()).collect();
        format!("{}_{}", self.method.to_lowercase(), parts.join("_"))
    }

    const fn query(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    const fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    const fn header(mut self, name: &'static str) -> Self {
        self.header = Some(name);
        self
    }

    const fn or(mut self, status: u16) -> Self {
        self.other = Some(status);
        self
    }

    const fn paged(mut self) -> Self {
        self.list = List::Paged;
        self
    }

    const fn chosen(mut self) -> Self {
        self.list = List::Chosen;
        self
    }
}

const fn operation(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    answer: Answer,
) -> Operation {
    Operation {
        path,
        method,
        summary,
        query: &[],
        header: None,
        body: None,
        answer,
        other: None,
        list: List::No,
    }
}

const fn get(path: &'static str, summary: &'static str, schema: &'static str) -> Operation {
    operation("GET", path, summary, Answer::Shows(schema))
}

const fn post(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    operation("POST", path, summary, answer)
}

const fn put(path: &'static str, summary: &'static str, schema: &'static str) -> Operation {
    operation("PUT", path, summary, Answer::Done).body(schema)
}

const fn delete(path: &'static str, summary: &'static str) -> Operation {
    operation("DELETE", path, summary, Answer::Done)
}

const PROJECT: &str = "/api/v2.0/projects/{project}";
const MEMBERS: &str = "/api/v2.0/projects/{project}/members";
const MEMBER: &str = "/api/v2.0/projects/{project}/members/{id}";
const METADATAS: &str = "/api/v2.0/projects/{project}/metadatas";
const METADATA: &str = "/api/v2.0/projects/{project}/metadatas/{key}";
const REPOSITORY: &str = "/api/v2.0/projects/{project}/repositories/{name}";
const ARTIFACT: &str = "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}";
const TAGS: &str = "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags";
const ATTACHED: &str =
    "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels";
const USER: &str = "/api/v2.0/users/{user}";
const GROUP: &str = "/api/v2.0/usergroups/{id}";
const QUOTA: &str = "/api/v2.0/quotas/{id}";
const LABEL: &str = "/api/v2.0/labels/{label}";
const ROBOT: &str = "/api/v2.0/robots/{id}";
const TRUSTS: &str = "/api/v2.0/robots/{id}/trusts";
const TRUST: &str = "/api/v2.0/robots/{id}/trusts/{trust}";
const REGISTRY: &str = "/api/v2.0/registries/{id}";
const NODE: &str = "/api/atoll/v1/nodes/{node}";
const TRASH: &str = "/api/v2.0/projects/{project}/trash";
const DRILL: &str = "/api/atoll/v1/dr/drill";
const SCRUB: &str = "/api/atoll/v1/nodes/{node}/scrub";
const DRAIN: &str = "/api/atoll/v1/nodes/{node}/drain";
const IMMUTABLE: &str = "/api/v2.0/projects/{project}/immutabletagrules";
const IMMUTABLE_RULE: &str = "/api/v2.0/projects/{project}/immutabletagrules/{id}";
const RETENTION: &str = "/api/v2.0/retentions/{project}";
const FORECAST: &str = "/api/v2.0/retentions/{project}/forecast";
const RUNS: &str = "/api/v2.0/retentions/{project}/executions";
const COLLECTION: &str = "/api/atoll/v1/collection";
const PREHEAT: &str = "/api/atoll/v1/preheats/{id}";

/// All operations.
#[rustfmt::skip]
pub(super) const OPERATIONS: &[Operation] = &[
    get("/api/openapi.json", "This document", "Anything"),
    get("/api/v2.0/projects", "The projects that the caller may see", "Project[]")
        .query(&["name", "public"]).chosen(),
    post("/api/v2.0/projects", "Create a project", Answer::Created).body("NewProject"),
    get(PROJECT, "A project, by its number or name", "Project"),
    put(PROJECT, "Change a project's metadata", "ProjectChange"),
    delete(PROJECT, "Delete a project without repositories, or one that caches a registry"),
    get("/api/v2.0/projects/{project}/summary", "Numbers of a project", "Anything"),
    get("/api/v2.0/projects/{project}/_deletable", "Whether a project can be deleted", "Anything"),
    get("/api/v2.0/projects/{project}/logs", "What happened in a project", "Event[]").chosen(),
    get("/api/v2.0/projects/{project}/auditlog-exts", "What happened in a project", "Event[]")
        .chosen(),
    get(METADATAS, "A project's metadata", "Metadata"),
    post(METADATAS, "Add one entry", Answer::Done).body("Metadata"),
    get(METADATA, "One entry", "Metadata"),
    put(METADATA, "Change one entry", "Metadata"),
    delete(METADATA, "Delete one entry"),
    get(MEMBERS, "The members of a project", "Member[]").query(&["entityname"]).paged(),
    post(MEMBERS, "Make a user or a group a member", Answer::Created).body("NewMember"),
    get(MEMBER, "A member", "Member"),
    put(MEMBER, "Give a member another role", "RoleChange"),
    delete(MEMBER, "Remove a member"),
    get("/api/v2.0/projects/{project}/repositories", "The repositories of a project",
        "Repository[]").chosen(),
    get(REPOSITORY, "A repository", "Repository"),
    delete(REPOSITORY, "Delete a repository with everything in it"),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts",
        "The artifacts of a repository", "Artifact[]")
        .query(&["with_label", "with_scan_overview", "with_sbom_overview"]).chosen(),
    get(ARTIFACT, "An artifact, by a tag or its digest", "Artifact")
        .query(&["with_label", "with_accessory", "with_scan_overview", "with_sbom_overview"]),
    delete(ARTIFACT, "Delete an artifact with all its tags"),
    get(TAGS, "The tags of an artifact", "Tag[]").chosen(),
    post(TAGS, "Give an artifact another tag", Answer::Created).body("NewTag"),
    delete("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags/{tag}",
        "Take a tag off an artifact"),
    post(ATTACHED, "Put a label on an artifact", Answer::Done).body("AttachedLabel"),
    delete("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels/{label}",
        "Take a label off an artifact"),
    get(IMMUTABLE, "Which tags of a project never move", "ImmutableRule[]").paged(),
    post(IMMUTABLE, "Let tags move no more", Answer::Created).body("NewImmutableRule"),
    put(IMMUTABLE_RULE, "Change a rule", "NewImmutableRule"),
    delete(IMMUTABLE_RULE, "Remove a rule"),
    get("/api/v2.0/projects/{project}/scanner", "The scanner of a project", "Anything"),
    post("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan",
        "Ask for a scan of an artifact, or keep its SBOMs", Answer::Begun).body("ScanKind"),
    post("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/stop",
        "Stop the scan of an artifact", Answer::Begun),
    operation("GET", "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/{id}/log",
        "The log of a scan", Answer::Text),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/vulnerabilities",
        "The report about an artifact", "Anything"),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/sbom",
        "The packages of an artifact, as SPDX or CycloneDX", "Anything").query(&["format"]),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/explanation",
        "Why an artifact may be pulled from this node, or not", "Anything"),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/accessories",
        "What is about an artifact: signatures, attestations, SBOMs", "Anything[]").paged(),
    get("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures",
        "The signatures of an artifact, and what they are worth", "Anything"),
    post("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures",
        "Sign an artifact with the project's own key", Answer::Shows("Anything")),
    get("/api/v2.0/projects/{project}/signing",
        "The keys that the mesh signs with, and how to verify with them", "Anything"),
    post("/api/v2.0/projects/{project}/signing", "Make a signing key",
        Answer::Shows("Anything")).body("NewSigningKey"),
    get("/api/v2.0/projects/{project}/signing/log", "What the mesh has signed", "Anything")
        .query(&["after", "verify"]),
    operation("PUT",
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures/exemption",
        "Serve an artifact for a while without signatures, with what it lists",
        Answer::Shows("Anything")).body("NewExemption"),
    delete("/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures/exemption",
        "End an exemption"),
    get("/api/v2.0/projects/{project}/signers", "Whom a project trusts to sign", "Anything[]").paged(),
    post("/api/v2.0/projects/{project}/signers", "Trust a signer", Answer::Created)
        .body("NewSigner"),
    get("/api/v2.0/projects/{project}/signers/{signer}", "A signer", "Anything"),
    put("/api/v2.0/projects/{project}/signers/{signer}", "Change a signer", "SignerChange"),
    delete("/api/v2.0/projects/{project}/signers/{signer}", "Trust a signer no more"),
    get(TRASH, "What was deleted and can be restored", "Anything").query(&["repository", "after"]),
    delete(TRASH, "Remove for good what was deleted").query(&["repository", "digest"]),
    post("/api/v2.0/projects/{project}/trash/restore", "Restore what was deleted",
        Answer::Shows("Anything")).body("NewRestoration"),
    get("/api/v2.0/projects/{project}/unsigned",
        "What a project would refuse if it enforced its policy", "Anything")
        .query(&["pulled_within_days", "without", "compromised"]),
    get("/api/v2.0/system/CVEAllowlist", "The vulnerabilities that do not count", "Anything"),
    put("/api/v2.0/system/CVEAllowlist", "Set the vulnerabilities that do not count", "Allowlist"),
    put("/api/v2.0/projects/{project}/scanner", "Choose the scanner of a project", "ScannerChoice"),
    get("/api/v2.0/projects/{project}/scanner/candidates", "The scanners that a project may choose",
        "Anything[]"),
    get("/api/v2.0/scanners", "The scanners", "Anything[]"),
    post("/api/v2.0/scanners", "Register a scanner", Answer::Created).body("NewScanner"),
    post("/api/v2.0/scanners/ping", "Ask whether a scanner is well", Answer::Done)
        .body("NewScanner"),
    get("/api/v2.0/scanners/{scanner}", "A scanner", "Anything"),
    put("/api/v2.0/scanners/{scanner}", "Change a scanner", "NewScanner"),
    operation("DELETE", "/api/v2.0/scanners/{scanner}", "Forget a scanner",
        Answer::Shows("Anything")),
    operation("PATCH", "/api/v2.0/scanners/{scanner}", "Make a scanner the default", Answer::Done)
        .body("ScannerDefault"),
    get("/api/v2.0/scanners/{scanner}/metadata", "What a scanner can do", "Anything"),
    get("/api/v2.0/system/scanAll/schedule", "When all images are scanned", "Anything"),
    post("/api/v2.0/system/scanAll/schedule", "Scan all images, now or by a schedule",
        Answer::Created).body("ScanAll"),
    put("/api/v2.0/system/scanAll/schedule", "Change when all images are scanned", "ScanAll"),
    post("/api/v2.0/system/scanAll/stop", "Stop the scans of all images", Answer::Begun),
    get("/api/v2.0/scans/all/metrics", "How far the scans are", "Anything"),
    get("/api/v2.0/security/summary", "How many vulnerabilities there are", "Anything")
        .query(&["with_dangerous_cve", "with_dangerous_artifact"]),
    get("/api/v2.0/security/vul", "The vulnerabilities of all images", "Anything[]")
        .query(&["with_tag", "tune_count"]).chosen(),
    post("/api/v2.0/export/cve", "Export the vulnerabilities of a project",
        Answer::Shows("Anything")).body("NewExport").header("X-Scan-Data-Type"),
    get("/api/v2.0/export/cve/executions", "The exports that the caller has asked for", "Anything"),
    get("/api/v2.0/export/cve/execution/{id}", "An export", "Anything"),
    operation("GET", "/api/v2.0/export/cve/download/{id}", "The vulnerabilities as CSV", Answer::Table)
        .query(&["format"]),
    post("/api/v2.0/retentions", "Say what stays in a project", Answer::Created)
        .body("NewRetention"),
    get("/api/v2.0/retentions/metadatas", "What rules of retention may say", "Anything"),
    get(RETENTION, "What stays in a project", "Retention"),
    put(RETENTION, "Change what stays in a project", "NewRetention"),
    delete(RETENTION, "Let everything stay"),
    get(FORECAST, "What retention would delete by some days", "Forecast").query(&["days"]),
    operation("POST", FORECAST, "What a policy would delete by some days", Answer::Shows("Forecast"))
        .query(&["days"]).body("NewRetention"),
    get(RUNS, "The runs of a project's retention", "RetentionRun[]").paged(),
    post(RUNS, "Delete what does not stay, or say what would be deleted",
        Answer::CreatedShows("Anything")).body("NewRetentionRun"),
    operation("PATCH", "/api/v2.0/retentions/{project}/executions/{id}", "Stop a run",
        Answer::Done).body("RunAction"),
    get("/api/v2.0/retentions/{project}/executions/{id}/tasks", "What a run has done",
        "Anything[]").paged(),
    operation("GET", "/api/v2.0/retentions/{project}/executions/{id}/tasks/{task}",
        "The log of a run", Answer::Text),
    post("/api/v2.0/system/oidc/ping", "Try an OIDC provider", Answer::Done)
        .body("TriedProvider"),
    post("/api/v2.0/ldap/ping", "Try settings of the LDAP directory", Answer::Shows("Anything"))
        .body("Settings"),
    get("/api/v2.0/ldap/users/search", "People of the LDAP directory", "Anything[]")
        .query(&["username"]).or(412),
    post("/api/v2.0/ldap/users/import", "Give people of the directory accounts", Answer::Done)
        .body("ImportedPeople"),
    get("/api/v2.0/ldap/groups/search", "Groups of the LDAP directory", "Anything[]")
        .query(&["groupname", "groupdn"]).or(412),
    get("/api/v2.0/repositories", "The repositories that the caller may see", "Repository[]")
        .chosen(),
    get("/api/v2.0/search", "Projects and repositories with a part of their name", "Anything")
        .query(&["part"]),
    get("/api/v2.0/statistics", "Numbers of what the caller may see", "Anything"),
    get("/api/v2.0/quotas", "How much projects have and may have", "Quota[]")
        .query(&["reference", "reference_id"]).chosen(),
    get(QUOTA, "How much a project has and may have", "Quota"),
    put(QUOTA, "Set how much a project may have", "NewQuota"),
    get("/api/v2.0/system/gc", "The collections that somebody asked for", "UpkeepRun[]").chosen(),
    get("/api/v2.0/system/gc/schedule", "When garbage is collected elsewhere", "Anything"),
    post("/api/v2.0/system/gc/schedule", "Collect garbage now, or keep a schedule",
        Answer::Created).body("NewCollectionSchedule"),
    put("/api/v2.0/system/gc/schedule", "Keep another schedule", "NewCollectionSchedule"),
    get("/api/v2.0/system/gc/{id}", "A collection", "UpkeepRun"),
    put("/api/v2.0/system/gc/{id}", "Stop a collection", "StoppedRun"),
    operation("GET", "/api/v2.0/system/gc/{id}/log", "What a collection did", Answer::Text),
    get("/api/v2.0/system/purgeaudit", "The purges of the audit log", "UpkeepRun[]").chosen(),
    get("/api/v2.0/system/purgeaudit/schedule", "When the audit log is purged", "Anything"),
    post("/api/v2.0/system/purgeaudit/schedule", "Purge the audit log, now or by a schedule",
        Answer::Created).body("NewPurgeSchedule"),
    put("/api/v2.0/system/purgeaudit/schedule", "Change when the audit log is purged",
        "NewPurgeSchedule"),
    get("/api/v2.0/system/purgeaudit/{id}", "A purge", "UpkeepRun"),
    put("/api/v2.0/system/purgeaudit/{id}", "Stop a purge", "StoppedRun"),
    operation("GET", "/api/v2.0/system/purgeaudit/{id}/log", "What a purge did", Answer::Text),
    operation("GET", "/api/v2.0/ping", "Whether the node answers", Answer::Text),
    get("/api/v2.0/health", "Whether the node is well", "Anything"),
    get("/api/v2.0/systeminfo", "What this registry is", "Anything"),
    get("/api/v2.0/labels", "The labels of a project, or for all projects", "Label[]")
        .query(&["scope", "project_id", "name"]).chosen(),
    post("/api/v2.0/labels", "Make a label", Answer::Created).body("NewLabel"),
    get(LABEL, "A label", "Label"),
    put(LABEL, "Change what a label says", "LabelTerms"),
    delete(LABEL, "Delete a label, and take it off everything"),
    get("/api/v2.0/registries", "The registries that projects may cache", "Registry[]")
        .query(&["name"]).chosen(),
    post("/api/v2.0/registries", "Record a registry", Answer::Created).body("NewRegistry"),
    post("/api/v2.0/registries/ping", "Ask a registry whether it is well", Answer::Done)
        .body("RegistryPing"),
    get(REGISTRY, "A registry", "Registry"),
    put(REGISTRY, "Change a registry", "RegistryChange"),
    delete(REGISTRY, "Forget a registry that no project caches"),
    get("/api/v2.0/users", "All users", "User[]").chosen(),
    post("/api/v2.0/users", "Create a user", Answer::Created).body("NewUser"),
    get("/api/v2.0/users/current", "The caller", "User"),
    get("/api/v2.0/users/search", "Users with a part of their name", "Anything[]")
        .query(&["username"]).paged(),
    get(USER, "A user", "User"),
    put(USER, "Change a user", "UserChange"),
    delete(USER, "Delete a user"),
    put("/api/v2.0/users/{user}/sysadmin", "Make a user an administrator, or not", "Sysadmin"),
    put("/api/v2.0/users/{user}/password", "Set a user's password", "NewPassword"),
    put("/api/v2.0/users/{user}/cli_secret", "Set the secret of a user of the OIDC provider",
        "NewSecret"),
    get("/api/v2.0/usergroups", "The groups of identity providers", "UserGroup[]")
        .query(&["group_name", "ldap_group_dn"]).chosen(),
    post("/api/v2.0/usergroups", "Make a group known", Answer::Created).body("NewUserGroup"),
    get("/api/v2.0/usergroups/search", "Groups with a part of their name", "UserGroup[]")
        .query(&["groupname"]).paged(),
    get(GROUP, "A group", "UserGroup"),
    put(GROUP, "Give a group another name", "GroupName"),
    delete(GROUP, "Forget a group and its memberships"),
    get("/api/v2.0/robots", "The robots of the system, or of a project (`q=Level=project,ProjectID=1`)",
        "Robot[]").chosen(),
    post("/api/v2.0/robots", "Create a robot", Answer::CreatedShows("RobotSecret"))
        .body("NewRobot"),
    get(ROBOT, "A robot", "Robot"),
    put(ROBOT, "Change a robot", "NewRobot"),
    operation("PATCH", ROBOT, "Give a robot another secret", Answer::Shows("Anything"))
        .body("NewSecret"),
    delete(ROBOT, "Delete a robot"),
    get(TRUSTS, "Whose tokens are believed for a robot", "Anything[]"),
    post(TRUSTS, "Believe an issuer's tokens for a robot", Answer::Created).body("NewTrust"),
    put(TRUST, "Replace the issuer's keys", "TrustKeys"),
    delete(TRUST, "Believe them no more"),
    get("/api/v2.0/configurations", "Settings of the mesh", "Anything"),
    put("/api/v2.0/configurations", "Change settings of the mesh", "Settings"),
    get("/api/v2.0/permissions", "What robots can be granted", "Anything"),
    get("/api/v2.0/auditlog-exts", "What happened", "Event[]").chosen(),
    get("/api/v2.0/audit-logs", "What happened", "Event[]").chosen(),
    get("/api/atoll/v1/status", "The mesh as this node sees it", "Anything").query(&["copies"]),
    get("/api/atoll/v1/inventory", "What is on this node's disk, and why", "Anything"),
    get(DRILL, "The last drill of a region, and what becomes of its projects", "Anything"),
    post(DRILL, "Have a region refuse its clients for a time", Answer::Shows("Anything"))
        .body("NewDrill"),
    operation("DELETE", DRILL, "End the drill", Answer::Shows("Anything")),
    get("/api/atoll/v1/dr", "What would be lost if a region burned now", "Anything"),
    get("/api/atoll/v1/replication", "How many copies artifacts have", "Anything")
        .query(&["of", "all"]),
    get("/api/atoll/v1/level", "The feature level, and each node's build", "Anything"),
    post("/api/atoll/v1/level", "Raise the feature level", Answer::Shows("Anything")),
    get("/api/atoll/v1/mirrors", "The nodes, and the registries that are mirrored", "Anything"),
    get(SCRUB, "How far a node has read its blobs again", "Anything"),
    post(SCRUB, "Have a node read its blobs again now", Answer::Accepted("Anything")),
    get(DRAIN, "How far a replica is that drains", "Anything").or(409),
    post(DRAIN, "Have a replica give away what others need it for", Answer::Shows("Anything")),
    operation("DELETE", DRAIN, "Have it take part again", Answer::Shows("Anything")),
    get(NODE, "What the mesh is without a node", "Anything"),
    operation("DELETE", NODE, "Remove a node", Answer::NoContent).or(200)
        .query(&["force", "compromised"]),
    get("/api/atoll/v1/preheats", "The last preheats", "Anything[]"),
    post("/api/atoll/v1/preheats", "Bring images into regions", Answer::Accepted("Anything"))
        .or(201).body("NewPreheat"),
    get(PREHEAT, "A preheat", "Anything"),
    operation("DELETE", PREHEAT, "Begin nothing more of a preheat", Answer::Accepted("Anything")),
    get("/api/atoll/v1/jobs", "Background work, the newest first", "Job[]")
        .query(&["project", "kind", "state"]).paged(),
    post("/api/atoll/v1/jobs", "Ask for background work", Answer::Accepted("Asked"))
        .body("NewJob"),
    get("/api/atoll/v1/jobs/{id}", "A job with its progress", "Job"),
    get("/api/atoll/v1/jobs/{id}/log", "The log of a job", "Anything[]"),
    post("/api/atoll/v1/jobs/{id}/stop", "Stop a job", Answer::Accepted("Job")),
    post("/api/atoll/v1/jobs/{id}/retry", "Try a failed or stopped job again",
        Answer::Accepted("Job")),
    get(COLLECTION, "How many blobs nothing refers to", "Anything"),
    post(COLLECTION, "Collect them now", Answer::Shows("Anything")).body("NewCollection"),
    get("/api/atoll/v1/schedules", "The schedules of background work", "Anything[]"),
    delete("/api/atoll/v1/schedules/{project}/{name}", "Delete a schedule"),
];

/// The operation with this path and method.
pub(super) fn find(path: &str, method: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|one| one.path == path && one.method == method)
}

/// A parameter of the query.
pub(super) fn parameter(name: &'static str) -> Value {
    let text = json!({"type": "string"});
    let flag = json!({"type": "string", "enum": ["true", "false"]});
    let (schema, required, meaning) = match name {
        "page" => (json!({"type": "integer", "minimum": 1}), false, "which page"),
        "page_size" => (
            json!({"type": "integer", "minimum": 0, "maximum": 100}),
            false,
            "how many entries a page has; 0 for all, where a list is not bounded",
        ),
        "q" => (text, false, "conditions: k=v, k=~v, k=[a~b], k={a b} or k=(a b)"),
        "sort" => (text, false, "fields, separated by commas; - turns the order round"),
        "part" => return json!({"name": "q", "in": "query", "schema": text}),
        "scope" => (json!({"type": "string", "enum": ["g", "p"]}), true, "g for all projects"),
        "project_id" => (json!({"type": "integer", "minimum": 1}), false, "for scope p"),
        "username" | "groupname" => (json!({"type": "string", "minLength": 1}), true, "a part"),
        "after" => (json!({"type": "integer", "minimum": 0}), false, "entries after this number"),
        "verify" => (flag, false, "whether the log is whole"),
        "without" => (text, false, "only what would be refused without this signer"),
        "pulled_within_days" => (
            json!({"type": "integer", "minimum": 1, "maximum": 3650}),
            false,
            "only what was pulled within so many days",
        ),
        "state" => (
            json!({"type": "string",
                "enum": ["waiting", "running", "done", "failed", "stopped"]}),
            false,
            "in which state",
        ),
        "public" | "with_label" | "with_accessory" | "copies" | "force" | "compromised" => {
            (flag, false, "whether")
        }
        _ => (text, false, "only these"),
    };
    json!({"name": name, "in": "query", "required": required, "schema": schema,
        "description": meaning})
}
