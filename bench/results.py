"""Measures speed, size (P1-P10) and the server, keeps each occasion, and writes bench/RESULTS.md from all of them.

    python -m bench.results measure [--only STAGE ...] [--large] [--wikitext FILE] [--repetitions N]
    python -m bench.results write

`measure` runs the stages below, each a command of its own, and saves what they printed under bench/results/ with time
and commit; `write` makes RESULTS.md from every occasion that is there. `make bench` does both. Nothing in that page
is typed by hand. A stage that fails is kept with its error, and its bars count as not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.bars import BARS, Bar
from bench.peers import PEERS_HOME, ROOT, say
from openherd.kernels.cores import usable_cores
from openherd.store.resolve import resolve

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "bench" / "RESULTS.md"
LLAMA_CPP = PEERS_HOME / "llama.cpp" / "bin" / "python"
AVX2_LLAMA_CPP = PEERS_HOME / "llama.cpp-avx2" / "bin" / "python"
Stage = Callable[[argparse.Namespace, Path], dict[str, Any]]


def peers(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The default file with every program: decode and prefill."""
    return _peers(options, out, ("decode", "prefill_512"), [])


def long(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Decoding behind 4096 tokens, whose prompt takes llama.cpp long: three rounds."""
    options = argparse.Namespace(**vars(options) | {"repetitions": min(3, options.repetitions)})
    return _peers(options, out, ("decode", "decode_at_4096"), _without("ik_llama.cpp", "openvino", "transformers"))


def batch(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Sequences together, on the default model as Q4_0."""
    model = PEERS_HOME / "default-q4_0.gguf"
    if not model.exists():
        _run([LLAMA_CPP, "bench/peer_workers/make_q4_0.py", resolve(None), model])
    only = ("decode_batch_4", "decode_batch_16", "decode_batch_32")
    return _peers(options, out, only, ["--model", model, *_without("ik_llama.cpp", "openvino", "transformers")])


def avx2(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Both programs without AVX-512."""
    python = f"llama.cpp={AVX2_LLAMA_CPP}"
    arguments = ["--python", python, *_without("ik_llama.cpp", "openvino", "transformers")]
    return _peers(options, out, ("decode", "prefill_512"), arguments, {"OPENHERD_ISA": "avx2"})


def large_q4_0(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Random weights of Llama-3.2-1B's dimensions."""
    return _large(options, out, "Q4_0")


def large_q4_k(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The same in Q4_K."""
    return _large(options, out, "Q4_K")


def herd_bench(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """This program's own figures beside the machine's limits."""
    return _json([sys.executable, "-m", "openherd", "bench", "--json", "--repetitions", options.repetitions])


def quality(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """KL to float32 beside llama.cpp's."""
    if options.wikitext is None:
        raise RuntimeError("needs --wikitext FILE, WikiText-2's raw test text")
    packages = next(LLAMA_CPP.parent.parent.glob("lib/python*/site-packages"))
    command = [sys.executable, "-m", "bench.kl", resolve(None), options.wikitext, "--llama-cpp"]
    return _json(command, {"BENCH_PACKAGES": str(packages)})


def size(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """An installation without extras in an environment of its own, compiled caches included."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        _run([sys.executable, "-m", "venv", "--without-pip", folder])
        _run([sys.executable, "-m", "pip", "--python", python, "install", "-q", ROOT])
        _run([python, "-m", "compileall", "-q", Path(folder) / "lib"], check=False)
        sizes = [path.lstat().st_size for path in Path(folder).rglob("*") if not path.is_dir()]
        return {"installed_bytes": sum(sizes), "files": len(sizes)}


def llama_bench(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """llama.cpp's own bench on the default file: that the loop of `peers` takes nothing from it."""
    program = PEERS_HOME / "llama-bench" / "build" / "bin" / "llama-bench"
    threads, repetitions = usable_cores(), options.repetitions
    command = [program, "-m", resolve(None), "-p", 512, "-n", 128, "-t", threads, "-r", repetitions, "-o", "json"]
    return {"tg" if run["n_gen"] else "pp": run["avg_ts"] for run in json.loads(_run(command))}


def server(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The same load on herd serve and on llama.cpp's server: two rounds."""
    _run([sys.executable, "-m", "bench.server_peers", "--json", out, "--log", out.with_suffix(".log")])
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def speculation(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Prompt lookup on and off, on the committed prompts."""
    return _json([sys.executable, "-m", "bench.speculation", "--json"])


STAGES: dict[str, Stage] = {
    "bench": herd_bench,
    "peers": peers,
    "long": long,
    "llama_bench": llama_bench,
    "batch": batch,
    "avx2": avx2,
    "quality": quality,
    "size": size,
    "speculation": speculation,
    "server": server,
    "large_q4_0": large_q4_0,
    "large_q4_k": large_q4_k,
}


def _large(options: argparse.Namespace, out: Path, type_name: str) -> dict[str, Any]:
    """Three rounds: a peer takes half a minute for a prompt of 512."""
    options = argparse.Namespace(**vars(options) | {"repetitions": min(3, options.repetitions)})
    model = PEERS_HOME / f"random-1b-{type_name.lower()}.gguf"
    if not model.exists():
        _run([sys.executable, "-m", "bench.random_model", model, "--type", type_name])
    return _peers(options, out, ("decode", "prefill_512"), ["--model", model, *_without("transformers")])


def _without(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--python", f"{name}=")]


def _peers(
    options: argparse.Namespace,
    out: Path,
    works: tuple[str, ...],
    arguments: list[Any],
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    only = [argument for work in works for argument in ("--only", work)]
    files = ["--json", out, "--log", out.with_suffix(".log")]
    repetitions = ["--repetitions", options.repetitions]
    _run([sys.executable, "-m", "bench.peers", *only, *arguments, *repetitions, *files], environment)
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def _json(command: list[Any], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The document it prints; exit status 1 may only mean that a bar was missed."""
    document: dict[str, Any] = json.loads(_run(command, environment, check=False))
    if "error" in document:
        raise RuntimeError(document["error"]["message"])
    return document


def _run(command: list[Any], environment: dict[str, str] | None = None, *, check: bool = True) -> str:
    """Its standard output; what it says on standard error is shown as it comes."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True)
    if check and done.returncode != 0:
        # kept in a file that is published: no folder of this machine
        name = words[2] if words[1] == "-m" and words[0] == sys.executable else Path(words[0]).name
        raise RuntimeError(f"{name} ended with status {done.returncode}")
    return done.stdout


def measure(options: argparse.Namespace) -> Path:
    """Run the stages; returns the occasion's file."""
    now = datetime.now(UTC)
    stages = options.only or [name for name in STAGES if options.large or not name.startswith("large")]
    occasion: dict[str, Any] = {
        "time": now.strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _run(["git", "rev-parse", "--short", "HEAD"]).strip(),
        "stages": {},
    }
    for name in stages:
        say(f"== {name}: {(STAGES[name].__doc__ or '').splitlines()[0]}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                occasion["stages"][name] = STAGES[name](options, Path(folder) / "out.json")
            except (RuntimeError, OSError, ValueError, StopIteration) as why:
                say(f"{name} failed: {why}")
                occasion["stages"][name] = {"failed": str(why)}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%dT%H%M}.json"
    path.write_text(json.dumps(occasion, indent=1) + "\n")
    say(f"wrote {path.relative_to(ROOT)}")
    return path


def write() -> None:
    """RESULTS.md from every occasion, newest first."""
    occasions = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"), reverse=True)]
    lines = [_HEAD]
    lines += ["| bar | what | wanted |" + "".join(f" {o['time']} |" for o in occasions)]
    lines += ["|---|---|---|" + "---|" * len(occasions)]
    for bar in BARS:
        lines.append(f"| {bar.id} | {bar.what} | {bar.wanted} |" + "".join(f" {_cell(bar, o)} |" for o in occasions))
    for occasion in occasions:
        lines += ["", *_details(occasion)]
    PAGE.write_text("\n".join(lines) + "\n")
    say(f"wrote {PAGE.relative_to(ROOT)}")


def _cell(bar: Bar, occasion: dict[str, Any]) -> str:
    """The figure and whether it holds; a dash where the stage was not run, did not finish, or left it out."""
    try:
        figure, holds = bar.judge(occasion["stages"])
    except (KeyError, StopIteration, ValueError):
        return "-"
    return f"{figure} {'yes' if holds else '**no**'}"


def _details(occasion: dict[str, Any]) -> list[str]:
    from bench import server_peers
    from bench.peers import table

    lines = [f"## {occasion['time']}, commit {occasion['commit']}"]
    for name, stage in occasion["stages"].items():
        if "failed" in stage:
            lines += ["", f"{name}: failed, {stage['failed']}"]
        elif "works" in stage:
            machine = stage["machine"]
            what = f"{stage['model']}, {machine['cpu']}, {machine['threads']} threads, {machine['isa']}"
            lines += ["", f"`{name}`: {what}. " + "; ".join(f"{k}: {v}" for k, v in stage["versions"].items()) + "."]
            lines += ["", "```text", *table(stage), "```"]
        elif "loads" in stage:
            machine = stage["machine"]
            what = f"{stage['model']}, {machine['cpu']}, {machine['threads']} threads, {machine['isa']}"
            what += f"; prompts of {stage['prompt_words']} words, answers of {stage['answer_tokens']} tokens"
            lines += ["", f"`{name}`: {what}. " + "; ".join(f"{k}: {v}" for k, v in stage["versions"].items()) + "."]
            lines += ["", "```text", *server_peers.table(stage), "```"]
        elif "measurements" in stage:
            rows = [
                f"{m['name']:<22} {m['value']:>10,.3f} {m['unit']:<6}"
                + ("" if m["of_limit"] is None else f" {100 * m['of_limit']:>4.0f} % of {m['limit']:,.3f}")
                for m in stage["measurements"]
            ]
            lines += ["", f"`herd bench`: {stage['model']['name']}, {stage['model']['numerics_id']}."]
            lines += ["", "```text", *rows, "```", *(f"Warned: {warning}." for warning in stage["warnings"])]
        elif name == "size":
            lines += ["", f"Installed without extras: {stage['installed_bytes'] / 1e6:.1f} MB, {stage['files']} files."]
        elif name == "llama_bench":
            lines += ["", f"llama-bench: prefill 512 {stage['pp']:,.1f} tok/s, decode {stage['tg']:,.1f} tok/s."]
        elif name == "quality":
            lines += ["", "```json", json.dumps(stage), "```"]
        elif name == "speculation":
            lines += ["", f"Speculation, medians: {stage['median_ratio']}; bits equal: {stage['equal']}."]
    return lines


_HEAD = """# Measured

Made by `make bench` (`python -m bench.results write`); do not edit. Each column is an occasion; below the table is what
it measured, with machine and versions. Ratios are openherd / peer, taken round by round on the same machine: their
median, in brackets the least and the greatest. A dash: not measured on that occasion. To reproduce:
`make bench WIKITEXT=FILE LARGE=1`, or one stage by `python -m bench.results measure --only STAGE`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("write", help="RESULTS.md from what is kept")
    run = verbs.add_parser("measure", help="run the stages and keep what they say")
    run.add_argument("--only", action="append", choices=STAGES, help="a stage, several times if wanted")
    run.add_argument("--large", action="store_true", help="the models of Llama-3.2-1B's dimensions too")
    run.add_argument("--wikitext", type=Path, help="WikiText-2's raw test text, for the quality stage")
    run.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if options.verb == "measure":
        measure(options)
    write()


if __name__ == "__main__":
    main()
