// Prints the last of the instruction sets given that this machine runs; CMake asks when it is not told what to build for.
#include <cstdio>

#include "processor.h"

int main(int n, char** isas) {
  const char* best = "";
  for (int i = 1; i < n; ++i) {
    if (fieldfit::processor_runs(isas[i])) best = isas[i];
  }
  std::fputs(best, stdout);
}
