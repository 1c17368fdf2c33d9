// Reading smaps and pagemap.
#include "bench/memory.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <vector>

#include "kernels/core/error.h"

// Linux 5.14; older headers do not have them, and older kernels refuse them.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace moebench {
namespace {

// What a run adds to a process that has only started, in bytes: measured on x86-64 builds of this
// program (nano and a model of 2 GB, prefill, decode and a task; see tests/bench/test_memory.cpp,
// which fails when they are far off).
constexpr std::int64_t kCodeOfARun = 2'200'000;  // pages of the program that had not run yet
constexpr std::int64_t kHeapOfARun = 460'000;    // prompts, requests, threads' stacks, records
// Per entry of the vocabulary: the token's text and its two indexes (a node and a bucket each), and
// the merges that make it.
constexpr std::int64_t kTokenizerBytesPerToken = 180;

std::uintptr_t page_size() { return static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE)); }

std::int64_t whole_pages(std::size_t bytes) {
  const std::size_t page = page_size();
  return static_cast<std::int64_t>((bytes + page - 1) / page * page);
}

// The pages that `range` touches, as [begin, end).
std::pair<std::uintptr_t, std::uintptr_t> pages_of(std::span<const std::byte> range) {
  const auto begin = reinterpret_cast<std::uintptr_t>(range.data());
  return {begin / page_size() * page_size(),
          (begin + range.size() + page_size() - 1) / page_size() * page_size()};
}

// Asks the system to populate the range, or touches it page by page. Writing puts back what was
// read: nobody else uses the engine meanwhile.
void populate(std::span<const std::byte> range, bool mapped) {
  const auto [begin, end] = pages_of(range);
  if (madvise(reinterpret_cast<void*>(begin), end - begin,
              mapped ? MADV_POPULATE_READ : MADV_POPULATE_WRITE) == 0) {
    return;
  }
  for (std::uintptr_t at = begin; at < end; at += page_size()) {
    auto* byte = reinterpret_cast<volatile std::uint8_t*>(at);
    const std::uint8_t value = *byte;
    if (!mapped) *byte = value;
  }
}

std::int64_t first_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return file >> value ? value : std::numeric_limits<std::int64_t>::max();
}

// What this process may still take: of the system, or of its control group.
std::int64_t available_bytes() {
  std::int64_t available = std::numeric_limits<std::int64_t>::max();
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("MemAvailable:")) {
      available = std::strtoll(line.c_str() + 13, nullptr, 10) * 1024;
    }
  }
  const std::int64_t limit = first_number("/sys/fs/cgroup/memory.max");
  if (limit == std::numeric_limits<std::int64_t>::max()) return available;
  return std::min(available, limit - first_number("/sys/fs/cgroup/memory.current"));
}

struct Row {
  std::int64_t predicted = 0;
  std::int64_t taken = -1;  // not counted
  std::int64_t measured = 0;
};

}  // namespace

ProcessMemory read_process_memory(const std::filesystem::path& proc) {
  ProcessMemory memory;
  std::ifstream smaps(proc / "smaps");
  enum class Kind { kAnonymous, kCode, kFile } kind = Kind::kAnonymous;
  for (std::string line; std::getline(smaps, line);) {
    const std::size_t colon = line.find(':');
    const auto kilobytes = [&] {
      return std::strtoll(line.c_str() + colon + 1, nullptr, 10) * 1024;
    };
    if (line.starts_with("Rss:")) {
      const std::int64_t rss = kilobytes();
      memory.rss += rss;
      (kind == Kind::kCode   ? memory.code
       : kind == Kind::kFile ? memory.files
                             : memory.anonymous) += rss;
    } else if (line.starts_with("Pss:")) {
      memory.pss += kilobytes();
    } else if (line.starts_with("AnonHugePages:")) {
      memory.huge += kilobytes();
    } else if (line.find('-') < line.find(' ') && line.find_first_of("0123456789abcdef") == 0) {
      // "55d0c0000000-55d0c0021000 r-xp 00000000 08:01 1234   /usr/bin/program"
      const std::size_t path = line.find('/');
      kind = path == std::string::npos        ? Kind::kAnonymous
             : line.ends_with(".safetensors") ? Kind::kFile
                                              : Kind::kCode;
    }
  }
  return memory;
}

