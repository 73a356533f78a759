"""Image files, read and written here only; `files` reads by a file's ending."""
