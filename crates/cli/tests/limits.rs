//! Limits of the process and of the machine: open files, address space, a cache that cannot be written, memory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use crate::backup::{Bound, SmallDisk};
use crate::copy;
use crate::image::command;
use crate::runner::{Home, noise};

/// Deeper and wider than descriptors reach, with more threads than there are descriptors for.
#[test]
fn few_open_files_are_enough_to_back_up_and_to_restore() {
    let home = Home::new();
    let deep: String = (0..200).map(|level| format!("d{level}/")).collect();
    home.write(&format!("src/{deep}file"), b"deep");
    for dir in 0..400 {
        home.write(&format!("src/w{dir}/file"), format!("wide {dir}").as_bytes());
    }
    home.run(["init"]).ok();
    let drystone = env!("CARGO_BIN_EXE_drystone");
    let path = std::env::var("PATH").unwrap();
    for (limit, target) in [("ulimit -n 128", "hard"), ("ulimit -Sn 40", "soft")] {
        for threads in [2, 16] {
            let run = |args: &str| {
                home.shell(&format!("{limit}; {drystone} --threads {threads} {args}"), &path)
                    .ok()
            };
            run("backup src --rescan");
            run(&format!("restore latest --target {target}{threads}"));
            let from = format!("{target}{threads}{}", home.path("src").display());
            command(
                "diff",
                &[
                    "-r",
                    home.path("src").to_str().unwrap(),
                    home.path(&from).to_str().unwrap(),
                ],
            );
        }
    }
}

#[test]
fn too_little_address_space_is_an_error_and_no_abort() {
    let home = Home::new();
    home.write("src/a", b"x");
    let drystone = env!("CARGO_BIN_EXE_drystone");
    let path = std::env::var("PATH").unwrap();
    let passphrase = [("DRYSTONE_PASSPHRASE", "p")];
    home.run_with(["backup", "src"], &passphrase).ok();
    let mut refused = 0;
    for kib in (200..=600).step_by(50).map(|mib| mib * 1000) {
        let script = format!("ulimit -v {kib}; DRYSTONE_PASSPHRASE=p {drystone} snapshots");
        let ran = home.shell(&script, &path);
        if ran.err().contains("passphrase takes 128 MiB") {
            ran.code(1).says(&["next:", "key file"]);
            refused += 1;
        } else {
            assert!([0, 1].contains(&ran.exit()), "{kib}: {}", ran.err());
        }
    }
    assert!(refused > 0);
}

/// A user who runs nothing else, so that the limit counts what the test starts; root has none.
const LIMITED_USER: u32 = 61_234;

