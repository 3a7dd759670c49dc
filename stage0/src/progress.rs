//! A bar on the caller's terminal while an import takes long: how much of its input has been read.
//!
//! Nothing of it is there until then, so that it costs a start nothing; and none of it is on anything but a terminal. It is gone
//! from the screen before anything else is written there, an error among it.

use std::cell::{Cell, OnceCell};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// How long people wait without asking what for.
const PATIENCE: Duration = Duration::from_millis(500);
const READING: &str = "{prefix} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {eta} left";
const WRITING: &str = "{prefix}: writing to disk";

/// How far an import is.
pub struct Progress {
    /// What is imported; `None` if nobody wants to know.
    name: Option<String>,
    started: Instant,
    read: Cell<u64>,
    total: Cell<u64>,
    bar: OnceCell<ProgressBar>,
}

impl Progress {
    /// Of the import of a file, which begins now.
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        // A name may have anything in it, and is not to move the cursor.
        let name = name.replace(char::is_control, "?");
        Self { name: Some(name), ..Self::hidden() }
    }

    /// Of what nobody waits for.
    pub fn hidden() -> Self {
        let started = Instant::now();
        Self { name: None, started, read: Cell::new(0), total: Cell::new(0), bar: OnceCell::new() }
    }

    /// From now on, so many bytes are read, from the first on.
    pub fn begin(&self, bytes: u64) {
        self.read.set(0);
        self.total.set(bytes);
        if let Some(bar) = self.bar.get() {
            bar.reset();
            bar.set_length(bytes);
        }
    }

    /// A part of the input, whose bytes count as they are read.
    pub fn watch<R>(&self, part: R) -> Watched<'_, R> {
        Watched { part, progress: self }
    }

    /// All has been read.
    pub fn end_of_input(&self) {
        if let Some(bar) = self.bar() {
            bar.set_style(style(WRITING));
            bar.force_draw();
        }
    }

    fn advance(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes as u64);
        if let Some(bar) = self.bar() {
            bar.set_position(self.read.get());
        }
    }

    /// The bar, once it is time for one.
    fn bar(&self) -> Option<&ProgressBar> {
        let name = self.name.as_ref()?;
        if self.bar.get().is_none() && self.started.elapsed() < PATIENCE {
            return None;
        }
        Some(self.bar.get_or_init(|| {
            // On standard error, and only if that is a terminal that can move its cursor.
            let bar = ProgressBar::new(self.total.get()).with_position(self.read.get());
            bar.with_style(style(READING)).with_prefix(name.clone()).with_finish(ProgressFinish::AndClear)
        }))
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

/// Part of an import's input.
pub struct Watched<'a, R> {
    part: R,
    progress: &'a Progress,
}

impl<R: io::Read> io::Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.part.read(buffer)?;
        self.progress.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_templates_are_good() {
        for template in [READING, WRITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn nothing_is_made_before_it_is_time() {
        let mut progress = Progress::of(Path::new("/x/a\nb"));
        assert_eq!(progress.name.as_deref(), Some("a?b"));
        progress.begin(3);
        progress.watch(&b"ab"[..]).read_to_end(&mut Vec::new()).unwrap();
        assert!(progress.bar.get().is_none() && progress.read.get() == 2);
        progress.started -= PATIENCE;
        progress.watch(&b"c"[..]).read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(progress.bar.get().map(|bar| (bar.position(), bar.length())), Some((3, Some(3))));
    }

    #[test]
    fn nobody_is_told_who_does_not_wait() {
        let mut progress = Progress::hidden();
        progress.started -= PATIENCE;
        progress.watch(&b"ab"[..]).read_to_end(&mut Vec::new()).unwrap();
        progress.end_of_input();
        assert!(progress.bar.get().is_none());
    }
}
