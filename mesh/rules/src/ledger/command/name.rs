//! What commands are called in logs and metrics.

use super::Command;
use crate::words::names::Reference;

impl Command {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::FormMesh { .. } => "form_mesh",
            Command::Invite { .. } => "invite",
            Command::RemoveNode { .. } => "remove_node",
            Command::Join { .. } => "join",
            Command::MoveNode { .. } => "move_node",
            Command::CreateProject(_)
            | Command::CreateOwnedProject { .. }
            | Command::CreateEquippedProject(_) => "create_project",
            Command::Quota(change) => change.name(),
            Command::Upkeep(_) => "record_run",
            Command::Drain(change) => change.name(),
            Command::Drill(change) => change.name(),
            Command::CreateUpstream { .. } => "create_upstream",
            Command::ChangeUpstream { .. } => "change_upstream",
            Command::DeleteUpstream { .. } => "delete_upstream",
            Command::ConfigureProject { .. } => "configure_project",
            Command::DeleteProject { .. } => "delete_project",
            Command::AssignPrimary { .. } => "assign_primary",
            Command::PutManifest(_) | Command::PutManifestIf(..) | Command::PutChecked(_) => {
                "put_manifest"
            }
            Command::DeleteTag { .. } => "delete_tag",
            Command::DeleteManifest { .. } => "delete_manifest",
            Command::DeleteIf { precondition, .. } => match precondition.of {
                Reference::Tag(_) => "delete_tag",
                Reference::Digest(_) => "delete_manifest",
            },
            Command::RaiseLevel { .. } => "raise_level",
            Command::EmptyCache { .. } => "empty_cache",
            Command::IndexTags { .. } => "index_tags",
            Command::People(change) => change.name(),
            Command::Sealing(change) => change.name(),
            Command::Leaving(change) => change.name(),
            Command::Trust(change) => change.name(),
            Command::AddTag { .. } => "add_tag",
            Command::Job(change) => change.name(),
            Command::Events(change) => change.name(),
            Command::Collect(change) => change.name(),
            Command::Policy { change, .. } => change.name(),
            Command::Retire { .. } | Command::RetireSeen { .. } => "retire",
            Command::Kept { .. } => "kept",
            Command::Pulled(_) => "note_pulls",
            Command::Label(change) => change.name(),
            Command::ForgetMetadata { .. } => "forget_metadata",
            Command::Scan { change, .. } => change.name(),
            Command::Signatures { change, .. } => change.name(),
            Command::Scanner(change) => change.name(),
            Command::Trash { change, .. } => change.name(),
            Command::Audited(audited) => audited.command.command().name(),
        }
    }
}
