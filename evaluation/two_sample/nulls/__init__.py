"""Null distributions: from two samples to an observed statistic and the values that it would take under P =
Q."""
