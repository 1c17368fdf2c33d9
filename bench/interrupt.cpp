// The one mutable global of the program: a signal handler can reach nothing else.
#include "bench/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace moebench {
namespace {

volatile std::sig_atomic_t g_interrupts = 0;

extern "C" void on_signal(int) {
  const std::sig_atomic_t count = g_interrupts + 1;
  g_interrupts = count;
  if (count >= 3) _exit(2);  // the user means it
}

}  // namespace

void watch_for_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a poll() that waits for a worker must return.
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A reader that goes away must not kill the run: writes then fail, and say so.
  std::signal(SIGPIPE, SIG_IGN);
  // The same for a file that reaches its limit of size.
  std::signal(SIGXFSZ, SIG_IGN);
}

bool interrupted() { return g_interrupts != 0; }

}  // namespace moebench
