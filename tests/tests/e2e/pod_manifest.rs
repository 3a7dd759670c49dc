//! Pods of a manifest that the user gives.

use serde_json::json;

use crate::harness::{BUSYBOX, Host, Process, image};

#[test]
fn apps_of_a_manifest() {
    let host = Host::new();
    let fetched = Process::start(host.rkt().args(["fetch", &image(BUSYBOX)])).finish().success().text();
    let app = |name: &str, script: &str| {
        json!({
            "name": name, "image": { "id": fetched.trim() },
            "app": {
                "exec": ["/bin/sh", "-c", script], "user": "0", "group": "0",
                "environment": [{ "name": "WHO", "value": name }],
                "isolators": [{ "name": "resource/memory", "value": { "limit": "64Mi" } }],
            },
            "mounts": [{ "volume": "shared", "path": "/shared" }],
        })
    };
    let manifest = json!({
        "acKind": "PodManifest", "acVersion": "0.8.11",
        "apps": [
            app("writer", "echo $WHO >/shared/x"),
            app("reader", "until [ -s /shared/x ]; do sleep 0.1; done; read x </shared/x; echo $WHO of $x; exit 3"),
        ],
        "volumes": [{ "name": "shared", "kind": "empty" }],
    });
    let path = host.path().join("manifest.json");
    std::fs::write(&path, manifest.to_string()).unwrap();
    let flag = format!("--pod-manifest={}", path.display());
    let finished = Process::start(&mut host.run(&[&flag])).finish().exited(3);
    assert!(finished.text().ends_with("reader of writer\n"), "{}", finished.text());
    assert_eq!((host.status("writer"), host.status("reader")), ("0".into(), "3".into()));
}
