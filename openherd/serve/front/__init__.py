"""The HTTP side: it holds no model, and nothing in it computes for longer than a few milliseconds."""
