//! Names of services: `service.namespace.svc.cluster.local`, as the Kubernetes specification has it.
//!
//! - A and AAAA of a service's virtual address; of its ready endpoints when it is headless; SRV of
//!   named ports; CNAME of an external name; PTR of virtual addresses and named endpoints.
//! - [`DnsServer::apply`] replaces all records at once. A name that is not there is NXDOMAIN, one
//!   without such records an empty answer, both with the zone's SOA; any other zone is REFUSED, so
//!   that a resolver asks its next server.

mod records;

pub use records::{EndpointName, NamedPort, ServiceName};

use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Metadata, OpCode, ResponseCode},
        rr::RecordType,
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;
use records::{Answer, Zone};
use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};

/// How long a silent TCP client is kept.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Bytes of answers that wait for a slow TCP client.
const TCP_BUFFER: usize = 4096;

/// Why names are not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The address cannot be had.
    #[error("names are not served at {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The cluster's domain is no name.
    #[error("{domain:?} is no domain name: write it as cluster.local")]
    Domain {
        /// What was given.
        domain: String,
    },
}

/// Answers for names until it is dropped.
pub struct DnsServer {
    zone: Arc<RwLock<Zone>>,
    address: SocketAddr,
    _server: Server<Handler>,
}

impl DnsServer {
    /// Serves a domain at an address, by UDP and TCP. Port zero takes a free one.
    pub async fn bind(address: SocketAddr, domain: &str) -> Result<Self, DnsError> {
        let zone =
            Zone::new(domain).ok_or_else(|| DnsError::Domain { domain: domain.to_owned() })?;
        let zone = Arc::new(RwLock::new(zone));
        let (udp, tcp) = both(address).await.map_err(|cause| DnsError::Bind { address, cause })?;
        let address = udp.local_addr().map_err(|cause| DnsError::Bind { address, cause })?;
        let mut server = Server::new(Handler { zone: Arc::clone(&zone) });
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
        Ok(Self { zone, address, _server: server })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes exactly these services have names.
    pub fn apply(&self, services: &[ServiceName]) {
        let next = self.zone.read().with(services);
        *self.zone.write() = next;
    }
}

/// Tries for a port that is free for both, where any port will do.
const PORTS_TRIED: usize = 16;

/// The same port by UDP and TCP. A port that is free for the one may be taken for the other.
async fn both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORTS_TRIED } else { 1 };
    loop {
        let udp = UdpSocket::bind(address).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
            tcp => return Ok((udp, tcp?)),
        }
    }
}

struct Handler {
    zone: Arc<RwLock<Zone>>,
}

impl RequestHandler for Handler {
    // As `async_trait` writes it out.
    fn handle_request<'me, 'request, 'all, R, T>(
        &'me self,
        request: &'request Request,
        response: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'all>>
    where
        'me: 'all,
        'request: 'all,
        R: ResponseHandler + 'all,
        T: Time + 'all,
        Self: 'all,
    {
        Box::pin(self.answer(request, response))
    }
}

impl Handler {
    async fn answer<R: ResponseHandler>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let builder = MessageResponseBuilder::from_message_request(request);
        let answer = match request.request_info() {
            _ if request.metadata.op_code != OpCode::Query => Answer::code(ResponseCode::NotImp),
            Err(_) => Answer::code(ResponseCode::FormErr),
            Ok(info) => {
                let (name, kind) = (info.query.name().to_string(), info.query.query_type());
                self.zone.read().answer(&name, kind)
            }
        };
        metadata.response_code = answer.code;
        metadata.authoritative = answer.code != ResponseCode::Refused;
        let message =
            builder.build(metadata, &answer.records, [], answer.soa.iter(), &answer.additional);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer for a name was not sent");
                metadata.response_code = ResponseCode::ServFail;
                let counts = hickory_server::proto::op::HeaderCounts::default();
                hickory_server::proto::op::Header { metadata, counts }.into()
            }
        }
    }
}

/// Record types that a caller may want to name.
pub type Kind = RecordType;
