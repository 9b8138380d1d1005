"""Guards watch a run and raise alarms: see docs/guards.md."""
