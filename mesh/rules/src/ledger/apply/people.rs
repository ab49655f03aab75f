//! Users, robots, members, and the keys that tokens are signed with.

use super::{EMPTIED_AT_ONCE, directory, next_number, provider_tokens};
use crate::ledger::command::Outcome;
use crate::ledger::directory::LookForGroups;
use crate::ledger::people::{
    Account, LookForPeople, Member, PeopleChange, Robot, RobotTerms, TokenKey, TrustRule,
    robot_login,
};
use crate::ledger::records::{Look, Project, RecordError, User, WriteRecords, decode, encode, key};
use crate::words::moment::Timestamp;
use crate::words::names::{
    MemberId, ProjectId, ProjectName, RobotId, RobotName, TrustId, UserId, UserName,
};
use crate::words::roles::ProjectRole;
use crate::words::secret::Secret;

/// The maximum number of trust rules of a robot.
const MOST_TRUSTS: usize = 20;

const LAST_ADMINISTRATOR: &str =
    "they are the last administrator; make somebody else an administrator first";

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &PeopleChange,
) -> Result<Outcome, RecordError> {
    // that the provider was asked is no news; what it said may be
    let said = match change {
        PeopleChange::ProviderToken(change) => {
            Some((change.user(), records.belonging(change.user())?))
        }
        _ => None,
    };
    let outcome = perform(records, at, change)?;
    let is_news = match said {
        Some((user, said)) => records.belonging(user)? != said,
        None => true,
    };
    if is_news && matches!(outcome, Outcome::Done | Outcome::Unfinished) {
        bump(records)?;
    }
    Ok(outcome)
}

