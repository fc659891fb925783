//! `key`: adding, listing and removing what opens a vault.

use serde_json::Value;

use crate::runner::Home;

fn list(home: &Home) -> Vec<Value> {
    let mut lines = home.run(["key", "list", "--json"]).ok().json();
    assert_eq!(lines.pop().unwrap()["type"], "summary");
    lines
}

#[test]
fn keys_come_and_go_and_the_last_owner_stays() {
    let home = Home::new();
    home.write("new.txt", b"new passphrase\n");
    home.run(["init"]).ok();
    home.run(["key", "add", "--new-passphrase-file", "new.txt", "--label", "second"])
        .ok();
    home.run(["key", "add", "--generate", "third.key"]).ok();
    home.run(["key", "add", "--generate", "third.key"])
        .code(1)
        .says(&["third.key", "next:"]);
    assert_eq!(list(&home).len(), 4);
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", "new passphrase")])
        .ok();
    home.run(["stats", "--key-file", "third.key"]).ok();
    let second = list(&home).into_iter().find(|key| key["label"] == "second").unwrap();
    let id = &second["id"].as_str().unwrap()[..8];
    home.run(["key", "remove", id]).code(1).says(&[
        "sign for this vault for ever",
        "drystone copy",
        "--holder-still-trusted",
    ]);
    home.run(["key", "remove", id, "--holder-still-trusted"]).ok();
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", "new passphrase")])
        .code(12);
    home.run(["key", "remove", "ffffffff"])
        .code(1)
        .says(&["ffffffff", "drystone key list"]);
    while list(&home).len() > 1 {
        let other = list(&home).into_iter().find(|key| key["current"] == false).unwrap();
        home.run(["key", "remove", other["id"].as_str().unwrap(), "--holder-still-trusted"])
            .ok();
    }
    let last = list(&home).remove(0);
    home.run(["key", "remove", last["id"].as_str().unwrap()])
        .code(1)
        .says(&["last owner", "drystone key add"]);
}

#[test]
fn a_new_recovery_code_opens_the_vault() {
    let home = Home::new();
    home.run(["init"]).ok();
    let code = home.run(["key", "recovery"]).ok().out();
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", code.trim())]).ok();
    let code = home.run(["key", "recovery", "--json"]).ok().object();
    home.run_with(
        ["stats"],
        &[("DRYSTONE_PASSPHRASE", code["recovery_code"].as_str().unwrap())],
    )
    .ok();
}

#[test]
fn a_writer_can_manage_no_keys_and_list_no_snapshots() {
    let home = Home::new();
    home.run(["init"]).ok();
    home.run(["key", "add", "--writer", "--generate", "writer.key", "--label", "web"])
        .ok();
    assert!(
        list(&home)
            .iter()
            .any(|key| key["role"] == "writer" && key["label"] == "web")
    );
    home.run(["key", "add", "--generate", "x.key", "--key-file", "writer.key"])
        .code(12)
        .says(&["writer key"]);
    assert!(!home.path("x.key").exists());
    home.run(["key", "recovery", "--key-file", "writer.key"])
        .code(12)
        .says(&["writer key", "next:"]);
    home.run(["check", "--key-file", "writer.key"]).ok();
}

#[test]
fn a_new_key_needs_exactly_one_lock() {
    let home = Home::new();
    home.run(["key", "add"]).code(2).says(&["--new-passphrase-file"]);
    home.run(["key", "add", "--generate", "a", "--recipient", "b"]).code(2);
    home.run(["init"]).ok();
    home.run(["key", "add", "--new-passphrase"])
        .code(2)
        .says(&["no terminal"]);
}

