"""Models on this machine: catalogue, fetching, files. The only writer of OPENHERD_HOME."""
