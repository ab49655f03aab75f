//! The command line.

mod api;
mod ca;
mod client;
mod contexts;
mod credential_provider;
mod drain;
mod init;
mod level;
mod live;
mod mirror;
mod node;
mod own;
mod password;
mod preheat;
mod remove;
mod scanner_adapter;
mod serve;
mod shown;
mod status;
mod token;
mod up;
mod world;

use std::io;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use rules::ledger::level::Level;

/// A container registry that is a mesh: one binary in every region.
#[derive(Parser)]
#[command(name = "atoll", version)]
pub struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a mesh of three regions on this machine, and show what happens in it.
    Up(up::Up),
    /// Run one node.
    Serve(serve::Serve),
    /// Form a new mesh, with this node as the first.
    Init(init::Init),
    /// Print a token that lets one node join, once.
    Invite(token::Invite),
    /// Join a mesh with a token from `atoll invite`.
    Join(token::Join),
    /// Print the certificate of the mesh's own CA, for clients that are to trust it.
    Ca(ca::Ca),
    /// Give the kubelet credentials for images, as its image credential provider.
    CredentialProvider,
    /// Set a user's password from the disk of a replica, if the administrator's is lost.
    Password(password::Password),
    /// Remove a node from the mesh, up or gone for good. Says first what that costs.
    Remove(remove::Remove),
    /// Have a replica give away what others need it for, and say when it can be switched off.
    Drain(drain::Drain),
    /// Show the mesh's feature level and each node's build, or raise the level after an upgrade.
    Level(level::LevelCommand),
    /// Show what this program is, and the highest feature level that it supports. It asks no node.
    Version,
    /// Keep a node's address and credentials for the other commands.
    Login(contexts::Login),
    /// Forget them.
    Logout(contexts::Logout),
    /// Projects.
    Project(api::ProjectCommand),
    /// How much projects have, and how much they may have.
    Quota(api::QuotaCommand),
    /// List what was deleted, restore it, or remove it for good.
    Trash(api::TrashCommand),
    /// Members of projects.
    Member(api::MemberCommand),
    /// Users.
    User(api::UserCommand),
    /// Robots.
    Robot(api::RobotCommand),
    /// Whose tokens of other issuers mean a robot, so that workloads need no secret.
    Trust(api::TrustCommand),
    /// Repositories.
    Repo(api::RepositoryCommand),
    /// What repositories have.
    Artifact(api::ArtifactCommand),
    /// Tags.
    Tag(api::TagCommand),
    /// Labels of artifacts.
    Label(api::LabelCommand),
    /// Print what makes a shell complete these commands.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Show nodes, leader, projects, primaries and copies.
    Status(status::Status),
    /// Say what would be lost if a region burned now, and what to do about it.
    Dr(api::DrCommand),
    /// Make clients use the mesh as a mirror of other registries, and check that it works.
    Mirror(mirror::Mirror),
    /// Bring images into regions before clients there pull them.
    Preheat(preheat::Preheat),
    /// Who changed what, and when.
    Audit(api::AuditCommand),
    /// Make the copies of projects that are missing, now.
    Repair(api::RepairCommand),
    /// Show how far a node has read its blobs again, or have it read them now.
    Scrub(api::ScrubCommand),
    /// What stays in projects, and what is deleted.
    Retention(api::RetentionCommand),
    /// Tags that are never moved or deleted.
    Immutable(api::ImmutableCommand),
    /// Set what a project decides, from a file.
    Apply(api::ApplyCommand),
    /// Look for vulnerabilities in an image.
    Scan(api::ScanCommand),
    /// List the vulnerabilities that a scan found in an image.
    Vulnerabilities(api::VulnerabilitiesCommand),
    /// Print what an image consists of, or keep that beside it.
    Sbom(api::SbomCommand),
    /// Sign an image with the key of its project.
    Sign(api::SignCommand),
    /// Whom a project trusts to sign its images.
    Signer(api::SignerCommand),
    /// Show the signatures of an image and what they are worth.
    Signatures(api::SignaturesCommand),
    /// Serve one image for a while without the signatures that its project demands.
    Exempt(api::ExemptCommand),
    /// Say why a node serves an image, or does not.
    Explain(api::ExplainCommand),
    /// Vulnerabilities that do not count.
    Allowlist(api::AllowlistCommand),
    /// Show the scanners and the database, register other scanners, and choose among them.
    Scanner(api::ScannerCommand),
    /// Offer the built-in scanner to other registries, over Harbor's API for pluggable scanners.
    ScannerAdapter(Box<scanner_adapter::ScannerAdapter>),
    /// Blobs that nothing refers to any more, and their collection.
    Gc(api::CollectionCommand),
    /// Background work of the mesh, and its schedules.
    Jobs(api::JobsCommand),
}

