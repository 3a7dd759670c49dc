use super::*;
use crate::abi::{Insecure, Ipc};
use crate::guest_network::{Interface, InterfaceName};
use crate::image_manifest::EnvironmentVariable;

pub(super) fn manifest() -> PodManifest {
    let json = format!(
        r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
        "app":{{"exec":["/a"],"user":"0","group":"0","environment":[{{"name":"HOME","value":"/h"}}]}}}}]}}"#,
        "0".repeat(64)
    );
    PodManifest::parse(json.as_bytes()).unwrap()
}

pub(super) fn world(isolation: Isolation, image: ImageSource) -> World {
    let layers = vec![Layers { image, writable: "/w/a".into() }];
    World {
        isolation,
        hostname: "h".into(),
        interactive: false,
        ipc: Ipc::Auto,
        insecure: Insecure::default(),
        layers,
        resolv_conf: None,
        metadata_url: None,
        hosts: None,
    }
}

fn namespaces() -> World {
    world(
        Isolation::Namespaces { pod_root: "/p".into(), volumes: Vec::new(), users: None },
        ImageSource::File("/i".into()),
    )
}

fn vm() -> World {
    let network = GuestNetwork::default();
    world(
        Isolation::Vm { scratch: "/dev/vda".into(), volumes: Vec::new(), network },
        ImageSource::Pmem("/dev/pmem0p2".into()),
    )
}

#[test]
fn the_metadata_service_is_where_nobody_else_can_say() {
    let mut manifest = manifest();
    let variable = |value: &str| EnvironmentVariable { name: "AC_METADATA_URL".into(), value: value.into() };
    manifest.apps[0].app.as_mut().unwrap().environment.push(variable("http://elsewhere"));
    let world = World { metadata_url: Some("http://192.0.2.1:7/x".into()), ..namespaces() };
    let plan = compute(&manifest, &world).unwrap();
    let environment = &plan.apps[0].process.environment;
    let found: Vec<_> = environment.iter().filter(|found| found.name == "AC_METADATA_URL").collect();
    assert_eq!(found, [&variable("http://192.0.2.1:7/x")]);
}

#[test]
fn an_app_gets_the_same_in_both_isolations() {
    let [mut inside, outside] =
        [vm(), namespaces()].map(|world| compute(&manifest(), &world).unwrap().apps.remove(0));
    assert!(inside.cgroup.is_some() && outside.cgroup.is_none());
    inside.cgroup = None;
    assert_eq!(inside, outside);
}

#[test]
fn the_kernels_files_are_read_only_or_hidden_unless_the_user_says_otherwise() {
    let protected = |world: &World| {
        let plan = compute(&manifest(), world).unwrap();
        let is = |wanted: fn(&Operation) -> bool| plan.apps[0].setup.iter().any(wanted);
        [
            is(
                |operation| matches!(operation, Operation::Protect { path } if path == Path::new("/apps/a/proc/sys")),
            ),
            is(
                |operation| matches!(operation, Operation::Hide { path, .. } if path == Path::new("/apps/a/sys/fs")),
            ),
        ]
    };
    let open = World { insecure: Insecure { paths: true, ..Insecure::default() }, ..namespaces() };
    assert_eq!([namespaces(), vm(), open].map(|world| protected(&world)), [[true; 2], [true; 2], [false; 2]]);
}

#[test]
fn only_harmless_devices_unless_the_user_says_otherwise() {
    let devices = |world: &World| compute(&manifest(), world).unwrap().apps.remove(0).devices;
    let open = World { insecure: Insecure { paths: true, ..Insecure::default() }, ..vm() };
    assert_eq!(devices(&namespaces()), Some(DevicePolicy::closed()));
    assert_eq!(devices(&vm()), Some(DevicePolicy::closed()));
    assert_eq!(devices(&open), None);
}

