//! Taking data in: lanes fill frames, compressors shrink them, a packer seals them into packs, storers make them durable.
//!
//! - Every queue is bounded, and so are the bytes of packs in memory; a slow place slows the lanes down, it does not fill the memory.
//! - A pack's chunks enter the index only when the pack is durable, and leave the in-flight set after that (I1).
//! - The first error stops the run; what was stored until then is found and reused by the next run.

use crate::writing::open_frames::FullFrame;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use drystone_format::codec::{Compression, Compressor};
use drystone_format::index_part::{IndexPart, PackTail};
use drystone_format::seal::Compressed;
use drystone_store::Name;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::gc::registration::{Registration, Work};
use crate::places::allow::Act;
use crate::progress::{Cancel, Progress};
use crate::vault::Vault;
use crate::writing::admit::Admit;
use crate::writing::flights::Flights;
use crate::writing::flow::Flow;
use crate::writing::frame_size::FrameSize;
use crate::writing::lane::{Lane, TreeWriter};
use crate::writing::packer::{ReadyPack, data_pack_bytes, pack};
use crate::writing::series::PackSeries;
use crate::writing::shared::{PartOfRun, ReadyFrame, Shared, ToPack};

/// How a run takes data in.
#[derive(Clone)]
pub struct IngestOptions {
    /// How frames are compressed; a vault may hold frames of every codec.
    pub compression: Compression,
    /// How large frames become; a vault may hold frames of every size.
    pub frames: FrameSize,
    /// Where stored bytes are counted.
    pub progress: Arc<Progress>,
    /// Stops the run.
    pub cancel: Cancel,
}

/// What a run stored; the proof that all of it is durable, and that gc leaves it alone for as long as this is kept.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Chunks that were new to the vault.
    pub new_chunks: u64,
    /// Their plaintext, bytes.
    pub new_bytes: u64,
    /// Packs that were stored.
    pub packs: u64,
    /// Their size, bytes.
    pub stored_bytes: u64,
    pub(crate) work: Arc<Work>,
    part: Arc<PartOfRun>,
}

impl Finished {
    /// The tails of the packs of this run, for its root to carry; none if they are too many for that and need an object of
    /// their own.
    pub fn index_part(&self) -> Option<&IndexPart> {
        match &*self.part {
            PartOfRun::Inline(part) => Some(part),
            PartOfRun::TooLarge => None,
        }
    }
}

/// What takes data in: the state that all threads share, and the threads behind the lanes.
pub(crate) struct Pipeline {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A run that takes data in.
pub struct Ingest {
    pipeline: Pipeline,
    work: Arc<Work>,
}

impl Vault {
    /// Starts taking data in; several runs may do so at once, here and elsewhere.
    ///
    /// What a reader's key signs counts for nobody, so it cannot.
    pub fn ingest(&self, options: IngestOptions) -> Result<Ingest> {
        self.ingest_sized(0, options)
    }

    /// The same with packs as large as a vault of at least `vault_bytes` has them: for who knows how much it will store.
    pub fn ingest_sized(&self, vault_bytes: u64, options: IngestOptions) -> Result<Ingest> {
        if !self.role().may_publish() {
            return Err(self.secrets.refused("back up").into());
        }
        self.follow_keys()?;
        self.allow(Act::Store)?;
        self.ingest_as(Arc::new(Registration::new(self)?), vault_bytes, options)
    }

    /// Goes on with a run that has published with [`Vault::publish_open`].
    pub fn ingest_on(&self, stored: &Finished, options: IngestOptions) -> Result<Ingest> {
        self.ingest_as(stored.work.registration().clone(), 0, options)
    }

    /// The same for a run that is registered already.
    pub(crate) fn ingest_as(
        &self,
        registration: Arc<Registration>,
        vault_bytes: u64,
        options: IngestOptions,
    ) -> Result<Ingest> {
        let work = Arc::new(registration.begin()?);
        let pipeline = self.pipeline(registration.series.clone(), vault_bytes, options, None)?;
        Ok(Ingest { pipeline, work })
    }

