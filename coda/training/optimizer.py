"""AdamW with the method's groups, one global norm for clipping, and the teacher's moving average."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from coda.errors import ConfigError, Problem


def parameter_groups(networks: Iterable[nn.Module]) -> list[dict[str, object]]:
    """Split trainable parameters in two groups: with weight decay, and without (biases and all 1-D tensors).

    Class token and positions have more than one axis and are decayed, as in DINO and the released code.
    """
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "decayed": True},
        {"params": [p for p in parameters if p.ndim <= 1], "decayed": False, "weight_decay": 0.0},
    ]


def new_optimizer(networks: Iterable[nn.Module], device: torch.device) -> torch.optim.AdamW:
    """Return AdamW over the networks' trainable parameters; learning rate and decay are set every iteration."""
    return torch.optim.AdamW(parameter_groups(networks), lr=0.0, weight_decay=0.0, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, *, learning_rate: float, weight_decay: float) -> None:
    """Set learning rate of all groups, and weight decay of the group that is decayed."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if group["decayed"]:
            group["weight_decay"] = weight_decay


def clip_global_norm(optimizer: torch.optim.Optimizer, limit: float) -> Tensor:
    """Scale all gradients so that their one common norm is at most `limit`; return the norm before, on the device.

    A parameter without gradient, such as a frozen last layer, does not count.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)


@torch.no_grad()
def update_ema(teacher: Sequence[nn.Module], student: Sequence[nn.Module], momentum: float) -> None:
    """Move every teacher parameter to ``momentum * teacher + (1 - momentum) * student``, in place."""
    ours: list[Tensor] = [p for network in teacher for p in network.parameters()]
    theirs: list[Tensor] = [p for network in student for p in network.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - momentum)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return AdamW's moments and step counts by '<parameter>.<name>', for a checkpoint."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimizer the moments and step counts of `optimizer_tensors`.

    Raises:
        ConfigError: They belong to other parameters: another number of them, or other shapes.
    """
    _require_fitting(optimizer, tensors)
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**content, "state": state})


def _require_fitting(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wrong = [
        f"{key} of shape {tuple(tensor.shape)}"
        for key, tensor in tensors.items()
        if not key.partition(".")[0].isdigit()
        or int(key.partition(".")[0]) >= len(parameters)
        or (tensor.ndim and tensor.shape != parameters[int(key.partition(".")[0])].shape)
    ]
    if wrong:
        remedy = "Train the same weights as before, or set adaptation.carry_optimizer=false."
        problem = Problem("optimizer", wrong[0], f"moments of {len(parameters)} parameters that learn", remedy)
        raise ConfigError("The optimizer's moments belong to other weights.", [problem])
