"""The student trainer: pretrains a small language model and lets it learn from a teacher's verdicts."""
