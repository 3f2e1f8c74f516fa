"""export: a run in the layout of another library. A transformer is Qwen3 (Yang 2025, arXiv:2505.09388) but for its start, which becomes a token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maquette import cards, catalog, files, licences
from maquette.building import building
from maquette.errors import RunError, SpaceError, UnknownName, UsageError
from maquette.models.transformer import Transformer
from maquette.run import Run

START = "<start>"
AUDIT = Path("audit", "audit.json")  # where `audit` writes, in the run's folder
PART_OF_QWEN3 = re.compile(
    r"model\.layers\.\d+\.(input_layernorm|post_attention_layernorm|self_attn\.(q|k|v|o)_proj|self_attn\.(q|k)_norm"
    r"|mlp\.(gate|up|down)_proj)\.weight|model\.norm\.weight"
)
FOLDED = re.compile(r"(model\.embed_tokens|lm_head)\.(weight|digits)|model\.start")
REFUSED = {  # what a transformer of ours may have and Qwen3 has not
    "model.position": "learnt positions, and Qwen3 has rotary ones alone; train it again with --set absolute=false",
    "condition.": "conditions, and Qwen3 has none; train it on a corpus without labels and other facts",
}


def export(run: Run, out: str | Path | None = None, to: str = "huggingface", allow_copies: str = "") -> Path:
    """The folder `out` (inside the run by default), which the library `to` opens. Raises UnknownName, SpaceError, UsageError, RunError."""
    if to not in LAYOUTS:
        raise UnknownName("layout", to, LAYOUTS)
    out = Path(out) if out is not None else run.path / to
    _may_be_replaced(out)
    write = LAYOUTS[to]
    note = _copies(run, allow_copies)
    with files.full_disk_in_words(out), building(out) as folder:
        write(run, folder)
        if note:
            readme = folder / "README.md"
            files.write_text(readme, readme.read_text(encoding="utf-8") + note)
    if allow_copies:
        _log(run, {"to": to, "allow_copies": allow_copies, "note": note})
    return out


def _copies(run: Run, allowed: str) -> str:
    """What the card says of copies that the run's audit found. Raises UsageError where a licence forbids one and no reason is given."""
    try:
        found = (audit_of(run) or {}).get("copies") or []
        forbidden, unsure = licences.copies_in_the_way(found)
    except (AttributeError, TypeError, KeyError):
        raise _damaged(run) from None
    if forbidden and not allowed.strip():
        raise UsageError(
            f"the audit found {len(forbidden)} copies whose licence forbids handing them on: {'; '.join(forbidden[:3])}. "
            'Leave those pieces out and train again, or say why it is allowed with --allow-copies "reason"'
        )
    lines = [f"- {words}; exported all the same: {allowed}\n" for words in forbidden]
    lines += [f"- {words}; whether that is allowed is not known\n" for words in unsure]
    return "\n## Copies that the audit found\n\n" + "".join(lines) if lines else ""


def _log(run: Run, entry: Mapping[str, Any]) -> None:
    log = run.path / "exports.jsonl"
    before = log.read_text(encoding="utf-8") if log.is_file() else ""
    files.write_text(log, before + json.dumps(dict(entry), ensure_ascii=False) + "\n")


def _may_be_replaced(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "generation_config.json").is_file()):
        raise UsageError(f"{out} holds something that is no export; choose another folder with -o")


def _huggingface(run: Run, folder: Path) -> None:
    if list(run.recipe.stages) != ["transformer"]:
        raise SpaceError(f"Hugging Face takes a transformer on tokens; {run.path} is a run of {run.recipe.model}")
    model = run.load_model()
    modality = catalog.modality(run.facts["corpus"]["modality"])
    tokenizer = modality.tokenizer_json() if hasattr(modality, "tokenizer_json") else None
    write_huggingface(model, folder, tokenizer, card(run, model, tokenizer is not None))  # type: ignore[arg-type]


LAYOUTS: Mapping[str, Callable[[Run, Path], None]] = {"huggingface": _huggingface}


def write_huggingface(model: Transformer, folder: Path, tokenizer: Mapping[str, Any] | None, readme: str) -> None:
    """The files of `AutoModelForCausalLM.from_pretrained(folder)`; tokenizer: tokenizer.json of the corpus's own tokens, if it has one."""
    weights = qwen3_weights(model)
    end = model.spec.space.end if model.spec.space.ragged else None
    ids = {"bos_token_id": model.vocabulary, "eos_token_id": end, "pad_token_id": end}
    files.write_json(folder / "config.json", qwen3_config(model) | ids)
    never = {"suppress_tokens": [*_unknown(tokenizer or {}), model.vocabulary]}
    files.write_json(folder / "generation_config.json", ids | {"do_sample": True, "top_k": 0} | never)
    files.write_with(folder / "model.safetensors", lambda path: save_file(weights, path, metadata={"format": "pt"}))
    if tokenizer is not None:
        files.write_json(folder / "tokenizer.json", with_start(tokenizer, model.vocabulary))
        files.write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, end, model.length))
    files.write_text(folder / "README.md", readme)


