// dlopen, with the places where NVIDIA's libraries lie.
#include "kernels/core/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <cstdlib>

namespace moebench {
namespace {

// The folders to look in, each ending in '/'; empty: where the system's loader looks.
std::vector<std::string> folders() {
  std::vector<std::string> found;
  const char* chosen = std::getenv("MOEBENCH_CUDA_LIBS");
  if (chosen != nullptr && *chosen != '\0') found.push_back(std::string(chosen) + "/");
  found.emplace_back();
  found.emplace_back("/usr/local/cuda/lib64/");
  found.emplace_back("/usr/local/cuda/extras/CUPTI/lib64/");
  return found;
}

}  // namespace

SharedLibrary::SharedLibrary(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    for (const std::string& folder : folders()) {
      // Never unloaded: CUPTI leaves callbacks of its own in the driver.
      handle_ = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
      if (handle_ != nullptr) {
        unavailable_.clear();
        return;
      }
      // The loader's own words are worth more than those about our guesses at folders.
      const char* error = dlerror();
      if (folder.empty()) unavailable_ = error != nullptr ? error : name + " was not opened";
    }
  }
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

std::string SharedLibrary::path() const {
  link_map* map = nullptr;
  if (handle_ == nullptr || dlinfo(handle_, RTLD_DI_LINKMAP, static_cast<void*>(&map)) != 0) {
    return "";
  }
  return map->l_name;
}

void* SharedLibrary::symbol(const char* name) const {
  return handle_ != nullptr ? dlsym(handle_, name) : nullptr;
}

}  // namespace moebench
