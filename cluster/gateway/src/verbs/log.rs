//! What a container wrote, as text; with `follow`, as it writes.
//!
//! The pod's object says which container is meant and where; the bytes come from a [`LogSource`].
//!
//! [`LogSource`]: crate::logs::LogSource

use crate::answer::{self, Body};
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::query::Query;
use hyper::Response;
use impresario_api::status::Status;
use impresario_client::protocol::pod::Logs;
use jiff::Timestamp;
use serde_json::Value;

/// Sends a container's log.
pub async fn log(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let path = &call.path;
    let mut ask = read(&call.call.query)?;
    let pod = gateway.objects().get(call.resource, &path.namespace, &path.name).await?;
    let container = choose(&pod, &path.name, ask.container.as_deref())?;
    if pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            path.name
        )));
    }
    ask.container = Some(container);
    let bytes = gateway.logs().open(&pod, ask).await?;
    Ok(answer::stream("text/plain; charset=utf-8", bytes))
}

fn read(query: &Query) -> Result<Logs, Status> {
    let number = |name: &str| -> Result<Option<u64>, Status> {
        let Some(text) = query.get(name) else { return Ok(None) };
        let read = text.parse().map(Some);
        read.map_err(|_| {
            Status::bad_request(format!("{name}: {text:?} is not a number that is zero or more"))
        })
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(_), Some(_)) => {
            return Err(Status::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        (Some(seconds), None) => {
            let back = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
            Some(nanos(Timestamp::now()).saturating_sub(back))
        }
        (None, Some(moment)) => {
            let moment = moment.parse::<Timestamp>();
            Some(nanos(moment.map_err(|error| Status::bad_request(format!("sinceTime: {error}")))?))
        }
        (None, None) => None,
    };
    Ok(Logs {
        container: query.get("container").map(ToOwned::to_owned),
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?,
        since_unix_nanos: since,
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes")?.filter(|limit| *limit > 0),
        previous: query.flag("previous"),
    })
}

fn nanos(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The container that is meant: the one named, or the only one.
fn choose(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, Status> {
    let names = |pointer: &str| -> Vec<String> {
        let containers = pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str().map(ToOwned::to_owned))
            .collect()
    };
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    match asked {
        Some(asked) if main.iter().chain(&init).any(|known| known == asked) => Ok(asked.to_owned()),
        Some(asked) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                text = format!("{text} or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(text))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_one_named_or_the_only_one() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        let two = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let message =
            |outcome: Result<String, Status>| outcome.unwrap_or_else(|status| status.message);

        assert_eq!(message(choose(&one, "p", None)), "a");
        assert_eq!(message(choose(&two, "p", Some("i"))), "i");
        assert_eq!(message(choose(&two, "p", Some("x"))), "container x is not valid for pod p");
        assert_eq!(
            message(choose(&two, "p", None)),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn two_beginnings_or_a_number_that_is_none_are_refused() {
        for wrong in
            ["sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "tailLines=-1", "sinceTime=yesterday"]
        {
            assert_eq!(read(&Query::parse(wrong)).unwrap_err().code(), 400, "{wrong}");
        }
        let ask = read(&Query::parse("follow=true&tailLines=5&timestamps=1")).unwrap();
        assert!(ask.follow && ask.timestamps);
        assert_eq!(ask.tail_lines, Some(5));
    }
}
