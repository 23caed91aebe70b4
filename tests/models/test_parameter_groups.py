import pytest
import torch
from torch import nn

from keypoint_detection.models.parameter_groups import make_parameter_groups


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def names(module, group):
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in module.named_parameters() if id(parameter) in wanted}


def test_norms_and_biases_do_not_decay():
    module = network()
    groups = make_parameter_groups(module, None, lr=0.1, slow_lr_factor=1.0, decays_all=False)
    assert len(groups) == 2
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.3)
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in names(module, group)}
    assert decays == {"0.weight": 0.3, "2.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.bias": 0}
    assert {group["lr"] for group in groups} == {0.1}


def test_a_slow_part_has_its_own_learning_rate():
    module = network()
    groups = make_parameter_groups(module, module[0], lr=0.1, slow_lr_factor=0.5, decays_all=True)
    rates = {name: group["lr"] for group in groups for name in names(module, group)}
    assert rates == {"0.weight": 0.05, "0.bias": 0.05} | dict.fromkeys(
        ["1.weight", "1.bias", "2.weight", "2.bias"], 0.1
    )


@pytest.mark.parametrize("decays_all", [True, False])
def test_parameters_without_gradients_are_left_out(decays_all):
    module = network()
    module[0].requires_grad_(False)
    groups = make_parameter_groups(module, None, lr=0.1, slow_lr_factor=1.0, decays_all=decays_all)
    found = set().union(*(names(module, group) for group in groups))
    assert found == {"1.weight", "1.bias", "2.weight", "2.bias"}
