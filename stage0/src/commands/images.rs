//! `rkt fetch` and `rkt image list`.

use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use pod::abi::EXIT_ERROR;
use serde::{Serialize, Serializer};

use super::import::import;
use super::{Outcome, status, table};
use crate::cli::{FetchFlags, Globals, ImageField, ImageListFlags, Order};
use crate::image_name::ImageReference;
use crate::render;
use crate::store::{self, Image, Store};

/// What would have to be found by its name.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no file or directory {0}, and finding images by name in the network is not there yet: download it, and give its path"
)]
struct NotAFile(String);

/// `rkt image fetch`, which upstream hides.
#[derive(Debug, thiserror::Error)]
#[error("this is an older name of rkt fetch: use that")]
pub struct OlderName;

/// What is in the store, or nowhere.
#[derive(Debug, thiserror::Error)]
#[error("{0} is the ID of an image, by which nobody can find it elsewhere: rkt fetch takes files")]
struct NotFetched(String);

/// Imports images and prints their IDs.
pub fn fetch(globals: &Globals, FetchFlags { images, full }: &FetchFlags) -> Outcome {
    let store = Store::new(&globals.directory);
    let mut out = std::io::stdout().lock();
    let mut held = store.hold()?;
    for (image, signature) in images {
        let path = match ImageReference::parse(image)? {
            ImageReference::File(path) if path.exists() => path,
            ImageReference::File(path) => {
                return Err(store::Error::NoSuchFile(path.display().to_string()).into());
            }
            ImageReference::Id(id) => return Err(NotFetched(id).into()),
            ImageReference::Name(_) => return Err(NotAFile(image.clone()).into()),
        };
        let imported = import(globals, &store, &path, signature.as_deref(), &mut |_, _, _| Ok(()))?;
        // The first import makes the store.
        if held.is_none() {
            held = store.hold()?;
        }
        let characters = if *full { usize::MAX } else { HALF_ID_CHARACTERS };
        if let Err(error @ store::Error::NoDependency { .. }) = store.parts(&imported) {
            eprintln!("fetch: {error}");
        }
        writeln!(out, "{}", imported.id.as_str().chars().take(characters).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Characters of an ID that `rkt fetch` shows unless they are to be all, `sha512-` among them (upstream's `types.ShortHash`).
const HALF_ID_CHARACTERS: usize = 7 + 32;
/// Characters of an ID that lists show, `sha512-` among them.
pub const SHORT_ID_CHARACTERS: usize = 19;

/// An image, as upstream's API has it (rkt/rkt/image_list.go, `ImageListEntry`).
#[derive(Debug, Serialize)]
struct Entry {
    id: String,
    name: String,
    #[serde(serialize_with = "nanoseconds")]
    import_time: SystemTime,
    #[serde(serialize_with = "nanoseconds")]
    last_used_time: SystemTime,
    size: u64,
}

impl Entry {
    fn of(image: &Image) -> std::io::Result<Self> {
        let version =
            image.manifest.label("version").map(|version| format!(":{version}")).unwrap_or_default();
        Ok(Self {
            id: image.id.to_string(),
            name: format!("{}{version}", image.manifest.name),
            import_time: image.imported()?,
            last_used_time: image.last_used()?,
            size: image.disk_bytes()?,
        })
    }

    fn cell(&self, field: ImageField, full: bool) -> String {
        match field {
            ImageField::Id if full => self.id.clone(),
            ImageField::Id => self.id.chars().take(SHORT_ID_CHARACTERS).collect(),
            ImageField::Name => self.name.clone(),
            ImageField::Size if full => self.size.to_string(),
            ImageField::Size => table::bytes(self.size),
            ImageField::ImportTime => table::time(Some(self.import_time), full),
            ImageField::LastUsed => table::time(Some(self.last_used_time), full),
        }
    }
}

fn sort(entries: &mut [Entry], by: ImageField, order: Order) {
    entries.sort_by(|one, other| match by {
        ImageField::Id => one.id.cmp(&other.id),
        ImageField::Name => one.name.cmp(&other.name),
        ImageField::Size => one.size.cmp(&other.size),
        ImageField::ImportTime => one.import_time.cmp(&other.import_time),
        ImageField::LastUsed => one.last_used_time.cmp(&other.last_used_time),
    });
    if order == Order::Desc {
        entries.reverse();
    }
}

fn title(field: ImageField) -> &'static str {
    match field {
        ImageField::Id => "ID",
        ImageField::Name => "NAME",
        ImageField::Size => "SIZE",
        ImageField::ImportTime => "IMPORT TIME",
        ImageField::LastUsed => "LAST USED",
    }
}

/// Prints the images of the store; what cannot be read of it is told, and keeps nobody from the rest.
pub fn list(globals: &Globals, flags: &ImageListFlags) -> Outcome {
    let (images, damaged) = Store::new(&globals.directory).list_all()?;
    damaged.iter().for_each(|error| eprint!("{}", render("image", error)));
    // One that is removed meanwhile is left out.
    let mut entries: Vec<Entry> = images.iter().filter_map(|image| Entry::of(image).ok()).collect();
    sort(&mut entries, flags.sort, flags.order);
    status::print(flags.list.format, &entries, |out| {
        let titles = flags.fields.iter().map(|field| title(*field).to_owned()).collect();
        let mut rows = if flags.list.no_legend { Vec::new() } else { vec![titles] };
        let row = |entry: &Entry| {
            flags.fields.iter().map(|field| entry.cell(*field, flags.list.full)).collect::<Vec<_>>()
        };
        rows.extend(entries.iter().map(row));
        table::write(out, &rows)
    })?;
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_ERROR) })
}

fn nanoseconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entry(id: &str, name: &str, size: u64, seconds: u64) -> Entry {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Entry { id: id.into(), name: name.into(), import_time: time, last_used_time: time, size }
    }

    #[test]
    fn orders() {
        let by = |field, order| {
            let mut entries = [entry("1", "b", 9, 3), entry("2", "c", 7, 1), entry("3", "a", 8, 2)];
            sort(&mut entries, field, order);
            entries.map(|entry| entry.id).concat()
        };
        assert_eq!(by(ImageField::Name, Order::Asc), "312");
        assert_eq!(by(ImageField::Size, Order::Asc), "231");
        assert_eq!(by(ImageField::ImportTime, Order::Desc), "132");
        assert_eq!(by(ImageField::LastUsed, Order::Asc), "231");
    }

    #[test]
    fn the_schema_is_upstreams() {
        let json = serde_json::to_string(&entry("sha512-00", "a:1", 7, 1)).unwrap();
        assert_eq!(
            json,
            r#"{"id":"sha512-00","name":"a:1","import_time":1000000000,"last_used_time":1000000000,"size":7}"#
        );
    }

    #[test]
    fn short_and_full() {
        let entry = entry(&format!("sha512-{}", "a".repeat(64)), "n", 2048, 0);
        assert_eq!(entry.cell(ImageField::Id, false).len(), SHORT_ID_CHARACTERS);
        assert_eq!(entry.cell(ImageField::Id, true).len(), 71);
        assert_eq!(
            [entry.cell(ImageField::Size, false), entry.cell(ImageField::Size, true)],
            ["2.0 KiB", "2048"]
        );
        assert_eq!(entry.cell(ImageField::LastUsed, true), "1970-01-01 00:00:00 +0000 UTC");
    }
}
