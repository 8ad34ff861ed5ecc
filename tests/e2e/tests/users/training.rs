//! Training jobs whose models stay.

use impresario_e2e::{Site, with_a_kubectl};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

with_a_kubectl!(
    a_model_is_saved_taken_out_and_trained_further_by_other_members,
    a_job_that_saves_nothing_has_no_model_and_says_so,
);

fn imp(site: &Site, line: &str) -> Output {
    let mut command = site.cluster.imp(line.split_whitespace());
    command.args(["--namespace", &site.kubectl.namespace]).output().unwrap()
}

/// A job that learns to hear digits, for so many epochs with so many parameter servers.
fn job(site: &Site, name: &str, epochs: u64, servers: u32, cpu: &str, checkpoint: &str) -> String {
    let program = site.cluster.program().display().to_string();
    let role = |count: u32| {
        format!(
            "min: {count}\n    max: {count}\n    resources: {{requests: {{cpu: {cpu}, memory: 64Mi}}}}\n    \
             template: {{spec: {{terminationGracePeriodSeconds: 5, containers: [{{name: speech, image: none, \
             command: [{program:?}, __guest, speech, --seed, \"1\"], \
             env: [{{name: RAYON_NUM_THREADS, value: \"1\"}}]}}]}}}}"
        )
    };
    format!(
        "apiVersion: training.impresario.dev/v1\nkind: TrainingJob\nmetadata: {{name: {name}}}\nspec:\n  \
         parameterServer:\n    {}\n  trainer:\n    {}\n  stop: {{epochs: {epochs}}}\n{checkpoint}",
        role(servers),
        role(1)
    )
}

/// The tensors of a file, by name and length; that there is nothing else in it.
fn tensors(path: &Path) -> Vec<(String, u64)> {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, values) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header: Value = serde_json::from_slice(header).unwrap();
    let all = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let all: Vec<(String, u64)> = all
        .map(|(name, tensor)| {
            assert_eq!(tensor["dtype"], "F32");
            (name.clone(), tensor["shape"][0].as_u64().unwrap())
        })
        .collect();
    let numbers: u64 = all.iter().map(|(_, length)| length).sum();
    assert_eq!(values.len() as u64, numbers * 4);
    let finite = |value: &[u8; 4]| f32::from_le_bytes(*value).is_finite();
    assert!(values.as_chunks::<4>().0.iter().all(finite));
    all
}

fn export(site: &Site, job: &str) -> Vec<(String, u64)> {
    let file = site.cluster.scratch().join(format!("{}-{job}.safetensors", site.kubectl.namespace));
    let output = imp(site, &format!("training export {job} -o {}", file.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tensors(&file)
}

fn succeeds(site: &Site, job: &str) -> Value {
    let line =
        format!("wait --for=jsonpath={{.status.phase}}=Succeeded trainingjob/{job} --timeout=240s");
    site.kubectl.run(&line).ok();
    site.kubectl.json(&format!("get trainingjob {job}"))["status"].clone()
}

fn a_model_is_saved_taken_out_and_trained_further_by_other_members(site: &Site) {
    let kubectl = &site.kubectl;
    let folder = site.cluster.scratch().join(&kubectl.namespace).join("models");
    let folder = folder.display();
    let checkpoint =
        format!("  checkpoint: {{path: {folder}/first, intervalSteps: 10, keep: 2}}\n");
    kubectl.feed("create -f -", &job(site, "first", 2, 1, "100m", &checkpoint)).ok();
    let status = succeeds(site, "first");
    assert_eq!(
        (&status["model"], &status["model"]["step"]),
        (&status["lastCheckpoint"], &status["step"])
    );
    let manifest = Path::new(status["model"]["path"].as_str().unwrap()).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    assert_eq!(manifest["job"], format!("{}/first", kubectl.namespace));
    let model = export(site, "first");
    assert_eq!(model.len(), manifest["blocks"].as_array().unwrap().len());
    let checkpoint =
        format!("  checkpoint: {{path: {folder}/second, resumeFrom: {folder}/first}}\n");
    kubectl.feed("create -f -", &job(site, "second", 3, 2, "100m", &checkpoint)).ok();
    let further = succeeds(site, "second");
    let steps = |status: &Value| status["step"].as_u64().unwrap();
    assert_eq!(steps(&further) * 2, steps(&status) * 3);
    let path = "{.items[?(@.reason=='Resumed')].message}";
    let said = kubectl.field("get events", path);
    assert!(said.contains(&format!("with step {}", steps(&status))), "{said}");
    assert_eq!(export(site, "second"), model, "the same tensors with other values");
}

fn a_job_that_saves_nothing_has_no_model_and_says_so(site: &Site) {
    site.kubectl.feed("create -f -", &job(site, "waits", 2, 1, "10000", "")).ok();
    let refused = imp(site, "training export waits -o model.safetensors");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("spec.checkpoint.path"), "{said}");
    site.kubectl.run("delete trainingjob waits").ok();
}
