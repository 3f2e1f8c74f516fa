"""Several pretext tasks on one encoder: `maquette pretrain corpora/mine --task masked+rotation`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maquette.errors import SettingError, UnknownName
from maquette.nets.trunk import GridBody, Size
from maquette.pretext import contrast, masked, rotation
from maquette.pretext._practice import Practice, usual_body
from maquette.space import DataSpec

EXERCISES = {"masked": masked.exercise, "rotation": rotation.Turned, "contrast": contrast.Views}
USUAL = {"masked": masked.Hidden, "rotation": rotation.Turned, "contrast": contrast.Views}


class Joint(Practice):
    """Several tasks at once, each with its usual settings; their losses are added."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        tasks: Annotated[list[str], Field(description="masked, rotation, contrast: two or more of them")] = [  # noqa: B006
            "masked",
            "contrast",
        ],
        body: Annotated[
            GridBody | None, Field(description="the model that starts from it; none: that of the last task")
        ] = None,
        size: Annotated[Size, Field(description="of that model on the dial")] = "small",
    ):
        for task in tasks:
            if task not in EXERCISES:
                raise UnknownName("pretext task", task, EXERCISES)
        if not tasks or len(set(tasks)) < len(tasks):
            raise SettingError(f"joint.tasks should be different tasks; {tasks} came")
        body = usual_body(spec, body, [USUAL[task] for task in tasks], "joint")
        super().__init__(spec, body, size, {task: EXERCISES[task](spec, body, size) for task in tasks})
