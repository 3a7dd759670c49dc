//! The lines that `rkt run --timeline` prints: `timeline:   12.345 ms  name`, since the first mark.

/// The marks in a pod's standard error, with their milliseconds.
pub fn parse(stderr: &str) -> Vec<(String, f64)> {
    let mark = |line: &str| {
        let (ms, name) = line.strip_prefix("timeline:")?.split_once("ms")?;
        Some((name.trim().to_owned(), ms.trim().parse().ok()?))
    };
    stderr.lines().filter_map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_among_other_lines() {
        let text = "hello\ntimeline:      0.000 ms  start\nrkt: x ms\ntimeline:   1012.500 ms  guest init\n";
        assert_eq!(parse(text), [("start".to_owned(), 0.0), ("guest init".to_owned(), 1012.5)]);
    }
}
