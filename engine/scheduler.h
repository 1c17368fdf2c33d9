// Continuous batching: requests come and go between steps, prompts are computed in chunks beside
// the decoding of others, and a shared prompt prefix is computed once.
//
// On a GPU the next step is enqueued before the tokens of the last are known, so that the GPU need
// not wait for the host: a decoding sequence's next token is named by the row that draws it. One
// that turns out to have ended (a stop token, a loop) computes a token too many, which nobody sees.
//
// Each sequence has tokens and a count of those already in the cache; a step feeds every sequence
// some of the rest. Decoding is the case where one token is left. Admission is by worst case: a
// request enters when pages for its prompt and all its allowed output are free, so nothing running
// is ever evicted.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/loop_detector.h"
#include "engine/model.h"
#include "engine/sampling.h"

namespace moebench {

enum class FinishReason {
  kStop,       // a stop token was sampled
  kLength,     // max_tokens or the context was reached
  kLoop,       // the loop detector fired
  kCancelled,  // cancel_all()
  kFailed,     // see `error`
};
std::string_view finish_reason_name(FinishReason reason);

struct Request {
  std::uint64_t id = 0;
  std::vector<std::int32_t> prompt;  // at least one token
  SamplingParams sampling;
  std::int64_t max_tokens = 256;  // output tokens, the stop token included
  std::vector<std::int32_t> stop_tokens;
  bool detect_loops = true;
  std::function<void(std::int32_t token)> on_token;  // called after each sampled token
};

// Times are nanoseconds of std::chrono::steady_clock.
struct RequestResult {
  std::uint64_t id = 0;
  FinishReason finish = FinishReason::kStop;
  std::string error;                 // of kFailed
  std::vector<std::int32_t> tokens;  // output, the stop token included
  std::vector<double> log_probabilities;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, taken from a shared prefix
  std::int64_t submitted_ns = 0;
  std::int64_t started_ns = 0;  // when it left the queue; 0 if it never did
  std::int64_t finished_ns = 0;
  std::vector<std::int64_t> token_ns;  // when each output token was known
};

class Scheduler {
 public:
  // The model's limits bound a step; its max_logit_rows bounds the sequences decoded at once. While
  // requests are unfinished, no other scheduler may use the model.
  Scheduler(Model& model, KvCache& cache);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Computes `prefix` once; later requests whose prompt begins with it start from there. Takes one
  // sequence of the cache until the scheduler ends.
  void share_prefix(std::span<const std::int32_t> prefix);

  // Throws Error(kInvalidArgument) for an empty prompt, one that does not fit the context or the
  // cache, tokens outside the vocabulary, or bad sampling parameters.
  void submit(Request request);

  // From now on no sequence decodes while there are prompts to compute: for timing how fast so many
  // decode together. Otherwise prompts are computed beside the decoding.
  void compute_prompts_first() { prompts_first_ = true; }

  // Runs one step and tells its tokens; false once nothing is left to do. If the model overlaps,
  // the step after it is under way by then: what is submitted meanwhile is in the one after that.
  bool step();

  // Ends everything that waits or runs, with what it has so far.
  void cancel_all();

  // Results since the last call, in the order of finishing.
  std::vector<RequestResult> take_results();

  std::int64_t num_unfinished() const {
    return static_cast<std::int64_t>(waiting_.size() + running_.size());
  }

 private:
  struct Waiting {
    Request request;
    std::int64_t submitted_ns;
  };
  struct Running {
    std::uint64_t number = 0;  // rising in running_
    Request request;
    RequestResult result;
    std::vector<std::int32_t> tokens;  // prompt and output
    std::int64_t computed = 0;         // tokens whose keys and values are in the cache
    std::int32_t sequence = -1;
    std::int64_t reserved_pages = 0;
    LoopDetector loops;
  };
  // A step that the model has under way.
  struct UnderWay {
    std::int64_t number = 0;            // the model's
    std::vector<std::uint64_t> owners;  // Running::number of each row of logits
  };
  struct Prefix {
    std::vector<std::int32_t> tokens;
    std::int32_t sequence;
  };

  std::int64_t worst_case_pages(const Request& request) const;
  const Prefix* longest_prefix(const std::vector<std::int32_t>& prompt) const;
  void admit();
  // Fills step_ and owners_; empty if all that could be fed may end with what is under way.
  void build_step();
  // Builds and enqueues, or does nothing if there is nothing to compute.
  void start_step();
  void finish_step();
  // Waits for what is under way, of which nobody wants the tokens any more.
  void drop_steps();
  Running* find(std::uint64_t number);  // nullptr if it has ended
  bool reaches_length(const Running& running, std::int64_t num_drawn) const;
  void take_token(Running& running, const Model::Draw& draw);
  void finish(Running& running, FinishReason reason);

  Model& model_;
  KvCache& cache_;
  std::deque<Waiting> waiting_;
  std::vector<Running> running_;
  std::vector<Prefix> prefixes_;
  std::vector<RequestResult> results_;
  std::int64_t unreserved_pages_;
  bool prompts_first_ = false;
  std::uint64_t num_admitted_ = 0;
  std::deque<UnderWay> under_way_;  // the older one first
  Step step_;
  std::vector<std::uint64_t> owners_;     // of each row of logits, as UnderWay's
  std::vector<sample::RowParams> draws_;  // likewise
};

}  // namespace moebench
