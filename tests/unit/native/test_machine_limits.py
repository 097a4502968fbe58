"""The machine's limits: rates that agree with the clock, in every instruction set, and sizes that are refused."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import pytest

from openherd import _native
from openherd.kernels.machine_limits import MachineLimits

HUGE_PAGE = 2 << 20


def require_the_clocks_rate(measure: Callable[[], float], amount: float) -> None:
    """`measure` says how much of `amount` it does a second, which is the time that passes outside of it, too. On a busy
    machine something else may come in between, so one measurement of ten has to agree."""
    for _ in range(10):
        started = perf_counter()
        rate = measure()
        seconds = perf_counter() - started
        assert amount / rate <= seconds
        if amount / rate == pytest.approx(seconds, rel=0.2, abs=2e-3):
            return
    pytest.fail(f"{amount / rate} s by its rate, {seconds} s by the clock")


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_read_rate_is_bytes_over_the_time_that_passed(isa: str, streams: int, threads: int) -> None:
    pool = _native.ThreadPool(threads)
    buffer = _native.ReadBuffer(3 * HUGE_PAGE + 1, pool)
    assert buffer.nbytes == 4 * HUGE_PAGE
    require_the_clocks_rate(lambda: buffer.read_rate(pool, passes=20, streams=streams, isa=isa), 20 * buffer.nbytes)
    assert buffer.read_rate(pool, passes=20, streams=streams, isa=isa) > 1e8


@pytest.mark.parametrize("isa", _native.available_isas())
def test_the_multiply_rate_is_products_over_the_time_that_passed(isa: str) -> None:
    pool = _native.ThreadPool(1)
    amount = 25_000 * _native.products_per_round(isa)
    require_the_clocks_rate(lambda: _native.multiply_rate(pool, rounds=25_000, isa=isa), amount)


def test_no_loop_is_optimised_away() -> None:
    """A loop that the compiler had removed would take no time, whatever the number of rounds."""
    pool = _native.ThreadPool(1)
    for isa in _native.available_isas():
        rate = max(_native.multiply_rate(pool, rounds=12_500, isa=isa) for _ in range(3))
        # no core of today starts more than four 64-byte dot products a cycle, a matrix unit makes 1,024; at 6 GHz
        assert rate < (1024 if isa == "amx" else 4 * 64) * 6e9, isa


def test_vectors_multiply_faster_than_scalars() -> None:
    isas = _native.available_isas()
    pool = _native.ThreadPool(1)
    rates = {isa: max(_native.multiply_rate(pool, rounds=2_500, isa=isa) for _ in range(3)) for isa in isas}
    assert all(rates[isa] > 2 * rates["portable"] for isa in isas if isa != "portable"), rates


@pytest.mark.parametrize("threads", [(1,), (1, 2)])
def test_limits_of_each_number_of_threads(threads: tuple[int, ...]) -> None:
    limits = MachineLimits(8 << 20, threads)
    for count in threads:
        assert limits.read_rate(count) > 1e8
        assert limits.multiply_rate(count) > 1e8


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: _native.ReadBuffer(0, pool),
        lambda pool: _native.ReadBuffer(-1, pool),
        lambda pool: _native.ReadBuffer(1 << 62, pool),
        lambda pool: _native.multiply_rate(pool, rounds=0, isa="portable"),
        lambda pool: _native.multiply_rate(pool, rounds=1, isa="sse9"),
        lambda pool: _native.ReadBuffer(1, pool).read_rate(pool, passes=1, streams=3, isa="portable"),
        lambda pool: _native.ReadBuffer(1, pool).read_rate(pool, passes=0, streams=1, isa="portable"),
    ],
)
def test_sizes_outside_the_bounds_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"range|available|streams"):
        call(_native.ThreadPool(1))


def test_more_memory_than_there_is_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        _native.ReadBuffer(1 << 40, _native.ThreadPool(1))
