"""The whole loop on one machine without Docker: the use cases behind the `fabula` command."""
