//! Every function that rules may call: CEL's own, the extended strings, and those of Kubernetes.
//!
//! What is not in the table does not exist: a rule that names it is refused when it is compiled.
//! Missing of what Kubernetes has: `semver`, `authorizer`, times in a named time zone.

mod amounts;
mod base;
mod lists;
mod network;
mod strings;
mod times;

use super::function::Function;

/// The function of a name.
pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}

fn all() -> impl Iterator<Item = &'static Function> {
    [
        base::FUNCTIONS,
        strings::FUNCTIONS,
        lists::FUNCTIONS,
        times::FUNCTIONS,
        amounts::FUNCTIONS,
        network::FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::function::Signature;
    use std::collections::HashSet;

    #[test]
    fn every_row_of_the_table_is_whole() {
        let mut names = HashSet::new();
        for function in all() {
            assert!(names.insert(function.name), "{} is there twice", function.name);
            assert!(!function.signatures.is_empty());
            for signature in function.signatures {
                assert!(Signature::parse(signature).is_some(), "{} {signature}", function.name);
            }
        }
    }
}
