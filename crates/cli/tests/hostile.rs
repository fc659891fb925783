//! What comes from outside and means no good: texts that play tricks on a terminal, places that hang, links at a place, and
//! programs that need no secrets.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::runner::{Home, Ran};

/// Title, clear, a C1 control, bell, right-to-left override, a zero-width space, and a forged line.
const TRICK: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}txt\u{200b}";

/// Nothing of a trick reached standard output or error as it is.
#[track_caller]
fn is_tame(ran: &Ran) {
    let text = format!("{}{}", ran.out(), ran.err());
    for letter in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}', '\u{200b}', '\r'] {
        assert!(!text.contains(letter), "{letter:?} in {text:?}");
    }
}

/// A server that answers everything with this, or hangs when there is nothing.
fn server(answer: Option<String>) -> (u16, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, was_asked) = channel();
    std::thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for mut client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let _ = asked.send(());
            if let Some(answer) = &answer {
                let _ = client.write_all(answer.as_bytes());
            }
            kept.push(client);
            if answer.is_some() {
                kept.clear();
            }
        }
    });
    (port, was_asked)
}

#[test]
fn no_text_from_outside_reaches_the_terminal_as_it_is() {
    let home = Home::new();
    let name = format!("src/a{TRICK}\nb");
    home.write(&name, b"content");
    home.write("src/plain", b"content");
    let plain = home.path("src");
    home.run(["backup", "src", "--host", TRICK, "--tag", &format!("tag{TRICK}")])
        .ok();
    home.write(&format!("src/c{TRICK}"), b"other");
    home.run(["backup", "src", "--host", TRICK]).ok();
    home.run(["key", "add", "--generate", "new.key", "--label", TRICK]).ok();
    let spot = format!("latest:{}", plain.to_str().unwrap());
    for args in [
        vec!["snapshots"],
        vec!["ls", &spot],
        vec!["ls", "-l", "-R", "latest"],
        vec!["find", "latest"],
        vec!["diff", "latest", "latest"],
        vec!["key", "list"],
        vec!["stats"],
        vec!["check"],
        vec!["doctor"],
        vec!["forget", "--keep-last", "1", "--dry-run"],
        vec!["restore", "latest", "--target", "back"],
        vec!["drill"],
        vec!["ls", &format!("latest:/no{TRICK}")],
        vec!["ls", TRICK],
        vec!["ls", &format!("--{TRICK}")],
        vec!["--vault", &format!("s3://{TRICK}"), "snapshots"],
        vec!["--vault", &format!("/no/{TRICK}\nnext: drystone init"), "snapshots"],
        vec!["place", "list"],
        vec!["copy", "--to", &format!("/no/{TRICK}")],
    ] {
        is_tame(&home.run(&args));
    }
    // What programs read is exact.
    let listed = home.run(["ls", "-R", "latest", "--json"]).ok().json();
    assert!(listed.iter().any(|line| {
        line["path"]
            .as_str()
            .is_some_and(|path| path.ends_with(&format!("a{TRICK}\nb")))
    }));
    let snapshots = home.run(["snapshots", "--json"]).ok().json();
    assert_eq!(snapshots[0]["host"], TRICK);
    assert_eq!(home.run(["cat", &format!("{spot}/c{TRICK}")]).ok().bytes(), b"other");
}

