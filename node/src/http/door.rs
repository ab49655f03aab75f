//! The front door: who sends a request and whether they may do it, decided in one view of the
//! records before anything else is read.

use std::sync::Arc;

use ground::supervise::at_length;
use http::{HeaderName, Method, header};
use registry::events::Witness;
use registry::people::{Access, AccessError, Caller, NeededScope, Presented, SERVICE, csrf_token};
use registry::proxies::mirrors::Mirrors;
use registry::view::{Freshness, Records};
use rules::edges;
use rules::ledger::admitted::Stamp;
use rules::ledger::events::{Actor, Seen};
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::people::access::{Action, RegistryScope};
use rules::people::roles::public_may;
use rules::words::names::{ProjectName, RepositoryName};
use rules::words::roles::Permission;
use tokio::sync::Semaphore;

use super::errors::{Code, Failure};
use super::origin;
use super::request::Request;

/// What a write with a session's cookie must repeat (Harbor's name, `src/server/middleware/csrf`).
pub const CSRF: HeaderName = HeaderName::from_static("x-harbor-csrf-token");

/// How this node is reached, and what it refuses; see the settings of the same names.
#[derive(Clone, Debug)]
pub struct DoorTerms {
    /// The URL at which clients reach this node, if the operator has set it; otherwise the
    /// request's own Host is used.
    pub public_url: Option<String>,
    /// Whether this node uses TLS itself.
    pub tls: bool,
    /// Whether answers that may be stale are refused (`reads.without_lease: refuse`).
    pub refuse_stale: bool,
    /// The name of this node, if it is an edge.
    pub edge: Option<String>,
}

/// Admits requests.
pub struct Door {
    access: Arc<Access>,
    records: Records,
    mirrors: Arc<Mirrors>,
    witness: Arc<Witness>,
    terms: DoorTerms,
    long_reads: Semaphore,
}

/// Who asks, for the record of what happened.
pub fn actor(caller: &Caller, request: &Request) -> Actor {
    Actor { name: caller.identity.name().to_owned(), address: Some(request.client) }
}

/// A request that was admitted, with what was read for it.
pub struct Admitted<T = ()> {
    /// The caller.
    pub caller: Caller,
    /// The repository's project.
    pub project: Project,
    /// How fresh `project` and `found` are.
    pub freshness: Freshness,
    /// The result of `read`.
    pub found: T,
}

/// The answer to a scanner that wants to read something else than what it scans.
pub fn beyond_the_pass() -> Failure {
    let message = "a scanner's pass opens the image that it scans, by its digest, and nothing else";
    Failure::new(Code::Denied, message)
}

fn check_no_scanner(caller: &Caller) -> Result<(), Failure> {
    if caller.pass().is_some() { Err(beyond_the_pass()) } else { Ok(()) }
}

impl Door {
    /// Creates the door.
    pub fn new(
        access: Arc<Access>,
        records: Records,
        mirrors: Arc<Mirrors>,
        witness: Arc<Witness>,
        terms: DoorTerms,
    ) -> Arc<Self> {
        // half of the processors: the others serve pulls
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let long_reads = Semaphore::new((processors / 2).max(1));
        Arc::new(Door { access, records, mirrors, witness, terms, long_reads })
    }

    /// The caller of `request`.
    pub async fn caller(&self, request: &Request) -> Result<Caller, Failure> {
        let session = request.session();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if let (Some(cookie), false) = (&session, reads)
            && request.header(&CSRF) != Some(csrf_token(cookie).as_str())
        {
            let message = "a write with a session's cookie needs X-Harbor-CSRF-Token, as the answer to a GET had it";
            return Err(Failure::new(Code::Denied, message).closing_unless_read(request));
        }
        let presented = Presented::of(request.header(&header::AUTHORIZATION), session);
        let origin = request.origin();
        let name = match &presented {
            Presented::Password(name, _) => Some(name.clone()),
            _ => None,
        };
        let caller = self.access.caller(presented, origin, reads).await;
        if let (Some(name), Err(AccessError::Wrong)) = (name, &caller) {
            self.witness.saw_login(Actor { name, address: Some(request.client) }, false);
        }
        caller.map_err(|error| self.refuse(request, error))
    }

