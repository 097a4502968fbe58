"""Golden values: what a model computed when it was made, carried with it so that any copy can be checked.

`golden.json` beside safetensors and Meta's files, the key `openherd.golden` in GGUF.
"""
