"""Items of the evaluator's own, for when no benchmark folder is given. Deterministic by seed; labelled `generated`."""

SOURCE = "generated"
