//! What a write has to pass: the webhooks that may change it, then those that may refuse it.

use super::caller::post;
use super::hook::{Hook, Verdict};
use super::known::{Entry, Turn, Webhooks};
use super::places::Full;
use super::review::{Answer, answer, question};
use crate::Objects;
use crate::admission::Asked;
use crate::incoming::decoded;
use futures_util::future::join_all;
use impresario_api::patch::json_patch;
use impresario_api::resource::Row;
use impresario_api::status::Status;
use impresario_client::objects::stored::text;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long all webhooks together have that may change an object: each has its own time, and they take turns.
const TOGETHER: Duration = Duration::from_secs(40);

/// One of the turns of a write.
struct Round<'a> {
    hooks: &'a Webhooks,
    turn: Turn,
    asked: Asked<'a>,
    request: Value,
    old: &'a Value,
    /// Where the row of what is written is: the kind of what comes out.
    row: &'a Row,
}

/// Why a webhook gave no answer.
enum Unasked {
    /// It did not answer, or nothing that is an answer.
    Failed(String),
    /// It was not asked, and that is no fault of it: nobody goes on without it for that.
    Busy,
}

impl Objects {
    /// Whether webhooks that may change it may ask to be told of this.
    pub(crate) fn is_told(&self, asked: Asked<'_>) -> bool {
        let hooks = self.webhooks.as_ref();
        hooks.is_some_and(|hooks| hooks.may_be_told(Turn::Mutating, &asked))
    }

    /// The object as webhooks leave it; as it was where none asks to be told.
    pub(crate) async fn mutated(
        &self,
        row: &Row,
        asked: Asked<'_>,
        object: Value,
        old: &Value,
    ) -> Result<Value, Status> {
        let Some(hooks) = &self.webhooks else { return Ok(object) };
        let told = known(hooks, Turn::Mutating, &asked).await?;
        if told.is_empty() {
            return Ok(object);
        }
        let turn = Turn::Mutating;
        let round = Round { hooks, turn, asked, request: asked.request(), old, row };
        let changed = timeout(TOGETHER, self.mutate(&round, &told, object)).await;
        changed.unwrap_or_else(|_| {
            Err(Status::timeout("the mutating webhooks did not all answer in time: try again"))
        })
    }