#[test]
fn apps_are_filtered_unless_the_user_says_otherwise() {
    let process = |insecure| {
        let world = World { insecure, ..namespaces() };
        compute(&manifest(), &world).unwrap().apps.remove(0).process
    };
    let filter = |insecure| process(insecure).filter;
    let closed = filter(Insecure::default());
    let privileged = filter(Insecure { capabilities: true, ..Insecure::default() });
    assert!(closed.is_some() && privileged.is_some() && closed != privileged);
    assert_eq!(filter(Insecure { seccomp: true, ..Insecure::default() }), None);
}

#[test]
fn only_a_guest_sets_its_network_up() {
    let interface = Interface {
        no_arp: false,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        name: InterfaceName::ethernet(0),
        mtu: None,
        addresses: vec!["192.0.2.5/24".parse().unwrap()],
        routes: Vec::new(),
    };
    let network = GuestNetwork { interfaces: vec![interface] };
    let isolation =
        Isolation::Vm { scratch: "/dev/vda".into(), volumes: Vec::new(), network: network.clone() };
    let plan = compute(&manifest(), &world(isolation, ImageSource::Pmem("/dev/pmem0p2".into()))).unwrap();
    assert_eq!(plan.network, network);
    let sent: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(sent, plan);
    assert_eq!(compute(&manifest(), &namespaces()).unwrap().network, GuestNetwork::default());
}

