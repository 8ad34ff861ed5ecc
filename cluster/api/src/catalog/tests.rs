use super::*;
use crate::resource::{Verb, words};
use crate::rules::recorded_data::table;

fn verbs(verbs: &[Verb], separator: &str) -> String {
    verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(separator)
}

#[test]
fn every_row_says_what_a_kubernetes_server_says_in_discovery() {
    let recorded = table("resources.tsv");
    for row in
        Catalog::new().resources().iter().filter(|row| row.group != "training.impresario.dev")
    {
        let subresources: Vec<String> = row
            .subresources
            .iter()
            .map(|sub| format!("{}:{}:{}", sub.name, verbs(sub.verbs, "+"), sub.kind))
            .collect();
        let ours = [
            row.api_version(),
            row.plural.to_string(),
            row.singular.to_string(),
            row.kind.to_string(),
            row.short_names.join(","),
            row.categories.join(","),
            if row.namespaced { "Namespaced" } else { "Cluster" }.to_owned(),
            verbs(row.verbs, ","),
        ];
        // Of a kind in several versions one is recorded, which says the same of all.
        let kept = served().kept(row);
        let theirs = recorded
            .iter()
            .find(|cells| cells[0] == ours[0] && cells[1] == ours[1])
            .or_else(|| {
                recorded
                    .iter()
                    .find(|cells| cells[0] == kept.api_version() && cells[1] == kept.plural)
            })
            .unwrap_or_else(|| panic!("{} is not recorded", row.plural));
        assert_eq!(ours[1..], theirs[1..8]);
        for subresource in subresources {
            assert!(theirs[8].split(' ').any(|s| s == subresource), "{subresource}");
        }
    }
}

/// Recorded kinds that have yet to come: no other one may go missing.
const NOT_YET: [&str; 13] = [
    "clusterrolebindings",
    "clusterroles",
    "cronjobs",
    "localsubjectaccessreviews",
    "poddisruptionbudgets",
    "rolebindings",
    "roles",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "statefulsets",
    "subjectaccessreviews",
    "tokenreviews",
];

#[test]
fn every_recorded_kind_is_served() {
    let catalog = Catalog::new();
    for cells in table("resources.tsv") {
        let (group_version, plural) = (cells[0].as_str(), cells[1].as_str());
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        // Bindings are a door to pods, and no row.
        let served = plural == "bindings" || catalog.find(group, version, plural).is_some();
        assert!(served || NOT_YET.contains(&plural), "{group_version} {plural}");
    }
}

#[test]
fn every_table_has_the_columns_that_a_kubernetes_server_prints() {
    let recorded = table("columns.tsv");
    for row in
        Catalog::new().resources().iter().filter(|row| row.group != "training.impresario.dev")
    {
        let ours: Vec<Vec<String>> = row
            .columns
            .iter()
            .map(|c| {
                vec![
                    c.name.to_string(),
                    c.kind.to_string(),
                    c.format.to_string(),
                    c.priority.to_string(),
                ]
            })
            .collect();
        let of = |row: &Resource| -> Vec<Vec<String>> {
            let cells = recorded.iter();
            cells
                .filter(|cells| cells[0] == row.api_version() && cells[1] == row.plural)
                .map(|cells| cells[2..6].to_vec())
                .collect()
        };
        let own = of(row);
        let theirs = if own.is_empty() { of(&served().kept(row)) } else { own };
        assert_eq!(ours, theirs, "columns of {}", row.plural);
    }
}

#[test]
fn a_person_finds_a_resource_by_any_of_its_names() {
    for word in ["pods", "po", "Pod", "pod"] {
        assert_eq!(find_spoken(word).unwrap().plural, "pods", "{word}");
    }
    for word in ["jobs.batch", "job.v1.batch", "tj"] {
        assert!(find_spoken(word).is_some(), "{word}");
    }
    assert!(find_spoken("jobs.apps").is_none());
}

/// A kind that knows nothing and forbids nothing.
struct Anything;

impl crate::dynamic::DynamicSchema for Anything {
    fn default(&self, _: &mut Value) {}

    fn prune(&self, _: &mut Value) {}

    fn validate(&self, _: &Value, _: Option<&Value>) -> Vec<crate::cause::Cause> {
        Vec::new()
    }

    fn openapi(&self) -> Value {
        serde_json::json!({"type": "object"})
    }
}

fn row(group: &str, kind: &str, plural: &str) -> Resource {
    let names = [group, "v1", kind, plural, &kind.to_lowercase()].map(str::to_owned);
    Resource::of_schema(names, Arc::new(Anything))
}

#[test]
fn every_row_of_the_program_has_the_message_of_its_kind() {
    for row in Catalog::new().resources().iter() {
        let message = crate::schema::for_kind(&row.group, &row.version, &row.kind).unwrap();
        assert_eq!(row.schema.message().unwrap().name, message.name, "{}", row.plural);
    }
}

