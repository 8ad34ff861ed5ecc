//! What every message of the API looks like: fields, protobuf numbers, list and patch strategies.
//!
//! One table (`data/messages.tsv`) feeds the decoder, the protobuf transcoder, strategic merge
//! patch and the OpenAPI documents, so that they cannot disagree. It is parsed once, on first
//! use, into a compact index that borrows all its text from the binary.
//!
//! Message names are dotted as in OpenAPI without `io.k8s.` (`api.core.v1.Pod`); messages of our
//! own live under `dev.impresario.`. A field that Go embeds (`Probe.handler`) is marked inline:
//! in JSON its fields belong to the parent, in protobuf they form a message.

use std::sync::OnceLock;

static TABLE: &str = include_str!("../data/messages.tsv");

/// Where a message stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u16);

/// One message: a Kubernetes type, or a part of one.
#[derive(Debug)]
pub struct Message {
    /// The dotted name, `api.core.v1.PodSpec`.
    pub name: &'static str,
    /// How its JSON form looks.
    pub shape: Shape,
    /// Server-side apply owns it as a whole.
    pub atomic: bool,
    /// The fields in order of their protobuf numbers, inline ones included as themselves.
    pub fields: Vec<Field>,
}

/// The JSON form of a message: an object of its fields, or something that only Go knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An object with the fields of the message.
    Object,
    /// An RFC 3339 time with seconds.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// A quantity such as `100m` or `1Gi`.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// Any JSON object, carried in protobuf as its bytes.
    Raw,
    /// Any JSON value, carried in protobuf as its bytes.
    Json,
    /// A list of strings under a name of its own.
    Strings,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of schemas.
    SchemaOrArray,
    /// A schema or a list of strings.
    SchemaOrStrings,
}

/// The type of a field's single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// UTF-8 text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// True or false.
    Bool,
    /// A 64-bit float.
    Double,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Another message.
    Message(MessageId),
}

/// How many values a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// None or one.
    Single,
    /// A list.
    Repeated,
    /// A map from strings.
    Map,
}

/// What server-side apply takes as the unit of ownership in a list or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// Not stated.
    Default,
    /// The whole is one value.
    Atomic,
    /// A list that holds each value once.
    Set,
    /// A list whose entries are told apart by keys.
    Map,
    /// A map whose entries are owned one by one.
    Granular,
}

/// What a strategic merge patch does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Objects are replaced, not merged.
    pub replace: bool,
    /// Clients send `$retainKeys` with a change.
    pub retain_keys: bool,
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// The name in JSON.
    pub name: &'static str,
    /// The protobuf field number.
    pub number: u32,
    /// The type of one value.
    pub kind: FieldType,
    /// One value, a list or a map.
    pub cardinality: Cardinality,
    /// OpenAPI calls it required.
    pub required: bool,
    /// In JSON its fields stand in the parent.
    pub inline: bool,
    /// Go cannot tell zero from absent here, so zero is not written.
    pub zero_is_absent: bool,
    /// List type or map type.
    pub structure: Structure,
    /// Patch strategy.
    pub patch: PatchStrategy,
    /// The merge key of a merged list, or nothing.
    pub merge_key: &'static str,
    map_keys: &'static str,
    values: &'static str,
}

impl Field {
    /// The keys that tell the entries of a `map` list apart.
    pub fn map_keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.map_keys.split(',').filter(|key| !key.is_empty())
    }

    /// The closed set of values, where there is one (an empty string can be one of them).
    pub fn values(&self) -> Option<impl Iterator<Item = &'static str> + use<>> {
        (!self.values.is_empty()).then(|| self.values.split(','))
    }

    /// The message of a value, for fields that hold messages.
    pub fn message(&self) -> Option<&'static Message> {
        match self.kind {
            FieldType::Message(id) => Some(get(id)),
            _ => None,
        }
    }
}

