//! Who becomes part of a cluster.

use crate::record::{Record, every};
use impresario_client::protocol::authority::{
    AccountToken, AccountTokenError, CreateToken, GuestCredential, GuestError, IssueAccountToken,
    IssueGuest, Join, JoinError, JoinRole, Joined, KeepAccountToken, Peer, Renew, RenewError,
    Renewed, RevokeToken, TokenCreated, TokenError,
};
use std::time::Duration;

pub fn record() -> Record {
    let peer = || Peer { name: "n1".into(), address: "10.0.0.1:7443".into(), control: true };
    let unavailable = || "no leader".to_owned();
    let roles = every([JoinRole::Node, JoinRole::Control, JoinRole::Client]);
    let day = Duration::from_hours(24);
    let token_errors = || {
        every([
            TokenError::TimeToLive { asked: day * 2, limit: day },
            TokenError::Unknown { id: "t1".into() },
            TokenError::Unavailable { cause: unavailable() },
        ])
    };
    let created =
        TokenCreated { token: "t1.secret".into(), id: "t1".into(), expires_unix_seconds: 1 << 31 };
    let joined = Joined {
        certificate_pem: "cert".into(),
        authority_pem: "ca".into(),
        name: "n2".into(),
        role: JoinRole::Node,
        cluster: "blue".into(),
        number: 70,
        peers: vec![peer()],
    };
    let join_errors = every([
        JoinError::UnknownToken { cluster: "blue".into() },
        JoinError::Expired { at: "2026-01-01T00:00:00Z".into() },
        JoinError::Used { by: "n3".into(), at: "2026-01-01T00:00:00Z".into() },
        JoinError::NameTaken { name: "n2".into() },
        JoinError::BadName { name: "N 2".into() },
        JoinError::BadRequest { cause: "no PEM".into() },
        JoinError::Unavailable { cause: unavailable() },
    ]);
    let renewed = Renewed { certificate_pem: "cert".into(), authority_pem: "ca".into() };
    let renew_errors = every([
        RenewError::Deleted { name: "n2".into() },
        RenewError::BadRequest { cause: "no PEM".into() },
        RenewError::Unavailable { cause: unavailable() },
    ]);
    let guest = GuestCredential {
        certificate_pem: "cert".into(),
        key_pem: "key".into(),
        authority_pem: "ca".into(),
        name: "guest-u1".into(),
        peers: vec![peer()],
    };
    let guest_errors = every([
        GuestError::NotYours {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u1".into(),
            node: "n1".into(),
        },
        GuestError::NoGuest { namespace: "ns".into(), pod: "p".into(), job: "j".into() },
        GuestError::Signing { cause: "no key".into() },
        GuestError::Unavailable { cause: unavailable() },
    ]);
    let account_errors = every([
        AccountTokenError::NotYours {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u1".into(),
            node: "n1".into(),
        },
        AccountTokenError::Unavailable { cause: unavailable() },
        AccountTokenError::BadDigest,
    ]);
    Record::of("authority")
        .ask(
            roles.map(|role| CreateToken { role, ttl: day }),
            [Ok(created)].into_iter().chain(token_errors().map(Err)),
        )
        .ask([RevokeToken { id: "t1".into() }], [Ok(())].into_iter().chain(token_errors().map(Err)))
        .ask(
            [Some("n2".to_owned()), None].map(|name| Join {
                secret: "secret".into(),
                csr_pem: "csr".into(),
                name,
                from: "10.0.0.2".into(),
            }),
            [Ok(joined)].into_iter().chain(join_errors.map(Err)),
        )
        .ask(
            [Renew {
                name: "n2".into(),
                role: JoinRole::Control,
                subjects: vec!["10.0.0.2".into()],
                csr_pem: "csr".into(),
            }],
            [Ok(renewed)].into_iter().chain(renew_errors.map(Err)),
        )
        .ask(
            [IssueGuest {
                node: "n1".into(),
                namespace: "ns".into(),
                pod: "p".into(),
                uid: "u1".into(),
                job: "j".into(),
                subjects: vec!["127.0.0.1".into()],
            }],
            [Ok(guest)].into_iter().chain(guest_errors.map(Err)),
        )
        .ask(
            [KeepAccountToken {
                node: "n1".into(),
                namespace: "ns".into(),
                pod: "p".into(),
                uid: "u1".into(),
                hash: "digest".into(),
            }],
            [Ok(())].into_iter().chain(account_errors.clone().map(Err)),
        )
        .ask(
            [IssueAccountToken {
                node: "n1".into(),
                namespace: "ns".into(),
                pod: "p".into(),
                uid: "u1".into(),
                audiences: vec!["vault".into()],
                seconds: 3607,
            }],
            [Ok(AccountToken { token: "a.b.c".into(), expires_unix_seconds: 1_700_000_000 })]
                .into_iter()
                .chain(account_errors.map(Err)),
        )
}
