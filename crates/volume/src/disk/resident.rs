//! Whether a part of a file is in the page cache (`cachestat(2)`, Linux 6.5 and later), and how it comes to be there.
#![allow(unsafe_code)]

use super::open_regular;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The call's number, the same on all architectures that Rust's libc knows.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`: bytes.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat`: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    in_write_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Set once the kernel has said that it has no such call, or that we may not use it.
static UNKNOWN_CALL: AtomicBool = AtomicBool::new(false);

/// Whether `len` bytes of a file from `offset` on are all in the page cache now. None: the kernel does not tell.
pub fn is_resident(file: &File, offset: u64, len: u64) -> Option<bool> {
    let page = rustix::param::page_size() as u64;
    let pages = if len == 0 { 0 } else { (offset + len).div_ceil(page) - offset / page };
    Some(cached_pages(file, offset, len)? >= pages)
}

/// Whether nothing of them is there. None: the kernel does not tell.
pub fn is_absent(file: &File, offset: u64, len: u64) -> Option<bool> {
    Some(cached_pages(file, offset, len)? == 0)
}

fn cached_pages(file: &File, offset: u64, len: u64) -> Option<u64> {
    if len == 0 || UNKNOWN_CALL.load(Ordering::Relaxed) {
        return (len == 0).then_some(0);
    }
    let (range, mut counts) = (Range { offset, len }, Counts::default());
    // SAFETY: the two structures have the layout that the kernel documents and outlive the call, which writes the second
    // only; the descriptor is open as long as `file` is borrowed; the flags must be zero.
    let answer = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counts, 0) };
    if answer != 0 {
        // Not there, forbidden (a container's filter), or not for this kind of file: never asked again.
        let error = std::io::Error::last_os_error();
        UNKNOWN_CALL.store(true, Ordering::Relaxed);
        tracing::info!(%error, "the kernel does not tell what is in the page cache (cachestat): all that is read is checked");
        return None;
    }
    Some(counts.cached)
}

/// Whether the kernel can tell at all.
pub fn is_known(file: &File) -> bool {
    is_resident(file, 0, 1).is_some()
}

/// Has the kernel read no more than it is asked for: what it reads ahead would be in the page cache unchecked.
///
/// # Errors
/// The file system does not take the advice.
pub fn no_read_ahead(file: &File) -> Result<(), Errno> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random)
}

/// What [`bring_in`] brings in.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Whether this is a huge page here, and there is such a thing.
static IS_HUGE_PAGE: LazyLock<bool> = LazyLock::new(|| {
    let size = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    size.is_ok_and(|s| s.trim().parse() == Ok(HUGE_PAGE_BYTES))
});

/// Has the kernel read [`HUGE_PAGE_BYTES`] of a file into its page cache, from a multiple of them on, in pieces as large as it has
/// them: a file that lies there in pages of 4 KiB, as reads without read-ahead bring it in, is sent at two thirds of the rate. The kernel may
/// read on after them when they are used. Only advice: what fails here is read later, in whichever pieces.
pub fn bring_in(path: &Path, offset: u64) {
    if *IS_HUGE_PAGE && let Ok(file) = open_regular(path) {
        let _ = fault_in(&file, offset);
    }
}

/// A page fault where huge pages are advised reads all of one, and no more where random access is.
fn fault_in(file: &File, offset: u64) -> Result<(), Errno> {
    let len = rustix::param::page_size();
    // SAFETY: a new mapping at an address that the kernel chooses, of which nobody is told, so that nothing reads it: a page that
    // cannot be had is an error of the advice, not a signal. It is unmapped before its file is closed.
    unsafe {
        let page = rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, offset)?;
        let advices = [Advice::Random, Advice::LinuxHugepage, Advice::LinuxPopulateRead];
        let advised = advices.into_iter().try_for_each(|advice| rustix::mm::madvise(page, len, advice));
        rustix::mm::munmap(page, len)?;
        advised
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn what_was_written_is_resident_until_it_is_dropped_and_reading_brings_only_what_is_asked_for() {
        let file = tempfile::Builder::new().tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap().into_file();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let Some(resident) = is_resident(&file, 0, 1 << 20) else { return eprintln!("SKIPPED: this kernel has no cachestat") };
        assert!(resident);
        assert_eq!(is_resident(&file, 0, (1 << 20) + 1), Some(false), "there is no page after the end");
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(is_resident(&file, 0, 1 << 20), Some(false));
        no_read_ahead(&file).unwrap();
        file.read_exact_at(&mut [0; 4096], 8192).unwrap();
        assert_eq!(is_resident(&file, 8192, 4096), Some(true));
        assert_eq!(is_resident(&file, 8192, 4097), Some(false));
        assert_eq!(is_resident(&file, 8191, 2), Some(false));
        assert_eq!((is_absent(&file, 8191, 2), is_absent(&file, 12_288, 4096)), (Some(false), Some(true)));
    }

    #[test]
    fn a_huge_page_is_brought_in_and_nothing_after_it() {
        let file = tempfile::Builder::new().tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.as_file().write_all_at(&vec![1; 3 * HUGE_PAGE_BYTES as usize], 0).unwrap();
        file.as_file().sync_all().unwrap();
        rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let resident = |from: u64, len| is_resident(file.as_file(), from * HUGE_PAGE_BYTES, len);
        if resident(0, 1) != Some(false) || !*IS_HUGE_PAGE {
            return eprintln!("SKIPPED: this kernel has no cachestat, or no huge pages of 2 MiB");
        }
        bring_in(file.path(), HUGE_PAGE_BYTES);
        assert_eq!(resident(1, HUGE_PAGE_BYTES), Some(true));
        assert_eq!((resident(0, 1), resident(2, 1)), (Some(false), Some(false)));
    }
}
