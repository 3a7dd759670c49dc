//! What the processes do, and how that may end.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::dice::Dice;
use crate::harness::{Aci, BUSYBOX, Finished, Host, Process, image, stage1};

/// Why something may fail since somebody else does something at the same time. Each is in the table of `docs/troubleshooting.md`.
const DOCUMENTED: [&str; 12] = [
    "no matches found for",
    "cannot be removed",
    "is not prepared: it is",
    "not running",
    "cannot reach the pod",
    "the pod has ended",
    "cannot enter app",
    "only what has ended is exported",
    "is being run or removed",
    "has no manifest",
    "no image in the store has the ID",
    "no image in the store has this name",
];
const TROUBLESHOOTING: &str = include_str!("../../../../docs/troubleshooting.md");

/// What a pod's app ends with.
const STATUS: i32 = 7;
/// What `rkt stop` makes of it: the pod's parent, or the app, is ended by a signal.
const STOPPED: [i32; 4] = [-9, -15, 128 + 9, 128 + 15];

/// What all of them work on.
pub struct World {
    host: Host,
    other: Aci,
    other_id: String,
    busybox_id: String,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Run,
    RunByName,
    Prepare,
    RunPrepared,
    List,
    ListJson,
    Status,
    CatManifest,
    Enter,
    Stop,
    StopForced,
    Export,
    Rm,
    Gc,
    Mark,
    Expire,
    Fetch,
    ImageList,
    ImageCatManifest,
    ImageExtract,
    ImageVerify,
    ImageRm,
    ImageGc,
}

impl Action {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 23] = [
        Self::Run,
        Self::RunByName,
        Self::Prepare,
        Self::RunPrepared,
        Self::List,
        Self::ListJson,
        Self::Status,
        Self::CatManifest,
        Self::Enter,
        Self::Stop,
        Self::StopForced,
        Self::Export,
        Self::Rm,
        Self::Gc,
        Self::Mark,
        Self::Expire,
        Self::Fetch,
        Self::ImageList,
        Self::ImageCatManifest,
        Self::ImageExtract,
        Self::ImageVerify,
        Self::ImageRm,
        Self::ImageGc,
    ];

    /// One of them; half of the time one without which there would be nothing to do for the others.
    pub fn choose(dice: &mut Dice) -> Self {
        const FIRST: [Action; 4] = [Action::Run, Action::Run, Action::Prepare, Action::RunPrepared];
        if dice.below(2) == 0 { dice.one_of(&FIRST) } else { dice.one_of(&Self::ALL) }
    }

    /// What is run for it.
    pub fn command(self, world: &World, dice: &mut Dice) -> Command {
        let busybox = image(BUSYBOX);
        let script = dice.one_of(&["exit 7", "sleep 0.2; exit 7", "sleep 1; exit 7"]);
        let app = ["--exec=/bin/sh", "--", "-c", script];
        let pod = world.any_pod(dice);
        let mut command = world.host.rkt();
        match self {
            Self::Run => {
                command.args(["run", &stage1_flag(), &dice.one_of(&[busybox, world.other.path()])]).args(app)
            }
            Self::RunByName => command.args(["run", &stage1_flag(), "example.com/ace"]).args(app),
            Self::Prepare => command.args(["prepare", &stage1_flag(), &busybox]).args(app),
            Self::RunPrepared => command.args(["run-prepared", &pod]),
            Self::List => command.arg("list"),
            Self::ListJson => command.args(["list", "--format=json"]),
            Self::Status => command.args(["status", &pod]),
            Self::CatManifest => command.args(["cat-manifest", &pod]),
            Self::Enter => command.args(["enter", &pod, "/bin/true"]),
            Self::Stop => command.args(["stop", &pod]),
            Self::StopForced => command.args(["stop", "--force", &pod]),
            Self::Export => command.args(["export", "--overwrite", &pod, &world.output("export.aci")]),
            Self::Rm => command.args(["rm", &pod]),
            Self::Gc => command.args(["gc", "--grace-period=0s"]),
            Self::Mark => command.args(["gc", "--mark-only"]),
            Self::Expire => command.args(["gc", "--grace-period=0s", "--expire-prepared=0s"]),
            Self::Fetch => command.args(["fetch", &dice.one_of(&[busybox, world.other.path()])]),
            Self::ImageList => command.args(["image", "list", "--format=json"]),
            Self::ImageCatManifest => command.args(["image", "cat-manifest", world.any_image(dice)]),
            Self::ImageExtract => command.args([
                "image",
                "extract",
                "--overwrite",
                world.any_image(dice),
                &world.output("tree"),
            ]),
            Self::ImageVerify => command.args(["image", "verify", world.any_image(dice)]),
            Self::ImageRm => command.args(["image", "rm", world.any_image(dice)]),
            Self::ImageGc => command.args(["image", "gc", "--grace-period=0s"]),
        };
        command
    }

    /// Whether it ended as it may.
    pub fn judge(self, finished: &Finished) -> Result<(), &'static str> {
        let is_stopped = STOPPED.contains(&finished.code);
        match self {
            Self::Run if finished.code == STATUS || is_stopped => return Ok(()),
            Self::Run => return Err("a pod that runs from a file cannot fail"),
            Self::RunByName | Self::RunPrepared if finished.code == STATUS || is_stopped => return Ok(()),
            // The app that was entered may be stopped.
            Self::Enter if is_stopped => return Ok(()),
            Self::List
            | Self::ListJson
            | Self::Prepare
            | Self::Gc
            | Self::Mark
            | Self::Expire
            | Self::Fetch
            | Self::ImageList
            | Self::ImageGc
                if finished.code != 0 =>
            {
                return Err("what asks for nothing that others could take away cannot fail");
            }
            Self::List | Self::ListJson if !finished.stderr.is_empty() => {
                return Err("a list has nothing to complain of");
            }
            Self::ListJson | Self::ImageList
                if serde_json::from_slice::<Value>(&finished.stdout).is_err() =>
            {
                return Err("no JSON");
            }
            _ if finished.code == 0 => return Ok(()),
            _ => {}
        }
        let is_documented = DOCUMENTED.iter().any(|reason| finished.stderr.contains(reason));
        if finished.code == 254 && is_documented { Ok(()) } else { Err("nobody has documented that") }
    }
}

