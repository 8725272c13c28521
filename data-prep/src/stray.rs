//! What systems and editors leave among people's files: hidden files and folders, thumbnails, trash, halves of Macintosh files.

/// Names of folders and files that are not hidden, in any case.
const NAMES: [&str; 15] = [
    "__MACOSX",
    "__pycache__",
    "lost+found",
    "@eaDir",
    "@tmp",
    "@Recycle",
    "@Recently-Snapshot",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "System Volume Information",
    "Network Trash Folder",
    "Temporary Items",
    "Thumbs.db",
    "desktop.ini",
];

/// Whether a file or folder of this name is none of the user's.
pub fn is_stray(name: &[u8]) -> bool {
    name.starts_with(b".") || NAMES.iter().any(|stray| name.eq_ignore_ascii_case(stray.as_bytes()))
}

/// Whether a path of an archive leads to such a file, or through such a folder.
pub fn is_stray_path(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|part| part != b"." && part != b".." && is_stray(part))
}
