// What the user gave cannot work: shown as one line, with exit status 2.
#pragma once

#include <stdexcept>

namespace penumbra {

class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace penumbra
