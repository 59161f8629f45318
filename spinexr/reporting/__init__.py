"""Analysis → bytes. Nothing here opens a file or decides anything."""
