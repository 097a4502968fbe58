"""Which files of a repository make the model that was asked for.

A repository is chosen from by what its names say: one GGUF file by its quantisation or its name, with all its parts;
or the customary names of a safetensors model. Never code, never pickled weights where safetensors are. Names on this
machine are single plain names, so that no path of a stranger is ever followed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from openherd.errors import FormatError, ModelNotFoundError, UnsupportedError
from openherd.store.hub_answer import RemoteFile, Repository, printable
from openherd.store.progress import megabytes

SAFETENSORS, PICKLED = "safetensors", "bin"
MAX_FILES = 1000
MAX_NAME_BYTES = 200
_MAX_SHOWN = 24

_SETTINGS = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
    "chat_template.json",
}  # fmt: skip
_LEGAL = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY)([._-]\w+)*", re.IGNORECASE)
_WEIGHTS = {
    SAFETENSORS: re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"),
    PICKLED: re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin|pytorch_model\.bin\.index\.json"),
}
_WEIGHT_FILES = (".gguf", ".safetensors", ".bin")
_INDEX = {SAFETENSORS: "model.safetensors.index.json", PICKLED: "pytorch_model.bin.index.json"}
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.")
_QUANTISATION = re.compile(
    r"(?:^|[-._])(?P<type>(?:UD-)?(?:I?Q\d(?:_[0-9A-Z]{1,3}){0,3}|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F16|F32|FP16|FP32))$",
    re.IGNORECASE,
)
# GGUF files that are no language model: projectors of images, importance matrices, vocabularies for tests.
_OTHER_GGUF = re.compile(r"(^|[-._/])(mmproj|imatrix|ggml-vocab)|[-._](imatrix|vocab)\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model within a repository. `variant` is what selects it: a quantisation, a file's name, or a kind of weights.

    `main` is the file a GGUF model is opened by, and "" where the model is the folder.
    """

    variant: str
    main: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def local_name(path: str) -> str:
    """The plain name under which a repository's file is kept. Raises FormatError when it cannot be one."""
    name = path.rsplit("/", 1)[-1]
    sound = name.isprintable() and not name.startswith((".", "-")) and not set(name) & set('\\:*?"<>|')
    if not sound or not 0 < len(name.encode(errors="replace")) <= MAX_NAME_BYTES or name == "record.json":
        raise FormatError(f"the repository has a file whose name cannot be used here: {printable(path)!r}")
    return name


def quantisation(path: str) -> str | None:
    """The quantisation that a GGUF file's name ends with (`Q4_K_M`, `BF16`), in capitals; None: it says none."""
    stem = path.rsplit("/", 1)[-1].removesuffix(".gguf")
    part = _PART.fullmatch(stem)
    match = _QUANTISATION.search(part["stem"] if part else stem)
    return match["type"].upper() if match else None


def choose(repository: Repository, select: str | None) -> Choice:
    """The model that `select` means. Raises ModelNotFoundError listing what there is, UnsupportedError, FormatError."""
    gguf = _gguf_models(repository.files)
    choices = gguf + _folder_models(repository.files)
    # Unasked, pickled weights are taken only where there is nothing else: they come last.
    matching = _matching(choices, select) if select is not None else gguf or choices[:1]
    if len(matching) == 1:
        return _checked(repository, matching[0])
    raise _unclear(repository, choices, matching, select)


def _gguf_models(files: Iterable[RemoteFile]) -> list[Choice]:
    """Each GGUF model, the parts of one together; incomplete sets are left out."""
    sets: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in files:
        if not file.path.lower().endswith(".gguf") or _OTHER_GGUF.search(file.path):
            continue
        part = _PART.fullmatch(file.path[: -len(".gguf")])
        key = (part["stem"], int(part["parts"])) if part else (file.path, 1)
        sets.setdefault(key, {})[int(part["part"]) if part else 1] = file
    whole = [
        tuple(parts[number] for number in range(1, total + 1))
        for (_, total), parts in sets.items()
        if 0 < total <= MAX_FILES and sorted(parts) == list(range(1, total + 1))
    ]
    types = [quantisation(parts[0].path) for parts in whole]
    choices = []
    for parts, type_ in zip(whole, types, strict=True):
        is_alone = type_ is not None and types.count(type_) == 1
        variant = type_ if is_alone and type_ else parts[0].path
        choices.append(Choice(variant, parts[0].path.rsplit("/", 1)[-1], parts))
    return sorted(choices, key=lambda choice: choice.size)


