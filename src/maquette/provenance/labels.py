"""Marks that a machine reads: IPTC's digital source type (EU AI Act, Art. 50(2)) and the field AIGC (GB 45438-2025)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from maquette import files
from maquette.errors import SettingError
from maquette.provenance.embedding import marks_in, put, put_json

REGIMES = ("eu", "cn", "both", "off")
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMESPACE = "http://www.tc260.org.cn/ns/AIGC/1.0/"
EU, CN = "DigitalSourceType", "AIGC"  # their names where a format holds names
MOST = 16 << 20  # bytes of a file beside another that are read


def check(regime: str) -> None:
    if regime not in REGIMES:
        raise SettingError(f"labels should be {', '.join(REGIMES)}; {regime} came")


def labelled(path: Path, regime: str, facts: Mapping[str, Any]) -> bytes:
    """The content of a file with its marks. Of a format that has no place for them they are written into <file>.json beside it."""
    check(regime)
    data = path.read_bytes()
    if regime == "off":
        return data
    marks = _marks(regime, facts)
    made = put(data, path.suffix.lower(), marks, _packet(marks))
    if made is None:
        _put_beside(path, marks)
    return data if made is None else made


def label(path: Path, regime: str, facts: Mapping[str, Any]) -> list[str]:
    """Write the marks; the names of those that are read back."""
    made = labelled(path, regime, facts)
    files.write_bytes(path, made)
    return labels_of(path)


def _put_beside(path: Path, marks: Mapping[str, Any]) -> None:
    place = path.with_name(f"{path.name}.json")
    before = files.read_json(place) if place.is_file() else {}
    files.write_bytes(
        place, put_json(json.dumps({k: v for k, v in before.items() if k not in (EU, CN)}).encode(), marks)
    )


def labels_of(path: Path) -> list[str]:
    """The marks within a file or in <file>.json beside it."""
    place = path.with_name(f"{path.name}.json")
    small = place.is_file() and place.stat().st_size <= MOST
    return labels_in(path.read_bytes()) or (labels_in(place.read_bytes()) if small else [])


def labels_in(data: bytes) -> list[str]:
    """The marks in a file's own XMP or under their names; what a signature says of the source is not counted."""
    packets, named = marks_in(data)
    eu = SOURCE.encode() in packets or named.get(EU) == SOURCE
    cn = NAMESPACE.encode() in packets or CN in named
    return ["eu"] * eu + ["cn"] * cn


def _marks(regime: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    marks = {EU: SOURCE} if regime in ("eu", "both") else {}
    return marks | ({CN: aigc(facts)} if regime in ("cn", "both") else {})


def aigc(facts: Mapping[str, Any]) -> dict[str, str]:
    """The field of GB 45438-2025; Label 1: made by a machine. The reserved fields and the propagator stay empty."""
    wish = facts.get("wish", {})
    member = f".{wish['member']}" if wish.get("member") else ""  # of a series, which shares a seed
    piece = f"{facts.get('run_fingerprint', '')}-{wish.get('seed', 0)}{member}"
    told = {"Label": "1", "ContentProducer": str(facts.get("generator", "maquette")), "ProduceID": piece}
    return told | dict.fromkeys(("ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"), "")


def _packet(marks: Mapping[str, Any]) -> bytes:
    inside = ""
    if EU in marks:
        told = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
        inside += f'<e:DigitalSourceType xmlns:e="{told}">{SOURCE}</e:DigitalSourceType>'
    if CN in marks:
        told = escape(json.dumps(marks[CN], ensure_ascii=False), quote=False)
        inside += f'<TC260:AIGC xmlns:TC260="{NAMESPACE}">{told}</TC260:AIGC>'
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}"><rdf:Description rdf:about="">'
        f"{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
