"""The training forward pass: the same model, arranged so that little time is wasted on two CPU cores.

- All samples of a step share one of a few system messages. Each of these runs once; its keys and values
  serve every sample that starts with it.
- Everything sees one list of real tokens (prefixes first, then the samples), without padding. Attention works
  on segments of that list.
- The last layer computes queries and experts only at positions whose logits are asked for.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import kernels
from model import SWIGLU_ALPHA, rms_norm, rotary_table


@dataclass
class Batch:
    """One step's samples. Rows of the token list are the prefixes one after the other, then the samples' tokens."""
    ids: torch.Tensor            # [rows]
    positions: torch.Tensor      # [rows], absolute
    targets: torch.Tensor        # [asked], the token that follows each asked row
    weights: torch.Tensor        # [asked], weight of its loss
    asked: torch.Tensor          # [asked], row numbers (never a prefix row)
    segments: torch.Tensor       # [prefixes + samples, 6], as kernels.cpp wants them, all rows asking
    asked_segments: torch.Tensor  # [samples, 6], only the asked rows asking
    prefixes: int                # number of prefixes, all of the same length
    prefix_length: int


def make_batch(prefixes, samples):
    """samples: list of (prefix number, prompt ids after the prefix, completion ids, loss weights of the completion)."""
    length = len(prefixes[0])
    assert all(len(p) == length for p in prefixes)
    ids = [i for p in prefixes for i in p]
    positions = list(range(length)) * len(prefixes)
    segments = [(0, 0, n * length, length, n * length, length) for n in range(len(prefixes))]
    asked, asked_segments, targets, weights = [], [], [], []
    for prefix, prompt, completion, weight in samples:
        row, count = len(ids), len(prompt) + len(completion) - 1
        ids += prompt + completion[:-1]
        positions += range(length, length + count)
        segments.append((prefix * length, length, row, count, row, count))
        asked_segments.append((prefix * length, length, row, count, len(asked), len(completion)))
        asked += range(row + len(prompt) - 1, row + count)
        targets += completion
        weights += weight
    tensor = torch.tensor
    return Batch(tensor(ids), tensor(positions), tensor(targets), tensor(weights, dtype=torch.float32), tensor(asked),
                 tensor(segments), tensor(asked_segments), len(prefixes), length)


def expert_weights(model, quantised):
    """Per layer the expert tensors as the MoE wants them: optionally through MXFP4, gates first. Made once per step;
    every part differentiates through them."""
    out = []
    for layer in model.layers:
        gate_up, down = layer.gate_up_proj, layer.down_proj
        if quantised:
            gate_up, down = kernels.RoundTrip.apply(gate_up), kernels.RoundTrip.apply(down)
        gates_first = [t.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
                       for t in (gate_up, layer.gate_up_proj_bias)]
        out.append((*gates_first, down, layer.down_proj_bias))
    return out


def swiglu(x, limit):
    return kernels.Swiglu.apply(x, limit, SWIGLU_ALPHA)


def forward(model, batch, experts):
    """Float32 logits [asked, vocab] and the mean load-balancing loss of the layers; experts from `expert_weights`."""
    c = model.config

    def linear(module, x):
        return F.linear(x, module.weight, module.bias)

    cos, sin = rotary_table(c, torch.arange(int(batch.positions.max()) + 1))
    x = F.embedding(batch.ids, model.embed_tokens.weight)
    balances = []
    for index, layer in enumerate(model.layers):
        is_last = index == len(model.layers) - 1
        h = rms_norm(x, layer.input_layernorm, c.rms_norm_eps)
        k, v = layer.heads(linear(layer.k_proj, h)), layer.heads(linear(layer.v_proj, h))
        if is_last:
            x, h = x.index_select(0, batch.asked), h.index_select(0, batch.asked)
        q = layer.heads(linear(layer.q_proj, h))
        segments = batch.asked_segments if is_last else batch.segments
        window = c.sliding_window if c.is_sliding(index) else 0
        mixed = kernels.Attention.apply(q, k, v, layer.sinks, segments, batch.positions, cos, sin, window)
        x = x + linear(layer.o_proj, mixed.flatten(1))
        h = rms_norm(x, layer.post_attention_layernorm, c.rms_norm_eps)
        out, balance = layer.experts(h, *experts[index], swiglu)
        x = x + out
        balances.append(balance)
    x = rms_norm(x, model.norm, c.rms_norm_eps)
    return F.linear(x, model.lm_head.weight), torch.stack(balances).mean()
