//! The zone: what is answered for a name. No IO.

use hickory_server::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, PTR, SOA, SRV},
    },
};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    str::FromStr,
};

/// How long an answer may be kept. Short: endpoints come and go.
const TTL_S: u32 = 5;

/// A service and what its names stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its virtual addresses; none when it is headless.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<NamedPort>,
    /// Its ready endpoints (all of them, when it publishes those that are not).
    pub endpoints: Vec<EndpointName>,
    /// The name that it stands for, when it is of the external kind.
    pub external_name: Option<String>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name; one without has no SRV record.
    pub name: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its number.
    pub port: u16,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointName {
    /// Its address.
    pub address: IpAddr,
    /// Its name within the service, when it has one.
    pub hostname: Option<String>,
}

/// What is sent back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    pub(super) additional: Vec<Record>,
    pub(super) soa: Option<Record>,
}

impl Answer {
    pub(super) fn code(code: ResponseCode) -> Self {
        Self { code, records: vec![], additional: vec![], soa: None }
    }
}

/// All records, by lower-case name with its final dot.
#[derive(Debug)]
pub(super) struct Zone {
    domain: Name,
    /// With the final dot.
    suffix: String,
    records: HashMap<String, Vec<Record>>,
    /// Names that are there only because longer ones are.
    above: HashSet<String>,
    serial: u32,
}

impl Zone {
    pub(super) fn new(domain: &str) -> Option<Self> {
        let suffix = format!("{}.", domain.trim_matches('.').to_ascii_lowercase());
        let domain = Name::from_str(&suffix).ok().filter(|_| suffix.len() > 1)?;
        let (records, above) = Default::default();
        Some(Self { domain, suffix, records, above, serial: 0 }.with(&[]))
    }

    /// The zone with these services in place of all others.
    pub(super) fn with(&self, services: &[ServiceName]) -> Self {
        let mut zone = Self {
            domain: self.domain.clone(),
            suffix: self.suffix.clone(),
            records: HashMap::new(),
            above: HashSet::new(),
            serial: self.serial.wrapping_add(1),
        };
        zone.above.insert(zone.suffix.clone());
        zone.above.insert(format!("svc.{}", zone.suffix));
        let version = format!("dns-version.{}", zone.suffix);
        let text = hickory_server::proto::rr::rdata::TXT::new(vec!["1.1.0".into()]);
        zone.add(&version, RData::TXT(text));
        for service in services {
            zone.add_service(service);
        }
        zone
    }

