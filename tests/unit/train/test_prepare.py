"""Data files to token folders: what is kept, what is refused, and that a folder is there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from openherd.errors import FormatError, InputError, OutputError
from openherd.tokenizers.spec import Strip, TokenizerSpec
from openherd.train.prepare import WeightedPath, prepare, tokenizer_sha256
from openherd.train.rows import RowError
from openherd.train.sources import read_values
from openherd.train.token_file import MANIFEST, TOKENS, open_tokens
from tests.small_disk import small_disk
from tests.unit.tokenizers.small_vocabularies import bpe_spec
from tests.unit.train.chat_model import template, tokenizer


class Fake:
    """A tokenizer of a spec that need not make sense."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec


def write(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_documents_masks_and_manifest(tmp_path: Path) -> None:
    chats = write(tmp_path, "chats.jsonl", {"instruction": "q", "output": "a"}, "", {"instruction": "r", "output": "b"})
    (tmp_path / "book.md").write_text("hello wor")
    report = prepare(
        [WeightedPath(chats, 2.0), WeightedPath(tmp_path / "book.md")], tmp_path / "out", tokenizer(), template()
    )
    folder = open_tokens(tmp_path / "out", verify=True)
    assert [(s.rows, s.documents, s.weight, s.first) for s in folder.manifest.sources] == [
        (2, 2, 2.0, 0),
        (1, 1, 1.0, 2),
    ]
    assert len(folder) == 3
    assert sum(len(folder[i].ids) for i in range(3)) == folder.manifest.tokens == len(folder.tokens)
    assert folder.manifest.learnt == int(folder.mask.sum()) == report.folder.manifest.learnt
    assert tokenizer().decode(folder[2].ids.tolist(), skip_special=False) == "hello wor<|end|>"


def test_equal_data_has_an_equal_fingerprint_and_another_weight_another(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"}, {"text": "wor"})
    prints = [
        prepare([WeightedPath(data, weight)], tmp_path / name, tokenizer(), None).folder.fingerprint
        for name, weight in (("a", 1.0), ("b", 1.0), ("c", 2.0))
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("name", [field.name for field in fields(TokenizerSpec)])
def test_every_field_of_a_tokenizer_is_in_its_hash(name: str) -> None:
    """Whatever kind of sequence holds it."""
    spec = bpe_spec()
    was = getattr(spec, name)
    other = {
        "token_types": [*list(was)[:-1], 5] if name == "token_types" else None,
        "scores": [0.5],
        "normalizer": "NFC",
        "prefix_rule": "metaspace",
        "strips": {3: Strip(left=True)},
        "stop_ids": frozenset({7}),
        "kind": "spm",
        "pre": "llama-bpe",
    }.get(name)
    if other is None:
        other = not was if isinstance(was, bool) else [*was, "x y"] if isinstance(was, list | tuple) else 9
    assert tokenizer_sha256(Fake(replace(spec, **{name: other}))) != tokenizer_sha256(Fake(spec))


def test_a_tokenizers_hash_is_of_values_not_of_their_containers() -> None:
    spec = bpe_spec()
    same = replace(spec, tokens=tuple(spec.tokens), token_types=bytes(spec.token_types), merges=list(spec.merges))
    assert tokenizer_sha256(Fake(same)) == tokenizer_sha256(Fake(spec))


def test_the_folders_name_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        "openherd.train.token_file.sync_folder", lambda folder: synced.append((folder, (tmp_path / "out").exists()))
    )
    prepare([WeightedPath(write(tmp_path, "d.jsonl", {"text": "hello"}))], tmp_path / "out", tokenizer(), None)
    assert synced == [(tmp_path, True)]


def test_a_bad_row_ends_the_work_and_leaves_nothing(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"}, {"txt": "x"})
    with pytest.raises(RowError, match=r"d\.jsonl:2: a row needs"):
        prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None)
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


def test_bad_rows_may_be_left_out_and_are_named(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"}, "{", {"txt": "x"}, {"text": "wor", "id": 1})
    report = prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None, skip_bad_rows=True)
    assert (report.folder.manifest.documents, report.left_out.refused) == (2, 2)
    assert [row.split(": ")[0].rpartition(":")[2] for row in report.left_out.refused_rows] == ["2", "3"]
    assert report.left_out.unused == {"id": 1}


def test_long_documents_may_be_left_out(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "a"}, {"text": "abcdefghij"})
    report = prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None, max_tokens=5)
    assert (report.folder.manifest.documents, report.left_out.too_long) == (1, 1)


def test_other_peoples_keys(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"question": "q", "answer": "a"})
    renames = {"question": "instruction", "answer": "output"}
    report = prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), template(), renames=renames)
    assert report.folder.manifest.documents == 1


