//! Lists on their way out, made as they are read.
//!
//! What a client has not read yet is in the registry and not here: at most a piece of the answer and one object are
//! made ahead of it. An object that is shown as it is kept is
//! read for one thing alone: what its managers own, where that is not said in its bytes.

use crate::answer::{self, Body, PIECE, Paced};
use crate::budget::{self, Share};
use crate::busy::unread;
use crate::negotiate::{Encoding, Form, View};
use crate::shape;
use crate::turns::Turns;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::Response;
use impresario_api::managed::{told_of, told_of_bytes};
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_api::table::IncludeObject;
use impresario_api::wire;
use impresario_objects::{Item, Listing, spliced};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// After so many bytes of objects that were read, others have their turn.
const TURN_BYTES: usize = 256 * 1024;

/// How a list is shown.
#[derive(Debug, Clone)]
pub struct Format {
    /// What it is a list of.
    pub resource: Row,
    /// In which form.
    pub form: Form,
    /// Whether it is for human eyes.
    pub pretty: bool,
    /// What a table carries of each object.
    pub include: IncludeObject,
    /// What is told in place of each object that is listed.
    pub instead: Option<Instead>,
}

/// What is told in place of an object, if anything is.
#[derive(Clone)]
pub struct Instead(pub Arc<Told>);

/// Tells it of an object.
type Told = dyn Fn(&Value) -> Option<Value> + Send + Sync;

impl fmt::Debug for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instead")
    }
}

/// Answers with a list, a piece of which is made in its turn and within `limit`; `waiting` is a share of the bytes of
/// answers that wait to be read, with nothing in it yet.
pub async fn answer(
    listing: Listing,
    format: &Format,
    waiting: Share,
    turns: Turns,
    limit: Duration,
) -> Result<Response<Body>, Status> {
    let kind = match format.form.encoding {
        Encoding::Json => "application/json",
        Encoding::Yaml => "application/yaml",
    };
    let mut writing = Writing::begin(listing, format, waiting)?;
    // Until here a refusal can still be told as one.
    let first = turns.by_turns(writing.piece()).await?.unwrap_or_default();
    if writing.is_over() {
        return Ok(answer::bytes(200, kind, first));
    }
    let rest = stream::unfold((writing, turns), move |(mut writing, turns)| async move {
        let piece = tokio::time::timeout(limit, turns.by_turns(writing.piece())).await;
        let late = |_| Err(Status::timeout(format!("a piece was not made within {limit:?}")));
        match piece.unwrap_or_else(late) {
            Ok(piece) => piece.map(|piece| (Ok(piece), (writing, turns))),
            Err(status) => {
                // The list is cut where it is: it never looks like a whole one.
                tracing::warn!(%status, "a list was ended before its end");
                writing.fails();
                Some((Err(std::io::Error::other(status.message)), (writing, turns)))
            }
        }
    });
    let mut response = answer::stream(kind, stream::iter([Ok(first)]).chain(rest));
    response.extensions_mut().insert(Paced);
    Ok(response)
}

/// How the parts of a list are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Json,
    Pretty,
    Yaml,
}

struct Writing {
    listing: Listing,
    format: Format,
    style: Style,
    /// What is made and not given out.
    ready: VecDeque<Bytes>,
    /// Whether no item was written yet.
    empty: bool,
    ended: bool,
    waiting: Share,
    /// Bytes of what was read since others had their turn.
    read: usize,
}

