// Messages to the server of a shared folder: whatever they say, nothing outside the folder changes.
#include <stdlib.h>

#include <filesystem>
#include <string_view>
#include <vector>

#include "storage/file_server_9p.h"
#include "tests/fuzz_devices/input.h"

namespace penumbra {
namespace {

namespace fs = std::filesystem;

// Types of messages, and what is in them: numbers of files (f), names (n), integers of so many bytes.
constexpr std::pair<uint8_t, std::string_view> kMessages[] = {
    {8, "f"},      {12, "f4"},      {14, "fn444"},      {16, "fnn4"}, {18, "fn4444"},   {20, "ffn"},
    {22, "f"},     {24, "f8"},      {26, "f444488888"}, {30, "ffn"},  {32, "fn84"},     {40, "f84"},
    {50, "f4"},    {52, "f14884n"}, {54, "f1884n"},     {70, "ffn"},  {72, "fn44"},     {74, "fnfn"},
    {76, "fn4"},   {100, "4n"},     {104, "ffnn4"},     {108, "2"},   {110, "ff2nnnn"}, {116, "f84"},
    {118, "f8n2"}, {120, "f"},      {122, "f"}};
constexpr std::string_view kNames[] = {"a", "b",         "c",      "..",       ".",
                                       "/", "../secret", "user.a", "9P2000.L", "/etc"};

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "penumbra-fuzz-XXXXXX").string();
    if (!mkdtemp(name.data())) abort();
    top_ = name;
  }
  ~Folder() { fs::remove_all(top_); }
  std::string fresh() const {
    fs::remove_all(shared());
    fs::create_directory(shared());
    return shared().string();
  }
  void check() const {
    for (const fs::directory_entry& entry : fs::directory_iterator(top_)) {
      if (entry.path() != shared()) abort();
    }
    if (!fs::is_directory(fs::symlink_status(shared()))) abort();
  }

 private:
  fs::path shared() const { return top_ / "shared"; }
  fs::path top_;
};

std::vector<std::byte> message(Input& input) {
  const auto& [type, fields] = kMessages[input.below(std::size(kMessages))];
  std::string body;
  const auto number = [&body](uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) body += static_cast<char>(value >> 8 * i);
  };
  number(type, 1);
  number(1, 2);
  for (const char field : fields) {
    if (field == 'f') {
      number(input.below(5), 4);
    } else if (field == 'n') {
      const unsigned which = input.below(16);
      std::string name(kNames[which % std::size(kNames)]);
      if (which == 15) {
        const auto raw = input.bytes(input.below(300));
        name.assign(raw.begin(), raw.end());
      }
      number(name.size(), 2);
      body += name;
    } else {
      const unsigned size = static_cast<unsigned>(field - '0');
      number(input.below(4) ? input.word() : input.qword(), size);
    }
  }
  const uint8_t damage = input.byte();
  if (damage > 240) body.resize(body.size() - std::min<size_t>(body.size(), damage - 240));
  std::string whole;
  const uint64_t length = damage == 239 ? input.dword() : body.size() + 4;
  for (unsigned i = 0; i < 4; i++) whole += static_cast<char>(length >> 8 * i);
  whole += body;
  const auto bytes = std::as_bytes(std::span(whole));
  return {bytes.begin(), bytes.end()};
}

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  static const Folder folder;
  Input input(data, size);
  const uint8_t flags = input.byte();
  using enum SharedFolderOptions::Security;
  {
    FileServer9p server(
        {.path = folder.fresh(), .security = flags & 1 ? Mapped : None, .read_only = (flags & 6) == 6}, 4);
    // A session, and the folder as number 0.
    for (const std::string_view begin :
         {std::string_view("\x15\0\0\0\x64\xff\xff\0\x20\0\0\x08\0"
                           "9P2000.L",
                           21),
          std::string_view("\x17\0\0\0\x68\x01\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 23)})
      server.answer(std::as_bytes(std::span(begin)), 4096);
    while (!input.done()) {
      const auto bytes = message(input);
      const size_t room = input.below(8) ? 8192 : input.below(100);
      if (server.answer(bytes, room).size() > room) abort();
    }
  }
  folder.check();
  return 0;
}
