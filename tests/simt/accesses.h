// What kernels do with memory, access by access: kernels are compiled with -fsanitize=thread, and
// without ThreadSanitizer the functions that this calls are the machine's own (accesses.cpp). They
// find
//
// - what lies outside an allocation or a shared array, or at no multiple of its size;
// - what a kernel that may start before the previous one ends does before it waits, with memory
//   that the other reads or writes (programmatic dependent launch);
// - shared memory that wgmma and bulk copies would not see as it is: what a thread has written
//   since its last fence_async_proxy.
//
// For the last two the machine says what it does on a thread's behalf: note_read and note_write of
// sanitizers.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace moebench::simt {

struct Block;
struct Fiber;
struct Shape;

// ---- Launches in the order in which they were enqueued ------------------------------------------
// Until end_launch, this is the one that runs.
void begin_launch(const Shape& shape);
// What the launch did wrong as a whole; empty if nothing.
std::string end_launch();
// All launches so far have ended before the next begins, whatever that one allows.
void no_launch_is_under_way();
// A block of it begins, in memory that others have used.
void begin_block(Block& block);
// The words of a kernel. Who waits behind a barrier of a thread that has waited need not itself.
void wait_for_previous_kernel();
void let_next_kernel_start();

// ---- Shared memory between threads and the asynchronous units -----------------------------------
// For bulk copies and non-coherent loads of device memory: no word makes them see what this launch
// itself has written there.
void check_not_written(const void* memory, std::size_t bytes, const char* what);
// Of a thread that wrote some of these bytes and has not fenced them since; -1 if there is none.
int unfenced_writer(const Block& block, std::uint32_t address, std::size_t bytes);

}  // namespace moebench::simt
