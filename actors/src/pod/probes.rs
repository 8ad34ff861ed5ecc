//! Probes: whether a container has started, is ready, and is alive.
//!
//! [`Tally`] counts answers and decides (no IO); [`watch`] asks again and again, and tells only
//! what changes. HTTP and TCP are asked at the pod's address. What cannot be asked (`exec`, `grpc`,
//! HTTPS) has no answer: such a probe neither passes nor fails, and the pod says so in an event.

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::{api::core::v1, apimachinery::pkg::util::intstr::IntOrString};
use std::{net::IpAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Until it passes once, the other two wait.
    Startup,
    /// Whether the container gets traffic.
    Readiness,
    /// Whether it is to be started anew.
    Liveness,
}

/// What the answers so far add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As many answers in a row as it takes were good.
    Passes,
    /// As many answers in a row as it takes were bad.
    Fails,
}

/// Counts answers of one probe.
#[derive(Debug, Clone)]
pub struct Tally {
    good: u32,
    bad: u32,
    good_needed: u32,
    bad_needed: u32,
    verdict: Option<Verdict>,
}

impl Tally {
    /// A probe that was never asked.
    pub fn new(probe: &v1::Probe) -> Self {
        let count = |number: Option<i32>, default| {
            number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        Self {
            good: 0,
            bad: 0,
            good_needed: count(probe.success_threshold, 1),
            bad_needed: count(probe.failure_threshold, 3),
            verdict: None,
        }
    }

    /// An answer came; the verdict, where it is another than before.
    pub fn answered(&mut self, is_good: bool) -> Option<Verdict> {
        let (same, other) =
            if is_good { (&mut self.good, &mut self.bad) } else { (&mut self.bad, &mut self.good) };
        (*same, *other) = (same.saturating_add(1), 0);
        let verdict = match is_good {
            true if self.good >= self.good_needed => Verdict::Passes,
            false if self.bad >= self.bad_needed => Verdict::Fails,
            _ => return None,
        };
        (self.verdict.replace(verdict) != Some(verdict)).then_some(verdict)
    }
}

/// How a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A GET that must be answered with a status from 200 to 399.
    Http {
        /// Where.
        address: IpAddr,
        /// At which port.
        port: u16,
        /// What the `Host` header says.
        host: String,
        /// What is asked for.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that must be taken.
    Tcp {
        /// Where.
        address: IpAddr,
        /// At which port.
        port: u16,
    },
}

/// How the probe asks; the kind of probe where it cannot.
pub fn question(
    probe: &v1::Probe,
    container: &v1::Container,
    pod: IpAddr,
) -> Result<Question, &'static str> {
    let address = |host: Option<&String>| host.and_then(|host| host.parse().ok()).unwrap_or(pod);
    if let Some(http) = &probe.http_get {
        if http.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Err("httpGet with scheme HTTPS");
        }
        let port =
            port(&http.port, container).ok_or("httpGet without a port that the container names")?;
        let headers = http.http_headers.iter().flatten();
        let headers: Vec<_> =
            headers.map(|header| (header.name.clone(), header.value.clone())).collect();
        let address = address(http.host.as_ref());
        let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = named.map_or_else(|| format!("{address}:{port}"), |(_, value)| value.clone());
        let path = http
            .path
            .clone()
            .filter(|path| path.starts_with('/'))
            .unwrap_or_else(|| "/".to_owned());
        return Ok(Question::Http { address, port, host, path, headers });
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = port(&tcp.port, container)
            .ok_or("tcpSocket without a port that the container names")?;
        return Ok(Question::Tcp { address: address(tcp.host.as_ref()), port });
    }
    Err(if probe.exec.is_some() { "exec" } else { "grpc" })
}

