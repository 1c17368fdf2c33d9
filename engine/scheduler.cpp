// The loop of continuous batching.
#include "engine/scheduler.h"

#include <algorithm>

#include "kernels/core/clock.h"
#include "kernels/core/error.h"

namespace moebench {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kLoop:
      return "loop";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "unknown";
}

Scheduler::Scheduler(Model& model, KvCache& cache)
    : model_(model), cache_(cache), unreserved_pages_(cache.free_full_pages()) {}

Scheduler::~Scheduler() {
  try {
    drop_steps();
  } catch (const Error&) {
    // Whoever uses the device next sees what is wrong with it.
  }
  for (const Running& r : running_) {
    if (r.sequence >= 0) cache_.release(r.sequence);
  }
  for (const Prefix& p : prefixes_) cache_.release(p.sequence);
}

void Scheduler::share_prefix(std::span<const std::int32_t> prefix) {
  if (prefix.empty()) return;
  const std::int32_t sequence = cache_.create();
  prefixes_.push_back({{prefix.begin(), prefix.end()}, sequence});
  const auto length = static_cast<std::int64_t>(prefix.size());
  unreserved_pages_ -= cache_.pages_for(length);
  const std::int64_t chunk = std::min(model_.limits().max_step_tokens, cache_.options().max_step);
  for (std::int64_t done = 0; done < length;) {
    const std::int64_t end = std::min(length, done + chunk);
    cache_.grow(sequence, end);
    step_.clear();
    for (; done < end; ++done) {
      step_.tokens.push_back(prefix[static_cast<std::size_t>(done)]);
      step_.positions.push_back(done);
      step_.sequences.push_back(sequence);
    }
    model_.forward(step_, cache_);
    cache_.trim(sequence, done);
  }
}

std::int64_t Scheduler::worst_case_pages(const Request& request) const {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  // Both bounded by the context, for max_tokens may be huge. The last sampled token is never fed
  // back. One page more, for the copy a fork makes.
  const std::int64_t context = model_.limits().max_context;
  return cache_.pages_for(std::min(prompt + std::min(request.max_tokens, context), context)) + 1;
}

void Scheduler::submit(Request request) {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  require(prompt > 0, "submit request {}: the prompt is empty", request.id);
  require(prompt < model_.limits().max_context,
          "submit request {}: a prompt of {} tokens leaves no room in a context of {}", request.id,
          prompt, model_.limits().max_context);
  require(request.max_tokens > 0, "submit request {}: max_tokens {} must be positive", request.id,
          request.max_tokens);
  for (const std::int32_t token : request.prompt) {
    require(token >= 0 && token < model_.config().vocab_size,
            "submit request {}: token {} is outside the vocabulary of {}", request.id, token,
            model_.config().vocab_size);
  }
  check_sampling(request.sampling);
  const std::int64_t capacity =
      cache_.pages_for(cache_.options().max_tokens) + cache_.options().max_sequences;
  require(worst_case_pages(request) <= capacity,
          "submit request {}: prompt {} and max_tokens {} need more than the {} tokens of the KV "
          "cache",
          request.id, prompt, request.max_tokens, cache_.options().max_tokens);
  waiting_.push_back({std::move(request), steady_ns()});
}

const Scheduler::Prefix* Scheduler::longest_prefix(const std::vector<std::int32_t>& prompt) const {
  const Prefix* best = nullptr;
  for (const Prefix& prefix : prefixes_) {
    // At least one token must be left to compute: its logits start the answer.
    if (prefix.tokens.size() >= prompt.size()) continue;
    if (best != nullptr && prefix.tokens.size() <= best->tokens.size()) continue;
    if (std::equal(prefix.tokens.begin(), prefix.tokens.end(), prompt.begin())) best = &prefix;
  }
  return best;
}