    /// Who has no right to what they wanted is counted. That a token does not reach so far is no
    /// refusal if its owner may: clients ask for another token then.
    fn saw_refused(
        &self,
        request: &Request,
        caller: &Caller,
        permission: Permission,
        project: Option<&Project>,
        resource: String,
    ) {
        let may = || {
            let (view, project) = (self.records.view().ok()?, project?);
            caller.identity.may(&*view, permission, project).ok()
        };
        if !caller.has_presented() || may() == Some(true) {
            return;
        }
        self.witness.saw(Seen {
            by: actor(caller, request),
            operation: permission.operation.word(),
            resource_type: permission.resource.word(),
            resource,
            project: project.map(|project| project.name.clone()),
            refused: Some("denied".into()),
        });
    }

    /// Admits `request` if its caller may do `action` in `repository`, and then runs `read` in the
    /// view in which this was decided. Nothing of a repository is read for a caller who may not
    /// know of it.
    pub async fn admit<T>(
        &self,
        request: &Request,
        action: Action,
        repository: &RepositoryName,
        read: impl Fn(&dyn ReadRecords, &Project) -> Result<T, RecordError>,
    ) -> Result<Admitted<T>, Failure> {
        let caller = self.caller(request).await?;
        check_no_scanner(&caller)?;
        self.admit_caller(request, caller, action, repository, read).await
    }

    /// As [`Door::admit`] for a pull, and also for scanners, which may read one image only
    /// ([`Caller::pass`]): whoever calls this checks what they read.
    pub async fn admit_reader<T>(
        &self,
        request: &Request,
        repository: &RepositoryName,
        read: impl Fn(&dyn ReadRecords, &Project) -> Result<T, RecordError>,
    ) -> Result<Admitted<T>, Failure> {
        let caller = self.caller(request).await?;
        if caller.pass().is_some_and(|pass| pass.repository != *repository) {
            return Err(beyond_the_pass());
        }
        self.admit_caller(request, caller, Action::Pull, repository, read).await
    }

    async fn admit_caller<T>(
        &self,
        request: &Request,
        caller: Caller,
        action: Action,
        repository: &RepositoryName,
        read: impl Fn(&dyn ReadRecords, &Project) -> Result<T, RecordError>,
    ) -> Result<Admitted<T>, Failure> {
        let (admitted, freshness) = self
            .read(|records| {
                let project = records.project(&repository.project())?;
                let project_of = project.as_ref();
                if let Err(error) =
                    self.access.authorize(records, &caller, action, repository, project_of)?
                {
                    return Ok(Err(error));
                }
                let Some(project) = project else { return Ok(Ok(None)) };
                let found = read(records, &project)?;
                Ok(Ok(Some((project, found))))
            })
            .await?;
        match admitted {
            Ok(Some((project, found))) => {
                self.check_edge(&project)?;
                Ok(Admitted { caller, project, freshness, found })
            }
            Ok(None) => {
                let name = repository.project();
                let message = format!(
                    "project {name} does not exist; create it with POST /api/v2.0/projects"
                );
                Err(Failure::new(Code::NameUnknown, message).if_known(freshness))
            }
            // they may have been made a member since
            Err(AccessError::Denied(_)) if freshness == Freshness::Stale => {
                Err(Failure::outdated(freshness))
            }
            Err(error) => {
                if matches!(error, AccessError::Denied(_) | AccessError::Scope(_)) {
                    let project = self.records.view()?.project(&repository.project())?;
                    let (permission, name) = (action.permission(), repository.to_string());
                    self.saw_refused(request, &caller, permission, project.as_ref(), name);
                }
                Err(self.refuse(request, error))
            }
        }
    }

