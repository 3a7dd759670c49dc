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

/// What is about downloads, of which there are none yet.
const OF_DOWNLOADS: [&str; 3] = ["tls", "http", "pubkey"];
/// Every other name and what it means. What is on disk is not verified at each start, so `ondisk` has nothing to leave out; upstream takes
/// it, too.
const OPTIONS: [(&str, bool, Insecure); 9] = [
    ("none", false, NONE),
    ("image", true, NONE),
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
    if OF_DOWNLOADS.contains(&word) {
        return Err(format!(
            "{word} is about downloads, which are not there yet: there is nothing to make insecure"
        ));
    }
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
