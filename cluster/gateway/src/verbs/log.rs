//! What a container wrote, as text; with `follow`, as it writes.
//!
//! The pod's object says which container is meant and where; the bytes come from a [`LogSource`].
//!
//! [`LogSource`]: crate::logs::LogSource

use crate::answer::{self, Body};
use crate::call::ResourceCall;
use crate::gateway::Gateway;
use crate::invalid::{bad_value, invalid, no_number};
use crate::query::Query;
use futures_util::StreamExt as _;
use hyper::Response;
use impresario_api::status::{Cause, CauseReason, Status};
use impresario_client::protocol::pod::Logs;
use impresario_runtime::clock;
use jiff::Timestamp;
use serde_json::Value;

/// Sends a container's log.
pub async fn log(gateway: &Gateway, call: &ResourceCall) -> Result<Response<Body>, Status> {
    let path = &call.path;
    let mut ask = read(&path.name, &call.call.query)?;
    let place = gateway.stream(&call.call, 0)?;
    let pod = gateway.objects().get(&call.resource, &path.namespace, &path.name).await?;
    let container = choose(&pod, &path.name, ask.container.as_deref())?;
    if pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            path.name
        )));
    }
    ask.container = Some(container);
    let bytes = gateway.logs().open(&pod, ask).await?;
    let bytes = bytes.take_until(Box::pin(gateway.distrusts(&call.call))).map(move |piece| {
        let _holds = &place;
        piece
    });
    Ok(answer::stream("text/plain; charset=utf-8", bytes))
}

fn read(pod: &str, query: &Query) -> Result<Logs, Status> {
    let number = |name: &str| {
        let read = query.get(name).map(|text| text.parse::<i64>().map_err(|_| no_number(text)));
        read.transpose()
    };
    let (tail, limit, back) =
        (number("tailLines")?, number("limitBytes")?, number("sinceSeconds")?);
    let moment = query.get("sinceTime").map(|text| {
        text.parse::<Timestamp>()
            .map_err(|error| Status::bad_request(format!("sinceTime: {text:?}: {error}")))
    });
    let moment = moment.transpose()?;
    let mut causes = Vec::new();
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        causes.push(bad_value("tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = limit.filter(|bytes| *bytes < 1) {
        causes.push(bad_value("limitBytes", bytes, "must be greater than 0"));
    }
    match (back, moment) {
        (Some(_), Some(_)) => causes.push(Cause {
            field: String::new(),
            reason: CauseReason::Forbidden,
            message: "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
                .into(),
        }),
        (Some(seconds), None) if seconds < 1 => {
            causes.push(bad_value("sinceSeconds", seconds, "must be greater than 0"));
        }
        _ => {}
    }
    if !causes.is_empty() {
        return Err(invalid("", "PodLogOptions", pod, causes));
    }
    let ago = |seconds: i64| {
        nanos(clock::timestamp()).saturating_sub(seconds.saturating_mul(1_000_000_000))
    };
    let count = |number: i64| u64::try_from(number).ok();
    Ok(Logs {
        container: query.get("container").map(ToOwned::to_owned),
        follow: query.flag("follow"),
        tail_lines: tail.and_then(count),
        since_unix_nanos: back.map(ago).or(moment.map(nanos)),
        timestamps: query.flag("timestamps"),
        limit_bytes: limit.and_then(count),
        previous: query.flag("previous"),
    })
}

fn nanos(moment: Timestamp) -> i64 {
    i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The container that is meant: the one named, or the only one.
pub(super) fn choose(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, Status> {
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
        for (wrong, code, why) in [
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422, "at most one of"),
            ("sinceSeconds=0", 422, "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("tailLines=-1", 422, "-1: must be greater than or equal to 0"),
            ("limitBytes=0", 422, "limitBytes: Invalid value: 0: must be greater than 0"),
            ("tailLines=few", 400, "strconv.ParseInt: parsing \"few\": invalid syntax"),
            ("sinceTime=yesterday", 400, "sinceTime"),
        ] {
            let status = read("p", &Query::parse(wrong)).unwrap_err();
            assert_eq!(status.code(), code, "{wrong}");
            assert!(status.message.contains(why), "{wrong}: {status}");
        }
        let both = read("p", &Query::parse("tailLines=-1&limitBytes=-1")).unwrap_err();
        assert_eq!(
            both.message,
            "PodLogOptions \"p\" is invalid: [tailLines: Invalid value: -1: must be greater than or \
             equal to 0, limitBytes: Invalid value: -1: must be greater than 0]"
        );
        let ask = read("p", &Query::parse("follow=true&tailLines=5&timestamps=1")).unwrap();
        assert!(ask.follow && ask.timestamps);
        assert_eq!(ask.tail_lines, Some(5));
    }
}
