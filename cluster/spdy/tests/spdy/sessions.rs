//! Two sessions against each other.

use super::{Driven, driven, headers, soon};
use impresario_spdy::{
    Headers, Incoming, Limits, OpenError, ResetStatus, Session, SessionError, StreamError,
};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

struct Pair {
    client: Session,
    client_driver: Driven,
    server: Session,
    server_driver: Driven,
    incoming: Incoming,
}

fn pair(limits: Limits) -> Pair {
    let (near, far) = tokio::io::duplex(4096);
    let (client, client_driver) = Session::client(near, limits);
    let (server, server_driver, incoming) = Session::server(far, limits);
    let (client_driver, server_driver) = (driven(client_driver), driven(server_driver));
    Pair { client, client_driver, server, server_driver, incoming }
}

/// Sends everything back, stream by stream, and replies with the headers that it was given.
fn echo(mut incoming: Incoming) {
    tokio::spawn(async move {
        while let Some(request) = incoming.next().await {
            let headers = request.headers().clone();
            let stream = request.accept(headers).unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
    });
}

fn source(error: &std::io::Error) -> &StreamError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn many_streams_carry_much_both_ways_at_once() {
    let Pair { client, client_driver, server_driver, incoming, .. } = pair(Limits::default());
    echo(incoming);
    let mut tasks = Vec::new();
    for at in 0..20_u8 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let port = at.to_string();
            let stream = client.open(headers([("port", &port)])).await.unwrap();
            assert_eq!(stream.headers().get("port"), Some(&*port));
            let (mut reader, mut writer) = stream.split();
            let sent: Vec<u8> = (0..200_000).map(|one: u32| (one % 251) as u8 ^ at).collect();
            let expected = sent.clone();
            let sending = tokio::spawn(async move {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            });
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            assert!(received == expected, "stream {at}: {} bytes", received.len());
            sending.await.unwrap();
        }));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
    client.close();
    assert!(soon(client_driver).await.unwrap().is_ok());
    assert!(soon(server_driver).await.unwrap().is_ok());
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let Pair { client, mut incoming, .. } = pair(Limits::default());
    let (opened, request) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let (mut near, mut far) = (opened.unwrap(), request);
    soon(near.shutdown()).await.unwrap();
    let mut text = String::new();
    soon(far.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "");
    soon(far.write_all(b"still here")).await.unwrap();
    soon(far.shutdown()).await.unwrap();
    soon(near.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "still here");
    let error = soon(near.write(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(matches!(source(&error), StreamError::Finished));
}

#[tokio::test]
async fn a_slow_reader_holds_its_writer_up_and_nothing_is_lost() {
    let limits = Limits { stream_bytes: 1000, stream_send_bytes: 1000, ..Limits::default() };
    let Pair { client, mut incoming, .. } = pair(limits);
    let (opened, mut slow) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let mut writer = opened.unwrap();
    let total = 1_000_000;
    let (progress, mut written) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        while *progress.borrow() < total {
            let bytes = vec![1; 500];
            writer.write_all(&bytes).await.unwrap();
            progress.send_modify(|written| *written += bytes.len());
        }
        writer.shutdown().await.unwrap();
    });
    // It comes to a stop: both queues, the pipe, what is read at once, and a batch that is on its way.
    let bound = 2 * 1000 + 4096 + (16 << 10) + (64 << 10) + 500;
    let (mut read, mut piece) = (0, vec![0; 3000]);
    loop {
        let length = soon(slow.read(&mut piece)).await.unwrap();
        if length == 0 {
            break;
        }
        read += length;
        assert!(*written.borrow_and_update() <= read + bound, "{} of {read}", *written.borrow());
    }
    assert_eq!(read, total);
}

#[tokio::test]
async fn a_reader_that_is_dropped_holds_nothing_up() {
    let limits = Limits { stream_bytes: 1000, session_bytes: 1000, ..Limits::default() };
    let Pair { client, mut incoming, .. } = pair(limits);
    let (opened, far) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let mut near = opened.unwrap();
    let (reader, mut writer) = far.split();
    let pushing = tokio::spawn(async move {
        near.write_all(&vec![0; 500_000]).await.unwrap();
        near.shutdown().await.unwrap();
        near
    });
    drop(reader);
    let mut near = soon(pushing).await.unwrap();
    soon(writer.write_all(b"done")).await.unwrap();
    soon(writer.shutdown()).await.unwrap();
    let mut text = String::new();
    soon(near.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "done");
}

