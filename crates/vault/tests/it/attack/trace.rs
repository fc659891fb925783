//! Traces: what honest clients and the attacker do, one step after the other, drawn from a seed.
//!
//! - A trace is plain data. Its `Debug` form is Rust and can be pasted into `regressions.rs`.
//! - Choices are numbers that are resolved against what is there when the step runs, so any step may be left out.
//! - Nothing here knows the format: what a step means is decided in `moves.rs`, `honest.rs` and `world.rs`.

/// Draws choices from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What keys the attacker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// None.
    None,
    /// A writer's credential of his own.
    Writer,
    /// The credential of an honest writer, who goes on using it.
    Stolen,
    /// A copy of all that an owner knew whose slot is gone; a new key epoch has begun since.
    FormerOwner,
    /// A copy of what a member knew who has been removed, with a new key epoch.
    RemovedMember,
    /// A copy of what a writer knew who has been removed, with a new key epoch.
    RemovedWriter,
}

/// Who the attacker is, and where the vault lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) places: usize,
    pub(crate) spread: (u8, u8),
    /// The places that the attacker runs.
    pub(crate) bad: &'static [usize],
    pub(crate) key: Key,
    /// Whether he may add objects to the other places. He can neither remove nor replace any there.
    pub(crate) adds: bool,
}

const fn setting(name: &'static str, places: usize, spread: (u8, u8), bad: &'static [usize], key: Key) -> Setting {
    let adds = !matches!(key, Key::None);
    Setting {
        name,
        places,
        spread,
        bad,
        key,
        adds,
    }
}

/// Every kind of attacker of docs/threat-model.md, alone and together.
pub(crate) const SETTINGS: [Setting; 19] = [
    setting("the only place", 1, (1, 1), &[0], Key::None),
    setting("a writer, one place that only adds", 1, (1, 1), &[], Key::Writer),
    setting(
        "a writer's stolen key, one place that only adds",
        1,
        (1, 1),
        &[],
        Key::Stolen,
    ),
    setting("a writer and the only place", 1, (1, 1), &[0], Key::Writer),
    setting("one place of three", 3, (2, 3), &[0], Key::None),
    setting("a writer, three places that only add", 3, (2, 3), &[], Key::Writer),
    setting("a writer and one place of three", 3, (2, 3), &[0], Key::Writer),
    setting(
        "a stolen writer key and one place of three",
        3,
        (2, 3),
        &[1],
        Key::Stolen,
    ),
    setting(
        "a former owner, one place that only adds",
        1,
        (1, 1),
        &[],
        Key::FormerOwner,
    ),
    setting(
        "a former owner, a mirror that only adds",
        2,
        (1, 2),
        &[],
        Key::FormerOwner,
    ),
    setting("a former owner and the only place", 1, (1, 1), &[0], Key::FormerOwner),
    setting(
        "a former owner and one place of three",
        3,
        (2, 3),
        &[0],
        Key::FormerOwner,
    ),
    setting("two places of five", 5, (3, 5), &[0, 3], Key::None),
    setting("a writer and two places of five", 5, (3, 5), &[1, 2], Key::Writer),
    setting("one place of a mirror", 2, (1, 2), &[0], Key::None),
    setting(
        "a removed writer, one place that only adds",
        1,
        (1, 1),
        &[],
        Key::RemovedWriter,
    ),
    setting(
        "a removed writer and one place of three",
        3,
        (2, 3),
        &[2],
        Key::RemovedWriter,
    ),
    setting(
        "a removed member and the only place",
        1,
        (1, 1),
        &[0],
        Key::RemovedMember,
    ),
    setting(
        "a removed member and one place of three",
        3,
        (2, 3),
        &[1],
        Key::RemovedMember,
    ),
];

/// An honest machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The owner's.
    Home,
    /// A second owner's.
    Desk,
    /// One with a write-only key.
    Web,
}