def _folder_models(files: Iterable[RemoteFile]) -> list[Choice]:
    """The model at the repository's root in safetensors, and, behind it, pickled."""
    root = [file for file in files if "/" not in file.path]
    names = {file.path for file in root}
    choices = []
    for kind, pattern in _WEIGHTS.items():
        weights = [file for file in root if pattern.fullmatch(file.path)]
        if _INDEX[kind] in names:
            weights = [file for file in weights if _NUMBERED.search(file.path) or file.path == _INDEX[kind]]
        else:
            weights = [file for file in weights if not _NUMBERED.search(file.path)]
        if "config.json" in names and _parts_are_whole(weights):
            beside = [file for file in root if file.path in _SETTINGS or _LEGAL.fullmatch(file.path)]
            choices.append(Choice(kind, "", tuple(beside + weights)))
    return choices


def _parts_are_whole(weights: list[RemoteFile]) -> bool:
    numbers = [(int(m[1]), int(m[2])) for file in weights if (m := _NUMBERED.search(file.path))]
    if not numbers:
        return bool(weights) and not any(file.path in _INDEX.values() for file in weights)
    totals = {total for _, total in numbers}
    return len(totals) == 1 and sorted(number for number, _ in numbers) == list(range(1, totals.pop() + 1))


def _matching(choices: list[Choice], select: str) -> list[Choice]:
    """By the variant's own name, by any of its files, or by a quantisation that several files have."""
    wanted = select.casefold()

    def names(choice: Choice) -> set[str]:
        paths = {file.path.casefold() for file in choice.files} if choice.main else set()
        return {choice.variant.casefold(), *paths, *(path.rsplit("/", 1)[-1] for path in paths)}

    exact = [choice for choice in choices if any(file.path == select for file in choice.files) and choice.main]
    if exact:
        return exact
    by_name = [choice for choice in choices if wanted in names(choice)]
    return by_name or [
        choice
        for choice in choices
        if choice.main and (type_ := quantisation(choice.main)) and type_.removeprefix("UD-").casefold() == wanted
    ]


def _checked(repository: Repository, choice: Choice) -> Choice:
    """Refuse what could not be verified or kept before a byte of it is fetched."""
    for file in choice.files:
        if file.pinned is None:
            raise FormatError(
                f"the hub says no size or no checksum for {printable(file.path)} of {repository.name}",
                hint="what cannot be verified is not fetched; HF_ENDPOINT may name a mirror that leaves them out",
            )
        if not file.size and file.path.lower().endswith(_WEIGHT_FILES):
            raise FormatError(f"{printable(file.path)} of {repository.name} is empty: it holds no model")
    names = [local_name(file.path) for file in choice.files]
    if len({name.casefold() for name in names}) < len(names) or len(names) > MAX_FILES:
        raise FormatError(f"{repository.name} has two files of one name, or more than {MAX_FILES} in one model")
    return choice


def _unclear(
    repository: Repository, choices: list[Choice], matching: list[Choice], select: str | None
) -> ModelNotFoundError | UnsupportedError:
    if not choices:
        names = [file.path for file in repository.files if "/" not in file.path]
        if "adapter_config.json" in names:
            return UnsupportedError(
                f"{repository.name} holds an adapter, not a model",
                hint="fetch its base model; --adapter takes a folder",
            )
        return UnsupportedError(
            f"{repository.name} holds no model that openherd reads: no .gguf file, and no config.json with "
            "safetensors beside it"
        )
    shown = matching or choices
    listed = ", ".join(f"{printable(c.variant)} ({megabytes(c.size)})" for c in shown[:_MAX_SHOWN])
    more = f" and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
    hint = f"try: herd pull hf:{repository.name}:{printable(_suggested(shown, select).variant)}"
    if matching or select is None:
        return ModelNotFoundError(f"{repository.name} has {len(shown)} models: {listed}{more}", hint=hint)
    return ModelNotFoundError(f"{repository.name} has no {select!r}; it has: {listed}{more}", hint=hint)


def _suggested(choices: list[Choice], select: str | None) -> Choice:
    """The nearest spelling; else the customary compromise of size and quality, else the middle of what there is."""
    by_name = {choice.variant.casefold(): choice for choice in choices}
    near = difflib.get_close_matches((select or "").casefold(), by_name, n=1)
    for name in (*near, "q4_k_m", "q8_0"):
        if name in by_name:
            return by_name[name]
    return choices[len(choices) // 2]