/// Runs a command to its end.
pub fn run(command: Command) -> io::Result<()> {
    match command.verb {
        Verb::Up(up) => up::run(up),
        Verb::Serve(serve) => serve::run(serve),
        Verb::Init(command) => init::run(&command),
        Verb::Invite(invite) => token::invite(&invite),
        Verb::Join(join) => token::join(&join),
        Verb::Ca(ca) => ca::run(&ca),
        Verb::CredentialProvider => credential_provider::run(),
        Verb::Password(password) => password::run(&password),
        Verb::Remove(remove) => remove::run(&remove),
        Verb::Drain(drain) => drain::run(&drain),
        Verb::Level(command) => level::run(&command),
        Verb::Version => {
            println!(
                "atoll {}, supports feature levels up to {}",
                env!("CARGO_PKG_VERSION"),
                Level::NEWEST
            );
            Ok(())
        }
        Verb::Login(login) => contexts::login(&login),
        Verb::Logout(logout) => contexts::logout(&logout),
        Verb::Project(command) => api::projects(&command),
        Verb::Quota(command) => api::quotas(&command),
        Verb::Trash(command) => api::trash(&command),
        Verb::Member(command) => api::members(&command),
        Verb::User(command) => api::users(&command),
        Verb::Robot(command) => api::robots(&command),
        Verb::Trust(command) => api::trusts(&command),
        Verb::Repo(command) => api::repositories(&command),
        Verb::Artifact(command) => api::artifacts(&command),
        Verb::Tag(command) => api::tags(&command),
        Verb::Label(command) => api::labels(&command),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            complete(shell, &mut script);
            // a reader that has seen enough is no error
            match io::Write::write_all(&mut io::stdout(), &script) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            }
        }
        Verb::Status(status) => status::run(&status),
        Verb::Dr(command) => api::dr(&command),
        Verb::Mirror(mirror) => mirror::run(&mirror),
        Verb::Preheat(preheat) => preheat::run(&preheat),
        Verb::Audit(command) => api::audit(&command),
        Verb::Repair(command) => api::repair(&command),
        Verb::Scrub(command) => api::scrub(&command),
        Verb::Retention(command) => api::retention(&command),
        Verb::Immutable(command) => api::immutable(&command),
        Verb::Apply(command) => api::apply(&command),
        Verb::Scan(command) => api::scan(&command),
        Verb::Vulnerabilities(command) => api::vulnerabilities(&command),
        Verb::Sbom(command) => api::sbom(&command),
        Verb::Sign(command) => api::sign(&command),
        Verb::Signer(command) => api::signers(&command),
        Verb::Signatures(command) => api::signatures(&command),
        Verb::Exempt(command) => api::exempt(&command),
        Verb::Explain(command) => api::explain(&command),
        Verb::Allowlist(command) => api::allowlist(&command),
        Verb::Scanner(command) => api::scanners(&command),
        Verb::ScannerAdapter(command) => scanner_adapter::run(*command),
        Verb::Gc(command) => api::collection(&command),
        Verb::Jobs(command) => api::jobs(&command),
    }
}

fn complete(shell: Shell, to: &mut dyn io::Write) {
    clap_complete::generate(shell, &mut Command::command(), "atoll", &mut { to });
}

/// The runtime for the short commands.
fn small_runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn load(config: &std::path::Path) -> io::Result<config::Settings> {
    config::load(config)
        .map_err(|mistakes| io::Error::other(format!("the settings cannot be used:\n{mistakes}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_sound_and_every_shell_completes_them() {
        Command::command().debug_assert();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            complete(shell, &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["project", "credential-provider", "--password-file"] {
                // fish writes options without their dashes
                let word = word.trim_start_matches('-');
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
