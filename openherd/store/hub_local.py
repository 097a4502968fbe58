"""Models of a hub that are here: found by what a person writes, kept in folders whose names say what they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from openherd.errors import ModelNotFoundError
from openherd.store.hub_reference import HubReference
from openherd.store.local import HubOrigin, LocalModel, local_models

if TYPE_CHECKING:
    from openherd.store.hub_files import Choice

_COMMIT_CHARACTERS = 12
_MAX_VARIANT = 80
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def fetching_name(repository: str, choice: Choice) -> str:
    """The folder in which a model's files come together, whichever commit they are of."""
    return f"{_stem(repository)}{_variant(choice.variant)}"


def fetching_prefix(reference: HubReference) -> str:
    """What the names of such folders begin with."""
    return _stem(reference.repository) + (_variant(reference.select) if reference.select else "")


def folder_name(repository: str, choice: Choice, commit: str) -> str:
    """The folder of one commit's model: two commits of one model can stand side by side."""
    return f"{fetching_name(repository, choice)}--{commit[:_COMMIT_CHARACTERS]}"


def _stem(repository: str) -> str:
    return f"hf--{repository.replace('/', '--')}--".lower()


def _variant(variant: str) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", variant.lower())[-_MAX_VARIANT:].lstrip("-.")


def hub_models() -> list[LocalModel]:
    """Those that came from a hub, the latest fetched first."""
    models = [model for model in local_models() if model.record.hub is not None]
    return sorted(models, key=lambda model: model.record.fetched, reverse=True)


def find_hub_models(reference: HubReference) -> list[LocalModel]:
    """Every model here that `reference` may mean, the latest fetched first."""
    return [model for model in hub_models() if model.record.hub and _means(reference, model.record.hub)]


def find_hub_model(reference: HubReference) -> LocalModel | None:
    """The one model here that `reference` means, the latest fetched of several commits; None: none is here.

    Raises ModelNotFoundError when it may mean several variants of the repository.
    """
    models = find_hub_models(reference)
    variants = sorted({model.record.hub.variant for model in models if model.record.hub})
    if len(variants) > 1:
        raise ModelNotFoundError(
            f"{reference} may mean {len(variants)} models that are here: {', '.join(variants)}",
            hint=f"try: hf:{reference.repository}:{variants[0]}",
        )
    return models[0] if models else None


def _means(reference: HubReference, hub: HubOrigin) -> bool:
    if reference.repository.casefold() != hub.repository.casefold():
        return False
    if reference.revision is not None and reference.revision != hub.asked:
        short = _SHORT_COMMIT.fullmatch(reference.revision) is not None
        if not (short and hub.commit.startswith(reference.revision)):
            return False
    if reference.select is None:
        return True
    select = reference.select.casefold()
    variants = {hub.variant.casefold(), hub.variant.casefold().removeprefix("ud-")}
    names = {file.name.casefold() for file in hub.files} if hub.variant not in ("safetensors", "bin") else set()
    return select in variants or select.rsplit("/", 1)[-1] in names
