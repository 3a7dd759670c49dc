//! rkt: the command line, images, and pods' life on disk

fn main() {}
