"""What is asked and when, drawn before anything is sent: the same seed asks every server the same."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from openherd.errors import InputError
from openherd.workshop.load.lengths import Lengths
from openherd.workshop.load.options import LoadOptions

MAX_FILE_BYTES = 256 * 2**20
# Every prompt begins with other words, so that no server finds it in a cache.
_TEXT = (
    "river stone window letter garden number morning music paper winter island market bridge doctor animal engine "
    "silver forest history table village ocean ladder candle mirror pocket thunder copper meadow harbor signal "
    "planet pencil desert museum cotton shadow castle orange travel corner summer kitchen railway teacher mountain "
    "machine weather library sailor blanket compass feather hammer journey lantern needle orchard painter quarter "
    "ribbon saddle tunnel valley wagon yellow zebra anchor basket circle dragon eleven finger guitar hollow insect "
    "jacket kernel lemon magnet notice oyster pepper quiet rocket sister ticket uncle velvet whisper yesterday apple "
    "bottle cherry dinner empire farmer ground hunter inside junior kettle lawyer member nature office palace rabbit "
    "school temple useful visit worker young active before common during effort famous global health income joined"
)
WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request's own part."""

    messages: list[dict[str, Any]]
    max_tokens: int


def asks(options: LoadOptions, stream: str) -> Iterator[Ask]:
    """Without end; the requests of each `stream` (a name) are drawn apart. Raises `InputError` for a bad file."""
    rng = random.Random(f"{options.seed} {stream}")
    answer = Lengths.parse("--answer-tokens", options.answer_tokens, 1_000_000)
    if options.prompts is not None:
        entries = _from_file(Path(options.prompts))
        for number in count():
            messages, max_tokens = entries[number % len(entries)]
            yield Ask(messages, max_tokens or answer.draw(rng))
    words = Lengths.parse("--prompt-words", options.prompt_words, 100_000)
    while True:
        text = " ".join(rng.choice(WORDS) for _ in range(words.draw(rng)))
        yield Ask([{"role": "user", "content": text}], answer.draw(rng))


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Seconds from the start of each arrival of a Poisson process: the gaps between them are exponential."""
    rng = random.Random(f"{seed} arrivals")
    moment = 0.0
    while True:
        moment += rng.expovariate(rate)
        yield moment


def _from_file(path: Path) -> list[tuple[list[dict[str, Any]], int | None]]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the prompts {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"the prompts {path} are longer than {MAX_FILE_BYTES} bytes")
    lines = enumerate(data.split(b"\n"), 1)
    entries = [_entry(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not entries:
        raise InputError(f"{path} has no prompts")
    return entries


def _entry(line: bytes, where: str) -> tuple[list[dict[str, Any]], int | None]:
    form = 'a line of prompts is {"prompt": TEXT} or {"messages": [...]}, with "max_tokens" if wanted'
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON; {form}") from None
    if not isinstance(entry, dict) or not set(entry) <= {"prompt", "messages", "max_tokens"}:
        raise InputError(f"{where}: {form}")
    match entry:
        case {"prompt": str(prompt)} if "messages" not in entry:
            messages = [{"role": "user", "content": prompt}]
        case {"messages": [_, *_] as messages} if "prompt" not in entry:
            pass
        case _:
            raise InputError(f"{where}: {form}")
    max_tokens = entry.get("max_tokens")
    if max_tokens is not None and (type(max_tokens) is not int or not 1 <= max_tokens <= 1_000_000):
        raise InputError(f"{where}: max_tokens must be a whole number from 1 to 1000000")
    return messages, max_tokens
