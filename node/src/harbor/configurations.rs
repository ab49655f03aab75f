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
use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Failure, Payload};

impl Harbor {
    pub(super) async fn show_configurations(&self) -> Result<Response<Payload>, Failure> {
        let configured = Configured::of(&self.read(|records| records.configurations()).await?);
        let shown = configured
            .all()
            .map(|(name, value)| (name.to_owned(), json!({"value": value, "editable": true})));
        Ok(json_answer(StatusCode::OK, &Value::Object(shown.collect())))
    }

    /// Changes the settings that the body names; the others stay.
    pub(super) async fn configure(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: BTreeMap<String, Value> = body(&mut request).await?;
        let was = self.read(|records| records.configurations()).await?;
        let (becomes, changed) = self.with_settings(&was, &written)?;
        check_all(&was, &becomes, &changed).map_err(|e| bad(e.to_string()))?;
        if changed.is_empty() {
            return Err(bad("the body names no setting"));
        }
        let (after, values, secrets) = (was.version, becomes.values, becomes.secrets);
        let change = DirectoryChange::Configure { after, values, secrets, changed };
        self.change_people(PeopleChange::Directory(change), "settings", by).await?;
        Ok(answer(StatusCode::OK))
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
