//! The commands of kubectl, in the versions that users have.

mod reading;
mod writing;

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
