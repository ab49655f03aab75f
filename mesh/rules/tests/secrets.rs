//! Nothing that carries a password, a token or a key prints it: questions and answers between
//! nodes, commands and records end up in logs and error messages.

use std::fmt::Debug;

use rules::ledger::command::Command;
use rules::ledger::level::Level;
use rules::ledger::people::PeopleChange;
use rules::ledger::provider_tokens::ProviderTokenChange;
use rules::ledger::records::{MeshRecord, NodeRecord, Role, User};
use rules::ledger::sealing::{SealedPlace, SealingChange};
use rules::people::access::Identity;
use rules::wire::{
    Answer, Ask, Credentials, JoinGrant, JoinRequest, Open, SealingAnswer, SealingAsk,
};
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;

const HIDDEN: &str = "hidden-word";

fn node() -> NodeRecord {
    NodeRecord {
        id: NodeId(1),
        name: "a".parse().unwrap(),
        region: "here".parse().unwrap(),
        role: Role::Replica,
        address: ([127, 0, 0, 1], 7946).into(),
        url: "http://a".into(),
    }
}

#[test]
fn what_carries_a_secret_does_not_print_it() {
    let bytes = || HIDDEN.as_bytes().to_vec();
    let user = User { password_hash: HIDDEN.into(), administrator: true };
    let request =
        JoinRequest { secret: bytes().into(), certificate_request: "request".into(), node: node() };
    let grant = JoinGrant {
        certificate: "certificate".into(),
        authority: "authority".into(),
        authority_key: Some(HIDDEN.into()),
        nodes: vec![node()],
    };
    let token = Ask::Token { name: "admin".into(), password: HIDDEN.into(), scopes: vec![] };
    let verdict = (Identity::Administrator("admin".into()), None);
    let mesh = MeshRecord { id: 1, formed: Timestamp(1), token_secret: bytes().into() };
    let form = Command::FormMesh {
        mesh: 1,
        token_secret: bytes().into(),
        administrator: ("admin".into(), user.clone()),
        nodes: vec![node()],
    };
    let raise = Command::RaiseLevel { level: Level::NEWEST, token_secret: bytes().into() };
    let reseal = Command::Sealing(Box::new(SealingChange::Reseal {
        place: SealedPlace::TokenSecret,
        was: bytes().into(),
        becomes: bytes().into(),
    }));
    let sealed: rules::words::secret::Secret = HIDDEN.into();
    let user_id = rules::words::names::UserId(7);
    let keep = ProviderTokenChange::Keep { user: user_id, sealed: Some(sealed) };
    let keep = Command::People(Box::new(PeopleChange::ProviderToken(keep)));
    let all: [&dyn Debug; 15] = [
        &keep,
        &Ask::Sealing(SealingAsk::Keep { version: 1, key: bytes().into() }),
        &Answer::Sealing(SealingAnswer::Given(Some(bytes().into()))),
        &reseal,
        &Credentials::Basic("admin".into(), HIDDEN.into()),
        &Ask::Identify(Credentials::Token(HIDDEN.into())),
        &token,
        &Open::Ask(token.clone()),
        &Ask::Join(request),
        &Answer::Joined(Ok(grant)),
        &Answer::Token(Some((HIDDEN.into(), verdict))),
        &user,
        &mesh,
        &form,
        &raise,
    ];
    // bytes are printed as a list of numbers, on one line or on many
    let numbers = format!("{:?}", HIDDEN.as_bytes());
    let numbers = numbers.trim_matches(['[', ']']).replace(' ', "");
    for carrier in all {
        for printed in [format!("{carrier:?}"), format!("{carrier:#?}")] {
            assert!(printed.contains("(secret)"), "{printed}");
            assert!(!printed.contains(HIDDEN), "{printed}");
            let dense: String = printed.split_whitespace().collect();
            assert!(!dense.contains(&numbers), "{printed}");
        }
    }
}
