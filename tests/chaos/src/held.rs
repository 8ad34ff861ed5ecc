//! What a pod held of its node, and from when until when.

use impresario_api::quantity;
use impresario_client::protocol::resources::{CPU, Resources};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts of resources by their names, in thousandths: of cores, of bytes, of pieces.
pub type Amounts = BTreeMap<String, i128>;

/// What a pod held on the node that had taken it on, and for how long, by that node's clock in whole seconds.
///
/// Not from when it was bound: a node that hears nothing does not know of it, gives its room to another one
/// when the reservation's time is up, and refuses one of the two when it hears again. And not by revisions:
/// who was cut off writes late what ended before. One that somebody deletes counts up to then. While nobody
/// has told its end it may be anywhere in its grace period (the object may go before the end was written, and the last
/// that was seen of it may be older still): it counts up to when that was asked for, and from then on up to the moment of
/// which its command has left a line ([`Hold::stopped`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) node: String,
    pub(crate) requests: Amounts,
    pub(crate) since: String,
    pub(crate) until: Option<String>,
    /// When its grace period is over, where nobody has told its end.
    untold: Option<String>,
}

impl Hold {
    pub(crate) fn of(node: String, pod: &Value) -> Option<Self> {
        let since = pod["status"]["startTime"].as_str()?.to_owned();
        let statuses = pod["status"]["containerStatuses"].as_array();
        let finished = statuses.into_iter().flatten().filter_map(|status| {
            status["state"]["terminated"]["finishedAt"].as_str().map(str::to_owned)
        });
        // Without containers that ended there were none: the node refused the pod.
        let ended_at = ended(pod).then(|| finished.max().unwrap_or_else(|| since.clone()));
        let deleted = pod["metadata"]["deletionTimestamp"].as_str().map(str::to_owned);
        let until = match ended_at {
            Some(ended) => deleted.clone().into_iter().chain([ended]).min(),
            None => deleted.clone().map(|at| {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
                earlier(at, grace)
            }),
        };
        let untold = deleted.filter(|_| !ended(pod));
        Some(Self { node, requests: requests(pod), since, until, untold })
    }

    /// Its command was asked to end, and says that it has, in this second since 1970. A node holds room for a pod that is
    /// deleted until then; who is forced away after its grace period is held for by nobody.
    pub(crate) fn stopped(&mut self, second: i64) {
        let Some(over) = &self.untold else { return };
        let Ok(at) = Timestamp::from_second(second) else { return };
        self.until = self.until.take().max(Some(at.to_string().min(over.clone())));
    }
}

/// The moment that many seconds before one that an object names.
fn earlier(at: String, seconds: i64) -> String {
    let moment: Result<Timestamp, _> = at.parse();
    moment
        .and_then(|moment| moment.checked_sub(SignedDuration::from_secs(seconds)))
        .map_or(at, |moment| moment.to_string())
}

/// What an object's map of quantities says.
pub(crate) fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, amount)| {
            Some((name.clone(), i128::from(quantity::parse(amount)?.millis())))
        })
        .collect()
}

/// What a pod asks for: its containers together, or the largest of its init containers, and one place.
pub(crate) fn requests(pod: &Value) -> Amounts {
    let of = |list: &str| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.map(|container| amounts(&container["resources"]["requests"])).collect::<Vec<_>>()
    };
    let mut all = Amounts::from([("pods".to_owned(), 1000)]);
    for (name, amount) in of("containers").into_iter().flatten() {
        *all.entry(name).or_default() += amount;
    }
    for (name, amount) in of("initContainers").into_iter().flatten() {
        let most = all.entry(name).or_default();
        *most = (*most).max(amount);
    }
    all
}

/// What a pod asks for, as nodes count it.
pub(crate) fn resources(pod: &Value) -> Resources {
    let mut all = Resources::default();
    for (name, milli) in requests(pod) {
        // Processors are counted in thousandths, and everything else in pieces.
        let pieces = if name == CPU { milli } else { milli / 1000 };
        all.set(&name, u64::try_from(pieces).unwrap_or(0));
    }
    all
}

/// Whether a pod's containers have ended for good.
pub(crate) fn ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}
