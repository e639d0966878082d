//! Errors of the operating system that say nothing about the file they concern.

use std::io::Error;

/// Returns whether the process or the system has no free file descriptor.
pub(crate) fn is_out_of_descriptors(error: &Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Returns whether the same call can succeed once other work has released
/// descriptors, memory or disk space.
#[cfg(feature = "spool")]
pub(crate) fn is_shortage(error: &Error) -> bool {
    use std::io::ErrorKind;

    const SHORTAGES: [ErrorKind; 4] = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::OutOfMemory,
        ErrorKind::Interrupted,
    ];
    is_out_of_descriptors(error) || SHORTAGES.contains(&error.kind())
}
