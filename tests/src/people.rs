//! Users, robots and tokens, made over the API.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};

use crate::http::{Answer, Client};
use crate::image::MANIFEST;

/// A password that every user of a scenario has.
pub const PASSWORD: &str = "Passw0rd-of-a-test";

/// Sends JSON; the answer must have this status.
///
/// # Panics
/// When it has another one, or none comes.
pub fn must(client: &Client, method: Method, path: &str, value: &Value, status: u16) -> Answer {
    let answer = client.send_json(method.clone(), path, value);
    let answer = answer.unwrap_or_else(|none| panic!("{method} {path}: {none}"));
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    answer
}

/// The number at the end of an answer's `Location`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn number(answer: &Answer) -> u64 {
    let place = answer.header("location").expect("what was created has a place");
    place.rsplit('/').next().and_then(|id| id.parse().ok()).expect("a place ends with a number")
}

/// Creates a user with [`PASSWORD`]; the user's number.
pub fn create_user(administrator: &Client, name: &str) -> u64 {
    let what = json!({"username": name, "password": PASSWORD, "email": format!("{name}@example.com"),
        "realname": name});
    number(&must(administrator, Method::POST, "/api/v2.0/users", &what, 201))
}

/// Makes a user a member of a project with a role (Harbor's number); the membership's number.
pub fn add_member(administrator: &Client, project: &str, user: &str, role: u64) -> u64 {
    let path = format!("/api/v2.0/projects/{project}/members");
    let what = json!({"role_id": role, "member_user": {"username": user}});
    number(&must(administrator, Method::POST, &path, &what, 201))
}

/// A robot: its number, its name with the prefix, and its secret.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its secret.
    pub secret: String,
}

/// The request for a robot of a project with these actions on its repositories.
#[must_use]
pub fn robot_of(project: &str, name: &str, actions: &[&str]) -> Value {
    let access: Vec<Value> =
        actions.iter().map(|action| json!({"resource": "repository", "action": action})).collect();
    json!({"name": name, "level": "project", "duration": 7,
        "permissions": [{"kind": "project", "namespace": project, "access": access}]})
}

/// Creates a robot.
pub fn create_robot(administrator: &Client, what: &Value) -> Robot {
    let made = must(administrator, Method::POST, "/api/v2.0/robots", what, 201).json();
    let text = |field: &str| made[field].as_str().expect("a robot has one").to_owned();
    Robot {
        id: made["id"].as_u64().expect("a robot has a number"),
        name: text("name"),
        secret: text("secret"),
    }
}

/// What `/service/token` answers to this client, for these scopes.
///
/// # Panics
/// When no answer comes.
#[must_use]
pub fn token_answer(client: &Client, scopes: &[&str]) -> Answer {
    let scopes: String = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
    let answer = client.get(&format!("/service/token?service=atoll{scopes}"));
    answer.unwrap_or_else(|none| panic!("a token: {none}"))
}

/// The same client with a token for these scopes instead of a password.
///
/// # Panics
/// When it gets none.
#[must_use]
pub fn with_token(client: &Client, scopes: &[&str]) -> Client {
    let answer = token_answer(client, scopes);
    assert_eq!(answer.status, 200, "a token: {answer}");
    let token = answer.json()["token"].as_str().expect("an answer with a token").to_owned();
    client.clone().bearer(&token)
}

/// The client as a browser in which this user has signed in.
///
/// # Panics
/// When they are refused.
#[must_use]
pub fn with_session(node: &Client, name: &str, password: &str) -> Client {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("principal", name)
        .append_pair("password", password)
        .finish();
    let anyone = node.clone().anonymous();
    let ask = anyone.ask(Method::POST, "/c/login");
    let ask = ask.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = ask.send().unwrap_or_else(|none| panic!("a session: {none}"));
    assert_eq!(answer.status, 200, "a session of {name}: {answer}");
    session_in(&anyone, &answer)
}

/// The client with the session that an answer has begun.
///
/// # Panics
/// When it has begun none.
#[must_use]
pub fn session_in(node: &Client, answer: &Answer) -> Client {
    let all = answer.cookies();
    let cookie = all.iter().find(|(name, value)| name == "sid" && !value.is_empty());
    let (_, cookie) = cookie.unwrap_or_else(|| panic!("no session: {answer}"));
    let reading = node.clone().with_session(cookie, "");
    let answer = reading.get("/api/v2.0/systeminfo").expect("an answer");
    let csrf = answer.header("x-harbor-csrf-token").expect("what writes repeat").to_owned();
    reading.with_session(cookie, &csrf)
}

/// Somebody else who signs tokens, as a cluster or a CI does (ES256).
pub struct Issuer {
    /// Its name in tokens.
    pub name: String,
    key: EcdsaKeyPair,
}

impl Issuer {
    /// With a new key.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a new key");
        Self { name: name.to_owned(), key }
    }

    /// Its public keys, as a JWK Set.
    #[must_use]
    pub fn keys(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..65]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", "x": x, "y": y}]})
    }

    /// A token for five minutes.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn token(&self, subject: &str, audience: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": "1"});
        let body = json!({"iss": self.name, "sub": subject, "aud": [audience],
            "iat": now, "nbf": now, "exp": now + 300});
        let text = format!(
            "{}.{}",
            encoded(head.to_string().as_bytes()),
            encoded(body.to_string().as_bytes())
        );
        let signed = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", encoded(signed.as_ref()))
    }
}

fn encoded(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// What a client gets that reads a tag's manifest.
pub fn reads(client: &Client, repository: &str) -> u16 {
    let ask = client.ask(Method::GET, &format!("/v2/{repository}/manifests/1"));
    let answer = ask.header("accept", MANIFEST).send();
    answer.unwrap_or_else(|none| panic!("{repository}: {none}")).status
}
