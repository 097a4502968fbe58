"""Models of a hub that are here: found by what a person writes, kept in folders whose names say what they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from openherd.errors import ModelNotFoundError
from openherd.store.hub_reference import HubReference
from openherd.store.local import HubOrigin, LocalModel, folder_of, local_model, local_models

_COMMIT_CHARACTERS = 12
_HASH_CHARACTERS = 12
_MAX_VARIANT = 80
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def fetching_prefix(repository: str) -> str:
    """What the names of the folders begin with in which a repository's models come together."""
    return f"hf--{repository.replace('/', '--')}--".lower()


def fetching_name(repository: str, variant: str) -> str:
    """The folder in which a model's files come together, whichever commit they are of."""
    return fetching_prefix(repository) + _plain_name(variant)


def new_folder(repository: str, variant: str, commit: str) -> Path:
    """Where one commit's model that is not here belongs: two commits of one model can stand side by side.

    An older openherd may have given that name to another file of the commit, which stays where it is.
    """
    folder = folder_of(f"{fetching_name(repository, variant)}--{commit[:_COMMIT_CHARACTERS]}")
    return folder if local_model(folder.name) is None else folder.with_name(f"{folder.name}-2")


def _plain_name(variant: str) -> str:
    """A name for folders, with a hash where making it plain lost something; quantisations are written in capitals."""
    plain = re.sub(r"[^a-z0-9._-]", "-", variant.lower())[-_MAX_VARIANT:].lstrip("-.")
    if plain == variant or not _is_path(variant):
        return plain
    return f"{plain}-{hashlib.sha256(variant.encode(errors='surrogatepass')).hexdigest()[:_HASH_CHARACTERS]}"


def _is_path(variant: str) -> bool:
    """Whether a model is called by its file, as where no quantisation tells it from the others."""
    return variant.lower().endswith(".gguf")


def hub_models() -> list[LocalModel]:
    """Those that came from a hub, the latest fetched first."""
    models = [model for model in local_models() if model.record.hub is not None]
    return sorted(models, key=lambda model: model.record.fetched, reverse=True)


def find_hub_models(reference: HubReference, *, exactly: bool = False) -> list[LocalModel]:
    """Every model here that `reference` may mean, the latest fetched first.

    A selection that is near a model's name, but not it, counts where none is met exactly, and not at all `exactly`.
    """
    here = [(model, model.record.hub) for model in hub_models()]
    of_repository = [(model, hub) for model, hub in here if hub and _is_of(reference, hub)]
    select = reference.select
    if select is None:
        return [model for model, _ in of_repository]
    exact = [model for model, hub in of_repository if _is_exact(select, hub)]
    return exact or [model for model, hub in of_repository if not exactly and _is_near(select, hub)]


def find_hub_model(reference: HubReference, *, exactly: bool = False) -> LocalModel | None:
    """The one model here that `reference` means, the latest fetched of several commits; None: none is here.

    Raises ModelNotFoundError when it may mean several variants of the repository.
    """
    models = find_hub_models(reference, exactly=exactly)
    variants = sorted({model.record.hub.variant for model in models if model.record.hub})
    if len(variants) > 1:
        raise ModelNotFoundError(
            f"{reference} may mean {len(variants)} models that are here: {', '.join(variants)}",
            hint=f"try: hf:{reference.repository}:{variants[0]}",
        )
    return models[0] if models else None


def find_commits(repositories: Iterable[str], variant: str) -> dict[str, LocalModel]:
    """Exactly this model, in whichever folders, by commit; `repositories` are the names of its repository."""
    names = {name.casefold() for name in repositories}
    here = [(model, model.record.hub) for model in hub_models()]
    return {hub.commit: model for model, hub in here if hub and hub.variant == variant and names & _names(hub)}


def noted(hub: HubOrigin, revision: str, repositories: Iterable[str]) -> HubOrigin:
    """`hub` with a revision that it was asked for by, and names that led to its repository."""
    if revision not in {hub.asked, *hub.also_asked, hub.commit}:
        hub = replace(hub, also_asked=(*hub.also_asked, revision))
    for name in repositories:
        if name.casefold() not in _names(hub):
            hub = replace(hub, also_named=(*hub.also_named, name))
    return hub


def without(hub: HubOrigin, revision: str) -> HubOrigin:
    """`hub` where the revision that it was asked for by has moved to another commit."""
    asked = hub.commit if hub.asked == revision else hub.asked
    return replace(hub, asked=asked, also_asked=tuple(other for other in hub.also_asked if other != revision))


def _names(hub: HubOrigin) -> set[str]:
    return {name.casefold() for name in (hub.repository, *hub.also_named)}


def _is_of(reference: HubReference, hub: HubOrigin) -> bool:
    """Whether the repository is the one that is meant, and the commit one that the revision may be."""
    if reference.repository.casefold() not in _names(hub):
        return False
    revision = reference.revision
    if revision is None or revision in (hub.asked, *hub.also_asked):
        return True
    return _SHORT_COMMIT.fullmatch(revision) is not None and hub.commit.startswith(revision)


def _is_exact(select: str, hub: HubOrigin) -> bool:
    """Whether nothing else of that commit can be meant: by a file's whole path, by the quantisation, or by the name of
    a file of it, as a model is called by its quantisation only where no other has that.
    """
    if select in _paths(hub):
        return True
    return not _is_path(hub.variant) and select.casefold() in {hub.variant.casefold(), *_file_names(hub)}


def _is_near(select: str, hub: HubOrigin) -> bool:
    """Whether it is meant if nothing else is: in other capitals, without its folder, or without the UD- that dynamic
    quantisations begin with.
    """
    wanted = select.casefold()
    if wanted == hub.variant.casefold().removeprefix("ud-"):
        return True
    if "/" in select and (_is_path(hub.variant) or all(file.path for file in hub.files)):
        return wanted in {path.casefold() for path in _paths(hub)}
    return wanted.rpartition("/")[2] in _file_names(hub)


def _paths(hub: HubOrigin) -> list[str]:
    """The paths of a GGUF model's files; an older openherd recorded them only as part of what the model is called."""
    folder = hub.variant.rpartition("/")[0]
    known = [file.path or (f"{folder}/{file.name}" if folder else file.name) for file in hub.files]
    return known if _file_names(hub) else []


def _file_names(hub: HubOrigin) -> set[str]:
    """None for a folder's model, which no single file stands for."""
    return {file.name.casefold() for file in hub.files} if hub.variant not in ("safetensors", "bin") else set()
