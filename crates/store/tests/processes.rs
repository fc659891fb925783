//! Several processes at one local place, and processes that are killed.
//!
//! The other processes are this test binary, told by an environment variable what to do.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use drystone_format::{SlotId, id};
use drystone_store::{Kind, Local, Name, Prefix, Put, Range, Store};
use tokio::task::JoinSet;

use crate::pack;

const PLACE: &str = "DRYSTONE_STORE_TEST_PLACE";
const WRITER: &str = "DRYSTONE_STORE_TEST_WRITER";
const RACES: u8 = 30;
const RACERS: u8 = 8;
const PACK_BYTES: usize = 256 << 10;
/// After so many kills the test ends, if at least one of them met a put.
const FEWEST_KILLS: u8 = 12;
const MOST_KILLS: u8 = 60;

fn spawn(role: &str, place: &Path, writer: u8) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", role])
        .env(PLACE, place)
        .env(WRITER, writer.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Place and number of this process, if it was started by [`spawn`].
fn role() -> Option<(Local, u8)> {
    let place = std::env::var_os(PLACE)?;
    let writer = std::env::var(WRITER).unwrap().parse().unwrap();
    Some((Local::open(Path::new(&place)).unwrap(), writer))
}

#[tokio::test]
#[ignore = "run by eight_processes_have_one_winner in other processes"]
async fn racer() {
    let Some((store, writer)) = role() else { return };
    let mut line = String::new();
    println!("ready");
    std::io::stdin().read_line(&mut line).unwrap();
    for race in 0..RACES {
        let (name, bytes) = (
            Name::key(&SlotId([race; 16])),
            Bytes::from(vec![writer; 1000 + usize::from(writer)]),
        );
        if store.put(&name, bytes).await.unwrap() == Put::Created {
            println!("won {race}");
        }
    }
}

#[tokio::test]
async fn eight_processes_have_one_winner() {
    // A busy machine may run them one after the other; not every time.
    for _ in 0..20 {
        if race().await > 1 {
            return;
        }
    }
    panic!("the processes never ran at the same time");
}

/// Lets all put the same names at once. How many of them won any.
async fn race() -> usize {
    let place = tempfile::tempdir().unwrap();
    let mut racers: Vec<Child> = (0..RACERS)
        .map(|writer| spawn("processes::racer", place.path(), writer))
        .collect();
    let mut outputs: Vec<_> = racers
        .iter_mut()
        .map(|racer| BufReader::new(racer.stdout.take().unwrap()).lines().map(Result::unwrap))
        .collect();
    for output in &mut outputs {
        assert!(output.any(|line| line.ends_with("ready")));
    }
    for racer in &mut racers {
        racer.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let mut winners = vec![Vec::new(); usize::from(RACES)];
    for (writer, output) in outputs.iter_mut().enumerate() {
        for line in output {
            if let Some(race) = line.strip_prefix("won ") {
                winners[race.parse::<usize>().unwrap()].push(writer);
            }
        }
    }
    for mut racer in racers {
        assert!(racer.wait().unwrap().success());
    }
    let store = Local::open(place.path()).unwrap();
    for (race, winners) in (0..).zip(&winners) {
        assert_eq!(winners.len(), 1, "winners of race {race}: {winners:?}");
        let bytes = store.get(&Name::key(&SlotId([race; 16])), Range::All).await.unwrap();
        assert_eq!(bytes, vec![winners[0] as u8; 1000 + winners[0]]);
    }
    assert_eq!(fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
    winners.iter().flatten().collect::<BTreeSet<_>>().len()
}

#[tokio::test]
#[ignore = "run by killed_writers_leave_whole_objects_only in another process"]
async fn endless_writer() {
    let Some((store, writer)) = role() else { return };
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let (name, bytes) = pack(u64::from(writer) << 40 | task << 32 | n, PACK_BYTES);
                store.put(&name, bytes).await.unwrap();
                println!("stored {name}");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn killed_writers_leave_whole_objects_only() {
    let place = tempfile::tempdir().unwrap();
    let (mut leftovers, mut acknowledged) = (0, Vec::new());
    for kill in 0..MOST_KILLS {
        let mut child = spawn("processes::endless_writer", place.path(), kill);
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .filter_map(|line| Some(line.unwrap().split_once("stored ")?.1.to_string()));
        acknowledged.extend(lines.by_ref().take(1 + usize::from(kill)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was acknowledged before the kill but read only now counts too; a last line may be cut off.
        acknowledged.extend(lines.filter(|name| Name::parse(name).is_ok()));
        leftovers += fs::read_dir(place.path().join("tmp")).unwrap().count();
        if kill >= FEWEST_KILLS && leftovers > 0 {
            break;
        }
    }
    println!("{} acknowledged, {leftovers} temporary files left", acknowledged.len());
    assert!(leftovers > 0, "no kill met a put");
    let store = Local::open(place.path()).unwrap();
    assert_eq!(
        fs::read_dir(place.path().join("tmp")).unwrap().count(),
        0,
        "leftovers are removed at open"
    );
    for name in acknowledged {
        assert_eq!(
            store.stat(&Name::parse(&name).unwrap()).await.unwrap(),
            PACK_BYTES as u64,
            "{name}"
        );
    }
    for listed in store.list(&Prefix::All, None, usize::MAX).await.unwrap() {
        let bytes = store.get(&listed.name, Range::All).await.unwrap();
        assert_eq!(
            Kind::Pack(id::pack_id(&bytes)),
            listed.name.kind(),
            "the name of a pack is the hash of its bytes"
        );
    }
}
