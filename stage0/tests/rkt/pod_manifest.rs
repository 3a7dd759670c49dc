//! Pods of a manifest that the user gives.

use std::fs;

use serde_json::{Value, json};

use crate::archive::Archive;
use crate::host::{Host, is_root};

/// A host with an image in its store, and the image's ID.
fn host() -> (Host, String) {
    let host = Host::new();
    let path = host.image("image.aci", &Archive::good().end());
    let id = host.rkt(&["fetch", &path]).success().stdout.trim().to_owned();
    (host, id)
}

/// Writes a manifest, and returns the flag for it.
fn flag(host: &Host, manifest: &Value) -> String {
    format!("--pod-manifest={}", host.image("manifest.json", manifest.to_string().as_bytes()))
}

fn manifest(apps: Value) -> Value {
    json!({ "acKind": "PodManifest", "acVersion": "0.8.11", "apps": apps, "userLabels": { "tier": "web" } })
}

#[test]
fn the_manifest_is_the_pods() {
    if !is_root() {
        return;
    }
    let (host, id) = host();
    let app = json!({ "exec": ["/bin/app", "given"], "user": "0", "group": "0" });
    let apps = json!([
        { "name": "given", "image": { "id": id }, "app": app },
        { "name": "of-image", "image": { "id": id }, "readOnlyRootFS": true },
    ]);
    let given = flag(&host, &manifest(apps));
    for command in ["prepare", "run"] {
        assert_eq!(host.rkt(&[command, &given]).code, if command == "run" { 7 } else { 0 });
        let (place, count) = if command == "run" { ("run", 1) } else { ("prepared", 1) };
        let pods = host.pods(place);
        assert_eq!(pods.len(), count);
        let made: Value =
            serde_json::from_str(&host.rkt(&["cat-manifest", &pods[0]]).success().stdout).unwrap();
        assert_eq!(made["apps"][0]["app"]["exec"], json!(["/bin/app", "given"]));
        assert_eq!(made["apps"][1]["app"]["exec"], json!(["/bin/app"]));
        assert_eq!(made["apps"][1]["readOnlyRootFS"], true);
        assert_eq!(made["userLabels"]["tier"], "web");
        // What a pod was made of makes another one.
        let again = flag(&host, &made);
        assert_eq!(host.rkt(&["prepare", "--quiet", &again]).code, 0);
        fs::remove_dir_all(host.data().join("pods")).unwrap();
    }
}

#[test]
fn what_cannot_be() {
    if !is_root() {
        return;
    }
    let (host, id) = host();
    let unknown = format!("sha512-{}", "0".repeat(64));
    let app = |exec: &str| json!({ "exec": [exec], "user": "0", "group": "0" });
    let cases = [
        (json!([{ "name": "a", "image": { "id": unknown } }]), "no image in the store"),
        (json!([{ "name": "a", "image": { "id": id }, "app": app("/bin/nothing") }]), "/bin/nothing"),
        (json!([{ "name": "a", "image": { "id": id } }, { "name": "a", "image": { "id": id } }]), "twice"),
        (
            json!([{ "name": "a", "image": { "id": id }, "mounts": [{ "volume": "v", "path": "/v" }] }]),
            "\"v\"",
        ),
        (json!([]), "needs an app"),
        (json!([{ "name": "a" }]), "manifest.json is not a good pod manifest"),
    ];
    for (apps, word) in cases {
        host.rkt(&["run", &flag(&host, &manifest(apps))]).refused(&["run: ", word]);
        assert!(host.pods("run").is_empty());
    }
    host.rkt(&["run", "--pod-manifest=/nowhere/manifest"]).refused(&["/nowhere/manifest"]);
}

/// The machine that a pod runs in is whoever runs it to say.
#[test]
fn no_manifest_says_anything_of_the_machine() {
    if !is_root() {
        return;
    }
    let (host, id) = host();
    let names = ["rkt/cpu-template", "rkt/stage1/cpu-template", "coreos.com/rkt/stage1/cpu-template"];
    let annotations = names.map(|name| json!({ "name": name, "value": "x86-64-v2" }));
    let app = json!({ "exec": ["/bin/app"], "user": "0", "group": "0", "annotations": annotations });
    let mut given =
        manifest(json!([{ "name": "a", "image": { "id": id }, "app": app, "annotations": annotations }]));
    given["annotations"] = json!(annotations);
    let finished = host.rkt(&["run", &flag(&host, &given)]);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let arguments = finished.stdout.lines().find(|line| line.starts_with("arguments: ")).unwrap();
    assert!(!arguments.contains("cpu-template") && !arguments.contains("x86-64"), "{arguments}");
}
