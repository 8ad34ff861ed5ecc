//! Services: a virtual address that answers from ready pods alone, and a name.

use crate::manifests::web;
use impresario_e2e::{Answer, Site, eventually, fetch, resolve, with_a_kubectl};
use std::collections::BTreeSet;
use std::net::SocketAddr;

with_a_kubectl!(
    a_service_answers_from_all_its_ready_pods,
    a_service_goes_on_while_its_pods_are_replaced,
    a_pod_that_is_not_ready_gets_no_traffic,
    a_service_has_a_name_on_every_node,
    a_pod_finds_services_by_name_and_in_its_environment,
    a_service_finds_a_named_port_of_a_sidecar,
    the_api_is_reached_by_its_service,
);

fn get(server: SocketAddr) -> Result<Answer, String> {
    fetch(server, "GET", "/", "text/plain", b"").map_err(|error| error.to_string())
}

/// Makes `count` pods and a service at port 80; returns its address.
fn served(site: &Site, name: &str, count: u32) -> SocketAddr {
    let kubectl = &site.kubectl;
    kubectl.feed("create -f -", &web(name, count)).ok();
    kubectl.run(&format!("expose rc {name} --port=80 --target-port=8080")).ok();
    kubectl.until(&format!("get rc {name}"), "{.status.readyReplicas}", &count.to_string());
    let ip = kubectl.field(&format!("get svc {name}"), "{.spec.clusterIP}");
    let server = SocketAddr::new(ip.parse().unwrap(), 80);
    eventually("the service answers", || get(server));
    server
}

/// The names that answer, as long as each answers within `rounds` requests.
fn who_answers(server: SocketAddr, rounds: usize) -> Result<BTreeSet<String>, String> {
    (0..rounds).map(|_| get(server).map(|answer| answer.body.trim().to_owned())).collect()
}

fn pods(site: &Site, selector: &str) -> BTreeSet<String> {
    let names = site.kubectl.field(&format!("get pods -l {selector}"), "{.items[*].metadata.name}");
    names.split_whitespace().map(str::to_owned).collect()
}

fn a_service_answers_from_all_its_ready_pods(site: &Site) {
    let server = served(site, "web", 3);
    let pods = pods(site, "app=web");
    eventually("all three pods answer", || {
        let who = who_answers(server, 9)?;
        if who == pods { Ok(()) } else { Err(format!("{who:?} instead of {pods:?}")) }
    });
    let behind = site.kubectl.json("get endpoints web");
    assert_eq!(behind["subsets"][0]["addresses"].as_array().map(Vec::len), Some(3), "{behind}");
    assert_eq!(behind["subsets"][0]["addresses"][0]["targetRef"]["kind"], "Pod");
}

fn a_service_goes_on_while_its_pods_are_replaced(site: &Site) {
    let kubectl = &site.kubectl;
    let server = served(site, "web", 2);
    for _ in 0..3 {
        let victim = pods(site, "app=web").pop_first().unwrap();
        kubectl.run(&format!("delete pod {victim} --wait=false")).ok();
        // Not one request fails: new connections go elsewhere, and the one that leaves has its grace.
        eventually("two are ready again, and the deleted one is gone", || {
            who_answers(server, 5).unwrap_or_else(|error| panic!("a request failed: {error}"));
            let now = kubectl.field("get rc web", "{.status.replicas} {.status.readyReplicas}");
            let is_gone = !pods(site, "app=web").contains(&victim);
            if now == "2 2" && is_gone { Ok(()) } else { Err(now) }
        });
    }
}

fn a_pod_that_is_not_ready_gets_no_traffic(site: &Site) {
    let kubectl = &site.kubectl;
    let server = served(site, "web", 2);
    let all = pods(site, "app=web");
    let sick = all.first().unwrap().clone();
    // Its page is gone: the readiness probe gets 404.
    let uid = kubectl.field(&format!("get pod {sick}"), "{.metadata.uid}");
    let node = kubectl.field(&format!("get pod {sick}"), "{.spec.nodeName}");
    let page = find(&site.cluster.node(&node).join("pods").join(uid), "index.html").unwrap();
    let away = page.with_extension("away");
    std::fs::rename(&page, &away).unwrap();
    kubectl.run(&format!("wait --for=condition=Ready=false pod/{sick} --timeout=120s")).ok();
    kubectl.until("get endpoints web", "{.subsets[0].notReadyAddresses[*].targetRef.name}", &sick);
    eventually("only the other answers", || {
        let who = who_answers(server, 6)?;
        if who.len() == 1 && !who.contains(&sick) && !who.contains("") {
            Ok(())
        } else {
            Err(format!("{who:?}"))
        }
    });
    std::fs::rename(&away, &page).unwrap();
    kubectl.run(&format!("wait --for=condition=Ready pod/{sick} --timeout=120s")).ok();
    eventually("both answer again", || {
        let who = who_answers(server, 6)?;
        if who == all { Ok(()) } else { Err(format!("{who:?}")) }
    });
}

/// The first file of this name below a folder.
fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        if entry.file_name() == name {
            Some(path)
        } else if path.is_dir() {
            find(&path, name)
        } else {
            None
        }
    })
}

