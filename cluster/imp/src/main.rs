//! The `imp` binary.
fn main() {}
