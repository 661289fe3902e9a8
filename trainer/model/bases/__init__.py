"""Bases that are not a family's own generator, one file each."""
