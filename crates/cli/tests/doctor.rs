//! Whatever is damaged or away: who follows the doctor's advice to the letter comes to a vault with nothing wrong.
//!
//! - Random damage to random files of random places, and places that are away; each trace is replayed by its seed.
//! - `doctor`, and the first command of what it says of one finding after the other, until it finds nothing; then `check` and `scrub`, and again.
//! - In the end the newest backup restores to what the source holds.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::runner::{Home, Ran, files_below};

/// Commands of the doctor's that are followed before a trace counts as endless.
const STEPS_MAX: usize = 30;
/// Times that `check` and `scrub` may find what the doctor did not know of.
const ROUNDS_MAX: usize = 5;

/// Numbers that look random, the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) % limit.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

struct Trace {
    seed: u64,
    home: Home,
    random: Random,
    places: usize,
    away: Vec<usize>,
    fresh: usize,
    /// What was done, for the message of a failure.
    log: String,
}

impl Trace {
    fn new(seed: u64, places: usize, needed: usize) -> Self {
        let mut trace = Self {
            seed,
            home: Home::new(),
            random: Random(seed),
            places,
            away: Vec::new(),
            fresh: 0,
            log: String::new(),
        };
        let mut init = vec!["init".to_owned()];
        if places > 1 {
            init.extend(["--spread".to_owned(), format!("{needed}/{places}")]);
        }
        for place in 0..places {
            fs::create_dir(trace.home.path(&format!("p{place}"))).unwrap();
            init.extend([
                if places == 1 { "--vault" } else { "--place" }.to_owned(),
                format!("p{place}/v"),
            ]);
        }
        assert_eq!(trace.run(&init).exit(), 0, "{}", trace.log);
        for number in 0..3 {
            for name in ["a".to_owned(), format!("d/{number}")] {
                let bytes = [100, 5000, 60_000][trace.random.below(3)];
                let content = trace.random.bytes(bytes);
                trace.home.write(&format!("src/{name}"), &content);
            }
            assert_eq!(trace.run(&["backup", "src"]).exit(), 0, "{}", trace.log);
        }
        if trace.random.below(2) == 0 {
            trace.run(&["forget", "--keep-last", "2"]);
            trace.run(&["gc"]);
        }
        trace
    }

    fn run(&mut self, args: &[impl AsRef<str>]) -> Ran {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let vault: Vec<String> = (0..self.places).map(|place| format!("p{place}/v")).collect();
        let ran = self.home.run_with(&args, &[("DRYSTONE_VAULT", &*vault.join(","))]);
        self.log += &format!("$ {} -> {}\n{}{}", args.join(" "), ran.exit(), ran.out(), ran.err());
        ran
    }

    /// Damages files of places, or takes places away; no more places than may be lost, but for the only one.
    fn harm(&mut self, tolerated: usize) {
        let victims = 1 + self.random.below(tolerated);
        let places = self.places;
        let first = self.random.below(places);
        for place in (first..first + victims).map(|number| number % places) {
            if self.places > 1 && self.random.below(3) == 0 {
                self.log += &format!("place {place} goes away\n");
                fs::rename(self.path("p", place), self.path("away", place)).unwrap();
                self.away.push(place);
                continue;
            }
            let mut files = files_below(&self.path("p", place).join("v"));
            // With the only key slot everything is gone; that is no matter of advice.
            files.retain(|file| self.places > 1 || !file.to_str().unwrap().contains("keys/"));
            for _ in 0..1 + self.random.below(4) {
                let file = files[self.random.below(files.len())].clone();
                self.harm_file(&file);
            }
        }
        if !self.away.is_empty() && self.random.below(2) == 0 {
            self.run(&["backup", "src"]);
        }
    }

    fn harm_file(&mut self, file: &Path) {
        let Ok(mut bytes) = fs::read(file) else { return };
        let way = self.random.below(4);
        self.log += &format!("{} {}\n", ["remove", "cut", "flip", "junk"][way], file.display());
        match way {
            0 => return fs::remove_file(file).unwrap(),
            1 => bytes.truncate(self.random.below(bytes.len())),
            2 if !bytes.is_empty() => {
                let at = self.random.below(bytes.len());
                bytes[at] ^= 1 << self.random.below(8);
            }
            _ => bytes = self.random.bytes(bytes.len().clamp(1, 10_000)),
        }
        fs::remove_file(file).unwrap();
        fs::write(file, bytes).unwrap();
    }

