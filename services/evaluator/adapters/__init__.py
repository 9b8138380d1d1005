"""The outside world: data folders, checkpoints, run folders, a teacher over HTTP."""