    /// Starts the threads that take data in, under the registration that `series` numbers the packs of. Packs that are not full are closed after
    /// `pack_age`.
    pub(crate) fn pipeline(
        &self,
        series: Arc<PackSeries>,
        vault_bytes: u64,
        options: IngestOptions,
        pack_age: Option<Duration>,
    ) -> Result<Pipeline> {
        let catalog = self.catalog()?.clone();
        let known_bytes = catalog.index.packs()?.iter().map(|pack| pack.pack_bytes).sum();
        let flow = Flow::new(self.context.threads, self.context.memory_bytes, options.compression);
        let (frames, full) = bounded(flow.waiting);
        let (closings, told) = bounded(flow.waiting);
        let shared = Arc::new(Shared {
            admit: Admit::new(catalog.clone()),
            hasher: self.hasher.clone(),
            data_chunker: self.data_chunker(),
            meta_chunker: self.meta_chunker(),
            cancel: options.cancel,
            new_chunks: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
            budget: self.budget.clone(),
            flights: Flights::default(),
            pack_age,
            series: RwLock::new(series),
            data_pack_bytes: data_pack_bytes(vault_bytes.max(known_bytes), self.place.held_while_put()),
            part: Mutex::new(PartOfRun::Inline(IndexPart::default())),
            frames: Mutex::new(Some(frames)),
            closings: Mutex::new(Some(closings.clone())),
            lanes: Mutex::default(),
            spare: Mutex::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            packs: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            progress: options.progress,
            catalog,
            secrets: self.secrets.clone(),
            place: self.place.clone(),
            context: self.context.clone(),
            flow,
            compression: options.compression,
            frame_size: options.frames,
        });
        Ok(Pipeline {
            threads: start(&shared, &full, (closings, told)),
            shared,
        })
    }
}

/// What one thread of a run does until its queue is at its end.
type Task = Box<dyn Fn(&Shared) -> Result<()> + Send>;

/// Starts the threads behind the lanes.
fn start(
    shared: &Arc<Shared>,
    full: &Receiver<FullFrame>,
    (ready, frames): (Sender<ToPack>, Receiver<ToPack>),
) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    let mut spawn = |task: Task| {
        let shared = shared.clone();
        let of_thread = shared.clone();
        let started = Builder::new().spawn(move || {
            // The error is kept before `task` drops its ends of the queues, or who finds one closed would report that.
            if let Err(error) = task(&of_thread) {
                of_thread.fail(error);
            }
        });
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => shared.fail(Error::thread(error)),
        }
    };
    let (packs, sealed) = bounded(1);
    spawn(Box::new(move |shared| pack(shared, &frames, &packs)));
    for _ in 0..shared.flow.compressors {
        let (full, ready) = (full.clone(), ready.clone());
        spawn(Box::new(move |shared| compress(shared, &full, &ready)));
    }
    for _ in 0..shared.place.parallel(1).min(4) {
        let sealed = sealed.clone();
        spawn(Box::new(move |shared| store(shared, &sealed)));
    }
    threads
}

fn compress(shared: &Shared, full: &Receiver<FullFrame>, ready: &Sender<ToPack>) -> Result<()> {
    let mut compressor = Compressor::new(shared.compression)?;
    for FullFrame {
        id,
        kind,
        plaintext,
        chunks,
    } in full
    {
        let frame = Compressed::new(&mut compressor, &plaintext)?;
        shared.give_back(plaintext);
        let frame = ReadyFrame {
            id,
            kind,
            frame,
            chunks,
        };
        if ready.send(ToPack::Frame(frame)).is_err() {
            return Err(Error::Stopped);
        }
    }
    Ok(())
}

fn store(shared: &Shared, sealed: &Receiver<ReadyPack>) -> Result<()> {
    for ReadyPack { pack, frames, held } in sealed {
        let size = pack.bytes.len() as u64;
        let tail = PackTail::of(&pack);
        let stored = shared.catalog.own_entries(&pack);
        let extra_bytes = (size as f64 * (shared.place.held_while_put() - 1.0)) as u64;
        let putting = shared.budget.put(extra_bytes, &|| shared.is_over())?;
        shared.place.put(&Name::pack(&pack.id), Bytes::from(pack.bytes))?;
        drop((putting, held));
        shared.catalog.index.insert(stored)?;
        for chunk in pack.frames.iter().flat_map(|frame| &frame.chunks) {
            shared.admit.landed(&chunk.id);
        }
        shared.part.lock().add(tail);
        shared.flights.land(&frames);
        Progress::add(&shared.packs, 1);
        Progress::add(&shared.stored_bytes, size);
        Progress::add(&shared.progress.stored_bytes, size);
    }
    Ok(())
}

impl Ingest {
    /// How many lanes that take in files the run may have at once, whatever the number of threads: lanes take memory.
    pub fn lanes(&self) -> usize {
        self.pipeline.shared.flow.lanes
    }

    /// A lane for one thread. Chunks of one lane share frames, so give it neighbouring files.
    pub fn lane(&self) -> Lane {
        self.lane_of(self.pipeline.shared.frame_size)
    }

    /// The same with frames of another size than the run has.
    pub(crate) fn lane_of(&self, frames: FrameSize) -> Lane {
        Lane::new(self.pipeline.shared.clone(), frames, None)
    }

    /// A writer of one directory's tree; its chunks go through whatever lane it is given.
    pub fn tree(&self) -> TreeWriter {
        TreeWriter::new(&self.pipeline.shared)
    }

    /// Chunks so far that were new to the vault.
    pub fn new_chunks(&self) -> u64 {
        self.pipeline.shared.new_chunks.load(Ordering::Relaxed)
    }

    /// Waits until everything is durable. All lanes must be finished before.
    ///
    /// The first error of any thread; [`Error::Unstored`] if a lane was dropped with chunks in it.
    pub fn finish(mut self) -> Result<Finished> {
        self.pipeline.join();
        let shared = &self.pipeline.shared;
        shared.check()?;
        match shared.admit.unstored() {
            0 => {}
            chunks => return Err(Error::Unstored { chunks }),
        }
        shared.catalog.flush()?;
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Ok(Finished {
            new_chunks: get(&shared.new_chunks),
            new_bytes: get(&shared.new_bytes),
            packs: get(&shared.packs),
            stored_bytes: get(&shared.stored_bytes),
            work: self.work.clone(),
            part: Arc::new(std::mem::replace(&mut *shared.part.lock(), PartOfRun::TooLarge)),
        })
    }
}

impl Pipeline {
    fn join(&mut self) {
        self.shared.frames.lock().take();
        self.shared.closings.lock().take();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail(Error::Stopped);
            }
        }
    }
}

impl Drop for Pipeline {
    /// Stops the threads; what is stored by then stays and is reused.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.fail(Error::Stopped);
            self.join();
        }
    }
}
