"""The line that a peer's process and bench/peers.py speak: one JSON object each way, over standard input and output.

A worker runs in the peer's own Python, so this file and the workers use the standard library, NumPy and the peer alone.
Standard output is kept for the protocol: what libraries print goes to standard error.
"""

import argparse
import json
import os
import sys
from time import perf_counter

CONTEXT = 4352  # the long prompt, what is decoded behind it, and a little
MAX_SEQS = 32
MAX_BATCH_TOKENS = 512


def arguments():
    """MODEL and the number of threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="float32", help="of transformers")
    return parser.parse_args()


def serve(version, works):
    """Answer requests {"work": NAME, ...} by `works[NAME](**rest)`, a number, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    say(answers, {"version": version, "works": sorted(works)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value = works[request.pop("work")](**request)
        except Exception as error:  # the driver says what failed and goes on with the others
            say(answers, {"error": f"{type(error).__name__}: {error}"})
        else:
            say(answers, {"value": value})


def say(answers, document):
    answers.write(json.dumps(document) + "\n")
    answers.flush()


def seconds_of(call, *args):
    started = perf_counter()
    call(*args)
    return perf_counter() - started