impl Message {
    /// The field that this JSON name stands for, looked for in inline messages too.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let this = self.pinned();
        this.fields.iter().find(|field| !field.inline && field.name == name).or_else(|| {
            this.fields
                .iter()
                .filter(|field| field.inline)
                .find_map(|field| field.message()?.field(name))
        })
    }

    /// The field with this protobuf number.
    pub fn numbered(&self, number: u32) -> Option<&'static Field> {
        self.pinned().fields.iter().find(|field| field.number == number)
    }

    /// All fields as JSON sees them: those of inline messages in place of the inline field.
    pub fn json_fields(&self) -> Vec<&'static Field> {
        let mut all = Vec::new();
        for field in &self.pinned().fields {
            match field.message() {
                Some(embedded) if field.inline => all.extend(embedded.json_fields()),
                _ => all.push(field),
            }
        }
        all
    }

    /// The last part of the name, as Go calls the type: `PodSpec`.
    pub fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The last part of the package, as Go calls it: `v1`.
    pub fn go_package(&self) -> &'static str {
        self.name.rsplit('.').nth(1).unwrap_or_default()
    }

    /// Whether JSON objects of this type may say their `kind` and `apiVersion`.
    pub fn is_kind(&self) -> bool {
        let metadata = self.field("metadata").and_then(Field::message).map_or("", Message::go_name);
        let holds = metadata == "ObjectMeta"
            && !self.name.ends_with("TemplateSpec")
            && !self.name.ends_with("VolumeClaimTemplate");
        holds
            || metadata == "ListMeta"
            || self.go_name().ends_with("Options")
            || KINDS_WITHOUT_METADATA.contains(&self.go_name())
    }

    /// Every message is part of the one static index; this finds the lasting reference to it.
    fn pinned(&self) -> &'static Message {
        message(self.name).unwrap_or_else(|| &index()[0])
    }
}

const KINDS_WITHOUT_METADATA: [&str; 8] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "AdmissionReview",
    "ConversionReview",
    "WatchEvent",
    "DeleteOptions",
];

/// The message of this dotted name.
pub fn message(name: &str) -> Option<&'static Message> {
    let messages = index();
    messages.binary_search_by(|message| message.name.cmp(name)).ok().map(|at| &messages[at])
}

/// The message behind an id.
pub fn get(id: MessageId) -> &'static Message {
    &index()[usize::from(id.0)]
}

/// All messages, by name.
pub fn messages() -> &'static [Message] {
    index()
}

