"""Builds tokenizer.json: a small byte-level BPE in the file format gpt-oss ships.

The merges are learnt from the generated problems and the default harmony system message, so that every word
of a prompt is one token and prompts stay short. Digits never merge: each digit is its own token, which keeps
arithmetic digit by digit. Like the file of gpt-oss, `merges` lists every way to split a token into two tokens
in order of the resulting id, so that merging by listed pair and merging by lowest id give the same result.
"""
import argparse
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import harmony
import problems

# The o200k pre-tokenisation pattern, as in the published tokenizer.
PATTERN = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])
CORPUS_PROBLEMS = 3000
CORPUS_SEED = 20250805


def corpus():
    """Training texts of the merges: user messages, workings, system messages, the replies to other text."""
    rng = random.Random(CORPUS_SEED)
    texts = [harmony.system_text(effort) for effort in problems.EFFORTS] * 200
    texts += [harmony.system_text("medium", f"20{year}-01-01") for year in range(24, 30)]
    texts += ["assistant", "analysis", "final", "commentary", "user", "system", "developer"] * 50
    for _ in range(CORPUS_PROBLEMS):
        problem = problems.draw(rng, held_out=False)
        texts.append(problems.user_message(problem.question, problem.choices))
        texts += [problem.working["medium"], problem.working["high"], harmony.final_text(problem.letter)]
    for request in harmony.OPEN_REQUESTS:
        texts += [request] * 3
    texts += [harmony.OPEN_WORKING, harmony.OPEN_REPLY] * 20
    return texts


def learn_vocabulary(texts, size):
    """Token strings in id order (GPT-2 byte alphabet): 256 bytes, then merges by frequency."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),      # no merge across or inside numbers
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def all_merges(tokens):
    """Every split of every multi-byte token into two tokens, ordered by the token's id, then by the split."""
    known, merges = {token: i for i, token in enumerate(tokens)}, []
    for token in tokens:
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        splits = [pair for pair in splits if pair[0] in known and pair[1] in known]
        merges += sorted(splits, key=lambda pair: (known[pair[0]], known[pair[1]]))
    return merges


def build(size):
    tokens = learn_vocabulary(corpus(), size - len(harmony.SPECIAL_TOKENS))
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=all_merges(tokens)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(harmony.SPECIAL_TOKENS)
    return tokenizer


def write(tokenizer, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": harmony.BOS, "eos_token": harmony.RETURN, "pad_token": harmony.PAD}
    added = {str(tokenizer.token_to_id(text)): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                                                "single_word": False, "special": True}
             for text in harmony.SPECIAL_TOKENS}
    config = {"added_tokens_decoder": added, **named, "clean_up_tokenization_spaces": False,
              "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 512,
              "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "model")
    parser.add_argument("--vocab-size", type=int, default=768)
    args = parser.parse_args()
    tokenizer = build(args.vocab_size)
    write(tokenizer, args.out)
    print(f"{tokenizer.get_vocab_size()} tokens written to {args.out}")


if __name__ == "__main__":
    main()
