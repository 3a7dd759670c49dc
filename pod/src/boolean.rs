//! Booleans of a command line, in the words of Go (`strconv.ParseBool`), which upstream takes.

/// What means true.
pub const TRUE: [&str; 6] = ["true", "1", "t", "T", "TRUE", "True"];
/// What means false.
pub const FALSE: [&str; 6] = ["false", "0", "f", "F", "FALSE", "False"];

/// What a word means, if it is one of them.
pub fn parse(word: &str) -> Option<bool> {
    if TRUE.contains(&word) { Some(true) } else { FALSE.contains(&word).then_some(false) }
}
