"""Tokenizers: text to ids and back, and chat templates as spans."""
