"""What a person hands in, as a list of files: a folder, an archive, one file; labels from folders, facts from metadata.

The conventions are those of Hugging Face: subfolder = label, or `metadata.csv` / `metadata.jsonl` with a `file_name` column.
"""

from __future__ import annotations

import csv
import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from maquette.errors import ContentError

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
METADATA = ("metadata.csv", "metadata.jsonl")  # in any case
GONE = "which is not there"  # how the refusal of a row without a file ends
JUNK = {"__macosx", "thumbs.db", "desktop.ini"}
SPLIT_FOLDERS = {"train", "training", "test", "testing", "val", "valid", "validation"}  # a level that is no label
MEMBER_BYTES = 1 << 30  # of one file in an archive, unpacked
TOTAL_BYTES = 1 << 35  # of an archive, unpacked
MEMBERS = 5_000_000  # files in an archive
Refused = dict[str, str]  # name -> why it is in quarantine


class Found(NamedTuple):
    """One file: its name below the source with "/", and where it lies (members of archives lie in a temporary folder)."""

    name: str
    path: Path


class Listing(NamedTuple):
    """stamp: (name, bytes, time of change in ns) of every file; the same stamp means the same content."""

    found: list[Found]
    refused: Refused
    stamp: list[tuple[str, int, int]]


def name_of(source: Path) -> str:
    """The source's name without the suffix of an archive or file."""
    name = _text(Path(source).resolve().name)
    if Path(source).is_dir():
        return name or "corpus"
    suffix = next((s for s in ARCHIVES if name.lower().endswith(s)), "")
    return name[: -len(suffix)] if suffix else name.removesuffix(".gz").rsplit(".", 1)[0]


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def is_metadata(name: str) -> bool:
    return name.rpartition("/")[2].lower() in METADATA


def ending(name: str) -> str:
    """ ".png"; what files without one are called."""
    return PurePosixPath(name).suffix.lower() or "files without suffix"


def listing(source: Path) -> Listing:
    """Every file below a folder, or the one file. Raises ContentError where there is neither."""
    source = Path(source)
    result = Listing([], {}, [])
    if (source / "corpus.json").is_file():
        raise ContentError(f"{source} is a corpus already; `maquette train {source}` takes it as it is")
    if source.is_dir():
        _walk(source, "", source.resolve(), result)
    elif source.is_file():
        _note(result, source.name, source)
    else:
        raise ContentError(f"{source} is neither a folder nor a file; give a folder, an archive or a file of pieces")
    return result


def _walk(folder: Path, prefix: str, root: Path, into: Listing) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        into.refused[prefix.rstrip("/") or str(folder)] = f"this folder cannot be read ({error.strerror})"
        return
    if any(e.name == "corpus.json" for e in entries):
        return  # a corpus that an earlier prepare left here is no source
    for entry in entries:
        name = prefix + _text(entry.name)
        if _is_junk(entry.name):
            continue
        if entry.is_symlink() and not _inside(Path(entry.path), root):
            into.refused[name] = "a link out of the folder is not followed; put the file itself there"
        elif entry.is_symlink() and entry.is_dir():
            into.refused[name] = "a link to a folder is not followed; put the folder itself there"
        elif entry.is_dir():
            _walk(Path(entry.path), name + "/", root, into)
        elif entry.is_file():
            _note(into, name, Path(entry.path))
        else:
            into.refused[name] = "this is no regular file"


def _is_junk(name: str) -> bool:
    """Hidden files and what systems leave beside the pictures of people."""
    return any((p.startswith(".") and not p.startswith("..")) or p.lower() in JUNK for p in name.split("/"))


def _note(into: Listing, name: str, path: Path) -> None:
    status = path.stat()
    into.found.append(Found(name, path))
    into.stamp.append((name, status.st_size, status.st_mtime_ns))


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # dangling, or a ring of links
        return False


