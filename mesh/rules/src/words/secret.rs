//! Values that must not be printed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A password, a token or a key. It is encoded like the plain value. `Debug` does not show it, so
/// it cannot get into a log or an error message unless code calls [`Secret::expose`].
///
/// It has no `Display`:
///
/// ```compile_fail
/// let password: rules::words::secret::Secret = "password".into();
/// println!("{password}");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T = String>(T);

impl<T> Secret<T> {
    /// The plain value, for code that sends, stores or checks it.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// The plain value, owned.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(plain: T) -> Self {
        Secret(plain)
    }
}

impl From<&str> for Secret {
    fn from(plain: &str) -> Self {
        Secret(plain.to_owned())
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    fn encodes_as<T: Clone + Serialize + DeserializeOwned>(plain: T) {
        let secret = Secret::from(plain.clone());
        let bytes = postcard::to_stdvec(&plain).unwrap();
        assert_eq!(postcard::to_stdvec(&secret).unwrap(), bytes);
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(serde_json::to_string(&secret).unwrap(), text);
        let read: Secret<T> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(postcard::to_stdvec(read.expose()).unwrap(), bytes);
        let read: Secret<T> = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read.into_exposed()).unwrap(), text);
    }

    #[test]
    fn it_is_encoded_as_the_plain_value() {
        for plain in ["", "password", "pass\"word\u{1f511}"] {
            encodes_as(plain.to_owned());
            encodes_as(Some(plain.to_owned()));
            encodes_as(plain.as_bytes().to_vec());
        }
    }

    #[test]
    fn it_is_not_printed() {
        let all: (Secret, _) = ("hidden-word".into(), Secret::from(b"hidden-word".to_vec()));
        assert_eq!(format!("{all:?} {:?}", Some(&all.0)), "((secret), (secret)) Some((secret))");
        assert_eq!(format!("{:#?}", all.0), "(secret)");
    }
}