    /// Refuses what a project has at an edge that may not serve it. Call this for callers only who may
    /// know of the project.
    pub fn check_edge(&self, project: &Project) -> Result<(), Failure> {
        match &self.terms.edge {
            Some(edge) if !edges::may_serve(project, edge) => {
                let name = &project.name;
                Err(Failure::new(
                    Code::Denied,
                    format!(
                        "project {name} is not served by this edge, {edge} (the project's `edges`); use another node"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether an admitted caller may also do something else, in this or another repository.
    pub async fn may(
        &self,
        caller: &Caller,
        action: Action,
        repository: &RepositoryName,
    ) -> Result<bool, Failure> {
        let (may, _) =
            self.read(|records| self.may_in(records, caller, action, repository)).await?;
        Ok(may)
    }

    /// Refuses an admitted caller who may no longer do `action` in `project`, because their request
    /// took long. See [`Access::still_may`].
    pub async fn check_still(
        &self,
        caller: &Caller,
        action: Action,
        project: &Project,
    ) -> Result<(), Failure> {
        let (may, freshness) =
            self.read(|records| self.access.still_may(records, caller, action, project)).await?;
        match (may, freshness) {
            (true, _) => Ok(()),
            (false, Freshness::Fresh) => {
                let (name, action) = (caller.identity.name(), action.name());
                let message = format!("{name} may not {action} here any more");
                Err(Failure::new(Code::Denied, message))
            }
            (false, _) => Err(Failure::outdated(freshness)),
        }
    }

    /// As [`Door::may`], in a view that was already read.
    pub fn may_in(
        &self,
        records: &dyn ReadRecords,
        caller: &Caller,
        action: Action,
        repository: &RepositoryName,
    ) -> Result<bool, RecordError> {
        let Some(project) = records.project(&repository.project())? else { return Ok(false) };
        let may = self.access.authorize(records, caller, action, repository, Some(&project))?;
        Ok(may.is_ok())
    }

    /// Admits `request` if its caller has `permission` in the registry as a whole, and may use it
    /// for `what`.
    pub async fn admit_system(
        &self,
        request: &Request,
        permission: Permission,
        what: RegistryScope,
    ) -> Result<Caller, Failure> {
        let caller = self.caller(request).await?;
        check_no_scanner(&caller)?;
        let admitted = self.access.in_system(&caller, permission, what);
        if let Err(AccessError::Denied(_)) = &admitted {
            self.saw_refused(request, &caller, permission, None, String::new());
        }
        admitted.map_err(|error| self.refuse(request, error))?;
        Ok(caller)
    }

    /// Admits `request` to the API if its caller is somebody: a user, an administrator or a robot.
    pub async fn admit_signed_in(&self, request: &Request) -> Result<Caller, Failure> {
        let caller = self.caller(request).await?;
        check_no_scanner(&caller)?;
        let admitted = self.access.signed_in(&caller, RegistryScope::Api);
        admitted.map_err(|error| self.refuse(request, error))?;
        Ok(caller)
    }

    /// Whether an API's caller has `permission` in `project`. The error is the answer for a caller
    /// who has not; it calls the project as they did, because they may not know its name.
    pub async fn admit_to_project(
        &self,
        request: &Request,
        caller: &Caller,
        permission: Permission,
        project: &Project,
        called: &ProjectName,
    ) -> Result<(), Failure> {
        let (may, freshness) =
            self.read(|records| caller.identity.may(records, permission, project)).await?;
        check_no_scanner(caller)?;
        // what everybody may needs neither an account nor a scope
        if project.public && public_may(permission) {
            return Ok(());
        }
        let signed_in = self.access.signed_in(caller, RegistryScope::Api);
        signed_in.map_err(|error| self.refuse(request, error))?;
        match (may, freshness) {
            (true, _) => Ok(()),
            (false, Freshness::Fresh) => {
                let name = called.to_string();
                self.saw_refused(request, caller, permission, Some(project), name);
                Err(self.denied(caller, permission, called))
            }
            // they may have been made a member since
            (false, _) => Err(Failure::outdated(freshness)),
        }
    }

    /// The answer to a caller who does not have `permission` in `project`, whether it exists or
    /// not.
    pub fn denied(
        &self,
        caller: &Caller,
        permission: Permission,
        project: &ProjectName,
    ) -> Failure {
        let name = caller.identity.name();
        let message =
            format!("project {project} does not exist, or {name} may not {permission} in it");
        Failure::new(Code::Denied, message)
    }

    /// Admits a request to `/v2/` only with credentials: this is how clients find out where to get
    /// a token.
    pub async fn admit_presented(&self, request: &Request) -> Result<(), Failure> {
        let caller = self.caller(request).await?;
        if caller.has_presented() {
            Ok(())
        } else {
            Err(self.refuse(request, caller.unknown(None)))
        }
    }

    /// Refuses a write that a page of another site has sent, see [`origin`].
    pub fn check_origin(&self, request: &Request) -> Result<(), Failure> {
        origin::check(request, self.terms.public_url.as_deref())
    }

    /// Refuses what a page of another site has sent, whatever its body.
    pub fn check_site(&self, request: &Request) -> Result<(), Failure> {
        origin::check_site(request, self.terms.public_url.as_deref())
    }

    /// Counts a login.
    pub fn saw_login(&self, who: Actor, admitted: bool) {
        self.witness.saw_login(who, admitted);
    }

    /// Counts a sign-in at an identity provider, or that it was refused for this reason.
    pub fn saw_sign_in(&self, who: Actor, refused: Option<&str>) {
        self.witness.saw_sign_in(who, refused);
    }

    /// Reads the records. Refuses answers that may be stale, if the operator has set this.
    pub async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), Failure> {
        let (value, freshness) = self.records.read(read).await?;
        if freshness != Freshness::Fresh {
            metrics::counter!("atoll_reads_stale_total").increment(1);
        }
        if freshness == Freshness::Stale && self.terms.refuse_stale {
            let message = "this node cannot reach the leader of the ledger, and reads.without_lease is 'refuse'";
            return Err(Failure::new(Code::Unavailable, message));
        }
        Ok((value, freshness))
    }

    /// See [`Records::stamp`].
    pub fn stamp(&self, repository: &RepositoryName) -> Option<Stamp> {
        self.records.stamp(repository)
    }

    /// As [`Door::read`], for reads that may take long: their number at a time is bounded, and no
    /// other task waits for them.
    pub async fn read_at_length<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), Failure> {
        let _one_of_few = self.long_reads.acquire().await;
        self.read(|records| at_length(|| read(records))).await
    }

    /// The answer to a caller who is not admitted, with the place to get a token if one can help.
    fn refuse(&self, request: &Request, error: AccessError) -> Failure {
        let challenge = match &error {
            // a browser that gets this challenge sends the password with every page; it is only
            // needed for the API
            AccessError::Missing(Some(NeededScope::Registry(RegistryScope::Api)))
            | AccessError::Ended(Some(NeededScope::Registry(RegistryScope::Api))) => {
                "Basic realm=\"atoll\"".to_owned()
            }
            AccessError::Missing(Some(needed)) | AccessError::Ended(Some(needed)) => {
                self.challenge(request, &[("scope", &needed.scope())])
            }
            AccessError::Scope(needed) => self
                .challenge(request, &[("scope", &needed.scope()), ("error", "insufficient_scope")]),
            AccessError::Missing(None) | AccessError::Ended(None) | AccessError::Wrong => {
                self.challenge(request, &[])
            }
            AccessError::Denied(_)
            | AccessError::TooMany(_)
            | AccessError::Unchecked(_)
            | AccessError::Internal(_) => {
                return error.into();
            }
        };
        Failure::from(error)
            .header(header::WWW_AUTHENTICATE, challenge)
            .closing_unless_read(request)
    }

    fn challenge(&self, request: &Request, parameters: &[(&str, &str)]) -> String {
        let mut challenge = format!(
            "Bearer realm=\"{}/service/token\",service=\"{SERVICE}\"",
            self.url_of(request)
        );
        for (name, value) in parameters {
            challenge.push_str(&format!(",{name}=\"{value}\""));
        }
        challenge
    }

    /// The URL by which the client reached this node: it must get its token from the same place.
    pub fn url_of(&self, request: &Request) -> String {
        let host = request.host();
        let mirror = self.mirrors.rules().by_host(host).is_some();
        let tls = match &self.terms.public_url {
            // the host name of a mirror says which registry's repositories a scope is about
            Some(url) if mirror => url.starts_with("https:"),
            Some(url) => return url.clone(),
            None => request.is_https_before_proxy().unwrap_or(self.terms.tls),
        };
        let host = host.unwrap_or("localhost");
        // an invalid Host must not end up in a header
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || ".:-[]_".contains(*c)).collect();
        format!("{}://{host}", if tls { "https" } else { "http" })
    }
}
