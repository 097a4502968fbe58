"""herd verify --against URL: whether a server answers as the golden values say.

Ids by /tokenize, rendered chats by /apply-template (llama.cpp's and openherd's form; vLLM's of /tokenize too), and
log-probabilities by /v1/completions with ids as prompts. What a server does not offer is a check that could not be
made. Its numerics and its quantisation are its own, so log-probabilities are held to the tolerance of a quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from openherd.checkpoints import open_checkpoint
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.workshop.golden.chats import render
from openherd.workshop.golden.document import Golden, NextToken, RenderedChat
from openherd.workshop.golden.next_tokens import ASKED, TOP
from openherd.workshop.verify.facts import ids_line, text_lines
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.logprobs import compare, tolerance
from openherd.workshop.verify.run import rounding_of, types_of
from openherd.workshop.verify.server import Answer, Server
from openherd.workshop.verify.tensors import types_in_between

_MOST = 1e6  # no log-probability is larger, and a whole number of hundreds of digits is no float


def verify_server(url: str, path: Path, golden: Golden) -> Report:
    """Check the server at `url` against `golden`; the model at `path` says how tokens are spelled.

    Raises InputError for an address that is none, UnreachableError when nothing answers there.
    """
    server = Server.parse(url)
    checkpoint = open_checkpoint(path)
    asked = _Asked(server, _model(server, path), golden, Tokenizer(checkpoint.tokenizer))
    report = Report(strength="a server's answers")
    _check_ids(report, asked)
    _check_chats(report, asked)
    between = types_in_between(golden, checkpoint)
    report.in_between = tuple(sorted(set(between.values())))
    _check_logprobs(report, asked, tolerance(rounding_of(checkpoint, types_of(checkpoint) | between)))
    return report


class _Asked:
    """The server, the name of its model, and what it should answer."""

    def __init__(self, server: Server, model: str | None, golden: Golden, tokenizer: Tokenizer) -> None:
        self.golden = golden
        self.tokenizer = tokenizer
        self._server = server
        self._model = {} if model is None else {"model": model}

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        return self._server.post(path, {**self._model, **body})

    @property
    def bos_id(self) -> int | None:
        """The token that begins every text, which servers leave out or put in by rules of their own."""
        return self.tokenizer.bos_id if self.golden.vocabulary.facts.get("add_bos") else None


def _model(server: Server, path: Path) -> str | None:
    """The served model of the file's name, else the first."""
    listed = server.get("/v1/models").field("data")
    entries = listed if isinstance(listed, list) else []
    names = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return next((name for name in names if path.stem in name), next(iter(names), None))


def _check_ids(report: Report, asked: _Asked) -> None:
    if not asked.golden.vocabulary.texts:
        report.could_not("token ids", "none were recorded")
        return
    lines = []
    for entry in asked.golden.vocabulary.texts:
        for special, ids in ((False, entry.ids), (True, entry.special_ids)):
            was = ids[1:] if ids and ids[0] == asked.bos_id else ids
            answer = asked.post("/tokenize", {"content": entry.text, "add_special": False, "parse_special": special})
            if answer.is_refusal:  # vLLM's form, in which control tokens always count
                was = entry.special_ids[1:] if entry.special_ids[:1] == (asked.bos_id,) else entry.special_ids
                answer = asked.post("/tokenize", {"prompt": entry.text, "add_special_tokens": False})
            tokens = answer.field("tokens")
            if not answer.is_good or not isinstance(tokens, list):
                report.could_not("token ids", f"/tokenize answers with status {answer.status}")
                return
            now = tuple(token if isinstance(token, int) else -1 for token in tokens)
            if now != was:
                lines.append(ids_line(entry.text, was, now))
                break
    report.add("token ids", lines, detail=f"{len(asked.golden.vocabulary.texts)} texts")


