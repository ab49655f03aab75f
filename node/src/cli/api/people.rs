//! `atoll member` and `atoll user`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use http::Method;
use rules::words::roles::ProjectRole;
use serde_json::{Value, json};

use super::projects::path;
use super::{Api, Asking, part, with};

/// Arguments of `member`.
#[derive(clap::Args)]
pub(in crate::cli) struct MemberCommand {
    #[command(subcommand)]
    verb: MemberVerb,
    #[command(flatten)]
    asking: Asking,
}

/// Whose a group is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum GroupOf {
    /// Of the OIDC provider.
    Oidc,
    /// Of the LDAP directory.
    Ldap,
}

/// The member of a request that adds one.
fn new_member(name: &str, group: Option<GroupOf>) -> (&'static str, Value) {
    match group {
        None => ("member_user", json!({"username": name})),
        Some(GroupOf::Oidc) => ("member_group", json!({"group_name": name, "group_type": 3})),
        Some(GroupOf::Ldap) => ("member_group", json!({"ldap_group_dn": name, "group_type": 1})),
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Members and policies, and what a maintainer may.
    Admin,
    /// Deletes, and what a developer may.
    Maintainer,
    /// Pushes and pulls.
    Developer,
    /// Pulls.
    Guest,
    /// Pulls, and sees less.
    LimitedGuest,
}

impl Role {
    fn number(self) -> u64 {
        let role = match self {
            Role::Admin => ProjectRole::Admin,
            Role::Maintainer => ProjectRole::Maintainer,
            Role::Developer => ProjectRole::Developer,
            Role::Guest => ProjectRole::Guest,
            Role::LimitedGuest => ProjectRole::LimitedGuest,
        };
        role.number()
    }
}

#[derive(Subcommand)]
enum MemberVerb {
    /// List the members of a project.
    List {
        /// The project.
        project: String,
    },
    /// Let a user or a group in.
    Add {
        /// The project.
        project: String,
        /// The user, or the group.
        user: String,
        /// What they become.
        #[arg(value_enum)]
        role: Role,
        /// The name is that of a group: its name at the OIDC provider, or its distinguished name in
        /// the LDAP directory.
        #[arg(long, value_enum, value_name = "PROVIDER")]
        group: Option<GroupOf>,
    },
    /// Give a member another role.
    Set {
        /// The project.
        project: String,
        /// The member.
        user: String,
        /// What they become.
        #[arg(value_enum)]
        role: Role,
    },
    /// Take a member out.
    Remove {
        /// The project.
        project: String,
        /// The member.
        user: String,
    },
}

/// Arguments of `user`.
#[derive(clap::Args)]
pub(in crate::cli) struct UserCommand {
    #[command(subcommand)]
    verb: UserVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum UserVerb {
    /// List all users.
    List,
    /// Create a user, with a password from a file or the standard input. `--password-file` is
    /// another one: yours, with which you sign in yourself.
    Create {
        /// Their name.
        name: String,
        /// A file with their password. Without it the standard input has it.
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// Their mail address.
        #[arg(long, default_value = "")]
        email: String,
    },
    /// Set a user's password, from a file or the standard input. `--password-file` is another one:
    /// yours, with which you sign in yourself.
    Password {
        /// Their name.
        name: String,
        /// A file with the new password. Without it the standard input has it.
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// A file with the present one, to change one's own.
        #[arg(long, value_name = "FILE")]
        old_password_file: Option<PathBuf>,
    },
    /// Make a user an administrator of the registry, or none any more.
    Administrator {
        /// Their name.
        name: String,
        /// None any more.
        #[arg(long)]
        off: bool,
    },
    /// Let a user in again who was disabled.
    Enable {
        /// Their name.
        name: String,
    },
    /// Keep a user out, whatever they show, until they are enabled again.
    Disable {
        /// Their name.
        name: String,
    },
    /// Delete a user.
    Delete {
        /// Their name.
        name: String,
    },
}

fn members_path(project: &str) -> String {
    format!("{}/members", path(project))
}

/// The number of the entry of a list whose `field` is `name`.
pub(super) fn number_of(
    list: &[Value],
    field: &str,
    name: &str,
    id: &str,
    what: &str,
) -> io::Result<String> {
    let found = list.iter().find(|one| one[field] == name);
    let number = found.and_then(|one| one[id].as_u64());
    number
        .map(|number| number.to_string())
        .ok_or_else(|| io::Error::other(format!("there is no {what} {name}")))
}

/// Runs `member`.
pub(in crate::cli) fn members(command: &MemberCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let member = async |project: &str, user: &str| {
            let path = members_path(project);
            let all = api.all(&path).await?;
            let id = number_of(&all, "entity_name", user, "id", &format!("member of {project}:"))?;
            Ok::<_, io::Error>(format!("{path}/{id}"))
        };
        match &command.verb {
            MemberVerb::List { project } => {
                let all = api.all(&members_path(project)).await?;
                api.print(
                    &all,
                    &[("MEMBER", "/entity_name"), ("KIND", "/entity_type"), ("ROLE", "/role_name")],
                );
            }
            MemberVerb::Add { project, user, role, group } => {
                let mut body = json!({"role_id": role.number()});
                let (field, member) = new_member(user, *group);
                body[field] = member;
                let path = members_path(project);
                api.send(Method::POST, &path, Some(&body)).await?;
                api.say(&format!("{user} is a member of {project}"));
            }
            MemberVerb::Set { project, user, role } => {
                let body = json!({"role_id": role.number()});
                api.send(Method::PUT, &member(project, user).await?, Some(&body)).await?;
                api.say(&format!("{user} has another role in {project}"));
            }
            MemberVerb::Remove { project, user } => {
                api.send(Method::DELETE, &member(project, user).await?, None).await?;
                api.say(&format!("{user} is no member of {project} any more"));
            }
        }
        Ok(())
    })
}

