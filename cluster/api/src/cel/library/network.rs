//! Addresses, networks and URLs.

use crate::cel::fault::{Budget, Fault, beginning, failed};
use crate::cel::function::{Function, no_overload};
use crate::cel::value::{Cidr, Url, Value as V};
use std::net::IpAddr;
use std::sync::Arc;

pub static FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        signatures: &["(string) ip", ".(cidr) ip"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => address(text).map(V::Ip).ok_or_else(|| {
                failed(format!(
                    "IP Address {:?} parse error during conversion from string",
                    beginning(text)
                ))
            }),
            [V::Cidr(cidr)] => Ok(V::Ip(cidr.address)),
            _ => no_overload("ip", arguments),
        },
    },
    Function {
        name: "isIP",
        signatures: &["(string) bool"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => Ok(V::Bool(address(text).is_some())),
            _ => no_overload("isIP", arguments),
        },
    },
    Function {
        name: "ip.isCanonical",
        signatures: &["(string) bool"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => match address(text) {
                Some(ip) => Ok(V::Bool(ip.to_string() == **text)),
                None => Err(failed(format!(
                    "IP Address {:?} parse error during conversion from string",
                    beginning(text)
                ))),
            },
            _ => no_overload("ip.isCanonical", arguments),
        },
    },
    FAMILY,
    Function {
        name: "isUnspecified",
        signatures: &[".(ip) bool"],
        run: |_, a| ip_test("isUnspecified", a, |ip| ip.is_unspecified()),
    },
    Function {
        name: "isLoopback",
        signatures: &[".(ip) bool"],
        run: |_, a| ip_test("isLoopback", a, |ip| ip.is_loopback()),
    },
    Function {
        name: "isLinkLocalMulticast",
        signatures: &[".(ip) bool"],
        run: |_, a| {
            ip_test("isLinkLocalMulticast", a, |ip| match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
                IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0x0f == 2,
            })
        },
    },
    Function {
        name: "isLinkLocalUnicast",
        signatures: &[".(ip) bool"],
        run: |_, a| ip_test("isLinkLocalUnicast", a, is_link_local),
    },
    Function {
        name: "isGlobalUnicast",
        signatures: &[".(ip) bool"],
        run: |_, a| {
            ip_test("isGlobalUnicast", a, |ip| {
                let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
                !broadcast
                    && !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_multicast()
                    && !is_link_local(ip)
            })
        },
    },
    Function {
        name: "cidr",
        signatures: &["(string) cidr"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => network(text).map(V::Cidr).ok_or_else(|| {
                failed(format!(
                    "network address parse error during conversion from string: {:?}",
                    beginning(text)
                ))
            }),
            _ => no_overload("cidr", arguments),
        },
    },
    Function {
        name: "isCIDR",
        signatures: &["(string) bool"],
        run: |_, arguments| match arguments {
            [V::Text(text)] => Ok(V::Bool(network(text).is_some())),
            _ => no_overload("isCIDR", arguments),
        },
    },
    Function {
        name: "containsIP",
        signatures: &[".(cidr, ip) bool", ".(cidr, string) bool"],
        run: |_, arguments| match arguments {
            [V::Cidr(cidr), V::Ip(ip)] => Ok(V::Bool(contains(*cidr, *ip, full(*ip)))),
            [V::Cidr(cidr), V::Text(text)] => match address(text) {
                Some(ip) => Ok(V::Bool(contains(*cidr, ip, full(ip)))),
                None => Err(failed(format!(
                    "IP Address {:?} parse error during conversion from string",
                    beginning(text)
                ))),
            },
            _ => no_overload("containsIP", arguments),
        },
    },
    Function {
        name: "containsCIDR",
        signatures: &[".(cidr, cidr) bool", ".(cidr, string) bool"],
        run: |_, arguments| match arguments {
            [V::Cidr(cidr), V::Cidr(other)] => {
                Ok(V::Bool(contains(*cidr, other.address, other.bits)))
            }
            [V::Cidr(cidr), V::Text(text)] => match network(text) {
                Some(other) => Ok(V::Bool(contains(*cidr, other.address, other.bits))),
                None => Err(failed(format!(
                    "network address parse error during conversion from string: {:?}",
                    beginning(text)
                ))),
            },
            _ => no_overload("containsCIDR", arguments),
        },
    },
    Function {
        name: "masked",
        signatures: &[".(cidr) cidr"],
        run: |_, arguments| match arguments {
            [V::Cidr(cidr)] => {
                Ok(V::Cidr(Cidr { address: masked(cidr.address, cidr.bits), bits: cidr.bits }))
            }
            _ => no_overload("masked", arguments),
        },
    },
    Function {
        name: "prefixLength",
        signatures: &[".(cidr) int"],
        run: |_, arguments| match arguments {
            [V::Cidr(cidr)] => Ok(V::Int(cidr.bits.into())),
            _ => no_overload("prefixLength", arguments),
        },
    },
    Function {
        name: "url",
        signatures: &["(string) url"],
        run: |budget, arguments| match arguments {
            [V::Text(text)] => {
                // The text as a whole, and once more in parts.
                budget.spend_bytes(text.len().saturating_mul(2))?;
                parse_url(text).map(|url| V::Url(Arc::new(url))).ok_or_else(|| {
                    failed(format!(
                        "URL parse error during conversion from string: {:?}",
                        beginning(text)
                    ))
                })
            }
            _ => no_overload("url", arguments),
        },
    },
    Function {
        name: "isURL",
        signatures: &["(string) bool"],
        run: |budget, arguments| match arguments {
            [V::Text(text)] => {
                budget.spend_bytes(text.len().saturating_mul(2))?;
                Ok(V::Bool(parse_url(text).is_some()))
            }
            _ => no_overload("isURL", arguments),
        },
    },
    Function {
        name: "getScheme",
        signatures: &[".(url) string"],
        run: |b, a| url_part("getScheme", b, a, |url| url.scheme.clone()),
    },
    Function {
        name: "getHost",
        signatures: &[".(url) string"],
        run: |b, a| url_part("getHost", b, a, |url| url.host.clone()),
    },
    Function {
        name: "getHostname",
        signatures: &[".(url) string"],
        run: |b, a| {
            url_part("getHostname", b, a, |url| {
                host_and_port(&url.host).0.trim_matches(['[', ']']).to_owned()
            })
        },
    },
    Function {
        name: "getPort",
        signatures: &[".(url) string"],
        run: |b, a| url_part("getPort", b, a, |url| host_and_port(&url.host).1.to_owned()),
    },
    Function {
        name: "getEscapedPath",
        signatures: &[".(url) string"],
        run: |b, a| url_part("getEscapedPath", b, a, |url| url.path.clone()),
    },
];

