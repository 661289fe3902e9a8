"""How good are the samples? Features, image metrics and two-sample tests."""
