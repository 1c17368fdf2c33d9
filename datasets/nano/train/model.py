"""gpt-oss in PyTorch: the parameters, and a plain forward pass with a KV cache.

Names follow the HF checkpoint. This is the readable version, used to evaluate and to check the export;
`packed.py` holds the faster forward pass for training, which shares the parameters and the MoE below.
"""
import json
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

SWIGLU_ALPHA = 1.702


@dataclass
class Config:
    vocab_size: int = 768
    hidden_size: int = 128
    intermediate_size: int = 192
    num_hidden_layers: int = 4
    num_local_experts: int = 16
    num_experts_per_tok: int = 2
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 32
    sliding_window: int = 32
    rms_norm_eps: float = 1e-5
    swiglu_limit: float = 7.0
    rope_theta: float = 10000.0
    rope_factor: float = 4.0
    rope_original: int = 128
    beta_fast: float = 8.0
    beta_slow: float = 1.0
    max_position_embeddings: int = 512

    def is_sliding(self, layer):
        return layer % 2 == 0

    @classmethod
    def from_hf(cls, path):
        """Reads a checkpoint's config.json."""
        with open(path) as file:
            hf = json.load(file)
        rope = hf["rope_scaling"]
        fields = {name: hf[name] for name in asdict(cls()) if name in hf}
        return cls(**fields, rope_factor=rope["factor"], rope_original=rope["original_max_position_embeddings"],
                   beta_fast=rope["beta_fast"], beta_slow=rope["beta_slow"])


def yarn(config):
    """Rotary frequencies [head_dim / 2] and the factor that multiplies cos and sin (YaRN, without truncation)."""
    half = config.head_dim // 2

    def dim_of(beta):
        return half * math.log(config.rope_original / (beta * 2 * math.pi)) / math.log(config.rope_theta)

    low, high = dim_of(config.beta_fast), dim_of(config.beta_slow)
    assert 0 < low < high < half - 1, (low, high)
    index = torch.arange(half, dtype=torch.float64)
    base = config.rope_theta ** (-index / half)
    ramp = ((index - low) / (high - low)).clamp(0, 1)
    return base * (1 - ramp) + base / config.rope_factor * ramp, 0.1 * math.log(config.rope_factor) + 1.0


def rotary_table(config, positions):
    """cos and sin, float32, [..., head_dim / 2] for integer positions of any shape."""
    frequencies, factor = yarn(config)
    angle = positions.double().unsqueeze(-1) * frequencies
    return (angle.cos() * factor).float(), (angle.sin() * factor).float()


