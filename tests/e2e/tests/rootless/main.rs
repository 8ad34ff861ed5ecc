//! What an ordinary user has of a machine on which nobody gave them anything: all that the README says, word for
//! word, from a home that is mounted `nosuid,nodev`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod home;

use home::{Home, Namespaces, json};
use impresario_e2e::{eventually, leave_out};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The commands of the README's section of this title.
fn readme(title: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"));
    let text = text.unwrap();
    let section = text.split_once(&format!("## {title}\n")).expect("the section").1;
    let block = section.split_once("```sh\n").expect("its commands").1;
    let block = block.split_once("```").expect("their end").0;
    block.lines().map(str::to_owned).collect()
}

/// What stays of a shell's line for those after it.
fn is_setting(line: &str) -> bool {
    line.contains("export ")
}

/// Names of pods that a line of `kubectl get pods` says run and are ready.
fn ready(lines: &[String]) -> BTreeSet<&str> {
    let columns = lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.filter(|c| c.len() > 2 && c[1] == "1/1" && c[2] == "Running").map(|c| c[0]).collect()
}

#[test]
fn the_readme_s_example_works_word_for_word() {
    let home = Home::new(Namespaces::Permitted);
    let commands = readme("Use it");
    let (last, commands) = commands.split_last().unwrap();
    assert!(last.starts_with("imp down "), "{last}");
    let mut settings = String::new();
    for line in commands {
        let script = format!("{settings}{line}");
        if line.contains(" -w") {
            home.watch(&script, |lines| ready(lines).len() == 3);
        } else {
            home.run(&script);
        }
        if is_setting(line) {
            settings = format!("{script}\n");
        }
    }

    let service = json(&home, &format!("{settings}kubectl get service web"));
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    // The port that it asks for is root's, and so that all of it is true the user must be told.
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    let alternates = &service["metadata"]["annotations"]["impresario.dev/alternate-ports"];
    assert_eq!(alternates, "80/TCP=8080", "{service}");
    let condition = &service["status"]["conditions"][0];
    let identity = (condition["type"].as_str(), condition["status"].as_str());
    assert_eq!(identity, (Some("impresario.dev/PortsWithheld"), Some("True")));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains(&format!("at {address}:8080")), "{message}");
    eventually("an event says so too", || {
        let events = json(&home, &format!("{settings}kubectl get events"));
        let about = |event: &&Value| {
            event["reason"] == "PortsWithheld" && event["involvedObject"]["name"] == "web"
        };
        let said = events["items"].as_array().unwrap().iter().find(about);
        let is_same = said.is_some_and(|event| event["message"] == message);
        if is_same { Ok(()) } else { Err(events.to_string()) }
    });
    let told = home.run(&format!("{settings}kubectl describe service web"));
    assert!(told.contains("PortsWithheld"), "{told}");
    let page =
        home.run(&format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 10 {address} 8080"));
    assert!(page.contains("hello from web-"), "{page}");
    home.run(&format!("{settings}{last}"));
    nothing_runs(&home);
    home.run(&format!("{settings}imp down --purge"));
    assert_eq!(home.run("find ~/.impresario 2>/dev/null || true"), "");
}

/// Waits for the end of what was told to end.
fn nothing_runs(home: &Home) {
    eventually("nothing of it runs any more", || {
        let left = home.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// A cluster of one node, and how to speak to it.
fn small(home: &Home) -> String {
    // A program that its user may replace, as most are.
    home.run("mkdir ~/bin && cp target/release/imp ~/bin/imp");
    let imp = "export PATH=$HOME/bin:$PATH KUBECONFIG=~/.impresario/kubeconfig\n";
    home.run(&format!("{imp}imp up --nodes 1 --detach"));
    imp.to_owned()
}

/// Makes a pod that runs `script`, and waits for its end: its phase, and what it has written.
fn pod(home: &Home, settings: &str, name: &str, script: &str) -> (String, String) {
    let script = script.replace('$', "$$");
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "none",
            "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "work", "mountPath": "/work-of-a-pod"}]}],
            "volumes": [{"name": "work", "emptyDir": {}}]},
    });
    let file = home.path().join(format!("{name}.json"));
    home.run(&format!("cat > {} <<'END'\n{manifest}\nEND", file.display()));
    home.run(&format!("{settings}kubectl create -f {}", file.display()));
    let phase = eventually("the pod ends", || {
        let pod = json(home, &format!("{settings}kubectl get pod {name}"));
        match pod["status"]["phase"].as_str() {
            Some(phase @ ("Succeeded" | "Failed")) => Ok(phase.to_owned()),
            _ => Err(pod["status"].to_string()),
        }
    });
    (phase, home.run(&format!("{settings}kubectl logs {name}")))
}

