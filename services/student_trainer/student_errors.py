"""What can be wrong with a student."""


class StudentError(ValueError):
    """The settings name a student that cannot be built, or one that cannot be taught here; says why and what to do."""
