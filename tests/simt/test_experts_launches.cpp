// Routers and experts that one launch does with the ops around them: with the bits of the ops one
// after the other, in any order of threads. Under ThreadSanitizer only the latter.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/core/described_device.h"
#include "kernels/core/thread_pool.h"
#include "kernels/fused/router_sums.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/router/router.h"
#include "kernels/verify/compare.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

using verify::Operands;

// What a layer has to say up to its experts.
struct Routed {
  std::vector<float> sums, normed, weights;
  std::vector<std::int32_t> ids;
};

struct RoutedShape {
  std::int64_t tokens, experts, top_k, size;
  bool adds;
};

// By cuda_cluster, or by the ops one after the other.
Routed route(const RoutedShape& s, verify::RandomMatrices& weight, bool at_once, ThreadPool& pool) {
  RandomStream random(21);
  const std::vector<float> x = verify::random_floats(random, s.tokens * s.size, 3.0F);
  const std::vector<float> addend = verify::random_floats(random, s.tokens * s.size, 1.0F);
  const std::vector<float> norm = verify::random_floats(random, s.size, 2.0F);
  // A few values only: experts with the same weights have the same logits.
  std::vector<float> bias = verify::random_floats(random, s.experts, 1.0F);
  for (std::size_t e = 0; e < bias.size(); ++e) bias[e] = bias[e / 8 * 8];
  Routed out{x, std::vector<float>(x.size(), std::nanf("")), {}, {}};
  out.weights.assign(static_cast<std::size_t>(s.tokens * s.top_k), std::nanf(""));
  out.ids.assign(out.weights.size(), -1);
  std::vector<float> logits(static_cast<std::size_t>(s.tokens * s.experts), std::nanf(""));
  Operands o("cuda");
  const View<float, 2> sums{o.out(out.sums), {s.tokens, s.size}};
  const View<float, 2> normed{o.out(out.normed), {s.tokens, s.size}};
  const View<const float, 2> added{s.adds ? o.in(addend) : nullptr, {s.tokens, s.size}};
  const View<const float, 1> norm_view{o.in(norm), {s.size}};
  const View<const float, 1> bias_view{s.adds ? o.in(bias) : nullptr, {s.experts}};
  const MatrixView matrix = o.in(weight.view[0]);
  router::Args args;
  args.expert_ids = {o.out(out.ids), {s.tokens, s.top_k}};
  args.expert_weights = {o.out(out.weights), {s.tokens, s.top_k}};
  const router::Problem problem{s.tokens, s.experts, s.top_k, matrix.format, s.size};
  if (at_once) {
    const router::Variant& variant = cuda_variant(router::variants(), "cuda_cluster");
    REQUIRE(variant.normalises(problem));
    args.product = {
        {{o.in(x), {s.tokens, s.size}}, added, norm_view, 1e-5F, sums}, normed, matrix, bias_view};
    o.run(variant, problem, args, pool);
    return out;
  }
  Context context{pool, {}};
  const View<float, 2> logit_view{o.out(logits), {s.tokens, s.experts}};
  args.logits = logit_view;
  cuda_variant(rms_norm::variants(), "cuda_block")
      .run({sums, added, norm_view, 1e-5F, normed}, context);
  cuda_variant(linear::variants(), "cuda_rows_f32")
      .run({normed, matrix, bias_view, logit_view}, context);
  o.run(cuda_variant(router::variants(), "cuda_warp"), problem, args, pool);
  return out;
}

void check_same(const Routed& got, const Routed& want) {
  CHECK(same_bits(got.sums, want.sums));
  CHECK(same_bits(got.normed, want.normed));
  CHECK(same_bits(got.weights, want.weights));
  CHECK(got.ids == want.ids);
}

