// `penumbra explain`: a flat binary as the translator sees it.
#pragma once

#include <string>

#include "frontend/options.h"

namespace penumbra {

// Throws UserError for a file that cannot be read.
std::string explain(const ExplainOptions& options);

}  // namespace penumbra