def _text(name: str) -> str:
    """File names are bytes on the disk; those that are no UTF-8 are spelled with backslashes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# ---- archives


def unpacked(listed: Listing, folder: Path, wanted: tuple[str, ...]) -> tuple[list[Found], Refused, Counter[str]]:
    """The files of a listing with the members of its topmost archives in their place, unpacked under `folder`.

    Only members that end in one of `wanted` are unpacked; the endings of the others are counted. Facts that lie beside a file as
    <file>.json, as generated pieces have them, are left out: they are no pieces.
    """
    found: list[Found] = []
    passed: set[str] = set()  # members that were not unpacked
    refused = dict(listed.refused)
    alone = len(listed.found) == 1
    for file in listed.found:
        if not is_archive(file.name) or "/" in file.name:
            found.append(file)
            continue
        prefix = "" if alone else name_of(file.path) + "/"
        aside: set[str] = set()
        members = _members(file, folder / f"{len(refused)}-{len(found)}", wanted, aside)
        for name, outcome in sorted(members, key=lambda m: m[0].split("/")):  # the order of a folder
            if isinstance(outcome, Path):
                found.append(Found(prefix + name, outcome))
            else:
                refused[prefix + name] = outcome
        passed |= {prefix + name for name in aside}
    known = passed | {f.name for f in found}
    return [f for f in found if not _is_sidecar(f.name, known)], refused, Counter(map(ending, passed))


def _is_sidecar(name: str, known: set[str]) -> bool:
    of, _, last = name.rpartition(".")
    return last.lower() == "json" and "." in of.rpartition("/")[2] and of in known


def _members(
    archive: Found, folder: Path, wanted: tuple[str, ...], passed: set[str]
) -> Iterator[tuple[str, Path | str]]:
    """(name, where it was unpacked, or why not) of each member that is wanted."""
    keep = _Keeper(folder)
    try:
        opened = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
        for name, reason, size, open_member in opened(archive.path):
            name = str(PurePosixPath(_text(name)))
            if _is_junk(name):
                continue
            if not name.lower().endswith(wanted):
                passed.add(name)
                continue
            yield name, reason or keep(name, size, open_member)
            if keep.count >= MEMBERS or keep.total >= TOTAL_BYTES:
                yield (
                    archive.name,
                    f"only the first {keep.count} files were unpacked; the archive is larger than allowed",
                )
                return
    except _BROKEN as error:
        used = "what came before is used" if keep.count else "nothing in it can be used; pack it again"
        yield archive.name, f"the archive is damaged or ends early ({_words(error)}); {used}"
    except PermissionError:
        yield archive.name, "may not be read (permission denied)"


_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError, NotImplementedError, ValueError)
Member = tuple[str, str, int, Callable[[], IO[bytes] | None]]  # name, reason to refuse, size, how to open it


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                link = stat.S_ISLNK(info.external_attr >> 16)
                yield (
                    info.filename,
                    "a link in an archive" if link else "",
                    info.file_size,
                    lambda i=info: archive.open(i),
                )


def _tar_members(path: Path) -> Iterator[Member]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isdir():
                    reason = "" if member.isreg() and not member.issparse() else "a link or device in an archive"
                    yield member.name, reason, member.size, lambda m=member: archive.extractfile(m)
                archive.members = []  # type: ignore[attr-defined]  # tarfile would remember all of a million
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise EOFError(str(error)) from None  # gzip.BadGzipFile and short reads


class _Keeper:
    """Unpacks members into numbered folders: a member's own path is never used on this disk, only its last part."""

    def __init__(self, folder: Path):
        self.folder, self.count, self.total = folder, 0, 0
        self.folders: dict[str, Path] = {}

    def __call__(self, name: str, size: int, open_member: Callable[[], IO[bytes] | None]) -> Path | str:
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or "\0" in name:
            return "its name leads out of the archive"
        if size > MEMBER_BYTES:
            return f"unpacks to {size / 1e9:.1f} GB; at most {MEMBER_BYTES / 1e9:.1f} GB a file are taken"
        target = self._folder(str(pure.parent)) / pure.name
        try:
            if target.exists():
                return "a second file of the same name in the archive"
            self._copy(target, open_member)
        except OSError as error:
            if error.errno is None or error.errno in (36, 22):  # a bad block of the archive; a name no disk takes
                return f"cannot be unpacked ({_words(error)})"
            raise
        except _BROKEN as error:
            target.unlink(missing_ok=True)
            if isinstance(error, EOFError):
                raise
            return f"cannot be unpacked ({_words(error)})"
        self.count += 1
        return target

    def _folder(self, parent: str) -> Path:
        if parent not in self.folders:
            self.folders[parent] = self.folder / f"{len(self.folders):06d}"
            self.folders[parent].mkdir(parents=True)
        return self.folders[parent]

    def _copy(self, target: Path, open_member: Callable[[], IO[bytes] | None]) -> None:
        source = open_member()
        if source is None:
            raise ValueError("no content")
        written = 0
        with source, target.open("xb") as stream:
            while block := source.read(1 << 20):
                written += len(block)
                if written > MEMBER_BYTES:
                    raise ValueError("larger than it said")
                stream.write(block)
        self.total += written


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


