"""Garbage for the compiled core, for so many seconds: `python -m tests.fuzz.native_attacks SECONDS [SEED]`.

A program of its own, because what it looks for ends a process. Every call must return or raise ValueError, TypeError,
EngineError or MemoryError, and a sound step must give the same bits afterwards. The last line printed is the case at
hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from openherd import _native
from openherd.checkpoints.source import Adapter, LoraPair
from openherd.config import ModelConfig
from openherd.engine.model import forward
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import KVSpec, TapRows, TapSite, TokenBatch
from openherd.errors import EngineError
from openherd.kernels.native import NativeModel, ThreadPool
from openherd.kernels.recorder import record
from tests.fuzz.garbage import NUMBERS, spoilt
from tests.fuzz.mutations import seeds
from tests.parity.random_llama import float_source, float_tensor, random_weights
from tests.unit.native.native_models import LIMITS, NUM_BLOCKS, batch_of, loaded, plan_of

CONFIG = ModelConfig("llama", 64, 2, 4, 2, 16, 96, 101, 512)
WEIGHTS = float_source(random_weights(CONFIG, 1))
NAME = "model.layers.1.self_attn.q_proj.weight"
REFUSALS = (ValueError, TypeError, EngineError, MemoryError)
IDS = list(range(1, 40))


def a_backend(threads: int = 2) -> NativeBackend:
    backend = NativeBackend(threads)
    loaded(backend, CONFIG, WEIGHTS, KVSpec("f16"))
    return backend


def an_adapter(random: Random, rank: int = 4) -> Adapter:
    rows = np.random.default_rng(random.getrandbits(32)).standard_normal((rank, 64), np.float32)
    return Adapter(
        Path("adapter"), rank, 0.5, {NAME: LoraPair(float_tensor("a", rows), float_tensor("b", rows.T.copy()))}
    )


def a_batch(random: Random, num_adapters: int = 0) -> TokenBatch:
    """Two sequences, one of them begun earlier, with taps now and then."""
    start = random.choice((0, 1, 15, 16, 63))
    taps = (TapRows((1, "resid"), np.array([0, 5], np.int32)),) if random.random() < 0.3 else ()
    adapters = [random.randrange(-1, num_adapters) for _ in range(2)]
    return batch_of([(IDS, 0, [0, 1, 2]), ([5, 6], start, [3, 4, 5, 6, 7])], adapters=adapters, taps=taps)


def changed(data: Any, random: Random) -> Any:
    """The dataclass with one to three fields spoilt."""
    names = [field.name for field in dataclasses.fields(data)]
    for name in random.sample(names, random.randint(1, 3)):
        data = dataclasses.replace(data, **{name: spoilt(getattr(data, name), random)})
    return data


class Attacks:
    """What is done to one backend, one call or two at a time."""

    def __init__(self) -> None:
        self.backend = a_backend()
        self.adapters = self.backend.load_adapter(an_adapter(Random(0))) + 1
        self.expected = self.bits()

    def bits(self) -> bytes:
        return self.backend.logits(self.backend.forward(batch_of([(IDS, 0, [9, 8, 10])]))).tobytes()

    def forward(self, random: Random) -> None:
        batch = a_batch(random, self.adapters)
        if batch.taps and random.random() < 0.3:
            batch.taps[0].rows = spoilt(batch.taps[0].rows, random)
        else:
            batch = changed(batch, random)
        with contextlib.suppress(AttributeError, IndexError, KeyError):  # of Python code in front of the core
            step = self.backend.forward(batch)
            self.backend.hidden(step, random.choice((-1, 0, 1, 2**31 - 1)))

    def raw_forward(self, random: Random) -> None:
        """The same past the backend, whose Python code might stop what the core should."""
        batch = a_batch(random)
        arrays = [getattr(batch, field.name) for field in dataclasses.fields(batch)[:7]]
        arrays[4] = arrays[4][0]
        for at in random.sample(range(7), random.randint(1, 3)):
            arrays[at] = spoilt(arrays[at], random)
        model = self.backend._open().model._native
        model.forward(random.choice((0, 0, 0, 1, *NUMBERS)), *arrays, [])

    def sample(self, random: Random) -> None:
        step = self.backend.forward(a_batch(random))
        n, ints, floats = 5, np.arange(5, dtype=np.int32), np.ones(5, np.float32)
        plan = plan_of(
            n, CONFIG.vocab_size, temperature=floats * random.choice((0, 0.7, 1e-38)), num_top=ints, top_k=ints,
            top_p=floats * random.choice((1, 0.5, 0)), count_starts=ints.repeat(2)[:6] // 4, count_ids=ints[:1],
            counts=ints[:1], bias_starts=np.array([0, 1, 2, 3, 4, 5], np.int32), bias_ids=ints, bias_values=floats,
            mask_rows=ints // 4 - 1, masks=np.full((1, 4), 0xFFFFFFFF, np.uint32), dense_rows=ints // 2 - 1,
            dense=np.zeros((2, 101), np.float32),
        )  # fmt: skip
        self.backend.sample(step, changed(plan, random))

    def score(self, random: Random) -> None:
        step = self.backend.forward(a_batch(random))
        rows = np.arange(6, dtype=np.int32)
        self.backend.score(step, *random.choice(((spoilt(rows, random), rows), (rows, spoilt(rows, random)))))

    def blocks(self, random: Random) -> None:
        """Cache blocks of garbage are read back by attention; no number in them is an index."""
        blocks = np.array([0, 1, 2], np.int32)
        size = self.backend.read_blocks(0, blocks[:1]).shape[1]
        data = np.frombuffer(random.randbytes(3 * size), np.uint8).reshape(3, size)
        self.backend.write_blocks(0, blocks, data)
        step = self.backend.forward(batch_of([([1, 2], 46, [0, 1, 2])]))
        self.backend.sample(step, plan_of(2, CONFIG.vocab_size, num_top=np.full(2, 3, np.int32)))
        match random.randrange(4):
            case 0:
                self.backend.copy_blocks(0, spoilt(np.array([[0, 1], [2, 2]], np.int32), random))
            case 1:
                self.backend.read_blocks(random.choice((0, 0, 0, 1)), spoilt(blocks, random))
            case 2:
                self.backend.write_blocks(0, spoilt(blocks, random), data)
            case _:
                self.backend.write_blocks(0, blocks, spoilt(data, random))

    def stale(self, random: Random) -> None:
        old = self.backend.forward(a_batch(random))
        self.backend.forward(a_batch(random))
        rows = np.zeros(1, np.int32)
        for use in (
            self.backend.logits,
            lambda s: self.backend.score(s, rows, rows),
            lambda s: self.backend.hidden(s, 0),
        ):
            try:
                use(old)
            except EngineError:
                continue
            raise AssertionError("a step that is gone was used")


def a_model(**spoil: Any) -> NativeModel:
    from openherd.kernels.native import Sizes

    sizes = Sizes(LIMITS.max_context, LIMITS.max_seqs, 256, 3, NUM_BLOCKS, kv_half=True)
    return NativeModel(spoil.get("pool", ThreadPool(2)), "portable", CONFIG, sizes)


def programs(random: Random) -> None:
    """Recorded programs with spoilt buffers and operations; what is accepted must also run."""
    model = a_model()
    model.add_tensors(WEIGHTS.values())
    taps: tuple[TapSite, ...] = ((1, "resid"),)
    program = record(
        forward, CONFIG, width_of=lambda n: WEIGHTS[f"{n}.weight"].shape[0], form_of=lambda n: "f32", taps=taps
    )
    buffers: Any = [(b.width, b.rows == "R", "f32" in b.forms, "q8" in b.forms) for b in program.buffers]
    operations: Any = [model._operation(op) for op in program.operations]
    batch = a_batch(random)
    arrays = [getattr(batch, field.name) for field in dataclasses.fields(batch)[:7]]
    arrays[4], arrays[6] = arrays[4][0], np.array([40, 1], np.int32)
    for _ in range(20):
        spoilt_buffers, spoilt_operations, output = buffers, operations, program.output
        match random.randrange(5):
            case 0:
                spoilt_buffers = spoilt(buffers, random)
            case 1:
                output = random.choice(NUMBERS)
            case _:
                spoilt_operations = spoilt(operations, random)
        with contextlib.suppress(*REFUSALS):
            number = model._native.add_program(spoilt_buffers, spoilt_operations, output)
            model._native.forward(number, *arrays, [np.array([0, 40], np.int32)] * random.randrange(3))
            model.logits()


def models(random: Random) -> None:
    """Sizes of every magnitude; memory that is given is not touched."""
    arguments: list[Any] = [
        ThreadPool(1), "portable", (2, 4, 2, 16, 16, 101, 1e-5), (64, 2, 16, 4), True, 8, np.ones(8), 1.0,
    ]  # fmt: skip
    for _ in range(random.randint(1, 2)):
        at = random.randrange(len(arguments))
        arguments[at] = spoilt(arguments[at], random)
    if isinstance(arguments[2], tuple) and len(arguments[2]) == 7 and arguments[2][5] == 2**24:
        return  # a sampler of so many tokens is sound, and slow to make
    _native.Model(*arguments)


def weights(random: Random) -> None:
    model = a_model()._native
    rows = np.frombuffer(random.randbytes(20 * 68), np.uint8).reshape(20, 68)
    tensor: Any = (8, rows, 64)
    model.add_matrices([(tensor, False)])
    pair = (0, (8, rows[:4], 64), (0, np.zeros((20, 16), np.uint8), 4))
    model.add_adapter(1.0, [pair])
    type_id, data, cols = random.randrange(45), spoilt(rows, random), random.choice((64, *NUMBERS))
    x = np.ones((3, 64), np.float32)
    weight = _native.PackedWeight(8, rows, 64)
    actions: list[Callable[[], object]] = [
        lambda: model.add_matrices([(spoilt(tensor, random), False)]),
        lambda: model.add_vector(spoilt(np.ones(8, np.float32), random)),
        lambda: model.add_adapter(0.5, [spoilt(pair, random)]),
        lambda: _native.PackedWeight(type_id, rows, cols),
        lambda: _native.PackedWeight(8, data, 64),
        lambda: _native.packed_bytes(type_id, random.choice(NUMBERS), random.choice(NUMBERS)),
        lambda: _native.kv_block_bytes(random.choice(NUMBERS), 2, random.choice(NUMBERS), False),
        lambda: _native.cut_records_bytes(*random.choices(NUMBERS, k=5)),
        lambda: weight.linear(spoilt(x, random), tiles_at_once=random.choice(NUMBERS)),
        lambda: weight.linear(x, bias=spoilt(np.ones(20, np.float32), random), residual=np.ones((3, 20), np.float32)),
        lambda: weight.dequantize_rows(random.choice(NUMBERS), random.choice(NUMBERS)),
        lambda: _native.quantize_activations(spoilt(x, random)),
        lambda: _native.Model.__new__(_native.Model).logits(),
    ]
    for action in actions:
        with contextlib.suppress(*REFUSALS):
            action()


def threads(random: Random) -> None:
    """Several Python threads on one backend, against its rules, and one that closes it."""
    backend = a_backend()
    errors: list[BaseException] = []

    def work(mine: Random) -> None:
        for _ in range(30):
            try:
                step = backend.forward(a_batch(mine))
                match mine.randrange(6):
                    case 0:
                        backend.load_adapter(an_adapter(mine))
                    case 1:
                        backend.sample(step, plan_of(3, CONFIG.vocab_size, num_top=np.full(3, 9, np.int32)))
                    case 2:
                        backend.hidden(step, 0)
                    case 3:
                        backend._open().model.add_tensors([WEIGHTS["model.norm.weight"]])
                    case 4:
                        backend.score(step, *np.zeros((2, 9), np.int32))
                    case _:
                        backend.logits(step)
            except (*REFUSALS, IndexError):
                continue
            except BaseException as error:
                errors.append(error)

    workers = [threading.Thread(target=work, args=(Random(random.getrandbits(32)),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    if random.random() < 0.5:
        workers[0].join(random.random() / 20)
        backend.close()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def closed(random: Random) -> None:
    backend = a_backend()
    step, plan, rows = backend.forward(a_batch(random)), plan_of(1, 101), np.zeros(1, np.int32)
    backend.close()
    backend.close()
    calls: list[Callable[[], object]] = [
        lambda: backend.forward(a_batch(random)),
        lambda: backend.sample(step, plan),
        lambda: backend.score(step, rows, rows),
        lambda: backend.logits(step),
        lambda: backend.hidden(step, 0),
        lambda: backend.copy_blocks(0, np.zeros((1, 2), np.int32)),
        lambda: backend.read_blocks(0, rows),
        lambda: backend.write_blocks(0, rows, np.zeros((1, 1), np.uint8)),
        lambda: backend.load_adapter(an_adapter(random)),
        lambda: loaded(backend, CONFIG, WEIGHTS),
    ]
    for call in calls:
        try:
            call()
        except EngineError:
            continue
        raise AssertionError("a closed backend answered")


def main(seconds: float, first: int = 0) -> None:
    faulthandler.enable()
    attacks = Attacks()
    often = [attacks.forward, attacks.raw_forward, attacks.sample, attacks.score, attacks.blocks, attacks.stale, models]
    rarely = [programs, weights, threads, closed]
    for seed in seeds(seconds, at_least=200):
        random = Random(first + seed)
        attack = random.choice(rarely) if random.random() < 0.1 else random.choice(often)
        print(f"seed {first + seed}: {attack.__name__}", flush=True)
        with contextlib.suppress(*REFUSALS):
            attack(random)
        if seed % 50 == 0:
            assert attacks.bits() == attacks.expected, "a sound step gives other bits"


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