fn stage1_flag() -> String {
    format!("--stage1={}", stage1())
}

impl World {
    /// With two images, of which only files are there yet.
    pub fn new() -> Self {
        let host = Host::empty();
        let other = Aci::new(json!({ "exec": ["/bin/true"], "user": "0", "group": "0" }), &[]);
        let id = |file: &str| {
            let fetched = Process::start(host.rkt().args(["fetch", "--full", file])).finish().success();
            fetched.text().trim().to_owned()
        };
        let (other_id, busybox_id) = (id(&other.path()), id(&image(BUSYBOX)));
        fs::create_dir(host.path().join("output")).unwrap();
        Self { host, other, other_id, busybox_id }
    }

    /// A pod that was there a moment ago, if there is any; else one that never was.
    fn any_pod(&self, dice: &mut Dice) -> String {
        let pods = self.host.pods();
        if pods.is_empty() {
            return "00000000-0000-0000-0000-000000000000".into();
        }
        dice.one_of(&pods).file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn any_image<'a>(&'a self, dice: &mut Dice) -> &'a str {
        dice.one_of(&[self.other_id.as_str(), self.busybox_id.as_str(), "example.com/ace"])
    }

    /// Where something is written to, by all who write it.
    fn output(&self, name: &str) -> String {
        self.host.path().join("output").join(name).to_str().unwrap().to_owned()
    }

    /// What is in the store by now is whole, and what has been documented is documented.
    pub fn verify(&self) {
        for reason in DOCUMENTED {
            assert!(TROUBLESHOOTING.contains(reason), "docs/troubleshooting.md does not have: {reason}");
        }
        for file in [self.other.path(), image(BUSYBOX)] {
            Process::start(self.host.rkt().args(["fetch", &file])).finish().success();
        }
        for id in [&self.other_id, &self.busybox_id] {
            Process::start(self.host.rkt().args(["image", "verify", id])).finish().success();
        }
        Process::start(self.host.rkt().args(["image", "rm", &self.other_id, &self.busybox_id]))
            .finish()
            .success();
        let left = fs::read_dir(self.host.path().join("cas/tmp")).into_iter().flatten().count();
        assert_eq!(left, 0, "unfinished imports");
    }
}
