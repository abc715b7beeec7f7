"""Precisions that would be slower than float32 are refused, by what processors say or by timing."""

from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.decoding import precision
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError

DENOISER = SimpleNamespace(output_projection=torch.nn.Linear(2, 2))
ON_GPU = SimpleNamespace(output_projection=torch.nn.Linear(2, 2, device="meta"))  # in its place


@pytest.fixture
def machine(monkeypatch):
    """Sets how long precisions take, relative to float32, and whether the CPU has AMX."""

    def set_machine(amx=False, **times):
        def relative_time(denoiser, dtype):
            assert denoiser is DENOISER
            return {precision.PRECISIONS[name]: time for name, time in times.items()}[dtype]

        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(precision, "relative_time", relative_time)

    return set_machine


def check(name, denoiser=DENOISER, **options):
    precision.check_precision(denoiser, DecodingOptions(decoding_precision=name, **options))


def test_slow_precisions_are_refused_unless_forced(machine):
    machine(bf16=6.13, int8=0.6)
    message = r"--decoding-precision bf16 is slower.* 6\.1 times as long.* --force-precision"
    with pytest.raises(UserError, match=message) as refusal:
        check("bf16")
    assert "\n" not in str(refusal.value)
    check("bf16", force_precision=True)
    check("int8")


def test_full_precision_is_never_timed(machine):
    machine()  # a time that is asked for raises
    check(None)
    check("fp32")


def test_amx_is_known_to_be_fast_in_bfloat16_only(machine):
    machine(amx=True, fp16=3.0)
    check("bf16")
    with pytest.raises(UserError, match="fp16 is slower"):
        check("fp16")


def test_int8_is_for_cpus():
    with pytest.raises(UserError, match="int8 is for CPUs"):
        check("int8", ON_GPU, force_precision=True)


@pytest.mark.parametrize(
    "capability, fast", [((6, 1), []), ((7, 5), ["fp16"]), ((8, 0), ["fp16", "bf16"])]
)
def test_gpus_are_asked_for_their_capability(capability, fast, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    names = [n for n in ("fp16", "bf16") if precision.has_instructions(n, torch.device("cuda"))]
    assert names == fast
