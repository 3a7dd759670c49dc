//! Tables for people.

use std::io::{self, Write};
use std::time::SystemTime;

use super::timestamp::timestamp;

/// Writes rows with aligned columns; the last column is as wide as it is.
pub fn write(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
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
