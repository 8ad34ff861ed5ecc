//! The query of a request: percent-decoded names and values, in the order they were sent.
//!
//! Decoding never fails: a broken escape stays as it is, and bytes that are not UTF-8 are replaced,
//! so that what is refused later is refused by meaning and with the value in the message.

/// The decoded query parameters of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes the part of a URI after `?`.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name, true), decode(value, true))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of a parameter, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether the parameter is there at all, even without a value.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(n, _)| n == name)
    }

    /// A switch: whatever stands there turns it on, except `0` and `false`.
    pub fn flag(&self, name: &str) -> bool {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Percent-decodes; `plus` also turns `+` into a space, as queries do and paths do not.
pub fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', _, _) if plus => {
                out.push(b' ');
                at += 1;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_found_by_name() {
        let query =
            Query::parse("labelSelector=app%3Dweb%2Ctier+in+(a)&watch=1&dryRun=All&empty=&bad=%zz");

        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert!(query.flag("watch"));
        assert_eq!(query.get("empty"), None);
        assert!(query.has("empty"));
        assert_eq!(query.get("bad"), Some("%zz"));
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All"]);
        for (text, on) in
            [("watch", true), ("watch=yes", true), ("watch=False", false), ("watch=0", false)]
        {
            assert_eq!(Query::parse(text).flag("watch"), on, "{text}");
        }
    }
}
