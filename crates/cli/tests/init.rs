//! `init`: keys and recovery codes of a new vault, and places where none may be made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::runner::Home;

#[test]
fn without_a_passphrase_a_key_is_generated_for_its_owner_alone() {
    let home = Home::new();
    let ran = home
        .run(["init"])
        .ok()
        .says(&["Recovery code:", ".config/drystone/keys/"]);
    assert!(ran.out().is_empty());
    let keys: Vec<_> = fs::read_dir(home.path("home/.config/drystone/keys"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let stats = home.run(["stats", "--json"]).ok().object();
    let id = stats["vault_id"].as_str().unwrap();
    assert_eq!(keys[0].file_name().to_str().unwrap(), format!("{id}.key"));
    // A key that was not renamed any more, because the run died, still opens its vault.
    fs::rename(keys[0].path(), home.path("home/.config/drystone/keys/new-1.key")).unwrap();
    home.run(["stats"]).ok();
}

#[test]
fn the_recovery_code_opens_the_vault_however_it_is_typed() {
    let home = Home::new();
    let made = home.run(["init", "--json"]).ok().object();
    assert_eq!(made["type"], "created");
    let code = made["recovery_code"].as_str().unwrap().to_owned();
    fs::remove_dir_all(home.path("home/.config")).unwrap();
    home.run(["stats"])
        .code(12)
        .says(&["no key", "--key-file", "DRYSTONE_PASSPHRASE_COMMAND", "next:"]);
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", &code)]).ok();
    home.run_with(
        ["stats"],
        &[("DRYSTONE_PASSPHRASE", &code.to_lowercase().replace('-', " "))],
    )
    .ok();
    let slip = code.replacen(&code[..1], if code.starts_with('7') { "8" } else { "7" }, 1);
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", &slip)]).code(12);
}

#[test]
fn a_passphrase_makes_no_key_file() {
    let home = Home::new();
    home.write("pass", b"correct horse\n");
    let made = home
        .run(["init", "--vault", "./v", "--passphrase-file", "pass", "--json"])
        .ok()
        .object();
    assert!(made["key_file"].is_null() && made["recovery_code"].is_string());
    assert!(!home.path("home/.config/drystone/keys").exists());
    home.run_with(["stats", "--vault", "v"], &[("DRYSTONE_PASSPHRASE", "correct horse")])
        .ok();
    home.run_with(["stats", "--vault", "v"], &[("DRYSTONE_PASSPHRASE", "wrong horse")])
        .code(12)
        .says(&["opens none of", "next:", "--passphrase-file"]);
    let failure = home
        .run_with(["stats", "--vault", "v", "--json"], &[("DRYSTONE_PASSPHRASE", "wrong")])
        .code(12)
        .failure();
    assert_eq!(
        (&failure["code"], failure["name"].as_str()),
        (&12.into(), Some("wrong_key"))
    );
}

#[test]
fn recipients_open_it_and_a_named_key_file_is_generated_where_it_is_wanted() {
    let home = Home::new();
    home.run(["init", "--vault", "./one", "--key-file", "my.key"])
        .ok()
        .says(&["my.key"]);
    let key = String::from_utf8(home.read("my.key")).unwrap();
    let recipient = key
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    home.run([
        "init",
        "--vault",
        "./two",
        "--recipient",
        recipient,
        "--chunk-size",
        "16KiB",
        "--label",
        "mine",
    ])
    .ok();
    // The file says which vault it is for, until somebody who knows better adds another.
    let list = ["key", "list", "--vault", "two", "--key-file", "my.key", "--json"];
    let refused = home.run(list).code(12).says(&["my.key", "# drystone vault: "]).err();
    let (_, line) = refused.split_once("# drystone vault: ").unwrap();
    let line = line.split_once('`').unwrap().0;
    home.write("my.key", format!("{key}# drystone vault: {line}\n").as_bytes());
    let listed = home.run(list).ok().json();
    assert_eq!(listed[0]["recipient"], recipient);
    assert_eq!(listed[0]["label"], "mine");
    assert!(!home.path("home/.config/drystone/keys").exists());
    // An existing key file locks a new vault, too.
    home.run(["init", "--vault", "./three", "--key-file", "my.key"]).ok();
    home.run(["stats", "--vault", "three", "--key-file", "my.key"]).ok();
    home.run(["init", "--vault", "./four", "--recipient", "age1nonsense"])
        .code(12)
        .says(&["age1nonsense"]);
    home.run(["init", "--vault", "./five", "--chunk-size", "8"]).code(2);
}

#[test]
fn no_vault_is_made_where_something_else_is() {
    let home = Home::new();
    home.write("full/letter.txt", b"x");
    home.write("file", b"x");
    home.run(["init", "--vault", "full"])
        .code(10)
        .says(&["letter.txt", "next:"]);
    home.run(["init", "--vault", "file"]).code(10).says(&["file"]);
    home.run(["init", "--vault", "gopher://bucket"])
        .code(2)
        .says(&["gopher", "file://", "s3://"]);
    assert_eq!(fs::read_dir(home.path("full")).unwrap().count(), 1);
    home.run(["init", "--vault", "./v"]).ok();
    home.run(["init", "--vault", "./v"]).code(1).says(&["already", "next:"]);
}

#[test]
fn no_vault_a_newer_vault_and_a_damaged_header_are_told_apart() {
    let home = Home::new();
    home.run(["snapshots"]).code(10).says(&["no such directory", "next:"]);
    home.write("other/x", b"x");
    home.run(["snapshots", "--vault", "other"])
        .code(10)
        .says(&["no vault here", "drystone init"]);
    home.run(["init"]).ok();
    let header = home.vault().join("drystone");
    let sound = fs::read(&header).unwrap();
    let mut newer = sound.clone();
    newer[7] = 99;
    fs::write(&header, &newer).unwrap();
    // Who opens the vault sees that nobody who may say so says so; without a key it cannot be told.
    home.run(["snapshots"]).ok().says(&["warning:", "newer format"]);
    home.run(["check"]).code(5);
    let mut flipped = sound.clone();
    flipped[40] ^= 1;
    fs::write(&header, &flipped).unwrap();
    home.run(["snapshots"]).ok().says(&["warning:", "header"]);
    home.run(["check"]).code(5);
    assert_eq!(
        home.run(["repair", "header", "--json"]).code(4).object()["exit"],
        "repaired"
    );
    home.run(["check"]).ok();
}

#[test]
fn ssh_keys_open_a_vault_also_those_with_a_passphrase() {
    let home = Home::new();
    let generate = |name: &str, passphrase: &str| {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", passphrase, "-f", name])
            .current_dir(home.path(""));
        keygen.status().is_ok_and(|status| status.success())
    };
    if !generate("plain", "") || !generate("closed", "open sesame") {
        eprintln!("LEFT OUT: ssh keys, since there is no ssh-keygen");
        return;
    }
    let public = |name: &str| String::from_utf8(home.read(&format!("{name}.pub"))).unwrap();
    home.run([
        "init",
        "--recipient",
        &public("plain"),
        "--recipient",
        &public("closed"),
    ])
    .ok();
    home.run(["stats", "--key-file", "plain"]).ok();
    home.run(["stats", "--key-file", "closed"])
        .code(12)
        .says(&["closed", "passphrase", "next:"]);
    home.run_with(
        ["stats", "--key-file", "closed"],
        &[("DRYSTONE_PASSPHRASE", "open sesame")],
    )
    .ok();
    // The public key beside an ssh key is found for a new vault.
    home.run(["init", "--vault", "./second", "--key-file", "plain"]).ok();
    home.run(["stats", "--vault", "second", "--key-file", "plain"]).ok();
}

#[test]
fn a_mistyped_recipient_leaves_nothing_behind() {
    let home = Home::new();
    home.run(["init", "--key-file", "my.key"]).ok();
    let good = String::from_utf8(home.read("my.key")).unwrap();
    let good = good
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    home.run([
        "init",
        "--vault",
        "./v",
        "--recipient",
        good,
        "--recipient",
        "age1nonsense",
    ])
    .code(12)
    .says(&["age1nonsense"]);
    home.run(["init", "--vault", "./v", "--recipient", good]).ok();
}

#[test]
fn what_is_refused_leaves_no_directory() {
    let home = Home::new();
    home.run(["init", "--place", "a"]).ok();
    home.run(["init", "--place", "new", "--place", "a", "--spread", "1/2"])
        .code(1);
    assert!(!home.path("new").exists());
    home.run(["init", "--place", "new", "--spread", "2/3"]).ok();
    assert!(home.path("new/spare/1/drystone").exists());
    home.run(["check", "--vault", "new"]).ok();
}