def qwen3_config(model: Transformer) -> dict[str, Any]:
    body = model.model
    layer = body.layers[0]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": model.vocabulary + 1,
        "hidden_size": body.width,
        "intermediate_size": layer.mlp.gate_proj.out_features,
        "num_hidden_layers": len(body.layers),
        "num_attention_heads": body.heads,
        "num_key_value_heads": body.heads,
        "head_dim": body.width // body.heads,
        "hidden_act": "silu",
        "max_position_embeddings": model.length,
        "rms_norm_eps": body.norm.eps,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def qwen3_weights(model: Transformer) -> dict[str, Tensor]:
    """The weights under Qwen3's names, the start as one more token, V. Raises SpaceError for what Qwen3 cannot express.

    The head needs a row for the start too, and has no bias that could forbid it. The row is the mean of the others, so the start
    is as likely as the geometric mean of the tokens: never above 1 / V, and far below where the model is sure. For that the head is
    written on its own even where it was tied. Digits are folded into plain rows.
    """
    state = model.state_dict()
    for name in state:
        if not PART_OF_QWEN3.fullmatch(name) and not FOLDED.fullmatch(name):
            raise SpaceError(f"this transformer has {_in_words(name)}")
    kept = {k: v for k, v in state.items() if PART_OF_QWEN3.fullmatch(k)}
    embedding, head = model.model.embed_tokens.rows, (model.lm_head or model.model.embed_tokens).rows
    kept["model.embed_tokens.weight"] = torch.cat([embedding, model.model.start[None]])
    kept["lm_head.weight"] = torch.cat([head, head.mean(0, keepdim=True)])
    return {k: v.detach().float().cpu().contiguous().clone() for k, v in kept.items()}


def _in_words(name: str) -> str:
    found = [words for start, words in REFUSED.items() if name.startswith(start)]
    return found[0] if found else REFUSED["condition."] if ".film." in name else f"{name}, which Qwen3 has not"


def with_start(tokenizer: Mapping[str, Any], start: int) -> dict[str, Any]:
    """tokenizer.json with the token `<start>`, which is put before every text."""
    mark = {"content": START, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [*(tokenizer.get("added_tokens") or []), {"id": start, **mark, "special": True}]
    before, text = {"SpecialToken": {"id": START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [before, text],
        "pair": [before, text, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {START: {"id": START, "ids": [start], "tokens": [START]}},
    }
    if old := tokenizer.get("post_processor"):
        processor = {"type": "Sequence", "processors": [old, processor]}
    return {**tokenizer, "added_tokens": added, "post_processor": processor}


def _tokenizer_config(tokenizer: Mapping[str, Any], end: int | None, length: int) -> dict[str, Any]:
    names = {t["id"]: t["content"] for t in tokenizer["added_tokens"]} | {i: t for t, i in _vocabulary(tokenizer)}
    closing = {"eos_token": names[end], "pad_token": names[end]} if end in names else {}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": START, "model_max_length": length}
    return config | closing | {"clean_up_tokenization_spaces": False}


def _unknown(tokenizer: Mapping[str, Any]) -> list[int]:
    """The token that stands for what the tokenizer does not know: read, never written."""
    name = (tokenizer.get("model") or {}).get("unk_token")
    return [i for token, i in _vocabulary(tokenizer) if token == name]


def _vocabulary(tokenizer: Mapping[str, Any]) -> list[tuple[str, int]]:
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    return list(vocabulary.items()) if isinstance(vocabulary, Mapping) else []


def card(run: Run, model: Transformer, text: bool) -> str:
    """README.md: what it is, whence, how it is used, what the audit found."""
    newest = run.newest(())
    if newest is None:
        raise RunError(f"{run.path} has no checkpoint yet; train for a little longer")
    rows = {
        "stored as": "`Qwen3ForCausalLM` in float32",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "steps of training": f"{newest.facts['step']:,}",
        "tokens it knows": f"{model.vocabulary:,}, and `<start>` (number {model.vocabulary}), which stands before every piece",
        "tokens it sees at once": f"{model.length:,}; nothing longer was trained",
    }
    head = {"library_name": "transformers"} | ({"pipeline_tag": "text-generation"} if text else {})
    use = f"```python\n{USE_TEXT if text else USE_TOKENS}\n```\n\n{NEVER}"
    return cards.model_card(run.facts["corpus"], run.recipe.model_dump(), audit_of(run), rows=rows, head=head, use=use)


def audit_of(run: Run) -> dict[str, Any] | None:
    """What `audit` wrote into the run's folder; None where it did not run. Raises RunError where it is damaged."""
    path = run.path / AUDIT
    try:
        return files.read_json(path) if path.is_file() else None
    except ValueError:
        raise _damaged(run) from None


def _damaged(run: Run) -> RunError:
    return RunError(f"{run.path / AUDIT} is damaged; run `maquette audit {run.path}` again")


NEVER = """`<start>` is never to be written: `generation_config.json` says so to transformers. Programs that do not read that file draw it with the
geometric mean of the other tokens' probabilities, which is small but not zero."""
USE_TEXT = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
made = model.generate(**tokenizer("How it begins", return_tensors="pt"), max_new_tokens=100)
print(tokenizer.decode(made[0], skip_special_tokens=True))"""
USE_TOKENS = """import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(".")
tokens = model.generate(torch.tensor([[model.config.bos_token_id]]), max_new_tokens=100)  # numbers: no tokenizer came with them"""
