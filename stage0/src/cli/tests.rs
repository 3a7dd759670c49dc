use super::*;

fn parse_line(line: &str) -> Result<(Globals, Action), Stop> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&words)
}

fn run(line: &str) -> (Globals, RunFlags, PodLine) {
    match parse_line(line).unwrap() {
        (globals, Action::Run { flags, line }) => (globals, *flags, line),
        (_, other) => panic!("{other:?}"),
    }
}

fn refused(line: &str) -> String {
    let stop = parse_line(line).unwrap_err();
    assert_eq!((stop.to_stdout, stop.code), (false, EXIT_ERROR), "{line}");
    stop.text
}

#[test]
fn the_whole_of_run() {
    let (globals, flags, PodLine { flags: pod, apps, .. }) = run(
        "rkt --dir /d run --stage1=kvm --set-env A=1 a --exec /x --cpu 500m -- -l --- b.aci --name=n --net=none \
         --insecure-options=image,paths --hostname h",
    );
    assert_eq!(globals.directory, PathBuf::from("/d"));
    assert!(globals.insecure.image && globals.insecure.run.paths && !globals.insecure.run.seccomp);
    assert_eq!(
        (pod.stage1.choice(), flags.hostname.as_deref()),
        (Some(&Stage1Choice::Ours(Stage1::Kvm)), Some("h"))
    );
    assert_eq!(pod.set_env.len(), 1);
    let [a, b] = &apps[..] else { panic!("{apps:?}") };
    assert_eq!(
        (a.image.as_str(), a.flags.exec.as_deref(), &a.arguments[..]),
        ("a", Some("/x"), &["-l".to_owned()][..])
    );
    assert_eq!(a.flags.cpu.and_then(pod::quantity::Quantity::milli), Some(500));
    assert_eq!(b.flags.name.as_ref().map(pod::types::AcName::as_str), Some("n"));
}

#[test]
fn arguments_keep_everything() {
    let (.., line) = run("rkt run a -- --debug -- --help --dir=/x");
    assert_eq!(line.apps[0].arguments, ["--debug", "--", "--help", "--dir=/x"]);
    let (globals, ..) = run("rkt run --debug a");
    assert!(globals.debug);
    let (globals, ..) = run("rkt run a --debug");
    assert!(globals.debug);
    assert!(!run("rkt run --debug=false a --readonly-rootfs").0.debug);
}

#[test]
fn defaults_and_abbreviations() {
    let (globals, flags, PodLine { flags: pod, apps, .. }) = run("rkt run a");
    assert_eq!(globals.directory, PathBuf::from("/var/lib/rkt"));
    assert_eq!((pod.stage1.choice(), flags.net.clone(), flags.interactive), (None, None, false));
    assert_eq!(apps.len(), 1);
    assert!(matches!(parse_line("rkt im li"), Ok((_, Action::Image(ImageCommand::List(_))))));
    assert!(matches!(parse_line("rkt version --dir=/x"), Ok((_, Action::Version))));
    let (globals, _) = parse_line("rkt --dir=x list").unwrap();
    assert!(globals.directory.is_absolute());
}

#[test]
fn networks() {
    let (_, flags, line) = run("rkt run --net a --port=web:80 --- b");
    assert_eq!(
        (flags.net(Stage1::Nspawn).to_string().as_str(), line.flags.port.len(), line.apps.len()),
        ("default", 1, 2)
    );
    assert_eq!(flags.net(Stage1::Fly).to_string(), "default");
    let (_, unsaid, _) = run("rkt run --stage1=fly a");
    assert_eq!(unsaid.net(Stage1::Fly), pod::net::Net::Host);
    assert_eq!(unsaid.net(Stage1::Kvm), pod::net::Net::None);
    assert_eq!(run("rkt run --stage1=fly --net=none a").1.net(Stage1::Fly), pod::net::Net::None);
    let (globals, flags, _) = run("rkt --local-config=/c run --net=a,b:IP=192.0.2.7 x");
    assert_eq!(
        (flags.net(Stage1::Nspawn).to_string().as_str(), globals.local_config),
        ("a,b:IP=192.0.2.7", "/c".into())
    );
}

