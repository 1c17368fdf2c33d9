"""Compiles kernels.cpp on first use and wraps it as differentiable PyTorch functions (float32, CPU).

Calls go through ctypes, which releases Python's lock, so two training threads really run side by side.
"""
import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess
import tempfile

import torch

SOURCE = pathlib.Path(__file__).with_name("kernels.cpp")
FLAGS = ["-O3", "-march=native", "-ffast-math", "-std=c++17", "-shared", "-fPIC"]


@functools.cache
def library():
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = pathlib.Path(tempfile.gettempdir()) / f"nano-kernels-{os.getuid()}-{digest}.so"
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CXX", "g++"), *FLAGS, str(SOURCE), "-o", str(fresh)], check=True)
        fresh.replace(path)
    return ctypes.CDLL(str(path))


def call(name, *args):
    """Tensors pass as pointers (they must be contiguous and stay alive), ints as 64-bit, floats as 32-bit."""
    converted = []
    for arg in args:
        if isinstance(arg, torch.Tensor):
            assert arg.is_contiguous()
            converted.append(ctypes.c_void_p(arg.data_ptr()))
        else:
            converted.append(ctypes.c_int64(arg) if isinstance(arg, int) else ctypes.c_float(arg))
    getattr(library(), name)(*converted)


class Attention(torch.autograd.Function):
    """Attention with rotary embedding and sinks over segments of a packed list of rows; see kernels.cpp.

    q [query rows, heads, 32], k and v [rows, kv_heads, 32], before rotation; sinks [heads] float32;
    segments int64 [n, 6]; positions int64 [rows]; cos, sin float32 [positions, 16]; window 0 for full attention.
    """

    @staticmethod
    def forward(ctx, q, k, v, sinks, segments, positions, cos, sin, window):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        assert q.dtype == k.dtype == v.dtype == torch.float32 and q.shape[2] == 32 and q.shape[1] == 4 * k.shape[1]
        shape = torch.tensor([len(segments), k.shape[1], k.shape[0], q.shape[0], window])
        out, log_sum = torch.zeros_like(q), torch.empty(q.shape[:2])
        call("attention_forward", shape, segments, q, k, v, sinks, cos, sin, out, log_sum)
        ctx.save_for_backward(q, k, v, sinks, segments, positions, cos, sin, shape, out, log_sum)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, sinks, segments, positions, cos, sin, shape, out, log_sum = ctx.saved_tensors
        grad_q, grad_k = torch.zeros_like(q), torch.empty_like(k)
        rotated_k, grad_v = torch.zeros(k.shape), torch.zeros(v.shape)
        grad_sinks = torch.zeros_like(sinks)
        call("attention_backward", shape, segments, q, k, v, sinks, cos, sin, out, log_sum, grad.contiguous(), grad_q,
             rotated_k, grad_v, grad_sinks)
        call("unrotate", k.shape[0], k.shape[1], positions, cos, sin, rotated_k, grad_k)
        return grad_q, grad_k, grad_v, grad_sinks, None, None, None, None, None


class Swiglu(torch.autograd.Function):
    """The clamped SwiGLU; x [rows, 2 * width] holds the gates, then the ups."""

    @staticmethod
    def forward(ctx, x, limit, alpha):
        assert x.dtype == torch.float32
        out = x.new_empty(x.shape[0], x.shape[1] // 2)
        call("swiglu_forward", out.shape[0], out.shape[1], limit, alpha, x, out)
        ctx.save_for_backward(x)
        ctx.constants = limit, alpha
        return out

    @staticmethod
    def backward(ctx, grad):
        x, = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        call("swiglu_backward", grad.shape[0], grad.shape[1], *ctx.constants, x, grad.contiguous(), grad_x)
        return grad_x, None, None


class RoundTrip(torch.autograd.Function):
    """MXFP4 in the forward pass (blocks along the last dimension), identity in the backward pass (straight-through)."""

    @staticmethod
    def forward(ctx, weight):
        assert weight.dtype == torch.float32 and weight.shape[-1] % 32 == 0
        out = torch.empty_like(weight)
        call("mxfp4_round_trip", weight.numel() // 32, weight, out)
        return out

    @staticmethod
    def backward(ctx, grad):
        return grad