const FAMILY: Function = Function {
    name: "family",
    signatures: &[".(ip) int"],
    run: |_, arguments| match arguments {
        [V::Ip(IpAddr::V4(_))] => Ok(V::Int(4)),
        [V::Ip(IpAddr::V6(_))] => Ok(V::Int(6)),
        _ => no_overload("family", arguments),
    },
};

fn ip_test<'a>(name: &str, arguments: &[V<'a>], holds: fn(IpAddr) -> bool) -> Result<V<'a>, Fault> {
    match arguments {
        [V::Ip(ip)] => Ok(V::Bool(holds(*ip))),
        _ => no_overload(name, arguments),
    }
}

fn url_part<'a>(
    name: &str,
    budget: &mut Budget,
    arguments: &[V<'a>],
    part: fn(&Url) -> String,
) -> Result<V<'a>, Fault> {
    match arguments {
        [V::Url(url)] => {
            budget.spend_bytes(url.text.len())?;
            Ok(V::text(part(url)))
        }
        _ => no_overload(name, arguments),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// An address without a zone, and not an IPv4 one in the clothes of IPv6.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()))
}

fn network(text: &str) -> Option<Cidr> {
    let (ip, bits) = text.split_once('/')?;
    let digits = !bits.is_empty() && bits.bytes().all(|c| c.is_ascii_digit());
    let (address, bits) = (address(ip)?, bits.parse().ok().filter(|_| digits)?);
    (bits <= full(address)).then_some(Cidr { address, bits })
}

fn full(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

fn contains(cidr: Cidr, ip: IpAddr, bits: u8) -> bool {
    cidr.address.is_ipv4() == ip.is_ipv4()
        && cidr.bits <= bits
        && masked(cidr.address, cidr.bits) == masked(ip, cidr.bits)
}

fn host_and_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

/// An absolute URL, or an absolute path.
fn parse_url(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let mut url = Url { text: text.to_owned(), ..Url::default() };
    let mut rest = text;
    if !text.starts_with('/') {
        let (scheme, after) = text.split_once(':')?;
        let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        let fits = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !begins || !fits {
            return None;
        }
        url.scheme = scheme.to_ascii_lowercase();
        rest = after;
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    query.clone_into(&mut url.query);
    if let Some(authority) = before.strip_prefix("//") {
        let end = authority.find('/').unwrap_or(authority.len());
        let host = authority[..end].rsplit('@').next().unwrap_or_default();
        if !host_and_port(host).1.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        host.clone_into(&mut url.host);
        authority[end..].clone_into(&mut url.path);
    } else {
        before.clone_into(&mut url.path);
    }
    Some(url)
}