#[test]
fn mounts_for_all_apps_and_for_one() {
    let line = "rkt run --mount=volume=v,target=/all a --mount volume=v,target=/one b --volume=v,kind=empty";
    let PodLine { flags, mounts, apps } = run(line).2;
    assert_eq!((flags.volume.len(), mounts.len(), mounts[0].path.as_str()), (1, 1, "/all"));
    assert_eq!((apps[0].flags.mount.len(), apps[1].flags.mount.len()), (1, 0));
}

#[test]
fn what_is_prepared_and_what_is_run() {
    let Ok((Globals { quiet, .. }, Action::Prepare(line))) =
        parse_line("rkt prep --quiet --stage1=kvm a -- --net --- b --set-env=A=1")
    else {
        panic!("not taken")
    };
    assert_eq!(
        (quiet, line.flags.stage1.choice(), line.flags.set_env.len(), line.apps.len()),
        (true, Some(&Stage1Choice::Ours(Stage1::Kvm)), 1, 2)
    );
    assert_eq!(line.apps[0].arguments, ["--net"]);
    let Ok((_, Action::RunPrepared { pod, flags })) = parse_line("rkt run-p --net=host --hostname=h 1234")
    else {
        panic!("not taken")
    };
    assert_eq!((pod, flags.hostname.as_deref()), (PodChoice::Uuid("1234".into()), Some("h")));
    for (line, expected) in [
        ("rkt prepare --net a", "--net"),
        ("rkt prepare a --hostname=h", "--hostname"),
        ("rkt prepare --interactive a", "--interactive"),
        ("rkt run --quiet a", "--quiet"),
        ("rkt prepare", "at least one image"),
        ("rkt prepare --exec=/x a", "--exec must follow an image"),
        ("rkt run --pod-manifest=m --volume=v,kind=empty", "--volume"),
        ("rkt run --pod-manifest=m --mount=volume=v,target=/", "--mount"),
        ("rkt prepare --pod-manifest=m --set-env=A=1", "--set-env"),
        ("rkt prepare --pod-manifest=m --inherit-env", "--inherit-env"),
        ("rkt prepare --pod-manifest=m --exit-policy=on-any", "--exit-policy"),
        ("rkt run --pod-manifest=m busybox.aci", "busybox.aci"),
        ("rkt run busybox.aci --pod-manifest=m", "--pod-manifest"),
        ("rkt run-prepared --volume=v,kind=empty 1234", "--volume"),
        ("rkt prepare --dns=none a", "--dns"),
        ("rkt run-prepared", "UUID"),
    ] {
        let text = refused(line);
        assert!(text.contains(expected), "{line}: {text}");
    }
    assert!(refused("rkt prepare --net a").starts_with("prepare: "));
    let line = run("rkt run --stage1=kvm --pod-manifest=m --net").2;
    assert!(line.flags.pod_manifest.is_some() && line.apps.is_empty());
}

#[test]
fn refusals() {
    for (line, expected) in [
        ("rkt run", "at least one image"),
        ("rkt run --exec=/x a", "--exec must follow an image"),
        ("rkt run --stage1=https://example.com/a.aci a", "not there yet"),
        ("rkt run a --stage1-url=http://example.com/a.aci", "not there yet"),
        ("rkt run --stage1=kvm a --stage1-name=b", "cannot be used with"),
        ("rkt prepare --stage1-name=b --stage1-name=b a", "--stage1-name"),
        ("rkt app sandbox --stage1-hash=b", "sha512-"),
        ("rkt run --net=a,host a", "stands alone"),
        ("rkt run --net=a:IP a", "NAME=VALUE"),
        ("rkt run --port=80 a", "NAME:[HOSTIP:]PORT"),
        ("rkt run --volume=x a", "needs kind"),
        ("rkt run a --volume=x,kind=host", "needs source"),
        ("rkt run --mount=volume=x a", "target=PATH"),
        ("rkt run a --mount=volume=x,target=y", "absolute"),
        ("rkt run a --memory=lots", "quantity"),
        ("rkt run --insecure-options=signature a", "all-fetch"),
        ("rkt --insecure-options= run a", "all-fetch"),
        ("rkt run a --name=A_B", "AC Name"),
        ("rkt run a --working-dir=x", "absolute"),
        ("rkt run --net=none a --net=host", "--net"),
        ("rkt run a --caps-retain=CAP_FLY", "CAP_FLY"),
        ("rkt run a --caps-retain=CAP_KILL --caps-remove=CAP_KILL", "--caps-remove"),
        ("rkt run a --seccomp=mkdir", "mode=retain"),
        ("rkt run a --rlimit=FILES=3", "NOFILE"),
        ("rkt run a --rlimit=RSS=3", "does not enforce"),
        ("rkt run a --restart=maybe", "on-failure"),
        ("rkt run a --kill-signal=SIGWHAT", "SIGTERM"),
        ("rkt run a --kill-timeout=25h", "a day"),
        ("rkt run --exit-policy=never a", "until-all"),
        ("rkt run --restart=always a", "--restart must follow an image"),
        ("rkt app stop", "UUID"),
        ("rkt app", "exec"),
        ("rkt launch", "launch"),
        ("rkt fetch", "IMAGE"),
        ("rkt run -- a", "an image is required before any app arguments"),
        ("rkt prepare --quiet -- a", "an image is required before any app arguments"),
        ("rkt app add 1 -- a", "an image is required before any app arguments"),
        ("rkt trust --prefix=example.com", "discovery"),
        ("rkt gc --grace-period=soon", "duration"),
        ("rkt image", "list"),
    ] {
        let text = refused(line);
        assert!(text.contains(expected), "{line}: {text}");
    }
    assert!(refused("rkt run --net=/x a").starts_with("run: "));
    let text = refused("rkt run a --caps-retain=CAP_KILL --caps-remove=CAP_KILL");
    assert!(text.contains("Usage: IMAGE [APP FLAGS] [-- ARGS...]"), "{text}");
}

