//! `rkt doctor`: what this host can run, and how to get what is missing. The checks are those that `rkt run` makes, and
//! more that only explain.

mod cgroups;
mod kvm;
mod namespaces;
mod needs;
mod network;
mod plugins;
mod space;

use std::path::Path;

use serde::Serialize;

use crate::host::Kernel;

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// `--stage1=kvm` cannot run without.
    Kvm,
    /// `--stage1=nspawn` cannot run without.
    Nspawn,
    /// Both cannot run without.
    Both,
    /// Some things work better, or only, with it.
    Optional,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What it is needed for.
    pub needed_for: Need,
}

impl Row {
    fn ok(name: impl Into<String>, needed_for: Need, found: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, found: found.into(), remedy: None, needed_for }
    }

    fn missing(
        name: impl Into<String>,
        needed_for: Need,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { name: name.into(), ok: false, found: found.into(), remedy, needed_for }
    }
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether `--stage1=kvm` can run pods.
    pub kvm: bool,
    /// Whether `--stage1=nspawn` can run pods.
    pub nspawn: bool,
    /// The checks.
    pub rows: Vec<Row>,
}

/// Examines this host, the data directory, and what an administrator has configured.
pub fn examine(data: &Path, local_config: &Path) -> Report {
    let kernel = Kernel::running();
    let (networks, configured) = (network::rows(), plugins::rows(local_config));
    let rows =
        [kvm::rows(), namespaces::rows(&kernel), cgroups::rows(), networks, configured, space::rows(data)];
    Report::of(rows.concat())
}

impl Report {
    fn of(rows: Vec<Row>) -> Self {
        let can =
            |need| rows.iter().all(|row| row.ok || (row.needed_for != need && row.needed_for != Need::Both));
        Self { kvm: can(Need::Kvm), nspawn: can(Need::Nspawn), rows }
    }

    /// Whether at least pods of namespaces can run.
    pub fn can_run_namespaces(&self) -> bool {
        self.nspawn
    }

    /// For people: a line a check, below it what to do; at the end the two isolations.
    pub fn to_table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for row in &self.rows {
            let state = match (row.ok, row.needed_for) {
                (true, _) => "ok",
                (false, Need::Optional) => "none",
                (false, _) => "missing",
            };
            text.push_str(&format!("{:width$}  {state:7}  {}\n", row.name, row.found));
            if let Some(remedy) = &row.remedy {
                text.push_str(&format!("{:width$}  {:7}  -> {remedy}\n", "", ""));
            }
        }
        for (name, can) in [("kvm", self.kvm), ("nspawn", self.nspawn)] {
            let state = if can { "can run pods" } else { "cannot run pods" };
            text.push_str(&format!("--stage1={name} {state} here\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_decides() {
        let kvm = Row::missing("KVM", Need::Kvm, "no /dev/kvm", "load kvm_intel");
        let space = Row::missing("space", Need::Both, "0 B", "make some");
        let tap = Row::missing("tap", Need::Optional, "no", "load tun");
        let nspawn = Row::ok("overlay", Need::Nspawn, "yes");
        let can = |rows: &[&Row]| {
            let report = Report::of(rows.iter().map(|row| (*row).clone()).collect());
            (report.kvm, report.nspawn)
        };
        assert_eq!(can(&[&nspawn, &tap]), (true, true));
        assert_eq!(can(&[&kvm, &nspawn]), (false, true));
        assert_eq!(can(&[&space, &nspawn]), (false, false));
        let table = Report::of(vec![kvm, tap]).to_table();
        assert!(table.contains("missing  no /dev/kvm\n") && table.contains("-> load kvm_intel"), "{table}");
        assert!(table.contains("--stage1=nspawn can run pods here"), "{table}");
    }

    #[test]
    fn the_report_is_json() {
        let json = serde_json::to_value(Report::of(vec![Row::ok("a", Need::Both, "b")])).unwrap();
        assert_eq!(json["rows"][0]["needed_for"], "both");
        assert_eq!(json["rows"][0].get("remedy"), None);
    }
}
