"""The shape of the house: imports point down only, doors open fast, nothing unpickles."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "maquette"
FLOORS = [  # a file imports from lower floors only; within guard/, nets/, pretext/, provenance/, scores/, tasks/ and verbs/ files may know each other
    ["errors", "muon", "splitting"],
    [
        "alphabet",
        "arrays",
        "automaton",
        "cards",
        "cleaning",
        "condition",
        "files",
        "finding",
        "licences",
        "rhyme",
        "shingles",
        "spans",
        "texts",
    ],
    [
        "building",
        "copying",
        "duplicates",
        "expression",
        "guard",
        "guide",
        "neighbours",
        "provenance",
        "ratings",
        "scores",
        "sheets",
        "sources",
        "space",
    ],
    ["aligned", "catalog", "ragged", "nets", "verse"],
    ["adapting", "piece", "loop", "page", "partners", "writing", "prose"],
    ["recipe"],
    ["corpus", "run", "modalities", "models", "pretext", "tasks", "adapters", "metrics"],
    ["features", "feedback", "grams", "likelihood", "prior", "starting", "trackers"],
    ["encoders", "probing", "reader"],
    ["verbs"],
    ["show", "screen"],
    ["api"],
    ["cli"],
]
FAMILIES = ("guard", "nets", "pretext", "provenance", "scores", "tasks", "verbs")


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if p.name != "__init__.py")


def floor(name: str) -> int:
    found = [k for k, floor in enumerate(FLOORS) if name in floor]
    assert found, f"{name} has no floor: give it one in tests/test_house.py and docs/design.md"
    return found[0]


def imported(path: Path) -> set[str]:
    """First parts of every maquette module a file names, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "maquette":
            parts = node.module.split(".")[1:]
            found |= (
                {parts[0]} if parts else {alias.name for alias in node.names if (SOURCE / f"{alias.name}.py").exists()}
            )
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("maquette.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_imports_point_down_only(path: Path) -> None:
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    for other in imported(path):
        if other == own and own in FAMILIES:
            continue
        assert floor(other) < floor(own), f"{own} (floor {floor(own)}) may not know {other} (floor {floor(other)})"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_nothing_is_unpickled(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("pickle.load", "torch.load(", "allow_pickle=True"):
        assert word not in text, f"{path.name} reads pickles ({word}); weights are safetensors, the rest JSON"


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_importing_the_package_loads_no_torch() -> None:
    done = run_python("import sys, maquette; assert 'torch' not in sys.modules and 'numpy' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_asking_for_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['maquette', '--help']\n"
        "from maquette.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "create" in done.stdout and "generate" in done.stdout


def test_every_public_name_leads_somewhere() -> None:
    import maquette

    assert all(getattr(maquette, name) is not None for name in maquette.__all__)
    assert callable(maquette.train) and callable(maquette.generate)


def test_no_library_of_another_machine_slipped_in() -> None:
    from importlib.metadata import distributions

    names = {d.metadata["Name"].lower() for d in distributions() if d.metadata["Name"]}
    unwanted = {n for n in names if n.startswith("nvidia-") or n in ("torchvision", "torchaudio", "triton")}
    import torch

    if torch.version.cuda is None:
        assert not unwanted, f"a CPU environment should not hold {unwanted}"
