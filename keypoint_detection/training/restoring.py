"""Check what Lightning and torch do not when they restore the training state from a checkpoint."""

import math
from collections.abc import Callable
from typing import Any

from keypoint_detection.printing import first_line

# The tensors that torch's optimisers keep for each parameter, with its shape.
_MOMENTS = (
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum"),
    *("exp_inf", "prev", "step_size"),
)


def explain_failed_restoring(trainer: Any, explain: Callable[[str], Exception]) -> None:
    """Make a Trainer raise a single kind of error if it cannot restore the training state from a checkpoint.

    Args:
        trainer: changed in place.
        explain: turns a description of the problem into the error to raise; errors of that class pass through.
    """
    connector = trainer._checkpoint_connector
    own = type(explain(""))

    def guard(restore: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                restore()
            except own:
                raise
            except Exception as error:  # Lightning and torch check nothing
                raise explain(f"{type(error).__name__}: {first_line(error)}") from error

        return guarded

    def restore_training() -> None:
        before = _outline(_state_of_training(trainer))
        restore_as_before()
        _require_like(before, _outline(_state_of_training(trainer)), "")
        for optimizer in trainer.optimizers:
            if len({frozenset(state) for state in optimizer.state.values()}) > 1:
                raise ValueError("the optimiser has different entries for different weights")
            for parameter, state in optimizer.state.items():
                if not 0 <= float(state.get("step", 0)) < math.inf:
                    raise ValueError("the optimiser has not counted its steps")
                for name, value in state.items():
                    is_like = name not in _MOMENTS or (value.shape, value.dtype) == (parameter.shape, parameter.dtype)
                    if not is_like or (hasattr(value, "isfinite") and not value.isfinite().all()):
                        raise ValueError(f"{name} of the optimiser is not finite or has another shape than its weights")

    restore_as_before = connector.restore_training_state
    connector.restore_training_state = guard(restore_training)
    connector._restore_modules_and_callbacks = _guard_with_path(connector._restore_modules_and_callbacks, guard)


def _guard_with_path(restore: Any, guard: Any) -> Any:
    return lambda *args, **kwargs: guard(lambda: restore(*args, **kwargs))()


def _state_of_training(trainer: Any) -> dict[str, Any]:
    return {
        "optimiser": [optimizer.param_groups for optimizer in trainer.optimizers],
        "schedule": [
            {name: value for name, value in vars(config.scheduler).items() if not callable(value)}
            for config in trainer.lr_scheduler_configs
        ],
        "loops": trainer.fit_loop.state_dict(),
    }


def _outline(value: Any) -> Any:
    """Reduce a nested value to the kinds of its parts, distinguishing numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _outline(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_outline(entry) for entry in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number" if math.isfinite(value) else f"{value}"
    return type(value).__name__


def _require_like(before: Any, after: Any, place: str) -> None:
    """Refuse a restored state in which anything is of another kind than in the fresh state that it replaced."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                raise ValueError(f"{place}{key} is missing")
            _require_like(before[key], after[key], f"{place}{key}.")
    elif isinstance(before, list) and isinstance(after, list):
        for one, other in zip(before, after, strict=False):
            _require_like(one, other, place)
    elif before != after and (before not in ("NoneType", "inf", "-inf") or (before, after) == ("NoneType", "Tensor")):
        raise ValueError(f"{place.rstrip('.')}: {before} expected, found {after}")