fn perform<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &PeopleChange,
) -> Result<Outcome, RecordError> {
    match change {
        PeopleChange::CreateUser {
            name,
            email,
            real_name,
            comment,
            password_hash,
            administrator,
        } => {
            if records.get(&key::user_name(name))?.is_some() {
                return Ok(Outcome::Exists);
            }
            let account = Account {
                id: UserId(next_number(records, &key::last_of_people())?),
                name: name.clone(),
                email: email.clone(),
                real_name: real_name.clone(),
                comment: comment.clone(),
                password_hash: password_hash.clone(),
                administrator: *administrator,
                disabled: false,
                generation: 1,
                created: at,
                updated: at,
            };
            put_new(records, &account)
        }
        PeopleChange::ChangeUser { id, email, real_name, comment, administrator, disabled } => {
            let Some(was) = records.account(*id)? else { return Ok(Outcome::NotFound) };
            let mut account = was.clone();
            account.email = email.clone().unwrap_or(account.email);
            account.real_name = real_name.clone().unwrap_or(account.real_name);
            account.comment = comment.clone().unwrap_or(account.comment);
            account.administrator = administrator.unwrap_or(account.administrator);
            account.disabled = disabled.unwrap_or(account.disabled);
            let leads = |account: &Account| account.administrator && !account.disabled;
            if leads(&was) && !leads(&account) && is_last_administrator(records, *id)? {
                return Ok(Outcome::Refused(LAST_ADMINISTRATOR.into()));
            }
            if account.disabled && !was.disabled {
                account.generation += 1;
            }
            account.updated = at;
            records.put(&key::account(*id), &encode(&account)?)?;
            if administrator.is_some() {
                directory::decided_here(records, *id)?;
            }
            Ok(Outcome::Done)
        }
        PeopleChange::SetPassword { id, password_hash, generation } => {
            let Some(mut account) = records.account(*id)? else { return Ok(Outcome::NotFound) };
            if generation.is_some_and(|generation| generation != account.generation) {
                let reason = "the account was changed by another request just now; try again";
                return Ok(Outcome::Refused(reason.into()));
            }
            account.password_hash = password_hash.clone();
            account.generation += 1;
            account.updated = at;
            records.put(&key::account(*id), &encode(&account)?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::RecoverPassword { name, password_hash } => {
            let Some(account) = records.account_named(name)? else { return Ok(Outcome::NotFound) };
            let change = PeopleChange::SetPassword {
                id: account.id,
                password_hash: password_hash.clone(),
                generation: None,
            };
            perform(records, at, &change)
        }
        PeopleChange::DeleteUser { id } => delete_user(records, *id),
        PeopleChange::AddMember { project, user, role } => {
            let Some(project) = records.project_numbered(*project)? else {
                return Ok(Outcome::NotFound);
            };
            add_member(records, at, &project, *user, *role)
        }
        PeopleChange::ChangeMember { project, id, role } => {
            let Some(member) = member(records, *project, *id)? else {
                return directory::change_member(records, *project, *id, *role);
            };
            let changed = Member { role: *role, ..member };
            records.put(&key::member(*project, changed.user), &encode(&changed)?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::RemoveMember { project, id } => {
            let Some(member) = member(records, *project, *id)? else {
                let Some(group) = directory::member(records, *project, *id)? else {
                    return Ok(Outcome::NotFound);
                };
                directory::remove_member(records, *project, group.group)?;
                return Ok(Outcome::Done);
            };
            remove_member(records, *project, member.user)?;
            Ok(Outcome::Done)
        }
        PeopleChange::CreateRobot { name, project, terms, secret_hash } => {
            create_robot(records, at, name, *project, terms, secret_hash)
        }
        PeopleChange::ChangeRobot { id, terms } => {
            let Some(robot) = records.robot(*id)? else { return Ok(Outcome::NotFound) };
            let RobotTerms { description, expires, days, disabled, grants } = terms.clone();
            // what was shown before it was disabled is not valid again once it is enabled
            let generation = robot.generation + u64::from(disabled && !robot.disabled);
            let terms = Robot { description, expires, days, disabled, grants, ..robot };
            let changed = Robot { generation, updated: at, ..terms };
            records.put(&key::robot(*id), &encode(&changed)?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::SetRobotSecret { id, secret_hash } => {
            let Some(mut robot) = records.robot(*id)? else { return Ok(Outcome::NotFound) };
            robot.secret_hash = secret_hash.clone();
            robot.generation += 1;
            robot.updated = at;
            records.put(&key::robot(*id), &encode(&robot)?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::DeleteRobot { id } => {
            let Some(robot) = records.robot(*id)? else { return Ok(Outcome::NotFound) };
            records.remove(&key::robot_name(&robot.login()))?;
            forget_robot(records, *id)?;
            Ok(Outcome::Done)
        }
        PeopleChange::AddTrust { robot, terms, keys } => {
            if records.robot(*robot)?.is_none() {
                return Ok(Outcome::NotFound);
            }
            let rules = records.trusts_of(*robot)?;
            if rules.iter().any(|rule| rule.terms == *terms) {
                return Ok(Outcome::Exists);
            }
            if rules.len() >= MOST_TRUSTS {
                let reason = format!("a robot has at most {MOST_TRUSTS} trust rules");
                return Ok(Outcome::Refused(reason));
            }
            let id = TrustId(next_number(records, &key::last_of_people())?);
            let (robot, terms, keys) = (*robot, terms.clone(), keys.clone());
            let rule = TrustRule { id, robot, terms, keys, created: at };
            let issuer = &rule.terms.issuer;
            records.put(&key::trust_place(robot, id), &encode(issuer)?)?;
            records.put(&key::trust(issuer, robot, id), &encode(&rule)?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::SetTrustKeys { robot, id, keys } => {
            let Some(rule) = trust(records, *robot, *id)? else { return Ok(Outcome::NotFound) };
            let place = key::trust(&rule.terms.issuer, *robot, *id);
            records.put(&place, &encode(&TrustRule { keys: keys.clone(), ..rule })?)?;
            Ok(Outcome::Done)
        }
        PeopleChange::RemoveTrust { robot, id } => {
            let Some(rule) = trust(records, *robot, *id)? else { return Ok(Outcome::NotFound) };
            records.remove(&key::trust(&rule.terms.issuer, *robot, *id))?;
            records.remove(&key::trust_place(*robot, *id))?;
            // a token of ours that was given for one of theirs is not valid any more, either
            if let Some(mut robot) = records.robot(*robot)? {
                robot.generation += 1;
                records.put(&key::robot(robot.id), &encode(&robot)?)?;
            }
            Ok(Outcome::Done)
        }
        PeopleChange::Directory(change) => directory::change(records, at, change),
        PeopleChange::ProviderToken(change) => provider_tokens::change(records, at, change),
        PeopleChange::AddTokenKey { after, public, sealed, forget_below } => {
            let keys = records.token_keys()?;
            let newest = keys.last().map_or(0, |key| key.number);
            if newest != *after {
                return Ok(Outcome::Exists);
            }
            for old in keys.iter().filter(|key| key.number < *forget_below) {
                records.remove(&key::token_key(old.number))?;
            }
            let (public, sealed) = (public.clone(), sealed.clone());
            let new = TokenKey { number: newest + 1, public, sealed, created: at };
            records.put(&key::token_key(new.number), &encode(&new)?)?;
            Ok(Outcome::Done)
        }
    }
}

/// Makes a user the admin of a project that was just created.
pub(super) fn own<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &ProjectName,
    owner: UserId,
) -> Result<(), RecordError> {
    if let Some(project) = records.project(project)? {
        add_member(records, at, &project, owner, ProjectRole::Admin)?;
        bump(records)?;
    }
    Ok(())
}

fn bump<R: WriteRecords>(records: &mut R) -> Result<(), RecordError> {
    let version = records.people_version()? + 1;
    records.put(&key::people_version(), &encode(&version)?)
}

fn put_new<R: WriteRecords>(records: &mut R, account: &Account) -> Result<Outcome, RecordError> {
    records.put(&key::user_name(&account.name), &encode(&account.id)?)?;
    records.put(&key::account(account.id), &encode(account)?)?;
    Ok(Outcome::Done)
}

/// Users of before the level `PEOPLE` become accounts.
pub(super) fn take_over_users<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
) -> Result<(), RecordError> {
    for (place, user) in records.records::<User>(&key::users())? {
        let name = key::name_of(&place);
        let name: UserName = name.parse().map_err(|e| RecordError(format!("user {name}: {e}")))?;
        records.remove(&place)?;
        let account = Account {
            id: UserId(next_number(records, &key::last_of_people())?),
            name,
            email: String::new(),
            real_name: String::new(),
            comment: String::new(),
            password_hash: user.password_hash,
            administrator: user.administrator,
            disabled: false,
            generation: 1,
            created: at,
            updated: at,
        };
        put_new(records, &account)?;
    }
    Ok(())
}

fn is_last_administrator<R: WriteRecords>(records: &R, id: UserId) -> Result<bool, RecordError> {
    let others = |account: &Account| account.id != id && account.administrator && !account.disabled;
    for account in records.accounts()?.iter().filter(|account| others(account)) {
        if !directory::administers_by_provider(records, account.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn delete_user<R: WriteRecords>(records: &mut R, id: UserId) -> Result<Outcome, RecordError> {
    let Some(account) = records.account(id)? else { return Ok(Outcome::NotFound) };
    if account.administrator && !account.disabled && is_last_administrator(records, id)? {
        return Ok(Outcome::Refused(LAST_ADMINISTRATOR.into()));
    }
    // the account goes first, so that whoever stops in the middle has locked them out
    if !account.disabled {
        let closed =
            Account { disabled: true, generation: account.generation + 1, ..account.clone() };
        records.put(&key::account(id), &encode(&closed)?)?;
    }
    let places = records.scan(&key::memberships(id), None, EMPTIED_AT_ONCE)?;
    for (place, _) in &places {
        let project = key::project_of_membership(place)
            .ok_or_else(|| RecordError("a membership's key has no project".into()))?;
        remove_member(records, project, id)?;
    }
    if places.len() == EMPTIED_AT_ONCE {
        return Ok(Outcome::Unfinished);
    }
    provider_tokens::forget_user(records, id)?;
    directory::forget_user(records, id)?;
    records.remove(&key::user_name(&account.name))?;
    records.remove(&key::account(id))?;
    Ok(Outcome::Done)
}

fn add_member<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    user: UserId,
    role: ProjectRole,
) -> Result<Outcome, RecordError> {
    if records.account(user)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    if records.member(project.id, user)?.is_some() {
        return Ok(Outcome::Exists);
    }
    let id = MemberId(next_number(records, &key::last_of_people())?);
    let member = Member { id, user, role, created: at };
    records.put(&key::member(project.id, user), &encode(&member)?)?;
    records.put(&key::membership(user, project.id), &[])?;
    Ok(Outcome::Done)
}

fn member<R: WriteRecords>(
    records: &R,
    project: ProjectId,
    id: MemberId,
) -> Result<Option<Member>, RecordError> {
    Ok(records.members(project)?.into_iter().find(|member| member.id == id))
}

fn remove_member<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    user: UserId,
) -> Result<(), RecordError> {
    records.remove(&key::member(project, user))?;
    records.remove(&key::membership(user, project))
}

fn trust<R: WriteRecords>(
    records: &R,
    robot: RobotId,
    id: TrustId,
) -> Result<Option<TrustRule>, RecordError> {
    Ok(records.trusts_of(robot)?.into_iter().find(|rule| rule.id == id))
}

/// Removes a robot's record and its trust rules. Its name is removed by the caller.
fn forget_robot<R: WriteRecords>(records: &mut R, id: RobotId) -> Result<(), RecordError> {
    for rule in records.trusts_of(id)? {
        records.remove(&key::trust(&rule.terms.issuer, id, rule.id))?;
        records.remove(&key::trust_place(id, rule.id))?;
    }
    records.remove(&key::robot(id))
}

fn create_robot<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    name: &RobotName,
    project: Option<ProjectId>,
    terms: &RobotTerms,
    secret_hash: &Secret<Vec<u8>>,
) -> Result<Outcome, RecordError> {
    let project = match project {
        None => None,
        Some(id) => match records.project_numbered(id)? {
            Some(project) => Some((project.id, project.name)),
            None => return Ok(Outcome::NotFound),
        },
    };
    let place = key::robot_name(&robot_login(project.as_ref().map(|(_, name)| name), name));
    if records.get(&place)?.is_some() {
        return Ok(Outcome::Exists);
    }
    let RobotTerms { description, expires, days, disabled, grants } = terms.clone();
    let robot = Robot {
        id: RobotId(next_number(records, &key::last_of_people())?),
        name: name.clone(),
        project,
        description,
        secret_hash: secret_hash.clone(),
        expires,
        days,
        disabled,
        grants,
        generation: 1,
        created: at,
        updated: at,
    };
    records.put(&place, &encode(&robot.id)?)?;
    records.put(&key::robot(robot.id), &encode(&robot)?)?;
    Ok(Outcome::Done)
}

/// Forgets the members and robots of a project, at most `most` of them. Returns whether there are
/// more.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    most: usize,
) -> Result<bool, RecordError> {
    let members = records.scan(&key::members(project.id), None, most)?;
    for (_, value) in &members {
        remove_member(records, project.id, decode::<Member>(value)?.user)?;
    }
    let left = most - members.len();
    let groups = directory::leave_project(records, project.id, left)?;
    let left = left - groups;
    let robots = records.scan(&key::robot_names_of(&project.name), None, left)?;
    for (place, value) in &robots {
        forget_robot(records, decode::<RobotId>(value)?)?;
        records.remove(place)?;
    }
    if !members.is_empty() || groups > 0 || !robots.is_empty() {
        bump(records)?;
    }
    Ok(robots.len() == left)
}

#[cfg(test)]
mod tests;
