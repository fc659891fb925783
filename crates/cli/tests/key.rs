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
    home.run(["key", "remove", &second["id"].as_str().unwrap()[..8]]).ok();
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", "new passphrase")])
        .code(12);
    home.run(["key", "remove", "ffffffff"])
        .code(1)
        .says(&["ffffffff", "drystone key list"]);
    while list(&home).len() > 1 {
        let other = list(&home).into_iter().find(|key| key["current"] == false).unwrap();
        home.run(["key", "remove", other["id"].as_str().unwrap(), "--keep-epoch"])
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
