//! What the configuration of an image or chart says, as Harbor shows it: `extra_attrs` of an artifact
//! (Harbor's `src/controller/artifact/processor`).

use registry::pulls::{Known, PullError, Readable};
use rules::ledger::records::{BlobRecord, EDGES, Look, Project, ReadRecords, key};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Harbor;
use crate::http::Failure;
use crate::http::request::Request;

/// A longer configuration is not read.
const LONGEST: u64 = 1 << 20;
const CHART: &str = "application/vnd.cncf.helm.config.v1+json";
const IMAGES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// The configuration of an image.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ImageConfig {
    architecture: Option<String>,
    os: Option<String>,
    created: Option<String>,
    author: Option<String>,
    config: Option<Map<String, Value>>,
}

/// The attributes in the bytes of a configuration of this media type; `None` if it has none, or is
/// not what it should be.
fn read(media_type: &str, bytes: &[u8]) -> Option<Value> {
    if media_type == CHART {
        return serde_json::from_slice::<Map<String, Value>>(bytes).ok().map(Value::Object);
    }
    let image: ImageConfig = serde_json::from_slice(bytes).ok()?;
    let maintainer = || {
        let labels = image.config.as_ref()?.get("Labels")?;
        labels.get("maintainer")?.as_str().map(str::to_owned)
    };
    let author = image.author.clone().filter(|name| !name.is_empty()).or_else(maintainer);
    let fields = [
        ("architecture", image.architecture),
        ("os", image.os),
        ("created", image.created),
        ("author", author),
    ];
    let mut shown: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect();
    if let Some(config) = image.config {
        shown.insert("config".into(), config.into());
    }
    Some(shown.into())
}

impl Harbor {
    /// The attributes of an artifact with this configuration. They are left out if the configuration
    /// cannot be had now: the artifact itself can be shown without it.
    pub(super) async fn attributes(
        &self,
        request: &Request,
        project: &Project,
        repository: &RepositoryName,
        media_type: &str,
        digest: Digest,
    ) -> Result<Option<Value>, Failure> {
        if media_type != CHART && !IMAGES.contains(&media_type) {
            return Ok(None);
        }
        let look = |records: &dyn ReadRecords| {
            let linked = records.linked(repository, &digest)?;
            Ok((linked, records.record::<BlobRecord>(&key::blob(&digest))?))
        };
        let (linked, record) = self.read_at_length(look).await?;
        if !linked || record.as_ref().is_some_and(|record| record.size > LONGEST) {
            return Ok(None);
        }
        let known = Known {
            digest,
            repository,
            linked,
            proxied: project.upstream.is_some(),
            chosen: project.metadata.contains_key(EDGES),
            size: record.map(|record| record.size),
            client: request.client,
        };
        match self.configuration(&known).await {
            Ok(bytes) => Ok(bytes.and_then(|bytes| read(media_type, &bytes))),
            Err(error) => {
                tracing::debug!(%digest, %repository, %error, "an artifact is shown without its configuration");
                Ok(None)
            }
        }
    }

    /// The bytes of a configuration; `None` if it is too long, or broke off.
    async fn configuration(&self, known: &Known<'_>) -> Result<Option<Vec<u8>>, PullError> {
        let at_hand = self.pulls.at_hand(known).await?;
        let arriving = self.pulls.bytes(known, Readable::Here, at_hand).await?;
        if arriving.size > LONGEST {
            return Ok(None);
        }
        let mut body = (arriving.cut)(0..arriving.size);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let Ok(piece) = piece else { return Ok(None) };
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_says_what_it_runs_on_and_who_made_it() {
        let config = json!({
            "architecture": "arm64", "os": "linux", "created": "2024-02-29T12:34:56Z",
            "config": {"Env": ["A=b"], "Labels": {"maintainer": "ann"}}, "rootfs": {"diff_ids": []},
        });
        let shown = read(IMAGES[0], config.to_string().as_bytes()).unwrap();
        let expected = json!({
            "architecture": "arm64", "os": "linux", "created": "2024-02-29T12:34:56Z",
            "author": "ann", "config": config["config"],
        });
        assert_eq!(shown, expected);
        let chart = json!({"name": "app", "version": "1.2.3", "maintainers": [{"name": "ann"}]});
        assert_eq!(read(CHART, chart.to_string().as_bytes()), Some(chart));
        for broken in ["", "[]", "{\"os\": 7}", "nul"] {
            assert_eq!(
                read(IMAGES[0], broken.as_bytes()).unwrap_or(json!({})),
                json!({}),
                "{broken}"
            );
        }
    }
}
