//! Tokens and joining against an in-memory registry.

use super::join::{NAMES, NUMBERS};
use super::tokens::RESOURCE;
use super::{Authority, AuthorityParts};
use crate::testing::{LIMIT, Machine};
use actix::{Actor, Context, Handler, MessageResult};
use impresario_client::protocol::authority::{
    AUTHORITY, AccountTokenError, AuthorityRole, CreateToken, IssueAccountToken, Join, JoinError,
    JoinRole, NODE_NUMBERS, Renew, RenewError, RevokeToken, TokenError,
};
use impresario_objects::accounts::Accounts;
use impresario_registry_api::protocol::{MemberStatus, Status};
use impresario_registry_api::{Key, ListRequest, REGISTRY_ACTOR, Selection, Transaction};
use impresario_runtime::{
    ActorRef, ClusterAuthority, JoinToken, SpawnOptions, clock, pki::KeyRequest, role,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

fn authority(machine: &Machine) -> ActorRef<AuthorityRole> {
    let parts = AuthorityParts {
        authority: Arc::new(ClusterAuthority::create("west").unwrap()),
        node: machine.node.clone(),
        registry: machine.registry.clone(),
        machine_lifetime: Duration::from_hours(24),
        tokens_kept: Arc::default(),
        accounts: Accounts::new(machine.registry.clone(), &[7; 32]).unwrap(),
    };
    let options = SpawnOptions::default();
    machine
        .node
        .spawn::<AuthorityRole, _>(AUTHORITY, options, move |_| Authority::new(parts.clone()))
        .unwrap()
}

async fn token(authority: &ActorRef<AuthorityRole>) -> (String, String) {
    let create = CreateToken { role: JoinRole::Node, ttl: Duration::from_mins(10) };
    let created = authority.ask(create, LIMIT).await.unwrap().unwrap();
    let token: JoinToken = created.token.parse().unwrap();
    (token.secret(), created.id)
}

fn request(secret: &str, name: Option<&str>) -> (KeyRequest, Join) {
    let key = KeyRequest::generate().unwrap();
    let csr_pem = key.csr_pem().to_owned();
    let join = Join {
        secret: secret.into(),
        csr_pem,
        name: name.map(str::to_owned),
        from: "127.0.0.9:70".into(),
    };
    (key, join)
}

#[actix::test]
async fn a_token_makes_one_machine_and_tells_the_next_one_what_to_do() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let (secret, _) = token(&authority).await;
    let (key, join) = request(&secret, Some("n7"));
    let joined = authority.ask(join.clone(), LIMIT).await.unwrap().unwrap();
    assert_eq!(
        (joined.name.as_str(), joined.cluster.as_str(), joined.role),
        ("n7", "west", JoinRole::Node)
    );
    let credential = key.into_credential(&joined.certificate_pem, &joined.authority_pem).unwrap();
    assert_eq!(credential.identity().node.as_str(), "n7");

    // The answer was lost: the same machine may ask again, another may not.
    assert_eq!(authority.ask(join, LIMIT).await.unwrap().unwrap().name, "n7");
    let (_, other) = request(&secret, Some("n8"));
    let refused = authority.ask(other, LIMIT).await.unwrap().unwrap_err();
    assert!(matches!(&refused, JoinError::Used { by, .. } if by == "n7"), "{refused}");
    assert!(refused.to_string().contains("imp token create"));
}

#[actix::test]
async fn of_two_machines_that_use_one_token_at_once_one_joins() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let (secret, _) = token(&authority).await;
    let (a, b) = (request(&secret, Some("a")).1, request(&secret, Some("b")).1);
    let (a, b) = tokio::join!(authority.ask(a, LIMIT), authority.ask(b, LIMIT));
    assert_ne!(a.unwrap().is_ok(), b.unwrap().is_ok());
}

#[actix::test]
async fn a_name_is_given_once_whatever_the_token() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    machine.until(&Key::new("nodes", "", "n1"), "registered", |node| !node.is_null()).await;
    for (name, expected) in [("n1", "NameTaken"), ("Bad Name", "BadName")] {
        let (secret, _) = token(&authority).await;
        let refused =
            authority.ask(request(&secret, Some(name)).1, LIMIT).await.unwrap().unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
        // The refusal cost nothing.
        assert!(authority.ask(request(&secret, None).1, LIMIT).await.unwrap().is_ok());
    }
    let (first, second) = (token(&authority).await.0, token(&authority).await.0);
    assert!(authority.ask(request(&first, Some("new")).1, LIMIT).await.unwrap().is_ok());
    let refused = authority.ask(request(&second, Some("new")).1, LIMIT).await.unwrap().unwrap_err();
    assert_eq!(refused, JoinError::NameTaken { name: "new".into() });
}

