"""The compiled steps of the decoder against their plain forms in torch, in float32 on the same numbers."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keylm.model.initialization import init_model
from keylm.model.kernels import build, ops
from keylm.recipe.model import ModelConfig

Operation = Callable[..., Tensor | tuple[Tensor, ...]]

pytestmark = pytest.mark.skipif(build.kernel_library() is None, reason="no C++ compiler")
with_and_without_instructions = pytest.mark.usefixtures("kernels")


@pytest.fixture(scope="module", params=["", "-mno-avx512bf16", "-mno-avx512bf16 -mno-avx512f"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for this processor, and as if it had fewer instructions."""
    if request.param and platform.machine() != "x86_64":
        pytest.skip("the flags are those of x86-64")
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    build._compile_kernels(os.environ.get("CXX", "g++"), [*build._FLAGS, *request.param.split()], path)
    return ctypes.CDLL(str(path))


@pytest.fixture
def kernels(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the operations use `library`."""
    monkeypatch.setattr(build, "kernel_library", lambda: library)
    monkeypatch.setattr(ops, "kernel_library", lambda: library)


def run(operation: Operation, inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Results and gradients, float32, of an operation on inputs in `dtype` (vectors and weights stay float32)."""
    inputs = [t.detach().to(dtype if t.dtype == torch.bfloat16 else t.dtype).requires_grad_() for t in inputs]
    results = operation(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    generator = torch.Generator().manual_seed(1)
    torch.autograd.backward(
        results, [torch.randn(r.shape, generator=generator).bfloat16().to(r.dtype) for r in results]
    )
    return [t.float() for t in (*results, *(t.grad for t in inputs))]


def check(operation: Operation, *inputs: Tensor) -> None:
    """Compiled in bfloat16 against plain in float32: apart by the rounding of what is stored, a part in a hundred."""
    compiled, plain = (run(operation, list(inputs), dtype) for dtype in (torch.bfloat16, torch.float32))
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 0.01 * theirs.norm()


def low(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16()


@with_and_without_instructions
@pytest.mark.parametrize("width", [32, 72, 512])
def test_norm(width: int) -> None:
    check(lambda x, d, w: ops.add_rms_norm(x, d, w, 1e-6), low(3, 7, width), low(3, 7, width), torch.randn(width))


@with_and_without_instructions
def test_norm_and_products() -> None:
    x, delta = low(3, 40, 64), low(3, 40, 64)
    weights = [torch.randn(rows, 64) for rows in (48, 16, 16)]
    check(lambda x, d, n, *w: ops.norm_linear(x, d, n, 1e-6, *w), x, delta, torch.randn(64), *weights)


@with_and_without_instructions
def test_products() -> None:
    check(ops.linear, low(3, 40, 48), torch.randn(16, 48), torch.randn(24, 48))


@pytest.mark.parametrize("rows", [1, 47, 48, 100])
def test_products_of_few_and_many_rows_in_float32(rows: int) -> None:
    x, weights = torch.randn(rows, 48), [torch.randn(16, 48), torch.randn(24, 48)]
    expected = torch.cat([x.double() @ weight.double().T for weight in weights], dim=1)
    torch.testing.assert_close(ops.linear(x, *weights).double(), expected, rtol=1e-5, atol=1e-4)


@with_and_without_instructions
@pytest.mark.parametrize(("n", "rows", "columns"), [(64, 48, 112), (32, 112, 48), (40, 112, 48), (64, 50, 48)])
def test_gradient_of_a_weight(n: int, rows: int, columns: int) -> None:
    grad, x = low(n, rows), low(n, columns)
    expected = grad.float().T @ x.float()
    result = ops.weight_grad(grad, x)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=2**-8, atol=1e-6)


@with_and_without_instructions
@pytest.mark.parametrize("width", [40, 96])
def test_swiglu(width: int) -> None:
    check(ops.swiglu_linear, 3 * low(3, 7, 2 * width), torch.randn(24, width))


@with_and_without_instructions
@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("rotary_batch", [1, 2])
def test_split_norm_rope(rotary_batch: int, width: int) -> None:
    angles = torch.randn(rotary_batch, 9, 1, width // 2).repeat(1, 1, 1, 2)
    rotary = torch.stack([angles.cos(), angles.sin()])
    check(
        lambda qkv, q, k: ops.split_norm_rope(qkv, q, k, rotary, (4, 2), 1e-6),
        low(2, 9, 8 * width),
        torch.randn(width),
        torch.randn(width),
    )


@pytest.fixture(params=["torch", "own"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two products that attention can be made of; torch's needs AMX."""
    functions = build.torch_products() if request.param == "torch" else build.own_products()
    if functions is None:
        pytest.skip("torch has no fast bfloat16 brgemm here: it needs AMX")
    monkeypatch.setattr(ops, "product_functions", lambda: functions)
    return str(request.param)


@with_and_without_instructions
@pytest.mark.parametrize(("time", "width", "keys"), [(64, 64, 2), (640, 32, 1), (1088, 64, 4)])
def test_attention(products: str, time: int, width: int, keys: int) -> None:
    check(ops.causal_attention, 2 * low(2, 4, time, width), 2 * low(2, keys, time, width), low(2, keys, time, width))


@pytest.mark.parametrize("sizes", [(64, 128, 32), (8, 96, 64), (4, 32, 2)])
def test_block_product(library: ctypes.CDLL, sizes: tuple[int, int, int]) -> None:
    """For whole tiles of columns and for the half tile at the end."""
    rows, columns, depth = sizes
    a, b = low(rows, depth), low(depth, columns)
    # Rows 2i and 2i + 1 of the right side stand as pairs.
    interleaved = b.view(depth // 2, 2, columns).transpose(1, 2).contiguous()
    out = torch.ones(rows, columns)
    numbers = [ctypes.c_int64(number) for number in (rows, columns, depth, depth, columns, columns)]
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (a, interleaved, out)]
    for adds in (True, False):
        library.block_product(*numbers, ctypes.c_bool(adds), *addresses, ctypes.c_bool(True))
        torch.testing.assert_close(out, a.float() @ b.float() + adds, rtol=1e-4, atol=1e-4)


def test_attention_of_other_lengths_is_torchs() -> None:
    q, k, v = low(1, 4, 50, 64), low(1, 2, 50, 64), low(1, 2, 50, 64)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)
    assert torch.equal(ops.causal_attention(q, k, v), expected)


@with_and_without_instructions
def test_cross_entropy() -> None:
    logits, targets = 5 * low(9, 301), torch.randint(301, (9,))
    targets[3] = -100
    plain = logits.float().requires_grad_()
    expected = F.cross_entropy(plain, targets, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(ops.nll(F.pad(logits, (0, 19)), targets, 301), expected.detach(), rtol=1e-5, atol=1e-5)
    nll, grad = ops.cross_entropy(F.pad(logits, (0, 19)), targets, 301)
    torch.testing.assert_close(nll, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad[:, :301].float(), plain.grad, rtol=2**-8, atol=1e-6)
    assert not grad[:, 301:].any()


@with_and_without_instructions
def test_nan_stays_nan() -> None:
    logits, hidden = low(2, 64), low(2, 64)
    logits[0, 5] = hidden[0, 5] = float("nan")
    nll, _ = ops.cross_entropy(logits, torch.tensor([1, 1]), 64)
    _, normed = ops.add_rms_norm(hidden, torch.zeros_like(hidden), torch.ones(64), 1e-6)
    assert nll.isnan().tolist() == [True, False]
    assert normed.isnan().any(dim=1).tolist() == [True, False]


@with_and_without_instructions
def test_extreme_scores_do_not_overflow() -> None:
    x = torch.tensor([[-3e38, 3e38, -200.0, 200.0, 0.0, 1.0, -1.0, 90.0] * 4]).bfloat16()
    x[0, 8:] = 0
    nll, grad = ops.cross_entropy(x.clone(), torch.tensor([1]), 8)
    assert nll.item() == 0
    assert grad.isfinite().all()
    gate = torch.tensor([[-3e4, 3e4, -200.0, 200.0, -88.0, 1.0, -1.0, 90.0] * 4]).bfloat16()
    out = ops.swiglu_linear(torch.cat([gate, torch.ones_like(gate)], dim=1), torch.eye(32))
    torch.testing.assert_close(out.float(), F.silu(gate.float()), rtol=2**-7, atol=1e-30)


def test_model_gradients_are_as_accurate_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=96,
    )
    tokens = torch.randint(300, (2, 129))

    def gradient(dtype: torch.dtype) -> Tensor:
        model = init_model(config, 0)
        model.compute_dtype = dtype
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, compiled = gradient(torch.float32), gradient(torch.bfloat16)
    monkeypatch.setattr(ops, "kernel_library", lambda: None)
    plain = gradient(torch.bfloat16)
    assert not torch.equal(compiled, plain)
    assert (compiled - exact).norm() <= 1.1 * (plain - exact).norm() < 0.1 * exact.norm()


def test_bits_do_not_depend_on_the_number_of_threads(products: str) -> None:
    inputs = [low(2, 4, 128, 64), low(2, 2, 128, 64), low(2, 2, 128, 64)]
    width = low(5, 64), low(5, 64), torch.randn(64)
    matrices = low(320, 96), torch.randn(48, 96)
    threads = torch.get_num_threads()
    try:
        seen = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            seen.append(
                run(ops.causal_attention, [*inputs], torch.bfloat16)
                + run(lambda x, d, w: ops.add_rms_norm(x, d, w, 1e-6), [*width], torch.bfloat16)
                + run(ops.linear, [*matrices], torch.bfloat16)
            )
    finally:
        torch.set_num_threads(threads)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


def test_without_a_compiler_torch_is_used(tmp_path: Path) -> None:
    code = (
        "import torch; from keylm.model.kernels import build, ops; assert build.kernel_library() is None;"
        "x = torch.ones(2, 8).bfloat16(); total, out = ops.add_rms_norm(x, 0 * x, torch.ones(8), 1e-6);"
        "print(out.sum().item())"
    )
    environment = {**os.environ, "PATH": str(tmp_path)}
    environment.pop("CXX", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "16.0"


def test_failing_compiler_is_a_warning(tmp_path: Path) -> None:
    code = "from keylm.model.kernels import build; assert build.kernel_library() is None"
    environment = {**os.environ, "CXX": "/bin/false", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "cannot build kernels.cpp" in done.stderr
