//! What may be a name, a label, a key or a path segment.
//!
//! Each check returns one message per rule that is broken, none when the value is fine: a value
//! may break a length rule and a form rule at once, and both are told. The forms are those of
//! DNS (RFC 1123 and 1035) and of Kubernetes' qualified names.

/// Most characters of a DNS label.
pub const LABEL_MAX: usize = 63;
/// Most characters of a DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_FORM: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const UNDERSCORE_FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";
const LABEL_1035_FORM: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_FORM: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_FORM: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HTTP_HEADER_FORM: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// A check of this module.
pub type Check = fn(&str) -> Vec<String>;

fn lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().copied().is_some_and(lower_or_digit)
        && bytes.last().copied().is_some_and(lower_or_digit)
        && bytes.iter().all(|c| lower_or_digit(*c) || *c == b'-')
}

fn is_qualified_part(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn at_most(value: &str, max: usize, errors: &mut Vec<String>) {
    if value.len() > max {
        errors.push(format!("must be no more than {max} bytes"));
    }
}

/// What must hold of a name in any path.
pub fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ['/', '%']
            .iter()
            .filter(|c| name.contains(**c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    }
}

/// A DNS label of RFC 1123, as a namespace's name or a container's.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, LABEL_MAX, &mut errors);
    if !is_label(value) {
        errors.push(LABEL_FORM.to_owned());
    }
    errors
}

/// A DNS subdomain of RFC 1123, as a pod's name.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, SUBDOMAIN_MAX, &mut errors);
    if !value.split('.').all(is_label) {
        errors.push(SUBDOMAIN_FORM.to_owned());
    }
    errors
}

/// A DNS subdomain whose labels may have underscores, as domains to search may.
pub fn dns_subdomain_or_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, SUBDOMAIN_MAX, &mut errors);
    let is_label = |label: &str| {
        let edge = |c: Option<&u8>| c.is_some_and(|c| lower_or_digit(*c) || *c == b'_');
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|c| lower_or_digit(*c) || matches!(c, b'-' | b'_'))
    };
    if !value.split('.').all(is_label) {
        errors.push(UNDERSCORE_FORM.to_owned());
    }
    errors
}

/// A DNS label of RFC 1035, as a service's name.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, LABEL_MAX, &mut errors);
    if !(is_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        errors.push(LABEL_1035_FORM.to_owned());
    }
    errors
}

/// A name with an optional prefix, as a label's key: `example.org/my-key`.
pub fn qualified(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors
                    .extend(dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_part(name) {
        errors.push(format!("name part {QUALIFIED_FORM}"));
    }
    errors
}

/// A name whose prefix must be there, as `example.org/gpu`.
pub fn domain_prefixed(value: &str) -> Vec<String> {
    match value.split_once('/') {
        None => vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()],
        Some((prefix, path)) => {
            let mut errors: Vec<String> =
                dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")).collect();
            if path.is_empty() {
                errors.push("path part must be non-empty".to_owned());
            }
            errors
        }
    }
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, LABEL_MAX, &mut errors);
    if !value.is_empty() && !is_qualified_part(value) {
        errors.push(LABEL_VALUE_FORM.to_owned());
    }
    errors
}

/// The name of an environment variable.
pub fn env_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        Vec::new()
    } else {
        vec![ENV_FORM.to_owned()]
    }
}

/// A key of a config map or a secret, which becomes a file's name.
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    at_most(value, SUBDOMAIN_MAX, &mut errors);
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(fits) {
        errors.push(CONFIG_KEY_FORM.to_owned());
    }
    if value == "." {
        errors.push("must not be '.'".to_owned());
    } else if value == ".." {
        errors.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The name of a port: a service name of RFC 6335.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if !value.bytes().all(|c| lower_or_digit(c) || c == b'-') {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port's number.
pub fn port_number(value: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&value)).then_some("must be between 1 and 65535, inclusive")
}

/// The name of an HTTP header.
pub fn http_header(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        Vec::new()
    } else {
        vec![HTTP_HEADER_FORM.to_owned()]
    }
}

/// An address of either family, spelt canonically.
pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

/// An address with the length of its prefix, as `10.0.0.0/8`.
pub fn cidr(value: &str) -> Vec<String> {
    let fits = value.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    });
    if fits {
        Vec::new()
    } else {
        vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_takes_what_it_should_and_refuses_the_rest() {
        let long = "a".repeat(64);
        let rows: &[(Check, &str, usize)] = &[
            (dns_label, "a-1", 0),
            (dns_label, "", 1),
            (dns_label, "A", 1),
            (dns_label, "-a", 1),
            (dns_label, "a.b", 1),
            (dns_label, &long, 1),
            (dns_subdomain, "a.b-c.1", 0),
            (dns_subdomain, "a..b", 1),
            (dns_1035_label, "a1", 0),
            (dns_1035_label, "1a", 1),
            (dns_1035_label, "", 1),
            (qualified, "a", 0),
            (qualified, "example.org/My_Key.x", 0),
            (qualified, "", 2),
            (qualified, "a/b/c", 1),
            (qualified, "/b", 1),
            (qualified, "Ex/b", 1),
            (qualified, "a b", 1),
            (label_value, "", 0),
            (label_value, "a b", 1),
            (label_value, &long, 1),
            (env_name, "a.b c", 0),
            (env_name, "a=b", 1),
            (env_name, "", 1),
            (config_key, "a.b_C", 0),
            (config_key, "..a", 1),
            (config_key, "a/b", 1),
            (port_name, "http", 0),
            (port_name, "80", 1),
            (port_name, "a--b", 1),
            (ip, "::1", 0),
            (ip, "300.1.1.1", 1),
            (cidr, "10.0.0.0/8", 0),
            (cidr, "10.0.0.0/33", 1),
            (path_segment, "system:node", 0),
            (path_segment, "..", 1),
            (path_segment, "a/b%", 2),
        ];
        for (check, value, errors) in rows {
            assert_eq!(check(value).len(), *errors, "{value:?}: {:?}", check(value));
        }
    }
}
