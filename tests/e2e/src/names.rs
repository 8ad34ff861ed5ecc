//! A question to a node's DNS server, as any resolver would ask it (RFC 1035, one A question).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The addresses of `name`, as the server at `server` knows them; none when there is no such name.
pub fn resolve(server: SocketAddr, name: &str) -> io::Result<Vec<Ipv4Addr>> {
    // An id, recursion wanted, one question.
    let mut question = vec![0x1D, 0x5E, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).map_err(io::Error::other)?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send_to(&question, server)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    addresses(&answer[..length], question.len()).ok_or_else(|| io::Error::other("a damaged answer"))
}

/// The A records of an answer whose header and question are `skip` bytes long.
fn addresses(answer: &[u8], skip: usize) -> Option<Vec<Ipv4Addr>> {
    let records = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut at = skip;
    let mut found = Vec::new();
    for _ in 0..records {
        // A name: labels, or a pointer to some.
        loop {
            let length = usize::from(*answer.get(at)?);
            at += if length >= 0xC0 { 2 } else { length + 1 };
            if length == 0 || length >= 0xC0 {
                break;
            }
        }
        let fixed = answer.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = answer.get(at + 10..at + 10 + length)?;
        if fixed[..2] == [0, 1] {
            found.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(found)
}