// Every row of some stands twice: ties.
void repeat_rows(verify::RandomMatrices& weight) {
  const std::size_t bytes = row_bytes(weight.view.format, weight.view.cols);
  const auto cols = weight.view.cols;
  for (std::int64_t row = 1; row < weight.view.rows; row += 2) {
    std::memcpy(weight.data.data() + static_cast<std::size_t>(row) * bytes,
                weight.data.data() + static_cast<std::size_t>(row - 1) * bytes, bytes);
    std::copy_n(weight.decoded.begin() + (row - 1) * cols, cols,
                weight.decoded.begin() + row * cols);
  }
}

struct ExpertsShape {
  std::int64_t hidden, intermediate, experts, top_k;
  bool adds;
  float limit = 7;  // of SwiGLU
};
// The weights of a layer's experts and router.
struct ExpertsWeights {
  verify::RandomMatrices gate_up, down, router;

  ExpertsWeights(const ExpertsShape& s, RandomStream random, ThreadPool& pool)
      : gate_up(random, Format::kMxfp4, s.experts, 2 * s.intermediate, s.hidden, pool),
        down(random, Format::kMxfp4, s.experts, s.hidden, s.intermediate, pool),
        router(random, Format::kBf16, 1, s.experts, s.hidden, pool) {
    repeat_rows(router);
  }
};
// The residual stream, and what the experts have to add to it.
struct AfterExperts {
  std::vector<float> sums, out;
  std::vector<float> reference;  // `out` by the reference, for experts by themselves
};
enum class Launches { kByOp, kExperts, kAll, kAhead };