# ---- labels and metadata


def labels(names: list[str]) -> list[str | None]:
    """The first folder of each name, below whatever folder all share and below train/ and test/.

    >>> labels(["all/cats/a.png", "all/dogs/old/b.png", "all/c.png"])
    ['cats', 'dogs', None]
    >>> labels(["train/cats/a.png", "test/dogs/b.png"])
    ['cats', 'dogs']
    """
    parts = [name.split("/")[:-1] for name in names]
    while parts and all(parts) and (len({p[0] for p in parts}) == 1 or {p[0].lower() for p in parts} <= SPLIT_FOLDERS):
        parts = [p[1:] for p in parts]
    return [p[0] if p else None for p in parts]


def metadata(found: list[Found], refused: Refused) -> dict[str, dict[str, Any]]:
    """name -> row, from every metadata.csv and metadata.jsonl; a row without a file goes to quarantine.

    Raises ContentError for a table without `file_name` or one that cannot be read.
    """
    known = {file.name for file in found}
    rows: dict[str, dict[str, Any]] = {}
    for file in found:
        if not is_metadata(file.name):
            continue
        folder = file.name.rpartition("/")[0]
        for line, row in _table(file, refused):
            name = "/".join(p for p in (folder, str(row.pop("file_name"))) if p).removeprefix("./")
            place = f"{file.name} line {line}"
            if name not in known:
                refused[place] = f"names {name[:200]}, {GONE}"
            elif name in rows:
                refused[place] = f"names {name[:200]} a second time"
            else:
                rows[name] = {k: v for k, v in row.items() if _is_value(v)}
    return rows


def _is_value(value: Any) -> bool:
    """Empty cells, NaN, infinity, and numbers too large to be squared are "not known"."""
    if value in (None, "", []):
        return False
    try:
        return abs(float(value)) < 1e30
    except (TypeError, ValueError):
        return True
    except OverflowError:
        return False


def _table(file: Found, refused: Refused) -> Iterator[tuple[int, dict[str, Any]]]:
    with _metadata_in_words(file), file.path.open(encoding="utf-8-sig", newline="") as stream:
        yield from _csv(stream, file) if file.name.lower().endswith(".csv") else _jsonl(stream, file, refused)


@contextmanager
def _metadata_in_words(file: Found) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ContentError(f"{file.name} should be UTF-8; byte {error.start} is not. Save it as UTF-8") from None
    except csv.Error as error:
        raise ContentError(f"{file.name} cannot be read as CSV ({error})") from None
    except OSError as error:
        raise ContentError(f"{file.name} cannot be read ({error.strerror})") from None


def _csv(stream: IO[str], file: Found) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(stream)
    names = list(map(str, reader.fieldnames or []))
    if "file_name" not in names:
        mend = "rename the column that names the files"
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            mend = "separate the columns by commas"
        raise ContentError(f"{file.name} needs a column file_name; it has {', '.join(names) or 'none'}: {mend}")
    for row in reader:
        yield reader.line_num, {k: v for k, v in row.items() if k}


def _jsonl(stream: IO[str], file: Found, refused: Refused) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and "file_name" in row:
            yield number, row
        else:
            refused[f"{file.name} line {number}"] = "should be a JSON object with file_name"
