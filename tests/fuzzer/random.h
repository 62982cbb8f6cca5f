// A small generator whose whole sequence follows from one number.
#pragma once

#include <cstdint>

namespace penumbra::fuzz {

constexpr uint64_t mix(uint64_t value) {  // SplitMix64
  value += 0x9e37'79b9'7f4a'7c15;
  value = (value ^ value >> 30) * 0xbf58'476d'1ce4'e5b9;
  value = (value ^ value >> 27) * 0x94d0'49bb'1331'11eb;
  return value ^ value >> 31;
}

class Random {
 public:
  // Mixed, for else the sequence of a neighbouring seed would be this one, one number later.
  explicit Random(uint64_t seed) : state_(mix(seed)) {}
  uint64_t next() { return mix(state_++ * 0xd134'2543'de82'ef95); }
  uint64_t below(uint64_t limit) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(next()) * limit >> 64);
  }
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool percent(unsigned chance) { return below(100) < chance; }

  // A value that is likely to be at the edge of something: 0, -1, powers of two and their neighbours.
  uint64_t edge() {
    switch (below(10)) {
      case 0:
        return 0;
      case 1:
        return ~uint64_t{0} >> (below(4) * 16 + below(2) * 8);
      case 2:
        return uint64_t{1} << below(64);
      case 3:
        return (uint64_t{1} << below(64)) - 1;
      case 4:
        return ~(uint64_t{1} << below(64));
      case 5:
        return -(uint64_t{1} << below(64));
      case 6:
        return below(70);
      case 7:
        return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(next())));
      default:
        return next();
    }
  }

 private:
  uint64_t state_;
};

}  // namespace penumbra::fuzz
