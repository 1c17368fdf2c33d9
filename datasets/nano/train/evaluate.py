"""Greedy accuracy of an exported model on questions.jsonl, by effort and category.

Prompts of equal length are decoded together, so there is no padding to think about. An answer counts when the
final message is exactly `Answer: X` with the right letter; what else was said is reported as malformed.
"""
import argparse
import collections
import json
import pathlib
import time

import torch
from tokenizers import Tokenizer

import export
import harmony
import problems

HERE = pathlib.Path(__file__).parent


@torch.no_grad()
def decode(model, prompts, stop_ids, limit):
    """Greedy continuations (stop token included) of prompts of equal length."""
    done = [None] * len(prompts)
    alive, generated = torch.arange(len(prompts)), torch.zeros(len(prompts), 0, dtype=torch.long)
    logits, cache = model(torch.tensor(prompts))
    for _ in range(limit):
        token = logits.argmax(-1)
        generated = torch.cat([generated, token.unsqueeze(1)], 1)
        stopped = torch.isin(token, torch.tensor(stop_ids))
        for row in stopped.nonzero().flatten().tolist():
            done[alive[row]] = generated[row].tolist()
        keep = ~stopped
        if not keep.any():
            break
        if stopped.any():
            alive, generated = alive[keep], generated[keep]
            cache = [(k[keep], v[keep]) for k, v in cache]
        logits, cache = model(generated[:, -1:], cache)
    for row, index in enumerate(alive.tolist()):
        done[index] = done[index] or generated[row].tolist()
    return done


def letter_of(text):
    """The letter of the final message in a decoded completion, or None."""
    start = text.rfind("<|channel|>final<|message|>Answer: ")
    tail = text[start:].removeprefix("<|channel|>final<|message|>Answer: ") if start >= 0 else ""
    return tail[0] if tail[:1] in problems.LETTERS and tail[1:] == harmony.RETURN else None


def run(model, tokenizer, questions, effort, batch_size, limit):
    """One record per question: category, right, malformed, prompt and generated tokens, text."""
    renderer = harmony.Renderer(tokenizer)
    groups = collections.defaultdict(list)
    for item in questions:
        prompt = renderer.prompt(effort, problems.user_message(item["question"], item["choices"]))
        groups[len(prompt)].append((item, prompt))
    records = []
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            part = group[start:start + batch_size]
            for (item, prompt), ids in zip(part, decode(model, [p for _, p in part], renderer.stop_ids, limit)):
                text = tokenizer.decode(ids, skip_special_tokens=False)
                letter = letter_of(text)
                records.append({"id": item["id"], "category": item["category"], "right": letter == item["answer"],
                                "malformed": letter is None, "prompt_tokens": len(prompt), "generated_tokens": len(ids),
                                "text": text})
    return records


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "model")
    parser.add_argument("--questions", type=pathlib.Path, default=HERE.parent / "questions.jsonl")
    parser.add_argument("--efforts", nargs="+", default=list(problems.EFFORTS), choices=problems.EFFORTS)
    parser.add_argument("--experts", default="mxfp4", choices=("mxfp4", "int4"))
    parser.add_argument("--first", type=int, help="only the first n questions")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, default=200, help="most tokens to generate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--records", type=pathlib.Path, help="write one JSON line per answer here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = export.load_exported(args.model, args.experts)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    questions = [json.loads(line) for line in args.questions.open()][:args.first]
    rows, all_records = {}, []
    for effort in args.efforts:
        started = time.time()
        records = run(model, tokenizer, questions, effort, args.batch_size, args.limit)
        rows[effort] = {name: mean(r["right"] for r in records if r["category"] == name) for name in problems.CATEGORIES}
        print(f"{effort}: {100 * mean(r['right'] for r in records):.1f} % of {len(records)}, "
              f"malformed {sum(r['malformed'] for r in records)}, "
              f"prompt {mean(r['prompt_tokens'] for r in records):.1f} tokens, "
              f"generated {mean(r['generated_tokens'] for r in records):.1f}, {time.time() - started:.0f} s", flush=True)
        all_records += [{"effort": effort, **r} for r in records]
    print("| category | " + " | ".join(args.efforts) + " |")
    for name in problems.CATEGORIES:
        print(f"| {name} | " + " | ".join(f"{100 * rows[e][name]:.1f}" for e in args.efforts) + " |")
    if args.records:
        args.records.write_text("".join(json.dumps(r) + "\n" for r in all_records))


if __name__ == "__main__":
    main()