    fn path(&self, word: &str, place: usize) -> PathBuf {
        self.home.path(&format!("{word}{place}"))
    }

    fn bring_back(&mut self) -> bool {
        let Some(place) = self.away.pop() else { return false };
        self.log += &format!("place {place} is back\n");
        fs::rename(self.path("away", place), self.path("p", place)).unwrap();
        true
    }

    /// What the doctor finds wrong; nothing if it cannot even open the vault, which a place that comes back has to mend.
    fn findings(&mut self) -> Option<Vec<Value>> {
        let ran = self.run(&["--json", "doctor"]);
        if ![0, 3, 5].contains(&ran.exit()) || ran.out().is_empty() {
            return None;
        }
        let findings = ran.object()["findings"].as_array().unwrap().clone();
        Some(findings.into_iter().filter(|one| one["grade"] != "risk").collect())
    }

    /// Follows the doctor until it finds nothing wrong.
    fn follow(&mut self) {
        for step in 0..STEPS_MAX {
            let Some(findings) = self.findings() else {
                assert!(
                    self.bring_back(),
                    "seed {}: the vault cannot be opened\n{}",
                    self.seed,
                    self.log
                );
                continue;
            };
            if findings.is_empty() {
                return;
            }
            // Not always the first, so that one without an end hides no other.
            let next = findings[step / 2 % findings.len()]["next"].as_str().unwrap().to_owned();
            let is_away = next.contains("bring back") || next.contains("available again");
            let stays_away = next.contains("place replace") && self.random.below(3) == 0;
            if is_away && !stays_away && self.bring_back() {
                continue;
            }
            self.obey(&next);
        }
        panic!("seed {}: the advice does not end\n{}", self.seed, self.log);
    }

    /// Runs the commands that an advice names, in their order.
    fn obey(&mut self, next: &str) {
        let fresh = format!("fresh{}", self.fresh);
        self.fresh += 1;
        let mut has_command = false;
        for part in next.split("drystone ").skip(1) {
            let command = part.split([',', ';', '(', ')', '`']).next().unwrap().trim();
            let command = command.replace("NEW-PLACE", &fresh);
            let args: Vec<String> = command.split_whitespace().map(ToOwned::to_owned).collect();
            self.run(&args);
            has_command = true;
        }
        assert!(has_command, "seed {}: no command in `{next}`\n{}", self.seed, self.log);
    }

    fn mend(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.follow();
            if self.run(&["check"]).exit() == 0 && self.run(&["scrub"]).exit() == 0 {
                return;
            }
        }
        panic!("seed {}: check or scrub never ends well\n{}", self.seed, self.log);
    }

    /// Nothing is wrong: then everything works, and the newest backup is what the source holds.
    fn assert_mended(&mut self) {
        for args in [
            &["gc"][..],
            &["backup", "src"],
            &["check"],
            &["restore", "latest", "--target", "out"],
        ] {
            let ran = self.run(args);
            assert_eq!(ran.exit(), 0, "seed {}\n{}", self.seed, self.log);
        }
        for file in files_below(&self.home.path("src")) {
            let inside = file.strip_prefix("/").unwrap();
            let restored = fs::read(self.home.path("out").join(inside)).or_else(|_| {
                let below_home = file.strip_prefix(self.home.path("")).unwrap();
                fs::read(self.home.path("out").join(below_home))
            });
            assert_eq!(
                restored.unwrap(),
                fs::read(&file).unwrap(),
                "seed {}: {}\n{}",
                self.seed,
                file.display(),
                self.log
            );
        }
    }
}

fn traces(seeds: std::ops::Range<u64>, places: usize, needed: usize) {
    for seed in seeds {
        let mut trace = Trace::new(seed, places, needed);
        trace.harm((places - needed).max(1));
        trace.mend();
        trace.assert_mended();
    }
}

#[test]
fn its_advice_mends_a_vault_at_one_place() {
    traces(0..8, 1, 1);
}

#[test]
fn its_advice_mends_a_vault_at_three_places() {
    traces(0..6, 3, 2);
}

#[test]
fn its_advice_mends_a_vault_at_five_places() {
    traces(0..4, 5, 3);
}

#[test]
#[ignore = "long"]
fn its_advice_mends_many_vaults() {
    for (places, needed) in [(1, 1), (3, 2), (5, 3)] {
        traces(100..200, places, needed);
    }
}
