//! What `kubectl` sent after the upgrade, as it was recorded from its connections, with replies to its streams.

use super::{served, soon};
use impresario_spdy::{Headers, Incoming, Limits, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `echo hello | kubectl exec -i web -- cat`, kubectl 1.33; that of 1.27 sent the same bytes.
const EXEC: &str = "\
    80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ff \
    ff800300010000001700000003000000000000c22e555c92929907000000ffff80030001000000190000000500000000 \
    0000c22ac5565c92925f5a02000000ffff800300010000001500000007000000000000c229975a5404000000ffff0000 \
    00030000000668656c6c6f0a0000000301000000";

/// `kubectl port-forward pod/web 0:80` and one connection to it, kubectl 1.33.
const PORT_FORWARD: &str = "\
    800300010000003d0000000100000000000078f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc \
    6461c0c0c0c0590489c44c50e2663400000000ffff0000000101000000800300010000001800000003000000000000c2 \
    aa15540a2512d209000000ffff0000000300000012474554202f20485454502f312e300d0a0d0a0000000301000000";

/// The same of kubectl 1.27, whose headers stand in another order.
const OLDER_PORT_FORWARD: &str = "\
    800300010000003d0000000100000000000078f9e3c6a7c202253a060606ce2248fc6482d22da30138e59514a526e642 \
    0b17d65450d0430aea2250a266b23000000000ffff0000000101000000800300010000001c0000000300000000000082 \
    6a4555082a851231d4a1190f000000ffff0000000300000012474554202f20485454502f312e300d0a0d0a0000000301 \
    000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
    digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).unwrap()).collect()
}

/// Takes a stream that is announced with these headers, and no others.
async fn take<const N: usize>(incoming: &mut Incoming, expected: [(&str, &str); N]) -> Stream {
    let request = soon(incoming.next()).await.unwrap();
    for (name, value) in expected {
        assert_eq!(request.headers().get(name), Some(value), "{:?}", request.headers());
    }
    assert_eq!(request.headers().iter().count(), N, "{:?}", request.headers());
    request.accept(Headers::new()).unwrap()
}

async fn all_of(stream: &mut Stream) -> String {
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test]
async fn what_kubectl_sends_for_exec_is_four_streams_and_its_input() {
    // However the network cuts it.
    for piece in [1, 7, 1000] {
        let (mut kubectl, _session, _driver, mut incoming) = served(Limits::default());
        for piece in bytes(EXEC).chunks(piece) {
            kubectl.write_all(piece).await.unwrap();
        }
        let mut streams = Vec::new();
        for kind in ["error", "stdin", "stdout", "stderr"] {
            streams.push(take(&mut incoming, [("streamtype", kind)]).await);
        }
        assert_eq!(streams.iter().map(Stream::id).collect::<Vec<_>>(), [1, 3, 5, 7]);
        assert_eq!(all_of(&mut streams[1]).await, "hello\n");
    }
}

#[tokio::test]
async fn what_kubectl_sends_for_port_forward_is_two_streams_for_a_connection() {
    for recorded in [PORT_FORWARD, OLDER_PORT_FORWARD] {
        let (mut kubectl, _session, _driver, mut incoming) = served(Limits::default());
        kubectl.write_all(&bytes(recorded)).await.unwrap();
        let expected = |kind| [("streamtype", kind), ("port", "80"), ("requestid", "0")];
        let mut error = take(&mut incoming, expected("error")).await;
        let mut data = take(&mut incoming, expected("data")).await;
        assert_eq!(all_of(&mut error).await, "", "kubectl says nothing on it");
        assert_eq!(all_of(&mut data).await, "GET / HTTP/1.0\r\n\r\n");
    }
}

/// What is answered: heads of frames are compared, and the block of a reply is the same as Go's reader expects it, a
/// zlib stream that asks for SPDY's dictionary.
#[tokio::test]
async fn kubectl_is_answered_with_replies_then_data_then_the_end() {
    let (mut kubectl, session, driver, mut incoming) = served(Limits::default());
    kubectl.write_all(&bytes(EXEC)).await.unwrap();
    let error = take(&mut incoming, [("streamtype", "error")]).await;
    let stdin = take(&mut incoming, [("streamtype", "stdin")]).await;
    let mut stdout = take(&mut incoming, [("streamtype", "stdout")]).await;
    soon(incoming.next()).await.unwrap().refuse();
    soon(stdout.write_all(b"hello\n")).await.unwrap();
    soon(stdout.flush()).await.unwrap();
    soon(stdout.shutdown()).await.unwrap();
    drop((stdout, error, stdin));
    session.close();

    let (mut answer, mut streams) = (Vec::new(), Vec::new());
    soon(kubectl.read_to_end(&mut answer)).await.unwrap();
    let mut rest = &answer[..];
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let (body, behind) = behind.split_at(length);
        streams.push(match head {
            [0x80, 3, 0, 2, 0, ..] => {
                if streams.is_empty() {
                    assert_eq!(body[4] & 0x0f, 8, "deflate");
                    assert_eq!(body[6..10], [0xe3, 0xc6, 0xa7, 0xc2], "SPDY's dictionary");
                }
                format!("reply {}", body[3])
            }
            [0x80, 3, 0, 3, ..] => format!("reset {} {}", body[3], body[7]),
            [0x80, 3, 0, 7, ..] => format!("goaway {} {}", body[3], body[7]),
            [0, 0, 0, id, fin, ..] => {
                format!("data {id} {fin} {:?}", str::from_utf8(body).unwrap())
            }
            other => panic!("{other:x?}"),
        });
        rest = behind;
    }
    let mut of_stdout = streams.clone();
    of_stdout.retain(|said| said.split(' ').nth(1) == Some("5"));
    let expected = ["reply 5", "data 5 0 \"hello\\n\"", "data 5 1 \"\"", "reset 5 5"];
    assert_eq!(of_stdout, expected, "{streams:?}");
    for said in ["reply 1", "reply 3", "reset 7 3", "reset 1 5", "reset 3 5"] {
        assert!(streams.iter().any(|one| one == said), "{said}: {streams:?}");
    }
    assert_eq!(streams.last().unwrap(), "goaway 7 0", "{streams:?}");
    drop(kubectl);
    assert!(soon(driver).await.unwrap().is_ok());
}
