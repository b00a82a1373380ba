// What this processor runs. Asked of the baseline's module before another one is loaded: loading one alone executes
// instructions that it was compiled for.
#pragma once
#include <string>

namespace fieldfit {

// Whether the module compiled for this instruction set, by the name that the build gives it, may be loaded.
bool processor_runs(const std::string& isa);

}  // namespace fieldfit
