//! What becomes of definitions: names are accepted, what is served is said, and what goes is emptied first.

use super::desk::{Desk, holds, said};
use super::ending::Endings;
use super::follow::{Definitions, Followed};
use super::names::taken;
use crate::Objects;
use impresario_api::catalog::find;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use impresario_runtime::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::fmt;
use tokio::sync::Mutex;

/// How long after its names were accepted a kind is established, where other members are to serve it too: they follow
/// within moments, and nobody is asked. Kubernetes waits likewise. The time is kept in whole seconds.
const OTHERS_FOLLOW: SignedDuration = SignedDuration::from_secs(3);

/// Looks after all definitions, by right of the shard whose fence its objects have.
pub struct Settler {
    objects: Objects,
    definitions: Definitions,
    is_alone: Box<dyn Fn() -> bool + Send + Sync>,
    endings: Mutex<Endings>,
}

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl Settler {
    /// `is_alone` tells whether this member is the only one that serves kinds.
    pub fn new(
        objects: Objects,
        definitions: Definitions,
        is_alone: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { objects, definitions, is_alone: Box::new(is_alone), endings: Mutex::default() }
    }

    /// Looks at all definitions once. What could be done was done when it gives an error, which is the first. Gives when
    /// to look again although nothing changes.
    pub async fn settle(&self) -> Result<Option<Timestamp>, Status> {
        let kind = find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .ok_or_else(Status::no_such_path)?;
        let desk = Desk { objects: &self.objects, kind };
        let (mut next, mut first) = (None, None);
        let goes = |one: &Followed| !text(&one.object, "/metadata/deletionTimestamp").is_empty();
        let (going, staying): (Vec<_>, Vec<_>) = self.definitions.all().into_iter().partition(goes);
        // Before any deletion, which may take its time.
        for followed in staying {
            match self.name_and_establish(&desk, &followed).await {
                Ok(again) => next = next.into_iter().chain(again).min(),
                // Gone, or changed: it is told of.
                Err(status) if status.is_superseded() => {}
                Err(status) if status.is_fenced() => return Err(status),
                Err(status) => first = first.or(Some(status)),
            }
        }
        match self.endings.lock().await.go_on(&desk, going).await {
            Ok(again) => next = next.into_iter().chain(again).min(),
            Err(status) if status.is_fenced() => return Err(status),
            Err(status) => first = first.or(Some(status)),
        }
        first.map_or(Ok(next), Err)
    }

    async fn name_and_establish(
        &self,
        desk: &Desk<'_>,
        followed: &Followed,
    ) -> Result<Option<Timestamp>, Status> {
        let object = &*followed.object;
        let wanted = object.pointer("/spec/names").unwrap_or(&Value::Null);
        let accepted = object.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
        if wanted != accepted || !holds(object, "NamesAccepted") {
            let refused = taken(desk, object).await?.refuse(wanted);
            match refused {
                None => {
                    let said = ("NamesAccepted", true, "NoConflicts", "no conflicts found");
                    desk.say(object, &[said], Some(wanted)).await?;
                }
                Some((reason, why)) => {
                    let mut said = vec![("NamesAccepted", false, reason, why.as_str())];
                    if !holds(object, "Established") {
                        let why = "not all names are accepted";
                        said.push(("Established", false, "NotAccepted", why));
                    }
                    desk.say(object, &said, None).await?;
                }
            }
            return Ok(None);
        }
        if holds(object, "Established") {
            return Ok(None);
        }
        match (&followed.row, &followed.fault) {
            (Some(_), None) => {
                let now = clock::timestamp();
                let others_follow = established_from(object, now).filter(|_| !(self.is_alone)());
                if others_follow.is_some() {
                    return Ok(others_follow);
                }
                let why = "the initial names have been accepted";
                desk.say(object, &[("Established", true, "InitialNamesAccepted", why)], None)
                    .await?;
            }
            (_, Some(why)) => {
                desk.say(object, &[("Established", false, "NotServed", why)], None).await?;
            }
            (None, None) => {}
        }
        Ok(None)
    }
}

/// From when on other members serve a kind; none if they do by now. A clock that is ahead elsewhere delays nothing.
fn established_from(definition: &Value, now: Timestamp) -> Option<Timestamp> {
    let accepted = text(said(definition, "NamesAccepted")?, "/lastTransitionTime");
    let from = accepted.parse::<Timestamp>().ok()?.checked_add(OTHERS_FOLLOW).ok()?;
    let latest = now.checked_add(OTHERS_FOLLOW).ok()?;
    (now < from && from <= latest).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kind_is_established_when_other_members_have_had_the_time_to_follow() {
        let definition = json!({"status": {"conditions": [
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}});
        let at = |second: i64| Timestamp::new(1_767_225_600 + second, 0).unwrap();
        let from = |second| established_from(&definition, at(second));
        assert_eq!((from(10), from(12)), (Some(at(13)), Some(at(13))));
        assert_eq!((from(13), from(1000)), (None, None));
        assert_eq!(from(0), None, "the clock that said so is ahead");
    }
}