/// What an honest machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Backs up the files in this state.
    Backup(u8),
    /// Begins to: registers and stores the data.
    Begin(u8),
    /// Publishes what was begun.
    Finish,
    /// Lists snapshots and finds the latest.
    Look,
    /// Restores everything that was acknowledged.
    Restore,
    /// Forgets all but the last so many of each group.
    Forget(u8),
    Gc,
    Check,
    Scrub,
    /// Scrubs and mends.
    Mend,
    Repair,
    /// Changes how a place is used, hence the list of places.
    UsePlace(u8),
    /// Loses its cache directory.
    LoseCache,
    /// Lets so many days pass.
    Wait(u8),
    /// Adds a key and removes it again, with a new key epoch.
    Rekey,
    /// Backs up while its clock is a year ahead.
    BackupAhead,
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Header,
    Slots,
    /// Whole ones or their shards.
    Packs,
    Roots,
    Verified,
    Epochs,
    Ledgers,
    Config,
    Presences,
    Mark,
    /// All of them.
    Any,
}

const WHATS: [What; 11] = [
    What::Header,
    What::Slots,
    What::Packs,
    What::Roots,
    What::Verified,
    What::Epochs,
    What::Ledgers,
    What::Config,
    What::Presences,
    What::Mark,
    What::Any,
];

/// Something that the attacker makes with the keys he has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes that mean nothing, under a name of this kind.
    Garbage(What),
    /// A root that he signs.
    Root {
        /// It claims an honest machine's host.
        forges_host: bool,
        /// It claims to be so many hours younger than it is.
        hours: i8,
        /// It holds a file of his; otherwise nothing.
        has_file: bool,
    },
    /// A pack of his that claims to hold the chunks of another.
    Pack,
    /// A shard of the right length over other bytes.
    Shard,
    /// The presence of a run that has seen everything; of one that somebody has announced, that it is over.
    Presence,
    /// A notice of gc that condemns all packs, and gives up and closes all registrations.
    Epoch,
    /// A ledger that carries over all others and forgets all roots.
    Ledger,
    /// A list of verified packs with all packs in it.
    Verified,
    /// A configuration with a number so much greater and only his place in it, in the stead of all that are there.
    Places(u8),
    /// New secrets for everybody, so many key epochs newer.
    Slots(u8),
    /// A header of the same vault with a key of his.
    Header,
}

/// Under which name the attacker puts an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    /// One of its own.
    Fresh,
    /// One that exists.
    Existing(u8),
    /// One that a run has announced.
    Announced,
}

/// What the attacker does at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Delete(What, u8),
    DeleteAll(What),
    /// Takes all objects of a kind back to what they were.
    RollBack(What, u8),
    /// Puts one object back that was there once, or is at another place.
    Replay(What, u8),
    /// Exchanges the bytes of two objects.
    Swap(What, u8, u8),
    /// Gives one object the bytes of another.
    Copy(What, u8, u8),
    Flip(What, u8),
    Truncate(What, u8),
    /// Leaves an object out of listings.
    Hide(What, u8),
    /// Serves a vault that he has made, locked to everybody whose public key he has seen.
    OtherVault {
        /// With the vault's own id.
        same_id: bool,
    },
    Put(Content, Under),
}

/// One step of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `from`: the place that is named; from 8 on all are, that one first.
    Honest { client: Client, verb: Verb, from: u8 },
    /// `at`: which of the places where he may do it.
    Attack { at: u8, act: Act },
    /// The same, made ready now and done at the call of this number, counted at each place, that honest clients make from now on.
    Ambush { call: u8, at: u8, act: Act },
}

impl Step {
    /// What the attacker does in it.
    pub(crate) fn act(&self) -> Option<Act> {
        match self {
            Self::Attack { act, .. } | Self::Ambush { act, .. } => Some(*act),
            Self::Honest { .. } => None,
        }
    }
}

/// A world and what happens in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Position in [`SETTINGS`].
    pub(crate) setting: usize,
    pub(crate) steps: Vec<Step>,
}

impl Trace {
    /// The trace of a seed.
    pub(crate) fn generate(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let setting = rng.below(SETTINGS.len());
        let mut steps = Vec::new();
        for _ in 0..2 + rng.below(6) {
            if rng.chance(50) {
                steps.push(attack(&SETTINGS[setting], &mut rng));
            } else {
                honest(&SETTINGS[setting], &mut rng, &mut steps);
            }
        }
        if steps.iter().all(|step| step.act().is_none()) {
            steps.push(attack(&SETTINGS[setting], &mut rng));
        }
        Self { setting, steps }
    }

    pub(crate) fn setting(&self) -> &'static Setting {
        &SETTINGS[self.setting]
    }
}

