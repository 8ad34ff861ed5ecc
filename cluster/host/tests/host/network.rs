//! The service proxy and the name server, over real sockets.

use crate::conformance::LIMIT;
use impresario_host::{
    dns::{DnsServer, EndpointName, NamedPort, ServiceName},
    proxy::{Neighbourhood, Policy, Protocol, ProxyLimits, ServiceProxy, ServiceRule},
};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

/// A server that says its name and then echoes.
async fn endpoint(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (address, task)
}

/// A free port at a virtual address.
async fn virtual_address() -> SocketAddr {
    TcpListener::bind("127.96.7.1:0").await.unwrap().local_addr().unwrap()
}

fn rule(address: SocketAddr, endpoints: &[SocketAddr]) -> ServiceRule {
    ServiceRule {
        name: "default/web:http".into(),
        address,
        protocol: Protocol::Tcp,
        policy: Policy::RoundRobin,
        affinity: None,
        endpoints: endpoints.to_vec(),
    }
}

async fn who(address: SocketAddr) -> Option<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut name = [0];
    let read = timeout(LIMIT, stream.read_exact(&mut name)).await.expect("an answer or an end");
    read.ok().map(|_| (name[0], stream))
}

#[tokio::test]
async fn connections_are_balanced_and_a_gone_endpoint_gets_none() {
    let ((a, _a), (b, b_task)) = (endpoint("a").await, endpoint("b").await);
    let address = virtual_address().await;
    let proxy = ServiceProxy::new(ProxyLimits::default());
    assert!(proxy.apply(vec![rule(address, &[a, b])]).await.is_complete());
    let mut names = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (name, stream) = who(address).await.unwrap();
        names.push(name);
        kept.push(stream);
    }
    names.sort_unstable();
    assert_eq!(names, b"aabb");
    assert_eq!(proxy.stats(address, Protocol::Tcp).unwrap().open, 4);

    assert!(proxy.apply(vec![rule(address, &[a])]).await.is_complete());
    for _ in 0..3 {
        assert_eq!(who(address).await.unwrap().0, b'a');
    }
    // What was open before goes on, whoever it is with.
    for stream in &mut kept {
        stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        timeout(LIMIT, stream.read_exact(&mut echo)).await.expect("an echo").unwrap();
        assert_eq!(&echo, b"ping");
    }
    // One that is listed but dead is passed over.
    b_task.abort();
    let _ = b_task.await;
    assert!(proxy.apply(vec![rule(address, &[a, b])]).await.is_complete());
    for _ in 0..4 {
        assert_eq!(who(address).await.unwrap().0, b'a');
    }
    // Without endpoints, and without a rule, the port is closed.
    for rules in [vec![rule(address, &[])], vec![]] {
        assert!(proxy.apply(rules).await.is_complete());
        let refused = timeout(LIMIT, async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        refused.await.expect("connections are refused");
    }
}

/// Nodes of one machine: a folder each.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Longer than the address of a Unix socket may be.
    fn nodes(&self) -> PathBuf {
        self.0.path().join("x".repeat(120))
    }

    fn proxy(&self, cluster: &str, name: &str) -> ServiceProxy {
        proxy(&self.nodes(), cluster, name)
    }
}

fn proxy(nodes: &Path, cluster: &str, name: &str) -> ServiceProxy {
    let (nodes, folder) = (nodes.to_owned(), nodes.join(name));
    std::fs::create_dir_all(&folder).unwrap();
    let list = move || std::fs::read_dir(&nodes).unwrap().map(|e| e.unwrap().path()).collect();
    let among = Neighbourhood { cluster: cluster.into(), folder, nodes: Box::new(list) };
    ServiceProxy::among(ProxyLimits::default(), among).unwrap()
}

#[tokio::test]
async fn two_nodes_of_one_machine_serve_the_same_address() {
    let (a, _a) = endpoint("a").await;
    let address = virtual_address().await;
    let machine = Machine::new();
    let [first, second] = ["one", "two"].map(|name| machine.proxy("c", name));
    for proxy in [&first, &second] {
        assert!(proxy.apply(vec![rule(address, &[a])]).await.is_complete());
    }
    drop(first);
    // What the first has taken is reset when its task is dropped.
    let served = timeout(LIMIT, async { while who(address).await.is_none() {} });
    served.await.expect("the second serves it");
    assert_eq!(second.stats(address, Protocol::Tcp).unwrap().carried, 1);
    // A node of another cluster is given nothing.
    let stranger = machine.proxy("d", "three");
    assert_eq!(stranger.apply(vec![rule(address, &[a])]).await.not_served.len(), 1);
}