#[test]
fn every_role_does_what_it_may_and_is_told_what_it_may_not() {
    let home = Home::backed_up();
    for role in ["writer", "member", "reader"] {
        let file = format!("{role}.key");
        home.run(["key", "add", "--role", role, "--generate", &file, "--label", role])
            .ok();
        assert!(
            list(&home)
                .iter()
                .any(|key| key["role"] == role && key["label"] == role)
        );
        let backs_up = role != "reader";
        let run = |args: &[&str]| home.run(args.iter().copied().chain(["--key-file", &file]));
        if backs_up {
            run(&["backup", "src"]).ok();
        } else {
            run(&["backup", "src"])
                .code(12)
                .says(&["reader key", "back up", "next:"]);
        }
        for reading in [
            ["snapshots"].as_slice(),
            &["check"],
            &["ls", "latest"],
            &["restore", "latest", "--target", role],
        ] {
            let _ = match role {
                "writer" => run(reading).code(12).says(&["writer key", "next:"]),
                _ => run(reading).ok(),
            };
        }
        run(&["scrub"]).ok();
        run(&["stats"]).ok();
        let article = format!("{role} key");
        for governing in [
            ["forget", "latest"].as_slice(),
            &["gc"],
            &["key", "add", "--generate", "x.key"],
            &["key", "recovery"],
            &["place", "add", "./elsewhere"],
        ] {
            run(governing).code(12).says(&[&article, "next:"]);
        }
        assert!(!home.path("x.key").exists());
    }
    home.run(["key", "add", "--role", "king", "--generate", "x.key"])
        .code(2)
        .says(&["king", "owner, writer, member, reader"]);
    // A member's key that is gone takes nothing of what it stored with it.
    let member = list(&home).into_iter().find(|key| key["role"] == "member").unwrap();
    home.run(["key", "remove", member["id"].as_str().unwrap()]).ok();
    home.run(["snapshots", "--key-file", "member.key"]).code(12);
    home.run(["backup", "src"]).ok();
    home.run(["restore", "latest", "--target", "again", "--key-file", "reader.key"])
        .ok();
    home.run(["check"]).ok();
}

#[test]
fn neither_host_nor_label_nor_public_key_lie_open_at_the_place() {
    let home = Home::new();
    home.run(["init"]).ok();
    assert_eq!(
        list(&home)[0]["label"],
        "",
        "the host's name says where the key is kept"
    );
    home.run(["key", "add", "--generate", "x.key", "--label", "attic-laptop"])
        .ok();
    let recipient = String::from_utf8(home.read("x.key")).unwrap();
    let recipient = recipient
        .lines()
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    for file in crate::runner::files_below(&home.vault()) {
        let bytes = std::fs::read(&file).unwrap();
        for text in ["attic-laptop", recipient] {
            assert!(
                !bytes.windows(text.len()).any(|part| part == text.as_bytes()),
                "{text} in {file:?}"
            );
        }
    }
    assert!(
        list(&home)
            .iter()
            .any(|key| key["label"] == "attic-laptop" && key["recipient"] == recipient)
    );
}

#[test]
fn a_key_is_named_by_what_it_signs_with_and_keeps_that_name() {
    let home = Home::backed_up();
    for (label, file) in [("laptop", "a.key"), ("tablet", "b.key")] {
        let add = ["key", "add", "--role", "writer", "--label", label, "--generate", file];
        home.run(add).ok();
    }
    let keys = || -> Vec<(String, String, String)> {
        let lines = home.run(["key", "list", "--json"]).ok().json();
        let keys = lines.iter().filter(|line| line["type"] == "key");
        let text = |key: &serde_json::Value, name: &str| key[name].as_str().unwrap().to_owned();
        keys.map(|key| (text(key, "label"), text(key, "signer"), text(key, "id")))
            .collect()
    };
    let of = |label: &str| keys().into_iter().find(|(name, ..)| name == label);
    let (laptop, tablet) = (of("laptop").unwrap(), of("tablet").unwrap());
    let shown = home.run(["key", "list"]).ok();
    assert!(
        shown.out().contains(&laptop.1) && !shown.out().contains(&laptop.2[..8]),
        "{}",
        shown.out()
    );
    shown.says(&["* opened the vault"]);
    let removed = home.run(["key", "remove", &laptop.1]).ok().out();
    assert!(removed.contains(&laptop.1), "{removed}");
    let after = of("tablet").unwrap();
    assert!(
        of("laptop").is_none() && after.1 == tablet.1 && after.2 != tablet.2,
        "{after:?}"
    );
    // A name that was noted before still means the key.
    home.run(["key", "remove", &tablet.1]).ok();
    home.run(["key", "remove", &tablet.1])
        .code(1)
        .says(&["no single key", "next: drystone key list"]);
}
