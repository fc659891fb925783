//! The system calls that have no safe wrapper elsewhere: the only ioctls of the project, and its only unsafe code.
//!
//! - Every ioctl passes one buffer of bytes through [`call`]; each function here makes that buffer at least as large as the kernel
//!   reads and writes for its number (linux/fs.h, linux/fiemap.h, linux/btrfs.h), which is what makes them safe to call.
//! - Replies are handed out as bytes and taken apart elsewhere, by safe code with limits.

#![expect(
    unsafe_code,
    reason = "ioctl, open_by_handle_at, ioprio_set and cachestat have no safe wrapper"
)]

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use linux_raw_sys::ioctl as number;
use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

/// Bytes of `struct fiemap` before its extents, and of one extent.
pub(crate) const FIEMAP_HEAD_BYTES: usize = 32;
pub(crate) const FIEMAP_EXTENT_BYTES: usize = 56;
/// Bytes of `struct btrfs_ioctl_search_args_v2` before its buffer.
pub(crate) const SEARCH_HEAD_BYTES: usize = 112;
/// Bytes of the head of `struct btrfs_data_container`, and the largest container that LOGICAL_INO_V2 fills.
pub(crate) const CONTAINER_HEAD_BYTES: usize = 16;
const CONTAINER_MAX_BYTES: usize = 16 << 20;
const LOGICAL_INO_IGNORE_OFFSET: u64 = 1;
/// Bytes of `struct btrfs_ioctl_fs_info_args`, and where its flags are.
const FS_INFO_BYTES: usize = 1024;
const FS_INFO_FLAGS_AT: usize = 48;
const FS_INFO_CSUM: u64 = 1;
const FS_INFO_GENERATION: u64 = 2;
/// `_IOR(0x15, 0, struct fsuuid2)`, which linux-raw-sys does not have.
const GET_FS_UUID: u32 = 0x8011_1500;
/// Bytes of the structures that take a page: `btrfs_ioctl_ino_lookup_args`, `btrfs_ioctl_vol_args_v2`.
const PAGE_BYTES: usize = 4096;
/// Where the name is in `struct btrfs_ioctl_vol_args_v2`, and how much fits, with its end.
const VOLUME_NAME_AT: usize = 56;
const VOLUME_NAME_BYTES: usize = 4040;
const SNAPSHOT_READ_ONLY: u64 = 1 << 1;
/// Bytes of `struct btrfs_ioctl_get_subvol_info_args`.
const SUBVOLUME_INFO_BYTES: usize = 504;
/// File handle of Btrfs without its parent: inode, subvolume, inode generation (0: any).
const HANDLE_TYPE: u64 = 0x4d;
const HANDLE_BYTES: u64 = 20;

/// Number of the system call on every architecture; libc does not have it everywhere.
const CACHESTAT: libc::c_long = 451;

struct Call<'a> {
    opcode: Opcode,
    buffer: &'a mut [u8],
}

// SAFETY: the pointer is to the buffer, which lives and is borrowed exclusively as long as the call.
unsafe impl Ioctl for Call<'_> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(out)
    }
}

/// One ioctl over `buffer`, which the caller has made as large as the kernel needs for `opcode`.
fn call(fd: BorrowedFd<'_>, opcode: u32, buffer: &mut [u8]) -> Result<()> {
    let call = Call {
        opcode: Opcode::from(opcode),
        buffer,
    };
    // SAFETY: each caller in this file sizes the buffer for its number; the kernel copies bytewise, so that alignment does not
    // matter, and keeps no pointer after it returns.
    unsafe { ioctl(fd, call) }.map(drop)
}

/// FIEMAP: fills `buffer` (head and room for extents) with the extents of a byte range; returns their number.
pub(crate) fn fiemap(fd: BorrowedFd<'_>, start: u64, len: u64, flags: u32, buffer: &mut [u8]) -> Result<usize> {
    let room = buffer.len().saturating_sub(FIEMAP_HEAD_BYTES) / FIEMAP_EXTENT_BYTES;
    put_words(buffer, &[start, len, u64::from(flags), room as u64])?;
    call(fd, number::FS_IOC_FIEMAP, buffer)?;
    Ok((u32_at(buffer, 20) as usize).min(room))
}

