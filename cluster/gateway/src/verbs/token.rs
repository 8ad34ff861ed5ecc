//! A new token of a service account, and whom a token stands for.

use super::write;
use crate::answer::{self, Body};
use crate::authenticate::{AuthenticateError, User, identify_for};
use crate::call::{ResourceCall, known, target_of};
use crate::gateway::Gateway;
use crate::invalid::{bad_value, invalid};
use crate::options;
use hyper::Response;
use impresario_api::kinds::reviews::AUTHENTICATION;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_objects::accounts::{BoundTo, ISSUER, Wanted};
use impresario_runtime::clock;
use serde_json::{Map, Value, json};

/// How long a token is good for whose asker does not say.
const USUAL_SECONDS: i64 = 3600;
/// What may be asked for.
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;
/// Most audiences of a token, and of a question about one.
const AUDIENCES: usize = 64;

/// Makes a token.
pub async fn create(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let accounts =
        gateway.accounts().ok_or_else(|| Status::method_not_allowed(&call.resource, "create"))?;
    // Nothing is written in any case; what is wrong with the options is said as ever.
    options::write("CreateOptions", &call.call)?;
    let validation = options::field_validation("CreateOptions", &call.call.query)?;
    let target = known(AUTHENTICATION, "v1", "TokenRequest")?;
    let mut decoded = call.call.decode(target, validation)?;
    let warnings = std::mem::take(&mut decoded.warnings);
    let mut request = decoded.object;
    let (namespace, name) = (call.path.namespace.as_str(), call.path.name.as_str());
    for (field, ours, what) in
        [("name", name, "name"), ("namespace", namespace, "namespace of the provided object")]
    {
        let said = request["metadata"][field].as_str().unwrap_or_default();
        if !["", ours].contains(&said) {
            return Err(Status::bad_request(format!(
                "the {what} ({said}) does not match the one on the URL ({ours})"
            )));
        }
    }
    let wanted = wanted(&request["spec"], name)?;
    let seconds = wanted.seconds;
    let issued = accounts.issue(namespace, name, wanted).await?;
    let metadata = json!({
        "name": name, "namespace": namespace, "creationTimestamp": seconds_of(clock::timestamp())
    });
    request["metadata"] = metadata;
    if !request["spec"].is_object() {
        request["spec"] = Value::Object(Map::new());
    }
    request["spec"]["audiences"] = json!(issued.audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] =
        json!({"token": issued.token, "expirationTimestamp": seconds_of(issued.expires)});
    let mut response = write(call, 201, &request, call.call.form(false)?.encoding)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// A time as objects have it, in whole seconds.
fn seconds_of(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn wanted(spec: &Value, name: &str) -> Result<Wanted, Status> {
    let mut causes = Vec::new();
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(USUAL_SECONDS);
    let why = match seconds {
        ..SHORTEST_SECONDS => Some("may not specify a duration less than 10 minutes"),
        SHORTEST_SECONDS..=LONGEST_SECONDS => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    causes.extend(why.map(|why| bad_value("spec.expirationSeconds", seconds, why)));
    let audiences = audiences(&spec["audiences"], &mut causes);
    let bound = &spec["boundObjectRef"];
    let said = |field: &str| bound[field].as_str().unwrap_or_default().to_owned();
    if bound.is_object() && said("name").is_empty() {
        causes.push(Cause {
            field: "spec.boundObjectRef.name".into(),
            reason: CauseReason::Required,
            message: "Required value: the object that the token is to end with has a name".into(),
        });
    }
    if !causes.is_empty() {
        return Err(invalid(AUTHENTICATION, "TokenRequest", name, causes));
    }
    let bound = bound.is_object().then(|| BoundTo {
        kind: said("kind"),
        api_version: said("apiVersion"),
        name: said("name"),
        uid: said("uid"),
    });
    Ok(Wanted { audiences, seconds, bound })
}

fn audiences(said: &Value, causes: &mut Vec<Cause>) -> Vec<String> {
    let said = said.as_array().map_or(&[][..], Vec::as_slice);
    if said.len() > AUDIENCES {
        causes.push(Cause {
            field: "spec.audiences".into(),
            reason: CauseReason::TooMany,
            message: format!("Too many: {}: must have at most {AUDIENCES} items", said.len()),
        });
        return Vec::new();
    }
    said.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// Says whom a token stands for.
pub async fn review(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    options::write("CreateOptions", &call.call)?;
    let validation = options::field_validation("CreateOptions", &call.call.query)?;
    let mut decoded = call.call.decode(target_of(&call.resource), validation)?;
    let warnings = std::mem::take(&mut decoded.warnings);
    let mut review = decoded.object;
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let mut causes = Vec::new();
    let mut audiences = audiences(&review["spec"]["audiences"], &mut causes);
    if !causes.is_empty() {
        return Err(invalid(AUTHENTICATION, "TokenReview", "", causes));
    }
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let limit = gateway.limits().identify;
    let identified = identify_for(token, &audiences, gateway.tokens());
    let status = match tokio::time::timeout(limit, identified).await {
        Ok(Ok((user, audiences))) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        // A token that stands for nobody is a good question and no error of who asks.
        Ok(Err(AuthenticateError::Wrong(why))) => json!({"error": why}),
        Ok(Err(AuthenticateError::Unavailable(why))) => return Err(Status::unavailable(why, 1)),
        Err(_) => {
            let why = format!("the token was not checked within {limit:?}");
            return Err(Status::unavailable(why, 1));
        }
    };
    review["status"] = status;
    let mut response = write(call, 201, &review, call.call.form(false)?.encoding)?;
    answer::warn(&mut response, &warnings);
    Ok(response)
}

/// A user, as reviews tell of one.
pub fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.clone().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.clone().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    info.into()
}
