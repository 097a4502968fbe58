"""The process that holds one model. Started by the front as `python -m openherd.serve.worker FD`."""
