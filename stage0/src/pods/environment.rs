//! The variables that the command line gives all apps of a pod, and in what order they win.

use std::fs;
use std::path::Path;

use pod::image_manifest::{EnvironmentVariable, check_variable_name};
use pod::sockets::VARIABLES;

use super::Error;
use crate::cli::PodFlags;

/// What of all apps' environments comes from the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnvironment {
    /// Where the image says nothing (`--inherit-env`).
    inherited: Vec<EnvironmentVariable>,
    /// Whatever the image says (`--set-env-file`, `--set-env`).
    set: Vec<EnvironmentVariable>,
}

impl PodEnvironment {
    /// What the pod's flags say.
    pub fn of(flags: &PodFlags) -> Result<Self, Error> {
        check_unique(&flags.set_env, "--set-env")?;
        let mut set = flags.set_env_file.as_deref().map(read).transpose()?.unwrap_or_default();
        put(&mut set, &flags.set_env);
        Ok(Self { inherited: if flags.inherit_env { own() } else { Vec::new() }, set })
    }

    /// Completes an image's environment. From low to high: inherited, the image's, the file's, `--set-env`, the app's own
    /// `--environment`.
    pub fn apply(&self, environment: &mut Vec<EnvironmentVariable>, of_app: &[EnvironmentVariable]) {
        let of_image = std::mem::replace(environment, self.inherited.clone());
        for variables in [of_image.as_slice(), &self.set, of_app] {
            put(environment, variables);
        }
    }
}

/// Adds variables, in place of those that have their names.
fn put(environment: &mut Vec<EnvironmentVariable>, variables: &[EnvironmentVariable]) {
    for variable in variables {
        environment.retain(|old| old.name != variable.name);
        environment.push(variable.clone());
    }
}

/// Whether systemd reaches the service that it has started by this variable: rkt, not its apps.
fn is_of_service(name: &str) -> bool {
    name == "NOTIFY_SOCKET" || VARIABLES.contains(&name)
}

/// This process's own variables; those that a manifest cannot have, in name or value, are left out.
fn own() -> Vec<EnvironmentVariable> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        check_variable_name(&name).ok().filter(|()| !is_of_service(&name))?;
        Some(EnvironmentVariable { name, value })
    });
    variables.collect()
}

/// `NAME=VALUE` lines; those that are empty, or begin with `#` or `;`, say nothing.
fn read(path: &Path) -> Result<Vec<EnvironmentVariable>, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let wrong = |what: String| Error::EnvironmentFile { path: path.to_owned(), line: number, what };
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("it is not NAME=VALUE".into()))?;
        check_variable_name(name).map_err(|error| wrong(error.to_string()))?;
        variables.push(EnvironmentVariable { name: name.into(), value: value.into() });
    }
    check_unique(&variables, "--set-env-file")?;
    Ok(variables)
}

/// That no variable is set twice by the same flag.
pub fn check_unique(variables: &[EnvironmentVariable], flag: &'static str) -> Result<(), Error> {
    check_names(variables.iter().map(|variable| variable.name.as_str()), flag)
}

/// The same of anything that has names.
pub fn check_names<'a>(names: impl Iterator<Item = &'a str>, flag: &'static str) -> Result<(), Error> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| matches!(pair, [one, other] if one == other)) {
        Some(pair) => Err(Error::VariableTwice(pair.first().copied().unwrap_or_default().to_owned(), flag)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(texts: &[&str]) -> Vec<EnvironmentVariable> {
        let variable = |text: &&str| {
            let (name, value) = text.split_once('=').unwrap();
            EnvironmentVariable { name: name.into(), value: value.into() }
        };
        texts.iter().map(variable).collect()
    }

    #[test]
    fn who_wins() {
        let pod = PodEnvironment {
            inherited: variables(&["A=caller", "B=caller", "C=caller", "D=caller"]),
            set: variables(&["C=set", "D=set"]),
        };
        let mut environment = variables(&["B=image", "C=image"]);
        pod.apply(&mut environment, &variables(&["D=app"]));
        environment.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(environment, variables(&["A=caller", "B=image", "C=set", "D=app"]));
    }

    #[test]
    fn files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parse = |text: &str| {
            fs::write(file.path(), text).unwrap();
            read(file.path())
        };
        assert_eq!(parse("# x\n\n;y\nA=1=2\nB=\n").unwrap(), variables(&["A=1=2", "B="]));
        for (bad, expected) in [("A=1\nA", "line 2"), ("1A=x", "line 1"), ("A=1\nA=2", "\"A\" is set twice")]
        {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
        assert!(read(Path::new("/nowhere")).is_err());
    }
}
