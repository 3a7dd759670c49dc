//! Cuts output into lines, and long lines into parts.

use ::pod::log::MAX_CONTENT_BYTES;

/// A line that has begun.
#[derive(Debug, Default)]
pub struct Parts {
    /// Never more than a record holds.
    partial: Vec<u8>,
}

impl Parts {
    /// Takes `input` and hands `emit` the lines and parts that are complete now, each with whether it ends a line.
    pub fn push(&mut self, input: &[u8], emit: &mut dyn FnMut(&[u8], bool)) {
        let mut rest = input;
        while !rest.is_empty() {
            let room = MAX_CONTENT_BYTES - self.partial.len();
            let line_feed = rest.iter().take(room + 1).position(|byte| *byte == b'\n');
            let length = line_feed.unwrap_or(room).min(rest.len());
            let (piece, tail) = rest.split_at(length);
            if line_feed.is_none() && length < room {
                self.partial.extend_from_slice(piece);
                return;
            }
            if self.partial.is_empty() {
                emit(piece, line_feed.is_some());
            } else {
                self.partial.extend_from_slice(piece);
                emit(&self.partial, line_feed.is_some());
                self.partial.clear();
            }
            rest = tail.get(usize::from(line_feed.is_some())..).unwrap_or_default();
        }
    }

    /// Hands `emit` a line that did not end.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            emit(&std::mem::take(&mut self.partial), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(inputs: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (mut parts, mut output) = (Parts::default(), Vec::new());
        for input in inputs {
            parts.push(input, &mut |content, ends| output.push((content.to_vec(), ends)));
        }
        parts.finish(&mut |content, ends| output.push((content.to_vec(), ends)));
        output
    }

    #[test]
    fn lines_however_they_arrive() {
        let wanted = [(b"one".to_vec(), true), (Vec::new(), true), (b"two".to_vec(), false)];
        assert_eq!(run(&[b"one\n\ntwo"]), wanted);
        assert_eq!(run(&[b"o", b"ne", b"\n", b"\nt", b"wo"]), wanted);
        assert!(run(&[]).is_empty());
    }

    #[test]
    fn long_lines() {
        let longest = vec![b'x'; MAX_CONTENT_BYTES];
        assert_eq!(run(&[&[&longest[..], b"\n"].concat()]), [(longest.clone(), true)]);
        let parts = run(&[&[b'x'; 100], &[b'x'; 3 * MAX_CONTENT_BYTES], b"\n"]);
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[..3], vec![(longest, false); 3]);
        assert_eq!(parts[3], (vec![b'x'; 100], true));
    }
}
