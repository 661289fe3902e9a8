"""Checkpoints of a run: written by all workers while training goes on, committed by a manifest, read by anyone."""
