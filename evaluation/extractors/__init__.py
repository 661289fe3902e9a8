"""Image feature extractors, by name."""
