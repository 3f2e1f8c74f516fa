"""Marks that a machine reads: IPTC's digital source type (EU AI Act, Art. 50(2)) and the field AIGC (GB 45438-2025)."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maquette import files
from maquette.errors import SettingError

REGIMES = ("eu", "cn", "both", "off")
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"


def check(regime: str) -> None:
    if regime not in REGIMES:
        raise SettingError(f"labels should be {', '.join(REGIMES)}; {regime} came")


def label(path: Path, regime: str, facts: Mapping[str, Any]) -> list[str]:
    """Put the marks into a PNG, JPEG or WAV; the names of those that are read back there. Other formats carry none."""
    check(regime)
    if regime == "off":
        return []
    data, suffix = path.read_bytes(), path.suffix.lower()
    if suffix == ".png":
        files.write_bytes(path, _png(data, _packet(regime, facts)))
    elif suffix in (".jpg", ".jpeg"):
        segment = XMP + _packet(regime, facts)
        files.write_bytes(path, data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    elif suffix == ".wav" and regime in ("cn", "both"):
        files.write_bytes(path, _wav(data, aigc(facts).encode()))
    return labels_in(path.read_bytes())


def labels_in(data: bytes) -> list[str]:
    """The marks in a file's own XMP packets (PNG, JPEG) or its chunk AIGC (WAV); what a signature says of the source is not counted."""
    if data[:4] == b"RIFF":
        return ["cn"] if any(name == b"AIGC" for name, _ in _riff_chunks(data)) else []
    told = b"".join(_packets(data))
    return [name for name, mark in (("eu", SOURCE), ("cn", NAMESPACE)) if mark.encode() in told]


def _packets(data: bytes) -> Iterator[bytes]:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from (
            body for name, body in _png_chunks(data) if name == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0")
        )
    elif data[:2] == b"\xff\xd8":
        yield from (body for marker, body in _jpeg_segments(data) if marker == 0xE1 and body.startswith(XMP))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += size + 12


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Those before the picture's own data (marker DA)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def aigc(facts: Mapping[str, Any]) -> str:
    """The JSON of GB 45438-2025; Label 1: made by a machine. The reserved fields and the propagator stay empty."""
    wish = facts.get("wish", {})
    piece = f"{facts.get('run_fingerprint', '')}-{wish.get('seed', 0)}"
    told = {"Label": "1", "ContentProducer": str(facts.get("generator", "maquette")), "ProduceID": piece}
    return json.dumps(told | dict.fromkeys(("ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"), ""))


def _packet(regime: str, facts: Mapping[str, Any]) -> bytes:
    inside = ""
    if regime in ("eu", "both"):
        told = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
        inside += f'<e:DigitalSourceType xmlns:e="{told}">{SOURCE}</e:DigitalSourceType>'
    if regime in ("cn", "both"):
        told = aigc(facts).replace("&", "&amp;").replace("<", "&lt;")
        inside += f'<TC260:AIGC xmlns:TC260="{NAMESPACE}">{told}</TC260:AIGC>'
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about="">'
        f"{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def _png(data: bytes, packet: bytes) -> bytes:
    """The packet as an iTXt chunk after the header, which ends at byte 33."""
    body = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + packet
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def _wav(data: bytes, told: bytes) -> bytes:
    chunk = b"AIGC" + struct.pack("<I", len(told)) + told + b"\0" * (len(told) % 2)
    return data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk
