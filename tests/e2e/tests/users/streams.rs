//! What users run in pods, copy into them, and reach through the API.

use crate::manifests::waiting_pod;
use impresario_e2e::{Kubectl, Site, eventually, with_a_kubectl};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

with_a_kubectl!(
    a_command_in_a_pod_says_its_output_and_its_exit_code,
    a_command_reads_what_is_typed_and_is_ended_when_its_client_leaves,
    files_are_copied_into_a_pod_and_out_of_it,
    a_container_is_listened_to_from_now_on,
    a_port_of_a_pod_is_reached_by_a_websocket,
    what_does_not_run_says_what_it_is_instead,
);

/// No passing test spends it.
const LIMIT: Duration = Duration::from_mins(1);

fn with_a_pod(site: &Site) -> &Kubectl {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &waiting_pod("p")).ok();
    kubectl.run("wait --for=condition=Ready pod/p --timeout=120s").ok();
    kubectl
}

fn a_command_in_a_pod_says_its_output_and_its_exit_code(site: &Site) {
    let kubectl = with_a_pod(site);
    let ended = kubectl.run_with("exec p --", &["sh", "-c", "echo hi; echo oops >&2; exit 7"]);
    assert_eq!((ended.code, ended.out.as_str()), (7, "hi\n"), "{ended:?}");
    assert!(ended.err.contains("oops\n"), "{ended:?}");
    assert!(ended.err.contains("command terminated with exit code 7"), "{ended:?}");
    assert_eq!(kubectl.run_with("exec p -c main --", &["echo", "a b"]).ok(), "a b\n");
    assert_eq!(kubectl.run("exec p -- no-such-command").code, 127);
}

fn a_command_reads_what_is_typed_and_is_ended_when_its_client_leaves(site: &Site) {
    let kubectl = with_a_pod(site);
    let large = "0123456789abcde\n".repeat(64 * 1024);
    let output = kubectl.feed("exec -i p -- cat", &large);
    assert!(output.code == 0 && output.out == large, "{} bytes: {}", output.out.len(), output.err);
    // A number of this run's own: others may run beside.
    let word = format!("{}55", std::process::id());
    let running = |word: &str| {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| *line == [b"sleep\0", word.as_bytes(), b"\0"].concat()).count()
    };
    let until = |what: &str, wanted: usize| {
        eventually(what, || {
            let count = running(&word);
            if count == wanted { Ok(()) } else { Err(format!("{count} run")) }
        });
    };
    let client = kubectl.lines(&format!("exec p -- sleep {word}"));
    until("the command runs", 1);
    drop(client);
    until("the command is ended", 0);
}

fn files_are_copied_into_a_pod_and_out_of_it(site: &Site) {
    let kubectl = with_a_pod(site);
    let folder = site.cluster.scratch().join(&kubectl.namespace);
    fs::create_dir_all(&folder).unwrap();
    let (here, back) = (folder.join("here"), folder.join("back"));
    let text = "what is copied\n".repeat(100_000);
    fs::write(&here, &text).unwrap();
    let there = format!("/tmp/{}", kubectl.namespace);
    kubectl.run(&format!("cp {} p:{there}", here.display())).ok();
    kubectl.run(&format!("cp p:{there} {}", back.display())).ok();
    assert!(fs::read_to_string(&back).unwrap() == text, "it comes back as it was");
    kubectl.run(&format!("exec p -- rm {there}")).ok();
}

fn a_container_is_listened_to_from_now_on(site: &Site) {
    let kubectl = &site.kubectl;
    let pod = waiting_pod("p").replace("exec sleep 600", "while :; do echo tick; sleep 0.2; done");
    kubectl.feed("create -f -", &pod).ok();
    kubectl.run("wait --for=condition=Ready pod/p --timeout=120s").ok();
    let mut lines = kubectl.lines("attach p");
    lines.expect("tick");
    drop(lines);
    let refused = kubectl.run("attach -i p").refused();
    assert!(refused.contains("gives a container no standard input"), "{refused}");
}

fn what_does_not_run_says_what_it_is_instead(site: &Site) {
    let kubectl = with_a_pod(site);
    let refused = kubectl.run("exec p -c other -- ls").refused();
    assert!(refused.contains("container other is not valid for pod p"), "{refused}");
    let refused = kubectl.run("exec nobody -- ls").refused();
    assert!(refused.contains("pods \"nobody\" not found"), "{refused}");
}

/// As the Python client does it: one message is one frame, and a client's is masked (here with zeros).
struct Socket(TcpStream);

impl Socket {
    fn open(api: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect_timeout(&api, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: {api}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    fn say(&mut self, channel: u8, text: &str) {
        let length = u8::try_from(text.len() + 1).unwrap();
        assert!(length < 126);
        let frame = [&[0x82, 0x80 | length, 0, 0, 0, 0, channel], text.as_bytes()].concat();
        self.0.write_all(&frame).unwrap();
    }

    /// The next message: its channel and its bytes.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x82, "a whole message of bytes: {head:?}");
        let length = match head[1] {
            126 => {
                let mut more = [0; 2];
                self.0.read_exact(&mut more).unwrap();
                usize::from(u16::from_be_bytes(more))
            }
            length => usize::from(length),
        };
        let mut message = vec![0; length];
        self.0.read_exact(&mut message).unwrap();
        (message[0], message[1..].to_vec())
    }
}

fn a_port_of_a_pod_is_reached_by_a_websocket(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &crate::manifests::web("web", 1)).ok();
    kubectl.until("get rc web", "{.status.readyReplicas}", "1");
    let pod = kubectl.field("get pods -l app=web", "{.items[0].metadata.name}");
    let mut proxy = kubectl.lines("proxy --port 0");
    let line = proxy.expect("Starting to serve on ");
    let api = line.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap();
    let space = &kubectl.namespace;
    let path = format!("/api/v1/namespaces/{space}/pods/{pod}/portforward?ports=8080&ports=9");
    let mut socket = Socket::open(api, &path);
    let port = |port: u16| port.to_le_bytes().to_vec();
    let mut first: Vec<_> = (0..5).map(|_| socket.next()).collect();
    first.sort();
    assert_eq!(first[..3], [(0, port(8080)), (1, port(8080)), (2, port(9))]);
    let why = first[3..].iter().map(|(channel, bytes)| {
        assert_eq!(*channel, 3);
        String::from_utf8_lossy(bytes).into_owned()
    });
    let why: String = why.collect();
    assert!(why.contains("port 9 of pod"), "{why}");
    socket.say(0, "GET / HTTP/1.0\r\n\r\n");
    let mut page = String::new();
    while !page.contains(&pod) {
        let (channel, bytes) = socket.next();
        assert_eq!(channel, 0);
        page += &String::from_utf8_lossy(&bytes);
    }
    assert!(page.starts_with("HTTP/1."), "{page}");
}