#[test]
fn insecure_options_add_up() {
    let insecure = |line: &str| {
        let InsecureOptions { image, run } = parse_line(line).unwrap().0.insecure;
        (image, run.seccomp, run.paths)
    };
    for (line, expected) in [
        ("rkt --insecure-options=image list", (true, false, false)),
        ("rkt list --insecure-options=image,seccomp", (true, true, false)),
        ("rkt --insecure-options=image list --insecure-options=seccomp", (true, true, false)),
        ("rkt --insecure-options image image list --insecure-options=seccomp", (true, true, false)),
        (
            "rkt --insecure-options=image run --insecure-options=seccomp a --insecure-options=paths",
            (true, true, true),
        ),
        ("rkt --insecure-options=image --insecure-options=seccomp prep a", (true, true, false)),
    ] {
        assert_eq!(insecure(line), expected, "{line}");
    }
}

#[test]
fn no_command_and_help() {
    let stop = parse_line("rkt").unwrap_err();
    assert!(stop.code == 2 && stop.text.contains("Usage"), "{}", stop.text);
    for line in ["rkt --help", "rkt run --help", "rkt run a --help", "rkt help run"] {
        let stop = parse_line(line).unwrap_err();
        assert_eq!((stop.to_stdout, stop.code), (true, 0), "{line}");
        assert!(stop.text.contains("Usage"), "{line}");
    }
    assert!(parse_line("rkt run --help").unwrap_err().text.contains("--memory"));
}

/// The flags of a command are defined when it is used, which must not change what it is said to do.
#[test]
fn commands_say_what_they_do() {
    fn check(eager: &clap::Command, built: &clap::Command) {
        for command in eager.get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().unwrap().to_string();
            let built = built.find_subcommand(name).unwrap();
            assert_eq!(built.get_about().unwrap().to_string(), about, "{name}");
            check(command, built);
        }
    }
    check(&Cli::command(), &definition(true));
    let app = definition(true).find_subcommand("app").unwrap().clone();
    assert_eq!(
        app.find_subcommand("add").unwrap().get_about().unwrap().to_string().split(' ').next(),
        Some("Take")
    );
}

#[test]
fn what_users_note_of_apps_and_pods() {
    let apps =
        run("rkt run a --user-annotation=note=x=y --user-label tier=web b --user-label=tier=db").2.apps;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(apps[0].flags.notes.user_annotation, [pair("note", "x=y")]);
    assert_eq!(apps[0].flags.notes.user_label, [pair("tier", "web")]);
    assert_eq!(apps[1].flags.notes.user_label, [pair("tier", "db")]);
    assert!(refused("rkt run --user-label=a=b a").contains("--user-label must follow an image"));
    assert!(refused("rkt run a --user-label=a").contains("NAME=VALUE"));
    assert!(refused("rkt run a --user-annotation==a").contains("no name"));
    let (.., pod) = run("rkt app sandbox --annotation=a=b --user-annotation=c=d --user-label=e=f");
    assert_eq!(pod.flags.annotation.len(), 1);
    assert_eq!(
        (pod.flags.notes.user_annotation, pod.flags.notes.user_label),
        (vec![pair("c", "d")], vec![pair("e", "f")])
    );
}

