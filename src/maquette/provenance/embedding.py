"""Where a mark stands in a file: as an XMP packet (XMP Specification, part 3, 2020) in PNG, JPEG, WebP, GIF, TIFF, SVG and WAV, by name in MIDI,
MusicXML and JSON. `put` returns None of a format that holds neither; `marks_in` reads the own places of each back and believes nothing else."""

from __future__ import annotations

import json
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from io import BytesIO
from typing import Any

import PIL.Image
import PIL.TiffImagePlugin

PNG, XMP, XMP_IN_GIF = b"\x89PNG\r\n\x1a\n", b"http://ns.adobe.com/xap/1.0/\0", b"XMP DataXMP"
TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\0"  # by it readers of GIF that know no XMP find its end
TIFF_TAG = 700
FIELD = '<miscellaneous-field name="{}">{}</miscellaneous-field>'
FIELDS = re.compile(r'<miscellaneous-field name="([^"<]*)">([^<]*)</miscellaneous-field>')
PACKET = re.compile(rb"<x:xmpmeta.*?</x:xmpmeta>", re.DOTALL)


def put(data: bytes, suffix: str, marks: Mapping[str, Any], packet: bytes) -> bytes | None:
    """The file with its marks: a packet of XMP, or each by its name; None where this format has no place for them."""
    into = WITH_PACKET.get(suffix)
    if into:
        return into(data, packet)
    named = BY_NAME.get(suffix)
    return named(data, marks) if named else None


def marks_in(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """(all packets of XMP, marks by name) in a file, whatever it is called; nothing where it is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            packets = next((read for begins, read in PACKETS.items() if data.startswith(begins)), None)
            return (b"".join(packets(data)), {}) if packets else _in_text(data)
        except Exception:  # bytes of unknown origin
            return b"", {}


def _in_text(data: bytes) -> tuple[bytes, dict[str, Any]]:
    if data.startswith(b"MThd"):
        texts = (text.partition(b"=") for kind, text in _meta_events(data) if kind == 1)
        return b"", {name.decode(): value.decode() for name, sign, value in texts if sign}
    if data.lstrip()[:1] == b"{":
        found = json.loads(data)
        return b"", found
    if b"<score-partwise" in data[:400]:
        return b"", {name: unescape(value) for name, value in FIELDS.findall(data.decode())}
    svg = data.lstrip()[:1] == b"<" and b"<svg" in data[:2000]
    return (b"".join(PACKET.findall(data)), {}) if svg else (b"", {})


# ---- PNG, JPEG


def _put_png(data: bytes, packet: bytes) -> bytes:
    """A chunk iTXt after the header, which ends at byte 33."""
    body = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + packet
    return data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def _in_png(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 26] == b"iTXtXML:com.adobe.xmp\0":
            yield data[at + 8 : at + 8 + size]
        at += size + 12


def _put_jpeg(data: bytes, packet: bytes) -> bytes:
    segment = XMP + packet
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def _in_jpeg(data: bytes) -> Iterator[bytes]:
    """Of the segments before the picture's own data (marker DA)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and data[at + 4 : at + 4 + len(XMP)] == XMP:
            yield data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)


# ---- GIF, TIFF, SVG


def _put_gif(data: bytes, packet: bytes) -> bytes:
    """An application extension after the colours; only version 89a has such."""
    at = _after_colours(data)
    return data[:3] + b"89a" + data[6:at] + b"\x21\xff\x0b" + XMP_IN_GIF + packet + TRAILER + data[at:]


def _in_gif(data: bytes) -> Iterator[bytes]:
    at = _after_colours(data)
    while data[at] == 0x21:
        if data[at + 3 : at + 14] == XMP_IN_GIF:
            end = data.index(TRAILER, at)
            yield data[at + 14 : end]
            at = end + len(TRAILER)
            continue
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1


def _after_colours(data: bytes) -> int:
    return 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)


def _put_tiff(data: bytes, packet: bytes) -> bytes:
    """Written again: the pixels are the same."""
    noted, made = PIL.TiffImagePlugin.ImageFileDirectory_v2(), BytesIO()
    noted[TIFF_TAG], noted.tagtype[TIFF_TAG] = packet, 1
    with PIL.Image.open(BytesIO(data), formats=("TIFF",)) as image:
        image.save(made, "TIFF", tiffinfo=noted)
    return made.getvalue()


def _in_tiff(data: bytes) -> Iterator[bytes]:
    with PIL.Image.open(BytesIO(data), formats=("TIFF",)) as image:
        yield bytes(image.tag_v2.get(TIFF_TAG, b""))