// A token's norm, router and experts: by `by_op` after the ops before it one by one, or in one
// launch by `name`, after them or with them, or with all but the router's product.
AfterExperts run_experts(const ExpertsShape& s, ExpertsWeights& weights, Launches by,
                         DeviceArray<std::byte>& signals, ThreadPool& pool,
                         std::string_view name = "cuda_one_launch_fp8",
                         std::string_view by_op = "cuda_digits_fp8") {
  RandomStream random(52);
  const std::vector<float> x = verify::random_floats(random, s.hidden, 3.0F);
  const std::vector<float> addend = verify::random_floats(random, s.hidden, 1.0F);
  const std::vector<float> norm = verify::random_floats(random, s.hidden, 2.0F);
  const auto gate_up_bias = verify::random_floats(random, s.experts * 2 * s.intermediate, 1.0F);
  const auto down_bias = verify::random_floats(random, s.experts * s.hidden, 1.0F);
  std::vector<float> router_bias = verify::random_floats(random, s.experts, 1.0F);
  for (std::size_t e = 0; e < router_bias.size(); ++e) router_bias[e] = router_bias[e / 8 * 8];
  AfterExperts result{x, std::vector<float>(x.size(), std::nanf("")), {}};
  std::vector<float> normed(x.size(), std::nanf(""));
  std::vector<float> logits(static_cast<std::size_t>(s.experts), std::nanf(""));
  std::vector<float> chosen(static_cast<std::size_t>(s.top_k), std::nanf(""));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(s.top_k), -1);
  Operands o("cuda");
  const View<float, 2> sums{o.out(result.sums), {1, s.hidden}};
  const View<float, 2> out{o.out(result.out), {1, s.hidden}};
  const View<const float, 2> added{s.adds ? o.in(addend) : nullptr, {1, s.hidden}};
  const View<const float, 1> norm_view{o.in(norm), {s.hidden}};
  const View<const float, 1> bias_view{s.adds ? o.in(router_bias) : nullptr, {s.experts}};
  const View<float, 2> normed_view{o.out(normed), {1, s.hidden}};
  const View<std::int32_t, 2> id_view{o.out(ids), {1, s.top_k}};
  const View<float, 2> chosen_view{o.out(chosen), {1, s.top_k}};
  const MatrixView router = o.in(weights.router.view[0]);
  moe_experts::Args args;
  args.x = normed_view;
  args.expert_ids = id_view;
  args.expert_weights = chosen_view;
  args.gate_up = o.in(weights.gate_up.view);
  args.gate_up_bias = {o.in(gate_up_bias), {s.experts, 2 * s.intermediate}};
  args.down = o.in(weights.down.view);
  args.down_bias = {o.in(down_bias), {s.experts, s.hidden}};
  args.out = out;
  args.swiglu_limit = s.limit;
  const moe_experts::Problem problem{Format::kMxfp4, 1,       s.hidden,     s.intermediate,
                                     s.experts,      s.top_k, Format::kBf16};
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), by == Launches::kByOp ? by_op : name);
  Context context = o.context(variant, problem, pool);
  context.signals = {signals.data(), signals.size()};
  if (by == Launches::kAll || by == Launches::kAhead) {
    REQUIRE(variant.normalises(problem));
    args.x = {nullptr, {1, s.hidden}};
    args.route = {{{o.in(x), {1, s.hidden}}, added, norm_view, 1e-5F, sums}, router, bias_view};
    if (by == Launches::kAhead) {
      args.route.is_ahead = true;
      std::vector<float> row = x;
      for (std::size_t i = 0; s.adds && i < row.size(); ++i) row[i] += addend[i];
      const fused::RouterSums& before =
          reinterpret_cast<fused::RouterSignals*>(signals.data())->next();
      const auto is_zero = [](auto sum) { return sum == 0; };
      REQUIRE(std::all_of(std::begin(before.products), std::end(before.products), is_zero));
      REQUIRE(std::all_of(std::begin(before.squares), std::end(before.squares), is_zero));
      verify::leave_router_sums(context, weights.router.decoded, norm, row);
    }
  } else {
    const View<float, 2> logit_view{o.out(logits), {1, s.experts}};
    cuda_variant(rms_norm::variants(), "cuda_block")
        .run({sums, added, norm_view, 1e-5F, normed_view}, context);
    cuda_variant(linear::variants(), "cuda_rows_f32")
        .run({normed_view, router, bias_view, logit_view}, context);
    cuda_variant(router::variants(), "cuda_warp").run({logit_view, id_view, chosen_view}, context);
  }
  const std::size_t begin = simt::launches().size();
  variant.run(args, context);
  // Grouped: sorting, digits, gate and up, digits, down, adding up.
  const std::size_t apart = by_op == "cuda_digits_fp8" ? 2 : 6;
  CHECK(simt::launches().size() - begin == (by == Launches::kByOp ? apart : 1));
  o.fetch();
  if (by == Launches::kExperts) {
    result.reference.assign(result.out.size(), std::nanf(""));
    args.out.data = result.reference.data();
    moe_experts::reference.run(args, context);
  }
  return result;
}

void check_same(const AfterExperts& got, const AfterExperts& want) {
  CHECK(same_bits(got.sums, want.sums));
  CHECK(same_bits(got.out, want.out));
  CHECK(std::none_of(got.out.begin(), got.out.end(), [](float v) { return std::isnan(v); }));
}

// With the router's product of the launch in front, which rounds it otherwise.
constexpr const char* kRoutedAhead[] = {
    "cuda_one_launch_stream_int8", "cuda_one_launch_readers_int8", "cuda_one_launch_blocks_fp8"};
void check_ahead(const ExpertsShape& s, ExpertsWeights& weights, DeviceArray<std::byte>& signals,
                 const char* name, ThreadPool& pool) {
  INFO(name << ": " << s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of "
            << s.experts << " experts");
  const AfterExperts want = run_experts(s, weights, Launches::kAll, signals, pool, name);
  for (int run = 0; run < 2; ++run) {
    const AfterExperts got = run_experts(s, weights, Launches::kAhead, signals, pool, name);
    CHECK(same_bits(got.sums, want.sums));
    CHECK(nmse(got.out, want.out) < 1e-11);  // false for NaN
  }
}

// One token for four experts, with a router that no launch takes: its weights are f32.
struct RoutedArgs {
  std::vector<float> floats = std::vector<float>(64);
  std::vector<std::int32_t> ids = {0};
  moe_experts::Args args;