#[tokio::test]
async fn a_program_of_the_same_user_cannot_listen_beside_a_service() {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let (a, _a) = endpoint("a").await;
    let tcp = virtual_address().await;
    let udp = UdpSocket::bind("127.96.7.4:0").await.unwrap().local_addr().unwrap();
    let machine = Machine::new();
    let datagrams = ServiceRule { protocol: Protocol::Udp, ..rule(udp, &[a]) };
    let nodes = ["one", "two"].map(|name| machine.proxy("c", name));
    for node in &nodes {
        let applied = node.apply(vec![rule(tcp, &[a]), datagrams.clone()]).await;
        assert!(applied.not_served.is_empty(), "{applied:?}");
    }
    for (address, kind) in [(tcp, SockType::Stream), (udp, SockType::Datagram)] {
        let everywhere = SocketAddr::new([0, 0, 0, 0].into(), address.port());
        for address in [address, everywhere] {
            let own = socket(AddressFamily::Inet, kind, SockFlag::empty(), None).unwrap();
            setsockopt(&own, sockopt::ReuseAddr, &true).unwrap();
            setsockopt(&own, sockopt::ReusePort, &true).unwrap();
            let bound = bind(own.as_raw_fd(), &SockaddrStorage::from(address));
            assert_eq!(bound, Err(nix::Error::EADDRINUSE), "{kind:?} {address}");
        }
    }
}

