// Runs one kernel on arrays from a file and writes them back: what a test program's main() calls.
//
// The request is little-endian: grid x, y, z, threads, shared bytes (u32 each), then the kernel's arguments in order. A
// pointer is its size in bytes (i64, -1 for null) and its contents; a value is its bytes. The answer is the contents of
// all pointers, in order. Arrays are allocated to the byte, so that AddressSanitizer sees one step past their ends.
#pragma once
#include <tuple>

#include "shim.h"

namespace shim {

struct Request {
  FILE* file;

  void read(void* to, size_t bytes) {
    if (bytes && fread(to, 1, bytes, file) != bytes) {
      fprintf(stderr, "shim: the request ends too early\n");
      exit(2);
    }
  }
};

template <class T>
struct Argument {
  T value;
  void load(Request& request) { request.read(&value, sizeof value); }
  void save(FILE*) const {}
};
template <class T>
struct Argument<T*> {
  T* value = nullptr;
  int64_t bytes = -1;
  void load(Request& request) {
    request.read(&bytes, sizeof bytes);
    if (bytes < 0) return;
    void* memory = malloc(static_cast<size_t>(bytes));
    request.read(memory, static_cast<size_t>(bytes));
    value = static_cast<T*>(memory);
  }
  void save(FILE* to) const {
    if (bytes > 0) fwrite(value, 1, static_cast<size_t>(bytes), to);
    free(const_cast<void*>(static_cast<const void*>(value)));
  }
};

template <class... A>
int run(void (*kernel)(A...), const char* request_path, const char* answer_path) {
  Request request{fopen(request_path, "rb")};
  uint32_t shape[5];
  request.read(shape, sizeof shape);
  std::tuple<Argument<std::remove_const_t<A>>...> arguments;
  std::apply([&](auto&... a) { (a.load(request), ...); }, arguments);
  fclose(request.file);
  std::apply(
      [&](auto&... a) { launch({shape[0], shape[1], shape[2]}, shape[3], shape[4], [&] { kernel(a.value...); }); },
      arguments);
  FILE* answer = fopen(answer_path, "wb");
  std::apply([&](auto&... a) { (a.save(answer), ...); }, arguments);
  fclose(answer);
  return 0;
}

}  // namespace shim

#define SHIM_KERNEL(name) \
  if (!strcmp(argv[1], #name)) return shim::run(fieldfit::name, argv[2], argv[3])
