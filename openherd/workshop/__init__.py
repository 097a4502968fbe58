"""The workshop: what is done to a model and measured on it, beside talking with it."""
