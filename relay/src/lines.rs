//! Lines with a name before each, so that the output of several apps can be told apart.

use crate::carrier::Filter;

/// The longest line that is kept together; a longer one is passed on in pieces.
const MAX_LINE_BYTES: usize = 8 << 10;

/// Puts a name before each line and lets only whole lines through, so that lines of several writers do not mix.
#[derive(Debug)]
pub struct Lines {
    prefix: Vec<u8>,
    /// The line that has begun, with its prefix unless pieces of it are through already.
    partial: Vec<u8>,
    /// Whether pieces of the present line are through already.
    continued: bool,
}

impl Lines {
    /// Every line gets `<name>: ` before it.
    pub fn new(name: &str) -> Self {
        Self { prefix: format!("{name}: ").into_bytes(), partial: Vec::new(), continued: false }
    }
}

impl Filter for Lines {
    /// Takes `input` and appends to `output` the lines that are complete now.
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for piece in input.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() && !self.continued {
                self.partial.extend_from_slice(&self.prefix);
            }
            self.partial.extend_from_slice(piece);
            let whole = piece.ends_with(b"\n");
            if whole || self.partial.len() > MAX_LINE_BYTES {
                output.append(&mut self.partial);
                self.continued = !whole;
            }
        }
    }

    /// Appends a last line that never ended, and ends it.
    fn finish(&mut self, output: &mut Vec<u8>) {
        if !self.partial.is_empty() || self.continued {
            output.append(&mut self.partial);
            output.push(b'\n');
            self.continued = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(inputs: &[&str]) -> String {
        let (mut lines, mut output) = (Lines::new("a"), Vec::new());
        inputs.iter().for_each(|input| lines.push(input.as_bytes(), &mut output));
        lines.finish(&mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn each_line_has_its_name_however_it_arrives() {
        assert_eq!(run(&["x\ny\n"]), "a: x\na: y\n");
        assert_eq!(run(&["x", "y", "\n\nz"]), "a: xy\na: \na: z\n");
        assert_eq!(run(&[]), "");
    }

    #[test]
    fn only_whole_lines_are_let_through() {
        let (mut lines, mut output) = (Lines::new("a"), Vec::new());
        lines.push(b"one\ntw", &mut output);
        assert_eq!(output, b"a: one\n");
    }

    #[test]
    fn a_long_line_is_not_hoarded_and_has_one_name() {
        let (mut lines, mut output) = (Lines::new("a"), Vec::new());
        for _ in 0..100 {
            lines.push(&[b'x'; 1000], &mut output);
            assert!(lines.partial.len() <= MAX_LINE_BYTES);
        }
        lines.push(b"\nnext\n", &mut output);
        assert_eq!(output, [b"a: ".to_vec(), vec![b'x'; 100_000], b"\na: next\n".to_vec()].concat());
    }
}