  RoutedArgs() {
    args.expert_ids = {ids.data(), {1, 1}};
    args.gate_up.format = args.down.format = Format::kMxfp4;
    args.gate_up.count = args.down.count = 4;
    args.gate_up.rows = args.gate_up.cols = args.down.rows = 64;
    args.down.cols = 32;
    args.route.norm.weight = {floats.data(), {64}};
    args.route.weight = {Format::kF32, 4, 64, reinterpret_cast<const std::byte*>(floats.data())};
  }
  RoutedArgs(const RoutedArgs&) = delete;  // args looks into it
  RoutedArgs& operator=(const RoutedArgs&) = delete;
};

// Shapes for what does one token's experts in one launch.
constexpr ExpertsShape kExpertsShapes[] = {{128, 192, 16, 2, true},  {32, 32, 1, 1, false},
                                           {96, 64, 5, 3, true},     {384, 96, 33, 4, true},
                                           {320, 160, 65, 4, false}, {160, 32, 4, 4, true},
                                           {96, 64, 5, 3, true, 300}};

// Calls check(shape) for shapes; then, on a machine of `many` multiprocessors, for one with rows as
// of gpt-oss, which take more than the machine has otherwise, and for one with which a block has no
// rows, and nothing to wait for before it arrives.
template <class Check>
void check_experts(std::span<const ExpertsShape> shapes, int many, const Check& check) {
  for (const ExpertsShape& s : shapes) check(s);
  gpu::DeviceInfo device = gpu::known_device("h200");
  device.num_sms = many;
  const gpu::DescribedDevice described(device);
  simt::Settings settings;
  settings.num_sms = many;
  const WithSettings with(settings);
  check({2880, kShort ? 128 : 608, 8, 4, true});
  for (const simt::Order order : {simt::Order::kFifo, simt::Order::kLifo, simt::Order::kShuffled}) {
    settings.order = order;
    const WithSettings in_order(settings);
    check({32, 32, 3, 1, true});
  }
}

}  // namespace

#if !defined(SIMT_TSAN)
TEST_CASE("router: cuda_cluster has the bits of norm and product and choice one after the other") {
  ThreadPool pool(1);
  // Odd sizes; fewer experts than blocks; rows in one pass and in two; all the columns there can
  // be.
  for (const RoutedShape& s :
       {RoutedShape{1, 32, 4, 2880, true}, RoutedShape{2, 128, 4, 2880, true},
        RoutedShape{7, 19, 3, 160, true}, RoutedShape{16, 33, 2, 96, false},
        RoutedShape{3, 1, 1, 32, true}, RoutedShape{2, 127, 127, 4096, true}}) {
    for (const Format format : {Format::kBf16, Format::kF32}) {
      INFO(s.tokens << " tokens, " << s.experts << " experts, " << s.size << " columns, "
                    << format_name(format));
      RandomStream random(22);
      verify::RandomMatrices weight(random, format, 1, s.experts, s.size, pool);
      repeat_rows(weight);
      const Routed want = route(s, weight, false, pool);
      check_same(route(s, weight, true, pool), want);
    }
  }
}
#endif

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_fp8 has the bits of the ops one by one") {
  ThreadPool pool(1);
  // The same signals for all of them: each launch finds what the one before has left.
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // As nano; one expert of one; fewer than there are lanes, and more; rows that end inside tiles,
  // columns inside steps; all the rows that the machine's blocks can have.
  for (const ExpertsShape& s :
       {ExpertsShape{128, 192, 16, 2, true}, ExpertsShape{32, 32, 1, 1, false},
        ExpertsShape{96, 64, 5, 3, true}, ExpertsShape{448, 96, 33, 4, true},
        ExpertsShape{512, 160, 128, 4, false}, ExpertsShape{160, 32, 4, 4, true}}) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(51), pool);
    const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
    for (int run = 0; run < 2; ++run) {
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_fp8 shares a row of the router between blocks") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // As many columns as gpt-oss, which takes more multiprocessors than the machine has.
  for (const ExpertsShape& s :
       {ExpertsShape{2880, 32, 8, 4, true}, ExpertsShape{1504, 64, 32, 2, true}}) {
    INFO(s.hidden << " columns, " << s.experts << " experts");
    gpu::DeviceInfo many = gpu::known_device("h200");
    many.num_sms = 24;
    const gpu::DescribedDevice described(many);
    simt::Settings settings;
    settings.num_sms = many.num_sms;
    const WithSettings with(settings);
    ExpertsWeights weights(s, RandomStream(53), pool);
    const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
    check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
  }
}