fn honest(setting: &Setting, rng: &mut Rng, steps: &mut Vec<Step>) {
    let client = rng.of(&[Client::Home, Client::Home, Client::Desk, Client::Web]);
    let first = rng.below(setting.places) as u8;
    let from = if rng.chance(70) { 8 + first } else { first };
    let step = |verb| Step::Honest { client, verb, from };
    let content = rng.below(5) as u8;
    match rng.below(100) {
        0..30 => steps.push(step(Verb::Backup(content))),
        30..42 => {
            steps.push(step(Verb::Begin(content)));
            for _ in 0..rng.below(3) {
                if rng.chance(75) {
                    steps.push(attack(setting, rng));
                } else {
                    let (client, verb) = (rng.of(&[Client::Home, Client::Desk]), rng.of(&[Verb::Gc, Verb::Look]));
                    steps.push(Step::Honest { client, verb, from });
                }
            }
            steps.push(step(Verb::Finish));
        }
        42..50 => steps.push(step(Verb::Look)),
        50..55 => steps.push(step(Verb::Restore)),
        55..60 => steps.push(step(Verb::Forget(1 + rng.below(2) as u8))),
        60..73 => steps.push(step(Verb::Gc)),
        73..77 => steps.push(step(Verb::Check)),
        77..81 => steps.push(step(Verb::Scrub)),
        81..85 => steps.push(step(Verb::Mend)),
        85..89 => steps.push(step(Verb::Repair)),
        89..91 => steps.push(step(Verb::UsePlace(rng.byte()))),
        91..93 => steps.push(step(Verb::Rekey)),
        93..94 => steps.push(step(Verb::BackupAhead)),
        94..97 => steps.push(step(Verb::LoseCache)),
        _ => steps.push(step(Verb::Wait(rng.of(&[1, 3, 20])))),
    }
}

fn attack(setting: &Setting, rng: &mut Rng) -> Step {
    let at = rng.byte();
    let is_place = !setting.bad.is_empty() && (!setting.adds || rng.chance(60));
    // A place can do everything; whoever may only add can only put.
    let act = if is_place && (setting.key == Key::None || rng.chance(45)) {
        by_place(rng)
    } else {
        Act::Put(content(setting, rng), under(rng))
    };
    if rng.chance(15) {
        let call = rng.byte() % 64;
        return Step::Ambush { call, at, act };
    }
    Step::Attack { at, act }
}

fn by_place(rng: &mut Rng) -> Act {
    let (what, pick, other) = (rng.of(&WHATS), rng.byte(), rng.byte());
    match rng.below(100) {
        0..12 => Act::Delete(what, pick),
        12..18 => Act::DeleteAll(what),
        18..36 => Act::RollBack(what, pick),
        36..46 => Act::Replay(what, pick),
        46..53 => Act::Swap(what, pick, other),
        53..60 => Act::Copy(what, pick, other),
        60..68 => Act::Flip(what, pick),
        68..74 => Act::Truncate(what, pick),
        74..82 => Act::Hide(what, pick),
        82..90 => Act::OtherVault { same_id: pick % 3 == 0 },
        _ => Act::Put(Content::Garbage(what), under(rng)),
    }
}

fn under(rng: &mut Rng) -> Under {
    let existing = Under::Existing(rng.byte());
    rng.of(&[Under::Fresh, Under::Fresh, existing, Under::Announced])
}

fn content(setting: &Setting, rng: &mut Rng) -> Content {
    let root = Content::Root {
        forges_host: rng.chance(50),
        hours: rng.of(&[-48, -1, 1, 48]),
        has_file: rng.chance(50),
    };
    let count = rng.of(&[1, 2, 7]);
    let by_writer = [
        Content::Garbage(rng.of(&WHATS)),
        root,
        root,
        Content::Pack,
        Content::Shard,
        Content::Presence,
        Content::Epoch,
        Content::Ledger,
        Content::Verified,
        Content::Places(count),
    ];
    let by_owner = [
        root,
        Content::Epoch,
        Content::Ledger,
        Content::Verified,
        Content::Places(count),
        Content::Slots(count),
        Content::Slots(count),
        Content::Header,
    ];
    match setting.key {
        Key::None => Content::Garbage(rng.of(&WHATS)),
        Key::FormerOwner if rng.chance(70) => rng.of(&by_owner),
        _ => rng.of(&by_writer),
    }
}
