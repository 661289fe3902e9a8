"""The `gebm` command, recipes and the demo."""
