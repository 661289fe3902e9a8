"""The generalized energy-based model, in plain PyTorch."""
