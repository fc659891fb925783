//! What it takes to have a file system in a file, for the tests of several crates.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a command that has to succeed.
pub(crate) fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    assert!(output.is_ok(), "{program}: {output:?}");
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether file systems that these `tools` make can be mounted here; where continuous integration says that they can, they must.
pub(crate) fn may_mount(what: &str, tools: &[&str]) -> bool {
    let is_there = |tool: &&str| {
        let mut found = Command::new(tool);
        let found = found.arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let may =
        rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists() && tools.iter().all(is_there);
    let tools = tools.join(" and ");
    assert!(
        may || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{what}: the tests need root and {tools}"
    );
    if !may {
        eprintln!("LEFT OUT: {what}: needs root, loop devices and {tools}");
    }
    may
}

/// Makes a file system of so many bytes in a new file, by a program and its options.
pub(crate) fn make(program: &[&str], image: &Path, bytes: u64) {
    File::create(image).unwrap().set_len(bytes).unwrap();
    let (program, options) = program.split_first().unwrap();
    command(program, &[options, &[image.to_str().unwrap()]].concat());
}

/// Unmounts what may be unmounted already, or still be held by a test that failed: the kernel takes it down with its last user.
pub(crate) fn let_go(mount: &Path) {
    let mut unmount = Command::new("umount");
    let _ = unmount.arg("-l").arg(mount).stderr(Stdio::null()).status();
}
