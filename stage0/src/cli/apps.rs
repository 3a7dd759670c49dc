//! Which words after `run` and `prepare` belong to which app: upstream's rules. Flags before the first image and those of the pod are
//! the pod's; an app's flags belong to the nearest image before them; `--` begins the arguments of the last image, and
//! `---` ends them.

use clap::Parser;

use super::flags::{AppCommand, AppFlags};

/// An app of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppArguments {
    /// What to run.
    pub image: String,
    /// How.
    pub flags: AppFlags,
    /// Arguments, after those of the image.
    pub arguments: Vec<String>,
}

/// What a flag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagKind {
    /// Of an app, not of the pod.
    pub of_app: bool,
    /// Whether the next word is its value if there is no equals sign.
    pub takes_value: bool,
}

impl FlagKind {
    /// What clap knows. A flag that may stand alone takes its value only after an equals sign.
    pub fn of(flag: &clap::Arg, of_app: bool) -> Self {
        Self { of_app, takes_value: flag.get_action().takes_values() && !flag.is_require_equals_set() }
    }
}

/// Whether a flag has this name; it may have older ones.
pub fn is_called(flag: &clap::Arg, name: &str) -> bool {
    flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|others| others.contains(&name))
}

/// The words of a command line, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// In their order.
    pub apps: Vec<RawApp>,
    /// Flags of the pod that stood among the apps.
    pub pod_flags: Vec<String>,
}

/// An app whose flags are not parsed yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RawApp {
    image: String,
    flags: Vec<String>,
    arguments: Option<Vec<String>>,
}

/// What is wrong with the order of the words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `--` first.
    #[error("an image is required before any app arguments")]
    ArgumentsWithoutImage,
    /// `--` twice.
    #[error("only one set of app arguments allowed per image")]
    TwoSetsOfArguments,
    /// An app's flag first.
    #[error("{0} must follow an image")]
    FlagWithoutImage(String),
    /// Not one of ours.
    #[error("unknown flag {0}; see --help")]
    UnknownFlag(String),
    /// A flag at the end.
    #[error("{0} needs a value")]
    NoValue(String),
}

/// Sorts the words from the first image on.
pub fn split(words: &[String], kind_of: &dyn Fn(&str) -> Option<FlagKind>) -> Result<Split, Error> {
    let mut split = Split::default();
    let mut in_arguments = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), split.apps.last_mut()) {
            ("---", _) if in_arguments => in_arguments = false,
            (_, Some(RawApp { arguments: Some(arguments), .. })) if in_arguments => {
                arguments.push(word.clone());
            }
            ("---", _) => {} // ends what was not begun; upstream ignores it
            ("--", None) => return Err(Error::ArgumentsWithoutImage),
            ("--", Some(RawApp { arguments: Some(_), .. })) => return Err(Error::TwoSetsOfArguments),
            ("--", Some(app)) => {
                app.arguments = Some(Vec::new());
                in_arguments = true;
            }
            (flag, app) if flag.starts_with('-') && flag != "-" => {
                let (kind, flag) = whole_flag(flag, &mut words, kind_of)?;
                match app {
                    Some(app) if kind.of_app => app.flags.push(flag),
                    None if kind.of_app => return Err(Error::FlagWithoutImage(flag)),
                    _ => split.pod_flags.push(flag),
                }
            }
            (image, _) => split.apps.push(RawApp { image: image.into(), ..RawApp::default() }),
        }
    }
    Ok(split)
}

/// A flag as one word, `--name=value`.
fn whole_flag<'a>(
    word: &str,
    words: &mut impl Iterator<Item = &'a String>,
    kind_of: &dyn Fn(&str) -> Option<FlagKind>,
) -> Result<(FlagKind, String), Error> {
    let (name, has_value) = word.split_once('=').map_or((word, false), |(name, _)| (name, true));
    let unknown = || Error::UnknownFlag(name.to_owned());
    let kind = name.strip_prefix("--").and_then(kind_of).ok_or_else(unknown)?;
    if has_value || !kind.takes_value {
        return Ok((kind, word.to_owned()));
    }
    let value = words.next().ok_or_else(|| Error::NoValue(name.to_owned()))?;
    Ok((kind, format!("{name}={value}")))
}

impl AppArguments {
    /// Parses an app's flags.
    pub fn parse(raw: RawApp) -> Result<Self, clap::Error> {
        let flags = match raw.flags.is_empty() {
            true => AppFlags::default(),
            false => AppCommand::try_parse_from(raw.flags)?.flags,
        };
        Ok(Self { image: raw.image, flags, arguments: raw.arguments.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(name: &str) -> Option<FlagKind> {
        match name {
            "exec" | "name" => Some(FlagKind { of_app: true, takes_value: true }),
            "readonly-rootfs" => Some(FlagKind { of_app: true, takes_value: false }),
            "net" => Some(FlagKind { of_app: false, takes_value: true }),
            "debug" => Some(FlagKind { of_app: false, takes_value: false }),
            _ => None,
        }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn app(image: &str, flags: &str, arguments: Option<&str>) -> RawApp {
        RawApp { image: image.into(), flags: words(flags), arguments: arguments.map(words) }
    }

    #[test]
    fn no_flags_are_the_defaults() {
        assert_eq!(AppCommand::try_parse_from([""; 0]).unwrap().flags, AppFlags::default());
    }

    #[test]
    fn words_find_their_app() {
        let cases = [
            ("a", vec![app("a", "", None)], ""),
            ("a b", vec![app("a", "", None), app("b", "", None)], ""),
            ("a --exec /x b", vec![app("a", "--exec=/x", None), app("b", "", None)], ""),
            ("a --exec=/x -- 1 -2 --exec", vec![app("a", "--exec=/x", Some("1 -2 --exec"))], ""),
            ("a -- 1 --- b -- 2", vec![app("a", "", Some("1")), app("b", "", Some("2"))], ""),
            ("a -- 1 -- 2", vec![app("a", "", Some("1 -- 2"))], ""),
            ("a -- --- b", vec![app("a", "", Some("")), app("b", "", None)], ""),
            ("a --- b", vec![app("a", "", None), app("b", "", None)], ""),
            ("a -- 1 --- --name n", vec![app("a", "--name=n", Some("1"))], ""),
            (
                "a --net host --readonly-rootfs b --debug",
                vec![app("a", "--readonly-rootfs", None), app("b", "", None)],
                "--net=host --debug",
            ),
            ("a --exec -- b", vec![app("a", "--exec=--", None), app("b", "", None)], ""),
            ("-", vec![app("-", "", None)], ""),
        ];
        for (line, apps, pod_flags) in cases {
            let expected = Split { apps, pod_flags: words(pod_flags) };
            assert_eq!(split(&words(line), &kind_of), Ok(expected), "{line}");
        }
    }

    #[test]
    fn words_in_disorder() {
        let cases = [
            ("-- x", Error::ArgumentsWithoutImage),
            ("a -- 1 --- -- 2", Error::TwoSetsOfArguments),
            ("--exec x a", Error::FlagWithoutImage("--exec=x".into())),
            ("a --color", Error::UnknownFlag("--color".into())),
            ("a -v", Error::UnknownFlag("-v".into())),
            ("a --exec", Error::NoValue("--exec".into())),
        ];
        for (line, error) in cases {
            assert_eq!(split(&words(line), &kind_of), Err(error), "{line}");
        }
    }
}
