//! The engine over real and faulty places.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod altered;
mod attack;
mod beside;
mod cold;
mod concurrent;
mod config;
mod cost;
mod crash;
mod damage;
mod damage_bits;
mod doors;
mod edit;
mod elsewhere_stress;
mod endless;
mod engine;
mod gc;
mod gc_model;
mod gc_stress;
mod golden;
mod handles;
mod hostile;
mod kinds;
mod lasting;
mod lasting_stress;
mod latest;
mod ledger_model;
mod ledgers;
mod owed;
mod owners;
mod pins;
mod places;
mod random;
mod random_damage;
mod reading;
mod registrations;
mod round_trip;
mod spread_crash;
mod spread_damage;
mod spread_faults;
mod spread_forged;
mod spread_world;
mod support;
mod week;
mod writers;
