//! Runs the real binary in a home of its own, with nothing of the outer environment.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home directory with nothing in it, removed at the end.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    pub(crate) fn below(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    /// A home with a small tree in `src` that was backed up once.
    pub(crate) fn backed_up() -> Self {
        let home = Self::new();
        home.write("src/a.txt", b"first file\n");
        home.write("src/dir/b.txt", b"second file\n");
        home.write("src/dir/deep/c.bin", &noise(300_000));
        home.run(["backup", "src"]).ok();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The place of the vault if none is named.
    pub(crate) fn vault(&self) -> PathBuf {
        self.path("home/.local/share/drystone/vault")
    }

    pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a shell script in this home, with `path` as its PATH.
    pub(crate) fn shell(&self, script: &str, path: &str) -> Ran {
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", path);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        Ran {
            shown: script.to_owned(),
            output: command.output().unwrap(),
        }
    }

    pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Ran {
        self.run_with(args, &[])
    }

    pub(crate) fn run_with<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I, env: &[(&str, &str)]) -> Ran {
        self.ran(self.command(args).envs(env.iter().copied()))
    }

    /// Runs any command to its end.
    pub(crate) fn ran(&self, command: &mut Command) -> Ran {
        Ran {
            shown: format!("{command:?}"),
            output: command.output().unwrap(),
        }
    }
}

/// What a run printed and how it ended.
pub(crate) struct Ran {
    shown: String,
    output: Output,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        let (out, err) = (String::from_utf8_lossy(&self.output.stdout), self.err());
        assert_eq!(
            self.output.status.code(),
            Some(expected),
            "{}\n{out}\n{err}",
            self.shown
        );
        assert_word(&out, expected);
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Every line of standard output as JSON, each with its schema and type.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        json_lines(&self.out())
    }

    /// The only object on standard output.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        let mut lines = self.json();
        assert_eq!(lines.len(), 1, "{}", self.out());
        lines.remove(0)
    }

    /// The failure on standard error, in JSON.
    #[track_caller]
    pub(crate) fn failure(&self) -> Value {
        let lines = json_lines(&self.err());
        lines
            .into_iter()
            .find(|line| line["type"] == "error")
            .unwrap_or_else(|| panic!("{}", self.err()))
    }

    /// Asserts that standard error names all of these.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err().contains(word), "`{word}` is missing in\n{}", self.err());
        }
        self
    }
}

/// Asserts that the exit in the last object of a run, if it is JSON and has one, is that of the process.
#[track_caller]
fn assert_word(out: &str, code: i32) {
    let last = out
        .lines()
        .last()
        .and_then(|line| serde_json::from_str::<Value>(line).ok());
    let Some(word) = last.as_ref().and_then(|object| object["exit"].as_str()) else {
        return;
    };
    let words = [
        (0, "ok"),
        (1, "error"),
        (2, "usage"),
        (3, "incomplete"),
        (4, "repaired"),
        (5, "damaged"),
        (10, "no_vault"),
        (12, "wrong_key"),
        (130, "interrupted"),
    ];
    assert!(words.contains(&(code, word)), "ended with {code} and said {out}");
}

#[track_caller]
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(value["schema"], 1, "{line}");
        assert!(value["type"].is_string(), "{line}");
        crate::documented::assert_described(&value);
        value
    };
    text.lines().map(parse).collect()
}

/// Bytes that do not compress, the same at every run.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// All files below `dir`, sorted.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    files
}