    fn add_service(&mut self, service: &ServiceName) {
        let base = format!("{}.{}.svc.{}", service.name, service.namespace, self.suffix);
        self.above.insert(base.to_ascii_lowercase()); // there, even with nothing behind it
        if let Some(target) = &service.external_name {
            if let Ok(target) = Name::from_str(&format!("{}.", target.trim_end_matches('.'))) {
                self.add(&base, RData::CNAME(CNAME(target)));
            }
            return;
        }
        let headless = service.addresses.is_empty();
        for address in &service.addresses {
            self.add(&base, address_data(*address));
            self.add_reverse(*address, &base);
        }
        let mut targets = if headless { vec![] } else { vec![base.clone()] };
        for endpoint in &service.endpoints {
            let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(endpoint.address));
            let name = format!("{label}.{base}");
            if headless {
                self.add(&base, address_data(endpoint.address));
                targets.push(name.clone());
            }
            self.add(&name, address_data(endpoint.address));
            if endpoint.hostname.is_some() {
                self.add_reverse(endpoint.address, &name);
            }
        }
        targets.dedup();
        for port in &service.ports {
            let Some(label) = &port.name else { continue };
            let name = format!("_{label}._{}.{base}", port.protocol.to_ascii_lowercase());
            for target in &targets {
                if let Ok(target) = Name::from_str(target) {
                    self.add(&name, RData::SRV(SRV::new(0, 100, port.port, target)));
                }
            }
        }
    }

    fn add(&mut self, name: &str, data: RData) {
        let name = name.to_ascii_lowercase();
        // A name that is none (an underscore in a host name, a label too long) has no record.
        let Ok(owner) = Name::from_str(&name) else { return };
        let mut rest = name.as_str();
        while let Some((_, up)) = rest.split_once('.') {
            if !up.ends_with(&self.suffix) {
                break;
            }
            self.above.insert(up.to_owned());
            rest = up;
        }
        let records = self.records.entry(name).or_default();
        let record = Record::from_rdata(owner, TTL_S, data);
        if !records.contains(&record) {
            records.push(record);
        }
    }

    fn add_reverse(&mut self, address: IpAddr, target: &str) {
        if let Ok(target) = Name::from_str(&target.to_ascii_lowercase()) {
            self.add(&Name::from(address).to_string(), RData::PTR(PTR(target)));
        }
    }

    pub(super) fn answer(&self, name: &str, kind: RecordType) -> Answer {
        let mut name = name.to_ascii_lowercase();
        if !name.ends_with('.') {
            name.push('.');
        }
        let ours = name == self.suffix || name.ends_with(&format!(".{}", self.suffix));
        let found = self.records.get(&name);
        if !ours && found.is_none() {
            return Answer::code(ResponseCode::Refused);
        }
        if name == self.suffix && kind == RecordType::SOA {
            return Answer { records: vec![self.soa()], ..Answer::code(ResponseCode::NoError) };
        }
        let fits = |record: &&Record| {
            let found = record.record_type();
            kind == RecordType::ANY || found == kind || found == RecordType::CNAME
        };
        let records: Vec<_> = found.into_iter().flatten().filter(fits).cloned().collect();
        if records.is_empty() {
            let exists = found.is_some() || self.above.contains(&name);
            let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            return Answer { soa: Some(self.soa()), ..Answer::code(code) };
        }
        let additional = records.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => self.records.get(&srv.target.to_string()),
            _ => None,
        });
        let additional = additional.flatten().cloned().collect();
        Answer { records, additional, ..Answer::code(ResponseCode::NoError) }
    }

    fn soa(&self) -> Record {
        let at = |label: &str| self.domain.prepend_label(label).unwrap_or(self.domain.clone());
        let soa = SOA::new(at("ns.dns"), at("hostmaster"), self.serial, 7200, 1800, 86_400, TTL_S);
        Record::from_rdata(self.domain.clone(), TTL_S, RData::SOA(soa))
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The label of an endpoint without a name of its own.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let endpoint = |last, hostname: Option<&str>| EndpointName {
            address: [127, 20, 1, last].into(),
            hostname: hostname.map(str::to_owned),
        };
        let port =
            |name: &str| NamedPort { name: Some(name.into()), protocol: "TCP".into(), port: 80 };
        let service = |name: &str, addresses: Vec<IpAddr>, endpoints| ServiceName {
            name: name.into(),
            namespace: "default".into(),
            addresses,
            ports: vec![port("http")],
            endpoints,
            external_name: None,
        };
        let mut external = service("away", vec![], vec![]);
        external.external_name = Some("example.org".into());
        Zone::new("cluster.local").unwrap().with(&[
            service("web", vec![[127, 96, 0, 9].into()], vec![endpoint(5, None)]),
            service("db", vec![], vec![endpoint(6, Some("db-0")), endpoint(7, None)]),
            service("empty", vec![], vec![]),
            external,
        ])
    }

    #[test]
    fn names_are_answered_as_the_specification_says() {
        let table = "
            name                                   | type | answer
            web.default.svc.cluster.local          | A    | 127.96.0.9
            WEB.Default.svc.Cluster.local.         | A    | 127.96.0.9
            web.default.svc.cluster.local          | AAAA | empty
            db.default.svc.cluster.local           | A    | 127.20.1.6 127.20.1.7
            db-0.db.default.svc.cluster.local      | A    | 127.20.1.6
            127-20-1-7.db.default.svc.cluster.local | A   | 127.20.1.7
            _http._tcp.web.default.svc.cluster.local | SRV | 0 100 80 web.default.svc.cluster.local.
            away.default.svc.cluster.local         | A    | example.org.
            9.0.96.127.in-addr.arpa                | PTR  | web.default.svc.cluster.local.
            6.1.20.127.in-addr.arpa                | PTR  | db-0.db.default.svc.cluster.local.
            empty.default.svc.cluster.local        | A    | empty
            default.svc.cluster.local              | A    | empty
            none.default.svc.cluster.local         | A    | no such name
            web.other.svc.cluster.local            | A    | no such name
            example.org                            | A    | refused
            1.1.1.1.in-addr.arpa                   | PTR  | refused";
        let zone = zone();
        for row in table.lines().skip(2) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let kind = RecordType::from_str(cells[1]).unwrap();
            let answer = zone.answer(cells[0], kind);
            let mut found: Vec<_> = answer.records.iter().map(|r| r.data.to_string()).collect();
            found.sort();
            let said = match answer.code {
                ResponseCode::NXDomain => "no such name".to_owned(),
                ResponseCode::Refused => "refused".to_owned(),
                _ if found.is_empty() => "empty".to_owned(),
                _ => found.join(" "),
            };
            assert_eq!(said, cells[2], "in row {row}");
            let negative = matches!(said.as_str(), "empty" | "no such name");
            assert_eq!(answer.soa.is_some(), negative, "in row {row}");
        }
    }
}