#[test]
fn rates_are_planned_where_there_is_a_machine_to_keep_them() {
    let with = |name: &str| {
        let rate = format!(r#"[{{"name":"{name}","value":{{"default":true,"limit":"1M"}}}}]"#);
        PodManifest { isolators: serde_json::from_str(&rate).unwrap(), ..manifest() }
    };
    for name in ["resource/block-bandwidth", "resource/block-iops"] {
        assert!(compute(&with(name), &vm()).is_ok());
        let error = compute(&with(name), &namespaces()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("--stage1=kvm"), "{error}");
    }
    // Its networks may keep a pod to it.
    assert!(compute(&with("resource/network-bandwidth"), &namespaces()).is_ok());
}

#[test]
fn the_root_is_changed_after_every_mount() {
    for world in [vm(), namespaces()] {
        let plan = compute(&manifest(), &world).unwrap();
        assert!(matches!(plan.setup[..], [.., Operation::Root { .. }, Operation::Hostname(_)]));
        assert!(matches!(plan.apps[0].setup[..], [.., Operation::Root { .. }]));
    }
    assert_eq!(compute(&manifest(), &namespaces()).unwrap().setup[0], Operation::SlaveRoot);
}

#[test]
fn a_tree_is_not_mounted() {
    let world = World {
        layers: vec![Layers { image: ImageSource::Tree("/t".into()), writable: "/w".into() }],
        ..namespaces()
    };
    let plan = compute(&manifest(), &world).unwrap();
    assert!(!plan.setup.iter().any(|operation| matches!(operation, Operation::Image { .. })));
    let lower = plan.setup.iter().find_map(|operation| match operation {
        Operation::Overlay { lower, .. } => Some(lower.clone()),
        _ => None,
    });
    assert_eq!(lower, Some(PathBuf::from("/t")));
}

#[test]
fn environment_priorities() {
    let process = compute(&manifest(), &vm()).unwrap().apps.remove(0).process;
    let value = |name: &str| process.environment.iter().find(|v| v.name == name).map(|v| v.value.clone());
    assert_eq!(value("HOME").as_deref(), Some("/h"));
    assert_eq!(value("AC_APP_NAME").as_deref(), Some("a"));
    assert!(value("PATH").is_some_and(|path| path.starts_with("/usr/local/sbin")));
}

#[test]
fn interactive_is_for_one_app() {
    let mut two = manifest();
    let mut second = two.apps[0].clone();
    second.name = "b".parse().unwrap();
    two.apps.push(second);
    let world = World { interactive: true, ..namespaces() };
    assert!(compute(&two, &world).unwrap_err().to_string().contains("exactly one app"));
}

#[test]
fn lives_are_part_of_the_plan() {
    let mut manifest = manifest();
    let annotation = |name: &str, value: &str| crate::image_manifest::NameValue {
        name: name.parse().unwrap(),
        value: value.into(),
    };
    manifest.annotations.push(annotation("rkt/pod/exit-policy", "on-any"));
    manifest.apps[0].annotations.push(annotation("rkt/app/restart", "always"));
    manifest.apps[0].annotations.push(annotation("rkt/app/kill-timeout-ms", "70000"));
    let plan = compute(&manifest, &vm()).unwrap();
    assert_eq!((plan.exit_policy, plan.grace_period_ms), (ExitPolicy::OnAny, 70_000));
    assert_eq!(plan.apps[0].life.restart, Restart::Always);
    let interactive = World { interactive: true, ..namespaces() };
    assert!(compute(&manifest, &interactive).unwrap_err().to_string().contains("--restart=no"));
    manifest.annotations[0].value = "never".into();
    assert!(compute(&manifest, &vm()).is_err());
}

#[test]
fn a_networks_name_servers_are_written_before_the_root_is_read_only() {
    let mut manifest = manifest();
    manifest.apps[0].read_only_root_fs = true;
    let world = World { resolv_conf: Some("nameserver 192.0.2.53\n".into()), ..namespaces() };
    let setup = compute(&manifest, &world).unwrap().apps.remove(0).setup;
    let position = |wanted: fn(&Operation) -> bool| setup.iter().position(wanted);
    let written = position(
        |operation| matches!(operation, Operation::File { path, .. } if path == Path::new("/apps/a/etc/resolv.conf")),
    );
    let read_only =
        position(|operation| matches!(operation, Operation::Bind { flags, .. } if flags.read_only));
    assert!(written.is_some() && written < read_only, "{setup:?}");
}

#[test]
fn plans_survive_the_wire() {
    let plan = compute(&manifest(), &vm()).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn files_of_a_confined_app_have_its_label() {
    let range = crate::users::UserRange { shift: 65536, count: 65536 };
    let private = Isolation::Namespaces {
        pod_root: "/p".into(),
        volumes: Vec::new(),
        users: Some(PrivateUsers { range, host_network: false }),
    };
    for world in [namespaces(), world(private, ImageSource::File("/i".into()))] {
        let mut manifest = manifest();
        let value = serde_json::json!({ "user": "u", "role": "r", "type": "t", "level": "s0:c1,c2" });
        let name = "os/linux/selinux-context".into();
        manifest.apps[0].app.as_mut().unwrap().isolators = vec![crate::isolator::RawIsolator { name, value }];
        let mut plan = compute(&manifest, &world).unwrap();
        plan.label(&"a:object_r:b:s0".parse().unwrap());
        let option = r#"context="a:object_r:b:s0:c1,c2""#;
        let labelled = |operations: &[Operation]| {
            let is_labelled = |operation: &Operation| match operation {
                Operation::Overlay { label, .. } => label.as_ref().unwrap().mount_option() == option,
                Operation::Mount { file_system, options, .. } => {
                    file_system == "tmpfs" && options.ends_with(option)
                }
                _ => false,
            };
            operations.iter().filter(|operation| is_labelled(operation)).count()
        };
        // The root and /dev/shm, and the app's /dev.
        let of_pod = labelled(&plan.outside) + labelled(&plan.setup);
        assert_eq!((of_pod, labelled(&plan.apps[0].setup)), (2, 1));
    }
}

#[test]
fn shared_memory_is_the_pods_or_the_parents() {
    let shared = |ipc| {
        let setup = compute(&manifest(), &World { ipc, ..namespaces() }).unwrap().setup;
        let is_bound = |operation: &Operation| matches!(operation, Operation::Bind { source, .. } if source == Path::new("/dev/shm"));
        setup.iter().any(is_bound)
    };
    assert_eq!([Ipc::Auto, Ipc::Private, Ipc::Parent].map(shared), [false, false, true]);
}
