// A conversation as a list of pieces: special tokens and texts, each text tokenised by itself.
#include <algorithm>

#include "engine/harmony.h"
#include "engine/harmony_tools.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::string_view kConstrain = "<|constrain|>";

struct Piece {
  bool is_special;
  std::string text;
};

class Renderer {
 public:
  explicit Renderer(const Conversation& conversation) : conversation_(conversation) {
    for (const Message& message : conversation) {
      for (const Content& part : message.content) {
        const auto* developer = std::get_if<DeveloperContent>(&part);
        if (developer == nullptr) continue;
        const auto functions = developer->tools.find("functions");
        has_functions_ |= functions != developer->tools.end() && !functions->second.tools.empty();
      }
    }
  }

  std::vector<Piece> render(const RenderOptions& options) {
    std::size_t first_kept_analysis = 0;
    if (options.auto_drop_analysis) first_kept_analysis = num_without_analysis();
    for (std::size_t i = 0; i < conversation_.size(); ++i) {
      const bool is_dropped = i < first_kept_analysis && conversation_[i].channel == "analysis";
      if (!is_dropped) message(conversation_[i]);
    }
    if (options.mode == RenderMode::kCompletion) {
      special("<|start|>");
      text(std::string(role_name(Role::kAssistant)));
    } else if (options.mode == RenderMode::kTraining && !conversation_.empty()) {
      const Message& last = conversation_.back();
      if (last.role == Role::kAssistant && last.channel == "final") {
        pieces_.back().text = "<|return|>";
      }
    }
    return std::move(pieces_);
  }

 private:
  void special(std::string_view token) { pieces_.push_back({true, std::string(token)}); }
  void text(std::string piece) { pieces_.push_back({false, std::move(piece)}); }

  // How many messages from the start are shown without those on channel analysis.
  std::size_t num_without_analysis() const {
    const auto is_final = [](const Message& message) { return message.channel == "final"; };
    const auto last =
        std::find_if(conversation_.rbegin(), conversation_.rend(),
                     [](const Message& message) { return message.role == Role::kAssistant; });
    if (last == conversation_.rend() || !is_final(*last)) return 0;
    const auto first = std::find_if(conversation_.begin(), conversation_.end(), is_final);
    return static_cast<std::size_t>(first - conversation_.begin());
  }

  void message(const Message& message) {
    special("<|start|>");
    author(message);
    if (!message.recipient.empty() && message.recipient != "all") text(" to=" + message.recipient);
    if (!message.channel.empty()) {
      special("<|channel|>");
      text(message.channel);
    }
    content_type(message.content_type);
    special("<|message|>");
    for (const Content& part : message.content) text(content_text(part));
    const bool is_call = message.role == Role::kAssistant && !message.recipient.empty();
    special(is_call ? "<|call|>" : "<|end|>");
  }

  void author(const Message& message) {
    if (message.role == Role::kTool) {
      require(!message.name.empty(), "render a conversation: a tool message without a name");
      text(message.name);
    } else {
      const char* colon = message.name.empty() ? "" : ":";
      text(fmt::format("{}{}{}", role_name(message.role), colon, message.name));
    }
  }

  void content_type(const std::string& type) {
    if (type.empty()) return;
    if (type.starts_with(kConstrain)) {
      text(" ");
      special(kConstrain);
      text(type.substr(kConstrain.size()));
    } else {
      text(" " + type);
    }
  }

  std::string content_text(const Content& part) const {
    if (const auto* system = std::get_if<SystemContent>(&part)) return system_text(*system);
    if (const auto* developer = std::get_if<DeveloperContent>(&part)) {
      return developer_text(*developer);
    }
    return std::get<std::string>(part);
  }

  std::string system_text(const SystemContent& system) const {
    std::vector<std::string> top;
    if (system.model_identity) top.push_back(*system.model_identity);
    if (system.knowledge_cutoff) top.push_back("Knowledge cutoff: " + *system.knowledge_cutoff);
    if (system.conversation_start_date) {
      top.push_back("Current date: " + *system.conversation_start_date);
    }
    std::vector<std::string> sections;
    if (!top.empty()) sections.push_back(fmt::format("{}", fmt::join(top, "\n")));
    if (system.reasoning_effort) {
      sections.push_back(fmt::format("Reasoning: {}", effort_name(*system.reasoning_effort)));
    }
    if (!system.tools.empty()) sections.push_back(tools_section(system.tools));
    if (system.channel_config && !system.channel_config->valid_channels.empty()) {
      sections.push_back(channels_text(*system.channel_config));
    }
    return fmt::format("{}", fmt::join(sections, "\n\n"));
  }

  std::string channels_text(const ChannelConfig& config) const {
    std::string text = fmt::format("# Valid channels: {}.", fmt::join(config.valid_channels, ", "));
    if (config.channel_required) text += " Channel must be included for every message.";
    if (has_functions_) {
      text += "\nCalls to these tools must go to the commentary channel: 'functions'.";
    }
    return text;
  }

  static std::string developer_text(const DeveloperContent& developer) {
    std::vector<std::string> sections;
    if (developer.instructions) {
      sections.push_back("# Instructions");
      sections.push_back(*developer.instructions);
    }
    if (!developer.tools.empty()) sections.push_back(tools_section(developer.tools));
    return fmt::format("{}", fmt::join(sections, "\n\n"));
  }

  const Conversation& conversation_;
  bool has_functions_ = false;  // a developer message defines at least one tool in "functions"
  std::vector<Piece> pieces_;
};

}  // namespace

std::vector<TokenId> render(const Conversation& conversation, const RenderOptions& options,
                            const Tokenizer& tokenizer) {
  HarmonyTokens::of(tokenizer);  // refuses a tokenizer that lacks a special token
  std::vector<TokenId> ids;
  for (const Piece& piece : Renderer(conversation).render(options)) {
    if (piece.is_special) {
      ids.push_back(tokenizer.special_id(piece.text).value());
    } else {
      const std::vector<TokenId> text_ids = tokenizer.encode(piece.text);
      ids.insert(ids.end(), text_ids.begin(), text_ids.end());
    }
  }
  return ids;
}

std::string render_text(const Conversation& conversation, const RenderOptions& options) {
  std::string text;
  for (const Piece& piece : Renderer(conversation).render(options)) text += piece.text;
  return text;
}

}  // namespace moebench
