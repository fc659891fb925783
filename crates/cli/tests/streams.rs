//! `backup` of streams: standard input, and commands whose end decides.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::backup::PATIENCE;
use crate::runner::{Home, files_below, noise};

#[test]
fn a_stream_that_did_not_end_well_is_no_snapshot() {
    let home = Home::new();
    home.run(["init"]).ok();
    let drystone = env!("CARGO_BIN_EXE_drystone");
    let path = std::env::var("PATH").unwrap();
    // Closed, empty, and a producer that failed.
    for (before, after) in [("", "<&-"), ("", "</dev/null"), ("false |", "")] {
        let script = format!("{before} {drystone} backup --stdin --name x {after}");
        home.shell(&script, &path)
            .code(1)
            .says(&["closed or empty", "no snapshot", "next:"]);
    }
    let command = |words: &[&str]| {
        let args = ["backup", "--stdin-from-command", "--name", "x", "--"];
        home.run(args.iter().chain(words))
    };
    command(&["sh", "-c", "echo part; exit 3"]).code(1).says(&[
        "x: the command `sh -c echo part; exit 3` failed: exit status: 3",
        "no snapshot",
    ]);
    command(&["sh", "-c", "kill -9 $$"]).code(1).says(&["signal: 9"]);
    command(&["no-such-command"])
        .code(1)
        .says(&["cannot start", "no-such-command", "next:"]);
    command(&[]).code(2).says(&["no command", "next:"]);
    assert_eq!(home.run(["snapshots", "--json"]).ok().json().len(), 1);
    command(&["echo", "-n", "--json"]).ok();
    assert_eq!(home.run(["cat", "latest:x"]).ok().bytes(), b"--json");
    // Its exit code says that this is right.
    command(&["true"]).ok();
    assert_eq!(home.run(["cat", "latest:x"]).ok().bytes(), b"");
    // What drystone knows is not the command's business.
    let secret = [
        ("DRYSTONE_PASSPHRASE_FILE", "/none"),
        ("DRYSTONE_TO_PASSPHRASE", "secret"),
    ];
    let args = ["backup", "--stdin-from-command", "--name", "x", "--", "env"];
    home.run_with(args, &secret[1..]).ok();
    assert!(!home.run(["cat", "latest:x"]).ok().out().contains("secret"));
}

#[test]
fn a_command_is_ended_with_the_backup_that_reads_it() {
    let home = Home::new();
    home.run(["init"]).ok();
    // The command outlives its own output.
    let script = "echo $$ >pid; exec >&-; exec sleep 1000";
    let mut child = home
        .command([
            "backup",
            "--stdin-from-command",
            "--name",
            "x",
            "--",
            "sh",
            "-c",
            script,
        ])
        .spawn()
        .unwrap();
    let start = Instant::now();
    let pid = loop {
        let text = fs::read_to_string(home.path("pid")).unwrap_or_default();
        if let Ok(pid) = text.trim().parse::<i32>() {
            break pid;
        }
        assert!(start.elapsed() < PATIENCE, "the command does not start");
        std::thread::yield_now();
    };
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(home.run(["snapshots", "--json"]).ok().json().len(), 1);
}

#[test]
fn a_dry_run_of_a_stream_stores_nothing() {
    let home = Home::backed_up();
    home.write("big.bin", &noise(3 << 20));
    let stored = files_below(&home.vault());
    let args = [
        "backup",
        "--dry-run",
        "--json",
        "--stdin-from-command",
        "--name",
        "x",
        "--",
        "cat",
        "big.bin",
    ];
    let result = home.run(args).ok().object();
    assert_eq!(
        (&result["snapshot"], &result["bytes"]),
        (&Value::Null, &(3 << 20).into())
    );
    assert_eq!(files_below(&home.vault()), stored);
}
