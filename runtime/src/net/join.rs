//! Joining: how a machine without a certificate gets one.
//!
//! The newcomer sends one request (the token's secret and a signing request) over a connection on which it has
//! recognised the cluster by the authority's fingerprint, and gets one answer. Its private key never leaves it. Whether
//! the token is good is decided by the [`JoinDoor`].

mod door;

pub use door::{JoinAnswer, JoinDoor, JoinRequest};
use impresario_ambient::random;

use super::{
    handshake::code,
    network::Network,
    wire::{FrameReader, WireError, finish, send_value},
};
use crate::{
    error::Refusal,
    pki::{Credential, JoinToken, KeyRequest, PkiError, TokenError, tls},
    refusals::Cause,
    supervise::Backoff,
};
use quinn::{ClientConfig, Connection, Endpoint, crypto::rustls::QuicClientConfig};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

/// Why joining failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The cluster does not accept the token.
    #[error("the cluster refused: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// No cluster answered at the address, or not the one of the token.
    #[error(
        "{address} did not answer as the token's cluster ({detail}): check the address, and that the token is of this cluster"
    )]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        detail: String,
    },
    /// The cluster of the token was asked, and its answer did not arrive.
    #[error("{address} was asked and has not answered ({detail}): the token may be used up by now")]
    Unanswered {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        detail: String,
    },
    /// The token is not one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key or certificate could not be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The largest request or answer.
const LIMIT_BYTES: usize = 256 << 10;

/// A request as it travels; where it came from is what the door sees, not what the newcomer says.
#[derive(Serialize, Deserialize)]
struct Ask {
    secret: String,
    csr_pem: String,
    name: Option<String>,
}

/// Serves one connection of the join protocol: one request, one answer.
///
/// The request must come as fast as a handshake; the door may take as long as a silence may last.
pub(crate) async fn serve(network: &Network, door: &dyn JoinDoor, connection: &Connection) {
    let from = connection.remote_address();
    let (dial, limit) = (network.timing.dial, network.timing.lost_after);
    let asked = async {
        let (send, receive) = connection.accept_bi().await.map_err(quinn::ReadError::from)?;
        let ask: Ask = FrameReader::new(receive, LIMIT_BYTES).value().await?;
        Ok::<_, WireError>((send, ask))
    };
    let exchange = async {
        let (mut send, ask) =
            timeout(dial, asked).await.unwrap_or(Err(WireError::Late { limit: dial }))?;
        let request =
            JoinRequest { secret: ask.secret, csr_pem: ask.csr_pem, name: ask.name, from };
        let answer = door.join(request).await;
        match &answer {
            Ok(answer) => tracing::info!(%from, name = %answer.name, "joined"),
            Err(refusal) => {
                network.refusals.count_stranger(Cause::Join, "runtime.Join", from);
                tracing::debug!(%from, reason = ?refusal.reason, "join refused");
            }
        }
        send_value(&mut send, &answer).await?;
        finish(send);
        // It closes when it has read the answer.
        drop(timeout(dial, connection.closed()).await);
        Ok::<_, WireError>(())
    };
    match timeout(limit, exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "join ended"),
        Err(_) => tracing::debug!(%from, "join took too long"),
    }
    connection.close(code::DONE, b"");
}

/// How long one try waits for an answer, as a part of the time that there is for all.
const TRIES: u32 = 3;
/// The pauses before it is asked again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

/// Joins the cluster that answers at `address`: makes a key, shows the token, and gives the credential that comes back.
///
/// Nothing is sent before the cluster has shown the authority that the token names. Waits at most `deadline`.
pub async fn join(
    address: SocketAddr,
    token: &JoinToken,
    name: Option<String>,
    deadline: Duration,
) -> Result<(Credential, JoinAnswer), JoinError> {
    join_with(KeyRequest::generate()?, address, token, name, deadline).await
}

/// As [`join`], for a key that is there already: who has asked with it before, and did not hear the answer, hears it
/// now. An answer that is lost is asked for again, as long as there is time.
pub async fn join_with(
    key: KeyRequest,
    address: SocketAddr,
    token: &JoinToken,
    name: Option<String>,
    deadline: Duration,
) -> Result<(Credential, JoinAnswer), JoinError> {
    let ask = Ask { secret: token.secret(), csr_pem: key.csr_pem().to_owned(), name };
    let until = Instant::now() + deadline;
    let mut asked = false;
    let mut attempt = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = left.min(deadline / TRIES);
        let mut sent = false;
        let outcome = timeout(limit, exchange(address, token, &ask, &mut sent)).await;
        asked |= sent;
        let detail = match outcome {
            Ok(Ok(answer)) => {
                let answer = answer.map_err(|Refusal { reason }| JoinError::Refused { reason })?;
                let credential =
                    key.into_credential(&answer.certificate_pem, &answer.authority_pem)?;
                return Ok((credential, answer));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        // Who was never reached is not there, or is another one.
        if !asked {
            return Err(JoinError::Unreachable { address, detail });
        }
        let pause = AGAIN.wait(attempt, random::random());
        if Instant::now() + pause >= until {
            return Err(JoinError::Unanswered { address, detail });
        }
        tracing::debug!(%address, detail, "asked to join, and is asking again");
        sleep(pause).await;
        attempt += 1;
    }
}

/// One request and its answer. `sent` is set before the cluster may have heard the request.
async fn exchange(
    address: SocketAddr,
    token: &JoinToken,
    ask: &Ask,
    sent: &mut bool,
) -> Result<Result<JoinAnswer, Refusal>, Box<dyn std::error::Error + Send + Sync>> {
    let crypto =
        QuicClientConfig::try_from(tls::join_client_config(token.authority_fingerprint())?)?;
    let unspecified = if address.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let endpoint = Endpoint::client(unspecified)?;
    let config = ClientConfig::new(Arc::new(crypto));
    let connection = endpoint.connect_with(config, address, tls::SERVER_NAME)?.await?;
    let (mut send, receive) = connection.open_bi().await?;
    *sent = true;
    send_value(&mut send, ask).await?;
    finish(send);
    let answer = FrameReader::new(receive, LIMIT_BYTES).value().await?;
    connection.close(code::DONE, b"");
    endpoint.wait_idle().await;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec, pki::PeerRole};

    #[test]
    fn newcomers_of_other_builds_are_understood() {
        let ask = Ask { secret: "s".into(), csr_pem: "c".into(), name: Some("n".into()) };
        assert_eq!(codec::encode(&ask).unwrap(), b"\x01s\x01c\x01\x01n");
        let answer = JoinAnswer {
            certificate_pem: "c".into(),
            authority_pem: "a".into(),
            name: "n".into(),
            role: PeerRole::Guest { scope: "s".into() },
            cluster: "w".into(),
            number: 70,
            peers: vec![("p".into(), SocketAddr::from(([127, 0, 0, 1], 300)), true)],
        };
        let answers: [Result<JoinAnswer, Refusal>; 2] = [Ok(answer), Err(Refusal::new("no"))];
        let golden: [&[u8]; 2] = [
            b"\x00\x01c\x01a\x01n\x02\x01s\x01wF\x01\x01p\x00\x7f\x00\x00\x01\xfb\x2c\x01\x01",
            b"\x01\x02no",
        ];
        for (answer, golden) in answers.iter().zip(golden) {
            assert_eq!(codec::encode(answer).unwrap(), golden);
            assert_eq!(&codec::decode::<Result<JoinAnswer, Refusal>>(golden).unwrap(), answer);
        }
    }
}
