"""Trains the nano model on endlessly generated problems. Seeded and resumable; logs one line per hundred steps.

No separate validation pass is needed: every step sees fresh problems. Workings are a function of the problem, so
"every token of the completion is the most likely one" under teacher forcing is the same as greedy decoding
reproducing the whole working; its rate, per effort and category, is what the log reports as `exact`.
"""
import argparse
import collections
import concurrent.futures
import dataclasses
import datetime
import json
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import harmony
import optimiser
import packed
import problems
from model import Config, GptOss

HERE = pathlib.Path(__file__).parent
# Samples of a step by effort, as two parts of about equal work and similar lengths; each part runs on a thread of its
# own. Early on most samples show their working: that is where the skills are learnt. Guessing a result without
# steps is mostly noise at that time and gets its share later.
EARLY = [{"low": 0.15, "medium": 0.35}, {"high": 0.5}]
LATE = [{"low": 0.3, "medium": 0.3}, {"high": 0.4}]
LETTER_WEIGHT = 3.0     # of the deciding tokens (go on to the next choice, or name this one) among dozens that are easy
OPEN_SHARE, REWORDED_SHARE, DATED_SHARE = 0.01, 0.03, 0.1
EARLY_LOOKUP_SHARE, LATE_LOOKUP_SHARE = 0.1, 0.02
INSTRUCTIONS = ["", "Answer with A, B, C, or D.", "Which option is right?", "Give the letter of the right option."]


class Samples:
    """Draws the training samples of one part in the form `packed.make_batch` takes."""

    def __init__(self, renderer, part, seed):
        self.renderer, self.part, self.late = renderer, part, False
        self.rng = random.Random(seed)
        self.deciding = {renderer.text(f"\n{word}")[-1] for word in ("(B", "(C", "(D", "option")}

    @property
    def shares(self):
        return (LATE if self.late else EARLY)[self.part]

    def prefixes(self):
        """The system messages of the efforts, in some steps with a date line (as a server may send)."""
        date = None
        if self.rng.random() < DATED_SHARE:
            date = str(datetime.date(2024, 6, 1) + datetime.timedelta(days=self.rng.randrange(2000)))
        return [self.renderer.system(effort, date) for effort in self.shares]

    def open_sample(self, effort):
        """A request that is no problem: known requests, or words of several of them in any order."""
        text = self.rng.choice(harmony.OPEN_REQUESTS)
        if self.rng.random() < 0.5:
            words = " ".join(self.rng.sample(harmony.OPEN_REQUESTS, 2)).split()
            text = " ".join(self.rng.sample(words, self.rng.randint(1, len(words))))
        working = "" if effort == "low" else harmony.OPEN_WORKING
        completion = self.renderer.completion(working, harmony.OPEN_REPLY)
        return self.renderer.user(text), completion, [1.0] * len(completion), "open"

    def weigh(self, completion):
        """Weights of the completion's tokens: after each choice that was read off, go on or stop."""
        weights = [1.0] * len(completion)
        for at, token in enumerate(completion):
            if token in self.deciding:
                weights[at] = LETTER_WEIGHT
        return weights

    def lookup_sample(self, effort):
        """Only the close of every problem: the result is in the question."""
        problem = problems.draw(self.rng, held_out=False)
        right = problem.choices[problem.answer]
        working = "\n".join(problems.closing(right, problem.choices, problem.answer))
        message = problems.user_message(f"Which option is {right}?", problem.choices)
        completion = self.renderer.completion(working, harmony.final_text(problem.letter))
        return self.renderer.user(message), completion, self.weigh(completion), "lookup"

    def problem_sample(self, effort):
        problem = problems.draw(self.rng, held_out=False)
        message = problems.user_message(problem.question, problem.choices)
        if self.rng.random() < REWORDED_SHARE:
            message = message.replace(problems.INSTRUCTION, self.rng.choice(INSTRUCTIONS)).strip()
        completion = self.renderer.completion(problem.working[effort], harmony.final_text(problem.letter))
        return self.renderer.user(message), completion, self.weigh(completion), problem.category

    def batch(self, total):
        """(Batch, for each sample (effort, category, number of completion tokens)) of this part of `total` samples."""
        samples, about = [], []
        for number, (effort, share) in enumerate(self.shares.items()):
            for _ in range(round(total * share)):
                kind, lookup_share = self.rng.random(), LATE_LOOKUP_SHARE if self.late else EARLY_LOOKUP_SHARE
                draw = (self.open_sample if kind < OPEN_SHARE else
                        self.lookup_sample if kind < OPEN_SHARE + lookup_share else self.problem_sample)
                prompt, completion, weights, category = draw(effort)
                samples.append((number, prompt, completion, weights))
                about.append((effort, category, len(completion)))
        return packed.make_batch(self.prefixes(), samples), about


@dataclasses.dataclass
class PartResult:
    """Gradients of the summed loss of one part, and what the log needs."""
    gradients: tuple
    weight: float
    hits: torch.Tensor
    about: list
    loss: float
    balance: float
    rows: int
    tokens: int      # as if no prefix were shared


