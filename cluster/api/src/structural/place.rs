//! Where a value stands, kept on the stack while a document is walked and spelt only when something
//! is wrong with it.

use std::fmt;

/// A field, an entry, or the document itself.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// Where the walk began; empty for an object itself, which is printed as clients know it.
    Root(&'a str),
    /// A field of an object.
    Field(&'a Place<'a>, &'a str),
    /// An entry of a list.
    Index(&'a Place<'a>, usize),
    /// An entry of a map.
    Key(&'a Place<'a>, &'a str),
}

impl<'a> Place<'a> {
    /// A field of this.
    pub fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    /// An entry of this list.
    pub fn index(&'a self, at: usize) -> Self {
        Self::Index(self, at)
    }

    /// An entry of this map.
    pub fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    /// The path without a word for the root: how messages name the place.
    pub fn bare(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Root(text) => out.push_str(text),
            Self::Field(parent, name) => {
                parent.write(out);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Self::Index(parent, at) => {
                parent.write(out);
                out.push('[');
                out.push_str(&at.to_string());
                out.push(']');
            }
            Self::Key(parent, key) => {
                parent.write(out);
                out.push('[');
                out.push_str(key);
                out.push(']');
            }
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.bare();
        f.write_str(if text.is_empty() { "<nil>" } else { &text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_spelt_as_clients_know_it() {
        let root = Place::Root("");
        let spec = root.field("spec");
        let list = spec.field("list");
        let entry = list.index(2);
        assert_eq!(root.to_string(), "<nil>");
        assert_eq!(entry.key("a").field("b").to_string(), "spec.list[2][a].b");
    }
}
