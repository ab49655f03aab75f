//! `/api/v2.0/users`: users, with Harbor's schemas and statuses. `disabled` is Atoll's own.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use registry::people::Caller;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::people::{Account, LookForPeople, PeopleChange};
use rules::people::access::Identity;
use rules::people::passwords;
use rules::words::names::{UserId, UserName};
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::roles::{Operation, Permission, Resource};
use rules::words::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer, set};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum length of what is only for people, in bytes.
const LONGEST: usize = 255;

#[derive(Deserialize)]
struct NewUser {
    username: String,
    password: Secret,
    #[serde(default)]
    email: String,
    #[serde(default)]
    realname: String,
    #[serde(default)]
    comment: String,
}

#[derive(Deserialize)]
struct ChangedUser {
    email: Option<String>,
    realname: Option<String>,
    comment: Option<String>,
    disabled: Option<bool>,
}

#[derive(Deserialize)]
struct Administers {
    sysadmin_flag: bool,
}

#[derive(Deserialize)]
struct NewCliSecret {
    #[serde(default)]
    secret: Secret,
}

#[derive(Deserialize)]
struct NewPassword {
    old_password: Option<Secret>,
    new_password: Secret,
}

/// Checks what is only for people.
fn check(name: &str, text: &str) -> Result<(), Failure> {
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(bad(format!("{name} has at most {LONGEST} bytes, and no control characters")));
    }
    if name == "email" && !text.is_empty() && !text.contains('@') {
        return Err(bad("email is an address with an '@', or empty"));
    }
    Ok(())
}

fn checked(password: &Secret, field: &str) -> Result<(), Failure> {
    passwords::check(password.expose()).map_err(|e| bad(format!("{field}: {e}")))
}

/// A robot that manages users locks no administrator out.
fn only_by_administrators(caller: &Caller, account: &Account) -> Result<(), Failure> {
    if account.administrator && !caller.identity.is_administrator() {
        let message = "only an administrator disables or deletes an administrator";
        return Err(Failure::new(Code::Denied, message));
    }
    Ok(())
}

fn no_user(id: UserId) -> Failure {
    Failure::new(Code::NotFound, format!("there is no user {}", id.0))
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Account>] = &[
    Field::new("username", Kind::Text, |account| text(account.name.as_str())),
    Field::new("email", Kind::Text, |account| text(&account.email)),
    Field::new("realname", Kind::Text, |account| text(&account.real_name)),
    Field::new("user_id", Kind::Number, |account| number(account.id.0)),
    Field::new("sysadmin_flag", Kind::Flag, |account| query::Value::Flag(account.administrator)),
    Field::new("creation_time", Kind::Time, |account| query::Value::Time(account.created)),
    Field::new("update_time", Kind::Time, |account| query::Value::Time(account.updated)),
];

