//! A word for a template of pods, by which what was made of it is told from what was made of others.

use serde_json::Value;

/// Bytes of a name (RFC 1123 subdomains, as Kubernetes takes them).
const LONGEST: usize = 253;

/// What something that is made of a template is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The name: what it is made for, cut where that is long, and the word.
    pub name: String,
    /// The word. Which template something has is told by the templates.
    pub hash: String,
    /// How often a name had to be drawn anew so far.
    pub collisions: Option<i32>,
}

/// Draws a name for what is made `of` a template, anew as long as it is taken.
#[must_use]
pub fn drawn(
    of: &str,
    template: &Value,
    mut collisions: Option<i32>,
    is_taken: impl Fn(&str) -> bool,
) -> Drawn {
    let text = template.to_string();
    loop {
        let hash = hash(&text, collisions.unwrap_or(0));
        let room = LONGEST - 1 - hash.len();
        let of = of.get(..room).map_or(of, |cut| cut.trim_end_matches(['-', '.']));
        let name = format!("{of}-{hash}");
        if !is_taken(&name) {
            return Drawn { name, hash, collisions };
        }
        collisions = Some(collisions.unwrap_or(0).saturating_add(1));
    }
}

/// A word for a template (FNV-1a of 32 bits over its JSON), in letters that form no other word; another for each
/// number of `collisions`.
fn hash(template: &str, collisions: i32) -> String {
    const LETTERS: &[u8; 10] = b"bcdfghjklm";
    let sum = template
        .bytes()
        .chain(collisions.to_string().bytes())
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    sum.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit - b'0')])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_is_drawn_anew_as_long_as_it_is_taken_and_stays_from_version_to_version() {
        let template = json!({"spec": {"containers": [{"image": "i"}]}});
        let first = drawn("web", &template, None, |_| false);
        assert_eq!((first.name.as_str(), first.collisions), ("web-clbchbkfbb", None));
        let second = drawn("web", &template, None, |name| name == first.name);
        assert_eq!((second.name.as_str(), second.collisions), ("web-clcldlgmcm", Some(1)));
        assert_eq!(second.name, format!("web-{}", second.hash));
        assert_eq!(drawn("web", &template, Some(1), |_| false), second);
    }

    #[test]
    fn a_long_name_is_cut_so_that_what_is_made_has_a_name_that_can_be_had() {
        let template = json!({});
        for of in ["x".repeat(253), format!("{}.{}", "x".repeat(241), "y".repeat(11))] {
            let drawn = drawn(&of, &template, None, |_| false);
            assert!(drawn.name.len() <= 253 && drawn.name.starts_with("xxx"), "{}", drawn.name);
            assert!(drawn.name.ends_with(&format!("x-{}", drawn.hash)), "{}", drawn.name);
        }
    }
}
