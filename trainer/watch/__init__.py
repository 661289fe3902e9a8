"""Watching a training run: none of it changes the run by a bit."""
