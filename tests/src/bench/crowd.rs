//! What it costs to be one among many: a data directory with a thousand images and ten thousand pods that have ended.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Summary, run, time_ms};
use crate::{Bench, Error, aci, timeline};

const IMAGES: usize = 1000;
const PODS: u32 = 10_000;
const RUNS: usize = 3;
/// The marks of `--timeline` that matter: what comes before the stage1 does.
const EXEC: &str = "exec";

/// The milliseconds of each run.
#[derive(Debug, Default)]
pub struct Crowd {
    /// `rkt version`, from start to exit: what every command costs before it does anything.
    pub start_up: Vec<f64>,
    /// `rkt run` to the exec of stage1, by what its image is named: a file, an ID, a name.
    pub to_exec: [Vec<f64>; IMAGE_KINDS.len()],
    /// Of [`QUESTIONS`].
    pub questions: [Vec<f64>; QUESTIONS.len()],
}

/// How an image is named.
pub const IMAGE_KINDS: [&str; 3] = ["file", "ID", "name"];
/// What is asked of all pods.
pub const QUESTIONS: [(&str, &[&str]); 3] = [
    ("list", &["list"]),
    ("list --format=json", &["list", "--format=json"]),
    // As many characters as `rkt list` shows.
    ("status of a UUID's beginning", &["status", "00001234"]),
];

/// Makes the directory, which stays, and runs pods in it.
pub fn measure(bench: &Bench) -> Result<Crowd, Error> {
    let data = bench.work.join("crowd");
    let named = make(bench, &data)?;
    ask(bench, &data, &named)
}

/// The image that pods are run from, by each of [`IMAGE_KINDS`].
type Named = [String; IMAGE_KINDS.len()];

fn ask(bench: &Bench, data: &Path, named: &Named) -> Result<Crowd, Error> {
    let mut crowd = Crowd::default();
    for round in 0..=RUNS {
        let mut times = Vec::new();
        times.push(time_ms(Bench::rkt_in(&bench.rkt, data).arg("version"))?);
        for image in named {
            times.push(to_exec(&mut busybox(bench, data, image))?);
        }
        for (_, words) in QUESTIONS {
            times.push(time_ms(Bench::rkt_in(&bench.rkt, data).args(words))?);
        }
        // The first round is to warm up.
        if round > 0 {
            let columns = std::iter::once(&mut crowd.start_up).chain(&mut crowd.to_exec);
            let columns = columns.chain(&mut crowd.questions);
            columns.zip(times).for_each(|(column, time)| column.push(time));
        }
    }
    Ok(crowd)
}

/// A pod of busybox's /bin/true, which says when it did what.
fn busybox(bench: &Bench, data: &Path, image: &str) -> Command {
    let mut command = Bench::rkt_in(&bench.rkt, data);
    command.args(["run", "--stage1=nspawn", "--timeline", image, "--exec=/bin/true"]);
    command
}

fn to_exec(command: &mut Command) -> Result<f64, Error> {
    let output = run(command)?;
    let marks = timeline::parse(&String::from_utf8_lossy(&output.stderr));
    let exec = marks.iter().find(|mark| mark.0 == EXEC).map(|mark| mark.1);
    exec.ok_or_else(|| "the timeline has no exec".into())
}

/// Fetches the images and makes the pods.
fn make(bench: &Bench, data: &Path) -> Result<Named, Error> {
    let archives = bench.work.join("crowd-images");
    fs::create_dir(&archives)?;
    let files = (0..IMAGES).map(|number| archive(&archives, number)).collect::<Result<Vec<_>, Error>>()?;
    run(Bench::rkt_in(&bench.rkt, data).arg("fetch").args(files))?;
    fs::remove_dir_all(&archives)?;
    let file = bench.images.join("busybox.aci");
    let id = run(Bench::rkt_in(&bench.rkt, data).arg("fetch").arg(&file))?.stdout;
    let named =
        [file.display().to_string(), String::from_utf8(id)?.trim().into(), "example.com/busybox".into()];
    make_pods(&bench.rkt, &file, data)?;
    Ok(named)
}

/// Runs a pod, and has it there many times over.
pub fn make_pods(rkt: &Path, image: &Path, data: &Path) -> Result<(), Error> {
    let mut command = Bench::rkt_in(rkt, data);
    run(command.args(["run", "--stage1=nspawn"]).arg(image).arg("--exec=/bin/true"))?;
    let pods = data.join("pods/run");
    let first = fs::read_dir(&pods)?.next().ok_or("the pod is not there")??.path();
    for number in 1..PODS {
        copy(&first, &pods.join(uuid(number)))?;
    }
    Ok(())
}

fn uuid(number: u32) -> String {
    format!("{number:08}-0000-4000-8000-000000000000")
}

/// An image of nothing but a name.
fn archive(directory: &Path, number: usize) -> Result<PathBuf, Error> {
    let path = directory.join(format!("{number}.aci"));
    aci::begin(File::create(&path)?, &format!("example.com/crowd-{number}"))?.finish()?;
    Ok(path)
}

/// A directory once more; its files are the same, by hard links.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o750).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            copy(&entry.path(), &path)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &path)?;
        } else if kind.is_file() {
            fs::hard_link(entry.path(), &path)?;
        }
    }
    Ok(())
}

impl Crowd {
    /// Each row: its name, and what it comes to.
    pub fn rows(&self) -> impl Iterator<Item = (String, Option<Summary>)> {
        let start_up = std::iter::once(("version, from start to exit".to_owned(), &self.start_up));
        let runs = IMAGE_KINDS.iter().zip(&self.to_exec);
        let runs = runs.map(|(kind, times)| (format!("run by an image's {kind}, to exec"), times));
        let questions = QUESTIONS.iter().zip(&self.questions);
        let questions = questions.map(|((name, _), times)| ((*name).to_owned(), times));
        start_up.chain(runs).chain(questions).map(|(name, times)| (name, Summary::of(times)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_files_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/c"), "x").unwrap();
        symlink("b/c", path("a/link")).unwrap();
        copy(&path("a"), &path("z")).unwrap();
        assert_eq!(fs::read(path("z/b/c")).unwrap(), b"x");
        assert_eq!(fs::read_link(path("z/link")).unwrap(), Path::new("b/c"));
    }

    #[test]
    fn rows_have_names() {
        let crowd =
            Crowd { start_up: vec![1.0], to_exec: [vec![2.0], vec![3.0], vec![4.0]], ..Crowd::default() };
        let rows: Vec<_> = crowd.rows().collect();
        assert_eq!((rows.len(), rows[2].0.as_str()), (7, "run by an image's ID, to exec"));
        assert_eq!(rows[2].1.unwrap().median, 3.0);
    }
}
