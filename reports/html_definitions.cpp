// The list of definitions. bench/definitions.md sets those of latency beside other tools'.
#include "reports/html_definitions.h"

#include <algorithm>
#include <cctype>

#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

struct Definition {
  std::string_view term;  // as it stands in titles, lower case
  std::string_view name;  // as it stands in the list
  std::string_view text;
};

// A title has the meaning of the first of these that it contains, so narrow terms come first.
constexpr Definition kDefinitions[] = {
    {"first final token", "TTFF",
     "Arrival to the first token of the visible answer, on harmony's channel `final`; chats only. "
     "In ms."},
    {"ttft", "TTFT",
     "Time to first token: arrival of the request (the scheduled time, or the submission in a "
     "closed loop) to its first output token. In ms."},
    {"tpot", "TPOT",
     "Time per output token: (last minus first token's time) / (output tokens - 1), of requests "
     "with two tokens or more. In ms."},
    {"itl", "ITL",
     "Inter-token latency: one gap between consecutive output tokens, pooled over requests. In "
     "ms."},
    {"e2e", "E2E", "Arrival of the request to its last token. In ms."},
    {"queue", "queue", "Arrival of a request to the step that takes it in. In ms."},
    {"lateness", "lateness",
     "How long after its scheduled time a request was handed over, in ms; it is part of TTFT."},
    {"per user", "tokens/s per user", "Median over requests of 1 / TPOT."},
    {"good requests", "good requests",
     "Share of requests that succeed and keep every limit that was set (goodput)."},
    {"knee", "knee",
     "The highest rate of those tried at which the rule still holds: 95 % of requests are good or, "
     "without limits, median TTFT is at most 3 times that of one request alone."},
    {"steady", "steady throughput",
     "Counted from the first success to the last arrival: ramp-up and drain are left out."},
    {"of limit", "% of limit",
     "Measured speed as a share of what this machine could do at most: the larger of the time to "
     "read the step's bytes (weights, experts touched, cache) and the time to multiply, at rates "
     "measured on it."},
    {"decode", "decode, tokens/s",
     "Output tokens per second while every sequence of the batch decodes; prompts are not counted. "
     "Median over repetitions, with a bootstrap interval."},
    {"prefill", "prefill, tokens/s",
     "Prompt tokens per second up to the first output token. Median over repetitions, with a "
     "bootstrap interval."},
    {"requests/s", "requests/s", "Requests finished per second, first arrival to last end."},
    {"output tokens/s", "output tokens/s",
     "Output tokens of all requests per second, first arrival to last end."},
    {"against reference", "against reference",
     "Accuracy minus the reference's on the same questions, repeats and seeds, in percentage "
     "points; the interval is of the paired difference, with the question as unit."},
    {"gained / lost", "gained / lost",
     "Answers that are right here and wrong under the reference, and the other way round."},
    {"p, holm", "p, Holm",
     "Probability of a difference at least as large if the plans were equally good: an exact sign "
     "test over questions (McNemar's), adjusted for all comparisons of the page by Holm's method."},
    {"tokens per answer", "tokens per answer",
     "Mean output tokens of an answer, thinking included."},
    {"every answer", "every answer",
     "How the answers ended. Every answer is counted in exactly one class; none is hidden."},
    {"accuracy", "accuracy",
     "Share of answers that are right, of all that were asked for: unparsed, truncated, looping "
     "and "
     "failed answers count as not right. The 95 % interval takes the question as unit."},
    {"mean kl", "mean KL",
     "Kullback-Leibler divergence of the plan's next-token distribution from the reference's, in "
     "nats, mean over positions; 0 is identical. The interval is clustered by answer."},
    {"kl divergence", "KL divergence", "See mean KL."},
    {"top-1", "top-1 agreement",
     "Share of positions at which plan and reference find the same token most probable."},
    {"router flips", "router flips",
     "Share of (position, layer) at which the set of chosen experts is not the reference's."},
    {"gate mass moved", "gate mass moved",
     "Half the sum over experts of the change of a gate's weight against the reference's, mean "
     "over "
     "positions and layers: the share of what experts say that comes from elsewhere. A flip "
     "between "
     "experts of small weight moves little."},
    {"gates of layer", "gate mass moved by layer",
     "Share of this layer's gate weights that lie on other experts than the reference's, or weigh "
     "them otherwise; mean over positions."},
    {"layer", "router flips by layer",
     "Share of positions at which this layer's set of chosen experts is not the reference's."},
    {"answers that diverge", "answers that diverge",
     "Share of answers in which the most probable token differs from the reference's somewhere."},
    {"answers that change", "answers that change",
     "Share of answers from which another result is read than from the reference's, when the plan "
     "goes "
     "on from the first token at which it would have gone another way, always taking the most "
     "probable "
     "token."},
    {"perplexity ratio", "perplexity ratio",
     "Perplexity of the reference's own answers under the plan, over that under the reference; 1 "
     "is "
     "no loss."},
    {"against the reference", "perplexity against the reference",
     "How much higher the perplexity is than the reference's on the same text. The interval is of "
     "the "
     "differences between the same blocks of neighbouring tokens (Student's t)."},
    {"bits per byte", "bits per byte",
     "Bits that the text's tokens cost under the plan, over the text's bytes: comparable between "
     "models of different vocabularies, as perplexity is not."},
    {"tokens scored", "tokens scored", "Tokens of the text whose probability counts; each once."},
    {"perplexity", "perplexity",
     "Exponential of the mean negative log-probability of a token of the text: among how many "
     "tokens "
     "the model is undecided. The interval draws blocks of neighbouring tokens with replacement."},
    {"deterministic", "deterministic", "The same input gives bitwise the same logits again."},
    {"batch-invariant", "batch-invariant",
     "Bitwise the same logits whatever else is in the batch and however the prompt is cut."},
    {"predicted", "predicted memory",
     "What the engine said it would take before it loaded anything."},
    {"peak rss", "peak RSS",
     "The most memory that was resident in the plan's process, by the operating system."},
    {"measured", "measured",
     "By the operating system or the clock, not by the engine's own count."},
    {"weights", "weights", "Bytes of all weights as stored by the plan. 1 MB = 1e6 bytes."},
    {"kv cache", "KV cache", "Keys and values of the tokens in flight. 1 MB = 1e6 bytes."},
    {"cuda graphs", "CUDA graphs", "Device memory of captured steps, by the fall of free memory."},
    {"joules per token", "joules per token",
     "Energy of the whole package by its counters, over output tokens."},
    {"unexplained", "unexplained", "Step as measured minus the sum of its ops, each timed alone."},
    {"correct", "correct", "The answer that was read from the final message is right."},
    {"wrong", "wrong", "An answer was read from the final message, and it is not right."},
    {"unparsed", "unparsed", "There is a final message, but no answer could be read from it."},
    {"truncated", "truncated", "The token budget ended before a final message."},
    {"looping", "looping", "The model repeated itself until it was stopped."},
    {"channel_error", "channel_error",
     "It stopped without a final message, or broke the message format."},
    {"refused", "refused", "It declined to answer."},
    {"failed", "failed", "No answer was produced: an error of the harness, not of the model."},
};

}  // namespace

std::string_view definition_of(std::string_view title) {
  std::string lower(title);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Definition& definition : kDefinitions) {
    if (lower.find(definition.term) != std::string::npos) return definition.text;
  }
  return "";
}

std::string definitions_section(std::string_view page) {
  std::string body = "<dl class=definitions>";
  for (const Definition& definition : kDefinitions) {
    // Stands at a column or a mark, or beside numbers as "9 % of limit".
    const bool used = page.find("\"" + escape_html(definition.text) + "\"") != page.npos ||
                      page.find("% " + std::string(definition.term)) != page.npos;
    if (!used) continue;
    body += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(definition.name),
                        escape_html(definition.text));
  }
  body += fmt::format(
      "<dt>95 % interval</dt><dd>{}</dd>",
      "In brackets below a value: the values that the data do not rule out at that level. How each "
      "was made stands at it. A dash where a number cannot be given; the reason stands at it.");
  return section("definitions", "Definitions",
                 "What the numbers mean. The same text shows where a pointer or the keyboard rests "
                 "on a number or its column.",
                 body + "</dl>");
}

}  // namespace moebench::page
