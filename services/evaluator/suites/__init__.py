"""The suites, one file each: items in, measures and predictions out. No file and no socket is touched here."""
