//! Which form of an answer a client wants, from its `Accept` header.
//!
//! The list is ordered, by quality values first, and the first form that we have wins; what has a
//! quality of zero is not wanted. No header, or an empty one, is JSON.

/// How an object is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The object itself.
    Whole,
    /// A `meta.k8s.io` Table of this version.
    Table(&'static str),
    /// Metadata only, of this version of `meta.k8s.io`.
    Metadata(&'static str),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// A form that we can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// How the object is shown.
    pub view: View,
    /// How it is written.
    pub encoding: Encoding,
}

/// One element of an `Accept` header: the media type and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media<'a> {
    /// For example `application/json`.
    pub kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    /// Reads a header value into its elements, the most wanted first.
    pub fn list(header: &'a str) -> Vec<Self> {
        let elements = header.split(',').filter_map(|element| {
            let mut parts = element.split(';').map(str::trim);
            let kind = parts.next().filter(|kind| !kind.is_empty())?;
            let parameters = parts.filter_map(|part| part.split_once('=')).collect();
            Some(Self { kind, parameters })
        });
        let mut all: Vec<Self> = elements.filter(|element| element.quality() > 0).collect();
        all.sort_by_key(|element| std::cmp::Reverse(element.quality()));
        all
    }

    /// How much it is wanted, in thousandths; what cannot be read is wanted as if nothing were said.
    fn quality(&self) -> u32 {
        let said = self.parameter("q").and_then(|text| text.parse::<f64>().ok());
        let said = said.filter(|quality| (0.0..=1.0).contains(quality));
        said.map_or(1_000, |quality| (quality * 1_000.0).round() as u32)
    }

    /// The value of a parameter such as `as`.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let found = self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim_matches('"'))
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.kind {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
}

/// The first form that we have; `None` is a 406.
pub fn form(accept: Option<&str>, list: bool) -> Option<Form> {
    let media = Media::list(accept.unwrap_or_default());
    if accept.unwrap_or_default().trim().is_empty() {
        return Some(Form { view: View::Whole, encoding: Encoding::Json });
    }
    media.iter().find_map(|media| {
        let encoding = media.encoding()?;
        let version = match media.parameter("v") {
            Some("v1beta1") => "v1beta1",
            Some("v1") | None => "v1",
            Some(_) => return None,
        };
        let view = match media.parameter("as") {
            None => View::Whole,
            Some("Table") => View::Table(version),
            Some("PartialObjectMetadata") if !list => View::Metadata(version),
            Some("PartialObjectMetadataList") if list => View::Metadata(version),
            Some(_) => return None,
        };
        if view != View::Whole && media.parameter("g").is_some_and(|group| group != "meta.k8s.io") {
            return None;
        }
        Some(Form { view, encoding })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_we_have_wins() {
        let table = [
            (None, false, Some(View::Whole)),
            (
                Some("application/vnd.kubernetes.protobuf,application/json"),
                false,
                Some(View::Whole),
            ),
            (
                Some(
                    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                ),
                true,
                Some(View::Table("v1")),
            ),
            (
                Some("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"),
                true,
                Some(View::Whole),
            ),
            (
                Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
                false,
                Some(View::Metadata("v1")),
            ),
            (
                Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, */*"),
                true,
                Some(View::Metadata("v1")),
            ),
            (Some("text/html, */*;q=0.1"), false, Some(View::Whole)),
            (
                Some("application/json;q=0.5,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9"),
                true,
                Some(View::Table("v1")),
            ),
            (Some("application/json;q=0"), false, None),
            (Some("application/vnd.kubernetes.protobuf"), false, None),
        ];
        for (accept, list, view) in table {
            assert_eq!(form(accept, list).map(|form| form.view), view, "{accept:?}");
        }
    }
}