void Scheduler::admit() {
  const std::int64_t most =
      std::min(model_.limits().max_logit_rows,
               cache_.options().max_sequences - static_cast<std::int64_t>(prefixes_.size()));
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < most) {
    const std::int64_t pages = worst_case_pages(waiting_.front().request);
    if (pages > unreserved_pages_ && !running_.empty()) break;
    Running r;
    if (pages > unreserved_pages_) {  // even alone it does not fit beside the shared prefixes
      r.result.error = fmt::format("{} KV pages needed, {} left beside the shared prefix", pages,
                                   unreserved_pages_);
    }
    r.request = std::move(waiting_.front().request);
    r.result.submitted_ns = waiting_.front().submitted_ns;
    waiting_.pop_front();
    r.result.id = r.request.id;
    r.result.prompt_tokens = static_cast<std::int64_t>(r.request.prompt.size());
    r.tokens = r.request.prompt;
    if (!r.result.error.empty()) {
      finish(r, FinishReason::kFailed);
      continue;
    }
    r.result.started_ns = steady_ns();
    r.reserved_pages = pages;
    unreserved_pages_ -= pages;
    if (const Prefix* prefix = longest_prefix(r.tokens)) {
      r.computed = static_cast<std::int64_t>(prefix->tokens.size());
      r.result.cached_tokens = r.computed;
      r.sequence = cache_.fork(prefix->sequence, r.computed, model_.stream());
    } else {
      r.sequence = cache_.create();
    }
    r.number = num_admitted_++;
    running_.push_back(std::move(r));
  }
}

Scheduler::Running* Scheduler::find(std::uint64_t number) {
  const auto found =
      std::lower_bound(running_.begin(), running_.end(), number,
                       [](const Running& r, std::uint64_t wanted) { return r.number < wanted; });
  return found != running_.end() && found->number == number ? &*found : nullptr;
}

bool Scheduler::reaches_length(const Running& r, std::int64_t num_drawn) const {
  return static_cast<std::int64_t>(r.result.tokens.size()) + num_drawn >= r.request.max_tokens ||
         static_cast<std::int64_t>(r.tokens.size()) + num_drawn >= model_.limits().max_context;
}

void Scheduler::build_step() {
  step_.clear();
  owners_.clear();
  draws_.clear();
  // By index into running_: the row of the step under way that draws the next token, or -1.
  std::vector<std::int32_t> drawing(running_.size(), -1);
  if (!under_way_.empty()) {
    const auto& owners = under_way_.back().owners;
    for (std::size_t row = 0; row < owners.size(); ++row) {
      const Running* r = find(owners[row]);
      if (r == nullptr) continue;
      drawing[static_cast<std::size_t>(r - running_.data())] = static_cast<std::int32_t>(row);
    }
  }
  const auto num_drawn = [&](std::size_t i) { return drawing[i] >= 0 ? 1 : 0; };
  const auto total = [&](std::size_t i) {
    return static_cast<std::int64_t>(running_[i].tokens.size()) + num_drawn(i);
  };
  std::int64_t budget = model_.limits().max_step_tokens;
  const auto feed = [&](std::size_t i) {
    Running& r = running_[i];
    const std::int64_t end =
        std::min({total(i), r.computed + budget, r.computed + cache_.options().max_step});
    cache_.grow(r.sequence, end);
    budget -= end - r.computed;
    for (; r.computed < end; ++r.computed) {
      const auto at = static_cast<std::size_t>(r.computed);
      step_.tokens.push_back(at < r.tokens.size() ? r.tokens[at] : -1 - drawing[i]);
      step_.positions.push_back(r.computed);
      step_.sequences.push_back(r.sequence);
    }
    if (end == total(i)) {
      step_.logit_rows.push_back(static_cast<std::int32_t>(step_.tokens.size()) - 1);
      owners_.push_back(r.number);
      draws_.push_back(row_params(r.request.sampling,
                                  r.result.tokens.size() + static_cast<std::size_t>(num_drawn(i))));
    }
  };
  // Decoding first: a prompt that arrives must not stall the answers under way.
  const auto is_new = [&](std::size_t i) {
    return running_[i].result.tokens.empty() && drawing[i] < 0;
  };
  bool holds = false;
  for (std::size_t i = 0; prompts_first_ && i < running_.size(); ++i) holds = holds || is_new(i);
  std::vector<std::size_t> prompts;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (drawing[i] >= 0 && reaches_length(running_[i], 1)) continue;  // with what is under way
    if (total(i) - running_[i].computed > 1) {
      prompts.push_back(i);
    } else if (budget > 0 && (!holds || is_new(i))) {
      feed(i);
    }
  }
  for (const std::size_t i : prompts) {
    if (budget > 0) feed(i);
  }
}