#[tokio::test]
async fn datagrams_are_taken_over_from_a_node_that_is_gone() {
    let echo = Echo::start().await;
    let address = UdpSocket::bind("127.96.7.5:0").await.unwrap().local_addr().unwrap();
    let rules = || vec![ServiceRule { protocol: Protocol::Udp, ..rule(address, &[echo.address]) }];
    let machine = Machine::new();
    let [first, second] = ["one", "two"].map(|name| machine.proxy("c", name));
    for proxy in [&first, &second] {
        assert!(proxy.apply(rules()).await.is_complete());
    }
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    assert_eq!(asked(&client, "before").await, "before");
    drop(first);
    // What the first has taken is lost when its task is dropped.
    let taken = timeout(LIMIT, async {
        while second.stats(address, Protocol::Udp).unwrap().carried == 0 {
            client.send(b"after").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    taken.await.expect("the second serves it");
}

/// Set where this program is run a second time, as a node that can be stopped: what it serves, and where.
const NODE: &str = "IMPRESARIO_TEST_NODE";

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Serves {
    nodes: PathBuf,
    tcp: (SocketAddr, SocketAddr),
    udp: (SocketAddr, SocketAddr),
}

impl Serves {
    async fn by(&self, proxy: &ServiceProxy) {
        let tcp = rule(self.tcp.0, &[self.tcp.1]);
        let udp = ServiceRule { protocol: Protocol::Udp, ..rule(self.udp.0, &[self.udp.1]) };
        let applied = proxy.apply(vec![tcp, udp]).await;
        assert!(applied.is_complete(), "{applied:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_stopped_keeps_neither_connections_nor_datagrams_from_the_others() {
    if let Some(serves) = std::env::var_os(NODE) {
        let serves: Serves = serde_json::from_str(serves.to_str().unwrap()).unwrap();
        let proxy = proxy(&serves.nodes, "c", "one");
        serves.by(&proxy).await;
        println!("\n{NODE}");
        // Until it is killed, or nobody is there to do it.
        let ends = || std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        let _ = tokio::task::spawn_blocking(ends).await;
        return;
    }
    let (tcp, _tcp) = endpoint("a").await;
    let echo = Echo::start().await;
    let udp = UdpSocket::bind("127.96.7.6:0").await.unwrap().local_addr().unwrap();
    let machine = Machine::new();
    let serves = Serves {
        nodes: machine.nodes(),
        tcp: (virtual_address().await, tcp),
        udp: (udp, echo.address),
    };
    let other = OtherNode::start(&serves).await;
    let own = machine.proxy("c", "two");
    serves.by(&own).await;
    let carried = |protocol, address| own.stats(address, protocol).unwrap().carried;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(udp).await.unwrap();
    assert_eq!(asked(&client, "before").await, "before");
    assert_eq!(carried(Protocol::Udp, udp), 0, "datagrams of a client come to one node");

    other.stop().await;
    // One that is kept by who is stopped would not end.
    for _ in 0..20 {
        assert_eq!(who(serves.tcp.0).await.unwrap().0, b'a');
    }
    assert_eq!(asked(&client, "meanwhile").await, "meanwhile");
    assert_eq!(carried(Protocol::Udp, udp), 1);
    assert_eq!(
        echo.clients(),
        2,
        "to the endpoint, one that another node carries is another client"
    );

    // Whoever is there again knows that its turn is over.
    other.signal(Signal::SIGCONT);
    for number in 0..20 {
        let word = number.to_string();
        assert_eq!(asked(&client, &word).await, word);
    }
    assert_eq!((carried(Protocol::Udp, udp), echo.clients()), (1, 2));
}

/// A node in a process of its own, which ends with this.
struct OtherNode(tokio::process::Child);

impl OtherNode {
    /// Returns when it serves.
    async fn start(serves: &Serves) -> Self {
        let name = "network::a_node_that_is_stopped_keeps_neither_connections_nor_datagrams_from_the_others";
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]);
        command.env(NODE, serde_json::to_string(serves).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let serves = timeout(LIMIT, async {
            while lines.next_line().await.unwrap().expect("it serves") != NODE {}
        });
        serves.await.expect("it begins");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.0.id().unwrap().try_into().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Returns when none of its threads runs.
    async fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.0.id().unwrap());
        let runs = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T'))
        };
        let stopped = timeout(LIMIT, async {
            while std::fs::read_dir(&tasks).unwrap().any(|task| runs(task.unwrap())) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        stopped.await.expect("all its threads are stopped");
    }
}

/// Sends back each datagram that it is sent.
struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (socket.local_addr().unwrap(), Arc::default());
        let sees: Arc<Mutex<BTreeSet<SocketAddr>>> = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 100];
            loop {
                let (size, from) = socket.recv_from(&mut buffer).await.unwrap();
                sees.lock().unwrap().insert(from);
                socket.send_to(&buffer[..size], from).await.unwrap();
            }
        });
        Self { address, seen, task }
    }

    /// From how many addresses it was sent something.
    fn clients(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends a word; the answer.
async fn asked(client: &UdpSocket, word: &str) -> String {
    client.send(word.as_bytes()).await.unwrap();
    let mut buffer = [0; 100];
    let size = timeout(LIMIT, client.recv(&mut buffer)).await.expect("an answer").unwrap();
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_said_and_tried_again() {
    let (a, _a) = endpoint("a").await;
    let taken = TcpListener::bind("127.96.7.2:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let proxy = ServiceProxy::new(ProxyLimits::default());
    let not_served = proxy.apply(vec![rule(address, &[a])]).await.not_served;
    assert_eq!(not_served.len(), 1);
    assert!(not_served[0].to_string().contains("default/web:http"));
    drop(taken);
    assert!(proxy.apply(vec![rule(address, &[a])]).await.is_complete());
    assert!(who(address).await.is_some());
}

#[tokio::test]
async fn sessions_beyond_the_limit_wait_for_one_to_end() {
    let (a, _a) = endpoint("a").await;
    let address = virtual_address().await;
    let proxy = ServiceProxy::new(ProxyLimits { sessions: 2, ..ProxyLimits::default() });
    assert!(proxy.apply(vec![rule(address, &[a])]).await.is_complete());
    let (_, first) = who(address).await.unwrap();
    let _second = who(address).await.unwrap();
    let third = tokio::spawn(who(address));
    assert_eq!(proxy.stats(address, Protocol::Tcp).unwrap().open, 2);
    drop(first);
    let (name, _) = timeout(LIMIT, third).await.expect("room for it").unwrap().unwrap();
    assert_eq!(name, b'a');
}

#[tokio::test]
async fn datagrams_find_an_endpoint_and_their_answers_the_client() {
    let echo = Echo::start().await;
    let address = UdpSocket::bind("127.96.7.3:0").await.unwrap().local_addr().unwrap();
    let proxy = ServiceProxy::new(ProxyLimits::default());
    let rule = ServiceRule { protocol: Protocol::Udp, ..rule(address, &[echo.address]) };
    assert!(proxy.apply(vec![rule]).await.is_complete());
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    for word in ["one", "two"] {
        assert_eq!(asked(&client, word).await, word);
    }
    assert_eq!(proxy.stats(address, Protocol::Udp).unwrap().carried, 1);
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp() {
    use hickory_server::proto::{
        op::{Message, Query, ResponseCode},
        rr::{Name, RecordType},
    };
    let server = DnsServer::bind("127.0.0.1:0".parse().unwrap(), "cluster.local").await.unwrap();
    server.apply(&[ServiceName {
        name: "web".into(),
        namespace: "default".into(),
        addresses: vec![[127, 96, 0, 9].into()],
        ports: vec![NamedPort { name: Some("http".into()), protocol: "TCP".into(), port: 80 }],
        endpoints: vec![EndpointName { address: [127, 20, 1, 5].into(), hostname: None }],
        external_name: None,
    }]);
    let ask = |name: &str, kind| {
        let mut message = Message::query();
        let name: Name = name.parse().unwrap();
        message.add_query(Query::query(name, kind));
        message.to_vec().unwrap()
    };
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.connect(server.address()).await.unwrap();
    let mut buffer = [0; 1500];
    let table = [
        ("web.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, 1),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NoError, 1),
        ("nothing.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, 0),
        ("example.org.", RecordType::A, ResponseCode::Refused, 0),
    ];
    for (name, kind, code, answers) in table {
        udp.send(&ask(name, kind)).await.unwrap();
        let size = timeout(LIMIT, udp.recv(&mut buffer)).await.expect("an answer").unwrap();
        let answer = Message::from_vec(&buffer[..size]).unwrap();
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (code, answers),
            "{name}"
        );
    }
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    let question = ask("web.default.svc.cluster.local.", RecordType::A);
    tcp.write_u16(question.len() as u16).await.unwrap();
    tcp.write_all(&question).await.unwrap();
    let size = timeout(LIMIT, tcp.read_u16()).await.expect("an answer").unwrap();
    tcp.read_exact(&mut buffer[..size.into()]).await.unwrap();
    let answer = Message::from_vec(&buffer[..size.into()]).unwrap();
    assert_eq!(answer.answers[0].data.to_string(), "127.96.0.9");
}
