//! Dumps: one file to a stream, and tars that other programs read.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

use drystone_backup::{DumpReport, Selection, Watch, cat, dump_tar};
use drystone_format::tree::{Entry, Kind, Time};
use drystone_vault::{Cancel, Progress};

use crate::vaults::{Fixture, entry, noise};

fn dump(fixture: &Fixture, selection: &Selection) -> (Vec<u8>, DumpReport) {
    let mut out = Vec::new();
    let (progress, cancel) = (Progress::default(), Cancel::default());
    let watch = Watch {
        progress: &progress,
        cancel: &cancel,
    };
    let report = dump_tar(&fixture.vault.reader().unwrap(), selection, &mut out, watch).unwrap();
    (out, report)
}

#[test]
fn a_file_comes_out_as_it_was() {
    let fixture = Fixture::new();
    let data = noise(1, 300_000);
    let snapshot = fixture.put(|putter| {
        let entries = vec![entry("f", putter.sparse(&[Ok(&data), Err(100_000), Ok(b"end")]))];
        putter.dir(entries)
    });
    let reader = fixture.vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, b"/f").unwrap();
    let (progress, cancel, mut out) = (Progress::default(), Cancel::default(), Vec::new());
    let watch = Watch {
        progress: &progress,
        cancel: &cancel,
    };
    cat(&reader, &selection, &mut out, watch).unwrap();
    assert!(out[..300_000] == data && out[300_000..400_000] == [0; 100_000] && &out[400_000..] == b"end");
    assert!(cat(&reader, &Selection::whole(&snapshot), &mut out, watch).is_err());
    cancel.cancel();
    assert!(cat(&reader, &selection, &mut out, watch).is_err());
}

#[test]
fn tar_programs_read_what_is_dumped() {
    let (fixture, target) = (Fixture::new(), tempfile::tempdir().unwrap());
    let is_root = rustix::process::geteuid().is_root();
    let (long, data) = ("n".repeat(200), noise(1, 123_457));
    let snapshot = fixture.put(|putter| {
        let mut precise = entry(&long, putter.file(&data));
        precise.mtime = Time {
            seconds: 1_600_000_000,
            nanos: 987_654_321,
        };
        precise.xattrs = vec![(b"user.key".to_vec(), b"a\n=\0b".to_vec())];
        precise.mode = 0o640;
        let mut raw = entry("x", putter.file(b"raw"));
        raw.name = b"\xffraw".to_vec();
        let linked = |name: &str, kind| Entry {
            hard_link: Some((1, 1)),
            ..entry(name, kind)
        };
        let (one, two) = (putter.file(b"linked"), putter.file(b"linked"));
        let mut entries = vec![
            precise,
            raw,
            linked("one", one),
            linked("two", two),
            entry("link", Kind::Symlink("t".repeat(150).into_bytes())),
            entry("pipe", Kind::Fifo),
            Entry {
                hard_link: Some((1, 2)),
                ..entry("socket", Kind::Socket)
            },
            // A link to what is left out is left out as well.
            Entry {
                hard_link: Some((1, 2)),
                ..entry("socket2", Kind::Socket)
            },
            entry("empty", putter.file(b"")),
        ];
        if is_root {
            entries.push(entry("null", Kind::CharDevice { major: 1, minor: 3 }));
        }
        let dir = putter.dir(entries);
        putter.dir(vec![entry("home", Kind::Dir(dir))])
    });
    let reader = fixture.vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, b"/home").unwrap();
    let (bytes, report) = dump(&fixture, &selection);
    assert_eq!(bytes.len() % 512, 0);
    assert!(report.problems.is_empty());
    let left_out: Vec<String> = report.incomplete.iter().map(ToString::to_string).collect();
    let said = |name: &str| format!("{name}: a socket, which a tar cannot hold; left out");
    assert_eq!(left_out, [said("socket"), said("socket2")]);

    let path = target.path().join("dump.tar");
    fs::write(&path, &bytes).unwrap();
    let out = target.path().join("out");
    fs::create_dir(&out).unwrap();
    let tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&path)
        .arg("-C")
        .arg(&out)
        .stderr(Stdio::piped())
        .output();
    let Ok(tar) = tar else {
        eprintln!("LEFT OUT: no tar program to read the dump");
        return;
    };
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let meta = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert!(fs::read(out.join(&long)).unwrap() == data);
    let precise = meta(&long);
    assert_eq!((precise.mtime(), precise.mtime_nsec()), (1_600_000_000, 987_654_321));
    assert_eq!(precise.mode() & 0o7777, 0o640);
    let mut buffer = [0; 16];
    let length = rustix::fs::getxattr(out.join(&long), "user.key", &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"a\n=\0b");
    assert_eq!(meta("one").ino(), meta("two").ino());
    assert_eq!(fs::read_link(out.join("link")).unwrap().as_os_str().len(), 150);
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(fs::read_dir(&out).unwrap().count(), if is_root { 8 } else { 7 });
    if is_root {
        assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    }
    let python = "import sys,tarfile; print(len(tarfile.open(sys.argv[1]).getmembers()))";
    if let Ok(output) = Command::new("python3").args(["-c", python]).arg(&path).output() {
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            if is_root { "9" } else { "8" }
        );
    }
}

