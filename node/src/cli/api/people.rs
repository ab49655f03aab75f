//! `atoll member`, `atoll user` and `atoll robot`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use http::Method;
use rules::words::moment::Timestamp;
use rules::words::roles::ProjectRole;
use serde_json::{Value, json};

use super::projects::{by_name, path};
use super::{Api, Asking, part, with};
use crate::cli::shown::safe_json;

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
    /// Delete a user.
    Delete {
        /// Their name.
        name: String,
    },
}

/// Arguments of `robot`.
#[derive(clap::Args)]
pub(in crate::cli) struct RobotCommand {
    #[command(subcommand)]
    verb: RobotVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum RobotVerb {
    /// List the robots of a project, or those of the registry.
    List {
        /// The project.
        #[arg(long)]
        project: Option<String>,
    },
    /// Create a robot of a project, and print its secret: this is the only time.
    Create {
        /// The name after `robot$PROJECT+`.
        name: String,
        /// The project.
        #[arg(long)]
        project: String,
        /// What it may do in the project's repositories, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "pull", value_name = "pull,push,..")]
        may: Vec<String>,
        /// For how many days; -1 means for ever.
        #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
        days: i64,
    },
    /// Give a robot another secret, and print it.
    Refresh {
        /// Its whole name.
        name: String,
        /// Its project, if it has one.
        #[arg(long)]
        project: Option<String>,
    },
    /// Delete a robot.
    Delete {
        /// Its whole name.
        name: String,
        /// Its project, if it has one.
        #[arg(long)]
        project: Option<String>,
    },
}

async fn members_path(api: &Api, project: &str) -> io::Result<String> {
    let project = by_name(api, project).await?;
    Ok(format!("{}/members", path(&project["project_id"].to_string())))
}

/// The number of the entry of a list whose `field` is `name`.
fn number_of(list: &[Value], field: &str, name: &str, id: &str, what: &str) -> io::Result<String> {
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
            let path = members_path(&api, project).await?;
            let all = api.all(&path).await?;
            let id = number_of(&all, "entity_name", user, "id", &format!("member of {project}:"))?;
            Ok::<_, io::Error>(format!("{path}/{id}"))
        };
        match &command.verb {
            MemberVerb::List { project } => {
                let all = api.all(&members_path(&api, project).await?).await?;
                api.print(
                    &all,
                    &[("MEMBER", "/entity_name"), ("KIND", "/entity_type"), ("ROLE", "/role_name")],
                );
            }
            MemberVerb::Add { project, user, role, group } => {
                let mut body = json!({"role_id": role.number()});
                let (field, member) = new_member(user, *group);
                body[field] = member;
                let path = members_path(&api, project).await?;
                api.send(Method::POST, &path, Some(&body)).await?;
                println!("{user} is a member of {project}");
            }
            MemberVerb::Set { project, user, role } => {
                let body = json!({"role_id": role.number()});
                api.send(Method::PUT, &member(project, user).await?, Some(&body)).await?;
                println!("{user} has another role in {project}");
            }
            MemberVerb::Remove { project, user } => {
                api.send(Method::DELETE, &member(project, user).await?, None).await?;
                println!("{user} is no member of {project} any more");
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
                println!("user {name} is there");
            }
            UserVerb::Password { name, new_password_file, old_password_file } => {
                let path = format!("{}/password", user_path(&api, name).await?);
                let new = password(new_password_file.as_deref(), name)?;
                let mut body = json!({"new_password": new});
                if let Some(old) = old_password_file {
                    body["old_password"] = json!(password(Some(old), name)?);
                }
                api.send(Method::PUT, &path, Some(&body)).await?;
                println!("{name} has another password; tokens of before are refused");
            }
            UserVerb::Administrator { name, off } => {
                let path = format!("{}/sysadmin", user_path(&api, name).await?);
                api.send(Method::PUT, &path, Some(&json!({"sysadmin_flag": !off}))).await?;
                let now = if *off { "no administrator any more" } else { "an administrator" };
                println!("{name} is {now}");
            }
            UserVerb::Delete { name } => {
                api.send(Method::DELETE, &user_path(&api, name).await?, None).await?;
                println!("user {name} is deleted");
            }
        }
        Ok(())
    })
}

async fn robots(api: &Api, project: Option<&str>) -> io::Result<Vec<Value>> {
    let list = match project {
        Some(name) => {
            let number = by_name(api, name).await?["project_id"].to_string();
            format!("/api/v2.0/robots?q=Level=project,ProjectID={number}")
        }
        None => "/api/v2.0/robots".to_owned(),
    };
    api.all(&list).await
}

/// Runs `robot`.
pub(in crate::cli) fn run_robot(command: &RobotCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let one = async |name: &str, project: Option<&str>| {
            let all = robots(&api, project).await?;
            let id = number_of(&all, "name", name, "id", "robot")?;
            Ok::<_, io::Error>(format!("/api/v2.0/robots/{id}"))
        };
        match &command.verb {
            RobotVerb::List { project } => {
                let mut all = robots(&api, project.as_deref()).await?;
                if !api.is_json() {
                    for one in &mut all {
                        one["expires_at"] = expiry(&one["expires_at"]).into();
                    }
                }
                api.print(
                    &all,
                    &[
                        ("ID", "/id"),
                        ("ROBOT", "/name"),
                        ("DISABLED", "/disable"),
                        ("EXPIRES", "/expires_at"),
                    ],
                );
            }
            RobotVerb::Create { name, project, may, days } => {
                let access: Vec<Value> = may
                    .iter()
                    .map(|action| json!({"resource": "repository", "action": action}))
                    .collect();
                let body = json!({
                    "name": name, "level": "project", "duration": days,
                    "permissions": [{"kind": "project", "namespace": project, "access": access}],
                });
                let made = api.send(Method::POST, "/api/v2.0/robots", Some(&body)).await?;
                if made.location.is_none() {
                    return Err(io::Error::other("the node did not say which robot it made"));
                }
                show_secret(&api, made.body["name"].as_str().unwrap_or(name), &made.body);
            }
            RobotVerb::Refresh { name, project } => {
                let path = one(name, project.as_deref()).await?;
                let made = api.send(Method::PATCH, &path, Some(&json!({}))).await?;
                show_secret(&api, name, &made.body);
            }
            RobotVerb::Delete { name, project } => {
                api.send(Method::DELETE, &one(name, project.as_deref()).await?, None).await?;
                println!("robot {name} is deleted");
            }
        }
        Ok(())
    })
}

/// When a robot's secret ends, for people. Harbor's form is seconds since 1970, and -1 for never.
fn expiry(seconds: &Value) -> String {
    match seconds.as_i64() {
        Some(at) if at > 0 => Timestamp(at as u64 * 1000).to_string(),
        _ => "never".to_owned(),
    }
}

fn show_secret(api: &Api, name: &str, made: &Value) {
    if api.output == super::Output::Json {
        println!("{}", safe_json(made));
    } else {
        println!("{name}\n{}", made["secret"].as_str().unwrap_or_default());
        eprintln!("This secret is not shown again.");
    }
}