def rotate(x, cos, sin):
    """Half-split rotation of x [..., heads, head_dim] with tables [..., head_dim / 2]."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rms_norm(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def softmax_with_sink(scores, sink):
    """Softmax over the last dimension with one more logit that has no column of its own."""
    peak = torch.maximum(scores.amax(-1, keepdim=True), sink)
    weights = (scores - peak).exp()
    return weights / (weights.sum(-1, keepdim=True) + (sink - peak).exp())


def swiglu(x, limit):
    """The clamped SwiGLU of gpt-oss, of gates and ups side by side; note the +1."""
    gate, up = x.chunk(2, dim=-1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(SWIGLU_ALPHA * gate) * (up + 1)


class GroupedLinear(torch.autograd.Function):
    """y = x W[e]^T + b[e] for rows sorted by expert e; `counts` rows each. Loops over experts, with no copies."""

    @staticmethod
    def forward(ctx, x, weight, bias, counts):
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(x.shape[0], weight.shape[1])
        for e, (xs, ys) in enumerate(zip(x.split(counts), y.split(counts))):
            torch.addmm(bias[e], xs, weight[e].t(), out=ys)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x, grad_w = torch.empty_like(x), torch.empty_like(weight)
        grad_b = weight.new_empty(weight.shape[:2])
        for e, (xs, gs, out) in enumerate(zip(x.split(ctx.counts), grad.split(ctx.counts), grad_x.split(ctx.counts))):
            torch.mm(gs, weight[e], out=out)
            torch.mm(gs.t(), xs, out=grad_w[e])
            torch.sum(gs, 0, out=grad_b[e])
        return grad_x, grad_w, grad_b, None


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = config
        wide, narrow = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.input_layernorm = nn.Parameter(torch.ones(c.hidden_size))
        self.q_proj = nn.Linear(c.hidden_size, wide)
        self.k_proj = nn.Linear(c.hidden_size, narrow)
        self.v_proj = nn.Linear(c.hidden_size, narrow)
        self.o_proj = nn.Linear(wide, c.hidden_size)
        self.sinks = nn.Parameter(torch.zeros(c.num_attention_heads))
        self.post_attention_layernorm = nn.Parameter(torch.ones(c.hidden_size))
        self.router = nn.Linear(c.hidden_size, c.num_local_experts)
        # Rows of gate_up interleave: gate 0, up 0, gate 1, up 1, ...
        self.gate_up_proj = nn.Parameter(torch.empty(c.num_local_experts, 2 * c.intermediate_size, c.hidden_size))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(c.num_local_experts, 2 * c.intermediate_size))
        self.down_proj = nn.Parameter(torch.empty(c.num_local_experts, c.hidden_size, c.intermediate_size))
        self.down_proj_bias = nn.Parameter(torch.zeros(c.num_local_experts, c.hidden_size))
        self.config = c
        self.initialise()

    def initialise(self):
        c = self.config
        depth = (2 * c.num_hidden_layers) ** -0.5          # keeps the residual stream from growing with depth
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.router):
            nn.init.normal_(linear.weight, std=c.hidden_size ** -0.5)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.o_proj.weight, std=depth * (c.num_attention_heads * c.head_dim) ** -0.5)
        nn.init.zeros_(self.o_proj.bias)
        nn.init.normal_(self.gate_up_proj, std=c.hidden_size ** -0.5)
        nn.init.normal_(self.down_proj, std=depth * c.intermediate_size ** -0.5)

    def heads(self, x):
        return x.unflatten(-1, (-1, self.config.head_dim))

    def experts(self, h, gate_up, gate_up_bias, down, down_bias, activation=swiglu):
        """MoE of tokens h [n, hidden_size]. The matrices are given by the caller (who may have quantised them);
        gate_up holds all gate rows of an expert, then all up rows. `activation` may be a faster SwiGLU. Also
        returns the load-balancing loss."""
        c = self.config
        logits = F.linear(h, self.router.weight, self.router.bias)
        best, chosen = logits.topk(c.num_experts_per_tok, dim=-1)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=c.num_local_experts)
        token, groups = order // c.num_experts_per_tok, counts.tolist()
        weight = best.softmax(-1).flatten().index_select(0, order).unsqueeze(-1)
        hidden = GroupedLinear.apply(h.index_select(0, token), gate_up, gate_up_bias, groups)
        hidden = activation(hidden, c.swiglu_limit)
        out = GroupedLinear.apply(hidden, down, down_bias, groups)
        mixed = torch.zeros_like(h).index_add(0, token, out * weight)
        share = logits.softmax(-1).mean(0)
        balance = c.num_local_experts * (share * counts / counts.sum()).sum()
        return mixed, balance


class GptOss(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        nn.init.normal_(self.lm_head.weight, std=config.hidden_size ** -0.5)

    def forward(self, ids, cache=None):
        """Float32 logits of the last position [batch, vocab] for ids [batch, n] that follow whatever `cache` holds,
        and the new cache: per layer (k, v), each [batch, positions, kv_heads, head_dim]."""
        c = self.config
        past = cache[0][0].shape[1] if cache else 0
        position = torch.arange(past, past + ids.shape[1])
        distance = position.unsqueeze(1) - torch.arange(past + ids.shape[1])
        cos, sin = rotary_table(c, position)
        x, new_cache = self.embed_tokens(ids), []
        for index, layer in enumerate(self.layers):
            h = rms_norm(x, layer.input_layernorm, c.rms_norm_eps)
            q = rotate(layer.heads(layer.q_proj(h)), cos, sin)
            k, v = rotate(layer.heads(layer.k_proj(h)), cos, sin), layer.heads(layer.v_proj(h))
            if cache:
                k, v = torch.cat([cache[index][0], k], 1), torch.cat([cache[index][1], v], 1)
            new_cache.append((k, v))
            visible = distance >= 0
            if c.is_sliding(index):
                visible &= distance < c.sliding_window
            x = x + layer.o_proj(self.attend(q, k, v, visible, layer.sinks))
            h = rms_norm(x, layer.post_attention_layernorm, c.rms_norm_eps)
            gates_first = [t.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
                           for t in (layer.gate_up_proj, layer.gate_up_proj_bias)]
            out, _ = layer.experts(h.flatten(0, 1), *gates_first, layer.down_proj, layer.down_proj_bias)
            x = x + out.view_as(x)
        return self.lm_head(rms_norm(x[:, -1], self.norm, c.rms_norm_eps)), new_cache

    def attend(self, q, k, v, visible, sinks):
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        k, v = (t.repeat_interleave(group, dim=2) for t in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.config.head_dim ** -0.5
        scores = scores.masked_fill(~visible, -torch.inf)
        weights = softmax_with_sink(scores, sinks.view(1, -1, 1, 1))
        return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