#[test]
fn a_kind_is_found_by_all_its_names_from_when_it_is_taken_until_it_is_dropped() {
    let catalog = Catalog::new();
    let before = catalog.generation();
    let taken = catalog.take(row("example.com", "Widget", "widgets")).unwrap();
    assert!(catalog.generation() > before);
    let object = serde_json::json!({"apiVersion": "example.com/v1", "kind": "Widget"});
    let found = [
        catalog.find("example.com", "v1", "widgets"),
        catalog.find_kind("example.com", "v1", "Widget"),
        catalog.find_key("example.com/widgets"),
        catalog.find_object(&object),
        catalog.find_spoken("widget"),
    ];
    assert!(found.iter().all(|row| Arc::ptr_eq(row.as_ref().unwrap(), &taken)));
    assert!(catalog.find("example.com", "v2", "widgets").is_none());
    assert!(catalog.find_key("pods").is_some() && catalog.find_key("/pods").is_none());
    assert!(catalog.is_served(&taken) && !taken.is_lasting());

    catalog.drop_row("example.com", "widgets").unwrap();
    assert!(!catalog.is_served(&taken));
    assert!(catalog.find_object(&object).is_none());
    let again = catalog.take(row("example.com", "Widget", "widgets")).unwrap();
    assert!(catalog.is_served(&again) && !catalog.is_served(&taken), "it is another of its name");
}

#[test]
fn names_that_another_row_has_are_refused_and_short_ones_belong_to_the_first() {
    let catalog = Catalog::new();
    catalog.take(row("example.com", "Widget", "widgets")).unwrap();
    let generation = catalog.generation();
    let refused = |row: Resource| catalog.take(row).unwrap_err();
    assert!(matches!(
        refused(row("example.com", "Gadget", "widgets")),
        CatalogError::PluralTaken { by, .. } if by == "Widget"
    ));
    assert!(matches!(
        refused(row("example.com", "Widget", "gadgets")),
        CatalogError::KindTaken { by, .. } if by == "widgets"
    ));
    assert!(matches!(refused(row("", "Other", "pods")), CatalogError::PluralTaken { .. }));
    let other = row("example.com", "Gadget", "widgets");
    assert!(matches!(catalog.replace(other), Err(CatalogError::OtherKind { .. })));
    assert!(matches!(catalog.drop_row("", "pods"), Err(CatalogError::BuiltIn { .. })));
    assert!(matches!(catalog.drop_row("", "unicorns"), Err(CatalogError::Unknown { .. })));
    assert_eq!(catalog.generation(), generation, "nothing changed");

    let short = Resource { short_names: words(["po"]), ..row("example.org", "Poem", "poems") };
    catalog.take(short).unwrap();
    assert_eq!(catalog.find_spoken("po").unwrap().plural, "pods");
    assert_eq!(catalog.find_spoken("po.example.org").unwrap().plural, "poems");
}

#[test]
fn no_more_kinds_are_taken_than_there_is_room_for() {
    let catalog = Catalog::new();
    let taken = |number| row("example.com", &format!("K{number}"), &format!("k{number}"));
    let rows = (0..MOST_TAKEN)
        .map(taken)
        .map(|row| Arc::new(Resource { incarnation: Incarnation(1), ..row }));
    *catalog.state.write() = Arc::new(State::of(rows.collect(), 1));
    assert_eq!(catalog.take(row("example.com", "Last", "lasts")).unwrap_err(), CatalogError::Full);
    catalog.drop_row("example.com", "k0").unwrap();
    catalog.take(row("example.com", "Last", "lasts")).unwrap();
}

#[test]
fn observers_are_told_of_each_change_in_its_order_until_they_go() {
    let catalog = Catalog::new();
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let observer = catalog.observe(move |change, generation| {
        let what = match change {
            Change::Taken(row) => format!("taken {}", row.plural),
            Change::Replaced(_, row) => format!("replaced {}", row.plural),
            Change::Dropped(row) => format!("dropped {}", row.plural),
        };
        telling.lock().push((what, generation));
    });
    catalog.take(row("example.com", "Widget", "widgets")).unwrap();
    catalog.replace(row("example.com", "Widget", "widgets")).unwrap();
    catalog.drop_row("example.com", "widgets").unwrap();
    drop(observer);
    catalog.take(row("example.com", "Widget", "widgets")).unwrap();
    let told = told.lock();
    let words: Vec<&str> = told.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(words, ["taken widgets", "replaced widgets", "dropped widgets"]);
    assert!(told.is_sorted_by_key(|(_, generation)| *generation));
}

#[test]
fn who_looks_up_while_kinds_come_and_go_sees_whole_states() {
    let catalog = Catalog::new();
    let own = catalog.resources().len();
    std::thread::scope(|scope| {
        for number in 0..2 {
            let catalog = &catalog;
            scope.spawn(move || {
                let (kind, plural) = (format!("K{number}"), format!("k{number}"));
                for _ in 0..200 {
                    let taken = catalog.take(row("example.com", &kind, &plural)).unwrap();
                    let found = catalog.find("example.com", "v1", &plural).unwrap();
                    assert!(Arc::ptr_eq(&taken, &found));
                    catalog.drop_row("example.com", &plural).unwrap();
                }
            });
            scope.spawn(move || {
                let mut last = 0;
                for _ in 0..2_000 {
                    let (rows, generation) = catalog.all();
                    assert!(generation >= last, "it never goes back");
                    last = generation;
                    assert!((own..=own + 2).contains(&rows.len()), "{}", rows.len());
                    assert!(catalog.find("", "v1", "pods").is_some());
                    if let Some(found) = catalog.find("example.com", "v1", "k0") {
                        assert_eq!(found.kind, "K0");
                    }
                }
            });
        }
    });
    assert_eq!(catalog.generation(), 2 * 2 * 200);
}
