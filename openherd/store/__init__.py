"""Models on this machine: catalogue, fetching, files. The only writer of OPENHERD_HOME.

`resolve` is the door for everyone who wants a model; `pull`, `local_models` and `remove` are for the verbs.
"""
