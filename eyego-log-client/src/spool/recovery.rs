//! Opens the files that an earlier process left. A damaged file is replaced by one
//! with its undamaged records, and quarantined.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::model::loss_reason::LossReason;
use crate::model::os_error::is_shortage;
use crate::spool::directory::{create_file, files_with_extension};
use crate::spool::format::{Header, MAGIC, count_lines};
use crate::spool::record::{Extent, LostInFile, Recovered};
use crate::spool::repair::{Contents, contents};
use crate::spool::segment::{Segment, scan};

/// The extension of quarantined files.
const QUARANTINED: &str = "quarantined";

/// The number of quarantined files that are kept.
const MAX_QUARANTINED: usize = 8;

/// The maximum size of a file of this crate. A larger one is not read as a whole.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Opens a file. Returns `None` if it contains no event that can be read.
///
/// # Errors
/// Returns the I/O error if the file cannot be opened, or not be read for want of
/// descriptors or memory. It is left as it is then.
pub(super) fn open(
    number: u64,
    path: PathBuf,
    recovered: &mut Recovered,
) -> io::Result<Option<Segment>> {
    let file = File::open(&path)?;
    let metadata = file.metadata()?;
    let written_at = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    let found = match scan(&file, metadata.len()) {
        Ok(Some(found)) => Ok(found),
        Ok(None) if metadata.len() <= MAX_FILE_BYTES => repair(&path, recovered),
        Ok(None) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no spool file")),
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) if is_shortage(&error) => return Err(error),
        Err(error) => {
            let kept = match quarantine(&path) {
                Ok(kept) => format!("it is kept as {}", kept.display()),
                Err(error) => format!("it cannot be renamed: {error}"),
            };
            let message = format!("{} cannot be read: {error}; {kept}", path.display());
            recovered.lose(LossReason::Damaged, 1, message);
            return Ok(None);
        }
    };
    recovered.found.add(found);
    if found.events == 0 {
        // A file that was quarantined is not there any more.
        let _ = fs::remove_file(&path);
        return Ok(None);
    }
    let bytes = fs::metadata(&path)?.len();
    Ok(Some(Segment::recovered(number, path, bytes, found, written_at)))
}

/// Makes a file intact and returns what it contains.
fn repair(path: &Path, recovered: &mut Recovered) -> io::Result<Extent> {
    let bytes = fs::read(path)?;
    let contents = contents(&bytes);
    let shown = path.display();
    if contents.interrupted > 0 {
        let message = format!("an earlier process ended while it was writing to {shown}");
        recovered.lose(LossReason::Interrupted, contents.interrupted, message);
    }
    if !contents.needs_copy {
        complete(path, &contents)?;
        return Ok(extent_of(&contents));
    }
    if bytes.len() < MAGIC.len() && contents.damaged == 0 {
        return Ok(Extent::default());
    }
    let kept = match replace(path, &contents) {
        Ok(kept) => format!("it is kept as {}", kept.display()),
        Err(error) => {
            overwrite(path, &contents)?;
            format!("it cannot be kept: {error}")
        }
    };
    if contents.damaged > 0 {
        let message = format!("{shown} is damaged; {kept}");
        recovered.lose(LossReason::Damaged, contents.damaged, message);
    }
    Ok(extent_of(&contents))
}

/// Replaces an incomplete record at the end by one with its complete lines, which
/// are in their place already: that needs no disk space.
fn complete(path: &Path, contents: &Contents<'_>) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.seek(SeekFrom::Start(contents.complete_bytes as u64))?;
    write_record(&mut file, contents.torn_lines)?;
    let end = file.stream_position()?;
    file.set_len(end)
}

/// Replaces a damaged file by one with its undamaged records, at once. Returns
/// where the damaged one is kept.
fn replace(path: &Path, contents: &Contents<'_>) -> io::Result<PathBuf> {
    let copy = path.with_extension("copy");
    // An earlier process may have left it.
    let _ = fs::remove_file(&copy);
    let kept = path.with_extension(QUARANTINED);
    let written = create_file(&copy).and_then(|mut file| write(&mut file, contents));
    let replaced = written.and_then(|_| keep(path, &kept)).and_then(|()| fs::rename(&copy, path));
    if let Err(error) = replaced {
        let _ = fs::remove_file(&copy);
        let _ = fs::remove_file(&kept);
        return Err(error);
    }
    remove_old(path);
    Ok(kept)
}

/// Gives a file a second name or, if the file system has no links, copies it.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    let _ = fs::remove_file(kept);
    fs::hard_link(path, kept).or_else(|_| fs::copy(path, kept).map(drop))
}

/// Writes the undamaged records over a damaged file, which needs no disk space.
/// If this is interrupted, the next process finds some of them twice, under the
/// same ids.
fn overwrite(path: &Path, contents: &Contents<'_>) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let end = write(&mut file, contents)?;
    file.set_len(end)
}

/// Writes the undamaged records and returns their size in bytes.
fn write(file: &mut File, contents: &Contents<'_>) -> io::Result<u64> {
    file.write_all(&MAGIC)?;
    for lines in contents.records.iter().copied().chain([contents.torn_lines]) {
        write_record(file, lines)?;
    }
    let end = file.stream_position()?;
    file.sync_data()?;
    Ok(end)
}

fn write_record(file: &mut File, lines: &[u8]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let events = usize::try_from(count_lines(lines)).unwrap_or(usize::MAX);
    let header = Header::for_lines(lines, events)
        .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the record is too large"))?;
    file.write_all(&header.encode())?;
    file.write_all(lines)
}

fn extent_of(contents: &Contents<'_>) -> Extent {
    let mut extent = Extent::default();
    for lines in contents.records.iter().copied().chain([contents.torn_lines]) {
        if !lines.is_empty() {
            extent.add(Extent::record(count_lines(lines)));
        }
    }
    extent
}

/// Renames a file so that it is not opened again. Returns its new path.
pub(super) fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let kept = path.with_extension(QUARANTINED);
    fs::rename(path, &kept)?;
    remove_old(path);
    Ok(kept)
}

/// Keeps the bytes of a damaged record. Returns a description of what happened.
pub(super) fn quarantine_record(path: &Path, bytes: &[u8]) -> String {
    let kept = path.with_extension(format!("{:08x}.{QUARANTINED}", crc32fast::hash(bytes)));
    // An earlier process may have kept the same record.
    let _ = fs::remove_file(&kept);
    match create_file(&kept).and_then(|mut file| file.write_all(bytes)) {
        Ok(()) => {
            remove_old(path);
            format!("it is kept as {}", kept.display())
        }
        Err(error) => {
            let _ = fs::remove_file(&kept);
            format!("it cannot be kept: {error}")
        }
    }
}

/// Removes the oldest quarantined files beside `path`.
fn remove_old(path: &Path) {
    let Some(dir) = path.parent() else { return };
    let mut files = files_with_extension(dir, OsStr::new(QUARANTINED)).unwrap_or_default();
    files.sort_unstable();
    let excess = files.len().saturating_sub(MAX_QUARANTINED);
    for file in &files[..excess] {
        // It is removed the next time.
        let _ = fs::remove_file(file);
    }
}

impl Recovered {
    fn lose(&mut self, reason: LossReason, events: u64, message: String) {
        self.lost.push(LostInFile { reason, events, message });
    }
}
