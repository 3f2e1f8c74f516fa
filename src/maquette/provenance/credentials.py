"""A signature by C2PA (specification 2.x) with a chain of one's own: ES256, a root and a leaf, made at first use."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from maquette.errors import MissingExtra
from maquette.provenance import keys
from maquette.provenance.labels import SOURCE

CARRIERS = {  # formats that hold a manifest; of every other one it lies beside, as <file>.c2pa
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".tif": "image/tiff", ".tiff": "image/tiff", ".svg": "image/svg+xml", ".wav": "audio/wav",
}  # fmt: skip
ANY = "application/octet-stream"
PLAIN = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False},
}  # a thumbnail took 38 of 40 ms and 400 kB
MOST = 16 << 20  # bytes of a manifest beside a file
YEARS = 20  # without a time stamp a manifest is invalid once its leaf has expired


def installed() -> bool:
    return find_spec("c2pa") is not None and find_spec("cryptography") is not None


def require() -> None:
    if not installed():
        raise MissingExtra("signing", "credentials")


def carries(path: Path) -> bool:
    return path.suffix.lower() in CARRIERS


def beside(path: Path) -> Path:
    """Where the manifest lies of a file that cannot hold it."""
    return path.with_name(f"{path.name}.c2pa")


class Signing:
    """One signer and one context for many files."""

    def __init__(self) -> None:
        require()
        import c2pa

        chain, key = _chain()
        self.signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None))
        self.context = c2pa.Context.from_dict(PLAIN)

    def signed(self, content: bytes, path: Path, facts: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """(the content of a file with its manifest, none beside it) where its format carries one, else (as it is, the manifest)."""
        import c2pa

        made, kind = io.BytesIO(), CARRIERS.get(path.suffix.lower())
        with c2pa.Builder(_manifest(path, facts), context=self.context) as builder:
            if kind is None:
                builder.set_no_embed()
            manifest = builder.sign(self.signer, kind or ANY, io.BytesIO(content), made)
        return (made.getvalue(), b"") if kind else (content, manifest)


def _manifest(path: Path, facts: Mapping[str, Any]) -> str:
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE}
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
        {"label": "org.maquette.papers", "data": {"json": json.dumps(dict(facts), ensure_ascii=False, default=str)}},
    ]
    return json.dumps(
        {"claim_generator_info": [{"name": "maquette"}], "title": path.name, "assertions": assertions}, default=str
    )


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """(trusted, unknown, invalid or none; our facts within). unknown: whole, by a signer whom this machine does not know."""
    import c2pa

    manifest = None if carries(path) else _manifest_beside(path)
    if manifest is None and not carries(path):
        return "none", {}
    trust: dict[str, Any] = {"verify": {"verify_trust": True}}
    if roots := _roots():
        trust["trust"] = {"user_anchors": roots}
    content, kind = io.BytesIO(path.read_bytes()), CARRIERS.get(path.suffix.lower(), ANY)
    try:
        reader = c2pa.Reader.try_create(kind, content, manifest, context=c2pa.Context.from_dict(trust))
        told = json.loads(reader.json()) if reader else None
    except Exception:  # whatever a parser says of bytes of unknown origin: they hold no whole manifest
        return "invalid", {}
    if reader is None:
        return "none", {}
    reader.close()
    state = {"Trusted": "trusted", "Valid": "unknown"}.get(told.get("validation_state"), "invalid")
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    return state, _papers(active.get("assertions", []))


def _papers(assertions: list[dict[str, Any]]) -> dict[str, Any]:
    """Of our assertion, whose facts are text: the library would take a list of small numbers for bytes."""
    noted = [a["data"] for a in assertions if a.get("label", "").startswith("org.maquette.papers")]
    try:
        found = json.loads(noted[0]["json"])
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _roots() -> str:
    """One's own, and those of signers that this person put into known/ beside it."""
    place = keys.folder()
    return "\n".join(p.read_text() for p in (place / "root.pem", *sorted(place.glob("known/*.pem"))) if p.is_file())


def _manifest_beside(path: Path) -> bytes | None:
    """None where there is none; one too large to be ours is read as empty, and so is invalid."""
    place = beside(path)
    if not place.is_file():
        return None
    return place.read_bytes() if place.stat().st_size <= MOST else b""


def _chain() -> tuple[bytes, bytes]:
    """(leaf and root as PEM, key of the leaf as PEM)"""
    place = keys.folder()
    chain, key, root = place / "chain.pem", place / "leaf.key", place / "root.pem"
    if not root.is_file():
        keys.made()
        made = _made_chain()
        for path, content in ((key, made[2]), (chain, made[0] + made[1]), (root, made[1])):
            path.unlink(missing_ok=True)  # left by a start that was cut off: the root comes last
            with suppress(FileExistsError):
                keys.private(path, content)
    return chain.read_bytes(), key.read_bytes()


def _made_chain() -> tuple[bytes, bytes, bytes]:
    """(leaf, root, key of the leaf); the root's key is forgotten."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name: str) -> x509.Name:
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maquette"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )

    def certificate(name: str, key: Any, by: Any, leaf: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(
            (
                "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
                "decipher_only",
            ),
            False,
        )  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("Maquette root of one person"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=leaf, key_cert_sign=not leaf, crl_sign=not leaf, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
        if leaf:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return made.sign(by, hashes.SHA256())

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    root = certificate("Maquette root of one person", root_key, root_key, leaf=False).public_bytes(pem)
    leaf = certificate("Maquette", leaf_key, root_key, leaf=True).public_bytes(pem)
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf, root, key
