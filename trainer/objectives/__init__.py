"""Training objectives: pure functions of energies."""