/// FIDEDUPERANGE: one source range against destinations of the same length; status and bytes for each.
pub(crate) fn dedupe(
    source: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    to: &[(BorrowedFd<'_>, u64)],
) -> Result<Vec<(i32, u64)>> {
    let count = u16::try_from(to.len()).map_err(|_| Errno::INVAL)?;
    let mut words = vec![offset, len, u64::from(count)];
    for (fd, offset) in to {
        words.extend([fd.as_raw_fd() as u64, *offset, 0, 0]);
    }
    let mut buffer = bytes(&words);
    call(source, number::FIDEDUPERANGE, &mut buffer)?;
    let starts = (0..to.len()).map(|index| 24 + index * 32);
    Ok(starts
        .map(|at| (u32_at(&buffer, at + 24) as i32, u64_at(&buffer, at + 16)))
        .collect())
}

/// The words of `struct btrfs_ioctl_search_key`, but for those that count and are unused; ranges are inclusive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchKey {
    pub(crate) tree: u64,
    pub(crate) objectid: (u64, u64),
    pub(crate) kind: (u32, u32),
    pub(crate) offset: (u64, u64),
    pub(crate) min_transid: u64,
}

/// TREE_SEARCH_V2: fills `buffer` with items, which begin after SEARCH_HEAD_BYTES; returns how many.
pub(crate) fn tree_search(fd: BorrowedFd<'_>, key: &SearchKey, max_items: u32, buffer: &mut [u8]) -> Result<u32> {
    let room = buffer.len().saturating_sub(SEARCH_HEAD_BYTES) as u64;
    let kinds = u64::from(key.kind.0) | u64::from(key.kind.1) << 32;
    let ((min_id, max_id), (min_offset, max_offset)) = (key.objectid, key.offset);
    let range = [
        key.tree,
        min_id,
        max_id,
        min_offset,
        max_offset,
        key.min_transid,
        u64::MAX,
    ];
    let rest = [kinds, u64::from(max_items), 0, 0, 0, 0, room];
    put_words(buffer, &[range, rest].concat())?;
    call(fd, number::BTRFS_IOC_TREE_SEARCH_V2, buffer)?;
    Ok(u32_at(buffer, 64))
}

/// LOGICAL_INO_V2: fills `container` with (inode, file offset, subvolume) of all references to the extent at `logical`.
pub(crate) fn logical_ino(fd: BorrowedFd<'_>, logical: u64, container: &mut [u8]) -> Result<()> {
    if container.len() < CONTAINER_HEAD_BYTES || container.len() > CONTAINER_MAX_BYTES {
        return Err(Errno::INVAL);
    }
    let size = container.len() as u64;
    let inodes = container.as_mut_ptr() as u64;
    // The kernel writes `size` bytes at most through the second pointer, and `container` outlives the call.
    let mut buffer = bytes(&[logical, size, 0, 0, 0, LOGICAL_INO_IGNORE_OFFSET, inodes]);
    call(fd, number::BTRFS_IOC_LOGICAL_INO_V2, &mut buffer)
}

/// FS_INFO with checksum type and generation.
pub(crate) fn fs_info(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; FS_INFO_FLAGS_AT];
    buffer.extend((FS_INFO_CSUM | FS_INFO_GENERATION).to_ne_bytes());
    buffer.resize(FS_INFO_BYTES, 0);
    call(fd, number::BTRFS_IOC_FS_INFO, &mut buffer)?;
    Ok(buffer)
}

/// GETFSUUID: how long the identity is, and its 16 bytes; Linux 6.9 and newer.
pub(crate) fn fs_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 17]> {
    let mut buffer = [0; 17];
    call(fd, GET_FS_UUID, &mut buffer)?;
    Ok(buffer)
}

/// INO_LOOKUP: the subvolume that was meant (0 asks for that of `fd`), and the path of a directory in it.
pub(crate) fn ino_lookup(fd: BorrowedFd<'_>, tree: u64, inode: u64) -> Result<(u64, Vec<u8>)> {
    let mut buffer = bytes(&[tree, inode]);
    buffer.resize(PAGE_BYTES, 0);
    call(fd, number::BTRFS_IOC_INO_LOOKUP, &mut buffer)?;
    let name = buffer.iter().skip(16).take_while(|byte| **byte != 0).copied().collect();
    Ok((u64_at(&buffer, 0), name))
}

/// GET_SUBVOL_INFO of the subvolume that `fd` is in; works without privileges.
pub(crate) fn subvolume_info(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; SUBVOLUME_INFO_BYTES];
    call(fd, number::BTRFS_IOC_GET_SUBVOL_INFO, &mut buffer)?;
    Ok(buffer)
}

