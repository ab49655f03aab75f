//! Groups, and users whom identity providers vouch for.

use super::{EMPTIED_AT_ONCE, next_number};
use crate::ledger::command::Outcome;
use crate::ledger::directory::{
    Belonging, Configurations, DirectoryChange, Group, GroupMember, LookForGroups, MOST_GROUPS,
    Vouched,
};
use crate::ledger::level::Level;
use crate::ledger::people::{Account, LookForPeople};
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, decode, encode, key};
use crate::words::moment::Timestamp;
use crate::words::names::{GroupId, MemberId, ProjectId, UserId, UserName};
use crate::words::roles::{ProjectRole, Provider};
use crate::words::secret::Secret;

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &DirectoryChange,
) -> Result<Outcome, RecordError> {
    match change {
        DirectoryChange::CreateGroup { provider, name, subject } => {
            if records.group_called(*provider, subject)?.is_some() {
                return Ok(Outcome::Exists);
            }
            let id = GroupId(next_number(records, &key::last_of_people())?);
            let (provider, name, subject) = (*provider, name.clone(), subject.clone());
            records.put(&key::group_subject(provider, &subject), &encode(&id)?)?;
            let group = Group { id, provider, name, subject, created: at };
            records.put(&key::group(id), &encode(&group)?)?;
            Ok(Outcome::Done)
        }
        DirectoryChange::RenameGroup { id, name } => {
            let Some(group) = records.group(*id)? else { return Ok(Outcome::NotFound) };
            let renamed = Group { name: name.clone(), ..group };
            records.put(&key::group(*id), &encode(&renamed)?)?;
            Ok(Outcome::Done)
        }
        DirectoryChange::DeleteGroup { id } => delete_group(records, *id),
        DirectoryChange::AddGroupMember { project, group, role } => {
            let Some(project) = records.project_numbered(*project)? else {
                return Ok(Outcome::NotFound);
            };
            add_member(records, at, &project, *group, *role)
        }
        DirectoryChange::Enrol { name, email, real_name, vouched } => {
            if records.get(&key::user_name(name))?.is_some()
                || records.user_called(vouched.provider, &vouched.subject)?.is_some()
            {
                return Ok(Outcome::Exists);
            }
            enrol(records, at, name, (email, real_name), vouched)
        }
        DirectoryChange::Attest { user, vouched } => {
            let Some(account) = records.account(*user)? else { return Ok(Outcome::NotFound) };
            // a user with a password here is nobody's
            let Some(was) = records.belonging(*user)? else { return Ok(Outcome::NotFound) };
            if (was.vouched.provider, &was.vouched.subject) != (vouched.provider, &vouched.subject)
            {
                return Ok(Outcome::NotFound);
            }
            attest(records, at, account, &was, vouched)
        }
        DirectoryChange::Disown { user } => {
            let Some(mut account) = records.account(*user)? else { return Ok(Outcome::NotFound) };
            let Some(was) = records.belonging(*user)? else { return Ok(Outcome::NotFound) };
            account.generation += 1;
            let nothing = Vouched { groups: vec![], administers: false, ..was.vouched.clone() };
            attest(records, at, account, &was, &nothing)
        }
        DirectoryChange::SetCliSecret { user, sealed } => {
            let Some(mut account) = records.account(*user)? else { return Ok(Outcome::NotFound) };
            if records.belonging(*user)?.is_none() {
                return Ok(Outcome::NotFound);
            }
            // one that replaces another ends what that one opened
            if records.cli_secret(*user)?.is_some() {
                account.generation += 1;
                account.updated = at;
                records.put(&key::account(*user), &encode(&account)?)?;
            }
            records.put(&key::cli_secret(*user), &encode(sealed)?)?;
            Ok(Outcome::Done)
        }
        DirectoryChange::Configure { after, values, secrets, .. } => {
            if records.configurations()?.version != *after {
                let reason = "the settings were changed by another request just now; try again";
                return Ok(Outcome::Refused(reason.into()));
            }
            let (values, secrets) = (values.clone(), secrets.clone());
            let becomes = Configurations { version: after + 1, values, secrets };
            records.put(&key::configurations(), &encode(&becomes)?)?;
            Ok(Outcome::Done)
        }
    }
}

fn enrol<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    name: &UserName,
    (email, real_name): (&str, &str),
    vouched: &Vouched,
) -> Result<Outcome, RecordError> {
    let account = Account {
        id: UserId(next_number(records, &key::last_of_people())?),
        name: name.clone(),
        email: email.to_owned(),
        real_name: real_name.to_owned(),
        comment: String::new(),
        // no password has it
        password_hash: Secret::default(),
        administrator: vouched.administers,
        disabled: false,
        generation: 1,
        created: at,
        updated: at,
    };
    records.put(&key::user_name(name), &encode(&account.id)?)?;
    records.put(&key::account(account.id), &encode(&account)?)?;
    let called = key::user_subject(vouched.provider, &vouched.subject);
    records.put(&called, &encode(&account.id)?)?;
    put_belonging(records, at, account.id, vouched, vouched.administers)
}

fn put_belonging<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    user: UserId,
    vouched: &Vouched,
    administers: bool,
) -> Result<Outcome, RecordError> {
    let mut vouched = vouched.clone();
    vouched.groups.truncate(MOST_GROUPS);
    let belonging = Belonging { vouched, administers, since: at };
    records.put(&key::belonging(user), &encode(&belonging)?)?;
    Ok(Outcome::Done)
}

