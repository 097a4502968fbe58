"""What every Python client is asked to do, and how it says what came of it: a line of JSON for each case.

A program is `python PROGRAM URL GUARDED_URL KEY`: a server for everybody, and one that wants a key, of which KEY may
ask once a minute.
"""

import json
import sys
import traceback

URL, GUARDED_URL, KEY = sys.argv[1:]
MODEL = "smollm2"
QUESTION = "What is the capital of France?"
LONG = {"ignore_eos": True, "max_tokens": 1900}
SCHEMA = {
    "title": "city",
    "description": "A city.",
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
    "required": ["city", "big"],
    "additionalProperties": False,
}
TOOL_NAME = "get_weather"
TOOL_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": TOOL_NAME, "description": "The weather of a city.", "parameters": TOOL_PARAMETERS},
}


def run(**cases):
    """Run each; an exception is a result like any other, and the next case still runs."""
    for name, case in cases.items():
        try:
            result = {"value": case()}
        except Exception as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"case": name, **result}), flush=True)


def raised(call, *args, **kwargs):
    """The name of the exception that it must raise, and the HTTP status that it carries."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None)]
    raise AssertionError("nothing was raised")
