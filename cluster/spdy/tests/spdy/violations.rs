//! A peer that breaks the protocol, seen from the socket.

use super::{driven, served, soon};
use impresario_spdy::{Headers, Limits, Session, SessionError, StreamError, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GOAWAY_FOR_A_VIOLATION: [u8; 16] = [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_goodbye_and_everybody_why() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], None),
        (&[0x80, 2, 0, 1, 0, 0, 0, 0], Some(Violation::Version { found: 2 })),
        (
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
            Some(Violation::ControlTooLong { length: 0x00ff_ffff, limit: 16 << 10 }),
        ),
        (&[0x80, 3, 0, 8, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9], Some(Violation::Compression)),
    ] {
        let (mut peer, session, driver, mut incoming) = served(Limits::default());
        peer.write_all(bytes).await.unwrap();
        let Some(expected) = expected else {
            // By its bits it is a piece of a data frame of a stream that never was: nothing is kept of it.
            let mut answer = [0; 16];
            soon(peer.read_exact(&mut answer)).await.unwrap();
            let reset = [0x80, 3, 0, 3, 0, 0, 0, 8, b'G', b'E', b'T', b' ', 0, 0, 0, 2];
            assert_eq!(answer, reset);
            drop((peer, session));
            let ended = soon(driver).await.unwrap();
            assert!(matches!(ended, Err(SessionError::Truncated { streams: 0 })), "{ended:?}");
            continue;
        };
        let mut answer = Vec::new();
        soon(peer.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, GOAWAY_FOR_A_VIOLATION, "{expected}");
        assert!(soon(incoming.next()).await.is_none());
        drop(peer);
        let ended = soon(driver).await.unwrap();
        let Err(SessionError::Violation(violation)) = ended else { panic!("{ended:?}") };
        assert_eq!(violation, expected);
        let refused = session.open(Headers::new()).await;
        assert!(refused.unwrap_err().to_string().contains(&expected.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_and_never_closes_holds_nobody_up() {
    let limits = Limits::default();
    let (near, far) = tokio::io::duplex(4); // the farewell does not fit
    let (session, driver, incoming) = Session::server(far, limits);
    let began = tokio::time::Instant::now();
    session.close();
    let ended = driver.await;
    assert!(ended.is_ok(), "{ended:?}");
    assert!(began.elapsed() >= limits.linger && began.elapsed() < limits.linger * 2);
    drop((near, incoming));
}

#[tokio::test]
async fn what_a_stream_received_is_read_before_the_session_s_end_is_told() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (client, client_driver) = Session::client(near, Limits::default());
    let (_server, server_driver, mut incoming) = Session::server(far, Limits::default());
    let (client_driver, server_driver) = (driven(client_driver), driven(server_driver));
    let (opened, far) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let (mut near, mut far) = (opened.unwrap(), far);
    soon(near.write_all(b"abc")).await.unwrap();
    soon(near.flush()).await.unwrap();
    client_driver.abort();
    let ended = soon(server_driver).await.unwrap();
    assert!(matches!(ended, Err(SessionError::Truncated { streams: 1 })), "{ended:?}");

    let mut text = [0; 3];
    soon(far.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"abc");
    let error = soon(far.read(&mut text)).await.unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<StreamError>().unwrap();
    let why = matches!(inner, StreamError::Session(SessionError::Truncated { streams: 1 }));
    assert!(why, "{inner:?}");
}
