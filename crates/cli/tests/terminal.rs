//! What happens at a terminal: the passphrase is asked for, and its answer is not shown.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::runner::Home;

/// Runs a command line of the program in a terminal of its own and types `typed` once it asks for `prompt`.
///
/// Each line of `typed` is the answer to one question.
fn in_terminal(home: &Home, line: &str, prompt: &str, typed: &str) -> Option<(String, i32)> {
    let plain = home.command([""; 0]);
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("{} {line}", env!("CARGO_BIN_EXE_drystone")),
        "/dev/null",
    ]);
    script
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
        .current_dir(home.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = script.spawn() else {
        eprintln!("LEFT OUT: there is no program `script` to make a terminal with");
        return None;
    };
    let mut keyboard = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (mut shown, mut byte, mut asked) = (Vec::new(), [0], false);
    while screen.read(&mut byte).unwrap() == 1 {
        shown.push(byte[0]);
        if !asked && String::from_utf8_lossy(&shown).ends_with(prompt) {
            asked = true;
            keyboard.write_all(typed.as_bytes()).unwrap();
        }
    }
    drop(keyboard);
    let code = child.wait().unwrap().code().unwrap();
    Some((String::from_utf8_lossy(&shown).into_owned(), code))
}

#[test]
fn the_passphrase_is_asked_for_and_not_shown() {
    let home = Home::new();
    home.run_with(["init"], &[("DRYSTONE_PASSPHRASE", "correct horse")])
        .ok();
    let Some((screen, code)) = in_terminal(&home, "stats", "vault: ", "correct horsx\x7fe\n") else {
        return;
    };
    assert_eq!(code, 0, "{screen}");
    assert!(
        screen.contains("Passphrase or recovery code of") && !screen.contains("horse"),
        "{screen}"
    );
    let (screen, code) = in_terminal(&home, "stats", "vault: ", "wrong\nwrong\nwrong\n").unwrap();
    assert_eq!(code, 12, "{screen}");
    assert_eq!(
        screen.matches("wrong passphrase or recovery code; try again").count(),
        2,
        "{screen}"
    );
    assert!(
        screen.contains("wrong passphrase or recovery code: it opens none"),
        "{screen}"
    );
    let (screen, code) = in_terminal(&home, "stats", "vault: ", "wrong\ncorrect horse\n").unwrap();
    assert!(code == 0 && screen.contains("try again"), "{screen}");
    let (screen, code) = in_terminal(&home, "stats", "vault: ", "wrong\x03").unwrap();
    assert_eq!(code, 130, "{screen}");
}

#[test]
fn a_new_passphrase_is_asked_for_twice() {
    let home = Home::new();
    home.run(["init"]).ok();
    let line = "key add --new-passphrase";
    let Some((screen, code)) = in_terminal(&home, line, "New passphrase: ", "one\ntwo\n") else {
        return;
    };
    assert!(code == 2 && screen.contains("differ"), "{screen}");
    let (screen, code) = in_terminal(&home, line, "New passphrase: ", "one\none\n").unwrap();
    assert_eq!(code, 0, "{screen}");
    home.run_with(["stats"], &[("DRYSTONE_PASSPHRASE", "one")]).ok();
}

#[test]
fn with_a_key_nothing_is_asked() {
    let home = Home::new();
    let (screen, code) = match in_terminal(&home, "init", "\u{0}", "") {
        Some(ran) => ran,
        None => return,
    };
    assert!(code == 0 && screen.contains("Recovery code"), "{screen}");
    let (screen, code) = in_terminal(&home, "stats", "\u{0}", "").unwrap();
    assert!(code == 0 && !screen.contains("Passphrase"), "{screen}");
}

#[test]
fn what_is_printed_wipes_the_line_of_progress() {
    let home = Home::new();
    home.run(["init"]).ok();
    // Standard input is the terminal, on which nobody types but the wish to stop.
    let Some((screen, code)) = in_terminal(&home, "backup --stdin --name x", "0 files", "\x03") else {
        return;
    };
    assert_eq!(code, 130, "{screen}");
    let (before, after) = screen.split_once("stopping in good order").unwrap();
    assert!(
        before.ends_with("\r\x1b[K") && before.contains(" s, 0 files"),
        "{screen:?}"
    );
    assert!(!after.contains("stopping"), "{screen:?}");
}

#[test]
fn lists_have_a_head_line_at_a_terminal_and_nowhere_else() {
    let home = Home::backed_up();
    for (verb, head) in [("snapshots", "snapshot  began"), ("key list", "key        role")] {
        let Some((screen, code)) = in_terminal(&home, verb, "\u{0}", "") else {
            return;
        };
        assert!(code == 0 && screen.contains(head), "{screen}");
        assert!(!home.run(verb.split(' ')).ok().out().contains(head), "{verb}");
    }
}
