"""The secret of this person: one file of mode 0600 outside every run folder; from it all keys are derived (BLAKE2, RFC 7693)."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from maquette.errors import SettingError, StorageError


def folder() -> Path:
    """$MAQUETTE_KEYS, else maquette/keys in the usual place of settings."""
    if told := os.environ.get("MAQUETTE_KEYS"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home())) / "maquette" / "keys"
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "maquette" / "keys"


def there() -> bool:
    return (folder() / "secret").is_file()


def made() -> Path:
    """The folder, made where it is not there. Raises SettingError where it would lie in a run, which is handed on with all it holds."""
    place = folder()
    for outer in (place, *place.absolute().parents):
        if (outer / "run.json").is_file():
            raise SettingError(f"MAQUETTE_KEYS leads into the run {outer}, and runs are handed on; keep keys elsewhere")
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _unwritable(place, error) from None
    return place


def _unwritable(place: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the key that seals and signs cannot be kept in {place} ({error.strerror}); set MAQUETTE_KEYS to a folder of yours"
    )


def secret() -> bytes:
    """32 bytes, made at first use; of two processes that begin at once the first one's stay."""
    path = folder() / "secret"
    if not path.is_file():
        made()
        with suppress(FileExistsError):
            private(path, secrets.token_bytes(32))
    return path.read_bytes()


def private(path: Path, content: bytes) -> None:
    """A new file that only its owner may read, whole from its first moment. Raises FileExistsError, StorageError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.link(temporary, path)
    finally:
        temporary.unlink()


def derived(purpose: str, size: int = 32) -> bytes:
    """A key for one purpose, from which the secret cannot be told."""
    return hashlib.blake2b(purpose.encode(), key=secret(), digest_size=size).digest()
