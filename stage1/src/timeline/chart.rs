//! A timeline as a picture: a bar for each phase of the start, below each other, as SVG.

use std::fmt::Write as _;

/// A phase of the start: what was reached at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What.
    pub name: String,
    /// Since the first mark, in microseconds.
    pub begin_us: u64,
    /// Likewise.
    pub end_us: u64,
}

/// The phases between `marks`, which are in time order: each begins where the one before ends. After `until_us` there are none.
pub fn phases(marks: &[(String, u64)], until_us: u64) -> Vec<Phase> {
    let first = marks.first().map_or(0, |(_, us)| *us);
    let started = marks.iter().take_while(|(_, us)| *us <= until_us);
    let ends = started.clone().skip(1);
    started
        .zip(ends)
        .map(|((_, begin), (name, end))| Phase {
            name: name.clone(),
            begin_us: begin - first,
            end_us: end - first,
        })
        .collect()
}

/// Sizes in pixels.
const WIDTH: u64 = 960;
const MARGIN: u64 = 16;
const HEADER: u64 = 56;
const ROW: u64 = 24;
const BAR: u64 = 18;
/// What a name and a time need beside a bar.
const LABEL: u64 = 260;
/// Into how many parts the axis is divided at most.
const TICKS: u64 = 8;
/// Bars take turns.
const COLOURS: [&str; 2] = ["#8fb4d8", "#b9d2ea"];

/// Draws them under `title`.
pub fn draw(title: &str, phases: &[Phase]) -> String {
    let total = phases.last().map_or(0, |last| last.end_us);
    let height = HEADER + ROW * phases.len() as u64 + MARGIN;
    let mut svg = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"22\" font-size=\"15\">{}: {}</text>\n",
        escape(title),
        milliseconds(total),
    );
    // Times that a machine's process tells may be anything.
    let x = |us: u64| {
        let pixels = u128::from(us.min(total)) * u128::from(WIDTH - 2 * MARGIN) / u128::from(total.max(1));
        pixels as u64 + MARGIN
    };
    draw_axis(&mut svg, total, height, x);
    for (row, phase) in (0..).zip(phases) {
        draw_phase(&mut svg, row, phase, x);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_axis(svg: &mut String, total: u64, height: u64, x: impl Fn(u64) -> u64) {
    let (top, bottom) = (HEADER - 8, height - MARGIN);
    let step = step(total);
    for us in (0..=total / step).map(|tick| tick * step) {
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {top}V{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{x}\" y=\"{}\" fill=\"#777777\" font-size=\"10\">{} ms</text>",
            top - 4,
            us as f64 / 1000.0,
            x = x(us),
        );
    }
}

/// The microseconds between two ticks: 1, 2 or 5, and zeros.
fn step(total: u64) -> u64 {
    let powers = std::iter::successors(Some(1_u64), |power| power.checked_mul(10));
    let steps = powers.flat_map(|power| [1, 2, 5].map(|digit| power.saturating_mul(digit)));
    steps.into_iter().find(|step| step.saturating_mul(TICKS) >= total).unwrap_or(u64::MAX)
}

/// A bar, with its name and its time where there is room: after it, else before it.
fn draw_phase(svg: &mut String, row: usize, phase: &Phase, x: impl Fn(u64) -> u64) {
    let top = HEADER + ROW * row as u64;
    let (begin, end) = (x(phase.begin_us), x(phase.end_us));
    let (text, anchor) = match end + LABEL > WIDTH && begin > LABEL {
        true => (begin - 6, "end"),
        false if end + LABEL > WIDTH => (begin + 6, "start"),
        false => (end + 6, "start"),
    };
    let label = format!("{} {}", escape(&phase.name), milliseconds(phase.end_us - phase.begin_us));
    let _ = writeln!(
        svg,
        "<g><title>{label}</title>\
         <rect x=\"{begin}\" y=\"{top}\" width=\"{}\" height=\"{BAR}\" fill=\"{}\"/>\
         <text x=\"{text}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text></g>",
        (end - begin).max(1),
        COLOURS.get(row % COLOURS.len()).unwrap_or(&"black"),
        top + 13,
    );
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

/// As XML has it (section 2.4); what it cannot have at all (section 2.2) is replaced.
fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Vec<(String, u64)> {
        [("rkt", 1000), ("images", 1500), ("stage1", 1500), ("web started", 4500), ("web exited", 9000)]
            .map(|(name, us)| (name.to_owned(), us))
            .to_vec()
    }

    #[test]
    fn phases_follow_each_other_up_to_the_last_start() {
        let phases = phases(&marks(), 4500);
        let told: Vec<_> =
            phases.iter().map(|phase| (phase.name.as_str(), phase.begin_us, phase.end_us)).collect();
        assert_eq!(told, [("images", 0, 500), ("stage1", 500, 500), ("web started", 500, 3500)]);
        assert_eq!(super::phases(&marks(), u64::MAX).len(), 4);
        assert!(super::phases(&[], 0).is_empty() && super::phases(&marks()[..1], u64::MAX).is_empty());
    }

    #[test]
    fn a_bar_is_as_long_as_its_phase() {
        let svg = draw("rkt run", &phases(&marks(), 4500));
        assert!(svg.contains(">rkt run: 3.500 ms</text>"), "{svg}");
        let widths: Vec<u64> = svg
            .lines()
            .filter(|line| line.starts_with("<g>"))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        let all = WIDTH - 2 * MARGIN;
        assert_eq!(widths.len(), 3);
        assert_eq!(widths[1], 1, "what took no time can be seen");
        assert!(widths[0].abs_diff(all / 7) <= 1 && widths[2].abs_diff(all * 6 / 7) <= 1, "{widths:?}");
    }

    #[test]
    fn the_axis_has_round_numbers() {
        for (total, expected) in [(0, 1), (8, 1), (9, 2), (270_687, 50_000), (16_314_896, 5_000_000)] {
            assert_eq!(step(total), expected, "{total}");
        }
        assert!(step(u64::MAX) > 0);
    }

    #[test]
    fn names_cannot_break_out() {
        let mark = ("</title><script>\"&\u{1b}".to_owned(), 5);
        let svg = draw("<a>", &phases(&[("rkt".into(), 1), mark], u64::MAX));
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;&quot;&amp;\u{fffd} 0.004 ms"), "{svg}");
        assert!(!svg.contains("<script") && !svg.contains("<a>"));
    }

    #[test]
    fn times_may_be_anything() {
        let marks = [("a".to_owned(), 0), ("b".to_owned(), 7), ("c".to_owned(), u64::MAX)];
        let svg = draw("x", &phases(&marks, u64::MAX));
        assert!(svg.contains(&format!("width=\"{}\"", WIDTH - 2 * MARGIN)), "{svg}");
    }

    #[test]
    fn nothing_has_happened() {
        assert!(draw("rkt", &[]).ends_with("</svg>\n"));
    }
}
