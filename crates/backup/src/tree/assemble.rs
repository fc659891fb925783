//! Putting the tree of a backup together from the steps of the walk.
//!
//! - One thread; waits for results in the order of the walk.
//! - Writes down what changes in the file cache; a directory in which nothing has changed writes nothing.

use std::sync::Arc;
use std::vec::IntoIter;

use crossbeam_channel::Receiver;
use drystone_format::recipe::Recipe;
use drystone_format::snapshot::Totals;
use drystone_format::tree::Entry;
use drystone_index::Seen;
use drystone_vault::Progress;

use crate::cache::journal::Journal;
use crate::cache::last::SourceSeen;
use crate::cache::{Cache, Key, Page, Record, append, is_full};
use crate::error::{Result, stopped};
use crate::report::{Counts, Spared};
use crate::scan::found::Cached;
use crate::scan::job::{Event, Taken};
use crate::scan::rules::Rules;
use crate::tracked::{Row, Sum, rows_slot};
use crate::tree::levels::{Levels, Target};

/// What a run has put together.
pub(crate) struct Assembled {
    pub(crate) tree: Recipe,
    pub(crate) totals: Totals,
    pub(crate) counts: Counts,
    pub(crate) journal: Journal,
    pub(crate) seen: Vec<(Key, Seen)>,
    /// Directories as the next run may take them over, and what large files are made of.
    pub(crate) rows: Journal,
    pub(crate) spared: Spared,
    /// Directories that are sources.
    pub(crate) sources: Vec<SourceSeen>,
}

/// A directory's records in the file cache.
enum Pages {
    /// As they were, up to the end of this record.
    Same(Option<(Arc<Page>, usize)>),
    /// Written anew; so many are in the journal.
    Anew { count: u32, page: Vec<u8> },
}

/// What goes with a directory that is being put together.
struct Dir {
    cached: Cached,
    pages: Pages,
    /// The tracked subvolume, by number, and the directory's inode.
    tracked: Option<(usize, u64)>,
    /// The source that it is, by number, and its inode.
    source: Option<(usize, u64)>,
    sum: Sum,
}

/// The tracked subvolume and the source that a directory is, by number, each with the inode of the directory.
type Numbers = (Option<(usize, u64)>, Option<(usize, u64)>);

pub(crate) struct Assembler<'a> {
    rules: &'a Rules<'a>,
    cache: Cache<'a>,
    progress: Arc<Progress>,
    levels: Levels<'a, Dir>,
    source: Option<Receiver<Vec<Taken>>>,
    results: IntoIter<Taken>,
    done: Assembled,
}

impl<'a> Assembler<'a> {
    pub(crate) fn new(
        rules: &'a Rules<'a>,
        target: Option<Target<'a>>,
        progress: Arc<Progress>,
        (journal, rows): (Journal, Journal),
    ) -> Result<Self> {
        let state = rules.state;
        let reader = if rules.reads_cache { Some(state.reader()?) } else { None };
        let mut seen = Vec::new();
        for slot in &rules.slots.keys {
            seen.push((*slot, state.seen(slot)?));
        }
        Ok(Self {
            rules,
            cache: Cache::new(rules.vault, reader, rules.loss_epoch),
            progress,
            levels: Levels::new(target),
            source: None,
            results: Vec::new().into_iter(),
            done: Assembled {
                tree: Recipe::default(),
                totals: Totals::default(),
                counts: Counts::default(),
                journal,
                seen,
                rows,
                spared: Spared::default(),
                sources: Vec::new(),
            },
        })
    }

