//! A word for a template of pods, by which what was made of it is told from what was made of others.

use serde_json::Value;

/// A word for a template (FNV-1a of 32 bits over its JSON), in letters that form no other word; another for each
/// number of `collisions`. It names; which template something has is told by the templates.
#[must_use]
pub fn hash(template: &Value, collisions: Option<i32>) -> String {
    const LETTERS: &[u8; 10] = b"bcdfghjklm";
    let text = format!("{template}{}", collisions.unwrap_or(0));
    let sum = text
        .bytes()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    sum.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit - b'0')])).collect()
}