/// SNAP_CREATE_V2: a read-only snapshot of the subvolume `source` as `name` in the directory `to`.
pub(crate) fn snapshot(to: BorrowedFd<'_>, name: &[u8], source: BorrowedFd<'_>) -> Result<()> {
    let mut buffer = volume_args(name, source.as_raw_fd() as u64, SNAPSHOT_READ_ONLY)?;
    call(to, number::BTRFS_IOC_SNAP_CREATE_V2, &mut buffer)
}

/// SUBVOL_CREATE_V2: an empty subvolume `name` in the directory `to`.
pub(crate) fn create_subvolume(to: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut buffer = volume_args(name, 0, 0)?;
    call(to, number::BTRFS_IOC_SUBVOL_CREATE_V2, &mut buffer)
}

/// SNAP_DESTROY_V2: removes the subvolume or snapshot `name` of the directory `from`.
pub(crate) fn destroy(from: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut buffer = volume_args(name, 0, 0)?;
    call(from, number::BTRFS_IOC_SNAP_DESTROY_V2, &mut buffer)
}

fn volume_args(name: &[u8], fd: u64, flags: u64) -> Result<Vec<u8>> {
    if name.is_empty() || name.len() >= VOLUME_NAME_BYTES || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    let mut buffer = bytes(&[fd, 0, flags]);
    buffer.resize(VOLUME_NAME_AT, 0);
    buffer.extend(name);
    buffer.resize(PAGE_BYTES, 0);
    Ok(buffer)
}

/// START_SYNC: begins a commit and returns its generation.
pub(crate) fn start_sync(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut buffer = [0; 8];
    call(fd, number::BTRFS_IOC_START_SYNC, &mut buffer)?;
    Ok(u64::from_ne_bytes(buffer))
}

/// WAIT_SYNC: waits until the generation is committed.
pub(crate) fn wait_sync(fd: BorrowedFd<'_>, generation: u64) -> Result<()> {
    call(fd, number::BTRFS_IOC_WAIT_SYNC, &mut generation.to_ne_bytes())
}

/// DEFRAG_RANGE over the whole file, merging extents smaller than `below_bytes`; begins writing at once.
pub(crate) fn defragment(fd: BorrowedFd<'_>, below_bytes: u32) -> Result<()> {
    const START_WRITING: u64 = 2;
    let mut buffer = bytes(&[0, u64::MAX, START_WRITING, u64::from(below_bytes), 0, 0]);
    call(fd, number::BTRFS_IOC_DEFRAG_RANGE, &mut buffer)
}

/// Opens a file of Btrfs by subvolume and inode, read-only and without touching its access time; needs CAP_DAC_READ_SEARCH.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, subvolume: u64, inode: u64) -> Result<OwnedFd> {
    let mut words = [HANDLE_BYTES | HANDLE_TYPE << 32, inode, subvolume, 0];
    let flags = libc::O_RDONLY | libc::O_NOATIME | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    // SAFETY: `words` is a `struct file_handle` of HANDLE_BYTES bytes after its head of 8, in 32 bytes.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), words.as_mut_ptr().cast(), flags) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the calling thread's reads and writes wait for those of everybody else.
pub(crate) fn set_idle_io() -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    const CLASS_IDLE: i32 = 3 << 13;
    // SAFETY: three integers; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

/// cachestat: how many pages of a range are in memory; Linux 6.5 and newer.
pub(crate) fn cached_pages(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<u64> {
    let range = [offset, len];
    let mut pages = [0_u64; 5];
    // SAFETY: `struct cachestat_range` is two words, `struct cachestat` five, and both outlive the call.
    let done = unsafe { libc::syscall(CACHESTAT, fd.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0) };
    if done < 0 { Err(last_error()) } else { Ok(pages[0]) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The bytes of words as they are in memory.
fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Writes words over the beginning of a buffer.
fn put_words(buffer: &mut [u8], words: &[u64]) -> Result<()> {
    let head = bytes(words);
    buffer.get_mut(..head.len()).ok_or(Errno::INVAL)?.copy_from_slice(&head);
    Ok(())
}

/// The number at a byte of a structure of the kernel; 0 beyond its end.
pub(crate) fn u64_at(buffer: &[u8], at: usize) -> u64 {
    let bytes = buffer.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// As [`u64_at`].
pub(crate) fn u32_at(buffer: &[u8], at: usize) -> u32 {
    let bytes = buffer.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}