std::int64_t resident_bytes_of(std::span<const std::byte> range) {
  if (range.empty()) return 0;
  const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const auto [begin, end] = pages_of(range);
  std::vector<std::uint64_t> entries(4096);
  std::int64_t pages = 0;
  bool readable = true;
  for (std::uintptr_t at = begin / page_size(); readable && at < end / page_size();) {
    const std::size_t count = std::min<std::size_t>(entries.size(), end / page_size() - at);
    const auto offset = static_cast<off_t>(at * sizeof(std::uint64_t));
    const ssize_t got = pread(file, entries.data(), count * sizeof(std::uint64_t), offset);
    readable = got > 0;
    const std::size_t known = readable ? static_cast<std::size_t>(got) / sizeof(std::uint64_t) : 0;
    for (std::size_t i = 0; i < known; ++i) pages += static_cast<std::int64_t>(entries[i] >> 63);
    at += known;
  }
  close(file);
  return readable ? pages * static_cast<std::int64_t>(page_size()) : -1;
}

ProcessPrediction predict_process(const ProcessMemory& before, const std::filesystem::path& model,
                                  const ModelConfig& config) {
  ProcessPrediction predicted;
  if (before.rss == 0) return predicted;
  predicted.code = before.code + kCodeOfARun;
  predicted.heap = before.anonymous + kHeapOfARun;
  if (Tokenizer::exists_in(model)) {
    predicted.tokenizer = config.vocab_size * kTokenizerBytesPerToken;
  }
  return predicted;
}

std::string make_resident(const Engine& engine) {
  malloc_trim(0);
  const auto ranges = engine.host_ranges();
  std::int64_t missing = 0;
  for (const Engine::Range& range : ranges) {
    const std::int64_t resident = resident_bytes_of(range.bytes);
    if (resident < 0) return "the system does not tell which pages are resident";
    missing += std::max<std::int64_t>(0, whole_pages(range.bytes.size()) - resident);
  }
  // Some is left to others: a benchmark that makes the machine swap measures nothing.
  const auto room = static_cast<std::int64_t>(0.9 * static_cast<double>(available_bytes()));
  if (missing > room) {
    return fmt::format("{} bytes are not resident yet and there is room for {}", missing, room);
  }
  for (const Engine::Range& range : ranges) {
    if (!range.bytes.empty()) populate(range.bytes, range.mapped);
  }
  return "";
}

OrderedJson memory_waterfall(const Engine& engine, const MemoryBudget& predicted,
                             const ProcessPrediction& process, const ProcessMemory& measured,
                             const std::string& not_resident) {
  std::vector<std::pair<std::string, Row>> rows;
  const auto row = [&](std::string_view name) -> Row& {
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const auto& one) { return one.first == name; });
    return found != rows.end() ? found->second : rows.emplace_back(name, Row{}).second;
  };
  const auto add = [&](std::string_view name, std::size_t expected, std::size_t taken) {
    row(name).predicted = static_cast<std::int64_t>(expected);
    row(name).taken = static_cast<std::int64_t>(taken);
  };
  const MemoryBudget taken = engine.memory();
  for (int g = 0; g < kNumWeightGroups; ++g) {
    const auto group = static_cast<std::size_t>(g);
    if (predicted.weights[group] + taken.weights[group] == 0) continue;
    add(weight_group_name(static_cast<WeightGroup>(g)), predicted.weights[group],
        taken.weights[group]);
  }
  add("kv_cache", predicted.kv_cache, taken.kv_cache);
  add("activations", predicted.activations, taken.activations);
  add("workspace", predicted.workspace, taken.workspace);
  add("logits", predicted.logits, taken.logits);
  std::int64_t in_buffers = 0;
  std::int64_t in_files = 0;
  for (const Engine::Range& range : engine.host_ranges()) {
    const std::int64_t resident = std::max<std::int64_t>(0, resident_bytes_of(range.bytes));
    row(range.category).measured += resident;
    (range.mapped ? in_files : in_buffers) += resident;
  }
  row("program and libraries") = {process.code, -1, measured.code};
  row("heap and stacks") = {process.heap + process.tokenizer, -1, measured.anonymous - in_buffers};
  // Two mapped tensors may share a page, and the system maps neighbours of what is read.
  row("other pages of the checkpoint") = {0, -1, measured.files - in_files};

  OrderedJson list = OrderedJson::array();
  std::int64_t total = 0;
  for (const auto& [name, one] : rows) {
    OrderedJson json = {{"category", name}, {"predicted", one.predicted}};
    if (one.taken >= 0) json["taken"] = one.taken;
    json["measured"] = one.measured;
    list.push_back(json);
    total += one.predicted;
  }
  OrderedJson json = {{"rows", list},
                      {"predicted_rss", total},
                      {"measured_rss", measured.rss},
                      {"measured_pss", measured.pss},
                      {"in_huge_pages", measured.huge}};
  if (not_resident.empty() && measured.rss > 0) {
    json["difference"] = static_cast<double>(total) / static_cast<double>(measured.rss) - 1;
  } else {
    json["not_resident"] = not_resident.empty() ? "the system does not tell" : not_resident;
  }
  return json;
}

}  // namespace moebench
