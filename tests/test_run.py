"""Runs: checkpoints that count only when they are whole, locks, logs, versions."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch

from maquette.errors import RunError, StorageError
from maquette.files import read_json, write_json
from maquette.loop import TrainState, make_plan
from maquette.recipe import make_recipe, settle
from maquette.run import Run, keep_codes
from maquette.space import DataSpec, Space

SPEC = DataSpec(Space("grid", (1, 8, 8)))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    recipe = settle(make_recipe({"model": "vae", "size": "tiny"}))
    return Run.create(tmp_path / "run", recipe, {"spec": SPEC.to_json(), "corpus": {"name": "toy"}})


def state(run: Run, step: int = 3) -> TrainState:
    torch.manual_seed(step)
    model = run.build()
    now = TrainState(model, make_plan(model, {"steps": 10}))
    now.step = step
    return now


def test_a_checkpoint_gives_back_what_was_saved(run: Run) -> None:
    now = state(run)
    run.save(now)
    found = run.newest()
    assert found is not None and found.facts == now.facts()
    for name, tensor in now.model.state_dict().items():
        assert torch.equal(found.tensors["weights"][name], tensor)


def test_only_the_newest_two_stay(run: Run) -> None:
    for step in (1, 2, 3, 4):
        run.save(state(run, step))
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["00000003", "00000004"]


@pytest.mark.parametrize("harm", ["cut", "flip", "no manifest", "no weights"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(run: Run, harm: str) -> None:
    run.save(state(run, 1))
    damaged = run.save(state(run, 2))
    weights = damaged / "weights.safetensors"
    content = weights.read_bytes()
    if harm == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        weights.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm == "no manifest":
        (damaged / "manifest.json").unlink()
    else:
        weights.unlink()
    found = run.newest()
    assert found is not None and found.facts["step"] == 1
    assert (run.path / "checkpoints" / "00000002.damaged").is_dir()


def test_when_all_are_damaged_it_says_so(run: Run) -> None:
    folder = run.save(state(run))
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"every checkpoint of .* is damaged"):
        run.newest()


def test_a_full_disk_leaves_the_last_good_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(state(run, 1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("maquette.run.sync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        run.save(state(run, 2))
    monkeypatch.undo()
    found = run.newest()
    assert found is not None and found.facts["step"] == 1
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["00000001"]


def test_one_process_a_run(run: Run) -> None:
    with run.lock(), pytest.raises(RunError, match="is being trained by process"), run.lock():
        pass
    with run.lock():
        pass


def test_the_log_forgets_what_will_be_done_again_and_half_a_line(run: Run) -> None:
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1.0})
    with (run.path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 2, "lo')
    run.forget_log_after(2)
    assert (run.path / "log.jsonl").read_text().splitlines() == [
        '{"step": 1, "loss": 1.0}',
        '{"step": 2, "loss": 1.0}',
    ]


def test_another_version_and_no_run_are_named(run: Run, tmp_path: Path) -> None:
    write_json(run.path / "run.json", read_json(run.path / "run.json") | {"version": 99})
    with pytest.raises(RunError, match="version 99"):
        Run.open(run.path)
    with pytest.raises(RunError, match="no run at"):
        Run.open(tmp_path)


def test_a_run_is_not_made_over_other_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(RunError, match="holds files but no run"):
        Run.create(tmp_path / "photos", run.recipe, {})
    assert (tmp_path / "photos" / "a.png").read_bytes() == b"x"


def test_a_moved_run_still_opens(run: Run, tmp_path: Path) -> None:
    run.save(state(run))
    shutil.move(run.path, tmp_path / "elsewhere")
    assert Run.open(tmp_path / "elsewhere").load_model() is not None


def test_a_code_is_kept_where_all_its_pixels_are() -> None:
    keep = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    keep[..., :5] = True
    kept = keep_codes(keep, Space("tokens", (16,), 5), (4, 4))
    assert kept.reshape(4, 4).tolist() == [[True, True, False, False]] * 4
    assert keep_codes(keep, Space("grid", (3, 4, 4)), (4, 4)).shape == (1, 3, 4, 4)


def test_a_run_killed_while_it_was_made_or_saved_leaves_nothing_in_the_way(run: Run, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    for name in (".lock", ".run.json.x1y2.json", "recipe.toml"):
        (tmp_path / "half" / name).write_text("half a li")
    assert Run.create(tmp_path / "half", run.recipe, run.facts).recipe == run.recipe
    (run.path / "checkpoints" / ".00000001.4711").mkdir(parents=True)
    run.save(state(run))
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["00000003"]
