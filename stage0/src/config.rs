//! Configuration files (upstream's "Configuration"): `*.json` in `auth.d`, `paths.d` and `stage1.d` of the vendor's, the
//! administrator's and the user's directory. What a later directory says replaces what an earlier one says of the same thing;
//! within one directory nothing may be said twice.

mod file;
mod merge;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pod::abi::CpuTemplate;

use crate::cli::{Globals, Stage1Choice};
use file::{Content, KINDS};
pub use merge::Config;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no JSON, or not of its kind.
    #[error("{} is not a good configuration file", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What it says cannot be.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The whole configuration.
pub fn load(globals: &Globals) -> Result<Config, Error> {
    load_kinds(globals, &KINDS.map(|(_, directory)| directory))
}

/// The data directory that is configured.
pub fn data_directory(globals: &Globals) -> Result<Option<PathBuf>, Error> {
    Ok(load_kinds(globals, &["paths.d"])?.data_directory())
}

/// The isolation that is configured.
pub fn stage1(globals: &Globals) -> Result<Option<Stage1Choice>, Error> {
    load_kinds(globals, &["stage1.d"])?.stage1()
}

/// The directory of stage1 images that is configured.
pub fn stage1_images(globals: &Globals) -> Result<Option<PathBuf>, Error> {
    Ok(load_kinds(globals, &["paths.d"])?.stage1_images())
}

/// The processor that is configured for guests.
pub fn cpu_template(globals: &Globals) -> Result<Option<CpuTemplate>, Error> {
    Ok(load_kinds(globals, &["stage1.d"])?.cpu_template())
}

fn load_kinds(globals: &Globals, wanted: &[&str]) -> Result<Config, Error> {
    let mut directories: Vec<&str> = KINDS.map(|(_, directory)| directory).to_vec();
    directories.retain(|directory| wanted.contains(directory));
    directories.dedup();
    let user = globals.user_config.as_deref();
    let mut config = Config::default();
    for root in [&globals.system_config, &globals.local_config].into_iter().map(PathBuf::as_path).chain(user)
    {
        let mut of_root = Config::default();
        for directory in &directories {
            for path in files(&root.join(directory))? {
                let json = fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
                let content = Content::parse(&path, directory, &json)?;
                of_root.add(&path, content)?;
            }
        }
        config.override_with(of_root);
    }
    Ok(config)
}

/// The files of a directory in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json") && path.is_file());
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