def _check_chats(report: Report, asked: _Asked) -> None:
    chats = _present(asked)
    if not chats:
        report.could_not("rendered chats", "none were recorded")
        return
    bos = "" if asked.bos_id is None else asked.tokenizer.token_bytes(asked.bos_id).decode("utf-8", "replace")
    lines = []
    for number, chat in enumerate(chats):
        answer = asked.post("/apply-template", {"messages": [dict(message) for message in chat.messages]})
        text = answer.field("prompt")
        if answer.is_good and isinstance(text, str):
            was = chat.text
            if bos and was is not None and was.startswith(bos) and not text.startswith(bos):
                was = was[len(bos) :]  # the server puts it in when it makes ids
            lines += [f"chat {number}: {line}" for line in text_lines(was, text)]
        elif not (answer.is_refusal or answer.is_template_error):
            report.could_not("rendered chats", f"/apply-template answers with status {answer.status}")
            return
        elif chat.text is not None:
            lines.append(f"chat {number}: refused with status {answer.status}")
    report.add("rendered chats", lines, detail=f"{len(chats)} conversations")


def _present(asked: _Asked) -> tuple[RenderedChat, ...]:
    """The recorded chats; of a template that writes the date, as it would write today's."""
    source, chats = asked.golden.template, asked.golden.chats
    if source is None or "strftime_now" not in source:
        return chats
    template = ChatTemplate.of(source, asked.tokenizer)
    return tuple(render(template, tuple(dict(m) for m in chat.messages), datetime.now()) for chat in chats)


def _check_logprobs(report: Report, asked: _Asked, mean_allowed: float) -> None:
    """Servers say nothing of a token that ends the answer or a character's part; at least half must be told."""
    was: list[NextToken] = []
    found: list[dict[int, float]] = []
    for one in asked.golden.next_tokens:
        answer = _next(asked, one, ASKED)
        if answer.is_refusal:
            answer = _next(asked, one, TOP)
        if not answer.is_good:
            report.could_not("log-probabilities", f"/v1/completions answers with status {answer.status}")
            return
        tops = _tops(answer.body)
        by_id = _by_id(one, tops, asked.tokenizer)
        recorded = tuple(top for top in one.top if top[0] in by_id)
        if recorded and tops:
            was.append(NextToken(one.ids, recorded))
            found.append({token: min(tops.values()) if lp is None else lp for token, lp in by_id.items()})
    if 2 * len(found) < len(asked.golden.next_tokens) or not found:
        told = f"of {len(found)} of {len(asked.golden.next_tokens)} prompts"
        report.could_not("log-probabilities", f"/v1/completions gives those {told}, which is too few")
        return
    compare(report, was, found, mean_allowed)


def _next(asked: _Asked, one: NextToken, top: int) -> Answer:
    return asked.post("/v1/completions", {"prompt": list(one.ids), "max_tokens": 1, "temperature": 0, "logprobs": top})


def _tops(body: Any) -> dict[int | str, float]:
    """The first token's alternatives by id where the server tells it, else by text.

    OpenAI's legacy form is a map from text; llama.cpp gives the list of chat completions, with ids.
    """
    try:
        logprobs = body["choices"][0]["logprobs"]
        if isinstance(logprobs.get("content"), list):
            tops = logprobs["content"][0]["top_logprobs"]
            pairs = {top["id"] if type(top.get("id")) is int else str(top["token"]): top["logprob"] for top in tops}
        else:
            pairs = {str(text): value for text, value in logprobs["top_logprobs"][0].items()}
        return {key: float(value) for key, value in pairs.items() if abs(value) <= _MOST}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return {}


def _by_id(one: NextToken, tops: Mapping[int | str, float], tokenizer: Tokenizer) -> dict[int, float | None]:
    """Recorded tokens that the answer can name; None: it does not list this one.

    By text that leaves out control tokens, which servers spell as they like, and pieces of characters, which are one
    and the same replacement character.
    """
    if any(isinstance(key, int) for key in tops):
        return {token: tops.get(token) for token, _ in one.top}
    named: dict[int, float | None] = {}
    for token, _ in one.top:
        if token < tokenizer.vocab_size and not tokenizer.is_control(token):
            text = tokenizer.token_bytes(token).decode("utf-8", "replace")
            if "\ufffd" not in text:
                named[token] = tops.get(text)
    return named
