//! The SDK example.
fn main() {}
