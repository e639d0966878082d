//! Opens the files that an earlier process left. A damaged file is replaced by one
//! with its undamaged records, and quarantined.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::model::loss_reason::LossReason;
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
/// Returns the I/O error if the file cannot be opened.
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
    let kept = quarantine(path)?;
    let kept = kept.display();
    if contents.damaged > 0 {
        let message = format!("{shown} is damaged; it is kept as {kept}");
        recovered.lose(LossReason::Damaged, contents.damaged, message);
    }
    let copied = copy(path, &contents);
    if let Err(error) = copied {
        let _ = fs::remove_file(path);
        let events = extent_of(&contents).events;
        if events > 0 {
            let message =
                format!("{shown} is damaged and cannot be copied: {error}; it is kept as {kept}");
            recovered.lose(LossReason::Damaged, events, message);
        }
        return Ok(Extent::default());
    }
    Ok(extent_of(&contents))
}

/// Replaces an incomplete record at the end by one with its complete lines.
fn complete(path: &Path, contents: &Contents<'_>) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.set_len(contents.complete_bytes as u64)?;
    write_record(&mut file, contents.torn_lines)
}

/// Creates a file with the undamaged records.
fn copy(path: &Path, contents: &Contents<'_>) -> io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(&MAGIC)?;
    for lines in contents.records.iter().copied().chain([contents.torn_lines]) {
        write_record(&mut file, lines)?;
    }
    file.sync_data()
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
fn quarantine(path: &Path) -> io::Result<PathBuf> {
    let kept = path.with_extension(QUARANTINED);
    fs::rename(path, &kept)?;
    remove_old(path);
    Ok(kept)
}

/// Keeps the bytes of a damaged record. Returns a description of what happened.
pub(super) fn quarantine_record(path: &Path, bytes: &[u8]) -> String {
    let kept = path.with_extension(format!("{:08x}.{QUARANTINED}", crc32fast::hash(bytes)));
    match create_file(&kept).and_then(|mut file| file.write_all(bytes)) {
        Ok(()) => {
            remove_old(path);
            format!("it is kept as {}", kept.display())
        }
        Err(error) => format!("it cannot be kept: {error}"),
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