#[test]
fn upstreams_older_names_and_forms() {
    let apps = run("rkt run a --cap-retain=CAP_KILL b --cap-remove CAP_KILL c --caps-retain=CAP_KILL").2.apps;
    let sets = |at: usize| (apps[at].flags.caps_retain.is_some(), apps[at].flags.caps_remove.is_some());
    assert_eq!([sets(0), sets(1), sets(2)], [(true, false), (false, true), (true, false)]);
    assert!(matches!(parse_line("rkt stop --force=true 1"), Ok((_, Action::Stop { force: true, .. }))));
    assert!(matches!(parse_line("rkt stop --force=false 1"), Ok((_, Action::Stop { force: false, .. }))));
    assert!(matches!(parse_line("rkt stop 1"), Ok((_, Action::Stop { force: false, .. }))));
    assert!(matches!(
        parse_line("rkt gc --mark-only"),
        Ok((_, Action::Gc(Collection { mark_only: true, .. })))
    ));
    assert!(matches!(parse_line("rkt fetch a"), Ok((_, Action::Fetch(FetchFlags { full: true, .. })))));
    assert!(matches!(
        parse_line("rkt fetch --full=false a"),
        Ok((_, Action::Fetch(FetchFlags { full: false, .. })))
    ));
}

#[test]
fn booleans_in_gos_words() {
    let full = |word: &str| parse_line(&format!("rkt list --full{word}")).map(|(_, action)| action);
    for (word, expected) in [
        ("", true),
        ("=true", true),
        ("=1", true),
        ("=T", true),
        ("=false", false),
        ("=0", false),
        ("=F", false),
    ] {
        assert!(matches!(full(word), Ok(Action::List(ListFlags { full, .. })) if full == expected), "{word}");
    }
    let stop = full("=yes").unwrap_err();
    assert!(stop.text.contains("[possible values: true, false]"), "{}", stop.text);
    assert!(
        run("rkt run --private-users=t --inherit-env=False a --readonly-rootfs=1").2.apps[0]
            .flags
            .readonly_rootfs
    );
    run("rkt run --no-overlay=0 a");
    assert!(refused("rkt run --no-overlay=1 a").contains("overlay"));
}

#[test]
fn signatures_are_of_the_images_before_them() {
    let fetch = |line| match parse_line(line) {
        Ok((globals, Action::Fetch(flags))) => (globals, flags),
        other => panic!("{line}: {other:?}"),
    };
    let (globals, flags) = fetch("rkt fetch --full=false a b --signature s --debug c --signature=t");
    let signed = |image: &str, file: Option<&str>| (image.to_owned(), file.map(PathBuf::from));
    assert_eq!(flags.images, [signed("a", None), signed("b", Some("s")), signed("c", Some("t"))]);
    assert!(globals.debug && !flags.full);
    assert!(!fetch("rkt fetch a --full=false").1.full);
    for (line, expected) in [
        ("rkt fetch", "must provide at least one image"),
        ("rkt fetch --signature=s a", "--signature must follow an image"),
        ("rkt fetch a --exec=/bin/sh", "unknown flag --exec"),
        ("rkt fetch a -- b", "takes no arguments"),
        ("rkt fetch a --pull-policy=sometimes", "sometimes"),
    ] {
        assert!(refused(line).contains(expected), "{line}: {}", refused(line));
    }
}

#[test]
fn what_upstream_has_and_rkt_has_not() {
    for (line, expected) in [
        ("rkt run --no-overlay a", "overlay"),
        ("rkt prepare --no-overlay=true a", "overlay"),
        ("rkt app sandbox --no-overlay", "overlay"),
        ("rkt list --cpuprofile=f", "--timeline"),
        ("rkt --memprofile f list", "--timeline"),
        ("rkt api-service --listen=localhost:15441", "--format=json"),
    ] {
        assert!(refused(line).contains(expected), "{line}");
    }
    run("rkt run --no-overlay=false a");
}
