"""Recipes: one TOML file an experiment."""