impl Writing {
    fn begin(listing: Listing, format: &Format, waiting: Share) -> Result<Self, Status> {
        let style = match (format.form.encoding, format.pretty) {
            (Encoding::Yaml, _) => Style::Yaml,
            (Encoding::Json, true) => Style::Pretty,
            (Encoding::Json, false) => Style::Json,
        };
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), listing.revision().to_string().into());
        if let Some(token) = listing.token() {
            metadata.insert("continue".into(), token.into());
        }
        if let Some(remaining) = listing.remaining() {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        let (envelope, field) = shape::envelope(&format.resource, metadata, format.form.view);
        let head = head(&envelope.into(), field, style)?;
        Ok(Self {
            listing,
            format: format.clone(),
            style,
            ready: VecDeque::from([head]),
            empty: true,
            ended: false,
            waiting,
            read: 0,
        })
    }

    fn is_over(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    fn fails(&mut self) {
        self.ready.clear();
        self.ended = true;
    }

    /// The next bytes, at most a piece of them.
    async fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            if self.ready.is_empty() {
                self.waiting.shrink(0);
                if self.ended {
                    break;
                }
                self.more().await?;
            }
            answer::fill(&mut piece, &mut self.ready);
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    /// Makes one item more, or the end.
    async fn more(&mut self) -> Result<(), Status> {
        let Some(item) = self.listing.next().await? else {
            self.ended = true;
            self.ready.push_back(Bytes::from_static(tail(self.style, self.empty)));
            return Ok(());
        };
        self.read += item.entry.value.len();
        if self.read >= TURN_BYTES {
            self.read = 0;
            tokio::task::yield_now().await;
        }
        let Some(pieces) = self.write(item)? else { return Ok(()) };
        let yaml = self.style == Style::Yaml;
        let before = if yaml && self.empty {
            "\n"
        } else if !yaml && !self.empty {
            ","
        } else {
            ""
        };
        self.empty = false;
        self.ready.push_back(Bytes::from_static(before.as_bytes()));
        self.ready.extend(pieces);
        Ok(())
    }

    /// An item as it is sent; `None` for what cannot be read, or of which nothing is told.
    fn write(&mut self, item: Item) -> Result<Option<Vec<Bytes>>, Status> {
        let Format { resource, form, include, instead, .. } = &self.format;
        if instead.is_none()
            && self.style == Style::Json
            && form.view == View::Whole
            && resource.is_as_kept()
        {
            let told = match item.looked_at() {
                Some(object) => told_of(resource, object),
                None => told_of_bytes(resource, &item.entry.value),
            };
            let made = told.as_ref().map_or(0, Vec::len);
            if let Some(pieces) = spliced::item(&item.entry, told) {
                if made > budget::SMALL {
                    self.waiting.grow(made).map_err(unread)?;
                }
                return Ok(Some(pieces));
            }
        }
        let Some(mut object) = item.object() else { return Ok(None) };
        if let Some(Instead(told)) = instead {
            let Some(told) = told(&object) else { return Ok(None) };
            object = told;
        }
        let shown = shape::item(resource, object, form.view, *include);
        let text = match self.style {
            Style::Json => serde_json::to_vec(&shown).map_err(Status::internal)?,
            Style::Pretty => {
                let text = serde_json::to_string_pretty(&shown).map_err(Status::internal)?;
                // No string of JSON has a line break in it.
                format!("\n{text}").replace('\n', "\n    ").into_bytes()
            }
            Style::Yaml => yaml(&json!([shown]))?,
        };
        if text.len() > budget::SMALL {
            self.waiting.grow(text.len()).map_err(unread)?;
        }
        Ok(Some(vec![text.into()]))
    }
}

fn yaml(value: &Value) -> Result<Vec<u8>, Status> {
    wire::encode(wire::YAML, value).ok_or_else(|| Status::internal("the answer is no YAML"))
}

/// A list up to its first item.
fn head(envelope: &Value, field: &str, style: Style) -> Result<Bytes, Status> {
    let text = match style {
        Style::Json => serde_json::to_string(envelope).map_err(Status::internal)?,
        Style::Pretty => serde_json::to_string_pretty(envelope).map_err(Status::internal)?,
        Style::Yaml => {
            let mut text = yaml(envelope)?;
            text.extend_from_slice(field.as_bytes());
            text.push(b':');
            return Ok(text.into());
        }
    };
    let open = text.strip_suffix('}').unwrap_or(&text).trim_end();
    Ok(match style {
        Style::Pretty => format!("{open},\n  \"{field}\": ["),
        _ => format!("{open},\"{field}\":["),
    }
    .into())
}

