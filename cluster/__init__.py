"""Ray, storage and shards: everything distributed that knows nothing of energy-based models."""
