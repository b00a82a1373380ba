// Prints those of the instruction sets given that this machine runs, as a list of CMake's.
#include <cstdio>

#include "processor.h"

int main(int n, char** isas) {
  const char* between = "";
  for (int i = 1; i < n; ++i) {
    if (!fieldfit::processor_runs(isas[i])) continue;
    std::printf("%s%s", between, isas[i]);
    between = ";";
  }
}