/// A list behind its last item.
fn tail(style: Style, empty: bool) -> &'static [u8] {
    match (style, empty) {
        (Style::Json, _) => b"]}\n",
        (Style::Pretty, true) => b"]\n}\n",
        (Style::Pretty, false) => b"\n  ]\n}\n",
        (Style::Yaml, true) => b" []\n",
        (Style::Yaml, false) => b"",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::budget::{Budgets, Holder};
    use crate::limits::Limits;
    use futures_util::FutureExt as _;
    use impresario_api::catalog::find;
    use impresario_objects::{ListQuery, Reader};
    use impresario_registry::MemoryRegistry;
    use impresario_registry_api::{Key, Operation, Registry as _, Transaction};
    use std::sync::Arc;

    const KINDS: [(View, &str); 3] =
        [(View::Whole, "items"), (View::Metadata("v1"), "items"), (View::Table("v1beta1"), "rows")];

    async fn put(registry: &MemoryRegistry, name: &str, text: &str) {
        let key = Key::new("configmaps", "default", name);
        let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": text}});
        let put = Operation::Put { key, value: serde_json::to_vec(&value).unwrap().into() };
        let written = Transaction { operations: vec![put], ..Transaction::default() };
        registry.transact(written).await.unwrap();
    }

    async fn pieces(registry: &MemoryRegistry, format: &Format) -> Vec<Bytes> {
        let budgets = Budgets::of(&Limits::default());
        let reader = Reader::new(Arc::new(registry.clone()));
        let unread = Box::new(budgets.unread(&Holder::named("a")));
        let listing =
            reader.listing(&format.resource, &ListQuery::default(), Some(unread)).await.unwrap();
        let mut writing =
            Writing::begin(listing, format, budgets.answers.share(&Holder::named("a"))).unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = writing.piece().await.unwrap() {
            pieces.push(piece);
        }
        pieces
    }

    #[tokio::test]
    async fn a_list_is_in_every_form_what_it_would_be_made_at_once() {
        let resource = &find("", "v1", "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        for count in [0, 1, 3] {
            for number in 0..count {
                put(&registry, &format!("a{number}"), "x: \"}]\n- y").await;
            }
            let listed = Reader::new(Arc::new(registry.clone()))
                .list(resource, &ListQuery::default())
                .await
                .unwrap();
            let metadata = json!({"resourceVersion": listed.revision.to_string()});
            let metadata = metadata.as_object().unwrap();
            for (view, field) in KINDS {
                let include = IncludeObject::Object;
                let whole =
                    shape::list(resource, listed.items.clone(), metadata.clone(), view, include);
                assert_eq!(whole[field].as_array().unwrap().len(), count);
                for (encoding, pretty) in
                    [(Encoding::Json, false), (Encoding::Json, true), (Encoding::Yaml, false)]
                {
                    let form = Form { view, encoding };
                    let format = Format {
                        resource: Row::clone(resource),
                        form,
                        pretty,
                        include,
                        instead: None,
                    };
                    let text = pieces(&registry, &format).await.concat();
                    let told: Value = match encoding {
                        Encoding::Json => serde_json::from_slice(&text).unwrap(),
                        Encoding::Yaml => wire::parse(wire::YAML, &text).unwrap(),
                    };
                    assert_eq!(told, whole, "{}", String::from_utf8_lossy(&text));
                    if pretty {
                        let mut wanted = serde_json::to_string_pretty(&whole).unwrap();
                        wanted.push('\n');
                        assert_eq!(text.len(), wanted.len(), "the same but for the order");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn what_a_list_holds_for_a_reader_is_a_piece_and_not_the_list() {
        let resource = &find("", "v1", "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        let text = "x".repeat(250_000);
        for number in 0..20 {
            put(&registry, &format!("a{number}"), &text).await;
        }
        let form = Form { view: View::Whole, encoding: Encoding::Json };
        let format = Format {
            resource: Row::clone(resource),
            form,
            pretty: false,
            include: IncludeObject::Metadata,
            instead: None,
        };
        let pieces = pieces(&registry, &format).await;
        assert!(pieces.len() > 20 * 250_000 / PIECE && pieces.iter().all(|one| one.len() <= PIECE));
        let told: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(told["items"].as_array().unwrap().len(), 20);
        assert_eq!(
            told["items"][19]["metadata"]["resourceVersion"].as_str().map(str::is_empty),
            Some(false)
        );
    }

    #[tokio::test]
    async fn a_table_of_large_objects_leaves_others_their_turn() {
        let resource = &find("", "v1", "configmaps").unwrap();
        let registry = MemoryRegistry::new();
        for number in 0..10 {
            put(&registry, &format!("a{number}"), &"x".repeat(TURN_BYTES / 4)).await;
        }
        let form = Form { view: View::Table("v1"), encoding: Encoding::Json };
        let format = Format {
            resource: Row::clone(resource),
            form,
            pretty: false,
            include: IncludeObject::Metadata,
            instead: None,
        };
        let reader = Reader::new(Arc::new(registry));
        let listing = reader.listing(resource, &ListQuery::default(), None).await.unwrap();
        let share = Budgets::of(&Limits::default()).answers.share(&Holder::named("a"));
        let mut writing = Writing::begin(listing, &format, share).unwrap();
        let mut piece = Box::pin(writing.piece());
        assert!(piece.as_mut().now_or_never().is_none(), "all of it was made at once");
        let told: Value = serde_json::from_slice(&piece.await.unwrap().unwrap()).unwrap();
        assert_eq!(told["rows"].as_array().unwrap().len(), 10);
    }
}
