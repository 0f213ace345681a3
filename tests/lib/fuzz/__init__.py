"""Fuzzing: what bytes from outside do to whoever reads them. Begin with `target`."""
