"""The services of Fabula and the `fabula` command that runs them together."""
