//! `far VAULT KEYFILE WORK DELAY_MS [PATH]`: restores the newest snapshot, or a path of it, from a local vault that answers late, into
//! WORK/target; prints requests, bytes, time and memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drystone_backup::{
    Overwrite, Owner, Patterns, RestoreMode, RestoreOptions, Selection, Sparse, Special, restore,
};
use drystone_store::{Delay, Local, Op, Record, Store};
use drystone_vault::{Cancel, Unlock, Vault};
use reading::{context, cpu, peak_mib};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [vault_dir, key, work, delay, ..] = args.as_slice() else {
        eprintln!("usage: far VAULT KEYFILE WORK DELAY_MS [PATH]");
        std::process::exit(2);
    };
    let work = PathBuf::from(work);
    let local = Arc::new(Local::open(vault_dir.as_ref()).unwrap());
    let delay = Duration::from_millis(delay.parse().unwrap());
    let record = Arc::new(Record::new(Arc::new(Delay::new(local, delay))));
    let context = context(&work, 64);
    let threads = context.threads;
    let unlock = Unlock::key_file(&std::fs::read_to_string(key).unwrap(), key, None).unwrap();
    let began = Instant::now();
    let vault = Vault::open(record.clone() as Arc<dyn Store>, context, &unlock).unwrap();
    vault.loss_epoch().unwrap();
    let ids = vault.snapshot_ids().unwrap();
    let snapshot = vault.snapshot(ids.last().unwrap()).unwrap();
    let (took, requests) = (began.elapsed().as_secs_f64(), record.take().len());
    let stats = vault.stats().unwrap();
    let packs = stats.data_packs + stats.meta_packs + stats.mixed_packs;
    println!("opened in {took:.2} s with {requests} requests; {packs} packs");
    record.take();
    let selection = match args.get(4) {
        Some(path) => Selection::find(&vault.reader().unwrap(), &snapshot, path.as_bytes()).unwrap(),
        None => Selection::whole(&snapshot),
    };
    let options = RestoreOptions {
        target: work.join("target"),
        include: Patterns::NONE,
        exclude: Patterns::NONE,
        mode: RestoreMode::Write,
        overwrite: Overwrite::Always,
        sparse: Sparse::AsStored,
        owner: Owner::Names,
        special: Special::AsStored,
        threads,
        progress: Arc::default(),
        cancel: Cancel::default(),
    };
    let (began, cpu_began) = (Instant::now(), cpu());
    let report = restore(&vault, &selection, &options).unwrap();
    let took = began.elapsed().as_secs_f64();
    let calls = record.take();
    let gets = calls.iter().filter(|call| call.op == Op::Get);
    let bytes: u64 = gets.clone().map(|call| call.bytes).sum();
    if std::env::var_os("FAR_EACH").is_some() {
        for call in gets.clone() {
            println!("{} {}", &call.name[..14], call.bytes);
        }
    }
    println!(
        "restored {} files, {:.0} MB, {} problems in {took:.2} s, {:.2} CPU s, {} requests of {:.1} MB in all, peak {} MiB",
        report.files,
        report.bytes as f64 / 1e6,
        report.problems.count(),
        (cpu() - cpu_began).as_secs_f64(),
        gets.count(),
        bytes as f64 / 1e6,
        peak_mib()
    );
}