fn port(port: &IntOrString, container: &v1::Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut named = container.ports.iter().flatten();
            let named = named
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// Asks for as long as the stream is polled, and tells every verdict that is news, with the
/// reason of the last bad answer.
pub fn watch(
    probe: &v1::Probe,
    question: Question,
) -> impl Stream<Item = (Verdict, String)> + use<> {
    let seconds = |number: Option<i32>, default: u64| {
        Duration::from_secs(number.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
    };
    let delay = seconds(probe.initial_delay_seconds, 0);
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let start = (Tally::new(probe), question, Some(delay));
    stream::unfold(start, move |(mut tally, question, mut wait)| async move {
        loop {
            tokio::time::sleep(wait.take().unwrap_or(period)).await;
            let answer = match tokio::time::timeout(limit, ask(&question)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {limit:?}")),
            };
            if let Some(verdict) = tally.answered(answer.is_ok()) {
                return Some((
                    (verdict, answer.err().unwrap_or_default()),
                    (tally, question, None),
                ));
            }
        }
    })
    .boxed()
}

/// Asks once; why the answer is bad, if it is.
async fn ask(question: &Question) -> Result<(), String> {
    match question {
        Question::Tcp { address, port } => {
            TcpStream::connect((*address, *port)).await.map(drop).map_err(|error| error.to_string())
        }
        Question::Http { address, port, host, path, headers } => {
            let words = |error: std::io::Error| format!("Get \"http://{host}{path}\": {error}");
            let mut stream = TcpStream::connect((*address, *port)).await.map_err(words)?;
            let mut request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: impresario-probe\r\nAccept: */*\r\nConnection: close\r\n"
            );
            for (name, value) in
                headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
            {
                let is_plain = |text: &str| !text.contains(['\r', '\n']);
                if is_plain(name) && is_plain(value) {
                    request.extend([name, ": ", value, "\r\n"]);
                }
            }
            request.push_str("\r\n");
            stream.write_all(request.as_bytes()).await.map_err(words)?;
            let mut head = Vec::new();
            // The status line is all that counts; a server that sends no line end is not read for ever.
            while head.len() < 1024 && !head.contains(&b'\n') {
                if stream.read_buf(&mut head).await.map_err(words)? == 0 {
                    break;
                }
            }
            let line = String::from_utf8_lossy(&head);
            let code = line.split_whitespace().nth(1).and_then(|code| code.parse::<u16>().ok());
            match code {
                Some(200..=399) => Ok(()),
                Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
                None => Err("the answer is no HTTP".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    #[test]
    fn a_verdict_takes_as_many_answers_in_a_row_as_it_says() {
        let probe = v1::Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..v1::Probe::default()
        };
        let mut tally = Tally::new(&probe);
        let told: Vec<_> = [true, false, true, true, true, false, true, false, false, false]
            .into_iter()
            .filter_map(|answer| tally.answered(answer))
            .collect();
        assert_eq!(told, [Verdict::Passes, Verdict::Fails]);
    }

    #[tokio::test]
    async fn http_is_good_from_200_to_399_and_tcp_when_it_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = tokio::spawn(async move {
            for status in ["200 OK", "503 No", "301 Moved"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
            listener
        });
        let container: v1::Container = serde_json::from_value(
            json!({"name": "a", "ports": [{"name": "web", "containerPort": address.port()}]}),
        )
        .unwrap();
        let probe: v1::Probe =
            serde_json::from_value(json!({"httpGet": {"path": "/healthz", "port": "web"}}))
                .unwrap();
        let http = question(&probe, &container, address.ip()).unwrap();
        assert_eq!(ask(&http).await, Ok(()));
        assert_eq!(ask(&http).await, Err("HTTP probe failed with statuscode: 503".to_owned()));
        assert_eq!(ask(&http).await, Ok(()));
        let tcp = Question::Tcp { address: address.ip(), port: address.port() };
        let listener = serve.await.unwrap();
        assert_eq!(ask(&tcp).await, Ok(()));
        drop(listener);
        assert!(ask(&tcp).await.is_err());
    }

    #[test]
    fn what_cannot_be_asked_is_named() {
        let container = v1::Container::default();
        let probe = |value| serde_json::from_value::<v1::Probe>(value).unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            question(&probe(json!({"exec": {"command": ["true"]}})), &container, here),
            Err("exec")
        );
        assert!(question(&probe(json!({"httpGet": {"port": "none"}})), &container, here).is_err());
    }
}
