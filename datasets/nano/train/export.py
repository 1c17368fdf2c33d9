"""Writes a training checkpoint as an HF gpt-oss directory: MXFP4 experts, everything else bfloat16.

`load_exported` reads such a directory back, if asked with the experts re-encoded in a plain int4 format: the same
model damaged a little more, to see whether an evaluation notices.
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import harmony
import mxfp4
from model import Config, GptOss

EXPERT_MATRICES = ("gate_up_proj", "down_proj")


def hf_name(name):
    """Our parameter name -> the checkpoint's."""
    if name == "lm_head.weight":
        return name
    for norm in ("input_layernorm", "post_attention_layernorm"):
        name = name.replace(norm, f"{norm}.weight")
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "sinks"):
        name = name.replace(f".{part}", f".self_attn.{part}")
    for part in ("router", "gate_up_proj", "down_proj"):
        name = name.replace(f".{part}", f".mlp.{part}" if part == "router" else f".mlp.experts.{part}")
    return "model." + ("norm.weight" if name == "norm" else name)


def hf_config(config, tokenizer):
    c = config
    ids = {text: tokenizer.token_to_id(text) for text in harmony.SPECIAL_TOKENS}
    stops = [ids[text] for text in (harmony.RETURN, harmony.PAD, harmony.CALL)]
    model = {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
        "eos_token_id": ids[harmony.RETURN], "experts_per_token": c.num_experts_per_tok, "head_dim": c.head_dim,
        "hidden_act": "silu", "hidden_size": c.hidden_size, "initial_context_length": c.rope_original,
        "initializer_range": 0.02, "intermediate_size": c.intermediate_size,
        "layer_types": ["sliding_attention" if c.is_sliding(i) else "full_attention" for i in range(c.num_hidden_layers)],
        "max_position_embeddings": c.max_position_embeddings, "model_type": "gpt_oss",
        "num_attention_heads": c.num_attention_heads, "num_experts_per_tok": c.num_experts_per_tok,
        "num_hidden_layers": c.num_hidden_layers, "num_key_value_heads": c.num_key_value_heads,
        "num_local_experts": c.num_local_experts, "output_router_logits": False, "pad_token_id": ids[harmony.PAD],
        "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                           "model.embed_tokens", "lm_head"],
                                "quant_method": "mxfp4"},
        "rms_norm_eps": c.rms_norm_eps,
        "rope_scaling": {"beta_fast": c.beta_fast, "beta_slow": c.beta_slow, "factor": c.rope_factor,
                         "original_max_position_embeddings": c.rope_original, "rope_type": "yarn", "truncate": False},
        "rope_theta": c.rope_theta, "router_aux_loss_coef": 0.01, "sliding_window": c.sliding_window,
        "swiglu_limit": c.swiglu_limit, "tie_word_embeddings": False, "transformers_version": "4.55.0.dev0",
        "use_cache": True, "vocab_size": c.vocab_size,
    }
    generation = {"bos_token_id": ids[harmony.BOS], "do_sample": True, "eos_token_id": stops,
                  "pad_token_id": ids[harmony.PAD], "transformers_version": "4.55.0.dev0"}
    return model, generation


def hf_tensors(model):
    tensors = {}
    for name, p in model.state_dict().items():
        if name.split(".")[-1] in EXPERT_MATRICES:
            blocks, scales = mxfp4.pack(p)
            tensors[hf_name(name) + "_blocks"], tensors[hf_name(name) + "_scales"] = blocks, scales
        else:
            tensors[hf_name(name)] = p.to(torch.bfloat16).contiguous()
    return tensors


def load_exported(folder, experts="mxfp4"):
    """The model of an exported directory, in float32. `experts`: "mxfp4" as stored, or "int4" re-encoded."""
    folder = pathlib.Path(folder)
    model = GptOss(Config.from_hf(folder / "config.json"))
    tensors, state = load_file(folder / "model.safetensors"), {}
    for name in model.state_dict():
        if name.split(".")[-1] in EXPERT_MATRICES:
            weight = mxfp4.unpack(tensors[hf_name(name) + "_blocks"], tensors[hf_name(name) + "_scales"])
            state[name] = mxfp4.int4_round_trip(weight) if experts == "int4" else weight
        else:
            state[name] = tensors[hf_name(name)].float()
    model.load_state_dict(state)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=pathlib.Path, help="checkpoint.pt of train.py")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "model",
                        help="folder that already holds tokenizer.json")
    args = parser.parse_args()
    state = torch.load(args.checkpoint, weights_only=False)
    model = GptOss(Config(**state["config"]))
    model.load_state_dict(state["model"])
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    config, generation = hf_config(model.config, tokenizer)
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_file(hf_tensors(model), args.out / "model.safetensors", metadata={"format": "pt"})
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"step {state['step']}, {state['tokens']} tokens; {args.out}: {size} bytes")


if __name__ == "__main__":
    main()
