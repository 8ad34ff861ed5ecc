//! What a definition may be called: nothing by which another kind of its group is known.

use super::desk::{Desk, PAGE};
use impresario_api::catalog::served;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a definition may not be called, by what others of its group are known as of every write that was acknowledged
/// before: only who holds the shard accepts names, so none is accepted twice.
pub(super) async fn taken(desk: &Desk<'_>, definition: &Value) -> Result<Taken, Status> {
    let group = text(definition, "/spec/group");
    let (name, ending) = (text(definition, "/metadata/name"), format!(".{group}"));
    let mut taken = Taken::by_program(group);
    let (mut after, mut is_first) = (None, true);
    while is_first || after.is_some() {
        let (entries, behind) = desk.page(&desk.kind, after, PAGE).await?;
        (after, is_first) = (behind, false);
        for entry in entries {
            // The name is the plural and the group.
            if entry.key.name == name || !entry.key.name.ends_with(&ending) {
                continue;
            }
            let other: Value = serde_json::from_slice(&entry.value).map_err(Status::internal)?;
            if text(&other, "/spec/group") == group {
                taken.add(&other);
            }
        }
    }
    Ok(taken)
}

/// The names by which the kinds of a group are known already.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Those of the kinds of the program.
    pub(super) fn by_program(group: &str) -> Self {
        let mut taken = Self::default();
        for row in served().resources().iter().filter(|row| row.is_lasting() && row.group == group)
        {
            let names = [&row.plural, &row.singular].into_iter().chain(&row.short_names);
            taken.resources.extend(names.map(ToString::to_string));
            taken.kinds.extend([row.kind.to_string(), format!("{}List", row.kind)]);
        }
        taken
    }

    /// Those that another definition was given.
    pub(super) fn add(&mut self, definition: &Value) {
        let Some(names) = definition.pointer("/status/acceptedNames") else { return };
        if text(names, "/kind").is_empty() {
            return;
        }
        let some = |pointer: &str| Some(text(names, pointer)).filter(|name| !name.is_empty());
        let resources = [some("/plural"), some("/singular")].into_iter().flatten();
        self.resources.extend(resources.chain(short(names)).map(str::to_owned));
        let kinds = [some("/kind"), some("/listKind")].into_iter().flatten();
        self.kinds.extend(kinds.map(str::to_owned));
    }

    /// Why these names cannot be had: a word for programs, and one for people.
    pub(super) fn refuse(&self, names: &Value) -> Option<(&'static str, String)> {
        let words = [
            ("PluralConflict", vec![text(names, "/plural")], &self.resources),
            ("SingularConflict", vec![text(names, "/singular")], &self.resources),
            ("ShortNamesConflict", short(names).collect(), &self.resources),
            ("KindConflict", vec![text(names, "/kind")], &self.kinds),
            ("ListKindConflict", vec![text(names, "/listKind")], &self.kinds),
        ];
        words.into_iter().find_map(|(reason, wanted, taken)| {
            let name = wanted.into_iter().find(|name| taken.contains(*name))?;
            Some((reason, format!("{name:?} is already in use")))
        })
    }
}

fn short(names: &Value) -> impl Iterator<Item = &str> {
    let list = names.get("shortNames").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_is_had_by_one_kind_of_a_group() {
        let mut taken = Taken::by_program("batch");
        let names = |plural: &str, short: &str, kind: &str| {
            json!({"plural": plural, "singular": plural.trim_end_matches('s'), "shortNames": [short],
                "kind": kind, "listKind": format!("{kind}List")})
        };
        let mine = names("widgets", "wd", "Widget");
        taken.add(&json!({"status": {"acceptedNames": {"plural": "", "kind": ""}}}));
        assert_eq!(taken.refuse(&mine), None);
        taken.add(&json!({"status": {"acceptedNames": mine}}));
        for (plural, short, kind, reason) in [
            ("jobs", "x", "X", "PluralConflict"),
            ("wds", "x", "X", "SingularConflict"),
            ("xs", "widget", "X", "ShortNamesConflict"),
            ("xs", "x", "Job", "KindConflict"),
            ("xs", "x", "Widget", "KindConflict"),
        ] {
            let refused = taken.refuse(&names(plural, short, kind)).unwrap();
            assert_eq!(refused.0, reason);
        }
        let listed = json!({"plural": "xs", "kind": "X", "listKind": "Widget"});
        assert_eq!(
            taken.refuse(&listed),
            Some(("ListKindConflict", "\"Widget\" is already in use".to_owned()))
        );
        assert_eq!(taken.refuse(&names("xs", "x", "X")), None);
    }
}