    /// Refuses what a webhook refuses.
    pub(crate) async fn validated(
        &self,
        row: &Row,
        asked: Asked<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<(), Status> {
        let Some(hooks) = &self.webhooks else { return Ok(()) };
        let told = known(hooks, Turn::Validating, &asked).await?;
        if told.is_empty() {
            return Ok(());
        }
        let turn = Turn::Validating;
        let round = Round { hooks, turn, asked, request: asked.request(), old, row };
        let calls = told.iter().map(|entry| self.call(&round, entry, object));
        let answers = join_all(calls).await;
        let mut first = Ok(());
        for answer in answers {
            match answer {
                Ok(Some(answer)) => {
                    round.asked.options.told.add(answer.warnings);
                    first = first.and(answer.verdict);
                }
                Ok(None) => {}
                Err(status) => first = first.and(Err(status)),
            }
        }
        first
    }

    async fn mutate(
        &self,
        round: &Round<'_>,
        told: &[Arc<Entry>],
        mut object: Value,
    ) -> Result<Value, Status> {
        // The last one that changed it: those before it did not see that.
        let mut changed_by = None;
        for (at, entry) in told.iter().enumerate() {
            let changed = self.change_by(round, entry, &object).await?;
            if let Some(changed) = changed {
                (object, changed_by) = (changed, Some(at));
            }
        }
        let Some(last) = changed_by else { return Ok(object) };
        for entry in &told[..last] {
            if !entry.hook.as_ref().is_ok_and(|hook| hook.again) {
                continue;
            }
            if let Some(changed) = self.change_by(round, entry, &object).await? {
                object = changed;
            }
        }
        Ok(object)
    }

    /// What a webhook makes of an object; nothing where it leaves it as it is.
    async fn change_by(
        &self,
        round: &Round<'_>,
        entry: &Entry,
        object: &Value,
    ) -> Result<Option<Value>, Status> {
        let Some(answer) = self.call(round, entry, object).await? else { return Ok(None) };
        let Answer { verdict, patch, warnings } = answer;
        round.asked.options.told.add(warnings);
        verdict?;
        let Some(patch) = patch.filter(|patch| patch.as_array().is_none_or(|all| !all.is_empty()))
        else {
            return Ok(None);
        };
        let broken = |why: String| {
            tracing::warn!(webhook = entry.name, "its patch cannot be used: {why}");
            Status::internal(format!(
                "admission webhook {:?}: its patch cannot be used: {why}",
                entry.name
            ))
        };
        if object.is_null() {
            return Err(broken("there is no object in a deletion".to_owned()));
        }
        let changed = json_patch(object, patch).map_err(|error| broken(error.to_string()))?;
        let identity = ["/metadata/name", "/metadata/namespace", "/metadata/uid"];
        if let Some(of) = identity.iter().find(|of| text(object, of) != text(&changed, of)) {
            return Err(broken(format!("{of} may not be changed")));
        }
        let mut changed =
            decoded(round.row, changed).map_err(|status| broken(status.message))?.object;
        (round.row.rules.default)(&mut changed);
        Ok((changed != *object).then_some(changed))
    }

    /// Asks one webhook; nothing where it is not concerned, or is passed over because it cannot be reached.
    async fn call(
        &self,
        round: &Round<'_>,
        entry: &Entry,
        object: &Value,
    ) -> Result<Option<Answer>, Status> {
        let outcome = match &entry.hook {
            Err(why) => Err(why.clone()),
            Ok(hook) => match self.concerns(round, hook, object).await {
                Ok(Verdict::Spared) => return Ok(None),
                Ok(Verdict::Told) => {
                    if round.asked.options.dry_run && !hook.dry_runs {
                        let why =
                            format!("admission webhook {:?} does not support dry run", hook.name);
                        return Err(Status::bad_request(why));
                    }
                    match self.ask(round, entry, hook, object).await {
                        Err(Unasked::Busy) => return Err(busy(entry)),
                        Err(Unasked::Failed(why)) => Err(why),
                        Ok(answer) => Ok(answer),
                    }
                }
                Ok(Verdict::Fault(why)) => Err(format!("its condition {why}")),
                Err(why) => Err(why),
            },
        };
        match outcome {
            Ok(answer) => Ok(Some(answer)),
            Err(why) if entry.fails_open => {
                tracing::warn!(webhook = entry.name, kind = %round.asked.resource.kind, "passed over: {why}");
                Ok(None)
            }
            Err(why) => {
                tracing::warn!(webhook = entry.name, kind = %round.asked.resource.kind, "refused for: {why}");
                Err(Status::internal(format!("failed calling webhook {:?}: {why}", entry.name)))
            }
        }
    }

    async fn concerns(
        &self,
        round: &Round<'_>,
        hook: &Hook,
        object: &Value,
    ) -> Result<Verdict, String> {
        let either = [object, round.old].into_iter().filter(|object| !object.is_null());
        if !hook.objects.is_everything()
            && !either.into_iter().any(|one| hook.objects.matches_object(one))
        {
            return Ok(Verdict::Spared);
        }
        if !self.is_in(&hook.namespaces, &round.asked, object, round.old).await? {
            return Ok(Verdict::Spared);
        }
        Ok(hook.holds(object, round.old, &round.request))
    }

    async fn ask(
        &self,
        round: &Round<'_>,
        entry: &Entry,
        hook: &Hook,
        object: &Value,
    ) -> Result<Answer, Unasked> {
        let target = hook.target.as_ref().map_err(|why| Unasked::Failed(why.clone()))?;
        let failed = |why: &dyn std::fmt::Display| {
            let target = target.to_string();
            Unasked::Failed(format!("failed to call webhook: Post {target:?}: {why}"))
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let places = (&entry.places, round.hooks.places());
        let _place = places.0.take(places.1).await.map_err(|full| match full {
            Full::Hangs => failed(&"it does not answer what it was asked already"),
            Full::Busy => Unasked::Busy,
        })?;
        let body = question(hook.version, round.request.clone(), &uid, object, round.old);
        let body = serde_json::to_vec(&body).map_err(|error| failed(&error))?;
        let asked = timeout(hook.limit, post(&self.reads, target, body, places)).await;
        entry.places.note(matches!(asked, Ok(Ok(_))));
        let body = match asked {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(failed(&"context deadline exceeded")),
        };
        answer(&hook.name, &uid, &body.bytes, round.turn).map_err(Unasked::Failed)
    }
}

/// What is answered where too much is being asked.
fn busy(entry: &Entry) -> Status {
    let why = format!("too many questions to webhooks are under way, to {:?}, too", entry.name);
    Status::unavailable(format!("{why}: try again"), 1)
}

/// Those that ask to be told, when it is known which there are.
async fn known(hooks: &Webhooks, turn: Turn, asked: &Asked<'_>) -> Result<Vec<Arc<Entry>>, Status> {
    hooks.told(turn, asked).await.ok_or_else(|| {
        Status::unavailable("this member does not know yet which webhooks there are: try again", 1)
    })
}
