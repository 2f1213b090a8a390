"""An image whose only program does nothing, for containers that are kept for their network.

It is made here, from a few machine instructions, so that it has not to be fetched: a runner without
a registry in reach has prepared network name spaces, too. The program is a static executable of one
segment (ELF-64, System V ABI) that sleeps in the kernel for ever. The kernel ignores the signals
that would end it, for it is the first process of its container, except for the engine's SIGKILL.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping

import msgspec

NAME = "hostler-pause:1"
"""The image's; another program needs another tag."""
COMMAND = "/pause"

_X86_64 = struct.pack(
    "<B I 2B 2B",
    *(0xB8, 34),  # mov eax, 34 (pause)
    *(0x0F, 0x05),  # syscall
    *(0xEB, 0xF7),  # jmp to the first
)
_AARCH64 = struct.pack(
    "<7I",
    0xD2800000,  # mov x0, 0
    0xD2800001,  # mov x1, 0
    0xD2800002,  # mov x2, 0
    0xD2800003,  # mov x3, 0
    0xD2800928,  # mov x8, 73 (ppoll: of no files, without a limit)
    0xD4000001,  # svc 0
    0x17FFFFFA,  # b to the first
)
_CODE = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""The machine's number in ELF, and the program, by the engine's name of its architecture."""

_ARCHITECTURES = {62: "amd64", 183: "arm64"}
"""As an image names it, by the machine's number."""
_MACHINE_AT = 18

_ADDRESS = 0x400000
_PAGE = 0x10000
"""Bytes; the largest page of a kernel for either."""
_HEADER = struct.Struct("<16s 2H I 3Q I 6H")
_SEGMENT = struct.Struct("<2I 6Q")
_READ_AND_EXECUTE = 5


def pause_program(architecture: str) -> bytes | None:
    """The executable for ``architecture`` as ``docker info`` names it; ``None`` = there is none."""
    if architecture not in _CODE:
        return None
    machine, code = _CODE[architecture]
    start = _HEADER.size + _SEGMENT.size
    size = start + len(code)
    header = _HEADER.pack(
        b"\x7fELF" + bytes((2, 1, 1)),  # 64 bits, little-endian, version 1
        *(2, machine, 1),  # an executable
        *(_ADDRESS + start, _HEADER.size, 0, 0),  # entry, where the segment is told, no sections
        *(_HEADER.size, _SEGMENT.size, 1, 0, 0, 0),
    )
    segment = _SEGMENT.pack(1, _READ_AND_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
    return header + segment + code


def pause_files(program: bytes) -> bytes:
    """The image's file system, a tar archive with ``program`` in it."""
    return _archive({COMMAND.lstrip("/"): program}, mode=0o755)


def pause_image(name: str, program: bytes) -> bytes:
    """The image, as ``docker save`` has it. It is known by what is in it, so whoever makes it with
    the same ``program`` makes the same one: there is no time of today in it."""
    layer = pause_files(program)
    (machine,) = struct.unpack_from("<H", program, _MACHINE_AT)
    config = msgspec.json.encode(
        {
            "architecture": _ARCHITECTURES[machine],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": [COMMAND]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        }
    )
    files = {f"{_digest(config)}.json": config, f"{_digest(layer)}/layer.tar": layer}
    configs, layers = files
    manifest = [{"Config": configs, "RepoTags": [name], "Layers": [layers]}]
    return _archive({**files, "manifest.json": msgspec.json.encode(manifest)}, mode=0o644)


def _archive(files: Mapping[str, bytes], *, mode: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
