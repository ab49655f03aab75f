//! `/api/v2.0/configurations`: the mesh's settings that are in the ledger, with Harbor's names and
//! forms. Secrets are written and never shown.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use rules::ledger::directory::{Configurations, DirectoryChange, LookForGroups};
use rules::ledger::events::Actor;
use rules::ledger::people::PeopleChange;
use rules::people::configurations::{Configured, check, check_all, is_secret};
use serde_json::{Value, json};

use super::registries::sealing;
use super::robots::DEFAULT_DAYS;
use super::{Harbor, ProjectCreation, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Failure, Payload};

/// A value as text: some clients write numbers and flags as texts.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Harbor {
    /// Harbor's settings that cannot be changed over the API: some are in each node's own settings,
    /// and some are about what is not here. Its clients read them (Terraform's provider takes the
    /// prefix off robots' names), and send them back with those that they mean to change.
    fn fixed(&self) -> Vec<(&'static str, Value)> {
        let restriction = match self.project_creation {
            ProjectCreation::Everyone => "everyone",
            ProjectCreation::Administrators => "adminonly",
        };
        vec![
            ("audit_log_forward_endpoint", "".into()),
            ("banner_message", "".into()),
            ("notification_enable", false.into()),
            ("oidc_group_filter", "".into()),
            ("oidc_logout", false.into()),
            ("primary_auth_mode", false.into()),
            ("project_creation_restriction", restriction.into()),
            ("quota_per_project_enable", true.into()),
            ("read_only", false.into()),
            ("robot_name_prefix", self.access.robot_prefix().into()),
            ("robot_token_duration", DEFAULT_DAYS.into()),
            ("scanner_skip_update_pulltime", false.into()),
            ("self_registration", false.into()),
            ("skip_audit_log_database", false.into()),
        ]
    }

    pub(super) async fn show_configurations(&self) -> Result<Response<Payload>, Failure> {
        let configured = Configured::of(&self.read(|records| records.configurations()).await?);
        let shown = configured
            .all()
            .map(|(name, value)| (name.to_owned(), json!({"value": value, "editable": true})));
        let fixed = self.fixed().into_iter();
        let fixed = fixed
            .map(|(name, value)| (name.to_owned(), json!({"value": value, "editable": false})));
        Ok(json_answer(StatusCode::OK, &Value::Object(shown.chain(fixed).collect())))
    }

    /// Changes the settings that the body names; the others stay.
    pub(super) async fn configure(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let mut written: BTreeMap<String, Value> = body(&mut request).await?;
        let mut sent_back = false;
        for (name, is) in self.fixed() {
            let Some(value) = written.remove(name) else { continue };
            // Terraform's provider says so with every change of how people sign in
            if name == "quota_per_project_enable" && !written.is_empty() {
                continue;
            }
            if plain(&value) != plain(&is) {
                return Err(bad(format!("{name} is always {} here", plain(&is))));
            }
            sent_back = true;
        }
        match (written.is_empty(), sent_back) {
            (true, true) => {}
            (true, false) => return Err(bad("the body names no setting")),
            (false, _) => self.set(&written, by).await?,
        }
        Ok(answer(StatusCode::OK))
    }

    /// Changes these settings; the others stay.
    pub(super) async fn set(
        &self,
        written: &BTreeMap<String, Value>,
        by: &Actor,
    ) -> Result<(), Failure> {
        let was = self.read(|records| records.configurations()).await?;
        let (becomes, changed) = self.with_settings(&was, written)?;
        check_all(&was, &becomes, &changed).map_err(|e| bad(e.to_string()))?;
        let (after, values, secrets) = (was.version, becomes.values, becomes.secrets);
        let change = DirectoryChange::Configure { after, values, secrets, changed };
        self.change_people(PeopleChange::Directory(change), "settings", by).await
    }

    /// The settings with those that were written, checked one by one, and their names.
    pub(super) fn with_settings(
        &self,
        was: &Configurations,
        written: &BTreeMap<String, Value>,
    ) -> Result<(Configurations, Vec<String>), Failure> {
        let mut becomes = was.clone();
        let mut changed = Vec::new();
        for (name, value) in written {
            let (name, value) = check(name, value).map_err(|e| bad(e.to_string()))?;
            changed.push(name.to_owned());
            match value.as_str().filter(|_| is_secret(name)) {
                None => {
                    becomes.values.insert(name.to_owned(), value.to_string());
                }
                Some("") => {
                    becomes.secrets.remove(name);
                }
                Some(secret) => {
                    let sealed = self.secrets.seal(name, secret).map_err(sealing)?;
                    becomes.secrets.insert(name.to_owned(), sealed.into());
                }
            }
        }
        Ok((becomes, changed))
    }
}