#[test]
fn a_pod_has_its_volumes_and_output_no_port_of_root_s_and_no_key_of_its_cluster() {
    let home = Home::new(Namespaces::Permitted);
    let settings = small(&home);
    let data = home.path().join(".impresario");
    let keys = home.run(&format!("find {} -name '*key*' -type f", data.display()));
    assert!(keys.lines().count() > 2, "{keys}");
    let keys: Vec<_> = keys.lines().collect();
    let script = format!(
        "id -u; echo kept > /work-of-a-pod/file && cat /work-of-a-pod/file; \
         cat {} 2>/dev/null; find / -xdev -path '*.impresario*' -name '*key*' 2>/dev/null; echo looked",
        keys.join(" ")
    );
    let said = pod(&home, &settings, "worker", &script);
    let expected = format!("{}\nkept\nlooked\n", home.user());
    assert_eq!(said, ("Succeeded".to_owned(), expected));

    // Its own ports are its own affair: it hears from the system, and its owner from its output.
    let said = pod(&home, &settings, "server", "exec busybox httpd -f -p 127.0.0.1:80");
    assert_eq!(said.0, "Failed");
    assert!(said.1.contains("Permission denied"), "{said:?}");
    home.run(&format!("{settings}imp down --purge"));
    nothing_runs(&home);
}

#[test]
fn a_pod_is_held_to_its_limit_of_memory_and_starts_whatever_runs_it_has_of_that() {
    let home = Home::new(Namespaces::Permitted);
    let settings = small(&home);
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": "none",
            // With slashes: what is looked up in PATH is started in another way, with less memory.
            "command": ["/bin/sh", "-c", "ulimit -d; exec /bin/sleep 600"],
            "resources": {"limits": {"memory": "64Mi"}},
            "readinessProbe": {"exec": {"command": ["/bin/sh", "-c", "exec /bin/true"]},
                "periodSeconds": 1, "timeoutSeconds": 60}}]},
    });
    let file = home.path().join("limited.json");
    home.run(&format!("cat > {} <<'END'\n{manifest}\nEND", file.display()));
    home.run(&format!("{settings}kubectl create -f {}", file.display()));
    eventually("the pod runs and its probe succeeds", || {
        let pod = json(&home, &format!("{settings}kubectl get pod limited"));
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready =
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        if is_ready { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    let kilobytes = home.run(&format!("{settings}kubectl logs limited"));
    assert_eq!(kilobytes.trim(), "65536");
    home.run(&format!("{settings}imp down --purge"));
    nothing_runs(&home);
}

#[test]
fn where_nothing_can_be_hidden_a_pod_says_so() {
    if !nix::unistd::Uid::effective().is_root() {
        leave_out("only root can make a machine that refuses user namespaces");
        return;
    }
    let home = Home::new(Namespaces::Refused);
    let settings = small(&home);
    let said = pod(&home, &settings, "open", "echo runs all the same");
    assert_eq!(said, ("Succeeded".to_owned(), "runs all the same\n".to_owned()));
    eventually("an event says what the pod can reach", || {
        let events = json(&home, &format!("{settings}kubectl get events"));
        let told = events["items"].as_array().unwrap().iter().any(|event| {
            event["reason"] == "NotAsAsked"
                && event["message"].as_str().unwrap().contains("can read the keys of its node")
        });
        if told { Ok(()) } else { Err(events.to_string()) }
    });
    home.run(&format!("{settings}imp down --purge"));
    nothing_runs(&home);
}

#[test]
fn what_a_pod_leaves_of_files_neither_runs_as_its_node_nor_stays() {
    let home = Home::new(Namespaces::Permitted);
    let settings = small(&home);
    // The node's program is the user's, and so is the pod: it can replace the file.
    let (program, mark) = (home.path().join("bin/imp"), home.path().join("outside"));
    let evil = format!("#!/bin/sh\\ntouch {}\\n", mark.display());
    let script = format!(
        "cp {0} {0}.kept; printf '{evil}' > {0}.new; chmod 755 {0}.new; mv {0}.new {0}; \
         mkdir -p /work-of-a-pod/cache/closed; echo x > /work-of-a-pod/cache/closed/file; \
         chmod 555 /work-of-a-pod/cache/closed; chmod 0 /work-of-a-pod/cache; echo done",
        program.display()
    );
    assert_eq!(pod(&home, &settings, "evil", &script).1, "done\n");
    assert_eq!(home.run("head -c 9 ~/bin/imp"), "#!/bin/sh");
    let next = pod(&home, &settings, "next", "echo mine");
    assert_eq!(next, ("Succeeded".to_owned(), "mine\n".to_owned()));
    let ran = home.run(&format!("ls {} 2>/dev/null || true", mark.display()));
    assert_eq!(ran, "", "what the pod left ran outside of it");
    home.run(&format!("mv {0}.kept {0}", program.display()));
    // What it has closed goes with it.
    home.run(&format!("{settings}kubectl delete pod evil --timeout=120s"));
    home.run(&format!("{settings}imp down --purge"));
    nothing_runs(&home);
}