fn a_service_has_a_name_on_every_node(site: &Site) {
    let server = served(site, "web", 1);
    let name = format!("web.{}.svc.cluster.local", site.kubectl.namespace);
    for node in ["node-1", "node-2", "node-3"] {
        let dns = std::fs::read_to_string(site.cluster.node(node).join("dns")).unwrap();
        let dns: SocketAddr = dns.trim().parse().unwrap();
        eventually(&format!("{node} knows {name}"), || {
            let found = resolve(dns, &name).map_err(|error| error.to_string())?;
            let found: Vec<_> = found.into_iter().map(std::net::IpAddr::V4).collect();
            if found == [server.ip()] { Ok(()) } else { Err(format!("{found:?}")) }
        });
        assert!(resolve(dns, "nosuch.default.svc.cluster.local").unwrap().is_empty());
    }
    site.kubectl.run("delete service web").ok();
    let dns = std::fs::read_to_string(site.cluster.node("node-1").join("dns")).unwrap();
    eventually("the name is gone", || {
        let found =
            resolve(dns.trim().parse().unwrap(), &name).map_err(|error| error.to_string())?;
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // Each node hears of it by itself.
    eventually("nobody answers at its address", || match get(server) {
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_) => Ok(()),
    });
}

fn a_pod_finds_services_by_name_and_in_its_environment(site: &Site) {
    let kubectl = &site.kubectl;
    let server = served(site, "web", 1);
    let pod = kubectl.run_with(
        "run asks --image=busybox --restart=Never --command --",
        &["sh", "-c", "echo $WEB_SERVICE_HOST:$WEB_SERVICE_PORT; getent ahostsv4 web | head -n 1; busybox wget -q -O - http://$WEB_SERVICE_HOST/ && echo done"],
    );
    pod.ok();
    kubectl.until("get pod asks", "{.status.phase}", "Succeeded");
    let said = kubectl.run("logs asks").ok();
    let name = pods(site, "app=web").pop_first().unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!((lines[0], lines[2], lines[3]), (&*server.to_string(), &*name, "done"));
    let full = format!("web.{}.svc.cluster.local", kubectl.namespace);
    assert!(lines[1].starts_with(&server.ip().to_string()) && lines[1].contains(&full), "{said}");
}

fn a_service_finds_a_named_port_of_a_sidecar(site: &Site) {
    let kubectl = &site.kubectl;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: fronted, labels: {app: fronted}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: proxy
    image: busybox
    restartPolicy: Always
    command: [sleep, "600"]
    ports: [{name: https, containerPort: 19443}]
  - name: once
    image: busybox
    command: ["true"]
    ports: [{name: setup, containerPort: 19999}]
  containers:
  - {name: main, image: busybox, command: [sleep, "600"], ports: [{name: http, containerPort: 18000}]}
---
apiVersion: v1
kind: Service
metadata: {name: fronted}
spec:
  selector: {app: fronted}
  ports:
  - {name: plain, port: 80, targetPort: http}
  - {name: tls, port: 443, targetPort: https}
  - {name: never, port: 444, targetPort: setup}
"#;
    kubectl.feed("create -f -", manifest).ok();
    let ports = "{.subsets[*].ports[?(@.name=='plain')].port} {.subsets[*].ports[?(@.name=='tls')].port} {.subsets[*].ports[?(@.name=='never')].port}";
    kubectl.until("get endpoints fronted", ports, "18000 19443 ");
    let slices = "get endpointslices -l kubernetes.io/service-name=fronted";
    let ports =
        "{.items[*].ports[?(@.name=='tls')].port} {.items[*].ports[?(@.name=='never')].port}";
    kubectl.until(slices, ports, "19443 ");
}

fn the_api_is_reached_by_its_service(site: &Site) {
    let kubectl = &site.kubectl;
    let server = kubectl.field("config view --minify", "{.clusters[0].cluster.server}");
    let api: SocketAddr = server.trim_start_matches("https://").parse().unwrap();
    let wanted = format!("{}:{}", api.ip(), api.port());
    let endpoints = "get endpoints kubernetes -n default";
    kubectl.until(endpoints, "{.subsets[*].addresses[*].ip}:{.subsets[*].ports[*].port}", &wanted);
    let slices = "get endpointslices -n default -l kubernetes.io/service-name=kubernetes";
    let said = "{.items[*].endpoints[*].addresses[*]}:{.items[*].ports[*].port}";
    kubectl.until(slices, said, &wanted);
    let ip = kubectl.field("get service kubernetes -n default", "{.spec.clusterIP}");
    eventually("the API answers at the address of its service", || {
        // Where the node may not open it, the service says which one answers.
        let alternates = kubectl.field(
            "get service kubernetes -n default",
            "{.metadata.annotations.impresario\\.dev/alternate-ports}",
        );
        let port = alternates.split(',').find_map(|one| one.trim().strip_prefix("443/TCP="));
        let server = format!("https://{ip}:{}", port.unwrap_or("443"));
        let asked = kubectl.run(&format!("get namespace default -o name --server={server}"));
        let is_told = asked.out.trim() == "namespace/default";
        if is_told { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    // Somebody deletes them: they are made again.
    kubectl.run("delete endpoints kubernetes -n default").ok();
    kubectl.until(endpoints, "{.subsets[*].addresses[*].ip}:{.subsets[*].ports[*].port}", &wanted);
}
