//! Which kinds are served, as discovery tells it, and where their objects are.

use impresario_e2e::{Answer, Proxy, Site, eventually};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The kinds that have to be served, or rows are left out without anybody noticing.
pub const WANTED: [(&str, &str); 27] = [
    ("v1", "Pod"),
    ("v1", "ReplicationController"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ControllerRevision"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "Service"),
    ("v1", "Endpoints"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("apps/v1", "StatefulSet"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("v1", "Event"),
    ("v1", "ConfigMap"),
    ("v1", "LimitRange"),
    ("v1", "PersistentVolume"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PodTemplate"),
    ("v1", "ResourceQuota"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("node.k8s.io/v1", "RuntimeClass"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("storage.k8s.io/v1", "StorageClass"),
];

/// The API, from within the namespace of a test.
pub struct Api {
    /// The API as it is on the wire.
    pub proxy: Proxy,
    /// The namespace of the test.
    pub namespace: String,
    discovered: RefCell<BTreeMap<String, Vec<Value>>>,
}

/// Where the objects of a kind are.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its group; empty for the core group.
    pub group: String,
    /// Its plural.
    pub plural: String,
    /// The path of the collection.
    pub collection: String,
}

impl Api {
    pub fn new(site: &Site) -> Self {
        let api = Self {
            proxy: Proxy::start(&site.kubectl),
            namespace: site.kubectl.namespace.clone(),
            discovered: RefCell::default(),
        };
        for (api_version, kind) in WANTED {
            let object = json!({"apiVersion": api_version, "kind": kind});
            assert!(api.place(&object).is_some(), "{kind} is not served");
        }
        api
    }

    fn resources(&self, root: &str) -> Vec<Value> {
        if let Some(known) = self.discovered.borrow().get(root) {
            return known.clone();
        }
        let answer = self.proxy.get(root);
        let resources = match answer.code {
            404 => Vec::new(),
            _ => answer.json()["resources"].as_array().unwrap().clone(),
        };
        self.discovered.borrow_mut().insert(root.to_owned(), resources.clone());
        resources
    }

    /// Where an object goes; `None` when its kind is not served, or cannot be created.
    pub fn place(&self, object: &Value) -> Option<Place> {
        let api_version = object["apiVersion"].as_str()?;
        let (group, root) = match api_version.split_once('/') {
            Some((group, _)) => (group, format!("/apis/{api_version}")),
            None => ("", format!("/api/{api_version}")),
        };
        let resource = self.resources(&root).into_iter().find(|resource| {
            let name = resource["name"].as_str().unwrap_or_default();
            let verbs = resource["verbs"].as_array();
            resource["kind"] == object["kind"]
                && !name.contains('/')
                && verbs.is_some_and(|verbs| verbs.contains(&"create".into()))
        })?;
        let plural = resource["name"].as_str()?.to_owned();
        let collection = if resource["namespaced"].as_bool()? {
            format!("{root}/namespaces/{}/{plural}", self.namespace)
        } else {
            format!("{root}/{plural}")
        };
        Some(Place { group: group.to_owned(), plural, collection })
    }

    /// Removes an object, whatever holds it, and waits until it is gone.
    pub fn remove(&self, item: &str) {
        let free = br#"{"metadata":{"finalizers":null}}"#;
        let freed = self.proxy.send("PATCH", item, "application/merge-patch+json", free);
        assert!([200, 404].contains(&freed.code), "{item}: {freed:?}");
        let options = br#"{"gracePeriodSeconds":0,"propagationPolicy":"Background"}"#;
        let deleted = self.proxy.send("DELETE", item, "application/json", options);
        assert!([200, 202, 404, 409].contains(&deleted.code), "{item}: {deleted:?}");
        eventually(&format!("{item} is gone"), || match self.proxy.get(item) {
            Answer { code: 404, .. } => Ok(()),
            there => Err(there.body),
        });
    }
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The form that every refusal has, checked by what the refusal itself says: the message names the
/// object and every cause, the details say the same for programs.
pub fn misshapen(answer: &Answer, place: &Place, object: &Value) -> Vec<String> {
    let status = answer.json();
    let mut wrong = Vec::new();
    let mut same = |what: &str, ours: &Value, theirs: Value| {
        if *ours != theirs {
            wrong.push(format!("{what}: ours {ours}, theirs {theirs}"));
        }
    };
    same("kind", &status["kind"], "Status".into());
    same("apiVersion", &status["apiVersion"], "v1".into());
    same("status", &status["status"], "Failure".into());
    same("code", &status["code"], answer.code.into());
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let about_patch = causes.iter().any(|cause| cause["field"] == "patch");
    if status["reason"] == "Invalid" && !causes.is_empty() && !about_patch {
        let kind = object["kind"].as_str().unwrap();
        let qualified = match place.group.as_str() {
            "" => kind.to_owned(),
            group => format!("{kind}.{group}"),
        };
        let mut said: Vec<String> = Vec::new();
        for cause in &causes {
            let (field, message) = (cause["field"].as_str(), cause["message"].as_str());
            let text = format!("{}: {}", field.unwrap(), message.unwrap());
            if !said.contains(&text) {
                said.push(text);
            }
        }
        let said = match said.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let message = format!("{qualified} {:?} is invalid: {said}", name(object));
        same("message", &status["message"], message.into());
        same("details.kind", &status["details"]["kind"], kind.into());
        let given = (!name(object).is_empty()).then(|| name(object));
        same("details.name", &status["details"]["name"], given.into());
        let group = (!place.group.is_empty()).then_some(place.group.as_str());
        same("details.group", &status["details"]["group"], group.into());
    }
    if status["message"].as_str().is_none_or(str::is_empty) {
        wrong.push("no message".to_owned());
    }
    wrong
}

/// How an answer differs from a recorded refusal.
pub fn refusal(row: &Value, answer: &Answer, place: &Place, object: &Value) -> Vec<String> {
    let label = row["name"].as_str().unwrap();
    if row["code"] != answer.code {
        return vec![format!("{label}: theirs {}, ours {answer:?}", row["code"])];
    }
    let status = answer.json();
    let mut wrong = misshapen(answer, place, object);
    if row["reason"].as_str().is_some_and(|reason| !reason.is_empty()) {
        crate::rows::differences("reason", &status["reason"], &row["reason"], &mut wrong);
    }
    let ours = crate::rows::recorded_causes(&status["details"]);
    let theirs = crate::rows::recorded_causes(row);
    if ours != theirs {
        wrong.push(format!("causes: ours {ours:?}, theirs {theirs:?}"));
    }
    wrong.into_iter().map(|difference| format!("{label}: {difference}: {}", answer.body)).collect()
}
