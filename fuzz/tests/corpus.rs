//! The kept inputs, once each, without a fuzzer: `cargo test --no-default-features`.

use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_is_borne() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in fuzz::TARGETS {
        let inputs: Vec<_> = fs::read_dir(corpus.join(name)).expect(name).collect();
        assert!(!inputs.is_empty(), "nothing is kept for {name}");
        for input in inputs {
            let path = input.expect("an entry").path();
            println!("{}", path.display());
            target(&fs::read(path).expect("an input"));
        }
    }
}
