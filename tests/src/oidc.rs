//! An OpenID Connect provider (npm's `oidc-provider`), and people who sign in there with a browser.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Answer, Client};
use crate::ports::reserve;
use crate::process::Running;
use crate::{tools, wait};

/// The secret of the client `atoll` at the provider.
pub const CLIENT_SECRET: &str = "a word between two & no one else";

/// A provider. Dropping it ends it.
#[derive(Debug)]
pub struct Provider {
    port: u16,
    back: String,
    folder: TempDir,
    running: Option<Running>,
}

impl Provider {
    /// Starts one that sends browsers back to `back`. Nobody is known to it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(back: &str) -> Self {
        let port = reserve(Ipv4Addr::LOCALHOST.into()).port();
        let folder = TempDir::with_prefix("atoll-oidc-").expect("a temporary folder");
        let mut provider = Self { port, back: back.to_owned(), folder, running: None };
        provider.knows(&serde_json::json!({}));
        provider.behaves("");
        std::fs::write(provider.file("seen"), "").expect("a file");
        provider.resume();
        provider
    }

    /// Its name in tokens, and its address.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Who is known to it from now on, by name, with their claims.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn knows(&self, people: &Value) {
        // it may read at any time
        let next = self.file("people.next");
        std::fs::write(&next, people.to_string()).expect("people are written");
        std::fs::rename(next, self.file("people.json")).expect("people are known");
    }

    /// How it behaves from now on: `away`, `hold`, `lose` (`tests/oidc/provider.mjs` says what that
    /// is), or well.
    ///
    /// # Panics
    /// When that cannot be written.
    pub fn behaves(&self, how: &str) {
        let next = self.file("gate.next");
        std::fs::write(&next, how).expect("how it behaves is written");
        std::fs::rename(next, self.file("gate")).expect("it behaves");
    }

    /// How often somebody has redeemed a code or a refresh token, or tried to.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn redeemed(&self) -> usize {
        std::fs::read(self.file("seen")).expect("who has redeemed something").len()
    }

    /// Ends it: an outage.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Starts it again, with another key.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&mut self) {
        self.running = None;
        let log = self.folder.path().join("log");
        let module = tools::cache().join("oidc/node_modules/oidc-provider/lib/index.js");
        assert!(module.is_file(), "{} is missing: run tests/run oidc", module.display());
        let mut command = tools::packaged("node", "nodejs");
        command
            .arg(tools::repository().join("tests/oidc/provider.mjs"))
            .arg(self.port.to_string())
            .args(["people.json", "gate", "seen"].map(|name| self.file(name)))
            .env("OIDC_PROVIDER", module)
            .env("OIDC_SECRET", CLIENT_SECRET)
            .env("OIDC_BACK", &self.back);
        let running = Running::start(&mut command, &log);
        let known = format!("{}/.well-known/openid-configuration", self.issuer());
        let client = Client::of(&self.issuer());
        wait::until(&format!("the provider answers (its log: {})", shown(&log)), || {
            client.get(&known).is_ok_and(|answer| answer.status == 200).then_some(())
        });
        self.running = Some(running);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs somebody in who was sent here by the answer of a node: what the browser is sent back with,
    /// a path of the node.
    ///
    /// # Panics
    /// When the provider does something else.
    #[must_use]
    pub fn sign_in(&self, person: &str, sent: &Answer) -> String {
        self.walk(person, sent.header("location").expect("a place to go to"))
    }

    /// An ID token for the client `atoll`, as somebody's own program gets one.
    ///
    /// # Panics
    /// When the provider gives none.
    #[must_use]
    pub fn id_token(&self, person: &str) -> String {
        let verifier = "a-verifier-of-at-least-forty-three-characters-";
        let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(challenge.as_ref());
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", "atoll")
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", &self.back)
            .append_pair("scope", "openid")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let back = self.walk(person, &format!("{}/auth?{query}", self.issuer()));
        let query = back.split_once('?').expect("a query").1;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (_, code) = pairs.find(|(name, _)| name == "code").expect("a code");
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", &code)
            .append_pair("redirect_uri", &self.back)
            .append_pair("code_verifier", verifier)
            .finish();
        let secret: String = form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect();
        let client = Client::of(&self.issuer()).basic("atoll", &secret);
        let ask = client.ask(Method::POST, "/token");
        let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
        let answer = ask.send().unwrap_or_else(|none| panic!("a token: {none}"));
        let token = answer.json()["id_token"].as_str().map(str::to_owned);
        token.unwrap_or_else(|| panic!("no ID token: {answer}"))
    }

    fn walk(&self, person: &str, place: &str) -> String {
        let mut cookies = BTreeMap::from([("person".to_owned(), person.to_owned())]);
        let client = Client::of(&self.issuer());
        let mut place = place.to_owned();
        for _ in 0..6 {
            let written: Vec<String> =
                cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let ask = client.ask(Method::GET, &place).header("cookie", &written.join("; "));
            let answer = ask.send().unwrap_or_else(|none| panic!("{place}: {none}"));
            for (name, value) in answer.cookies() {
                cookies.insert(name, value);
            }
            place =
                answer.header("location").unwrap_or_else(|| panic!("{place}: {answer}")).to_owned();
            if let Some(rest) = place.strip_prefix(&self.back) {
                return format!("/c/oidc/callback{rest}");
            }
        }
        panic!("the provider sends the browser around: {place}");
    }
}

fn shown(log: &Path) -> String {
    log.display().to_string()
}
