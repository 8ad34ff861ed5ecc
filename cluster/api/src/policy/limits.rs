//! LimitRange: amounts that a namespace gives to who names none, and bounds of what may be asked for.

use super::amounts::{Amounts, Side, of_containers, read};
use crate::field::{as_map, list, list_mut, object_mut, set, text};
use crate::quantity::Quantity;
use serde_json::Value;

/// Where a pod is told what it was given.
pub const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives the containers of a new pod what these ranges say and they do not.
pub fn give(pod: &mut Value, ranges: &[Value]) {
    for range in ranges {
        let mut given = Vec::new();
        for (containers, called) in
            [("containers", "container"), ("initContainers", "init container")]
        {
            for container in list_mut(object_mut(pod, "spec"), containers) {
                give_to(container, range, called, &mut given);
            }
        }
        if !given.is_empty() {
            let told = format!("LimitRanger plugin set: {}", given.join("; "));
            set(object_mut(object_mut(pod, "metadata"), "annotations"), ANNOTATION, told);
        }
    }
}

fn give_to(container: &mut Value, range: &Value, called: &str, given: &mut Vec<String>) {
    let name = text(container, "name").to_owned();
    for (from, side) in [("defaultRequest", Side::Requests), ("default", Side::Limits)] {
        let mut set_here: Vec<String> = Vec::new();
        for item in items(range, "Container") {
            let Some(amounts) = crate::field::map(item, from) else { continue };
            for (resource, amount) in amounts {
                let all = as_map(object_mut(object_mut(container, "resources"), side.name()));
                if !all.contains_key(resource) {
                    all.insert(resource.clone(), amount.clone());
                    set_here.push(resource.clone());
                }
            }
        }
        if !set_here.is_empty() {
            set_here.sort();
            let what = if side == Side::Requests { "request" } else { "limit" };
            given.push(format!("{} {what} for {called} {name}", set_here.join(", ")));
        }
    }
}

fn items<'a>(range: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    list(range, "spec.limits").iter().filter(move |item| text(item, "type") == kind)
}

/// Why a pod is not within these ranges, in the words of the first that is against it.
pub fn check_pod(pod: &Value, ranges: &[Value]) -> Result<(), String> {
    for range in ranges {
        let mut wrong = Vec::new();
        for containers in ["spec.containers", "spec.initContainers"] {
            for container in list(pod, containers) {
                for item in items(range, "Container") {
                    let requests = read(container, "resources.requests");
                    let limits = read(container, "resources.limits");
                    bounds("Container", item, &requests, &limits, &mut wrong);
                }
            }
        }
        for item in items(range, "Pod") {
            let requests = of_containers(pod, Side::Requests);
            let limits = of_containers(pod, Side::Limits);
            bounds("Pod", item, &requests, &limits, &mut wrong);
        }
        told(wrong)?;
    }
    Ok(())
}

/// Why a claim of a volume is not within these ranges.
pub fn check_claim(claim: &Value, ranges: &[Value]) -> Result<(), String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = read(claim, "spec.resources.requests");
    for range in ranges {
        let mut wrong = Vec::new();
        for item in items(range, KIND) {
            for (resource, least) in read(item, "min") {
                wrong.extend(least_of(KIND, &resource, least, &requests, &Amounts::new()));
            }
            for (resource, most) in read(item, "max") {
                let bound = format!("maximum {resource} usage per {KIND} is {most}");
                match requests.get(&resource) {
                    None => wrong.push(format!("{bound}.  No request is specified")),
                    Some(asked) if *asked > most => {
                        wrong.push(format!("{bound}, but request is {asked}"));
                    }
                    Some(_) => {}
                }
            }
        }
        told(wrong)?;
    }
    Ok(())
}

