"""Everything moves: an ordinary fine-tune."""

from __future__ import annotations

from maquette.space import Model


class Full:
    """Leaves the model as it is, so that training goes on from the start's weights."""

    def apply(self, model: Model) -> None:
        """Nothing is frozen."""