/// Whatever threads a verb may start, it is done or says that they are too few; it neither panics nor waits for ever.
#[test]
fn too_few_threads_are_an_error_and_no_panic() {
    let home = copy::two();
    if chown(home.path(""), Some(LIMITED_USER), None).is_err() {
        eprintln!("LEFT OUT: too few threads, since this user is not root");
        return;
    }
    command(
        "chown",
        &["-R", &LIMITED_USER.to_string(), home.path("").to_str().unwrap()],
    );
    let drystone = env!("CARGO_BIN_EXE_drystone");
    let path = std::env::var("PATH").unwrap();
    let mut refused = 0;
    for verb in [
        "backup src --rescan",
        "backup src",
        "snapshots",
        "restore latest --target back",
        "drill",
        "check",
        "scrub",
        "copy --to second --to-key-file second.key",
        "forget --keep-last 1",
        "gc",
        "dedup estimate src",
        "dedup files src/a.txt src/dir/b.txt",
    ] {
        for threads in (1..12).chain([16, 24]) {
            let limited = format!("ulimit -u {threads}; exec {drystone} --threads 4 {verb}");
            let ran = home.shell(
                &format!("timeout 60 setpriv --reuid {LIMITED_USER} --clear-groups bash -c '{limited}'"),
                &path,
            );
            let told = ran.err();
            assert!(
                !told.contains("panicked") && ran.exit() < 100,
                "{threads} for {verb}: {told}"
            );
            if ran.exit() == 1 && told.contains("ulimit -u") {
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// Every verb that opens a vault goes on, and says where its cache lies meanwhile.
#[test]
fn a_cache_that_cannot_be_written_stops_nothing() {
    let home = Home::backed_up();
    home.write("file", b"in the way");
    let Some(_disk) = SmallDisk::mount(&home, "size=8m") else {
        return;
    };
    let read_only = home.path("disk/read-only");
    let bound = Bound::new(&home.path("home/.cache/drystone"), read_only.clone());
    let _bound = bound.inspect(|_| {
        let remounted = Command::new("mount")
            .args(["-o", "remount,ro,bind"])
            .arg(&read_only)
            .status();
        assert!(remounted.unwrap().success());
    });
    let tmp = home.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let env = [("TMPDIR", tmp.to_str().unwrap())];
    for (dir, why) in [
        ("file/cache", "Not a directory"),
        ("disk/small", "are free"),
        ("disk/read-only", ""),
    ] {
        for verb in [
            &["backup", "src"][..],
            &["snapshots"],
            &["ls", "latest"],
            &["restore", "latest", "--target", "t"],
            &["check"],
            &["stats"],
            &["forget", "--keep-last", "9"],
            &["gc"],
        ] {
            let _ = fs::remove_dir_all(home.path("t"));
            let ran = home.run_with(verb.iter().copied().chain(["--cache-dir", dir]), &env);
            ran.ok().says(&["cache cannot be written", why, "--cache-dir"]);
        }
    }
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}

/// Most memory that any command may take, KiB, at the most that files ask for.
const PEAK_MAX_KIB: u64 = 256 << 10;

/// Runs a command to its end; its peak of resident memory, KiB.
fn peak_kib(home: &Home, args: &[&str]) -> u64 {
    let mut child = home.command(args).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM"));
        let now = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{args:?}");
            eprintln!("peak of {args:?}: {} MiB", peak >> 10);
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// `count` files of some 60 bytes that nothing shares, in directories of `per_dir`.
fn tiny_files(home: &Home, count: usize, per_dir: usize) {
    let mut noise = noise(count * 20);
    for (number, bytes) in noise.chunks_exact_mut(20).enumerate() {
        let dir = home.path(&format!("src/d{}", number / per_dir));
        if number % per_dir == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        let mut file = fs::File::create(dir.join(format!("f{number}"))).unwrap();
        bytes.iter().try_for_each(|byte| write!(file, "{byte:03}")).unwrap();
    }
}

#[test]
#[ignore = "takes minutes; run by ./test --long"]
fn memory_does_not_grow_with_the_number_of_files() {
    let home = Home::new();
    home.run(["init"]).ok();
    tiny_files(&home, 1_000_000, 1000);
    for args in [
        &["backup", "src"][..],
        &["backup", "src"],
        &["backup", "src", "--rescan", "--threads", "16"],
    ] {
        assert!(peak_kib(&home, args) <= PEAK_MAX_KIB);
    }
}

#[test]
#[ignore = "takes minutes; run by ./test --long"]
fn memory_does_not_grow_with_one_directory_or_its_depth() {
    let home = Home::new();
    home.run(["init"]).ok();
    tiny_files(&home, 1_000_000, usize::MAX);
    let deep: String = (0..1000).map(|level| format!("{level:03}/")).collect();
    home.write("deep/file", b"at the top");
    fs::create_dir_all(home.path(&format!("deep/{}", deep.get(..3900).unwrap()))).unwrap();
    for source in ["src", "deep"] {
        for _ in 0..2 {
            assert!(peak_kib(&home, &["backup", source]) <= PEAK_MAX_KIB);
        }
    }
}

#[test]
#[ignore = "takes minutes; run by ./test --long"]
fn memory_does_not_grow_with_threads() {
    let home = Home::new();
    home.run(["init"]).ok();
    for file in 0..300 {
        let mut bytes = noise(1 << 20);
        bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= file as u8);
        home.write(&format!("src/{file}"), &bytes);
    }
    for compression in ["zstd:3", "zstd:19"] {
        for threads in ["2", "16", "64"] {
            let args = [
                "backup",
                "src",
                "--rescan",
                "--host",
                threads,
                "--compression",
                compression,
            ];
            let args = [&args[..], &["--threads", threads]].concat();
            assert!(peak_kib(&home, &args) <= PEAK_MAX_KIB);
            fs::remove_dir_all(home.vault()).unwrap();
            fs::remove_dir_all(home.path("home")).unwrap();
            fs::create_dir(home.path("home")).unwrap();
            home.run(["init"]).ok();
        }
    }
}
