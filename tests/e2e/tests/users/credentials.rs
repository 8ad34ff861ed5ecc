//! Credentials that users make: tokens of service accounts, and certificates that somebody approves.

use impresario_e2e::{Site, eventually, with_a_kubectl};
use std::process::Command;

with_a_kubectl!(
    a_token_of_an_account_logs_in_until_its_account_is_gone,
    an_approved_certificate_logs_in,
    the_token_of_a_pod_is_one_of_its_account,
);

fn a_token_of_an_account_logs_in_until_its_account_is_gone(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create serviceaccount robot").ok();
    let token = kubectl.run("create token robot --duration=15m").ok();
    let token = token.trim();
    let who = format!("system:serviceaccount:{}:robot", kubectl.namespace);
    // Whichever member answers has heard of the account a moment later.
    let said = kubectl.run(&format!("auth whoami --token={token}")).ok();
    assert!(said.contains(&who), "{said}");
    let refused = kubectl.run(&format!("get secrets --token={token}")).refused();
    assert!(refused.contains(&who), "{refused}");
    let other = kubectl.run("create token robot --audience=vault").ok();
    kubectl.run(&format!("get secrets --token={}", other.trim())).refused();
    kubectl.run("create token robot --duration=1m").refused();
    kubectl.run("delete serviceaccount robot").ok();
    eventually("the token is worth nothing", || {
        let said = kubectl.run(&format!("auth whoami --token={token}"));
        if said.code == 0 { Err(said.out) } else { Ok(()) }
    });
}

fn an_approved_certificate_logs_in(site: &Site) {
    let kubectl = &site.kubectl;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let name = format!("ann-{}", kubectl.namespace);
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-keyout", &at("key"), "-out", &at("csr"), "-subj", &format!("/CN={name}/O=dev")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let request = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(std::fs::read(at("csr")).unwrap())
    };
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}\n"
    );
    kubectl.feed("create -f -", &manifest).ok();
    kubectl.run(&format!("certificate approve {name}")).ok();
    let line = format!("get csr {name}");
    let signed = eventually("the certificate is signed", || {
        let signed = kubectl.field(&line, "{.status.certificate}");
        if signed.is_empty() { Err(kubectl.run(&line).out) } else { Ok(signed) }
    });
    let pem = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(signed.trim()).unwrap()
    };
    std::fs::write(at("crt"), pem).unwrap();
    // A kubeconfig of her own: what is in the other goes before flags.
    let config = kubectl.run("config view --raw --minify").ok();
    std::fs::write(at("config"), config).unwrap();
    let own = format!("--kubeconfig={}", at("config"));
    let files = format!("--client-certificate={} --client-key={}", at("crt"), at("key"));
    kubectl.run(&format!("config set-credentials ann {files} {own}")).ok();
    let said = kubectl.run(&format!("auth whoami --user=ann {own}")).ok();
    assert!(said.contains(&name) && said.contains("dev"), "{said}");
    let table = kubectl.run(&format!("get csr {name} --no-headers")).ok();
    assert!(table.contains("Approved,Issued"), "{table}");
    kubectl.run(&format!("delete csr {name}")).ok();
}

fn the_token_of_a_pod_is_one_of_its_account(site: &Site) {
    let kubectl = &site.kubectl;
    kubectl.run("create serviceaccount worker").ok();
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: shows}\nspec:\n  serviceAccountName: worker\n  \
         restartPolicy: Never\n  containers: [{name: c, image: busybox, \
         command: [sh, -c, 'cat ${IMPRESARIO_VOLUME_TOKENS:-/tokens}/vault'], \
         volumeMounts: [{name: tokens, mountPath: /tokens}]}]\n  \
         volumes: [{name: tokens, projected: {sources: [{serviceAccountToken: \
         {path: vault, audience: vault, expirationSeconds: 600}}]}}]\n";
    kubectl.feed("create -f -", manifest).ok();
    kubectl.until("get pod shows", "{.status.phase}", "Succeeded");
    let token = kubectl.run("logs shows").ok();
    let review = format!(
        "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {{token: {}, audiences: [vault]}}\n",
        token.trim()
    );
    let said = kubectl.feed("create -o json -f -", &review).ok();
    assert!(
        said.contains(&format!("system:serviceaccount:{}:worker", kubectl.namespace)),
        "{said}"
    );
    assert!(said.contains("authentication.kubernetes.io/pod-name"), "{said}");
    assert!(!said.contains("\"authenticated\": false"), "{said}");
}