def _put_svg(data: bytes, packet: bytes) -> bytes:
    return re.sub(rb"<svg\b[^>]*>", lambda m: m[0] + b"<metadata>" + packet + b"</metadata>", data, count=1)


# ---- RIFF: WebP, WAV


def _put_webp(data: bytes, packet: bytes) -> bytes:
    """A chunk XMP at the end, of which the extended header must speak."""
    if data[12:16] != b"VP8X":
        with PIL.Image.open(BytesIO(data), formats=("WEBP",)) as image:
            sides = b"".join(struct.pack("<I", side - 1)[:3] for side in image.size)
            alpha = 0x10 * (image.mode == "RGBA")
        data = data[:12] + _riff(b"VP8X", bytes([alpha, 0, 0, 0]) + sides) + data[12:]
    data = data[:20] + bytes([data[20] | 0x04]) + data[21:]
    return _longer(data + _riff(b"XMP ", packet))


def _put_wav(data: bytes, packet: bytes) -> bytes:
    """A chunk _PMX; and where there is a field AIGC also a chunk of that name, as GB 45438-2025 has it."""
    told = re.search(rb"<TC260:AIGC[^>]*>(.*?)</TC260:AIGC>", packet)
    field = _riff(b"AIGC", unescape(told[1].decode()).encode()) if told else b""
    return _longer(data + field + _riff(b"_PMX", packet))


def _riff(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _longer(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def _in_riff(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"XMP ", b"_PMX"):
            yield data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


# ---- by name: MIDI, MusicXML, JSON


def _put_midi(data: bytes, marks: Mapping[str, Any]) -> bytes:
    """Text events at the beginning of the first track, after the one that is there."""
    events = b"".join(b"\0\xff\x01" + _sized(f"{name}={_text(mark)}".encode()) for name, mark in marks.items())
    size = int.from_bytes(data[18:22], "big")
    at = 22 if data[22:25] != b"\0\xff\x01" else _quantity(data, 25)[1] + _quantity(data, 25)[0]
    return data[:18] + struct.pack(">I", size + len(events)) + data[22:at] + events + data[at:]


def _meta_events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of those at the beginning of the first track."""
    at = 22
    while data[at : at + 2] == b"\0\xff":
        size, begin = _quantity(data, at + 3)
        yield data[at + 2], data[begin : begin + size]
        at = begin + size


def _quantity(data: bytes, at: int) -> tuple[int, int]:
    """A quantity of variable length, and where it ends."""
    value = 0
    for k in range(4):
        value = value << 7 | data[at + k] & 0x7F
        if data[at + k] < 0x80:
            break
    return value, at + k + 1


def _sized(content: bytes) -> bytes:
    size = len(content)
    parts = [size & 0x7F]
    while size := size >> 7:
        parts.append(size & 0x7F | 0x80)
    return bytes(reversed(parts)) + content


def _put_musicxml(data: bytes, marks: Mapping[str, Any]) -> bytes:
    fields = "".join(FIELD.format(name, escape(_text(mark), quote=False)) for name, mark in marks.items())
    return data.replace(b"<miscellaneous>", b"<miscellaneous>" + fields.encode(), 1)


def put_json(data: bytes, marks: Mapping[str, Any]) -> bytes:
    """Before what an object holds."""
    rest = data.lstrip()[1:]
    told = json.dumps(dict(marks), ensure_ascii=False)[:-1].encode()
    return told + (b"" if rest.lstrip().startswith(b"}") else b",") + rest


def _text(mark: Any) -> str:
    return mark if isinstance(mark, str) else json.dumps(mark, ensure_ascii=False)


WITH_PACKET: dict[str, Callable[[bytes, bytes], bytes]] = {
    ".png": _put_png, ".jpg": _put_jpeg, ".jpeg": _put_jpeg, ".webp": _put_webp, ".gif": _put_gif, ".tif": _put_tiff,
    ".tiff": _put_tiff, ".svg": _put_svg, ".wav": _put_wav,
}  # fmt: skip
BY_NAME: dict[str, Callable[[bytes, Mapping[str, Any]], bytes]] = {
    ".mid": _put_midi, ".midi": _put_midi, ".musicxml": _put_musicxml, ".json": put_json,
}  # fmt: skip
PACKETS: dict[bytes, Callable[[bytes], Iterator[bytes]]] = {
    PNG: _in_png, b"\xff\xd8": _in_jpeg, b"GIF8": _in_gif, b"II*\0": _in_tiff, b"MM\0*": _in_tiff, b"RIFF": _in_riff,
}  # fmt: skip