/// Whoever is an administrator because the provider said so is one as long as it says so. One whom an
/// administrator of the mesh has made one stays one.
pub(super) fn attest<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    mut account: Account,
    was: &Belonging,
    vouched: &Vouched,
) -> Result<Outcome, RecordError> {
    let by_provider = was.administers || !account.administrator;
    if by_provider {
        account.administrator = vouched.administers;
    }
    account.updated = at;
    records.put(&key::account(account.id), &encode(&account)?)?;
    let administers = by_provider && vouched.administers;
    put_belonging(records, at, account.id, vouched, administers)
}

/// An administrator of the mesh has decided about a user: what the provider says of it counts no more.
pub(super) fn decided_here<R: WriteRecords>(
    records: &mut R,
    user: UserId,
) -> Result<(), RecordError> {
    if let Some(belonging) = records.belonging(user)?.filter(|one| one.administers) {
        let decided = Belonging { administers: false, ..belonging };
        records.put(&key::belonging(user), &encode(&decided)?)?;
    }
    Ok(())
}

/// Whether a user is an administrator only because a provider says so. Such a one does not count when
/// the last administrator is looked for: the provider may change its mind.
pub(super) fn administers_by_provider<R: WriteRecords>(
    records: &R,
    user: UserId,
) -> Result<bool, RecordError> {
    Ok(records.belonging(user)?.is_some_and(|belonging| belonging.administers))
}

/// Forgets what a provider said of a user who is deleted.
pub(super) fn forget_user<R: WriteRecords>(
    records: &mut R,
    user: UserId,
) -> Result<(), RecordError> {
    let Some(belonging) = records.belonging(user)? else { return Ok(()) };
    let Vouched { provider, subject, .. } = &belonging.vouched;
    if records.level()? >= Level::FORGOTTEN {
        let times = records.times_forgotten(*provider, subject)? + 1;
        records.put(&key::forgotten(*provider, subject), &encode(&times)?)?;
    }
    records.remove(&key::user_subject(*provider, subject))?;
    records.remove(&key::cli_secret(user))?;
    records.remove(&key::belonging(user))
}

fn delete_group<R: WriteRecords>(records: &mut R, id: GroupId) -> Result<Outcome, RecordError> {
    let Some(group) = records.group(id)? else { return Ok(Outcome::NotFound) };
    let places = records.scan(&key::group_places(id), None, EMPTIED_AT_ONCE)?;
    for (place, _) in &places {
        let project = key::project_of_membership(place)
            .ok_or_else(|| RecordError("a group's place has no project".into()))?;
        remove_member(records, project, id)?;
    }
    if places.len() == EMPTIED_AT_ONCE {
        return Ok(Outcome::Unfinished);
    }
    records.remove(&key::group_subject(group.provider, &group.subject))?;
    records.remove(&key::group(id))?;
    Ok(Outcome::Done)
}

fn add_member<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    group: GroupId,
    role: ProjectRole,
) -> Result<Outcome, RecordError> {
    let Some(Group { provider, subject, .. }) = records.group(group)? else {
        return Ok(Outcome::NotFound);
    };
    if records.group_member(project.id, group)?.is_some() {
        return Ok(Outcome::Exists);
    }
    if records.scan(&key::group_members(project.id), None, MOST_GROUPS)?.len() >= MOST_GROUPS {
        return Ok(Outcome::Refused(format!("a project has at most {MOST_GROUPS} groups")));
    }
    let id = MemberId(next_number(records, &key::last_of_people())?);
    let member = GroupMember { id, group, provider, subject, role, created: at };
    records.put(&key::group_member(project.id, group), &encode(&member)?)?;
    records.put(&key::group_place(group, project.id), &[])?;
    records.put(&key::groups_used(), &[])?;
    Ok(Outcome::Done)
}

/// The group with this membership in a project.
pub(super) fn member<R: WriteRecords>(
    records: &R,
    project: ProjectId,
    id: MemberId,
) -> Result<Option<GroupMember>, RecordError> {
    Ok(records.group_members(project)?.into_iter().find(|member| member.id == id))
}

/// Gives a group another role in a project.
pub(super) fn change_member<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    id: MemberId,
    role: ProjectRole,
) -> Result<Outcome, RecordError> {
    let Some(member) = member(records, project, id)? else { return Ok(Outcome::NotFound) };
    let changed = GroupMember { role, ..member };
    records.put(&key::group_member(project, changed.group), &encode(&changed)?)?;
    Ok(Outcome::Done)
}

pub(super) fn remove_member<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    group: GroupId,
) -> Result<(), RecordError> {
    records.remove(&key::group_member(project, group))?;
    records.remove(&key::group_place(group, project))
}

/// Forgets the groups that are members of a project that is deleted, at most `most` of them. Returns
/// how many there were.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    most: usize,
) -> Result<usize, RecordError> {
    let members = records.scan(&key::group_members(project), None, most)?;
    for (_, value) in &members {
        remove_member(records, project, decode::<GroupMember>(value)?.group)?;
    }
    Ok(members.len())
}

/// What a group is called in the record of what happened.
pub(super) fn name<R: WriteRecords>(records: &R, id: GroupId) -> Result<String, RecordError> {
    Ok(records.group(id)?.map_or(id.0.to_string(), |group| group.name))
}

/// What is said of a user in the record of what happened, if anything changes.
pub(super) fn news<R: WriteRecords>(
    records: &R,
    user: UserId,
    vouched: &Vouched,
) -> Result<Option<String>, RecordError> {
    let Some(account) = records.account(user)? else { return Ok(None) };
    let same = records.belonging(user)?.is_some_and(|was| was.vouched == *vouched);
    let provider = match vouched.provider {
        Provider::Ldap => "LDAP",
        Provider::Oidc => "OIDC",
    };
    Ok((!same).then(|| format!("{}: groups from {provider}", account.name)))
}

#[cfg(test)]
mod tests;
