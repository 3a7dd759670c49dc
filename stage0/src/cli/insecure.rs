//! `--insecure-options`, with upstream's names.

use pod::abi::Insecure;

/// What is switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsecureOptions {
    /// Images need no signature.
    pub image: bool,
    /// Confinement of the apps.
    pub run: Insecure,
}

const NONE: Insecure = Insecure { capabilities: false, paths: false, seccomp: false };
const ALL: Insecure = Insecure { capabilities: true, paths: true, seccomp: true };

/// Every name and what it means. `tls`, `http` and `pubkey` are about downloads, of which there are none yet; upstream
/// ignores `ondisk`.
const OPTIONS: [(&str, bool, Insecure); 12] = [
    ("none", false, NONE),
    ("image", true, NONE),
    ("tls", false, NONE),
    ("http", false, NONE),
    ("pubkey", false, NONE),
    ("ondisk", false, NONE),
    ("capabilities", false, Insecure { capabilities: true, ..NONE }),
    ("paths", false, Insecure { paths: true, ..NONE }),
    ("seccomp", false, Insecure { seccomp: true, ..NONE }),
    ("all-fetch", true, NONE),
    ("all-run", false, ALL),
    ("all", true, ALL),
];

/// One word of the list.
pub fn parse_option(word: &str) -> Result<InsecureOptions, String> {
    let found = OPTIONS.iter().find(|(name, ..)| *name == word);
    found.map(|(_, image, run)| InsecureOptions { image: *image, run: *run }).ok_or_else(|| {
        let names: Vec<&str> = OPTIONS.iter().map(|(name, ..)| *name).collect();
        format!("the options are {}", names.join(", "))
    })
}

impl InsecureOptions {
    /// Everything that one or the other switches off.
    pub fn or(self, other: Self) -> Self {
        Self {
            image: self.image || other.image,
            run: Insecure {
                capabilities: self.run.capabilities || other.run.capabilities,
                paths: self.run.paths || other.run.paths,
                seccomp: self.run.seccomp || other.run.seccomp,
            },
        }
    }
}
