//! What is in a `configMap`, `secret`, `downwardAPI` or `projected` volume.

use super::{downward, error::VolumeError, payload::Payload, sources::Sources};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume};
use std::collections::BTreeMap;

const MODE: i32 = 0o644;

/// The content of a volume; `None` when it is of another kind.
pub(super) fn of(volume: &Volume, sources: &Sources) -> Result<Option<Payload>, VolumeError> {
    let mut fill = Fill { volume: &volume.name, sources, payload: Payload::default() };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(MODE);
        let optional = source.optional.unwrap_or(false);
        fill.config_map(&source.name, source.items.as_deref(), optional, mode)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        fill.secret(name, source.items.as_deref(), source.optional.unwrap_or(false), mode)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE);
        fill.downward(source.items.as_deref().unwrap_or_default(), mode)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(MODE);
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let optional = source.optional.unwrap_or(false);
                fill.config_map(&source.name, source.items.as_deref(), optional, mode)?;
            }
            if let Some(source) = &source.secret {
                let optional = source.optional.unwrap_or(false);
                fill.secret(&source.name, source.items.as_deref(), optional, mode)?;
            }
            if let Some(source) = &source.downward_api {
                fill.downward(source.items.as_deref().unwrap_or_default(), mode)?;
            }
            if let Some(source) = &source.service_account_token {
                let place = (volume.name.clone(), source.path.clone());
                let token = sources.tokens.get(&place).ok_or_else(|| {
                    fill.invalid(format!("there is no token for {}", source.path))
                })?;
                fill.add(&source.path, token.clone().into_bytes(), 0o600)?;
            }
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                let kind = "projected certificates".into();
                return Err(VolumeError::Unsupported { volume: volume.name.clone(), kind });
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(fill.payload))
}

struct Fill<'a> {
    volume: &'a str,
    sources: &'a Sources,
    payload: Payload,
}

impl Fill<'_> {
    fn invalid(&self, what: String) -> VolumeError {
        VolumeError::Invalid { volume: self.volume.to_owned(), what }
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: i32) -> Result<(), VolumeError> {
        if !(0..=0o777).contains(&mode) {
            return Err(self.invalid(format!("mode {mode:o} of {path} is not within 0 and 0777")));
        }
        if self.payload.add(path, bytes, mode as u32) {
            return Ok(());
        }
        Err(self.invalid(format!("path {path:?} must be relative and stay in the volume")))
    }

    fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let Some(map) = self.sources.config_maps.get(name) else {
            let missing = VolumeError::Missing { kind: "configmap", name: name.to_owned() };
            return if optional { Ok(()) } else { Err(missing) };
        };
        let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
        self.keys("config", text.chain(binary).collect(), items, optional, mode)
    }

    fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let Some(secret) = self.sources.secrets.get(name) else {
            let missing = VolumeError::Missing { kind: "secret", name: name.to_owned() };
            return if optional { Ok(()) } else { Err(missing) };
        };
        let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
        self.keys("secret", data.collect(), items, optional, mode)
    }

    fn keys(
        &mut self,
        kind: &'static str,
        data: BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), VolumeError> {
        // An empty list of items means all keys, as an absent one does.
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data
                .into_iter()
                .try_for_each(|(key, value)| self.add(key, value.to_vec(), mode));
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(value) => self.add(&item.path, value.to_vec(), item.mode.unwrap_or(mode))?,
                None if optional => {}
                None => return Err(VolumeError::MissingKey { kind, key: item.key.clone() }),
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<(), VolumeError> {
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(selector), _) => downward::field(&self.sources.pod, &selector.field_path),
                (None, Some(selector)) => downward::resource(
                    &self.sources.pod,
                    selector.container_name.as_deref().unwrap_or_default(),
                    &selector.resource,
                    selector.divisor.as_ref().map(|divisor| divisor.0.as_str()),
                    &self.sources.allocatable,
                ),
                (None, None) => None,
            };
            let value = value.ok_or_else(|| {
                self.invalid(format!("{} refers to no field of the pod", item.path))
            })?;
            self.add(&item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn placed(volume: serde_json::Value) -> Result<BTreeMap<String, String>, VolumeError> {
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let config = json!({"metadata": {"name": "c"}, "data": {"k": "v", "l": "w"}});
        let secret = json!({"metadata": {"name": "s"}, "data": {"password": "c2VjcmV0"}});
        let sources = Sources {
            pod: json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "1"}},
                "spec": {"containers": [{"name": "x",
                    "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}}),
            allocatable: BTreeMap::from([("cpu".into(), "4".into())]),
            config_maps: BTreeMap::from([("c".into(), serde_json::from_value(config).unwrap())]),
            secrets: BTreeMap::from([("s".into(), serde_json::from_value(secret).unwrap())]),
            ..Sources::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let placed = super::super::place(folder.path(), &volume, &sources)?;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&placed.path).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with("..") {
                files.insert(name, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
        Ok(files)
    }

    #[test]
    fn a_projected_volume_gathers_keys_fields_and_resources() {
        let files = placed(json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "config"}]}},
            {"secret": {"name": "s"}},
            {"secret": {"name": "absent", "optional": true}},
            {"downwardAPI": {"items": [
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "x", "resource": "limits.cpu"}},
                {"path": "memory", "resourceFieldRef": {"containerName": "x",
                    "resource": "limits.memory", "divisor": "1Mi"}}]}}]}}));
        let expected = [
            ("config", "v"),
            ("cpu", "2"),
            ("labels", "a=\"1\"\nb=\"2\""),
            ("memory", "64"),
            ("name", "p"),
            ("password", "secret"),
        ];
        let files = files.unwrap();
        let files: Vec<_> = files.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(files, expected);
    }

    #[test]
    fn what_is_missing_or_leads_away_is_refused_by_name() {
        let table = [
            (json!({"name": "v", "configMap": {"name": "none"}}), "configmap \"none\" not found"),
            (
                json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "no", "path": "p"}]}}),
                "references non-existent secret key: no",
            ),
            (
                json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../p"}]}}),
                "volume v: path \"../p\" must be relative and stay in the volume",
            ),
            (
                json!({"name": "v", "nfs": {"server": "s", "path": "/"}}),
                "volume v: this node has no volumes of kind nfs",
            ),
        ];
        for (volume, expected) in table {
            assert_eq!(placed(volume).unwrap_err().to_string(), expected);
        }
    }
}