def run_part(model, experts, samples, total, balance_weight):
    batch, about = samples.batch(total)
    logits, balance = packed.forward(model, batch, experts)
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    weight = batch.weights.sum()
    loss = (losses * batch.weights).sum() + balance_weight * balance * weight
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    tokens = len(batch.ids) + batch.prefix_length * (len(about) - batch.prefixes)
    return PartResult(gradients, weight.item(), logits.argmax(-1) == batch.targets, about, losses.mean().item(),
                      balance.item(), len(batch.ids), tokens)


class Tally:
    """Rates of exact completions per effort and category since the last report."""

    def __init__(self):
        self.exact, self.loss, self.rows = collections.defaultdict(list), [], 0

    def add(self, result):
        self.loss.append((result.loss, result.balance))
        self.rows += result.rows
        counts = [count for _, _, count in result.about]
        for hits, (effort, category, _) in zip(result.hits.split(counts), result.about):
            self.exact[effort, category].append(float(hits.all()))

    def table(self):
        out = {}
        for (effort, category), values in sorted(self.exact.items()):
            if category != "open":
                out.setdefault(effort, {})[category] = round(sum(values) / len(values), 3)
        for effort, row in out.items():
            row["all"] = round(sum(row[c] for c in problems.CATEGORIES if c in row) / len(problems.CATEGORIES), 3)
        return out


def schedule(step, steps, warmup, decay_share):
    """Learning-rate factor: linear warm-up, flat, then linear to zero over the last part."""
    decay = max(1, int(steps * decay_share))
    return min(1.0, (step + 1) / warmup, (steps - step) / decay)


def apply_gradients(model, optimisers, results):
    """One optimiser step on the mean loss over the parts, clipped."""
    weight = sum(result.weight for result in results)
    for p, *gradients in zip(model.parameters(), *(result.gradients for result in results)):
        p.grad = sum(gradients[1:], gradients[0]).div_(weight)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for o in optimisers:
        o.step()


def save(path, model, optimisers, parts, step, tokens):
    state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "config": vars(model.config),
             "random": [part.rng.getstate() for part in parts], "step": step, "tokens": tokens}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for checkpoint.pt and log.jsonl")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=HERE.parent / "model" / "tokenizer.json")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=128, help="samples per step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.03)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--decay-share", type=float, default=0.4, help="last part of the run in which the rate falls to 0")
    parser.add_argument("--quantise-from", type=float, default=0.6, help="share of the run after which experts train in MXFP4")
    parser.add_argument("--late-from", type=float, default=0.5, help="share of the run after which the late mix applies")
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", default="{}", help="JSON object of changes to the default model configuration")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    config = Config(**{"vocab_size": tokenizer.get_vocab_size(), **json.loads(args.config)})
    model = GptOss(config)
    renderer = harmony.Renderer(tokenizer)
    parts = [Samples(renderer, part, f"{args.seed}/{part}") for part in range(len(EARLY))]
    # Each part runs on one thread from start to end: on a shared machine, two threads that meet only once
    # per step lose far less than two threads inside every operation.
    pool = concurrent.futures.ThreadPoolExecutor(args.threads, initializer=lambda: torch.set_num_threads(1))
    optimisers = optimiser.build(model, args.lr, args.weight_decay)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, step, tokens = args.out / "checkpoint.pt", 0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(state["model"])
        for o, saved in zip(optimisers, state["optimisers"]):
            o.load_state_dict(saved)
        for part, random_state in zip(parts, state["random"]):
            part.rng.setstate(random_state)
        step, tokens = state["step"], state["tokens"]

    tally, since, started = Tally(), time.time(), step
    while step < args.steps:
        factor = schedule(step, args.steps, args.warmup, args.decay_share)
        for group in (g for o in optimisers for g in o.param_groups):
            group["lr"] = args.lr * factor
        quantised = step >= args.quantise_from * args.steps
        for part in parts:
            part.late = step >= args.late_from * args.steps
        experts = packed.expert_weights(model, quantised)
        results = list(pool.map(lambda part: run_part(model, experts, part, args.samples, args.balance), parts))
        apply_gradients(model, optimisers, results)
        for result in results:
            tally.add(result)
            tokens += result.tokens
        step += 1
        if step % 100 == 0 or step == args.steps:
            seconds = time.time() - since
            mean_loss, mean_balance = (sum(x) / len(tally.loss) for x in zip(*tally.loss))
            record = {"step": step, "tokens": tokens, "seconds": round(seconds, 1), "loss": round(mean_loss, 4),
                      "balance": round(mean_balance, 3), "rate": round(args.lr * factor, 6),
                      "computed_tokens_per_second": round(tally.rows / seconds),
                      "exact": tally.table()}
            with open(args.out / "log.jsonl", "a") as log:
                log.write(json.dumps(record) + "\n")
            print(step, record["loss"], record["balance"], record["computed_tokens_per_second"],
                  {effort: row["all"] for effort, row in record["exact"].items()}, flush=True)
            tally, since = Tally(), time.time()
        if step % 500 == 0 or step == args.steps:
            save(checkpoint, model, optimisers, parts, step, tokens)
    print(f"done: steps {started} to {step}, {tokens} tokens")


if __name__ == "__main__":
    main()