#[test]
fn what_a_server_or_ssh_says_reaches_the_terminal_escaped() {
    let home = Home::new();
    let body = format!("sorry {TRICK}\r\nnext: run something");
    let answer = format!(
        "HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (port, _) = server(Some(answer));
    let ran = home.run(["--vault", &format!("webdav://127.0.0.1:{port}/v"), "snapshots"]);
    is_tame(&ran);
    assert!(ran.err().contains("sorry \\u{1b}"), "{}", ran.err());
    let ran = with_ssh(&home, &format!("printf '%s' 'ssh: {TRICK}' >&2; exit 255"), &[]);
    is_tame(&ran);
    assert!(ran.err().contains("ssh: \\u{1b}"), "{}", ran.err());
}

/// Opens a place over SFTP with a program of this text in the stead of `ssh`.
fn with_ssh(home: &Home, script: &str, env: &[(&str, &str)]) -> Ran {
    let bin = home.path("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("ssh"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = home.command(["--vault", "sftp://127.0.0.1/v", "snapshots"]);
    home.ran(command.env("PATH", path).envs(env.iter().copied()))
}

#[test]
fn ssh_and_passphrase_commands_get_no_secret_that_is_not_theirs() {
    let home = Home::new();
    let secrets = [
        ("DRYSTONE_PASSPHRASE", "hunter2"),
        ("DRYSTONE_TO_PASSPHRASE", "hunter2"),
        ("DRYSTONE_WEBDAV_PASSWORD", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "hunter2"),
        ("OS_PASSWORD", "hunter2"),
        ("ST_KEY", "hunter2"),
        ("AZURE_STORAGE_KEY", "hunter2"),
        ("MY_SECRET", "hunter2"),
    ];
    let needed = [("SSH_AUTH_SOCK", "/run/agent"), ("LANG", "C.UTF-8")];
    let env: Vec<_> = secrets.iter().chain(&needed).copied().collect();
    let out = home.path("environment");
    with_ssh(&home, &format!("env >'{}'; exit 255", out.display()), &env);
    let seen = fs::read_to_string(&out).unwrap();
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(
        seen.contains("SSH_AUTH_SOCK=/run/agent") && seen.contains("HOME="),
        "{seen}"
    );

    let ours: Vec<_> = secrets[1..3].to_vec();
    let command = format!("env >'{}'; echo something", out.display());
    let mut env = vec![
        ("DRYSTONE_PASSPHRASE_COMMAND", command.as_str()),
        ("VAULT_TOKEN", "its own"),
    ];
    env.extend(ours);
    home.run_with(["init"], &env).ok();
    let seen = fs::read_to_string(&out).unwrap();
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(seen.contains("VAULT_TOKEN=its own"), "the command may need it: {seen}");
}

#[test]
fn a_signal_ends_a_run_whose_only_place_hangs() {
    for signal in [Signal::INT, Signal::TERM] {
        for verb in [["snapshots", "-q"], ["backup", "src"]] {
            let home = Home::new();
            home.write("src/a", b"x");
            let (port, asked) = server(None);
            let vault = format!("webdav://127.0.0.1:{port}/v");
            let mut child = home.command(["--vault", &vault].iter().chain(&verb)).spawn().unwrap();
            asked.recv_timeout(Duration::from_secs(60)).unwrap();
            kill_process(Pid::from_child(&child), signal).unwrap();
            // A place that hangs is given up after some fifteen seconds; this must not be what ends the run.
            let begun = Instant::now();
            let status = child.wait().unwrap();
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(status.code(), Some(130), "{said}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_link_at_a_place_is_named_with_what_to_do() {
    let home = Home::backed_up();
    let elsewhere = home.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    // Something that is no directory of packs is nobody's business.
    symlink(&elsewhere, home.vault().join("packs/strange")).unwrap();
    home.run(["check"]).ok();
    home.run(["backup", "src"]).ok();
    let packs = home.vault().join("packs");
    let fan_out = fs::read_dir(&packs)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name() != "strange")
        .unwrap();
    fs::rename(fan_out.path(), elsewhere.join("was")).unwrap();
    symlink(elsewhere.join("was"), fan_out.path()).unwrap();
    let name = format!("packs/{} is a symbolic link", fan_out.file_name().to_str().unwrap());
    for verb in [["check", "-q"], ["backup", "src"]] {
        let ran = home.run(verb);
        assert!(
            ran.err().contains(&name) && ran.err().contains("remove it"),
            "{}",
            ran.err()
        );
    }
    fs::remove_file(fan_out.path()).unwrap();
    fs::rename(elsewhere.join("was"), fan_out.path()).unwrap();
    home.run(["check"]).ok();
    // Nothing is written through a link either.
    fs::remove_dir_all(home.vault().join("tmp")).unwrap();
    symlink(&elsewhere, home.vault().join("tmp")).unwrap();
    home.write("src/new", b"new");
    let ran = home.run(["backup", "src"]);
    assert!(ran.err().contains("tmp is a symbolic link"), "{}", ran.err());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}