TEST_CASE("moe_experts: launches whose router's product is done ahead choose the same experts") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  for (const char* name : kRoutedAhead) {
    for (const ExpertsShape& s :
         {ExpertsShape{128, 192, 16, 2, true}, ExpertsShape{32, 32, 1, 1, false},
          ExpertsShape{64, 32, 128, 4, true}}) {
      ExpertsWeights weights(s, RandomStream(56), pool);
      check_ahead(s, weights, signals, name, pool);
    }
  }
  // Each launch clears what the one before has read.
  const ExpertsShape s{96, 64, 5, 3, true};
  ExpertsWeights weights(s, RandomStream(57), pool);
  for (const char* name : kRoutedAhead) {
    run_experts(s, weights, Launches::kAll, signals, pool, name);
    auto& ahead = *reinterpret_cast<fused::RouterSignals*>(signals.data());
    fused::RouterSums& other = ahead.sums[(static_cast<unsigned>(ahead.turn) >> 31) ^ 1];
    other.products[3] = 1;  // is cleared by the next launch
    other.squares[7] = 1;
    run_experts(s, weights, Launches::kAll, signals, pool, name);
    CHECK(other.products[3] == 0);
    CHECK(other.squares[7] == 0);
  }
}
#endif

TEST_CASE("moe_experts: launches whose router's product is done ahead in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const ExpertsShape s{160, 96, 19, 3, true};
  ExpertsWeights weights(s, RandomStream(54), pool);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    for (const char* name : {"cuda_one_launch_stream_int8", "cuda_one_launch_blocks_fp8"}) {
      check_ahead(s, weights, signals, name, pool);
#if defined(SIMT_TSAN)
      return;  // it sees races in any, and both choose by the same
#endif
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_fp8 in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const ExpertsShape s{160, 96, 19, 3, true};
  ExpertsWeights weights(s, RandomStream(54), pool);
  const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    check_same(run_experts(s, weights, Launches::kExperts, signals, pool), want);
    check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
  }
}

