//! What a scanner is asked to do.

use serde::{Deserialize, Serialize};

/// The maximum length of a body that asks for a scan, in bytes: it has a token.
pub const LONGEST_REQUEST: usize = 64 << 10;

/// Where the image is.
#[derive(Clone, Serialize, Deserialize)]
pub struct RegistryPlace {
    /// The registry: `https://core.example`.
    pub url: String,
    /// What to send it in `Authorization`; empty for nothing.
    #[serde(default)]
    pub authorization: String,
}

impl std::fmt::Debug for RegistryPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryPlace").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Which image it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its repository.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// A tag, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// The media type of its manifest.
    #[serde(default)]
    pub mime_type: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnabledCapability {
    /// `vulnerability` or `sbom`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reports that will be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produces_mime_types: Option<Vec<String>>,
}

/// A scan that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScanRequest {
    /// Where the image is.
    pub registry: RegistryPlace,
    /// Which image it is.
    pub artifact: Artifact,
    /// What is to be done; vulnerabilities if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_capabilities: Option<Vec<EnabledCapability>>,
}

/// A scan that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanAccepted {
    /// Its number, in words of the scanner's.
    pub id: String,
}

/// The maximum length of such a number in bytes.
const LONGEST_ID: usize = 256;

impl ScanAccepted {
    /// Reads what a scanner has answered. The number becomes a part of a path, so it may only have
    /// letters, digits and `-_.~`. The error is a sentence.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let accepted: ScanAccepted = serde_json::from_slice(bytes)
            .map_err(|e| format!("its answer to a scan request cannot be read: {e}"))?;
        let id = &accepted.id;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let is_path = id == "." || id == "..";
        if id.is_empty() || id.len() > LONGEST_ID || is_path || !id.bytes().all(plain) {
            return Err("the number that it gave a scan cannot be used".into());
        }
        Ok(accepted)
    }
}

/// The message of an error that a scanner has answered, if there is one: at most `most` bytes, and
/// nothing that a terminal would take for a command.
pub fn message_of(bytes: &[u8], most: usize) -> Option<String> {
    #[derive(Deserialize)]
    struct Written {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let message = serde_json::from_slice::<Written>(bytes).ok()?.error.message;
    let mut shown = String::new();
    for c in message.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if shown.len() + c.len_utf8() > most {
            break;
        }
        shown.push(c);
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_would_lead_elsewhere_is_refused() {
        let read = |id: &str| {
            let body = serde_json::json!({"id": id}).to_string();
            ScanAccepted::read(body.as_bytes()).is_ok()
        };
        assert!(read("3f0e-7_a.b~c") && read(&"a".repeat(256)));
        for wrong in ["", "..", ".", "../metadata", "a/b", "a?b", "a%2fb", "a b", &"a".repeat(257)]
        {
            assert!(!read(wrong), "{wrong}");
        }
        assert!(ScanAccepted::read(b"{}").is_err() && ScanAccepted::read(b"<html>").is_err());
    }

    #[test]
    fn a_message_is_short_and_harmless() {
        let of = |text: &str| {
            let body = serde_json::json!({"error": {"message": text}}).to_string();
            message_of(body.as_bytes(), 8)
        };
        assert_eq!(of("\u{1b}[2Jno").as_deref(), Some(" [2Jno"));
        assert_eq!(of("éééééé").as_deref(), Some("éééé"));
        assert_eq!(message_of(b"{\"error\": \"x\"}", 8), None);
    }

    #[test]
    fn what_is_to_be_sent_to_a_registry_is_not_printed() {
        let place =
            RegistryPlace { url: "https://x".into(), authorization: "Bearer secret".into() };
        assert!(!format!("{place:?}").contains("secret"));
    }
}