/// The message of a kind; kinds of the API machinery are found under every group and version.
pub fn for_kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    let own = match group {
        "" => format!("api.core.{version}.{kind}"),
        "apiregistration.k8s.io" => {
            format!("kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
        }
        "apiextensions.k8s.io" => {
            format!("apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "metrics.k8s.io" => format!("metrics.pkg.apis.metrics.{version}.{kind}"),
        _ if group.ends_with(".impresario.dev") => {
            format!("dev.impresario.{}.{version}.{kind}", group.trim_end_matches(".impresario.dev"))
        }
        // Groups of Kubernetes have one word, or its domain; `batch.example.com` is somebody else's.
        _ if !group.contains('.') || group.ends_with(".k8s.io") => {
            format!("api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group))
        }
        _ => String::new(),
    };
    message(&own).or_else(|| {
        MACHINERY
            .contains(&kind)
            .then(|| message(&format!("apimachinery.pkg.apis.meta.v1.{kind}")))
            .flatten()
    })
}

/// Kinds that every group version knows.
const MACHINERY: [&str; 10] = [
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "GetOptions",
    "ListOptions",
    "Status",
    "WatchEvent",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
];

fn index() -> &'static [Message] {
    static INDEX: OnceLock<Vec<Message>> = OnceLock::new();
    INDEX.get_or_init(|| parse(TABLE))
}

fn parse(table: &'static str) -> Vec<Message> {
    let mut names: Vec<&'static str> =
        table.lines().filter_map(|line| line.strip_prefix('=')).map(|line| cell(line, 0)).collect();
    names.sort_unstable();
    let mut messages: Vec<Message> = Vec::with_capacity(names.len());
    for line in table.lines() {
        if let Some(head) = line.strip_prefix('=') {
            let name = cell(head, 0);
            messages.push(Message {
                name,
                shape: shape(name),
                atomic: cell(head, 1) == "atomic",
                fields: Vec::new(),
            });
        } else if let Some(message) = messages.last_mut() {
            message.fields.push(field(line, &names));
        }
    }
    for message in &mut messages {
        message.fields.shrink_to_fit();
    }
    messages.sort_by_key(|message| message.name);
    messages
}

fn cell(line: &'static str, at: usize) -> &'static str {
    line.split('\t').nth(at).unwrap_or_default()
}

fn field(line: &'static str, names: &[&'static str]) -> Field {
    let flags = cell(line, 4);
    let strategies = cell(line, 7);
    Field {
        number: cell(line, 0).parse().unwrap_or_default(),
        name: cell(line, 1),
        kind: match cell(line, 2) {
            "string" => FieldType::String,
            "int32" => FieldType::Int32,
            "int64" => FieldType::Int64,
            "bool" => FieldType::Bool,
            "double" => FieldType::Double,
            "bytes" => FieldType::Bytes,
            other => FieldType::Message(MessageId(
                names.binary_search(&other).unwrap_or_default() as u16
            )),
        },
        cardinality: match cell(line, 3) {
            "r" => Cardinality::Repeated,
            "m" => Cardinality::Map,
            _ => Cardinality::Single,
        },
        required: flags.contains('r'),
        inline: flags.contains('i'),
        zero_is_absent: flags.contains('z'),
        structure: match cell(line, 5) {
            "atomic" => Structure::Atomic,
            "set" => Structure::Set,
            "map" => Structure::Map,
            "granular" => Structure::Granular,
            _ => Structure::Default,
        },
        map_keys: cell(line, 6),
        patch: PatchStrategy {
            merge: strategies.contains("merge"),
            replace: strategies.contains("replace"),
            retain_keys: strategies.contains("retainKeys"),
        },
        merge_key: cell(line, 8),
        values: cell(line, 9),
    }
}

fn shape(name: &str) -> Shape {
    let (package, short) = name.rsplit_once('.').unwrap_or(("", name));
    match (package, short) {
        ("apimachinery.pkg.apis.meta.v1", "Time") => Shape::Time,
        ("apimachinery.pkg.apis.meta.v1", "MicroTime") => Shape::MicroTime,
        ("apimachinery.pkg.apis.meta.v1", "FieldsV1")
        | ("apimachinery.pkg.runtime", "RawExtension") => Shape::Raw,
        ("apimachinery.pkg.api.resource", "Quantity" | "QuantityValue") => Shape::Quantity,
        ("apimachinery.pkg.util.intstr", "IntOrString") => Shape::IntOrString,
        (_, "ExtraValue") | ("apimachinery.pkg.apis.meta.v1", "Verbs") => Shape::Strings,
        ("apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSON") => Shape::Json,
        ("apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSONSchemaPropsOrBool") => {
            Shape::SchemaOrBool
        }
        ("apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSONSchemaPropsOrArray") => {
            Shape::SchemaOrArray
        }
        ("apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSONSchemaPropsOrStringArray") => {
            Shape::SchemaOrStrings
        }
        _ => Shape::Object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_whole() {
        for line in TABLE.lines().filter(|line| !line.starts_with('=')) {
            assert!(
                cell(line, 0).parse::<u32>().is_ok_and(|number| number > 0),
                "number in {line:?}"
            );
            let kind = cell(line, 2);
            let scalar = ["string", "int32", "int64", "bool", "double", "bytes"].contains(&kind);
            assert!(scalar || message(kind).is_some(), "type in {line:?}");
        }
        for message in messages() {
            let mut numbers: Vec<_> = message.fields.iter().map(|field| field.number).collect();
            numbers.dedup();
            assert_eq!(numbers.len(), message.fields.len(), "numbers of {}", message.name);
            for field in message.json_fields() {
                assert!(
                    !(field.patch.merge && field.cardinality == Cardinality::Single),
                    "{}.{}",
                    message.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn fields_of_embedded_messages_are_found_under_their_parent() {
        let volume = message("api.core.v1.Volume").unwrap();
        assert_eq!(
            volume.field("emptyDir").unwrap().message().unwrap().go_name(),
            "EmptyDirVolumeSource"
        );
        assert!(volume.field("volumeSource").is_none());
        let debug = message("api.core.v1.EphemeralContainer").unwrap();
        assert_eq!(debug.field("env").unwrap().merge_key, "name");
    }

    #[test]
    fn kinds_are_found_by_group_version_and_name() {
        let table = [
            ("", "v1", "Pod", "api.core.v1.Pod"),
            ("batch", "v1", "Job", "api.batch.v1.Job"),
            ("rbac.authorization.k8s.io", "v1", "Role", "api.rbac.v1.Role"),
            ("batch", "v1", "DeleteOptions", "apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            (
                "training.impresario.dev",
                "v1",
                "TrainingJob",
                "dev.impresario.training.v1.TrainingJob",
            ),
        ];
        for (group, version, kind, name) in table {
            assert_eq!(for_kind(group, version, kind).unwrap().name, name);
            assert!(for_kind(group, version, kind).unwrap().is_kind());
        }
        assert!(for_kind("", "v1", "Nonsense").is_none());
        assert!(for_kind("batch.example.com", "v1", "Job").is_none());
        assert!(!message("api.core.v1.PodSpec").unwrap().is_kind());
    }

    #[test]
    fn the_keys_of_lists_are_known() {
        let ports = message("api.core.v1.Container").unwrap().field("ports").unwrap();
        assert_eq!(ports.map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
        assert_eq!((ports.merge_key, ports.patch.merge), ("containerPort", true));
        let policy = message("api.core.v1.PodSpec").unwrap().field("restartPolicy").unwrap();
        assert_eq!(policy.values().unwrap().collect::<Vec<_>>(), ["Always", "Never", "OnFailure"]);
    }
}