#[actix::test]
async fn unknown_revoked_and_overlong_tokens_are_refused() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let (secret, id) = token(&authority).await;
    authority.ask(RevokeToken { id: id.clone() }, LIMIT).await.unwrap().unwrap();
    for secret in [secret.as_str(), "made up"] {
        let refused = authority.ask(request(secret, None).1, LIMIT).await.unwrap().unwrap_err();
        assert_eq!(refused, JoinError::UnknownToken { cluster: "west".into() });
    }
    let again = authority.ask(RevokeToken { id: id.clone() }, LIMIT).await.unwrap();
    assert_eq!(again, Err(TokenError::Unknown { id }));
    let ttl = Duration::from_hours(25);
    let refused = authority.ask(CreateToken { role: JoinRole::Node, ttl }, LIMIT).await.unwrap();
    assert!(matches!(refused, Err(TokenError::TimeToLive { .. })));
}

#[actix::test]
async fn a_node_s_certificate_is_renewed_as_long_as_its_object_is_there() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    machine.until(&Key::new("nodes", "", "n1"), "registered", |node| !node.is_null()).await;
    let renew = |name: &str| Renew {
        name: name.into(),
        role: JoinRole::Node,
        subjects: vec!["127.0.0.1".into()],
        csr_pem: KeyRequest::generate().unwrap().csr_pem().to_owned(),
    };
    assert!(authority.ask(renew("n1"), LIMIT).await.unwrap().is_ok());
    let refused = authority.ask(renew("gone"), LIMIT).await.unwrap();
    assert_eq!(refused.map(drop), Err(RenewError::Deleted { name: "gone".into() }));
}

#[actix::test]
async fn each_machine_that_joins_has_a_number_that_nobody_has() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    // The even numbers were given a moment ago, the odd ones long ago to machines that are gone.
    let now = clock::timestamp();
    let all: Vec<u32> = NODE_NUMBERS.collect();
    for some in all.chunks(1000) {
        let given = some.iter().fold(Transaction::new(), |given, number| {
            let at = if number % 2 == 0 { now } else { now - Duration::from_hours(1) };
            let holder = serde_json::json!({"name": format!("gone-{number}"), "at": at});
            given.put(Key::new(NUMBERS, "", number.to_string()), holder.to_string())
        });
        machine.registry.transact(given).await.unwrap();
    }
    let mut given = BTreeSet::new();
    for n in 0..20 {
        let (secret, _) = token(&authority).await;
        let (_, join) = request(&secret, Some(&format!("m{n}")));
        let number = authority.ask(join.clone(), LIMIT).await.unwrap().unwrap().number;
        assert!(NODE_NUMBERS.contains(&number) && number % 2 == 1, "{number} is another's");
        assert!(given.insert(number), "{number} is given twice");
        let again = authority.ask(join, LIMIT).await.unwrap().unwrap();
        assert_eq!(again.number, number, "whoever asks again is the same machine");
    }
}

#[actix::test]
async fn what_is_stored_of_a_token_makes_no_machine() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let (secret, id) = token(&authority).await;
    let stored = machine.registry.list(ListRequest::of(Selection::all(RESOURCE))).await.unwrap();
    let [entry] = stored.entries.as_slice() else { panic!("{stored:?}") };
    let value = String::from_utf8(entry.value.to_vec()).unwrap();
    for kept in [&entry.key.name, &value, &id] {
        assert!(!kept.contains(&secret), "{kept}");
    }
    for kept in [&entry.key.name, &id] {
        let refused = authority.ask(request(kept, None).1, LIMIT).await.unwrap().unwrap_err();
        assert_eq!(refused, JoinError::UnknownToken { cluster: "west".into() });
    }
    let (_, join) = request(&secret, Some("n7"));
    authority.ask(join, LIMIT).await.unwrap().unwrap();
    // Nor is it written down by a machine that uses it.
    for resource in [RESOURCE, NAMES, NUMBERS] {
        let stored = machine.registry.list(ListRequest::of(Selection::all(resource))).await;
        let entries = stored.unwrap().entries;
        assert_eq!(entries.len(), 1, "{resource}");
        let value = String::from_utf8(entries[0].value.to_vec()).unwrap();
        assert!(!entries[0].key.name.contains(&secret) && !value.contains(&secret), "{value}");
    }
}

