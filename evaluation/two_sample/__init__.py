"""Kernel two-sample tests."""
