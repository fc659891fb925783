//! `dedup`: frees the space of duplicates on Btrfs and XFS by letting files share what is equal.

mod files;
mod known;
mod look;
mod run;
mod scope;
mod shown;

use clap::{Args, Subcommand};

use crate::context::App;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  drystone dedup estimate /srv        what would it free?
  drystone dedup /srv --max-time 1h   stop after an hour; the next run goes on
  drystone dedup vol:/home /dev/sdb1  one subvolume, and a whole device, mounted
                                      or not
  drystone dedup --all-mounted        all mounted file systems that can share
  drystone dedup files a.img b.img    let b.img share a.img, if they are equal

Nothing but the kernel's own sharing, which compares first, touches files: contents, times and modes stay, \
read-only snapshots included. As root on Btrfs, duplicates are found in the checksums that the file system has; \
data without (chattr +C), and all of it elsewhere, is read once and remembered.

What files share shows: whoever may read one of them sees that somebody has the same data, and could confirm a \
guess about a small file. So files below 64 KiB that others cannot read share with files of their owner alone \
(--private-size-cutoff). Where users do not trust each other at all, give --same-owner.";

/// Free the space of duplicates on Btrfs and XFS, in place.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Dedup {
    #[command(subcommand)]
    verb: Option<Inner>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Share what is equal (what `dedup` alone does)
    Run(run::Run),
    /// Say what a run would free, and change nothing
    Estimate(run::Estimate),
    /// Look for what is new; remember it where it has to be read
    Scan(run::Scan),
    /// Run now and again until stopped
    Watch(run::Watch),
    /// Let files share a source, each if it is equal to it
    Files(files::Files),
    /// Show the file systems that runs know, also those that are not there now
    Show(known::Show),
    /// Forget how far runs got: the next one looks at everything
    Reset(known::Reset),
    /// Forget file systems
    ForgetFs(known::ForgetFs),
    /// List what changed in a subvolume since a generation
    FindNew(look::FindNew),
    /// Print the generation of a subvolume
    Generation(look::Generation),
    /// List files of exactly this size
    SizeLookup(look::SizeLookup),
}

impl Dedup {
    /// Runs the command.
    pub(crate) fn run(&self, app: &App) -> Result<Exit> {
        match &self.verb {
            None => self.run.run(app),
            Some(Inner::Run(verb)) => verb.run(app),
            Some(Inner::Estimate(verb)) => verb.run(app),
            Some(Inner::Scan(verb)) => verb.run(app),
            Some(Inner::Watch(verb)) => verb.run(app),
            Some(Inner::Files(verb)) => verb.run(app),
            Some(Inner::Show(verb)) => verb.run(app),
            Some(Inner::Reset(verb)) => verb.run(app),
            Some(Inner::ForgetFs(verb)) => verb.run(app),
            Some(Inner::FindNew(verb)) => verb.run(app),
            Some(Inner::Generation(verb)) => verb.run(app),
            Some(Inner::SizeLookup(verb)) => verb.run(app),
        }
    }
}
