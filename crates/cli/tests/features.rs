//! Every command against a vault that needs a feature which this program does not know.

use std::sync::Arc;

use drystone_format::config::Features;
use drystone_format::tree::Time;
use drystone_store::{Local, Store};
use drystone_vault::{Accept, Clock, Context, Entropy, Unlock, Vault};

use crate::runner::Home;

/// Every command, and the features that it needs to know: `none` works without a vault, each of the others needs those before it.
const COMMANDS: [(&str, &[&str]); 38] = [
    ("none", &["init", "--vault", "./new"]),
    ("none", &["dedup", "show"]),
    ("none", &["completions", "bash"]),
    ("none", &["man"]),
    ("none", &["help"]),
    ("read", &["snapshots"]),
    ("read", &["ls", "latest"]),
    ("read", &["find", "a.txt"]),
    ("read", &["diff", "latest", "latest"]),
    ("read", &["cat", "latest:SRC/a.txt"]),
    ("read", &["dump", "latest"]),
    ("read", &["restore", "latest", "--target", "back"]),
    ("read", &["drill", "--into", "drill"]),
    ("read", &["check"]),
    ("read", &["scrub"]),
    ("read", &["doctor"]),
    ("read", &["stats"]),
    ("read", &["repair", "index"]),
    ("read", &["repair", "--dry-run"]),
    ("read", &["place", "list"]),
    ("read", &["key", "list"]),
    ("read", &["vault", "show"]),
    ("read", &["forget", "latest", "--dry-run"]),
    ("read", &["copy", "--to", "other"]),
    ("write", &["backup", "src"]),
    ("write", &["scrub", "--repair"]),
    ("write", &["repair"]),
    ("write", &["repair", "header"]),
    ("write", &["place", "add", "./more", "--later"]),
    ("write", &["place", "set", "--spread", "1/1"]),
    ("write", &["key", "add", "--generate", "new.key"]),
    ("write", &["key", "recovery"]),
    ("write", &["key", "remove", "KEY", "--keep-epoch"]),
    ("write", &["vault", "resolve"]),
    ("read", &["vault", "upgrade"]),
    ("collect", &["forget", "latest"]),
    ("collect", &["gc"]),
    ("collect", &["gc", "--dry-run"]),
];

struct Now;

impl Clock for Now {
    fn now(&self) -> Time {
        Time {
            seconds: 1_700_000_000,
            nanos: 0,
        }
    }
}

struct Random;

impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
}

/// Switches features on in the vault of `home`, whether the program knows them or not.
fn switch_on(home: &Home, features: &Features) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let keys = home.path("home/.config/drystone/keys");
    let key = std::fs::read_dir(keys).unwrap().next().unwrap().unwrap().path();
    let unlock = Unlock::key_file(&std::fs::read_to_string(key).unwrap(), "test", None).unwrap();
    let store: Arc<dyn Store> = Arc::new(Local::open(&home.vault()).unwrap());
    let context = Context {
        clock: Arc::new(Now),
        entropy: Arc::new(Random),
        runtime: runtime.handle().clone(),
        threads: 2,
        memory_bytes: 64 << 20,
        cache_dir: home.path("cache"),
        known_dir: home.path("home/.config/drystone/known"),
        chunk_map: None,
        accept: Accept::default(),
    };
    let vault = Vault::open(store, context, &unlock).unwrap();
    vault.upgrade(features).unwrap();
}

#[test]
fn every_command_of_the_help_is_tried() {
    let help = Home::new().run(["--help"]).ok().out();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in lines.take_while(|line| !line.is_empty()) {
        let verb = line.split_whitespace().next().unwrap();
        assert!(
            COMMANDS.iter().any(|(_, args)| args[0] == verb),
            "`{verb}` is not tried"
        );
    }
}

#[test]
fn every_command_refuses_what_a_feature_is_needed_for_and_nothing_else() {
    for class in ["read", "write", "collect"] {
        // One vault for all: each command leaves it so that the next can be tried.
        let home = Home::backed_up();
        home.run(["key", "add", "--writer", "--generate", "gone.key"]).ok();
        let keys = home.run(["key", "list", "--json"]).ok().json();
        let id = keys.iter().find(|key| key["role"] == "writer").unwrap()["id"].clone();
        let word = vec!["telepathy".to_owned()];
        let mut features = Features::default();
        match class {
            "read" => features.read = word,
            "write" => features.write = word,
            _ => features.collect = word,
        }
        switch_on(&home, &features);
        home.run(["init", "--vault", "./other"]).ok();
        let source = home.path("src").display().to_string();
        let fill = |arg: &&str| arg.replace("SRC", &source).replace("KEY", id.as_str().unwrap());
        for (needs, args) in COMMANDS {
            let ran = home.run(args.iter().map(fill));
            let (refused, failed) = (ran.err().contains("telepathy"), ran.exit() == 1);
            let expected = match needs {
                "none" => false,
                "read" => class == "read",
                "write" => class != "collect",
                _ => true,
            };
            assert_eq!(
                (refused, failed && refused),
                (expected, expected),
                "{args:?} with a feature to {class}: {}",
                ran.err()
            );
            if expected {
                assert!(ran.err().contains("newer"), "{}", ran.err());
            } else {
                assert!(
                    [0, 3, 4].contains(&ran.exit()),
                    "{args:?}, {class}: {} {}",
                    ran.exit(),
                    ran.err()
                );
            }
        }
    }
}
