"""Transition kernels on the latent space of a trained model, and their farm."""
