//! Users and groups: by number, name, and the owner of a path, and further groups.

use serde_json::json;

use super::run_at;
use crate::harness::{Entry, Host};

#[test]
fn who_an_app_is() {
    let owned = Entry { mode: 0o644, owner: (4321, 8765), ..Entry::program("owned", b"") };
    let entries = [owned];
    let host = Host::empty();
    let show = "id -u; id -g; grep ^Groups: /proc/self/status; ls -n /proc/self/fd/1 >/dev/null";
    for (user, group, said) in [
        ("0", "0", "0\n0\nGroups:\t7 9 \n"),
        ("root", "root", "0\n0\nGroups:\t7 9 \n"),
        ("app", "staff", "1000\n2000\nGroups:\t7 9 \n"),
        ("12", "13", "12\n13\nGroups:\t7 9 \n"),
        ("/owned", "/owned", "4321\n8765\nGroups:\t7 9 \n"),
    ] {
        let app = json!({
            "exec": ["/bin/sh", "-c", show], "user": user, "group": group, "supplementaryGIDs": [9, 7],
        });
        assert_eq!(run_at(&host, app, &entries, &[]).success().text(), said, "{user}");
    }
    let app = json!({ "exec": ["/bin/sh", "-c", show], "user": "12", "group": "13" });
    assert_eq!(run_at(&host, app.clone(), &entries, &[]).success().text(), "12\n13\nGroups:\t \n");
    let flagged = run_at(&host, app, &entries, &["--supplementary-gids=5,6", "--user=app", "--group=/owned"]);
    assert_eq!(flagged.success().text(), "1000\n8765\nGroups:\t5 6 \n");
}

#[test]
fn nobody_who_is_not_there() {
    let host = Host::empty();
    for (user, group, word) in [
        ("nope", "0", "nope"),
        ("0", "nope", "nope"),
        ("/nope", "0", "/nope"),
        ("4294967295", "0", "4294967295"),
    ] {
        let app = json!({ "exec": ["/bin/true"], "user": user, "group": group });
        let finished = run_at(&host, app, &[], &[]).exited(254);
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
}
