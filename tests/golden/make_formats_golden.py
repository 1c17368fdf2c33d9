#!/usr/bin/env python3
"""Makes formats.json: codes and values of every weight format, from independent implementations.

    pip install numpy ml_dtypes gguf
    ./make_formats_golden.py formats.json

Elements: ml_dtypes (float8_e4m3fn, float4_e2m1fn, float8_e8m0fnu, bfloat16) and numpy (float16).
Blocks: their definitions (named at each function) written with those element types, in numpy.
MXFP4 is checked here against the gguf package's, and int8 and int4 are gguf's Q8_0 and Q4_0.

Numbers are float32 as 8 hexadecimal digits (the bits, most significant first), many of them in one
string; codes and scales are bytes, two digits each.
"""
import json
import sys

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, quants

F32 = np.float32
E4M3 = ml_dtypes.float8_e4m3fn
E2M1 = ml_dtypes.float4_e2m1fn
E8M0 = ml_dtypes.float8_e8m0fnu


def bits(values):
    return "".join(f"{b:08x}" for b in np.asarray(values, F32).reshape(-1).view(np.uint32))


def codes_of(values, dtype):
    return np.asarray(values, F32).astype(dtype).view(np.uint8)


def hexed(codes):
    return np.ascontiguousarray(codes).view(np.uint8).tobytes().hex()


# --- Elements ------------------------------------------------------------------------------------


def samples(decoded, rng):
    """Finite values, the midpoints between them, the floats beside those, and random numbers."""
    finite = np.unique(np.abs(decoded[np.isfinite(decoded)]).astype(F32))
    if len(finite) > 200:  # 16-bit types: the ends and a random part
        finite = np.unique(np.concatenate(
            [finite[:40], finite[-40:], rng.choice(finite, 40)]))
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(F32)
    picked = np.concatenate([finite, middle, np.nextafter(middle, F32(0)),
                             np.nextafter(middle, F32(np.inf))])
    largest = finite[-1].astype(np.float64)
    spread = (largest * np.exp2(-rng.uniform(0, 18, 80))).astype(F32)
    picked = np.concatenate([picked, spread])
    signs = rng.choice([F32(1), F32(-1)], len(picked))
    return (np.minimum(picked, finite[-1]) * signs).astype(F32)


def element(dtype, width, rng):
    all_codes = np.arange(2**width, dtype=np.uint8 if width <= 8 else np.uint16)
    decoded = all_codes.view(dtype).astype(F32)
    values = samples(decoded, rng)
    digits = 4 if width == 16 else 2
    encoded = values.astype(dtype).view(all_codes.dtype)
    result = {"encode_values": bits(values),
              "encode_codes": "".join(f"{int(c):0{digits}x}" for c in encoded)}
    if width <= 8:
        result["decoded"] = bits(np.where(np.isnan(decoded), F32(np.nan), decoded))
    return result


# --- Blocks --------------------------------------------------------------------------------------


def pack(codes):
    """4-bit codes of a row: column 2t is the low nibble of byte t."""
    return (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)


def mx(values, dtype, element_max_exponent, element_max):
    """OCP Microscaling Formats 1.0, section 6.3."""
    rows, cols = values.shape
    blocks = values.reshape(rows, cols // 32, 32)
    largest = np.abs(blocks).max(-1).astype(np.float64)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(largest)) - element_max_exponent
    exponent = np.clip(np.where(largest > 0, exponent, -127), -127, 127)
    scales = np.exp2(exponent)
    scaled = np.clip(blocks / scales[..., None], -element_max, element_max)  # float64: exact
    codes = codes_of(scaled, dtype)
    decoded = codes.view(dtype).astype(np.float64) * scales[..., None]
    scale_codes = scales.astype(E8M0).view(np.uint8)
    assert (scale_codes.view(E8M0).astype(np.float64) == scales).all()
    return codes.reshape(rows, cols), scale_codes, decoded.reshape(rows, cols).astype(F32)


def mxfp4(values):
    codes, scales, decoded = mx(values, E2M1, 2, 6)
    if np.abs(values).max() < 1e30 and np.abs(values[values != 0]).min(initial=1) > 1e-30:
        # A second implementation. It breaks ties otherwise, so allow those, and nothing else.
        other = quants.dequantize(
            quants.quantize(values, GGMLQuantizationType.MXFP4), GGMLQuantizationType.MXFP4)
        differ = other != decoded
        assert (np.abs(other - values)[differ] == np.abs(decoded - values)[differ]).all()
        assert differ.mean() < 0.3
    return {"data": hexed(pack(codes)), "scales": hexed(scales), "decoded": bits(decoded)}


def mxfp8(values):
    codes, scales, decoded = mx(values, E4M3, 8, 448)
    return {"data": hexed(codes), "scales": hexed(scales), "decoded": bits(decoded)}


