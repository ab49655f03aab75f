//! `atoll credential-provider`: an image credential provider for the kubelet. It answers with the
//! token of the pod's service account, which a trust rule of the mesh accepts. So nodes pull private
//! images without any secret.
//!
//! The protocol is the kubelet's (`credentialprovider.kubelet.k8s.io/v1`): a request on standard
//! input, an answer on standard output.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use rules::people::trusts::WORKLOAD;
use rules::words::secret::Secret;
use serde::{Deserialize, Serialize};

/// The versions of the protocol that are spoken. Tokens of service accounts came with the first.
const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// The maximum length of a request in bytes.
const LONGEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialProviderRequest {
    api_version: String,
    kind: String,
    image: String,
    service_account_token: Option<Secret>,
}

#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct CredentialProviderResponse {
    api_version: &'static str,
    kind: &'static str,
    /// The kubelet keeps the answer for this key: here, for the registry.
    cache_key_type: &'static str,
    /// It does not keep it at all: a token may end any moment, and this program costs nothing.
    cache_duration: &'static str,
    auth: BTreeMap<String, AuthConfig>,
}

#[derive(Serialize, Debug, PartialEq)]
struct AuthConfig {
    username: &'static str,
    password: Secret,
}

/// Answers one request.
pub(super) fn run() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().take(LONGEST).read_to_string(&mut text)?;
    let answer = answer(&text).map_err(io::Error::other)?;
    let mut out = io::stdout();
    serde_json::to_writer(&mut out, &answer).map_err(io::Error::other)?;
    out.write_all(b"\n")
}

fn answer(request: &str) -> Result<CredentialProviderResponse, String> {
    let request: CredentialProviderRequest = serde_json::from_str(request)
        .map_err(|e| format!("this is no CredentialProviderRequest: {e}; the kubelet runs this"))?;
    if request.kind != "CredentialProviderRequest" || request.api_version != VERSION {
        return Err(format!(
            "a {} of {} is not understood; set apiVersion: {VERSION} in the CredentialProviderConfig",
            request.kind, request.api_version
        ));
    }
    let registry = registry_of(&request.image)
        .ok_or_else(|| format!("{} is no image of a registry", request.image))?;
    let token = request.service_account_token.filter(|token| !token.expose().is_empty());
    // without a token the kubelet pulls as anybody may
    let auth =
        token.map(|password| (registry.to_owned(), AuthConfig { username: WORKLOAD, password }));
    Ok(CredentialProviderResponse {
        api_version: VERSION,
        kind: "CredentialProviderResponse",
        cache_key_type: "Registry",
        cache_duration: "0s",
        auth: auth.into_iter().collect(),
    })
}

/// The registry in an image's name: what is before the first slash, if it looks like a host.
fn registry_of(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(image: &str, token: Option<&str>) -> String {
        json!({"apiVersion": VERSION, "kind": "CredentialProviderRequest", "image": image,
            "serviceAccountToken": token, "serviceAccountAnnotations": {"a": "b"}})
        .to_string()
    }

    #[test]
    fn the_pods_token_is_the_password_at_the_images_registry() {
        let said = answer(&request("registry.example:5000/team/app:1", Some("a.b.c"))).unwrap();
        assert_eq!(
            serde_json::to_value(&said).unwrap(),
            json!({"apiVersion": VERSION, "kind": "CredentialProviderResponse",
                "cacheKeyType": "Registry", "cacheDuration": "0s",
                "auth": {"registry.example:5000": {"username": "$workload", "password": "a.b.c"}}})
        );
        for none in [None, Some("")] {
            assert!(answer(&request("registry.example/app", none)).unwrap().auth.is_empty());
        }
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        assert!(answer("").unwrap_err().contains("CredentialProviderRequest"));
        let old = request("r.example/a", None).replace("/v1\"", "/v1beta1\"");
        assert!(answer(&old).unwrap_err().contains("v1beta1"));
        assert!(answer(&request("nginx", Some("t"))).unwrap_err().contains("nginx"));
        assert!(
            !format!("{:?}", answer(&request("r.example/a", Some("hidden-word"))))
                .contains("hidden")
        );
    }
}