TEST_CASE("moe_experts: cuda_one_launch_fp8 says which routers it takes") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_fp8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  const auto takes = [&](const moe_experts::Problem& p) { return variant.normalises(p); };
  CHECK(takes({kExperts, 1, 128, 192, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 2, 128, 192, 16, 4, kRouter}));   // tokens
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 16, 5, kRouter}));   // of each
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 129, 4, kRouter}));  // experts
  CHECK_FALSE(takes({kExperts, 1, 2880, 192, 16, 4, kRouter}));  // rows of four blocks
  CHECK_FALSE(takes({Format::kInt4, 1, 128, 192, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 16, 4, Format::kF32}));
  {
    const gpu::DescribedDevice described(gpu::known_device("h200"));
    CHECK(takes({kExperts, 1, 2880, 2880, 32, 4, kRouter}));
    CHECK(takes({kExperts, 1, 2880, 2880, 128, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(takes({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
  }
  // And refuses the others; and to run without signals.
  ThreadPool pool(1);
  Context context{pool, {}};
  RoutedArgs routed;
  moe_experts::Args& args = routed.args;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("must be bf16"));
  args.route.weight.format = kRouter;
  args.route.weight.rows = 3;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("3 x 64 for 4 experts"));
  args.route.weight.rows = 4;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("signals"));
}

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_stream_int8 agrees with the reference in any company") {
  constexpr std::string_view kName = "cuda_one_launch_stream_int8";
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const auto check = [&](const ExpertsShape& s) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(55), pool);
    AfterExperts first;
    for (int run = 0; run < 2; ++run) {
      const AfterExperts got = run_experts(s, weights, Launches::kExperts, signals, pool, kName);
      if (run == 0) first = got;
      // Activations are shown as f16, where none is larger than an f16 can be, else as bf16.
      const double error = nmse(got.out, got.reference);
      CHECK(error <= (s.limit < 200 ? 1e-7 : 5e-6));
      CHECK((s.limit < 200 || error > 1e-7));
      check_same(got, first);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, kName), first);
      check_same(run_experts(s, weights, run == 0 ? Launches::kExperts : Launches::kAll, signals,
                             pool, "cuda_one_launch_readers_int8"),
                 first);
    }
  };
  // As nano; one expert of one; blocks without rows; shares of several experts, that end inside
  // tiles; tiles of up to eight rows; more tiles than stages, and less; all the rows of down that
  // there may be.
  check_experts(kExpertsShapes, 32, check);
}
#endif

TEST_CASE("moe_experts: cuda_one_launch_stream_int8 in every schedule") {
  constexpr std::string_view kName = "cuda_one_launch_stream_int8";
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const ExpertsShape s{160, 96, 19, 3, true};
  ExpertsWeights weights(s, RandomStream(56), pool);
  const AfterExperts want = run_experts(s, weights, Launches::kExperts, signals, pool, kName);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    for (const std::string_view name : {kName, std::string_view("cuda_one_launch_readers_int8")}) {
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool, name), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), want);
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_stream_int8 says which routers it takes") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_stream_int8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  const auto takes = [&](const moe_experts::Problem& p) { return variant.normalises(p); };
  CHECK(takes({kExperts, 1, 128, 96, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 2, 128, 96, 16, 4, kRouter}));   // tokens
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 16, 5, kRouter}));   // of each
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 129, 4, kRouter}));  // experts
  CHECK_FALSE(takes({kExperts, 1, 448, 96, 16, 4, kRouter}));   // rows of four blocks
  CHECK_FALSE(takes({kExperts, 1, 128, 448, 16, 4, kRouter}));
  CHECK_FALSE(takes({Format::kInt4, 1, 128, 96, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 16, 4, Format::kF32}));
  for (const char* device : {"h100", "h200"}) {
    const gpu::DescribedDevice described(gpu::known_device(device));
    CHECK(takes({kExperts, 1, 2880, 2880, 32, 4, kRouter}));
    CHECK(takes({kExperts, 1, 2880, 2880, 128, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(takes({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
  }
  // And refuses the others; and to run without signals.
  ThreadPool pool(1);
  Context context{pool, {}};
  RoutedArgs routed;
  moe_experts::Args& args = routed.args;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("must be bf16"));
  args.route.weight.format = kRouter;
  args.down.format = Format::kInt4;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("4 MXFP4 experts"));
  args.down.format = kExperts;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("signals"));
}

// Variants of one launch, and those beside which they have bits, or up to which error.
struct LikeGrouped {
  std::string_view name;
  std::string_view grouped;
  double most_error;
};
constexpr LikeGrouped kLikeGrouped[] = {
    {"cuda_one_launch_chunks_fp8", "cuda_grouped_chunks_fp8", 0},
    {"cuda_one_launch_blocks_fp8", "cuda_grouped_blocks_fp8", 1e-6}};

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 and _blocks_ agree with grouped ones") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const auto check = [&](const ExpertsShape& s) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(57), pool);
    for (const auto& [name, grouped, most_error] : kLikeGrouped) {
      INFO(name);
      const AfterExperts want =
          run_experts(s, weights, Launches::kByOp, signals, pool, name, grouped);
      const AfterExperts got = run_experts(s, weights, Launches::kExperts, signals, pool, name);
      if (most_error == 0) check_same(got, want);
      CHECK(nmse(got.out, want.out) <= most_error);
      CHECK(nmse(got.out, got.reference) <= 2e-5);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), got);
    }
  };
  // As nano; one expert of one; teams without an expert; rows of one and of two tiles, of which the
  // last have rows for some warps; a chunk that is not whole, with and without one before it; all
  // the rows of down that there may be.
  check_experts(kExpertsShapes, 30, check);
  check({512, 288, 4, 4, true});
}
#endif

TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 and _blocks_ in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // Many tiles of one stage, and one of many: rings turn, and so do the places of scales.
  const ExpertsShape s{32, 1088, 5, 2, true};
  ExpertsWeights weights(s, RandomStream(58), pool);
  for (const auto& [name, grouped, most_error] : kLikeGrouped) {
    const AfterExperts want = run_experts(s, weights, Launches::kExperts, signals, pool, name);
    for (const simt::Settings& settings : schedules()) {
      INFO(name << ", " << describe(settings));
      const WithSettings with(settings);
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool, name), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), want);
#if defined(SIMT_TSAN)
      break;  // it sees races in any
#endif
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 takes one token, and ends without the norm") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_chunks_fp8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  for (const char* device : {"h100", "h200"}) {
    const gpu::DescribedDevice described(gpu::known_device(device));
    for (const std::int64_t experts : {32, 128}) {
      CHECK(variant.normalises({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(variant.ends_with_norm({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(variant.normalises({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      CHECK(variant.ends_with_norm({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      const moe_experts::Variant& blocks = moe_experts::cuda_one_launch_blocks_fp8;
      CHECK(blocks.normalises({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(blocks.ends_with_norm({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      CHECK(blocks.ends_with_norm({kExperts, 6, 2880, 2880, experts, 4, kRouter}));
    }
    CHECK_FALSE(variant.normalises({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 2880, 32, 5, kRouter}));
    CHECK_FALSE(variant.normalises({Format::kInt4, 1, 2880, 2880, 32, 4, kRouter}));
  }
}

TEST_CASE("router: cuda_cluster in every schedule") {
  ThreadPool pool(1);
  const RoutedShape s{3, 70, 4, 544, true};
  RandomStream random(23);
  verify::RandomMatrices weight(random, Format::kBf16, 1, s.experts, s.size, pool);
  repeat_rows(weight);
  const Routed want = route(s, weight, false, pool);
  for (simt::Settings settings : schedules()) {
    INFO(describe(settings));
    settings.resident_blocks = 16;
    const WithSettings with(settings);
    check_same(route(s, weight, true, pool), want);
  }
}

TEST_CASE("router: cuda_cluster says which norms and products it takes") {
  const router::Variant& variant = cuda_variant(router::variants(), "cuda_cluster");
  const auto takes = [&](const router::Problem& p) { return variant.normalises(p); };
  CHECK(takes({16, 128, 4, Format::kBf16, 2880}));
  CHECK_FALSE(takes({17, 128, 4, Format::kBf16, 2880}));  // tokens
  CHECK_FALSE(takes({1, 129, 4, Format::kBf16, 2880}));   // experts
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 2888}));    // columns
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 4128}));
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 0}));
  CHECK_FALSE(takes({1, 32, 4, Format::kInt4, 2880}));
  // And refuses the others.
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(64);
  std::vector<std::int32_t> ids(1);
  router::Args args;
  args.expert_ids = {ids.data(), {1, 1}};
  args.product.norm.weight = {floats.data(), {48}};
  args.product.weight = {Format::kF32, 1, 48, reinterpret_cast<const std::byte*>(floats.data())};
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("multiple of 32"));
}

}  // namespace moebench::test
