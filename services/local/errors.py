"""What ends a `fabula` command early. The command line prints the message, without a traceback, and exits."""


class CommandError(Exception):
    """Something the user can act on: the message carries the value, the expectation and the cure."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ChildFailedError(CommandError):
    """A process of ours stopped by itself; the message ends with the tail of its log."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked us to stop
    """Ctrl-C, SIGTERM or a closed terminal."""


def not_installed(error: ImportError) -> CommandError:
    """For a command whose packages are not here."""
    return CommandError(f"this needs {error.name}; type `make` in Fabula's folder, which brings it")
