//! `atoll password`: sets a user's password from the disk of a replica.

use std::io;
use std::path::PathBuf;

use mesh::identity::Identity;
use registry::people::hash_password;
use rules::ledger::command::Command;
use rules::ledger::people::PeopleChange;
use rules::ledger::records::Role;
use rules::people::passwords;
use rules::words::names::UserName;
use rules::words::secret::Secret;

use super::init::{ADMINISTRATOR, new_password};
use crate::start::identity_folder;

/// Arguments of `password`.
#[derive(clap::Args)]
pub(super) struct Password {
    /// Whose password.
    #[arg(default_value = ADMINISTRATOR)]
    user: UserName,
    /// The settings of the running replica on this machine.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
    /// A file with the new password. Otherwise a new one is made and printed.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Sets it. What the old password opened is closed in every region when this ends.
pub(super) fn run(password: &Password) -> io::Result<()> {
    let settings = super::load(&password.config)?;
    if settings.role == Role::Edge {
        return Err(io::Error::other(
            "an edge cannot set passwords; run `atoll password` on the machine of a replica",
        ));
    }
    let identity =
        Identity::load(&identity_folder(&settings.data_dir)).map_err(io::Error::other)?;
    let (new, shown) = match &password.password_file {
        Some(file) => {
            let read = std::fs::read_to_string(file);
            let read = read.map_err(|e| {
                io::Error::other(format!("--password-file {}: {e}", file.display()))
            })?;
            let new: Secret = read.trim_end_matches(['\r', '\n']).into();
            let weak = |e| io::Error::other(format!("--password-file {}: {e}", file.display()));
            passwords::check(new.expose()).map_err(weak)?;
            (new, false)
        }
        None => (accepted(), true),
    };
    let change = PeopleChange::RecoverPassword {
        name: password.user.clone(),
        password_hash: hash_password(&new).map_err(io::Error::other)?,
    };
    let failed = format!("the password of {} was not set", password.user);
    super::own::propose(&settings, &identity, Command::People(Box::new(change)), &failed)?;
    if shown {
        println!("{}", new.expose());
    }
    eprintln!(
        "The password of {} was set. The old one and all tokens of this user are refused now.",
        password.user
    );
    Ok(())
}

/// A new password that fits the rule for passwords.
fn accepted() -> Secret {
    loop {
        let new = new_password();
        if passwords::check(new.expose()).is_ok() {
            return new;
        }
    }
}
