"""Judges: one protocol, one package or file each."""
