//! Targets that take different names for the same one: nothing is overwritten by what is another file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drystone_backup::{Overwrite, RestoreReport};
use drystone_format::tree::{Entry, Kind};

use crate::image::{let_go, make};
use crate::vaults::{Fixture, entry, options};

/// An exFAT in a file, which folds case.
struct Folding {
    mount: PathBuf,
    loop_device: Option<String>,
    _directory: tempfile::TempDir,
}

fn runs(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Folding {
    /// None, said loudly, where that cannot be.
    fn new() -> Option<Self> {
        // It ends with 1 after saying its version.
        let mut tool = Command::new("mkfs.exfat");
        let is_there = rustix::process::geteuid().is_root() && tool.arg("-V").output().is_ok();
        let mounted = is_there.then(Self::mount).flatten();
        if mounted.is_none() {
            eprintln!(
                "LEFT OUT: a target that folds case: needs root, loop devices, mkfs.exfat and exFAT by kernel or FUSE"
            );
        }
        mounted
    }

    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (image, mount) = (directory.path().join("image"), directory.path().join("mount"));
        make(&["mkfs.exfat"], &image, 64 << 20);
        fs::create_dir(&mount).unwrap();
        let loop_device = runs("losetup", &["-f", "--show", image.to_str()?])?;
        let folding = Self {
            mount,
            loop_device: Some(loop_device),
            _directory: directory,
        };
        let (device, on) = (folding.loop_device.as_deref()?, folding.mount.to_str()?);
        let by_kernel = runs("mount", &["-t", "exfat", device, on]);
        by_kernel.or_else(|| runs("mount.exfat-fuse", &[device, on]))?;
        Some(folding)
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        let_go(&self.mount);
        if let Some(device) = &self.loop_device {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
    }
}

fn problems(report: &RestoreReport) -> Vec<String> {
    let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    problems.sort();
    problems
}

/// What is in a directory, as the file system spells it, with the content of files.
fn found(dir: &Path) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap_or_default())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn of_names_that_the_target_takes_for_one_each_is_restored_or_named() {
    let Some(folding) = Folding::new() else { return };
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let upper = vec![entry("inside", putter.file(b"UPPER"))];
        let lower = vec![
            entry("inside", putter.file(b"lower")),
            entry("own", putter.file(b"own")),
        ];
        let (upper, lower) = (putter.dir(upper), putter.dir(lower));
        let linked = |name: &str, kind| Entry {
            hard_link: Some((1, 1)),
            ..entry(name, kind)
        };
        let (one, two) = (putter.file(b"linked"), putter.file(b"linked"));
        let entries = vec![
            entry("README", putter.file(b"UPPER")),
            entry("readme", putter.file(b"lower")),
            entry("Dir", Kind::Dir(upper)),
            entry("dir", Kind::Dir(lower)),
            linked("Linked", one),
            linked("linked", two),
            entry("Ä", putter.file(b"UPPER")),
            entry("ä", putter.file(b"lower")),
            entry("other", putter.file(b"other")),
        ];
        let deep = putter.dir(entries);
        putter.dir(vec![entry("deep", Kind::Dir(deep))])
    });
    for target in ["new", "made"] {
        let path = folding.mount.join(target);
        if target == "made" {
            fs::create_dir_all(path.join("deep")).unwrap();
        }
        let mut left = Vec::new();
        // Again over what is there: neither is the second of the two taken for the first then.
        for overwrite in [Overwrite::Always, Overwrite::Always, Overwrite::Never] {
            let mut options = options(&path);
            options.overwrite = overwrite;
            let report = fixture.restore(&snapshot, &options);
            let found_problems = problems(&report);
            let names: Vec<&str> = found_problems
                .iter()
                .map(|problem| problem.split(':').next().unwrap())
                .collect();
            assert_eq!(names.len(), 4, "{found_problems:?}");
            assert!(
                found_problems
                    .iter()
                    .all(|problem| problem.contains("takes this name for another")),
                "{found_problems:?}"
            );
            let there = found(&path.join("deep"));
            assert_eq!(there.len(), 5, "{there:?}");
            for (name, content) in &there {
                let expected = match name.as_str() {
                    "README" | "Ä" => "UPPER",
                    "readme" | "ä" => "lower",
                    "other" => "other",
                    "Linked" | "linked" => "linked",
                    _ => "",
                };
                assert_eq!(content, expected, "{name}");
            }
            // What is named is what is not there.
            let lower = |name: &str| name.to_lowercase();
            for name in names {
                let name = name.strip_prefix("deep/").unwrap();
                assert!(there.iter().all(|(there, _)| there != name), "{name}");
                assert!(there.iter().any(|(there, _)| lower(there) == lower(name)), "{name}");
            }
            if left.is_empty() {
                left = there;
            } else {
                assert_eq!(left, there);
            }
        }
    }
    let inside = found(&folding.mount.join("new/deep/dir"));
    assert!(
        inside == [("inside".to_owned(), "UPPER".to_owned())] || inside.len() == 2,
        "{inside:?}"
    );
}
