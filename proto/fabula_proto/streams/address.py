"""The address of a Redis server, whose password may lie in a file: `redis://host:6379/0?password_file=PATH`.

A secret that a container is given as a file thus stands in no environment variable and in no list of processes.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

PASSWORD_FILE = "password_file"  # noqa: S105 - the option's name


@dataclass(frozen=True)
class Address:
    """What the client library is given, and what may be shown."""

    url: str = field(repr=False)
    password: str | None = field(repr=False)
    shown: str

    @classmethod
    def read(cls, address: str) -> Self:
        """Take `password_file` out of an address and read that file; a line break at its end does not count.

        Raises:
            ValueError: the file cannot be read, or holds nothing.
        """
        if f"{PASSWORD_FILE}=" not in address:
            return cls(address, None, without_secrets(address))
        parts = urlsplit(address)
        options = parse_qsl(parts.query, keep_blank_values=True)
        paths = [value for name, value in options if name == PASSWORD_FILE]
        try:
            password = Path(paths[-1]).read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PASSWORD_FILE} {paths[-1]!r} cannot be read: {error}") from error
        if not password:
            raise ValueError(f"{PASSWORD_FILE} {paths[-1]!r} is empty; write the server's password into it")
        rest = urlencode([option for option in options if option[0] != PASSWORD_FILE])
        return cls(parts._replace(query=rest).geturl(), password, without_secrets(address))


def without_secrets(address: str) -> str:
    """An address as it may be shown. One that is wrong stays as it was given, but for user, password and options."""
    # Not urlsplit: it would change or refuse a wrong one. A password may stand in the query, too.
    return re.sub(r"//.*@", "//", address.partition("?")[0])
