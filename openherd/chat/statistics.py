"""Speed and room, in words: the line under an answer and the page of /stats."""

from __future__ import annotations

from openherd.chat.conversation import Conversation
from openherd.messages import FinishReason
from openherd.words import counted

_ENDS = {
    FinishReason.LENGTH: "ended by max_tokens",
    FinishReason.ABORTED: "stopped",
    FinishReason.CONTENT_FILTER: "ended by a guard",
}


def line(conversation: Conversation) -> str:
    """What the last answer took; empty when there is none."""
    completion = conversation.last
    if completion is None:
        return ""
    parts = [counted(completion.usage.completion_tokens, "token")]
    if rate := completion.timing.get("decode_tokens_per_s"):
        parts.append(f"{rate:.0f} tokens/s")
    parts.append(_room(conversation))
    if completion.finish_reason in _ENDS and not conversation.context_is_full:
        parts.append(_ENDS[completion.finish_reason])
    if not completion.text:
        parts.append("it said nothing, so neither the message nor the answer is kept")
    return " · ".join(parts)


def too_long_notice(conversation: Conversation) -> str:
    """What to do in a conversation when a message does not fit."""
    room = " /undo and /new make room for it;" if conversation.exchanges else ""
    return f"Say it shorter;{room} herd chat --context N starts with more room where the model has it."


def full_notice(context: int) -> str:
    """What to do when nothing more fits."""
    return (
        f"The context of {context:,} tokens is full. /undo takes the last exchange back, /new begins afresh, and "
        "herd chat --context N starts with more room where the model has it."
    )


def page(conversation: Conversation) -> str:
    model, stats = conversation.model, conversation.model.stats
    rows = {
        "model": model.name,
        "numerics": model.numerics_id,
        "conversation": f"{counted(len(conversation.exchanges), 'exchange')}, {_room(conversation)}",
        "last answer": line(conversation) or "none yet",
        "its seed": str(conversation.last.seed) if conversation.last else "none yet",
        "prompt tokens": f"{stats.num_prompt_tokens:,} computed, {stats.num_cached_tokens:,} found in the cache",
        "answer tokens": f"{stats.num_generated_tokens:,}{_drafts(conversation)}",
        "KV blocks": f"{stats.num_total_blocks - stats.num_free_blocks:,} of {stats.num_total_blocks:,} in use",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())


def _drafts(conversation: Conversation) -> str:
    """How speculation went, where it drafted anything."""
    stats = conversation.model.stats
    if not stats.num_drafted_tokens:
        return ""
    return f", {stats.num_accepted_tokens:,} of {stats.num_drafted_tokens:,} drafts right"


def _room(conversation: Conversation) -> str:
    used, context = conversation.context_used, conversation.model.context
    return f"context {used:,} of {context:,} ({used / context:.0%})"
