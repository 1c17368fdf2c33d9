"""Writes the two files that pin the model for other implementations.

nano_logits.json: rendered prompts, their token ids, the float32 logits after the last one, and the greedy reply, all
computed by transformers' GptOssForCausalLM with the experts dequantised to float32. Our own model must agree.
nano_encode.json: texts and their token ids from `tokenizers`, with special tokens not recognised.
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import GptOssConfig, GptOssForCausalLM

import evaluate
import export
import harmony
import mxfp4
import problems

HERE = pathlib.Path(__file__).parent
SYSTEM_LINES = harmony.system_text("medium", "2025-08-06").split("\n")
TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", " \n ", "\t", "\t\tx", "a  b", "a   b", "a \t b", "trailing   ", "   leading",
    "line one\nline two\n\nline four", "dos\r\nlines\r\n", *[line for line in SYSTEM_LINES if line],
    harmony.system_text("low"), harmony.system_text("high", "2030-12-31"), problems.INSTRUCTION, "Answer: B",
    "(A) 123\n(B) 456\n(C) 789\n(D) 1000\n\n", "What is 478 + 256?", "12345678901234567890", "3.14159", "1,000,000", "x2y3z4",
    "47*36=1692\n", "it's I'll THEY'RE don'T", "camelCaseHTTPServer", "snake_case_name", "naïve café", "Ünïcödé ßtraße",
    "Ελληνικά", "Привет, мир!", "こんにちは世界", "你好,世界", "한국어", "مرحبا بالعالم", "שלום", "हिन्दी में", "ไทย",
    "emoji 😀👍🏽 family 👨‍👩‍👧", "❤️ red heart", "🇫🇷🇯🇵", "e\u0301 combining", "zero\u200bwidth", "nbsp\u00a0space", "½ ² Ⅷ ٣",
    "<|end|>", "<|start|>assistant<|channel|>final<|message|>hi<|return|>", "a<|endoftext|>b", "<| start |>", "<|unknown|>",
    "path/to/file.txt //comment\n/next", "https://example.org/?q=a&b=c#d", "{\"key\": [1, 2.5, null]}", "if (a<b) { c+=d; } // e",
    "!!!???...", "-- – —", "$5 €6 £7 %", "\\n is not a newline", "tab\tseparated\tvalues\n", "ALLCAPS lower Mixed", "the end.",
    "\u0000\u0001 control", "\ufeffbom", "a" * 40, " " * 33 + "x",
]


def reference_model(folder):
    """transformers' module in float32 with weights we dequantise (its MXFP4 path needs a GPU)."""
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("quantization_config")
    model = GptOssForCausalLM(GptOssConfig(**settings, attn_implementation="eager")).float().eval()
    tensors, state = load_file(folder / "model.safetensors"), {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            base = name.removesuffix("_blocks")
            # The dense form is [experts, in, out].
            state[base] = mxfp4.unpack(tensor, tensors[base + "_scales"]).transpose(1, 2).contiguous()
        elif not name.endswith("_scales"):
            state[name] = tensor.float()
    model.load_state_dict(state)
    return model


@torch.no_grad()
def greedy(model, ids, stop_ids, limit=200):
    """Greedy continuation without a cache: slow, and nothing to get wrong."""
    ids, new = list(ids), []
    while len(new) < limit and (not new or new[-1] not in stop_ids):
        new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def round7(value):
    return float(f"{value:.7g}")


def logits_file(folder, questions):
    reference, own = reference_model(folder), export.load_exported(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    renderer = harmony.Renderer(tokenizer)
    cases, worst = [], 0.0
    for effort in problems.EFFORTS:
        for item in [q for q in questions if q["category"] in ("word", "clock")][:2]:
            ids = renderer.prompt(effort, problems.user_message(item["question"], item["choices"]))
            with torch.no_grad():
                logits = reference(torch.tensor([ids])).logits[0, -1]
                ours = own(torch.tensor([ids]))[0][0]
            reply = greedy(reference, ids, renderer.stop_ids)
            assert reply == evaluate.decode(own, [ids], renderer.stop_ids, 200)[0]
            worst = max(worst, (logits - ours).abs().max().item())
            cases.append({"id": item["id"], "effort": effort, "prompt": tokenizer.decode(ids, skip_special_tokens=False),
                          "prompt_ids": ids, "logits_last": [round7(v) for v in logits.tolist()],
                          "greedy_ids": reply, "greedy_text": tokenizer.decode(reply, skip_special_tokens=False)})
    assert worst < 1e-3, worst
    return {"about": "datasets/nano/model: float32 logits after the last prompt token, and the greedy reply up to its stop "
                     "token, by transformers' GptOssForCausalLM (eager attention, weights dequantised to float32). "
                     "Made by datasets/nano/train/make_goldens.py.",
            "max_abs_difference_to_own_model": round7(worst), "suggested_tolerance": 1e-3, "cases": cases}


def encode_file(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = harmony.Renderer(tokenizer)
    cases = []
    for text in dict.fromkeys(TEXTS):
        ids = encoder.text(text)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, text
        cases.append({"text": text, "ids": ids})
    return {"about": "datasets/nano/model/tokenizer.json: ids of texts encoded with no special tokens recognised (the "
                     "`tokenizers` library with encode_special_tokens = True, which splits special-looking text as plain "
                     "text). Every case decodes back to its text. Made by datasets/nano/train/make_goldens.py.",
            "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "model")
    parser.add_argument("--questions", type=pathlib.Path, default=HERE.parent / "questions.jsonl")
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parents[2] / "tests" / "golden")
    args = parser.parse_args()
    questions = [json.loads(line) for line in args.questions.open()]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, content in (("nano_logits", logits_file(args.model, questions)), ("nano_encode", encode_file(args.model))):
        path = args.out / f"{name}.json"
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
        print(f"{path.name}: {len(content['cases'])} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