/// What a certificate says, as bytes in which its names stand as they are written.
fn der(pem: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let body = pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in body.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|known| *known == letter).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[actix::test]
async fn a_node_does_not_choose_the_names_in_its_certificate() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    machine.until(&Key::new("nodes", "", "n1"), "registered", |node| !node.is_null()).await;
    let named = async |role: JoinRole| {
        let renew = Renew {
            name: "n1".into(),
            role,
            subjects: vec!["kubernetes.default.svc".into(), "10.96.0.1".into()],
            csr_pem: KeyRequest::generate().unwrap().csr_pem().to_owned(),
        };
        let renewed = authority.ask(renew, LIMIT).await.unwrap().unwrap();
        let certificate = der(&renewed.certificate_pem);
        let has = |name: &[u8]| certificate.windows(name.len()).any(|part| part == name);
        // In the certificate an address is a tag, its length and its bytes.
        (has(b"n1"), has(b"kubernetes.default.svc"), has(&[0x87, 4, 10, 96, 0, 1]))
    };
    assert_eq!(named(JoinRole::Node).await, (true, false, false));
    assert_eq!(named(JoinRole::Control).await, (true, true, true));
}

role! {
    /// A registry that says who its members are, and nothing else.
    TellsRole = "registry" { asks: [Status] }
}

struct Tells(Vec<String>);

impl Actor for Tells {
    type Context = Context<Self>;
}

impl Handler<Status> for Tells {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        MessageResult(MemberStatus {
            id: 1,
            node: "n1".into(),
            leader: Some("n1".into()),
            term: 1,
            revision: 1,
            applied: 1,
            voters: self.0.clone(),
            learners: Vec::new(),
            failure: None,
        })
    }
}

#[actix::test]
async fn who_joins_is_told_of_control_members_by_the_group_and_by_no_label() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let tells = SpawnOptions::default();
    machine
        .node
        .spawn::<TellsRole, _>(REGISTRY_ACTOR, tells, |_| Tells(vec!["n1".into(), "n2".into()]))
        .unwrap();
    machine.until(&Key::new("nodes", "", "n1"), "registered", |node| !node.is_null()).await;
    for (name, labels) in [("n2", "{}"), ("n9", r#"{"node-role.kubernetes.io/control-plane": ""}"#)]
    {
        let object = format!(
            r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "{name}", "labels": {labels},
                "annotations": {{"impresario.dev/quic-address": "127.0.0.1:9"}}}}}}"#
        );
        let made = Transaction::create(Key::new("nodes", "", name), object);
        machine.registry.transact(made).await.unwrap();
    }
    let (secret, _) = token(&authority).await;
    let joined = authority.ask(request(&secret, Some("n7")).1, LIMIT).await.unwrap().unwrap();
    let told: BTreeSet<_> =
        joined.peers.iter().map(|peer| (peer.name.as_str(), peer.control)).collect();
    assert_eq!(told, BTreeSet::from([("n1", true), ("n2", true), ("n9", false)]));
}

#[actix::test]
async fn a_node_gets_signed_tokens_for_the_pods_that_are_bound_to_it_alone() {
    let machine = Machine::start(1000).await;
    let authority = authority(&machine);
    let account = json!({"metadata": {"name": "robot", "uid": "su"}});
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "pu"},
        "spec": {"nodeName": "n9", "serviceAccountName": "robot", "containers": []},
    });
    for (resource, name, object) in [("serviceaccounts", "robot", account), ("pods", "p", pod)] {
        let key = Key::new(resource, "default", name);
        let create = Transaction::create(key, object.to_string());
        machine.registry.transact(create).await.unwrap();
    }
    let ask = async |node: &str, uid: &str| {
        let asked = IssueAccountToken {
            node: node.into(),
            namespace: "default".into(),
            pod: "p".into(),
            uid: uid.into(),
            audiences: vec!["vault".into()],
            seconds: 3600,
        };
        authority.ask(asked, LIMIT).await.unwrap()
    };
    let issued = ask("n9", "pu").await.unwrap();
    let accounts = Accounts::new(machine.registry.clone(), &[7; 32]).unwrap();
    let reviewed = accounts.review(&issued.token, &["vault".to_owned()]).await.unwrap().unwrap();
    assert_eq!(reviewed.user.name, "system:serviceaccount:default:robot");
    assert_eq!(reviewed.user.extra["authentication.kubernetes.io/pod-uid"], ["pu"]);
    for (node, uid) in [("n8", "pu"), ("n9", "other")] {
        let refused = ask(node, uid).await.unwrap_err();
        assert!(matches!(refused, AccountTokenError::NotYours { .. }), "{node} {uid}: {refused}");
    }
    machine
        .registry
        .transact(Transaction::default().delete(Key::new("pods", "default", "p")))
        .await
        .unwrap();
    let gone = accounts.review(&issued.token, &["vault".to_owned()]).await;
    assert!(gone.is_err(), "{gone:?}");
}
