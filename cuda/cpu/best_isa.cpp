// Prints the most capable of the instruction sets that this machine runs; CMake asks when it is not told what to build for.
#include <cstdio>

#include "processor.h"

int main() {
  for (const char* isa : {"amx", "avx512bf16", "avx512", "avx2", "baseline"}) {
    if (fieldfit::processor_runs(isa)) {
      std::fputs(isa, stdout);
      return 0;
    }
  }
}
