//! Plugins that are scripts: what they are told, and what becomes of those that misbehave.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use net::cni::Runtime;
use net::{PodNetwork, cni, pod_network};
use serde_json::{Value, json};

use crate::world::{World, attachment, names, text};

/// Writes down what it is told, and answers with an address.
const RECORDER: &str = r#"
config=$(cat)
log=$(dirname "$0")/../log
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $(basename "$0")" >>$log
echo "$config" >>$log
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/24"}]}'
exit 0"#;

fn network(plugins: &[&str]) -> Value {
    let plugins: Vec<Value> = plugins.iter().map(|plugin| json!({ "type": plugin })).collect();
    json!({"name": "lan", "cniVersion": "1.0.0", "plugins": plugins})
}

fn log(world: &World) -> Vec<String> {
    fs::read_to_string(world.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The error of an ADD by one script.
fn add_error(script: &str) -> String {
    let world = World::new();
    world.script("bad", script);
    text(&world.runtime().add(&attachment(&network(&["bad"]), "pod", &[]), Path::new("/ns")).unwrap_err())
}

#[test]
fn plugins_are_chained_and_undone_in_reverse() {
    let world = World::new();
    world.script("first", RECORDER);
    world.script("second", RECORDER);
    let attachment = attachment(&network(&["first", "second"]), "pod", &[("IP", "10.1.0.5")]);
    let result = world.runtime().add(&attachment, Path::new("/ns")).unwrap();
    assert_eq!(result.addresses[0].network.to_string(), "10.1.0.5/24");
    assert_eq!(world.cached(), ["lan-pod-eth0"]);
    world.runtime().check(&attachment, Path::new("/ns")).unwrap();
    world.runtime().delete(&attachment, None).unwrap();
    assert!(world.cached().is_empty());

    let log = log(&world);
    let calls: Vec<&str> = log.iter().step_by(2).map(String::as_str).collect();
    assert_eq!(
        calls,
        [
            "ADD pod /ns eth0 IgnoreUnknown=1;IP=10.1.0.5 first",
            "ADD pod /ns eth0 IgnoreUnknown=1;IP=10.1.0.5 second",
            "CHECK pod /ns eth0 IgnoreUnknown=1;IP=10.1.0.5 first",
            "CHECK pod /ns eth0 IgnoreUnknown=1;IP=10.1.0.5 second",
            "DEL pod  eth0 IgnoreUnknown=1;IP=10.1.0.5 second",
            "DEL pod  eth0 IgnoreUnknown=1;IP=10.1.0.5 first",
        ]
    );
    let configs: Vec<Value> =
        log.iter().skip(1).step_by(2).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(configs[0], json!({"name": "lan", "cniVersion": "1.0.0", "type": "first"}));
    for config in &configs[1..] {
        assert_eq!(config["prevResult"]["ips"][0]["address"], "10.1.0.5/24");
    }
}

#[test]
fn errors_tell_network_plugin_and_reason() {
    for (script, expected) in [
        (
            r#"echo '{"cniVersion":"1.0.0","code":7,"msg":"no way","details":"the road is closed"}'; exit 1"#,
            &["\"lan\"", "plugins/bad", "add eth0", "no way; the road is closed (code 7)"][..],
        ),
        ("echo nonsense; echo worse >&2; exit 1", &["exit status 1", "nonsense", "worse"]),
        ("kill -9 $$", &["signal 9"]),
        ("echo nonsense", &["not a CNI result", "nonsense"]),
        ("exit 0", &["printed nothing"]),
        (r#"echo '{"cniVersion":"9.0.0"}'"#, &["9.0.0"]),
        (r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"here"}]}'"#, &["\"here\""]),
        ("yes", &["more than 1048576 bytes"]),
    ] {
        let error = add_error(script);
        for word in expected {
            assert!(error.contains(word), "{script}: {error}");
        }
    }
}

#[test]
fn what_is_not_a_plugin() {
    let world = World::new();
    let add = |name: &str| {
        text(&world.runtime().add(&attachment(&network(&[name]), "pod", &[]), Path::new("/ns")).unwrap_err())
    };
    assert!(add("absent").contains("there is no CNI plugin \"absent\""));
    fs::write(world.path("plugins/data"), "").unwrap();
    assert!(add("data").contains("not executable"));
    world.script("odd", "exit 0");
    std::process::Command::new("sed")
        .args(["-i", "1s,.*,#!/no/such/shell,"])
        .arg(world.path("plugins/odd"))
        .status()
        .unwrap();
    assert!(add("odd").contains("cannot be executed"));
}

#[test]
fn a_plugin_that_hangs_is_killed() {
    let world = World::new();
    world.script("slow", "sleep 1000 & wait");
    let runtime = world.runtime().with_time_limit(Duration::from_millis(300));
    let begin = Instant::now();
    let error =
        text(&runtime.add(&attachment(&network(&["slow"]), "pod", &[]), Path::new("/ns")).unwrap_err());
    assert!(error.contains("was killed"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn old_versions_get_no_result_at_del() {
    let world = World::new();
    world.script(
        "old",
        &RECORDER.replace(
            r#""cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/24"}]"#,
            r#""ip4":{"ip":"10.1.0.5/24"}"#,
        ),
    );
    let attachment = attachment(&json!({"name": "lan", "plugins": [{"type": "old"}]}), "pod", &[]);
    let result = world.runtime().add(&attachment, Path::new("/ns")).unwrap();
    assert_eq!(result.addresses[0].network.to_string(), "10.1.0.5/24");
    assert!(text(&world.runtime().check(&attachment, Path::new("/ns")).unwrap_err()).contains("below 0.4.0"));
    world.runtime().delete(&attachment, None).unwrap();
    let log = log(&world);
    assert!(log[2].starts_with("DEL") && !log[3].contains("prevResult"), "{log:?}");
}

#[test]
fn every_plugin_is_called_at_del_even_after_an_error() {
    let world = World::new();
    world.script("first", RECORDER);
    world.script(
        "second",
        &format!("{}\nexit 1", RECORDER.replace("exit 0", "[ $CNI_COMMAND = ADD ] && exit 0")),
    );
    let attachment = attachment(&network(&["first", "second"]), "pod", &[]);
    world.runtime().add(&attachment, Path::new("/ns")).unwrap();
    world.runtime().delete(&attachment, None).unwrap_err();
    let log = log(&world);
    assert!(log.iter().any(|line| line.starts_with("DEL") && line.ends_with("first")), "{log:?}");
    assert_eq!(world.cached(), ["lan-pod-eth0"], "kept for another try");
}

#[test]
fn garbage_is_what_no_pod_holds() {
    let world = World::new();
    world.script("first", RECORDER);
    let pods = world.path("pods");
    let config = json!({"name": "lan", "cniVersion": "1.1.0", "plugins": [{"type": "first"}]});
    for (id, namespace) in [
        ("gone", pods.join("run/gone/net/namespace")),
        ("alive", pods.join("run/alive/net/namespace")),
        ("other", "/elsewhere/run/other/net/namespace".into()),
    ] {
        world.runtime().add(&attachment(&config, id, &[]), &namespace).unwrap();
    }
    fs::write(world.path("log"), "").unwrap();
    let is_garbage =
        |cached: &cni::Cached| pod_network::pod_of(cached, &pods).is_some_and(|pod| pod != "alive");
    let network = attachment(&config, "x", &[]).network;
    let errors = world.runtime().collect(&[network], &is_garbage).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(world.cached(), ["lan-alive-eth0", "lan-other-eth0"]);
    let log = log(&world);
    assert!(log[0].starts_with("DEL gone"), "{log:?}");
    assert!(log[2].starts_with("GC "), "{log:?}");
    let config: Value = serde_json::from_str(&log[3]).unwrap();
    let valid =
        json!([{"containerID": "alive", "ifname": "eth0"}, {"containerID": "other", "ifname": "eth0"}]);
    assert_eq!(config["cni.dev/valid-attachments"], valid);
}

#[test]
fn collecting_waits_for_who_attaches() {
    let world = World::new();
    world.script("slow", &format!("touch \"$(dirname \"$0\")/../begun\"; sleep 0.5; {RECORDER}"));
    let config = json!({"name": "lan", "cniVersion": "1.1.0", "plugins": [{"type": "slow"}]});
    let attachment = attachment(&config, "pod", &[]);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| world.runtime().add(&attachment, Path::new("/ns")).unwrap());
        while !world.path("begun").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let network = attachment.network.clone();
        let patient = Runtime::new(world.plugins(), world.cache());
        assert!(patient.collect(&[network], &|_| false).unwrap().is_empty());
        assert!(!world.cached().is_empty(), "the attachment was complete first");
        adding.join().unwrap();
    });
    assert!(log(&world).last().unwrap().contains("\"containerID\":\"pod\""));
}

#[test]
fn a_pod_is_detached_whatever_was_done() {
    let world = World::new();
    world.script("first", RECORDER);
    world.script("bad", "[ $CNI_COMMAND = DEL ] || exit 1");
    let attachments = vec![attachment(&network(&["first", "bad"]), "pod", &[])];
    let directory = world.path("pods/net");
    let network = PodNetwork::create(&directory, world.planned(attachments), None).unwrap();
    let namespace = network.namespace();
    assert!(net::namespace::is_namespace(&namespace));
    network.attach(world.cache(), &|| false).unwrap_err();
    // As garbage collection finds it.
    let network = PodNetwork::open(&directory).unwrap().unwrap();
    network.detach(world.cache()).unwrap();
    assert!(log(&world).iter().any(|line| line.starts_with("DEL pod /") && line.ends_with("first")));
    assert!(names(&directory).is_empty() && world.cached().is_empty());
    assert!(PodNetwork::open(&directory).unwrap().is_none());
}

#[test]
fn a_pod_whose_start_is_interrupted() {
    let world = World::new();
    world.script("slow", "[ $CNI_COMMAND = DEL ] || sleep 1000");
    let attachments = vec![attachment(&network(&["slow"]), "pod", &[])];
    let network = PodNetwork::create(&world.path("pods/net"), world.planned(attachments), None).unwrap();
    let begin = Instant::now();
    let error = network.attach(world.cache(), &|| begin.elapsed() > Duration::from_millis(200)).unwrap_err();
    assert!(text(&error).contains("interrupted"), "{error}");
    network.detach(world.cache()).unwrap();
}

#[test]
fn a_damaged_record_is_no_obstacle() {
    let world = World::new();
    world.script("first", RECORDER);
    let attachments = vec![attachment(&network(&["first"]), "pod", &[])];
    let directory = world.path("pods/net");
    let network = PodNetwork::create(&directory, world.planned(attachments), None).unwrap();
    fs::write(directory.join("attachments.json"), "").unwrap();
    drop(network);
    PodNetwork::open(&directory).unwrap().unwrap().detach(world.cache()).unwrap();
    assert!(names(&directory).is_empty());
}

/// What is wrong with a network of this version whose only plugin is a script; nothing, if it is empty.
fn invalid(version: &str, script: &str) -> String {
    let world = World::new();
    world.script("plugin", script);
    let mut network = network(&["plugin"]);
    network["cniVersion"] = version.into();
    let network = attachment(&network, "pod", &[]).network;
    world.runtime().validate(&network).err().map(|error| text(&error)).unwrap_or_default()
}

#[test]
fn plugins_are_asked_what_they_speak_and_whether_they_are_ready() {
    const SPEAKS: &str = r#"
        [ $CNI_COMMAND = VERSION ] && echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}' && exit
        [ $CNI_COMMAND = STATUS ] && grep -q '"name":"lan"' || exit 9
        [ -e /no/such/file ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"no addresses left"}'; exit 1; }"#;
    assert_eq!(invalid("1.0.0", SPEAKS), "");
    let error = invalid("0.3.1", SPEAKS);
    assert!(error.contains("does not speak the configuration's version 0.3.1, but 0.4.0, 1.0.0"), "{error}");
    let error = invalid("1.1.0", SPEAKS);
    assert!(error.contains("failed to be ready: no addresses left (code 50)"), "{error}");

    const OLD: &str = r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#;
    assert_eq!(invalid("0.1.0", OLD), "");
    assert!(invalid("0.2.0", OLD).contains("but 0.1.0"));
    for (script, expected) in
        [("exit 3", "exit status 3"), ("echo '{}'", "supportedVersions"), ("echo no", "supportedVersions")]
    {
        let error = invalid("1.0.0", script);
        assert!(error.contains("failed to tell its versions") && error.contains(expected), "{error}");
    }
    let world = World::new();
    let missing = attachment(&network(&["nobody"]), "pod", &[]).network;
    assert!(world.runtime().validate(&missing).unwrap_err().to_string().contains("\"nobody\""));
}