def fp8_e4m3(values):
    """compressed-tensors, strategy "channel": scale = max / 448 per row, in float32."""
    scales = (np.abs(values).max(-1) / F32(448)).astype(F32)
    scales[scales == 0] = 1
    codes = codes_of(np.clip(values / scales[:, None], -448, 448), E4M3)
    with np.errstate(over="ignore"):
        decoded = codes.view(E4M3).astype(F32) * scales[:, None]
    return {"data": hexed(codes), "scales": hexed(scales), "decoded": bits(decoded)}


def nvfp4(values):
    """NVIDIA's NVFP4: E4M3 scales of 16 under one float32 scale, max / (6 * 448), per matrix."""
    rows, cols = values.shape
    tensor_scale = np.abs(values).max() / F32(6 * 448)
    blocks = values.reshape(rows, cols // 16, 16)
    largest = np.abs(blocks).max(-1)
    scale_codes = codes_of(np.clip(largest / F32(6) / tensor_scale, 0, 448), E4M3)
    scales = scale_codes.view(E4M3).astype(F32) * tensor_scale
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(scales[..., None] > 0, blocks / scales[..., None], 0)
    codes = codes_of(np.clip(scaled, -6, 6), E2M1)
    codes[np.broadcast_to(scales[..., None] == 0, codes.shape)] = 0
    decoded = codes.view(E2M1).astype(F32) * scales[..., None]
    return {"data": hexed(pack(codes.reshape(rows, cols))), "scales": hexed(scale_codes),
            "tensor_scale": bits(tensor_scale), "decoded": bits(decoded)}


def plain(values, dtype):
    narrow = values.astype(dtype)
    return {"data": hexed(narrow), "scales": "", "decoded": bits(narrow.astype(F32))}


def ggml(values, kind):
    """Q8_0 or Q4_0: their scales and codes, in our order (theirs interleaves the two per block)."""
    rows, cols = values.shape
    packed = quants.quantize(values, kind)
    decoded = quants.dequantize(packed, kind)
    blocks = packed.reshape(rows, cols // 32, -1)
    scales, body = blocks[..., :2], blocks[..., 2:]
    if kind == GGMLQuantizationType.Q4_0:  # byte t holds columns t (low nibble) and t + 16
        codes = np.concatenate([body & 15, body >> 4], axis=-1)
        body = pack(codes.reshape(rows, cols))
    return {"data": hexed(body), "scales": hexed(scales), "decoded": bits(decoded)}


def matrices(rng):
    cols = 64
    normal = rng.standard_normal((4, cols)) * 0.02
    heavy = rng.standard_t(1.5, (3, cols))
    sparse = np.where(rng.uniform(size=(2, cols)) < 0.1, rng.standard_normal((2, cols)), 0)
    # Every E2M1 value, the midpoints between them and their neighbours, at two scales.
    grid = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 6], F32)
    signed = np.concatenate([grid, -grid])
    ties = np.stack([np.concatenate([signed, signed * 0.125]),
                     np.concatenate([np.nextafter(signed, F32(9)), np.nextafter(signed, F32(0))])])
    row_of_zeros = np.concatenate([np.zeros((1, cols)), rng.standard_normal((1, cols))])
    result = {"normal": normal, "heavy": heavy, "sparse": sparse, "ties": ties,
              "row_of_zeros": row_of_zeros,
              "tiny": rng.standard_normal((2, cols)) * 1e-38,
              "subnormal": rng.standard_normal((1, cols)) * 1e-41,
              "huge": rng.uniform(-1, 1, (2, cols)) * 1.5e38}
    return {name: values.astype(F32) for name, values in result.items()}


def main():
    rng = np.random.default_rng(20240805)
    golden = {
        "made_by": "make_formats_golden.py",
        "versions": f"numpy {np.__version__}, ml_dtypes {ml_dtypes.__version__}",
        "elements": {"fp8_e4m3": element(E4M3, 8, rng), "e2m1": element(E2M1, 4, rng),
                     "bf16": element(ml_dtypes.bfloat16, 16, rng),
                     "f16": element(np.float16, 16, rng)},
        "e8m0_decoded": bits(np.arange(255, dtype=np.uint8).view(E8M0).astype(F32)),
        "matrices": {},
    }
    for name, values in matrices(rng).items():
        formats = {"bf16": plain(values, ml_dtypes.bfloat16), "mxfp4": mxfp4(values),
                   "mxfp8": mxfp8(values), "fp8_e4m3": fp8_e4m3(values)}
        if name != "huge":
            formats["f16"] = plain(values, np.float16)
        if name not in ("huge", "tiny", "subnormal"):  # gguf divides by a scale that is 0 or infinite
            formats["int8"] = ggml(values, GGMLQuantizationType.Q8_0)
            formats["int4"] = ggml(values, GGMLQuantizationType.Q4_0)
        if name != "subnormal":  # there the matrix scale itself is rounded to nothing
            formats["nvfp4"] = nvfp4(values)
        golden["matrices"][name] = {"rows": len(values), "cols": values.shape[1],
                                    "values": bits(values), "formats": formats}
    with open(sys.argv[1], "w") as out:
        json.dump(golden, out, indent=1)
        out.write("\n")


if __name__ == "__main__":
    main()