#[test]
fn a_damaged_file_is_filled_up_and_the_next_is_good() {
    let fixture = Fixture::new();
    let mut entries = Vec::new();
    fixture.put(|putter| {
        entries.push(entry("a", putter.file(&noise(1, 90_000))));
        drystone_format::recipe::Recipe::default()
    });
    let contents = fixture.store.contents();
    let pack = contents
        .keys()
        .find(|name| name.as_str().starts_with("packs/"))
        .unwrap();
    let mut bytes = contents[pack].to_vec();
    bytes[50_000] ^= 1;
    fixture.store.overwrite(pack, bytes.into());
    let snapshot = fixture.put(|putter| {
        entries.push(entry("b", putter.file(b"good")));
        putter.dir(entries)
    });
    let (bytes, report) = dump(&fixture, &Selection::whole(&snapshot));
    assert_eq!((report.entries, report.problems.count()), (2, 1));
    let mut tar = Command::new("tar")
        .args(["-xOf", "-", "b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It may close its end before all is written.
    let _ = std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &bytes);
    assert_eq!(tar.wait_with_output().unwrap().stdout, b"good");
}

/// Asks to stop at the first bytes that it is given, and takes everything.
struct Stops<'a>(&'a Cancel, u64);

impl std::io::Write for Stops<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.cancel();
        self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_hole_larger_than_anything_does_not_make_a_dump_deaf() {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let entries = vec![entry("f", putter.sparse(&[Ok(b"start"), Err(1 << 60)]))];
        putter.dir(entries)
    });
    let reader = fixture.vault.reader().unwrap();
    let selection = Selection::find(&reader, &snapshot, b"/f").unwrap();
    for whole in [false, true] {
        let (progress, cancel) = (Progress::default(), Cancel::default());
        let watch = Watch {
            progress: &progress,
            cancel: &cancel,
        };
        let mut out = Stops(&cancel, 0);
        let outcome = match whole {
            false => cat(&reader, &selection, &mut out, watch),
            true => dump_tar(&reader, &Selection::whole(&snapshot), &mut out, watch).map(drop),
        };
        assert!(outcome.is_err());
        assert!(out.1 < 1 << 20, "{}", out.1);
    }
}

#[test]
fn a_hard_link_in_a_tar_is_to_the_same_kind_of_thing() {
    let fixture = Fixture::new();
    let snapshot = fixture.put(|putter| {
        let link = Some((1, 2));
        let device = Entry {
            hard_link: link,
            ..entry("a", Kind::Fifo)
        };
        let file = Entry {
            hard_link: link,
            ..entry("b", putter.file(b"content"))
        };
        let other = Entry {
            name: b"c".to_vec(),
            ..file.clone()
        };
        putter.dir(vec![device, file, other])
    });
    let (tar, _) = dump(&fixture, &Selection::whole(&snapshot));
    // Kinds of the headers (POSIX ustar, byte 156): a pipe, a file, a link to the file.
    let headers = tar.chunks(512).filter(|block| block.get(257..262) == Some(b"ustar"));
    let kinds: Vec<u8> = headers.map(|header| header[156]).filter(|kind| *kind != b'x').collect();
    assert_eq!(kinds, *b"601");
}
