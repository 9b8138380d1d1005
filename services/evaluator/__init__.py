"""The evaluator: measures every checkpoint and shows what a run gained."""
