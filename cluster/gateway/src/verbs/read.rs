//! Reading one object, or a collection.

use super::show;
use crate::answer::{self, Body};
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::listed::{self, Format, Instead};
use crate::options;
use hyper::Response;
use impresario_api::resource::Row;
use impresario_api::status::{Reason, Status};
use impresario_objects::fresh_token;
use impresario_registry_api::Consistency;

/// One object. `resourceVersion=0` allows an older state of it.
pub async fn get(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let any = call.call.query.get("resourceVersion") == Some("0");
    let consistency = if any { Consistency::Local } else { Consistency::Linearizable };
    let path = &call.path;
    let object = gateway
        .objects()
        .get_with(&call.resource, &path.namespace, &path.name, consistency)
        .await?;
    show(call, 200, object)
}

/// A collection.
pub async fn list(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    list_of(gateway, call, &call.resource, None).await
}

/// A collection of `listed`, of each object of which something else is told, where it is.
pub(super) async fn list_of(
    gateway: &Gateway,
    call: &ResourceCall,
    listed: &Row,
    instead: Option<Instead>,
) -> Result<Response<Body>, Status> {
    let form = call.call.form(true)?;
    let query = options::list(&call.resource, &call.path.namespace, &call.call.query)?;
    let unread = Box::new(gateway.unread(&call.call));
    let listing = gateway.objects().listing(listed, &query, unread);
    let turns = gateway.turns(&call.call);
    let listing = match turns.by_turns(listing).await {
        Ok(listing) => listing,
        Err(status) if status.reason == Reason::Expired && query.token.is_some() => {
            return Ok(expired(&status, query.token.as_deref(), call.call.pretty()));
        }
        Err(status) => return Err(status),
    };
    let format = Format {
        resource: Row::clone(&call.resource),
        form,
        pretty: call.call.pretty(),
        include: call.call.include()?,
        instead,
    };
    let waiting = gateway.waiting(&call.call);
    listed::answer(listing, &format, waiting, turns, gateway.limits().answer).await
}

/// The state of a page's list is no longer kept: the answer has a token to go on without it.
fn expired(status: &Status, token: Option<&str>, pretty: bool) -> Response<Body> {
    let mut told = status.clone();
    told.message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                    new list without the continue parameter, or use the continue token in this response to retrieve \
                    the remainder of the results. Continuing with the provided token results in an inconsistent list \
                    - objects that were created, modified, or deleted between the time the first chunk was returned \
                    and now may show up in the list."
        .into();
    let mut value = told.to_value();
    if let Some(fresh) = token.and_then(fresh_token) {
        value["metadata"]["continue"] = fresh.into();
    }
    answer::refusal(&told, &value, pretty)
}