#[tokio::test]
async fn a_stream_that_is_refused_or_broken_off_is_told_so() {
    let Pair { client, mut incoming, .. } = pair(Limits::default());
    let (opened, ()) = tokio::join!(client.open(Headers::new()), async {
        drop(incoming.next().await.unwrap());
    });
    let status = ResetStatus::RefusedStream;
    assert!(matches!(opened, Err(OpenError::Refused { status: s }) if s == status), "{opened:?}");

    let (opened, far) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let mut near = opened.unwrap();
    drop(far);
    let error = soon(near.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let status = ResetStatus::Cancel;
    assert!(matches!(source(&error), StreamError::Reset { status: s } if *s == status));
}

#[tokio::test]
async fn whoever_does_not_take_streams_refuses_them() {
    let Pair { client, incoming, .. } = pair(Limits::default());
    drop(incoming);
    let opened = soon(client.open(Headers::new())).await;
    assert!(matches!(opened, Err(OpenError::Refused { .. })), "{opened:?}");
}

#[tokio::test]
async fn when_a_driver_is_dropped_both_ends_say_so() {
    let Pair { client, client_driver, server_driver, mut incoming, .. } = pair(Limits::default());
    let (opened, mut far) = tokio::join!(client.open(Headers::new()), async {
        incoming.next().await.unwrap().accept(Headers::new()).unwrap()
    });
    let mut near = opened.unwrap();
    client_driver.abort();
    let error = soon(near.read(&mut [0; 8])).await.unwrap_err();
    assert!(matches!(source(&error), StreamError::Session(SessionError::DriverGone)));
    let error = soon(far.read(&mut [0; 8])).await.unwrap_err();
    assert!(matches!(source(&error), StreamError::Session(SessionError::Truncated { streams: 1 })));
    assert!(soon(incoming.next()).await.is_none());
    let ended = soon(server_driver).await.unwrap();
    assert!(matches!(ended, Err(SessionError::Truncated { streams: 1 })), "{ended:?}");
}

#[tokio::test]
async fn a_session_that_nobody_can_use_any_more_ends() {
    let Pair { client, client_driver, server, server_driver, incoming } = pair(Limits::default());
    drop((client, server, incoming));
    assert!(soon(client_driver).await.unwrap().is_ok());
    assert!(soon(server_driver).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_reply_a_session_that_lingers_and_one_on_which_nothing_passes_end() {
    let limits = Limits::default();
    let Pair { client, client_driver, server_driver, mut incoming, .. } = pair(limits);
    let opened = client.open(Headers::new()).await;
    assert!(matches!(opened, Err(OpenError::NoReply { waited }) if waited == limits.reply));
    let (opened, far) = tokio::join!(client.open(headers([("port", "2")])), async {
        loop {
            let request = incoming.next().await.unwrap();
            if request.headers().get("port").is_some() {
                break request.accept(Headers::new()).unwrap();
            }
        }
    });
    let near = opened.unwrap();
    client.close();
    let ended = client_driver.await.unwrap();
    assert!(matches!(ended, Err(SessionError::Lingered { waited }) if waited == limits.linger));
    drop((near, far));
    let ended = server_driver.await.unwrap();
    assert!(matches!(ended, Err(SessionError::Truncated { streams: 1 })), "{ended:?}");

    let (near, far) = tokio::io::duplex(64);
    let (_session, driver, _incoming) = Session::server(far, limits);
    let began = tokio::time::Instant::now();
    let ended = driver.await;
    let waited = limits.idle;
    assert!(matches!(ended, Err(SessionError::Idle { waited: w }) if w == waited), "{ended:?}");
    assert!(
        began.elapsed() >= waited
            && began.elapsed() <= waited + limits.linger + Duration::from_secs(1)
    );
    drop(near);
}
