// Ctrl-C as a flag that long loops poll, so that what is finished gets written.
#pragma once

namespace moebench {

// From now on SIGINT and SIGTERM set a flag instead of ending the process; a third one kills it.
void watch_for_interrupts();

bool interrupted();

}  // namespace moebench
