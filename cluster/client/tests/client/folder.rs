//! What a program keeps of a cluster in its folder.

use impresario_client::{Client, ConnectError};
use impresario_runtime::{ClusterAuthority, PeerRole};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_certificate_that_has_ended_is_said_to_have_and_what_to_do() {
    actix::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("test").unwrap();
        let ended = authority.issue("program", PeerRole::Client, &[], Duration::ZERO).unwrap();
        ended.save(&folder.path().join("credential")).unwrap();
        let kept = json!({"machine": null, "members": [["n1", "127.0.0.1:9"]]});
        std::fs::write(folder.path().join("client.json"), kept.to_string()).unwrap();
        let refused = Client::open(folder.path()).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Expired { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("imp token create --role client"), "{said}");
        // With a token it is joined anew.
        let again = Client::join("127.0.0.1:9", "no token", None, folder.path()).await;
        assert!(matches!(again, Err(ConnectError::Token(_))), "{again:?}");
    });
}