impl Harbor {
    pub(super) async fn list_users(&self, request: &Request) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let accounts = self.read(|records| records.accounts()).await?;
        wanted.answer_chosen(accounts, FIELDS, |account| account.name.as_str(), show)
    }

    pub(super) async fn search_users(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let part = request.query("username").unwrap_or_default();
        if part.is_empty() {
            return Err(bad("username is needed: a part of the name"));
        }
        let wanted = PageRequest::pages(request)?;
        let accounts = self.read(|records| records.accounts()).await?;
        let fits = |account: &Account| account.name.as_str().contains(part);
        let accounts: Vec<Account> = accounts.into_iter().filter(fits).collect();
        let show =
            |account: &Account| json!({"user_id": account.id.0, "username": account.name.as_str()});
        Ok(wanted.answer(&accounts, |account| account.name.as_str(), show))
    }

    pub(super) async fn create_user(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let NewUser { username, password, email, realname, comment } = body(&mut request).await?;
        let name: UserName = username.parse().map_err(|e| bad(format!("username: {e}")))?;
        let alike = self.read_at_length(|records| records.name_like(&name)).await?;
        if let Some(other) = alike {
            let message = format!("username: {name} looks like {other}, which somebody has");
            return Err(Failure::new(Code::Conflict, message));
        }
        checked(&password, "password")?;
        check("email", &email)?;
        check("realname", &realname)?;
        check("comment", &comment)?;
        let change = PeopleChange::CreateUser {
            name: name.clone(),
            email,
            real_name: realname,
            comment,
            password_hash: self.access.hash_new(password).await?,
            administrator: false,
        };
        self.change_people(change, &format!("user {name}"), by).await?;
        let (made, _) = self.records.read(|records| records.account_named(&name)).await?;
        Ok(created(made.map(|made| format!("/api/v2.0/users/{}", made.id.0))))
    }

    pub(super) async fn show_current_user(
        &self,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let account = self.own(caller).await?;
        let account =
            account.ok_or_else(|| Failure::new(Code::NotFound, "this user has no account"))?;
        let mut shown = show(&account);
        let belonging = self.read(|records| records.belonging(account.id)).await?;
        if let Some(belonging) = belonging {
            shown["admin_role_in_auth"] = belonging.administers.into();
            // only the user sees it, to give it to their clients
            if let Some(secret) = self.access.cli_secret(account.id).await? {
                shown["oidc_user_meta"] = json!({
                    "user_id": account.id.0,
                    "subiss": belonging.vouched.subject,
                    "secret": secret.into_exposed(),
                });
            }
        }
        let mut response = json_answer(StatusCode::OK, &shown);
        set(&mut response, "cache-control", "no-store");
        Ok(response)
    }

    pub(super) async fn show_user(
        &self,
        caller: &Caller,
        id: UserId,
    ) -> Result<Response<Payload>, Failure> {
        let account = self.theirs(caller, id, Operation::Read).await?;
        Ok(json_answer(StatusCode::OK, &show(&account)))
    }

    pub(super) async fn change_user(
        &self,
        mut request: Request,
        caller: &Caller,
        id: UserId,
    ) -> Result<Response<Payload>, Failure> {
        let account = self.theirs(caller, id, Operation::Update).await?;
        let ChangedUser { email, realname, comment, disabled } = body(&mut request).await?;
        let update = Permission::new(Resource::User, Operation::Update);
        if disabled.is_some() && !caller.identity.may_in_system(update) {
            let message = format!("{} may not disable users", caller.identity.name());
            return Err(Failure::new(Code::Denied, message));
        }
        if disabled.is_some() {
            only_by_administrators(caller, &account)?;
        }
        for (name, text) in [("email", &email), ("realname", &realname), ("comment", &comment)] {
            check(name, text.as_deref().unwrap_or_default())?;
        }
        let real_name = realname;
        let administrator = None;
        let change =
            PeopleChange::ChangeUser { id, email, real_name, comment, administrator, disabled };
        self.change_people(change, &format!("user {}", id.0), &actor(caller, &request)).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn delete_user(
        &self,
        caller: &Caller,
        id: UserId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let account = self.theirs(caller, id, Operation::Delete).await?;
        only_by_administrators(caller, &account)?;
        self.change_people(PeopleChange::DeleteUser { id }, &format!("user {}", id.0), by).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn set_administrator(
        &self,
        mut request: Request,
        id: UserId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let Administers { sysadmin_flag } = body(&mut request).await?;
        let change = PeopleChange::ChangeUser {
            id,
            email: None,
            real_name: None,
            comment: None,
            administrator: Some(sysadmin_flag),
            disabled: None,
        };
        self.change_people(change, &format!("user {}", id.0), by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Who changes their own password must know the old one, administrators too: a browser may have
    /// been left alone.
    pub(super) async fn set_password(
        &self,
        mut request: Request,
        caller: &Caller,
        id: UserId,
    ) -> Result<Response<Payload>, Failure> {
        let account = self.theirs(caller, id, Operation::Operate).await?;
        let NewPassword { old_password, new_password } = body(&mut request).await?;
        checked(&new_password, "new_password")?;
        if self.read(|records| records.belonging(id)).await?.is_some() {
            let message = "this user signs in at the identity provider, and has no password here";
            return Err(Failure::new(Code::Precondition, message));
        }
        if self.own(caller).await?.is_some_and(|own| own.id == id) {
            let old = old_password.unwrap_or_default();
            if !self.access.proves(account.name.as_str(), &old, request.origin()).await? {
                return Err(Failure::new(Code::Denied, "old_password is not right"));
            }
            if old == new_password {
                return Err(bad("new_password is the old one"));
            }
        }
        let change = PeopleChange::SetPassword {
            id,
            password_hash: self.access.hash_new(new_password).await?,
            generation: Some(account.generation),
        };
        self.change_people(change, &format!("user {}", id.0), &actor(caller, &request)).await?;
        tracing::info!(user = %account.name, by = caller.identity.name(), "a password was changed");
        Ok(answer(StatusCode::OK))
    }

    /// Sets the secret with which a user of the OIDC provider signs in where there is no browser: the
    /// one in the body, or a new one if it has none.
    pub(super) async fn set_cli_secret(
        &self,
        mut request: Request,
        caller: &Caller,
        id: UserId,
    ) -> Result<Response<Payload>, Failure> {
        self.theirs(caller, id, Operation::Operate).await?;
        let NewCliSecret { secret } = body(&mut request).await?;
        let secret = match secret.expose().is_empty() {
            true => BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into(),
            false => {
                checked(&secret, "secret")?;
                secret
            }
        };
        self.access.set_cli_secret(id, &secret, &actor(caller, &request)).await?;
        Ok(answer(StatusCode::OK))
    }

    /// The caller's own account; `None` for a robot.
    async fn own(&self, caller: &Caller) -> Result<Option<Account>, Failure> {
        let find = |records: &dyn rules::ledger::records::ReadRecords| match &caller.identity {
            Identity::User(user) => records.account(user.id),
            Identity::Administrator(name) => match name.parse::<UserName>() {
                Ok(name) => records.account_named(&name),
                Err(_) => Ok(None),
            },
            Identity::Anonymous | Identity::Robot(_) => Ok(None),
        };
        self.read(find).await
    }

    /// The account with this number, if it is the caller's own or they may do `operation` to all
    /// users.
    async fn theirs(
        &self,
        caller: &Caller,
        id: UserId,
        operation: Operation,
    ) -> Result<Account, Failure> {
        let permission = Permission::new(Resource::User, operation);
        let account = self.read(|records| records.account(id)).await?;
        if caller.identity.may_in_system(permission) {
            return account.ok_or_else(|| no_user(id));
        }
        match (&caller.identity, account) {
            (Identity::User(own), Some(account)) if own.id == id => Ok(account),
            (who, _) => {
                let message = format!("{} may not {permission} {}", who.name(), id.0);
                Err(Failure::new(Code::Denied, message))
            }
        }
    }
}

fn show(account: &Account) -> Value {
    json!({
        "user_id": account.id.0,
        "username": account.name.as_str(),
        "email": account.email,
        "realname": account.real_name,
        "comment": account.comment,
        "sysadmin_flag": account.administrator,
        "admin_role_in_auth": false,
        "disabled": account.disabled,
        "creation_time": account.created.to_string(),
        "update_time": account.updated.to_string(),
    })
}