    /// Works until the walk is over; `None` if it ended before its time.
    pub(crate) fn run(mut self, events: &Receiver<Vec<Event>>) -> Result<Option<Assembled>> {
        let mut is_whole = false;
        for event in events.iter().flatten() {
            self.event(event)?;
            is_whole = self.levels.is_empty();
        }
        if !is_whole {
            return Ok(None);
        }
        self.levels.finish()?;
        Ok(Some(self.done))
    }

    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Enter {
                head,
                cached,
                tracked,
                source,
            } => {
                self.enter(*head, cached, (tracked, source));
                Ok(())
            }
            Event::Spared { row, source } => {
                self.see_source(source, row.sum.files);
                self.spare(&row)
            }
            Event::Same {
                record,
                content_bytes,
                has_links,
            } => {
                self.done.counts.unchanged += 1;
                self.progress_by(content_bytes);
                self.count(content_bytes, has_links);
                self.levels.push(record.entry())?;
                self.keep(&record)
            }
            Event::Gone => self.rewrite(),
            Event::Open(results) => {
                self.source = Some(results);
                Ok(())
            }
            Event::Next { is_new, content_bytes } => self.next(is_new, content_bytes),
            Event::Leave { marks } => self.leave(marks),
        }
    }

    /// Notes what is in a directory that is a source.
    fn see_source(&mut self, source: Option<(usize, u64)>, files: u64) {
        self.done.sources.extend(source.map(|(number, inode)| SourceSeen {
            number: number as u32,
            inode,
            files,
        }));
    }

    fn enter(&mut self, head: Entry, cached: Cached, (tracked, source): Numbers) {
        let pages = if cached.is_current {
            Pages::Same(None)
        } else {
            Pages::Anew {
                count: 0,
                page: Vec::new(),
            }
        };
        let dir = Dir {
            cached,
            pages,
            tracked,
            source,
            sum: Sum::default(),
        };
        self.levels.enter(head, dir);
        self.progress.set_current(self.levels.path());
    }

    fn progress_by(&self, content_bytes: Option<u64>) {
        Progress::add(&self.progress.files, 1);
        Progress::add(&self.progress.bytes, content_bytes.unwrap_or(0));
    }

    fn count(&mut self, content_bytes: Option<u64>, has_links: bool) {
        self.add(Sum {
            files: 1,
            dirs: 0,
            bytes: content_bytes.unwrap_or(0),
            has_links,
        });
    }

    /// Counts what is in the innermost directory.
    fn add(&mut self, sum: Sum) {
        if let Some(level) = self.levels.last_mut() {
            level.sum += sum;
        }
    }

    /// A directory stays, with all that is in it.
    fn spare(&mut self, row: &Row) -> Result<()> {
        let Sum { files, dirs, bytes, .. } = row.sum;
        self.done.counts.unchanged += files;
        Progress::add(&self.progress.files, files);
        Progress::add(&self.progress.bytes, bytes);
        let spared = &mut self.done.spared;
        spared.dirs += dirs + 1;
        spared.files += files;
        spared.bytes += bytes;
        self.add(Sum {
            dirs: dirs + 1,
            ..row.sum
        });
        self.levels.push(&row.entry)
    }

    fn next(&mut self, is_new: bool, content_bytes: u64) -> Result<()> {
        let counter = if is_new {
            &mut self.done.counts.new
        } else {
            &mut self.done.counts.changed
        };
        *counter += 1;
        if !self.levels.stores() {
            self.progress_by(Some(content_bytes));
            self.count(Some(content_bytes), false);
            return Ok(());
        }
        if let Some(results) = self.source.take() {
            self.results = results.recv().map_err(|_| stopped())?.into_iter();
        }
        let taken = self.results.next().ok_or_else(stopped)?;
        Progress::add(&self.progress.files, 1);
        match taken {
            Taken::Vanished => self.rewrite(),
            Taken::Left { name, why } => {
                self.problem(&name, &why);
                self.rewrite()
            }
            Taken::Entry {
                encoded,
                name,
                print,
                content_bytes,
                has_links,
                map,
                unread_bytes,
                problem,
            } => {
                self.count(content_bytes, has_links);
                self.done.spared.unread_bytes += unread_bytes;
                map.map_or(Ok(()), |map| map.keep(&mut self.done.rows))?;
                self.levels.push(&encoded)?;
                if let Some(problem) = problem {
                    self.problem(&name, &problem);
                }
                self.rewrite()?;
                if let (
                    Some(print),
                    Some(Dir {
                        pages: Pages::Anew { page, .. },
                        ..
                    }),
                ) = (print, self.levels.last_mut())
                {
                    append(page, &name, &print, &encoded);
                }
                self.close_page(is_full)
            }
        }
    }

    fn problem(&self, name: &[u8], why: &str) {
        let mut path = self.levels.path().to_vec();
        path.push(b'/');
        path.extend_from_slice(name);
        self.rules.problem(path, why);
    }

    fn leave(&mut self, marks: u64) -> Result<()> {
        self.end_pages()?;
        let Some(left) = self.levels.leave(marks)? else {
            return Ok(());
        };
        let Dir {
            cached,
            tracked,
            source,
            sum,
            ..
        } = left.with;
        self.see_source(source, sum.files);
        if self.levels.is_empty() {
            self.done.tree = left.recipe.unwrap_or_default();
            let totals = &mut self.done.totals;
            (totals.files, totals.dirs, totals.bytes) = (sum.files, sum.dirs, sum.bytes);
            return Ok(());
        }
        self.add(Sum {
            dirs: sum.dirs + 1,
            ..sum
        });
        let Some((number, inode)) = tracked.filter(|_| !left.entry.is_empty() && self.rules.is_settled(&cached.key))
        else {
            return Ok(());
        };
        let row = Row {
            path: cached.key,
            sum,
            entry: left.entry,
        };
        self.done
            .rows
            .page(rows_slot(number), &Row::key(inode), 0, &row.encode())
    }

    /// A record stays.
    fn keep(&mut self, record: &Record) -> Result<()> {
        match self.levels.last_mut().map(|level| &mut level.pages) {
            Some(Pages::Same(end)) => {
                *end = Some((record.page.clone(), record.all.end));
                Ok(())
            }
            Some(Pages::Anew { page, .. }) => {
                page.extend_from_slice(record.bytes());
                self.close_page(is_full)
            }
            None => Ok(()),
        }
    }

    /// From here on the records of the innermost directory are written anew; those before are taken over.
    fn rewrite(&mut self) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        let Pages::Same(end) = &mut level.pages else {
            return Ok(());
        };
        let Cached { slot, key, epoch, .. } = level.cached;
        let (mut count, mut last) = (0, Vec::new());
        if let Some((page, end)) = end.take() {
            let source = self.rules.slots.keys.get(slot).copied().unwrap_or_default();
            while count < page.number {
                // What is not there any more is looked at again in the next run.
                let Some((_, page)) = self.cache.page(&source, &key, count, epoch)? else {
                    break;
                };
                self.done.journal.page(slot, &key, count, &page.bytes)?;
                count += 1;
            }
            last.extend_from_slice(page.bytes.get(..end).unwrap_or_default());
        }
        level.pages = Pages::Anew { count, page: last };
        Ok(())
    }

    /// Writes down the page that is being filled, if it is to be closed.
    fn close_page(&mut self, is_due: impl Fn(&[u8]) -> bool) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if let Pages::Anew { count, page } = &mut level.pages
            && is_due(page)
        {
            self.done
                .journal
                .page(level.cached.slot, &level.cached.key, *count, page)?;
            *count += 1;
            page.clear();
        }
        Ok(())
    }

    fn end_pages(&mut self) -> Result<()> {
        self.close_page(|page| !page.is_empty())?;
        let Some(level) = self.levels.last() else { return Ok(()) };
        let Cached {
            slot,
            key,
            epoch,
            is_current,
        } = level.cached;
        let has_pages = match level.pages {
            Pages::Same(_) => epoch.is_some(),
            Pages::Anew { count, .. } => {
                if count > 0 || epoch.is_some() || !is_current {
                    self.done.journal.end(slot, &key, count)?;
                }
                count > 0
            }
        };
        if let (true, Some((_, seen))) = (has_pages, self.done.seen.get(slot)) {
            seen.mark(&key);
        }
        Ok(())
    }
}
