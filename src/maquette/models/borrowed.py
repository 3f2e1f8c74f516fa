"""A causal language model of somebody else, from a folder or the hub of Hugging Face: it judges and continues as it stands, nothing is learnt."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maquette import files
from maquette.errors import MissingExtra, SettingError, SpaceError
from maquette.nets.sampling import collect, write
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, SampleRequest, Space

ENDS = 1 << 20  # bytes at each end of a file of weights that the fingerprint reads
AT_ONCE = 1 << 26  # logits that are held at once


class Borrowed(GenerativeModel):
    """Whatever `AutoModelForCausalLM` opens, over a corpus in that model's own tokens; it learns nothing and heeds no conditions.

    A run keeps its path and a fingerprint, not its weights: the folder must stay where it is, as it is.
    """

    phases = ()
    sizes = {"tiny": {}, "small": {}, "medium": {}, "large": {}}
    batch_size = 8

    def __init__(
        self,
        spec: DataSpec,
        *,
        path: Annotated[str, Field(description="folder of the model, or its name on the hub; needed")] = "",
        download: Annotated[bool, Field(description="whether a name may be fetched from the hub")] = False,
    ):
        super().__init__(spec)
        spec.space.need("tokens", model="borrowed")
        if importlib.util.find_spec("transformers") is None:
            raise MissingExtra("borrowing a language model", "hf")
        self.folder = folder_of(path, download)
        self.config = _json(self.folder / "config.json")
        self.vocabulary = spec.space.vocabulary
        self.first = first_token(self.config)
        self.longest = _number(self.config, "max_position_embeddings", "n_positions", "n_ctx", "seq_length") or 1 << 30
        same_tokens(spec.space, self.folder, self.config)
        if spec.space.shape[0] > self.longest:
            raise SpaceError(
                f"these pieces are seen {spec.space.shape[0]} tokens at once, {path} sees {self.longest}; prepare with a smaller window"
            )
        self.register_buffer("fingerprint", torch.tensor(list(fingerprint(self.folder)), dtype=torch.uint8))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """The checkpoint of a run holds the fingerprint alone."""
        known = state.get(f"{prefix}fingerprint")
        if known is not None and not torch.equal(known.cpu(), self.fingerprint.cpu()):
            rest[-1].append(f"the model in {self.folder} is not the one this run borrowed; it has changed since")
        super()._load_from_state_dict(state, prefix, *rest)

    @property
    def lm(self) -> nn.Module:
        """The model itself; outside of this module's own weights, and shared by all that borrow it."""
        return causal_lm(self.folder, str(self.device))

    @cached_property
    def never(self) -> Tensor:
        """(V,) bool: tokens that generation_config.json says are never written; judging heeds them as they are."""
        never = torch.zeros(self.vocabulary, dtype=torch.bool)
        path = self.folder / "generation_config.json"
        for token in (_json(path).get("suppress_tokens") or []) if path.is_file() else []:
            never[token : token + 1] = True
        return never

    def predicted(self, logits: Tensor) -> Tensor:
        """(..., rows of the head) -> (..., V) float32, of the corpus's tokens alone."""
        return logits[..., : self.vocabulary].float()

    # ---- judging

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        return Losses({"nats_per_token": self.token_nats(batch).sum() / self.spec.space.counted(batch.x).sum()})

    @torch.no_grad()
    def token_nats(self, batch: Batch) -> Tensor:
        """(B, n) nats of each token given those before it in its window, exact; 0 after the end of a piece."""
        before = torch.full_like(batch.x[:, 0], -1) if batch.before is None else batch.before
        first = torch.where(before < 0, self.first, before)
        read = torch.cat([first.unsqueeze(1), batch.x[:, :-1]], 1)
        rows = max(1, AT_ONCE // (read.shape[1] * self.vocabulary))
        parts = zip(read.split(rows), batch.x.split(rows), strict=True)
        nats = torch.cat([self._nats(a.to(self.device), b.to(self.device)) for a, b in parts]).to(batch.x.device)
        return nats * self.spec.space.counted(batch.x)

    def _nats(self, read: Tensor, x: Tensor) -> Tensor:
        logits = self.predicted(self.lm(input_ids=read, use_cache=False).logits)
        return F.cross_entropy(logits.transpose(1, 2), x, reduction="none")

    # ---- writing

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """(B, L) int64, or (B, n) of a ragged space; what `keep` marks of `source` is forced. Raises SpaceError for guidance."""
        return collect(self.stream(request))

    def stream(self, request: SampleRequest) -> Iterator[Tensor]:
        """The tokens (B,) of `sample`, one place after the other, as they are written."""
        if request.guidance != 1:
            raise SpaceError("borrowed heeds no conditions, so guidance has nothing to strengthen; leave it at 1")
        return write(Reader(self, len(request)), request, self.spec.space, self.device)


class Reader:
    """The model with its memory: `reader(tokens (B, n))` reads what follows and gives logits (B, V) of the token after it.

    Where it has read as much as it can see, it goes on from the last half.
    """

    def __init__(self, borrowed: Borrowed, batch: int):
        self.of = borrowed
        self.read = torch.full((batch, 1), borrowed.first, dtype=torch.long, device=borrowed.device)
        self.name, self.never = memory_name(borrowed.lm), borrowed.never.to(borrowed.device)
        self.memory: Any = None
        self.held = 0  # tokens in the memory

    def __call__(self, tokens: Tensor) -> Tensor:
        self.read = torch.cat([self.read, tokens], 1)
        if self.memory is None or self.held + tokens.shape[1] > self.of.longest:
            self.memory, self.held = None, 0
            whole = self.read.shape[1]
            tokens = self.read if whole <= self.of.longest else self.read[:, -max(1, self.of.longest // 2) :]
        memory = {} if self.memory is None else {self.name: self.memory}
        out = self.of.lm(input_ids=tokens, use_cache=True, **memory)
        self.memory = getattr(out, self.name, None)  # a model without one reads everything anew
        self.held += tokens.shape[1]
        return self.of.predicted(out.logits[:, -1]).masked_fill(self.never, -torch.inf)


def memory_name(lm: nn.Module) -> str:
    """What transformers calls the keys and values of what was read: past_key_values, and `cache` from 5.24 on."""
    return "cache" if "cache" in inspect.signature(lm.forward).parameters else "past_key_values"


def folder_of(path: str, download: bool) -> Path:
    """The folder of a model: as given, or where the hub's own cache has it. Raises SettingError."""
    if not path:
        raise SettingError("borrowed.path should be the folder of a language model or its name on the hub; none came")
    folder = Path(path).expanduser()
    if not folder.is_dir() and not folder.is_absolute() and not path.startswith("."):
        folder = _from_hub(path, download)
    if not (folder / "config.json").is_file():
        raise SettingError(
            f"borrowed.path should be a folder with config.json and *.safetensors, as `save_pretrained` or `maquette export` writes; {path} came"
        )
    if not any(folder.glob("*.safetensors")):
        raise SettingError(
            f"{path} holds no *.safetensors; other formats of weights may hold programs and are not read"
        )
    return folder


def _from_hub(name: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        hint = "" if download else "; if it is a name on the hub, --set borrowed.download=true fetches it"
        raise SettingError(
            f"no folder {name}, and no such model in the cache of the hub{hint} ({_short(error)})"
        ) from None


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


@lru_cache(maxsize=1)
def causal_lm(folder: Path, device: str) -> nn.Module:
    """The model of a folder, in float32 on a CPU and as it was stored elsewhere; only safetensors, no code from the folder."""
    from transformers import AutoModelForCausalLM

    kind = torch.float32 if device == "cpu" else "auto"
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    with without_bars():
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, **safe)
    return found.eval().requires_grad_(False).to(device)


@contextmanager
def without_bars() -> Iterator[None]:
    """transformers shows no progress bars meanwhile."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fingerprint(folder: Path) -> bytes:
    """16 bytes of the settings, and of the names, sizes, beginnings and ends of the weights: gigabytes need not be read to know them again."""
    digest = hashlib.blake2b(digest_size=16)
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(ENDS))
            stream.seek(max(0, size - ENDS))
            digest.update(stream.read(ENDS))
    return digest.digest()


def same_tokens(space: Space, folder: Path, config: dict[str, Any]) -> None:
    """Raise SpaceError unless the corpus is in the model's tokens, as far as their number and the end can tell."""
    number = tokens_of(folder) or _number(config, "vocab_size")
    start = config.get("bos_token_id")
    fits = {number, number - 1 if start == number - 1 else number}  # a start that closes the list need not be known
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if space.vocabulary in fits and (not space.ragged or space.end in ends):
        return
    closing = f" that end with {space.end}" if space.ragged else ""
    raise SpaceError(
        f"these pieces are in {space.vocabulary} tokens{closing}, the model in {folder.name} reads {number} that end with {ends[0]}: "
        f"prepare the corpus with --set tokens=file --set tokenizer={folder / 'tokenizer.json'}"
    )


def tokens_of(folder: Path) -> int:
    """How many tokens tokenizer.json has, with numbers that it leaves out; 0 where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return 0
    from tokenizers import Tokenizer

    return max(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values()) + 1


def first_token(config: dict[str, Any]) -> int:
    """What stands before a text: the start, or where a model has none the end. Raises SettingError."""
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            return value
    raise SettingError("the config.json of the borrowed model names no bos_token_id and no eos_token_id; add one")


def _number(config: dict[str, Any], *keys: str) -> int:
    return next((int(config[k]) for k in keys if isinstance(config.get(k), int)), 0)


def _json(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path)
    except ValueError as error:
        raise SettingError(f"{path} is no JSON ({error}); fetch or export the model again") from None
