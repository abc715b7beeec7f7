"""Linear layers in int8, and how long a precision takes."""

import pytest
import torch
from torch import nn

from difformer_plugin.networks import precision

LEVELS = 127  # steps of a scale: inputs have seven bits, weights eight with a sign


class Network(nn.Module):
    """What `precision` reads of a denoiser."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 8, bias=False)
        self.output_projection = nn.Linear(8, 100, bias=False)


def test_error_of_int8_is_that_of_rounding():
    torch.manual_seed(0)
    network = Network()
    first = precision.converted(network, torch.qint8).first
    x = torch.randn(50, 24)
    weight = network.first.weight.detach()
    error_w = weight.abs().max() / LEVELS
    error_x = (x.max() - x.min()) / LEVELS
    bound = (x.abs() + error_x) @ torch.full_like(weight, error_w).T + error_x * weight.abs().sum(1)
    error = (first(x) - network.first(x)).abs()
    assert (error <= bound / 2).all() and 0 < error.mean() < bound.mean() / 8


def test_int8_leaves_rounding_and_the_model_alone():
    network = Network()
    converted = precision.converted(network, torch.qint8)
    assert not any(isinstance(own, nn.Linear) for own in (converted.first, converted.second))
    assert converted.output_projection.weight.equal(network.output_projection.weight)
    assert isinstance(network.first, nn.Linear)
    assert precision.state_type(torch.qint8) == torch.float32


def test_half_precision_converts_all():
    converted = precision.converted(Network(), torch.bfloat16)
    assert {weight.dtype for weight in converted.parameters()} == {torch.bfloat16}
    assert precision.state_type(torch.bfloat16) == torch.bfloat16


def test_time_is_that_of_the_largest_layer_relative_to_float32(monkeypatch):
    asked = []

    def seconds(dtype, shape, device):
        asked.append((tuple(shape), device.type))
        return {torch.float32: 2.0, torch.bfloat16: 5.0}[dtype]

    monkeypatch.setattr(precision, "seconds", seconds)
    assert precision.relative_time(Network(), torch.bfloat16) == 2.5
    assert set(asked) == {((40, 24), "cpu")}


@pytest.mark.parametrize("dtype", precision.PRECISIONS.values())
def test_the_least_of_several_times_counts(dtype, monkeypatch):
    clock = iter([0, 5, 5, 6, 6, 9])  # of a process that is interrupted twice
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    precision.seconds.cache_clear()
    assert precision.seconds(dtype, torch.Size([16, 8]), torch.device("cpu")) == 1
    precision.seconds.cache_clear()
