//! Tables for people.

use std::io::{self, Write};
use std::time::SystemTime;

use super::timestamp::timestamp;

/// The spaces between two columns.
const GAP: usize = 2;

/// Writes rows with aligned columns, all at once; the last column is as wide as it is.
pub fn write(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
    }
    let mut text = String::new();
    for row in rows {
        let begin = text.len();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + GAP));
        }
        text.truncate(begin + text.get(begin..).unwrap_or_default().trim_end().len());
        text.push('\n');
    }
    out.write_all(text.as_bytes())
}

/// Bytes with a binary unit: `1.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while amount >= 1024.0
        && let Some(larger) = units.next()
    {
        amount /= 1024.0;
        unit = Some(larger);
    }
    let unit = unit.copied().unwrap_or_default();
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// A point in time: how long ago it was, or in full; nothing if it has not come.
pub fn time(time: Option<SystemTime>, full: bool) -> String {
    match time {
        None => String::new(),
        Some(time) if full => timestamp(time),
        Some(time) => ago(SystemTime::now().duration_since(time).unwrap_or_default()),
    }
}

/// How long ago, in the largest unit that fits.
pub fn ago(age: std::time::Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let seconds = age.as_secs();
    let found = UNITS.iter().find(|(unit, _)| seconds >= *unit);
    match found.map(|(unit, name)| (seconds / unit, name)) {
        None => "now".into(),
        Some((1, name)) => format!("1 {name} ago"),
        Some((count, name)) => format!("{count} {name}s ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["A".to_owned(), "BB".into()], vec!["long".into(), String::new()]];
        let mut out = Vec::new();
        write(&mut out, &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     BB\nlong\n");
    }

    #[test]
    fn amounts() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536)], ["0 B", "1023 B", "1.5 KiB"]);
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        let ago = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(
            [ago(0), ago(1), ago(119), ago(7200)],
            ["now", "1 second ago", "1 minute ago", "2 hours ago"]
        );
    }
}