void Scheduler::start_step() {
  build_step();
  if (step_.tokens.empty()) return;
  const std::int64_t number = model_.enqueue_step(step_, cache_, draws_);
  under_way_.push_back({number, owners_});
  // Now, and not when they are fed again: others may need the pages before.
  for (const Running& r : running_) cache_.trim(r.sequence, r.computed);
}

void Scheduler::finish_step() {
  const UnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  const auto drawn = model_.finish_step(step.number);
  for (std::size_t row = 0; row < step.owners.size(); ++row) {
    if (Running* r = find(step.owners[row])) take_token(*r, drawn[row]);
  }
  std::erase_if(running_, [](const Running& r) { return r.sequence < 0; });
}

void Scheduler::drop_steps() {
  while (!under_way_.empty()) {
    const std::int64_t number = under_way_.front().number;
    under_way_.pop_front();
    model_.finish_step(number);
  }
}

void Scheduler::take_token(Running& r, const Model::Draw& draw) {
  r.result.error = sampling_problem(draw.status, draw.token);
  if (!r.result.error.empty()) {
    finish(r, FinishReason::kFailed);
    return;
  }
  r.tokens.push_back(draw.token);
  r.result.tokens.push_back(draw.token);
  r.result.log_probabilities.push_back(draw.log_probability);
  r.result.token_ns.push_back(steady_ns());
  if (r.request.on_token) r.request.on_token(draw.token);
  const auto& stops = r.request.stop_tokens;
  if (std::find(stops.begin(), stops.end(), draw.token) != stops.end()) {
    finish(r, FinishReason::kStop);
  } else if (reaches_length(r, 0)) {
    finish(r, FinishReason::kLength);
  } else if (r.request.detect_loops && r.loops.push(draw.token)) {
    finish(r, FinishReason::kLoop);
  }
}

void Scheduler::finish(Running& r, FinishReason reason) {
  r.result.finish = reason;
  r.result.finished_ns = steady_ns();
  if (r.sequence >= 0) cache_.release(r.sequence);
  unreserved_pages_ += r.reserved_pages;
  r.sequence = -1;  // marks it for removal
  if (model_.tracer().on_request) model_.tracer().on_request(r.result);
  results_.push_back(std::move(r.result));
}

bool Scheduler::step() {
  admit();
  if (running_.empty()) return false;
  if (under_way_.empty()) start_step();
  if (model_.overlaps()) start_step();
  finish_step();
  if (running_.empty()) drop_steps();
  return num_unfinished() > 0;
}

void Scheduler::cancel_all() {
  for (Running& r : running_) finish(r, FinishReason::kCancelled);
  running_.clear();
  drop_steps();
  for (Waiting& w : waiting_) {
    RequestResult result;
    result.id = w.request.id;
    result.finish = FinishReason::kCancelled;
    result.prompt_tokens = static_cast<std::int64_t>(w.request.prompt.size());
    result.submitted_ns = w.submitted_ns;
    result.finished_ns = steady_ns();
    results_.push_back(std::move(result));
  }
  waiting_.clear();
}

std::vector<RequestResult> Scheduler::take_results() { return std::exchange(results_, {}); }

}  // namespace moebench
