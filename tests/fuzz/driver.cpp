// Runs a fuzz entry without libFuzzer, as a test: over the files of a corpus, then over mutations
// of them that are the same on every machine. Where the entry dies, its input is kept in a file.
//
//   fuzz_plan [--mutations N] [--seed S] FILE|DIRECTORY...
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/random.h"
#include "tests/support/files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace {

constexpr std::size_t kMaxInput = 1 << 16;

// For the handlers below, which may call next to nothing.
std::string_view current_input;
std::string crash_path;

void keep_input() {
  const int fd = open(crash_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const bool kept = write(fd, current_input.data(), current_input.size()) >= 0;
  close(fd);
  if (!kept) return;
  for (const std::string_view text : {std::string_view("\nfuzz: the input is kept in "),
                                      std::string_view(crash_path), std::string_view("\n")}) {
    if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
  }
}

void on_signal(int number) {
  keep_input();
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void run(const std::string& input) {
  // A block of exactly this size, so that AddressSanitizer sees a read past its end.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  current_input = input;
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

class Mutator {
 public:
  Mutator(const std::vector<std::string>& corpus, std::uint64_t seed)
      : corpus_(corpus), random_(seed) {}

  std::string next() {
    std::string text = corpus_[below(corpus_.size())];
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) edit(text);
    if (text.size() > kMaxInput) text.resize(kMaxInput);
    return text;
  }

 private:
  std::size_t below(std::size_t bound) {
    return static_cast<std::size_t>(random_.below(static_cast<std::int64_t>(bound)));
  }
  // A place to insert at, and a short stretch from there.
  std::size_t place(const std::string& text) { return below(text.size() + 1); }
  std::size_t stretch(const std::string& text, std::size_t from) {
    return std::min(text.size() - from, std::size_t{1} << below(7));
  }

  void edit(std::string& text) {
    const std::size_t at = place(text);
    switch (below(8)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < text.size()) text[at] = piece()[0];
        break;
      case 2:
        text.erase(at, stretch(text, at));
        break;
      case 3:
        text.insert(at, piece());
        break;
      case 4: {  // a stretch of another input, or of this one
        const std::string& other = corpus_[below(corpus_.size())];
        const std::size_t from = place(other);
        text.insert(at, other.substr(from, stretch(other, from)));
        break;
      }
      case 5:
        text.resize(at);
        break;
      default:
        replace_number(text, at);
    }
  }

  // The next number in the text becomes one from the edges of types and of reason.
  void replace_number(std::string& text, std::size_t at) {
    constexpr std::string_view kDigits = "0123456789";
    constexpr std::array<std::string_view, 18> kNumbers = {"0",
                                                           "1",
                                                           "-1",
                                                           "2",
                                                           "0.5",
                                                           "1e308",
                                                           "1e-320",
                                                           "-0.0",
                                                           "255",
                                                           "65536",
                                                           "2147483647",
                                                           "2147483648",
                                                           "4294967296",
                                                           "1e400",
                                                           "null",
                                                           "9223372036854775807",
                                                           "9223372036854775808",
                                                           "18446744073709551616"};
    const std::size_t begin = text.find_first_of(kDigits, at);
    if (begin == std::string::npos) return;
    const std::size_t end = std::min(text.find_first_not_of(kDigits, begin), text.size());
    text.replace(begin, end - begin, kNumbers[below(kNumbers.size())]);
  }

  // What structure is made of, and bytes that break it.
  std::string_view piece() {
    using std::string_view_literals::operator""sv;
    constexpr std::array<std::string_view, 24> kPieces = {
        "{"sv,  "}"sv,  "["sv,    "]"sv,    "\""sv,      ","sv,        ":"sv,    "="sv,
        "\n"sv, " "sv,  "\\"sv,   "-"sv,    "\0"sv,      "\xff"sv,     "\x80"sv, "\xc3"sv,
        "[]"sv, "{}"sv, "null"sv, "true"sv, "\\ud800"sv, "\xf0\x9f"sv, "A"sv,    "\xe2\x80\xa8"sv};
    return kPieces[below(kPieces.size())];
  }

  const std::vector<std::string>& corpus_;
  moebench::RandomStream random_;
};

std::vector<std::string> read_corpus(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& item : std::filesystem::directory_iterator(path)) files.push_back(item.path());
  }
  std::sort(files.begin(), files.end());  // directories have no order of their own
  std::vector<std::string> corpus;
  for (const auto& file : files) corpus.push_back(moebench::test::read_file(file));
  return corpus;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t mutations = 0;
  std::uint64_t seed = 1;
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc) {
      mutations = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      paths.emplace_back(argument);
    }
  }
  const std::vector<std::string> corpus = read_corpus(paths);
  if (corpus.empty()) {
    std::fprintf(stderr, "error: run a fuzz entry: there is no input in the corpus\n");
    return 2;
  }
  crash_path = std::filesystem::path(argv[0]).filename().string() + ".crash";
  // Memory errors are the sanitizers' to report; they tell us before they end the process.
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(keep_input);
  for (const int number : {SIGABRT, SIGILL}) std::signal(number, on_signal);

  run("");
  for (const std::string& input : corpus) run(input);
  Mutator mutator(corpus, seed);
  for (std::uint64_t i = 0; i < mutations; ++i) run(mutator.next());
  std::printf("%zu inputs and %llu mutations of them\n", corpus.size(),
              static_cast<unsigned long long>(mutations));
  return 0;
}
