//! Signatures of images, and the keys that are trusted. Keys and signatures are gpg's.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::archive::{Archive, gzip};
use crate::host::{Finished, Host, finish, is_root};

/// A keyring of gpg's.
struct Gpg(tempfile::TempDir);

/// What a key may do, in gpg's words, and how long.
const SIGNING: [&str; 3] = ["ed25519", "sign", "never"];

impl Gpg {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.0.path()).args([
            "--batch",
            "--yes",
            "--quiet",
            "--pinentry-mode=loopback",
        ]);
        let output = command.args(["--passphrase", ""]).args(arguments).output();
        let output = output.expect("these tests need gpg and gpg-agent; tests/setup installs them");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key, and returns its fingerprint.
    fn key(&self, owner: &str, kind: [&str; 3], more: &[&str]) -> String {
        self.gpg(&[more, &["--quick-generate-key", owner], &kind].concat());
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", owner])).unwrap();
        let line = listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap();
        line.trim_matches(':').to_lowercase()
    }

    fn export(&self, host: &Host, key: &str, more: &[&str]) -> PathBuf {
        let path = host.path(&format!("{key}.pub"));
        fs::write(&path, self.gpg(&[more, &["--export", key]].concat())).unwrap();
        path
    }

    /// Signs a file into the file beside it.
    fn sign(&self, image: &str, key: &str, more: &[&str]) {
        let signature = format!("{image}.asc");
        self.gpg(&[more, &["--local-user", key, "--output", &signature, "--detach-sign", image]].concat());
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ended =
            Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

/// `rkt` that knows no key but those of the host's directories, and wants signatures.
fn rkt(host: &Host, arguments: &[&str]) -> Command {
    let mut command = Command::new(host.path("bin/rkt"));
    command.arg("--dir").arg(host.data());
    for kind in ["system", "local", "user"] {
        command.arg(format!("--{kind}-config={}", host.path(kind).display()));
    }
    command.args(arguments);
    command
}

fn strict(host: &Host, arguments: &[&str]) -> Finished {
    finish(&mut rkt(host, arguments))
}

/// Trusts keys for `example.com/test`.
fn trust(host: &Host, files: &[&Path]) {
    let files: Vec<&str> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let line = ["trust", "--prefix=example.com/test", "--skip-fingerprint-review"];
    strict(host, &[&line, files.as_slice()].concat()).success();
}

/// An image like no other.
fn image(host: &Host, name: &str) -> String {
    host.image(name, &gzip(&Archive::good().file("rootfs/name", name.as_bytes()).end()))
}

#[test]
fn what_a_trusted_key_has_signed_needs_no_consent() {
    let (host, gpg) = (Host::new(), Gpg::new());
    let plain = gpg.key("plain@example.com", SIGNING, &[]);
    let rsa = gpg.key("rsa@example.com", ["rsa2048", "sign", "2y"], &[]);
    let nist = gpg.key("nist@example.com", ["nistp256", "default", "0"], &[]);
    let with_subkey = gpg.key("subkey@example.com", ["ed25519", "cert", "never"], &[]);
    gpg.gpg(&["--quick-add-key", &with_subkey, "ed25519", "sign", "1y"]);
    let armored = gpg.export(&host, &plain, &["--armor"]);
    let others = [&rsa, &nist, &with_subkey].map(|key| gpg.export(&host, key, &[]));
    trust(&host, &[&armored, &others[0], &others[1], &others[2]]);
    for key in [&plain, &rsa, &nist, &with_subkey] {
        let stored = host.path("local/trustedkeys/prefix.d/example.com/test").join(key);
        assert!(fs::read_to_string(stored).unwrap().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"));
    }
    for (name, key, form) in [
        ("plain", &plain, "--armor"),
        ("binary", &plain, "--no-armor"),
        ("rsa", &rsa, "--armor"),
        ("nist", &nist, "--armor"),
        ("subkey", &with_subkey, "--armor"),
    ] {
        let image = image(&host, name);
        gpg.sign(&image, key, &[form, "--digest-algo", "SHA512"]);
        let id = strict(&host, &["fetch", &image]).success().stdout;
        assert!(host.images().contains(&id.trim().to_owned()), "{name}");
    }
    // What was verified needs none any more; what was let in without needs one, or consent each time.
    let (plain_image, other) = (host.path("plain"), host.path("copy"));
    let plain_image = plain_image.to_str().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    strict(&host, &["fetch", plain_image]).success();
    fs::remove_file(host.path("plain.asc")).unwrap();
    strict(&host, &["fetch", plain_image]).success();
    fs::copy(plain_image, &other).unwrap();
    let other = other.to_str().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    strict(&host, &["--insecure-options=image", "fetch", other]).success();
    strict(&host, &["fetch", other]).refused(&["copy.asc", "--signature=FILE", "--insecure-options=image"]);

    // The signature may be anywhere, and each of several images has its own.
    gpg.sign(other, &plain, &[]);
    let elsewhere = format!("--signature={}", host.path("elsewhere").display());
    fs::rename(host.path("copy.asc"), host.path("elsewhere")).unwrap();
    strict(&host, &["fetch", other, &elsewhere]).success();
    strict(&host, &["fetch", &elsewhere, other]).refused(&["--signature must follow an image"]);
    strict(&host, &["--insecure-options=image", "fetch", other, &elsewhere])
        .refused(&["leave one of them out"]);
    let moved = ["rsa", "nist"].map(|name| {
        fs::rename(host.path(&format!("{name}.asc")), host.path(&format!("{name}.signature"))).unwrap();
        format!("--signature={}", host.path(&format!("{name}.signature")).display())
    });
    let [rsa_image, nist_image] = ["rsa", "nist"].map(|name| host.path(name).to_str().unwrap().to_owned());
    let ids = strict(&host, &["fetch", &rsa_image, &moved[0], plain_image, &nist_image, &moved[1], "--full"]);
    assert_eq!(ids.success().stdout.lines().count(), 3);
    strict(&host, &["fetch", &rsa_image, &moved[1], &nist_image, &moved[0]]).refused(&["does not vouch"]);
    let wrong = moved[0].clone();
    strict(&host, &["fetch", other, &wrong]).refused(&["rsa.signature does not vouch", "example.com/test"]);
    if is_root() {
        assert_eq!(strict(&host, &["run", other, &elsewhere]).code, 7);
        strict(&host, &["run", other, &wrong]).refused(&["does not vouch"]);
        strict(&host, &["run", "example.com/test", &elsewhere]).refused(&["is in the store"]);
        strict(&host, &["run", "--pull-policy=update", "example.com/test"])
            .refused(&["--pull-policy=update", "yet"]);
        assert_eq!(strict(&host, &["run", "--store-only", "example.com/test"]).code, 7);
    }
}

#[test]
fn what_nobody_trusted_has_signed_is_refused() {
    let (host, gpg) = (Host::new(), Gpg::new());
    let past = "--faked-system-time=20200101T000000!";
    let good = gpg.key("good@example.com", SIGNING, &[past]);
    let stranger = gpg.key("stranger@example.com", SIGNING, &[]);
    let other = gpg.key("other@example.com", SIGNING, &[]);
    let expired = gpg.key("expired@example.com", ["ed25519", "sign", "1d"], &[past]);
    let revoked = gpg.key("revoked@example.com", SIGNING, &[]);
    let certifier = gpg.key("certifier@example.com", ["ed25519", "cert", "never"], &[past]);
    gpg.gpg(&[past, "--quick-add-key", &certifier, "ed25519", "sign", "1d"]);

    let image = image(&host, "image");
    let refused = |words: &[&str]| {
        strict(&host, &["fetch", &image]).refused(words);
        assert!(host.images().is_empty());
    };
    gpg.sign(&image, &good, &[]);
    refused(&["no key is trusted", "rkt trust --prefix=example.com/test"]);
    let export = |key: &str| gpg.export(&host, key, &[]);
    let elsewhere = format!("--prefix={}", "example.com/tes");
    let other_file = export(&other);
    for prefix in ["--prefix=example.com/test/deeper", "--prefix=example.org", &elsewhere] {
        strict(&host, &["trust", prefix, "--skip-fingerprint-review", other_file.to_str().unwrap()])
            .success();
    }
    gpg.sign(&image, &other, &[]);
    refused(&["no key is trusted"]);
    trust(&host, &[&export(&good), &export(&expired), &export(&revoked), &export(&certifier)]);
    refused(&["no key that is trusted for it", &other]);
    gpg.sign(&image, &stranger, &[]);
    refused(&["no key that is trusted for it", &stranger]);

    gpg.sign(&image, &expired, &["--faked-system-time=20200101T010000!"]);
    refused(&[&expired, "has expired"]);
    gpg.sign(&image, &good, &["--faked-system-time=20200101T010000!", "--default-sig-expire", "1d"]);
    refused(&["it has expired"]);
    gpg.sign(&image, &good, &["--faked-system-time=20990101T000000!"]);
    refused(&["in the future"]);
    gpg.sign(&image, &good, &["--textmode"]);
    refused(&["not a signature of a file"]);
    gpg.sign(&image, &good, &["--digest-algo", "SHA1"]);
    refused(&["SHA1", "forged"]);

    gpg.sign(&image, &revoked, &[]);
    let certificate =
        fs::read_to_string(gpg.0.path().join(format!("openpgp-revocs.d/{}.rev", revoked.to_uppercase())));
    let certificate = certificate.unwrap().replace(":-----BEGIN", "-----BEGIN");
    let file = host.path("revocation");
    fs::write(&file, certificate).unwrap();
    gpg.gpg(&["--import", file.to_str().unwrap()]);
    trust(&host, &[&export(&revoked)]);
    refused(&[&revoked, "has been revoked"]);

    // A good key, but a subkey whose time is over.
    gpg.sign(&image, &certifier, &["--faked-system-time=20200101T010000!"]);
    refused(&[&certifier, "has expired"]);

    for (bytes, word) in [
        (&b""[..], "image.asc is no good detached"),
        (b"-----BEGIN PGP SIGNATURE-----\n\nnonsense\n-----END PGP SIGNATURE-----\n", "image.asc"),
        (&[0x88; 100], "image.asc"),
        (&[b'x'; 70_000], "larger than 65536 bytes"),
    ] {
        fs::write(format!("{image}.asc"), bytes).unwrap();
        refused(&[word]);
    }
    // A signature that was tampered with, and one for another image.
    gpg.sign(&image, &good, &["--no-armor"]);
    let signature = fs::read(format!("{image}.asc")).unwrap();
    for at in [signature.len() - 1, signature.len() - 40, 10] {
        let mut tampered = signature.clone();
        tampered[at] ^= 1;
        fs::write(format!("{image}.asc"), tampered).unwrap();
        let finished = strict(&host, &["fetch", &image]);
        assert_eq!(finished.code, 254, "byte {at}: {}", finished.stdout);
    }
    fs::write(format!("{image}.asc"), &signature).unwrap();
    let bytes = fs::read(&image).unwrap();
    for tampered in [[&bytes[..], b"x"].concat(), gzip(&Archive::good().end())] {
        fs::write(&image, tampered).unwrap();
        refused(&["image"]);
    }
    fs::write(&image, bytes).unwrap();
    strict(&host, &["fetch", &image]).success();
}

#[test]
fn keys_are_masked_and_for_all_images() {
    let (host, gpg) = (Host::new(), Gpg::new());
    let key = gpg.key("key@example.com", SIGNING, &[]);
    let image = image(&host, "image");
    gpg.sign(&image, &key, &[]);
    let file = gpg.export(&host, &key, &["--armor"]);
    let place = |directory: &str, content: &[u8]| {
        let directory = host.path(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(&key), content).unwrap();
    };
    // Each time as if it had never been there.
    let fetched = || {
        let finished = strict(&host, &["fetch", &image]);
        if finished.code == 0 {
            strict(&host, &["image", "rm", finished.stdout.trim()]).success();
        }
        finished
    };
    let armored = fs::read(&file).unwrap();
    place("system/trustedkeys/root.d", &armored);
    fetched().success();
    place("local/trustedkeys/root.d", b"");
    fetched().refused(&["no key is trusted"]);
    place("user/trustedkeys/root.d", &armored);
    fetched().success();
    place("local/trustedkeys/prefix.d/example.com", b"");
    fetched().refused(&["no key is trusted"]);
    place("local/trustedkeys/prefix.d/example.com/test", &armored);
    fetched().success();
    fs::remove_dir_all(host.path("user")).unwrap();
    strict(&host, &["trust", "--root", "--skip-fingerprint-review", file.to_str().unwrap()]).success();
    let stored = host.path("local/trustedkeys/root.d").join(&key);
    assert!(
        fs::metadata(&stored).unwrap().len() > 0
            && fs::read_dir(stored.parent().unwrap()).unwrap().count() == 1
    );
    fetched().success();

    // What is no key there is told, not passed over.
    for (name, content, word) in [
        (key.clone(), &b"x"[..], "no good OpenPGP public key"),
        ("0".repeat(40), &armored, "called by the fingerprint"),
        ("notes.txt".to_owned(), b"x", "not called by a key's fingerprint"),
    ] {
        let path = host.path("local/trustedkeys/prefix.d/example.com/test").join(name);
        let old = fs::read(&path);
        fs::write(&path, content).unwrap();
        fetched().refused(&[word, path.to_str().unwrap()]);
        match old {
            Ok(old) => fs::write(&path, old).unwrap(),
            Err(_) => fs::remove_file(&path).unwrap(),
        }
    }
}

#[test]
fn fingerprints_are_reviewed() {
    let (host, gpg) = (Host::new(), Gpg::new());
    let key = gpg.key("Owner <owner@example.com>", SIGNING, &[]);
    let file = gpg.export(&host, &key, &[]);
    let file = file.to_str().unwrap();
    strict(&host, &["trust", "--root", file]).refused(&["no terminal", "--skip-fingerprint-review"]);
    let ask = |answers: &str| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = rkt(&host, &["trust", "--prefix=example.com", file]);
        let child =
            command.stdin(terminal.slave).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut master = File::from(terminal.master);
        master.write_all(answers.as_bytes()).unwrap();
        let finished = crate::host::finished(child.wait_with_output().unwrap());
        drop(command);
        let mut echo = Vec::new();
        let _closed = master.read_to_end(&mut echo);
        finished
    };
    let refused = ask("what\nno\n").refused(&[
        "is not trusted",
        &key,
        "prefix: \"example.com\"",
        "Owner <owner@example.com>",
    ]);
    let groups: Vec<String> =
        key.to_uppercase().as_bytes().chunks(4).map(|g| String::from_utf8_lossy(g).into()).collect();
    assert!(
        refused.stderr.contains(&format!("gpg key fingerprint is: {}\n", groups.join(" "))),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stderr.matches("(yes/no)?").count(), 2);
    assert!(!host.path("local").exists());
    let added = ask("yes\n").success();
    let path = host.path("local/trustedkeys/prefix.d/example.com").join(&key);
    assert_eq!(added.stdout, format!("Added key for prefix \"example.com\" at \"{}\"\n", path.display()));
}

#[test]
fn what_is_not_trusted_by_mistake() {
    let host = Host::new();
    fs::write(host.path("big"), vec![b'x'; 1_100_000]).unwrap();
    fs::write(host.path("text"), "x").unwrap();
    let [big, text] = ["big", "text"].map(|name| host.path(name).to_str().unwrap().to_owned());
    for (arguments, word) in [
        (&["trust", &text][..], "--prefix=PREFIX"),
        (&["trust", "--root"], "discovery"),
        (&["trust", "--root", "--prefix=a", &text], "cannot be used with"),
        (&["trust", "--prefix=https://example.com", &text], "without a scheme"),
        (&["trust", "--prefix=../..", &text], "--prefix"),
        (&["trust", "--root", "https://example.com/key"], "not fetched from the network yet"),
        (&["trust", "--root", "--insecure-allow-http", &text], "not fetched from the network yet"),
        (&["--trust-keys-from-https", "list"], "not fetched from the network yet"),
        (&["--insecure-options=tls", "list"], "not there yet"),
        (&["--insecure-options=http,pubkey", "list"], "not there yet"),
        (&["trust", "--root", "--skip-fingerprint-review", "/nowhere"], "/nowhere"),
        (&["trust", "--root", "--skip-fingerprint-review", &text], "no good OpenPGP public key"),
        (&["trust", "--root", "--skip-fingerprint-review", &big], "larger than 1048576 bytes"),
    ] {
        strict(&host, arguments).refused(&[word]);
    }
    assert!(!host.path("local").exists());
    strict(&host, &["--insecure-options=ondisk,none", "--trust-keys-from-https=false", "list"]).success();
}