def test_preferences_come_in_pairs_and_do_not_mix(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    report = prepare([WeightedPath(write(tmp_path, "p.jsonl", pair, pair))], tmp_path / "out", tokenizer(), template())
    assert (report.folder.manifest.kind, len(report.folder)) == ("preferences", 4)
    mixed = write(tmp_path, "m.jsonl", pair, {"text": "x"})
    with pytest.raises(RowError, match=r"m\.jsonl:2: preferences and other rows cannot be mixed"):
        prepare([WeightedPath(mixed)], tmp_path / "other", tokenizer(), template())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", b"a,b", "should end in"),
        ("d.json", b"{}", "must hold a list of rows"),
        ("d.json", b"[", "not JSON"),
        ("d.txt", b"\xff\xfe", "not UTF-8 text: byte 0"),
        ("d.parquet", b"PAR1....", "not usable parquet"),
        ("d.jsonl", b"\n\n", "no row to learn from"),
        ("d.jsonl", b"[" * 100_000, "not JSON"),
    ],
)
def test_files_that_are_no_data(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        prepare([WeightedPath(tmp_path / name)], tmp_path / "out", tokenizer(), None)
    assert not (tmp_path / "out").exists()


def test_pipes_and_devices_are_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    (tmp_path / "z.txt").symlink_to("/dev/zero")
    for name in ("p.jsonl", "z.txt"):
        with pytest.raises(InputError, match="is not a regular file"):
            prepare([WeightedPath(tmp_path / name)], tmp_path / "out", tokenizer(), None)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["hello", "wor"], "id": [1, None]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    assert [value for _, value in read_values(tmp_path / "d.parquet")] == [{"text": "hello", "id": 1}, {"text": "wor"}]


def test_prepared_data_is_never_overwritten(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"})
    prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None)
    with pytest.raises(InputError, match="exists already"):
        prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello " * 50_000})
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "256k") as disk:
        with pytest.raises(OutputError, match=f"the disk is full: {disk}/out could not be written"):
            prepare([WeightedPath(data)], disk / "out", tokenizer(), None)
        assert list(disk.iterdir()) == []


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"}, {"text": "wor"})
    good = prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None).folder
    assert len(open_tokens(good.path, verify=True)) == 2

    tokens = np.array(good.tokens)
    tokens[0] ^= 1
    (good.path / TOKENS).write_bytes(tokens.tobytes())
    open_tokens(good.path)
    with pytest.raises(FormatError, match="has changed since it was prepared"):
        open_tokens(good.path, verify=True)
    tokens[0] = tokenizer().vocab_size
    (good.path / TOKENS).write_bytes(tokens.tobytes())
    with pytest.raises(FormatError, match="outside the vocabulary"):
        open_tokens(good.path)
    (good.path / TOKENS).write_bytes(tokens.tobytes()[:-4])
    with pytest.raises(FormatError, match="do not fit its manifest"):
        open_tokens(good.path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("kind"),
        lambda m: m.update(version=2),
        lambda m: m.update(documents=-1),
        lambda m: m.update(extra=1),
        lambda m: m["sources"][0].update(first=1),
        lambda m: m["sources"][0].update(weight=float("inf")),
        lambda m: m["files"].pop(TOKENS),
        lambda m: m.update(sources=[[]]),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, damage: object) -> None:
    data = write(tmp_path, "d.jsonl", {"text": "hello"})
    path = prepare([WeightedPath(data)], tmp_path / "out", tokenizer(), None).folder.path / MANIFEST
    manifest = json.loads(path.read_text())
    damage(manifest)  # type: ignore[operator]
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="no manifest of prepared data"):
        open_tokens(path.parent)
