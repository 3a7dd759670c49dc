//! A filter as data: what the kernel is to do on each system call, by its number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calls::known;
use super::errno::Errno;

/// Numbers from this bit on are calls of the x32 ABI: second ways into the same calls, which a filter of the plain numbers
/// would leave open. They are answered as by a kernel without that ABI.
const X32_BIT: u32 = 0x4000_0000;

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Carries it out.
    Allow,
    /// Refuses it with this error.
    Errno(Errno),
    /// Ends the process with SIGSYS.
    Kill,
}

/// A test of the low 32 bits of one argument, which are all that the calls tested here look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgumentTest {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they are compared with.
    pub values: Vec<u32>,
    /// Whether those values are allowed and all others refused, or the other way round.
    pub allows: bool,
}

/// What becomes of the calls with a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Always the same.
    Always(Action),
    /// It depends on an argument.
    Tested {
        /// Which calls are allowed.
        test: ArgumentTest,
        /// What becomes of the others.
        refusal: Action,
    },
}

/// What a list says of a call that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is allowed.
    Allow,
    /// It is allowed with such an argument.
    Test(ArgumentTest),
    /// It is refused with this error, whatever becomes of calls that the list does not have.
    Refuse(Errno),
}

/// Rules by number.
pub type Rules = BTreeMap<u32, Rule>;

/// What becomes of the calls that have no rule.
#[derive(Clone, Copy, Debug)]
pub struct Otherwise {
    /// Of those that are known.
    pub known: Action,
    /// Of those that are not, which kernels younger than this program may have.
    pub unknown: Action,
}

/// The verdict on each number: each holds from its number to the next's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filter {
    ranges: Vec<(u32, Verdict)>,
}

impl Filter {
    /// The filter with these rules.
    pub fn new(rules: &Rules, otherwise: Otherwise) -> Self {
        let mut filter = Self { ranges: Vec::new() };
        let mut next = 0;
        for (number, _) in known() {
            if number > next {
                filter.extend(next, Verdict::Always(otherwise.unknown));
            }
            filter.extend(number, verdict(rules.get(&number), otherwise.known));
            next = number + 1;
        }
        filter.extend(next, Verdict::Always(otherwise.unknown));
        filter.extend(X32_BIT, Verdict::Always(Action::Errno(Errno::ENOSYS)));
        filter
    }

    /// The first number of each range, with its verdict, in ascending order.
    pub fn ranges(&self) -> &[(u32, Verdict)] {
        &self.ranges
    }

    fn extend(&mut self, number: u32, verdict: Verdict) {
        if self.ranges.last().is_none_or(|(_, last)| *last != verdict) {
            self.ranges.push((number, verdict));
        }
    }
}

fn verdict(rule: Option<&Rule>, refusal: Action) -> Verdict {
    match rule {
        Some(Rule::Allow) => Verdict::Always(Action::Allow),
        Some(Rule::Test(test)) => Verdict::Tested { test: test.clone(), refusal },
        Some(Rule::Refuse(errno)) => Verdict::Always(Action::Errno(*errno)),
        None => Verdict::Always(refusal),
    }
}
