use super::*;
use crate::cli::{self, Stage1, Stage1Image};

/// Directories of the vendor, the administrator and the user.
struct World(tempfile::TempDir);

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for (name, json) in files {
            let path = world.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, json).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn globals(&self) -> Globals {
        let flag = |name: &str| format!("--{name}-config={}", self.path(name).display());
        let line = ["rkt".into(), flag("system"), flag("local"), flag("user"), "config".into()];
        cli::parse(&line).unwrap().0
    }

    fn error(&self) -> String {
        crate::render("config", &load(&self.globals()).unwrap_err())
    }
}

fn auth(domain: &str, user: &str) -> String {
    format!(
        r#"{{"rktKind":"auth","rktVersion":"v1","domains":["{domain}","x.{domain}"],"type":"basic",
        "credentials":{{"user":"{user}","password":"p"}}}}"#
    )
}

#[test]
fn nothing_is_configured() {
    let world = World::new(&[]);
    assert_eq!(load(&world.globals()).unwrap().to_json().to_string(), r#"{"stage0":[]}"#);
    assert_eq!(data_directory(&world.globals()).unwrap(), None);
    assert_eq!(stage1(&world.globals()).unwrap(), None);
    assert_eq!(cpu_template(&world.globals()).unwrap(), None);
}

#[test]
fn later_directories_win() {
    let paths = |data: &str| format!(r#"{{"rktKind":"paths","rktVersion":"v1","data":"{data}"}}"#);
    let world = World::new(&[
        ("system/auth.d/a.json", &auth("a.example", "vendor")),
        ("system/paths.d/p.json", &paths("/vendor")),
        ("system/stage1.d/s.json", r#"{"rktKind":"stage1","rktVersion":"v1","name":"kvm"}"#),
        ("system/stage1.d/notes.txt", "not a configuration"),
        ("local/paths.d/p.json", &paths("/local")),
        (
            "local/auth.d/d.json",
            r#"{"rktKind":"dockerAuth","rktVersion":"v1","registries":["r"],
            "credentials":{"user":"u","password":"p"}}"#,
        ),
        ("user/auth.d/a.json", &auth("a.example", "me").replace(r#","x.a.example""#, "")),
    ]);
    assert_eq!(data_directory(&world.globals()).unwrap(), Some("/local".into()));
    assert_eq!(stage1(&world.globals()).unwrap(), Some(Stage1Choice::Ours(Stage1::Kvm)));
    let json = load(&world.globals()).unwrap().to_json();
    let entries = json["stage0"].as_array().unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry["rktKind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["auth", "auth", "dockerAuth", "paths", "stage1"]);
    assert_eq!((&entries[0]["credentials"]["user"], &entries[0]["type"]), (&"me".into(), &"basic".into()));
    assert_eq!(entries[1]["credentials"]["user"], "vendor");
    assert_eq!(entries[3]["source"], world.path("local/paths.d/p.json").to_str().unwrap());
}

#[test]
fn the_processor_is_said_apart_from_the_isolation() {
    let world = World::new(&[
        ("system/stage1.d/s.json", &stage1d(r#""name":"kvm","cpuTemplate":"x86-64-v2""#)),
        ("local/stage1.d/processor.json", &stage1d(r#""cpuTemplate":"x86-64-v3""#)),
        ("user/stage1.d/isolation.json", &stage1d(r#""name":"nspawn""#)),
    ]);
    assert_eq!(stage1(&world.globals()).unwrap(), Some(Stage1Choice::Ours(Stage1::Nspawn)));
    assert_eq!(cpu_template(&world.globals()).unwrap(), Some(CpuTemplate::V3));
    let json = load(&world.globals()).unwrap().to_json();
    assert_eq!(json["stage0"][1]["cpuTemplate"], "x86-64-v3");
    assert_eq!(json["stage0"][1]["source"], world.path("local/stage1.d/processor.json").to_str().unwrap());
}

#[test]
fn files_that_are_not_good() {
    for (name, json, expected) in [
        ("local/paths.d/p.json", "{", "not a good configuration file"),
        ("local/paths.d/p.json", "[]", "not an object"),
        ("local/paths.d/p.json", r#"{"rktKind":"paths"}"#, "no rktVersion"),
        ("local/paths.d/p.json", r#"{"rktKind":"paths","rktVersion":"v2"}"#, "v2"),
        ("local/paths.d/p.json", r#"{"rktKind":"stage1","rktVersion":"v1"}"#, "\"stage1\" in paths.d"),
        ("local/paths.d/p.json", r#"{"rktKind":"paths","rktVersion":"v1","data":"x"}"#, "not absolute"),
        (
            "local/paths.d/p.json",
            r#"{"rktKind":"paths","rktVersion":"v1","stage1-images":"x"}"#,
            "not absolute",
        ),
        (
            "local/stage1.d/s.json",
            r#"{"rktKind":"stage1","rktVersion":"v1"}"#,
            "neither name nor location nor cpuTemplate",
        ),
        ("local/stage1.d/s.json", r#"{"rktKind":"stage1","rktVersion":"v1","cpuTemplate":"v3"}"#, "v3"),
        ("local/auth.d/a.json", &auth("a", "u").replace("basic", "magic"), "magic"),
        ("local/auth.d/a.json", &auth("a", "u").replace(r#"["a","x.a"]"#, "[]"), "no server"),
        ("local/auth.d/a.json", &auth("a", "u").replace("x.a", "a"), "of a already"),
    ] {
        let world = World::new(&[(name, json)]);
        let error = world.error();
        assert!(error.contains(expected) && error.contains(name), "{json}: {error}");
    }
}

#[test]
fn nothing_is_said_twice_in_one_directory() {
    let paths = r#"{"rktKind":"paths","rktVersion":"v1","data":"/x"}"#;
    let stage1 = r#"{"rktKind":"stage1","rktVersion":"v1","name":"kvm"}"#;
    for (directory, json) in [("paths.d", paths), ("stage1.d", stage1), ("auth.d", &auth("a", "u"))] {
        let files = ["1", "2"].map(|name| format!("local/{directory}/{name}.json"));
        let world = World::new(&[(&files[0], json), (&files[1], json)]);
        let error = world.error();
        assert!(error.contains(&files[0]) && error.contains(&files[1]), "{error}");
    }
}

fn stage1d(what: &str) -> String {
    format!(r#"{{"rktKind":"stage1","rktVersion":"v1",{what}}}"#)
}

#[test]
fn stage1s_that_cannot_be() {
    for (what, expected) in [
        (r#""name":"coreos.com/rkt/stage1-fly""#, "there are kvm and nspawn"),
        (r#""name":"kvm","version":"1""#, "rkt's own"),
        (r#""name":"fly","location":"/a.aci""#, "rkt's own"),
        (r#""version":"1""#, "no name"),
        (r#""location":"a.aci""#, "absolute path"),
        (r#""location":"ftp://a.aci""#, "absolute path"),
    ] {
        let world = World::new(&[("local/stage1.d/s.json", &stage1d(what))]);
        let error = stage1(&world.globals()).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let world = World::new(&[
        ("system/stage1.d/s.json", &stage1d(r#""name":"kvm""#)),
        ("local/stage1.d/s.json", &stage1d(r#""location":"/a.aci""#)),
    ]);
    let error = stage1(&world.globals()).unwrap_err().to_string();
    assert!(error.contains("local/stage1.d") && error.contains("system/stage1.d"), "{error}");
}

#[test]
fn a_stage1_of_somebody_elses() {
    let world = World::new(&[
        ("system/stage1.d/s.json", &stage1d(r#""name":"example.com/a","version":"1","location":"/a.aci""#)),
        ("local/stage1.d/s.json", &stage1d(r#""location":"https://example.com/b.aci""#)),
        ("system/paths.d/p.json", r#"{"rktKind":"paths","rktVersion":"v1","stage1-images":"/x"}"#),
    ]);
    let (name, location) = (Some("example.com/a:1".into()), Some("https://example.com/b.aci".into()));
    let expected = Stage1Choice::Image(Stage1Image::Configured { name, location });
    assert_eq!(stage1(&world.globals()).unwrap(), Some(expected));
    assert_eq!(stage1_images(&world.globals()).unwrap(), Some("/x".into()));
    let json = load(&world.globals()).unwrap().to_json();
    let said = ["stage1-images", "version", "location"];
    let said = said
        .map(|key| json["stage0"].as_array().unwrap().iter().filter(|entry| !entry[key].is_null()).count());
    assert_eq!(said, [1, 1, 1], "{json}");
}