/// A password from a file, or from the standard input.
fn password(file: Option<&Path>, whose: &str) -> io::Result<String> {
    let text = match file {
        Some(file) => fs::read_to_string(file)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?,
        None => {
            eprintln!("the password that {whose} gets, then Enter and Ctrl-D:");
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    let password = text.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err(io::Error::other(format!(
            "there is no password for {whose}: --new-password-file FILE names a file with it, or it \
             comes on the standard input (--password-file has your own, with which you sign in)"
        ))),
        false => Ok(password.to_owned()),
    }
}

async fn user_path(api: &Api, name: &str) -> io::Result<String> {
    let current = api.get("/api/v2.0/users/current").await?;
    if current["username"] == name {
        return Ok(format!("/api/v2.0/users/{}", current["user_id"]));
    }
    let all = api.all(&format!("/api/v2.0/users?q=username={}", part(name))).await?;
    Ok(format!("/api/v2.0/users/{}", number_of(&all, "username", name, "user_id", "user")?))
}

/// Runs `user`.
pub(in crate::cli) fn users(command: &UserCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        match &command.verb {
            UserVerb::List => {
                let all = api.all("/api/v2.0/users").await?;
                api.print(
                    &all,
                    &[
                        ("USER", "/username"),
                        ("MAIL", "/email"),
                        ("ADMINISTRATOR", "/sysadmin_flag"),
                        ("DISABLED", "/disabled"),
                        ("SINCE", "/creation_time"),
                    ],
                );
            }
            UserVerb::Create { name, new_password_file, email } => {
                let password = password(new_password_file.as_deref(), name)?;
                let mut body = json!({"username": name, "password": password, "realname": name});
                if !email.is_empty() {
                    body["email"] = json!(email);
                }
                api.send(Method::POST, "/api/v2.0/users", Some(&body)).await?;
                api.say(&format!("user {name} is there"));
            }
            UserVerb::Password { name, new_password_file, old_password_file } => {
                let path = format!("{}/password", user_path(&api, name).await?);
                let new = password(new_password_file.as_deref(), name)?;
                let mut body = json!({"new_password": new});
                if let Some(old) = old_password_file {
                    body["old_password"] = json!(password(Some(old), name)?);
                }
                api.send(Method::PUT, &path, Some(&body)).await?;
                api.say(&format!("{name} has another password; tokens of before are refused"));
            }
            UserVerb::Administrator { name, off } => {
                let path = format!("{}/sysadmin", user_path(&api, name).await?);
                api.send(Method::PUT, &path, Some(&json!({"sysadmin_flag": !off}))).await?;
                let now = if *off { "no administrator any more" } else { "an administrator" };
                api.say(&format!("{name} is {now}"));
            }
            UserVerb::Enable { name } => {
                let path = user_path(&api, name).await?;
                api.send(Method::PUT, &path, Some(&json!({"disabled": false}))).await?;
                api.say(&format!("user {name} may come in"));
            }
            UserVerb::Disable { name } => {
                let path = user_path(&api, name).await?;
                api.send(Method::PUT, &path, Some(&json!({"disabled": true}))).await?;
                api.say(&format!("user {name} is refused until they are enabled again"));
            }
            UserVerb::Delete { name } => {
                api.send(Method::DELETE, &user_path(&api, name).await?, None).await?;
                api.say(&format!("user {name} is deleted"));
            }
        }
        Ok(())
    })
}
