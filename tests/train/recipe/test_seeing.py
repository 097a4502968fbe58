"""What a person sees of a run: the progress line, the log, the curve and the report."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from openherd.train.loss_plot import loss_svg, moving_average, nice_ticks, thinned
from openherd.train.progress import ProgressLine, duration
from openherd.train.report import LOSS_FILE, REPORT_FILE, write_report
from openherd.train.run_log import LOG_FILE, RunLog, read_log

HOSTILE = "</pre><script>alert(1)</script>\x1b[31m <img src=http://x/y> &amp;"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_has_loss_speed_share_of_peak_memory_and_time_left() -> None:
    stream = Terminal()
    line = ProgressLine(100, flops_per_token=1e6, peak_flops=1e9, memory=lambda: 400_000_000, stream=stream)
    line.step(10, {"loss": 2.5, "seconds": 2.0, "tokens": 1000})
    shown = stream.getvalue()
    for part in ("step 10/100", "loss 2.500", "500 tokens/s", "50 % of peak", "0.4 GB", "3 min left"):
        assert part in shown
    line.say("a word")
    line.close()
    assert stream.getvalue().count("\n") == 2


def test_elsewhere_it_comes_seldom_and_always_at_the_end() -> None:
    stream = io.StringIO()
    line = ProgressLine(50, stream=stream)
    for step in range(1, 51):
        line.step(step, {"loss": math.nan, "seconds": 0.0})
    assert [text.split()[2] for text in stream.getvalue().splitlines()] == ["1/50", "50/50"]
    assert "peak" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2 h 0 min"), (86400 * 3 + 3600, "3 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_log_is_json_lines_that_survive_a_cut(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log:
        log.step(1, {"loss": math.inf, "tokens": 3})
        log.event("skip", 1, reason="the loss is inf")
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 2, "lo')
    step, skip = read_log(tmp_path)
    assert (step["loss"], step["tokens"]) == (None, 3)
    assert (skip["event"], skip["reason"]) == ("skip", "the loss is inf")
    with RunLog(None) as nobody:
        nobody.step(1, {"loss": 1.0})


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path) as log:
        log.step(7, {"loss": 1.5})
        log.event("evaluation", 7, loss=1.25)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(7, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("evaluation/loss")] == [(7, 1.25)]


def test_ticks_are_round_and_within() -> None:
    assert nice_ticks(0, 2000) == [0, 500, 1000, 1500, 2000]
    assert nice_ticks(1.43, 4.9) == [2, 3, 4]
    assert nice_ticks(0.0012, 0.0031, 4) == pytest.approx([0.0015, 0.002, 0.0025, 0.003])


def test_curves_keep_their_extremes_when_thinned() -> None:
    points = [(float(n), 100.0 if n == 4321 else math.sin(n)) for n in range(10_000)]
    few = thinned(points)
    assert len(few) < 1000
    assert (4321.0, 100.0) in few
    assert few == sorted(few)
    assert moving_average([(0, 0.0), (1, 3.0), (2, 6.0)], 2) == [(0, 0.0), (1, 3.0), (2, 6.0)]
    assert moving_average([(0, 0.0), (1, 0.0), (2, 6.0)], 3)[1] == (1, 2.0)


def test_the_picture_is_sound_and_inside_its_frame() -> None:
    svg = loss_svg([(n, 5 / (n + 1)) for n in range(300)], [(100, 1.0), (200, math.nan), (299, 0.5)])
    root = ET.fromstring(svg)
    _, _, width, height = (float(x) for x in root.attrib["viewBox"].split())
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path.attrib["d"]):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    assert "prefers-color-scheme: dark" in svg
    assert "nan" not in svg
    for few in ([], [(1.0, 2.0)], [(1.0, math.inf)]):
        ET.fromstring(loss_svg(few))


def test_the_report_escapes_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 40):
            log.step(step, {"loss": 3.0 / step, "tokens": 100, "seconds": 0.5})
        log.step(39, {"loss": 0.25, "tokens": 100, "seconds": 0.5})  # again, as after a kill
        log.event("evaluation", 39, loss=0.125, bits_per_byte=1.5)
        log.event("sample", 39, prompt=HOSTILE, text=HOSTILE)
        log.event("skip", 20, reason=HOSTILE)
    write_report(tmp_path, f'out = "{HOSTILE}"')
    page = (tmp_path / REPORT_FILE).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") == 4
    assert not re.search(r"(?:src|href)\s*=", page.replace("src=http://x/y", ""))
    for figure in ("0.1250, best 0.1250 at step 39", "1.5000", "3,900", "20 s", "<td>200</td>"):
        assert figure in page
    assert (tmp_path / LOSS_FILE).read_text() in page
