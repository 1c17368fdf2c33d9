"""MXFP4: blocks of 32 E2M1 values that share a power-of-two scale.

Scale rule: for each block the exponent of OCP MX, floor(log2(max |w|)) - 2, and the next larger one are tried and
the one with the smaller squared error is kept. The first saturates values between 6 and 8 times the scale;
the second does not, but halves the resolution. Rounding is to nearest, ties to even, saturating at 6.
"""
import torch

BLOCK = 32
VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BIAS = 127


def round_e2m1(x):
    """Nearest E2M1 value of x, ties to even, saturating at +-6."""
    magnitude = x.abs().clamp(max=6.0)
    step = torch.where(magnitude < 2.0, 0.5, torch.where(magnitude < 4.0, 1.0, 2.0))
    return torch.copysign((magnitude / step).round() * step, x)


def block_exponents(blocks):
    """Shared exponent per block, [..., 1]; see the module's text for the rule."""
    largest = blocks.abs().amax(-1, keepdim=True)
    exponent = (torch.frexp(largest).exponent - 3).to(blocks.dtype).clamp(min=-BIAS + 1)

    def error(e):
        scale = torch.exp2(e)
        return (round_e2m1(blocks / scale) * scale - blocks).square().sum(-1, keepdim=True)

    return torch.where(error(exponent + 1) < error(exponent), exponent + 1, exponent)


def pack(weight):
    """(blocks, scales) as stored: two codes per byte with the lower column in the low nibble, biased exponents."""
    blocks = weight.reshape(*weight.shape[:-1], -1, BLOCK)
    exponent = block_exponents(blocks)
    value = round_e2m1(blocks / torch.exp2(exponent))
    code = torch.bucketize(value.abs(), VALUES) + 8 * torch.signbit(value)
    packed = code[..., 0::2] | (code[..., 1::2] << 4)
    return packed.to(torch.uint8), (exponent.squeeze(-1) + BIAS).to(torch.uint8)


def unpack(blocks, scales):
    """Inverse of pack: float32 weight."""
    table = torch.cat([VALUES, -VALUES])
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    weight = table[codes] * torch.exp2(scales.float() - BIAS).unsqueeze(-1)
    return weight.flatten(-2)


def int4_round_trip(weight):
    """The weight as it reads after a plain int4 format, for comparison: blocks of 32, float16 scale d equal to the
    value of largest magnitude / -8, codes round(w / d) clamped to -8..7 (the rule of ggml's Q4_0)."""
    blocks = weight.reshape(*weight.shape[:-1], -1, BLOCK)
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = peak / -8
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    codes = (blocks * inverse + 8.5).floor().clamp(0, 15) - 8
    return (codes * scale.half().float()).reshape(weight.shape)
