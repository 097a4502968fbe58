"""Grammars and JSON schemas as token masks."""