/// One is told as it is, several in brackets, the same once.
fn told(wrong: Vec<String>) -> Result<(), String> {
    let mut once: Vec<String> = Vec::new();
    for why in wrong {
        if !once.contains(&why) {
            once.push(why);
        }
    }
    match once.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn bounds(kind: &str, item: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    for (resource, least) in read(item, "min") {
        wrong.extend(least_of(kind, &resource, least, requests, limits));
    }
    for (resource, most) in read(item, "max") {
        wrong.extend(most_of(kind, &resource, most, requests, limits));
    }
    for (resource, ratio) in read(item, "maxLimitRequestRatio") {
        wrong.extend(ratio_of(kind, &resource, ratio, requests, limits));
    }
}

fn least_of(
    kind: &str,
    resource: &str,
    least: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let bound = format!("minimum {resource} usage per {kind} is {least}");
    let Some(asked) = requests.get(resource) else {
        return Some(format!("{bound}.  No request is specified"));
    };
    if *asked < least {
        return Some(format!("{bound}, but request is {asked}"));
    }
    let limit = limits.get(resource).filter(|limit| **limit < least)?;
    Some(format!("{bound}, but limit is {limit}"))
}

fn most_of(
    kind: &str,
    resource: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let bound = format!("maximum {resource} usage per {kind} is {most}");
    let Some(limit) = limits.get(resource) else {
        return Some(format!("{bound}.  No limit is specified"));
    };
    if *limit > most {
        return Some(format!("{bound}, but limit is {limit}"));
    }
    let asked = requests.get(resource).filter(|asked| **asked > most)?;
    Some(format!("{bound}, but request is {asked}"))
}

fn ratio_of(
    kind: &str,
    resource: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let bound = format!("{resource} max limit to request ratio per {kind} is {most}");
    let said = |amounts: &Amounts| amounts.get(resource).copied().filter(|it| it.sign() != 0);
    let Some(asked) = said(requests) else {
        return Some(format!("{bound}, but no request is specified or request is 0"));
    };
    let Some(limit) = said(limits) else {
        return Some(format!("{bound}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.millis() as f64 / asked.millis() as f64;
    (ratio * 1000.0 > most.millis() as f64)
        .then(|| format!("{bound}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(items: Value) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"limits": items}})
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn a_container_is_given_what_it_does_not_say_and_the_pod_tells_so() {
        let ranges = [
            range(json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
                "defaultRequest": {"cpu": "500m"}}])),
            range(
                json!([{"type": "Container", "default": {"cpu": "7"}, "defaultRequest": {"memory": "1Mi"}}]),
            ),
        ];
        let mut given = pod(json!({}), json!({"cpu": "2"}));
        give(&mut given, &ranges[..1]);
        let resources = &given["spec"]["containers"][0]["resources"];
        assert_eq!(resources["limits"], json!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(resources["requests"], json!({"cpu": "500m"}));
        let told =
            "LimitRanger plugin set: cpu request for container c; memory limit for container c";
        assert_eq!(given["metadata"]["annotations"][ANNOTATION], told);
        // A second range gives what the first has left.
        give(&mut given, &ranges[1..]);
        let resources = &given["spec"]["containers"][0]["resources"];
        assert_eq!(resources["requests"], json!({"cpu": "500m", "memory": "1Mi"}));
        assert_eq!(resources["limits"]["cpu"], "2");
        let mut untouched = pod(json!({}), json!({}));
        give(&mut untouched, &[range(json!([{"type": "Pod", "max": {"cpu": "1"}}]))]);
        assert_eq!(untouched, pod(json!({}), json!({})));
    }

    #[test]
    fn what_is_outside_of_a_range_is_refused_in_the_words_of_kubernetes() {
        let min = json!([{"type": "Container", "min": {"cpu": "200m"}}]);
        let max = json!([{"type": "Container", "max": {"memory": "1Gi"}}]);
        let ratio = json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}]);
        let both = json!([{"type": "Container", "min": {"cpu": "200m"}, "max": {"cpu": "300m"}}]);
        let whole = json!([{"type": "Pod", "max": {"cpu": "1"}}]);
        let none = || json!({});
        let cpu = |amount: &str| json!({ "cpu": amount });
        let memory = |amount: &str| json!({ "memory": amount });
        let rows = [
            (&min, cpu("200m"), none(), ""),
            (
                &min,
                cpu("100m"),
                none(),
                "minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                &min,
                none(),
                none(),
                "minimum cpu usage per Container is 200m.  No request is specified",
            ),
            (
                &min,
                cpu("200m"),
                cpu("100m"),
                "minimum cpu usage per Container is 200m, but limit is 100m",
            ),
            (&max, none(), memory("1Gi"), ""),
            (
                &max,
                none(),
                memory("2Gi"),
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
            ),
            (
                &max,
                none(),
                none(),
                "maximum memory usage per Container is 1Gi.  No limit is specified",
            ),
            (&ratio, cpu("1"), cpu("2"), ""),
            (
                &ratio,
                cpu("1"),
                cpu("2500m"),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
            ),
            (
                &ratio,
                none(),
                cpu("1"),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                &ratio,
                cpu("1"),
                none(),
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ),
            (
                &both,
                cpu("100m"),
                none(),
                "[minimum cpu usage per Container is 200m, but request is 100m, maximum cpu usage per Container \
                 is 300m.  No limit is specified]",
            ),
            (&whole, cpu("1"), cpu("1"), ""),
            (&whole, cpu("1"), cpu("1100m"), "maximum cpu usage per Pod is 1, but limit is 1100m"),
        ];
        for (items, requests, limits, expected) in rows {
            let checked = check_pod(&pod(requests, limits), &[range(items.clone())]);
            assert_eq!(checked.err().unwrap_or_default(), expected, "{items}");
        }
        // The first that is against it speaks.
        let ranges = [range(whole), range(min)];
        let refused = check_pod(&pod(none(), none()), &ranges).unwrap_err();
        assert_eq!(refused, "maximum cpu usage per Pod is 1.  No limit is specified");
    }

    #[test]
    fn a_claim_is_of_a_size_within_the_range() {
        let ranges = [range(json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"},
            "max": {"storage": "2Gi"}}]))];
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let told = |size: &str| check_claim(&claim(size), &ranges).err().unwrap_or_default();
        assert_eq!(told("2Gi"), "");
        let least = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi";
        assert_eq!(told("1Mi"), least);
        let most = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        assert_eq!(told("3Gi"), most);
    }
}
