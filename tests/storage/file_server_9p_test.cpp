// The 9P2000.L server, message by message, on a folder of the host. Numbers of messages and flags are
// linux/include/net/9p/9p.h's.
#include "storage/file_server_9p.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "storage/folder_share.h"

namespace penumbra {
namespace {

using Security = SharedFolderOptions::Security;
namespace fs = std::filesystem;

struct Message {
  std::string bytes = std::string(7, '\0');

  explicit Message(uint8_t type, uint16_t tag = 1) {
    bytes[4] = static_cast<char>(type);
    bytes[5] = static_cast<char>(tag);
    bytes[6] = static_cast<char>(tag >> 8);
  }
  Message& number(uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) bytes += static_cast<char>(value >> 8 * i);
    return *this;
  }
  Message& u8(uint64_t value) { return number(value, 1); }
  Message& u16(uint64_t value) { return number(value, 2); }
  Message& u32(uint64_t value) { return number(value, 4); }
  Message& u64(uint64_t value) { return number(value, 8); }
  Message& text(std::string_view value) {
    u16(value.size());
    bytes += value;
    return *this;
  }
  std::vector<std::byte> sized() const {
    std::string whole = bytes;
    for (unsigned i = 0; i < 4; i++) whole[i] = static_cast<char>(whole.size() >> 8 * i);
    const auto view = std::as_bytes(std::span(whole));
    return {view.begin(), view.end()};
  }
};

struct Answer {
  std::vector<std::byte> bytes;
  size_t at = 7;

  uint64_t number(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) value |= uint64_t{static_cast<uint8_t>(bytes.at(at++))} << 8 * i;
    return value;
  }
  std::string text(size_t length) {
    std::string value;
    while (length-- > 0) value += static_cast<char>(bytes.at(at++));
    return value;
  }
  std::string text() { return text(number(2)); }
  void skip_qid() { at += 13; }
  unsigned type() const { return bytes.size() < 7 ? 0 : static_cast<unsigned>(bytes[4]); }
  // 0: no error
  int error() {
    if (type() != 7) return 0;
    at = 7;
    return static_cast<int>(number(4));
  }
};

enum : uint32_t { kRdonly = 0, kWronly = 1, kRdwr = 2, kExcl = 0200, kTrunc = 01000, kAppend = 02000 };
constexpr uint32_t kNobody = ~uint32_t{0};

class FileServerTest : public testing::TestWithParam<Security> {
 protected:
  FileServerTest() {
    std::string name = (fs::temp_directory_path() / "penumbra-9p-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no folder for the test");
    top_ = name;
    shared_ = top_ / "shared";
    fs::create_directory(shared_);
    std::ofstream(top_ / "secret") << "secret";
    restart(GetParam());
  }
  ~FileServerTest() override { fs::remove_all(top_); }

  void restart(Security security, bool read_only = false, unsigned most_open = 16) {
    server_ = std::make_unique<FileServer9p>(
        SharedFolderOptions{.path = shared_.string(), .security = security, .read_only = read_only},
        most_open);
    Answer version = ask(Message(100, 0xffff).u32(65536).text("9P2000.L"));
    EXPECT_EQ(version.number(4), 65536u);
    EXPECT_EQ(version.text(), "9P2000.L");
    EXPECT_EQ(ask(Message(104).u32(0).u32(kNobody).text("user").text("").u32(getuid())).error(), 0);
  }
  Answer ask(const Message& message, size_t room = 1 << 20) {
    return {server_->answer(message.sized(), room)};
  }
  int failure(const Message& message) { return ask(message).error(); }

  int walk(uint32_t fid, uint32_t to, std::vector<std::string_view> names) {
    Message message(110);
    message.u32(fid).u32(to).u16(names.size());
    for (const auto name : names) message.text(name);
    Answer answer = ask(message);
    if (const int error = answer.error()) return error;
    return answer.number(2) == names.size() ? 0 : ENOENT;
  }
  int open(uint32_t fid, uint32_t flags) { return failure(Message(12).u32(fid).u32(flags)); }
  int create(uint32_t fid, std::string_view name, uint32_t flags, uint32_t mode) {
    return failure(Message(14).u32(fid).text(name).u32(flags).u32(mode).u32(getgid()));
  }
  int write(uint32_t fid, uint64_t offset, std::string_view data) {
    Message message(118);
    message.u32(fid).u64(offset).u32(data.size()).bytes += data;
    Answer answer = ask(message);
    if (const int error = answer.error()) return error;
    EXPECT_EQ(answer.number(4), data.size());
    return 0;
  }
  std::string read(uint32_t fid, uint64_t offset = 0, uint32_t count = 60000) {
    Answer answer = ask(Message(116).u32(fid).u64(offset).u32(count));
    if (const int error = answer.error()) return "error " + std::to_string(error);
    return answer.text(answer.number(4));
  }
  int clunk(uint32_t fid) { return failure(Message(120).u32(fid)); }
  std::set<std::string> list(uint32_t fid, uint32_t count = 4096) {
    std::set<std::string> names;
    for (uint64_t offset = 0;;) {
      Answer answer = ask(Message(40).u32(fid).u64(offset).u32(count));
      EXPECT_EQ(answer.error(), 0);
      answer.at = 7;
      const size_t end = answer.number(4) + answer.at;
      if (answer.at == end) return names;
      while (answer.at < end) {
        answer.skip_qid();
        offset = answer.number(8);
        answer.number(1);
        EXPECT_TRUE(names.insert(answer.text()).second);
      }
    }
  }
  struct Attributes {
    uint8_t qid_type;
    uint64_t mode, user, group, links, device, size, modified;
  };
  Attributes attributes(uint32_t fid) {
    Answer answer = ask(Message(24).u32(fid).u64(0x7ff));
    EXPECT_EQ(answer.error(), 0);
    answer.at = 7;
    EXPECT_EQ(answer.number(8) & 0x7ff, 0x7ffu);
    Attributes result{};
    result.qid_type = static_cast<uint8_t>(answer.number(1));
    answer.at += 12;
    result.mode = answer.number(4);
    result.user = answer.number(4);
    result.group = answer.number(4);
    result.links = answer.number(8);
    result.device = answer.number(8);
    result.size = answer.number(8);
    answer.at += 16 + 16;
    result.modified = answer.number(8);
    return result;
  }
  int set(uint32_t fid, uint32_t valid, uint32_t mode, uint32_t user, uint32_t group, uint64_t size,
          uint64_t modified = 0) {
    return failure(Message(26)
                       .u32(fid)
                       .u32(valid)
                       .u32(mode)
                       .u32(user)
                       .u32(group)
                       .u64(size)
                       .u64(0)
                       .u64(0)
                       .u64(modified)
                       .u64(0));
  }
  static std::string contents(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  fs::path top_, shared_;
  std::unique_ptr<FileServer9p> server_;
};

TEST_P(FileServerTest, FilesAreCreatedWrittenAndRead) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kRdwr, 0640), 0);
  EXPECT_EQ(write(1, 0, "hello"), 0);
  EXPECT_EQ(write(1, 5, " there"), 0);
  EXPECT_EQ(read(1), "hello there");
  EXPECT_EQ(read(1, 6, 3), "the");
  EXPECT_EQ(read(1, 100), "");
  EXPECT_EQ(failure(Message(50).u32(1).u32(0)), 0) << "fsync";
  EXPECT_EQ(failure(Message(50).u32(1)), 0) << "as older clients say it";
  EXPECT_EQ(clunk(1), 0);
  EXPECT_EQ(clunk(1), EBADF);
  EXPECT_EQ(contents(shared_ / "file"), "hello there");
  ASSERT_EQ(walk(0, 1, {"file"}), 0);
  const Attributes file = attributes(1);
  EXPECT_EQ(file.mode, S_IFREG | 0640u) << "whatever this process' umask is";
  EXPECT_EQ(file.size, 11u);
  EXPECT_EQ(file.user, getuid());
  EXPECT_EQ(file.qid_type, 0);
  EXPECT_EQ(open(1, kWronly | kTrunc), 0);
  EXPECT_EQ(read(1), "error " + std::to_string(EBADF)) << "open for writing";
  EXPECT_EQ(contents(shared_ / "file"), "");
  ASSERT_EQ(walk(0, 2, {}), 0);
  EXPECT_EQ(create(2, "file", kWronly | kExcl, 0600), EEXIST);
  EXPECT_EQ(create(2, "file", kWronly | kAppend, 0600), 0) << "without O_EXCL it is opened";
  EXPECT_EQ(write(2, 0, "end"), 0);
  EXPECT_EQ(contents(shared_ / "file"), "end");
}

TEST_P(FileServerTest, FoldersAreMadeListedAndRemoved) {
  ASSERT_EQ(failure(Message(72).u32(0).text("folder").u32(0750).u32(getgid())), 0);
  EXPECT_EQ(failure(Message(72).u32(0).text("folder").u32(0750).u32(getgid())), EEXIST);
  ASSERT_EQ(walk(0, 1, {"folder"}), 0);
  const Attributes folder = attributes(1);
  EXPECT_EQ(folder.mode, S_IFDIR | 0750u);
  EXPECT_EQ(folder.qid_type, 0x80);
  std::set<std::string> expected{".", ".."};
  for (unsigned i = 0; i < 300; i++) {
    const std::string name = "a file with a name " + std::to_string(i);
    std::ofstream(shared_ / "folder" / name);
    expected.insert(name);
  }
  ASSERT_EQ(open(1, kRdonly), 0);
  EXPECT_EQ(list(1), expected) << "in many answers";
  EXPECT_EQ(list(1, 60000), expected) << "from its beginning again";
  EXPECT_EQ(failure(Message(40).u32(1).u64(0).u32(8)), EINVAL) << "not even one fits";
  EXPECT_EQ(failure(Message(76).u32(0).text("folder").u32(0x200)), ENOTEMPTY);
  EXPECT_EQ(failure(Message(76).u32(0).text("folder").u32(0)), EISDIR);
  for (unsigned i = 0; i < 300; i++)
    ASSERT_EQ(failure(Message(76).u32(1).text("a file with a name " + std::to_string(i)).u32(0)), 0);
  EXPECT_EQ(failure(Message(76).u32(0).text("folder").u32(0x200)), 0);
  EXPECT_FALSE(fs::exists(shared_ / "folder"));
}

TEST_P(FileServerTest, WalkTellsHowFarItCame) {
  fs::create_directories(shared_ / "a/b");
  Answer answer = ask(Message(110).u32(0).u32(1).u16(3).text("a").text("b").text("c"));
  EXPECT_EQ(answer.type(), 111u);
  EXPECT_EQ(answer.number(2), 2u);
  EXPECT_EQ(clunk(1), EBADF) << "not of use then";
  EXPECT_EQ(walk(0, 1, {"x", "a"}), ENOENT);
  EXPECT_EQ(walk(0, 1, {"a", "b", "..", "..", "a"}), 0);
  EXPECT_EQ(walk(1, 1, {"b"}), 0) << "in place";
  EXPECT_EQ(walk(0, 1, {"a"}), EINVAL) << "a number that is taken";
  EXPECT_EQ(walk(7, 8, {}), EBADF);
}

TEST_P(FileServerTest, AttributesAreSet) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kWronly, 0644), 0);
  ASSERT_EQ(walk(0, 2, {"file"}), 0);
  EXPECT_EQ(set(2, 0x1, 04711, 0, 0, 0), 0);
  EXPECT_EQ(attributes(2).mode, S_IFREG | 04711u);
  EXPECT_EQ(set(2, 0x8, 0, 0, 0, 12345), 0);
  EXPECT_EQ(attributes(2).size, 12345u);
  EXPECT_EQ(set(2, 0x120, 0, 0, 0, 0, 1'000'000'000), 0);
  EXPECT_EQ(attributes(2).modified, 1'000'000'000u);
  EXPECT_EQ(set(2, 0x20, 0, 0, 0, 0, 5), 0);
  EXPECT_GT(attributes(2).modified, 1'500'000'000u) << "now";
  EXPECT_EQ(set(2, 0x40, 0, 0, 0, 0), 0) << "its time of change only";
  EXPECT_EQ(set(2, 0x8, 0, 0, 0, ~uint64_t{0}), EFBIG);
  // Without rights for new openings: who has it open may go on.
  EXPECT_EQ(set(2, 0x1, 0, 0, 0, 0), 0);
  EXPECT_EQ(set(1, 0x8, 0, 0, 0, 5), 0);
  EXPECT_EQ(attributes(1).size, 5u);
}

TEST_P(FileServerTest, LinksAreTheGuestsToResolve) {
  const auto link_to = [this](std::string_view name, std::string_view target) {
    return failure(Message(16).u32(0).text(name).text(target).u32(getgid()));
  };
  ASSERT_EQ(link_to("out", "../secret"), 0);
  ASSERT_EQ(link_to("up", ".."), 0);
  ASSERT_EQ(link_to("root", "/"), 0);
  EXPECT_EQ(link_to("out", "x"), EEXIST);
  EXPECT_EQ(link_to("none", ""), EINVAL);
  EXPECT_EQ(link_to("nul", std::string_view("a\0b", 3)), EINVAL);
  EXPECT_EQ(link_to("long", std::string(5000, 'x')), EINVAL);
  ASSERT_EQ(walk(0, 1, {"out"}), 0);
  const Attributes link = attributes(1);
  EXPECT_EQ(link.mode & S_IFMT, unsigned{S_IFLNK});
  EXPECT_EQ(link.qid_type, 2);
  Answer answer = ask(Message(22).u32(1));
  EXPECT_EQ(answer.text(), "../secret");
  EXPECT_EQ(open(1, kRdonly), ELOOP);
  EXPECT_EQ(set(1, 0x1, 0777, 0, 0, 0), EOPNOTSUPP);
  EXPECT_EQ(walk(0, 2, {"up", "secret"}), ENOENT) << "as far as the link";
  EXPECT_EQ(walk(0, 2, {"root"}), 0);
  EXPECT_EQ(walk(2, 3, {"etc"}), ENOTDIR);
  EXPECT_EQ(create(2, "new", kWronly, 0600), ENOTDIR) << "in a link's folder";
  EXPECT_EQ(failure(Message(22).u32(0)), EINVAL) << "no link";
}

// Of the host's own making, in the folder: as hostile as the guest's.
TEST_P(FileServerTest, HostsLinksLeadNowhereEither) {
  fs::create_symlink(top_, shared_ / "top");
  fs::create_symlink(top_ / "secret", shared_ / "secret");
  EXPECT_EQ(walk(0, 1, {"secret"}), 0);
  EXPECT_EQ(open(1, kRdonly), ELOOP);
  EXPECT_EQ(set(1, 0x8, 0, 0, 0, 0), EINVAL) << "not what it points to";
  EXPECT_EQ(walk(0, 2, {"top"}), 0);
  EXPECT_EQ(walk(2, 3, {"secret"}), ENOTDIR);
  EXPECT_EQ(failure(Message(76).u32(2).text("secret").u32(0)), ENOTDIR);
  ASSERT_EQ(walk(0, 4, {}), 0);
  EXPECT_EQ(create(4, "secret", kWronly | kTrunc, 0600), ELOOP);
  EXPECT_EQ(contents(top_ / "secret"), "secret");
}

TEST_P(FileServerTest, NoNameLeadsOut) {
  EXPECT_EQ(walk(0, 1, {".."}), 0) << "the folder above the top is the top";
  struct stat here {
  }, there{};
  stat(shared_.c_str(), &here);
  EXPECT_EQ(walk(1, 2, {"..", "..", ".."}), 0);
  EXPECT_EQ(walk(2, 3, {"secret"}), ENOENT);
  for (const std::string_view name : {"../secret", "..", ".", "", "a/b", "/etc/passwd"}) {
    if (name != "..") {
      EXPECT_NE(walk(0, 4, {name}), 0) << name;
    }
    EXPECT_NE(failure(Message(72).u32(0).text(name).u32(0700).u32(0)), 0) << name;
    EXPECT_NE(failure(Message(16).u32(0).text(name).text("x").u32(0)), 0) << name;
    EXPECT_NE(failure(Message(18).u32(0).text(name).u32(S_IFREG | 0600).u32(0).u32(0).u32(0)), 0) << name;
    EXPECT_NE(failure(Message(76).u32(0).text(name).u32(0)), 0) << name;
    EXPECT_NE(failure(Message(76).u32(0).text(name).u32(0x200)), 0) << name;
    EXPECT_NE(create(0, name, kWronly, 0600), 0) << name;
    std::ofstream(shared_ / "file");
    EXPECT_NE(failure(Message(74).u32(0).text("file").u32(0).text(name)), 0) << name;
    EXPECT_NE(failure(Message(74).u32(0).text(name).u32(0).text("file")), 0) << name;
    ASSERT_EQ(walk(0, 5, {"file"}), 0);
    EXPECT_NE(failure(Message(70).u32(0).u32(5).text(name)), 0) << name;
    EXPECT_NE(failure(Message(20).u32(5).u32(0).text(name)), 0) << name;
    clunk(5);
  }
  const std::string_view nul("file\0x", 6);
  EXPECT_NE(walk(0, 4, {nul}), 0);
  EXPECT_EQ(create(0, nul, kWronly, 0600), EINVAL);
  EXPECT_EQ(create(0, std::string(256, 'n'), kWronly, 0600), ENAMETOOLONG);
  EXPECT_EQ(failure(Message(20).u32(0).u32(0).text("x")), EBUSY) << "the top itself";
  EXPECT_EQ(contents(top_ / "secret"), "secret");
  stat(shared_.c_str(), &there);
  EXPECT_EQ(here.st_ino, there.st_ino);
}

// The numbers of the host's folders above say nothing.
TEST_P(FileServerTest, ListOfTheTopHidesWhatIsAbove) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(open(1, kRdonly), 0);
  Answer answer = ask(Message(40).u32(1).u64(0).u32(4096));
  const size_t end = answer.number(4) + answer.at;
  std::map<std::string, uint64_t> inodes;
  while (answer.at < end) {
    answer.at += 5;
    const uint64_t inode = answer.number(8);
    answer.at += 9;
    inodes[answer.text()] = inode;
  }
  EXPECT_EQ(inodes[".."], inodes["."]);
}

TEST_P(FileServerTest, NumbersGoWithWhatIsRenamed) {
  fs::create_directories(shared_ / "old/deep");
  std::ofstream(shared_ / "old/deep/file") << "text";
  std::ofstream(shared_ / "older") << "other";
  ASSERT_EQ(walk(0, 1, {"old", "deep", "file"}), 0);
  ASSERT_EQ(walk(0, 2, {"older"}), 0);
  ASSERT_EQ(walk(0, 3, {"old"}), 0);
  ASSERT_EQ(failure(Message(74).u32(0).text("old").u32(0).text("new")), 0);
  EXPECT_EQ(attributes(1).size, 4u);
  EXPECT_EQ(attributes(2).size, 5u) << "not below what was moved";
  EXPECT_EQ(failure(Message(20).u32(3).u32(0).text("newer")), 0) << "Trename";
  EXPECT_EQ(open(1, kRdonly), 0);
  EXPECT_EQ(read(1), "text");
  EXPECT_TRUE(fs::exists(shared_ / "newer/deep/file"));
  EXPECT_EQ(failure(Message(74).u32(0).text("newer").u32(3).text("x")), EINVAL) << "below itself";
  EXPECT_EQ(failure(Message(74).u32(0).text("gone").u32(0).text("x")), ENOENT);
}

TEST_P(FileServerTest, OpenFileOutlivesItsName) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kRdwr, 0600), 0);
  EXPECT_EQ(write(1, 0, "text"), 0);
  ASSERT_EQ(failure(Message(76).u32(0).text("file").u32(0)), 0);
  EXPECT_EQ(read(1), "text");
  EXPECT_EQ(attributes(1).size, 4u);
  EXPECT_EQ(set(1, 0x1, 0400, 0, 0, 0), 0);
  EXPECT_EQ(set(1, 0x8, 0, 0, 0, 2), 0);
  EXPECT_EQ(read(1), "te");
}

TEST_P(FileServerTest, RemoveGivesUpTheNumber) {
  std::ofstream(shared_ / "file");
  fs::create_directory(shared_ / "folder");
  ASSERT_EQ(walk(0, 1, {"file"}), 0);
  ASSERT_EQ(walk(0, 2, {"folder"}), 0);
  ASSERT_EQ(walk(0, 3, {}), 0);
  EXPECT_EQ(failure(Message(122).u32(1)), 0);
  EXPECT_EQ(failure(Message(122).u32(2)), 0);
  EXPECT_EQ(failure(Message(122).u32(3)), EBUSY);
  for (uint32_t fid = 1; fid <= 3; fid++) EXPECT_EQ(clunk(fid), EBADF);
  EXPECT_TRUE(fs::is_empty(shared_));
}

TEST_P(FileServerTest, HardLinksAndNodes) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kWronly, 0600), 0);
  EXPECT_EQ(failure(Message(70).u32(0).u32(1).text("second")), 0);
  EXPECT_EQ(attributes(1).links, 2u);
  EXPECT_EQ(failure(Message(18).u32(0).text("fifo").u32(S_IFIFO | 0620).u32(0).u32(0).u32(getgid())), 0);
  ASSERT_EQ(walk(0, 2, {"fifo"}), 0);
  EXPECT_EQ(attributes(2).mode, S_IFIFO | 0620u);
  EXPECT_EQ(open(2, kRdonly), ENXIO) << "no FIFO of the host is opened";
  EXPECT_EQ(failure(Message(18).u32(0).text("odd").u32(S_IFDIR | 0600).u32(0).u32(0).u32(0)), EINVAL);
  EXPECT_FALSE(fs::exists(shared_ / "odd"));
}

TEST_P(FileServerTest, ExtendedAttributes) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kWronly, 0600), 0);
  const auto set_to = [this](std::string_view name, std::string_view value, uint32_t flags = 0) {
    EXPECT_EQ(walk(0, 9, {"file"}), 0);
    if (const int error = failure(Message(32).u32(9).text(name).u64(value.size()).u32(flags))) {
      clunk(9);
      return error;
    }
    if (!value.empty()) {
      EXPECT_EQ(write(9, 0, value), 0);
    }
    return clunk(9);
  };
  const auto get = [this](std::string_view name) {
    Answer answer = ask(Message(30).u32(1).u32(8).text(name));
    if (const int error = answer.error()) return "error " + std::to_string(error);
    const uint64_t bytes = answer.number(8);
    std::string value = read(8);
    EXPECT_EQ(value.size(), bytes);
    clunk(8);
    return value;
  };
  EXPECT_EQ(set_to("user.colour", "green"), 0);
  EXPECT_EQ(get("user.colour"), "green");
  EXPECT_EQ(set_to("user.colour", "red", 1), EEXIST) << "XATTR_CREATE";
  EXPECT_EQ(get(""), std::string("user.colour\0", 12)) << "none of the server's own";
  EXPECT_EQ(set_to("user.colour", ""), 0) << "it goes away";
  EXPECT_EQ(get("user.colour"), "error " + std::to_string(ENODATA));
  EXPECT_EQ(set_to("security.capability", "x"), EOPNOTSUPP);
  EXPECT_EQ(set_to("trusted.x", "x"), EOPNOTSUPP);
  if (GetParam() == Security::Mapped) {
    EXPECT_EQ(set_to("user.virtfs.uid", "1234"), EACCES);
  }
  ASSERT_EQ(walk(0, 9, {"file"}), 0);
  EXPECT_EQ(failure(Message(32).u32(9).text("user.x").u64(65537).u32(0)), E2BIG);
  EXPECT_EQ(failure(Message(32).u32(9).text("user.x").u64(4).u32(0)), 0);
  EXPECT_EQ(write(9, 0, "12345"), ENOSPC) << "more than was said";
  EXPECT_EQ(write(9, 2, "12"), ENOSPC) << "not in order";
  EXPECT_EQ(clunk(9), EINVAL) << "less than was said";
  EXPECT_EQ(get("user.x"), "error " + std::to_string(ENODATA));
}

TEST_P(FileServerTest, ReadOnlyFolderIsNotWritten) {
  std::ofstream(shared_ / "file") << "text";
  restart(GetParam(), true);
  ASSERT_EQ(walk(0, 1, {"file"}), 0);
  ASSERT_EQ(walk(0, 2, {}), 0);
  EXPECT_EQ(open(1, kWronly), EROFS);
  EXPECT_EQ(open(1, kRdwr), EROFS);
  EXPECT_EQ(open(1, kRdonly | kTrunc), EROFS);
  EXPECT_EQ(create(2, "new", kRdonly, 0600), EROFS);
  EXPECT_EQ(set(1, 0x1, 0600, 0, 0, 0), EROFS);
  EXPECT_EQ(set(1, 0x8, 0, 0, 0, 0), EROFS);
  EXPECT_EQ(failure(Message(72).u32(0).text("d").u32(0700).u32(0)), EROFS);
  EXPECT_EQ(failure(Message(16).u32(0).text("l").text("x").u32(0)), EROFS);
  EXPECT_EQ(failure(Message(18).u32(0).text("n").u32(S_IFREG | 0600).u32(0).u32(0).u32(0)), EROFS);
  EXPECT_EQ(failure(Message(70).u32(0).u32(1).text("h")), EROFS);
  EXPECT_EQ(failure(Message(74).u32(0).text("file").u32(0).text("x")), EROFS);
  EXPECT_EQ(failure(Message(20).u32(1).u32(0).text("x")), EROFS);
  EXPECT_EQ(failure(Message(76).u32(0).text("file").u32(0)), EROFS);
  EXPECT_EQ(failure(Message(32).u32(2).text("user.x").u64(1).u32(0)), EROFS);
  EXPECT_EQ(open(1, kRdonly), 0);
  EXPECT_EQ(read(1), "text");
  EXPECT_EQ(failure(Message(122).u32(1)), EROFS);
  EXPECT_EQ(contents(shared_ / "file"), "text");
}

TEST_P(FileServerTest, FileSystemAndLocks) {
  Answer statfs = ask(Message(8).u32(0));
  EXPECT_EQ(statfs.type(), 9u);
  statfs.at += 4;
  EXPECT_GT(statfs.number(4), 0u);
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kRdwr, 0600), 0);
  Answer lock = ask(Message(52).u32(1).u8(1).u32(0).u64(0).u64(0).u32(7).text("guest"));
  EXPECT_EQ(lock.type(), 53u);
  EXPECT_EQ(lock.number(1), 0u);
  Answer held = ask(Message(54).u32(1).u8(1).u64(0).u64(10).u32(7).text("guest"));
  EXPECT_EQ(held.number(1), 2u);
  EXPECT_EQ(failure(Message(52).u32(0).u8(1).u32(0).u64(0).u64(0).u32(7).text("guest")), EBADF) << "not open";
  EXPECT_EQ(failure(Message(108).u16(1)), 0) << "Tflush";
}

TEST_P(FileServerTest, OpenFilesAreBounded) {
  restart(GetParam(), false, 3);
  for (uint32_t fid = 1; fid <= 4; fid++) {
    ASSERT_EQ(walk(0, fid, {}), 0);
    EXPECT_EQ(open(fid, kRdonly), fid <= 3 ? 0 : EMFILE);
  }
  EXPECT_EQ(create(4, "file", kWronly, 0600), EMFILE);
  EXPECT_FALSE(fs::exists(shared_ / "file"));
  EXPECT_EQ(clunk(1), 0);
  EXPECT_EQ(open(4, kRdonly), 0);
}

TEST_P(FileServerTest, SessionsBeginWithTheirVersion) {
  Answer unknown = ask(Message(100, 0xffff).u32(8192).text("9P2000.u"));
  EXPECT_EQ(unknown.number(4), 8192u);
  EXPECT_EQ(unknown.text(), "unknown");
  EXPECT_EQ(walk(0, 1, {}), EPROTO) << "there is none";
  EXPECT_EQ(failure(Message(100, 0xffff).u32(4095).text("9P2000.L")), EMSGSIZE);
  Answer large = ask(Message(100, 0xffff).u32(~uint32_t{0}).text("9P2000.L"));
  EXPECT_EQ(large.number(4), FileServer::kMostMessage);
  EXPECT_EQ(walk(0, 1, {}), EBADF) << "numbers of the last session";
  EXPECT_EQ(failure(Message(102).u32(1).text("user").text("").u32(0)), EOPNOTSUPP) << "Tauth";
  EXPECT_EQ(failure(Message(99)), EOPNOTSUPP);
}

TEST_P(FileServerTest, AnswersFitTheirRoom) {
  std::ofstream(shared_ / "file") << std::string(5000, 'x');
  ASSERT_EQ(walk(0, 1, {"file"}), 0);
  ASSERT_EQ(open(1, kRdonly), 0);
  const Message read_all = Message(116).u32(1).u64(0).u32(~uint32_t{0});
  EXPECT_EQ(ask(read_all, 100).bytes.size(), 100u) << "as much as there is room for";
  EXPECT_EQ(ask(read_all, 11).bytes.size(), 11u);
  EXPECT_TRUE(ask(read_all, 10).bytes.empty()) << "not even an error";
  Answer attributes = ask(Message(24).u32(1).u64(0x7ff), 20);
  EXPECT_EQ(attributes.error(), EMSGSIZE);
  Message long_write(118);
  long_write.u32(1).u64(0).u32(70000).bytes += std::string(70000, 'y');
  EXPECT_EQ(failure(long_write), EPROTO) << "longer than was agreed";
}

// Every message cut short at every byte, lengths that lie, and noise.
TEST_P(FileServerTest, DamagedMessagesAreRefused) {
  const std::vector<Message> good = {
      Message(8).u32(0),
      Message(12).u32(0).u32(0),
      Message(14).u32(0).text("f").u32(1).u32(0600).u32(0),
      Message(16).u32(0).text("l").text("x").u32(0),
      Message(18).u32(0).text("n").u32(S_IFREG).u32(0).u32(0).u32(0),
      Message(20).u32(0).u32(0).text("x"),
      Message(22).u32(0),
      Message(24).u32(0).u64(0x7ff),
      Message(26).u32(0).u32(0).u32(0).u32(0).u32(0).u64(0).u64(0).u64(0).u64(0).u64(0),
      Message(30).u32(0).u32(5).text("user.x"),
      Message(32).u32(0).text("user.x").u64(1).u32(0),
      Message(40).u32(0).u64(0).u32(4096),
      Message(50).u32(0).u32(0),
      Message(52).u32(0).u8(0).u32(0).u64(0).u64(0).u32(0).text("c"),
      Message(54).u32(0).u8(0).u64(0).u64(0).u32(0).text("c"),
      Message(70).u32(0).u32(0).text("h"),
      Message(72).u32(0).text("d").u32(0700).u32(0),
      Message(74).u32(0).text("a").u32(0).text("b"),
      Message(76).u32(0).text("a").u32(0),
      Message(104).u32(9).u32(kNobody).text("u").text("").u32(0),
      Message(108).u16(1),
      Message(110).u32(0).u32(6).u16(2).text("a").text("b"),
      Message(116).u32(0).u64(0).u32(10),
      Message(118).u32(0).u64(0).u32(3).u8(1).u8(2).u8(3),
      Message(120).u32(0),
      Message(122).u32(0),
  };
  std::mt19937 random(1);
  for (const Message& message : good) {
    const std::vector<std::byte> whole = message.sized();
    for (size_t bytes = 0; bytes < whole.size(); bytes++) {
      restart(GetParam());
      EXPECT_LE(server_->answer(std::span(whole).first(bytes), 4096).size(), 11u) << "the length says more";
      Message shorter = message;
      shorter.bytes.resize(std::max<size_t>(bytes, 7));
      const unsigned type = static_cast<unsigned>(whole[4]);
      if (type == 50 && bytes >= 11) continue;  // Tfsync's last word may be left out
      EXPECT_NE(failure(shorter), 0) << "type " << type << " of " << bytes << " bytes";
    }
    restart(GetParam());
    for (unsigned i = 0; i < 300; i++) {
      std::vector<std::byte> noise = whole;
      for (unsigned j = 0; j < 1 + i % 4; j++)
        noise[random() % noise.size()] = static_cast<std::byte>(random());
      EXPECT_LE(server_->answer(noise, 4096).size(), 4096u);
    }
  }
  EXPECT_EQ(contents(top_ / "secret"), "secret");
}

INSTANTIATE_TEST_SUITE_P(Models, FileServerTest,
                         testing::Values(Security::None, Security::Passthrough, Security::Mapped),
                         [](const auto& model) {
                           return std::string(model.param == Security::None          ? "none"
                                              : model.param == Security::Passthrough ? "passthrough"
                                                                                     : "mapped");
                         });

// What the guest sets is seen in attributes of the host's file, by QEMU's names, and the file stays this
// user's.
using MappedTest = FileServerTest;
INSTANTIATE_TEST_SUITE_P(Models, MappedTest, testing::Values(Security::Mapped));

TEST_P(MappedTest, OwnersModesAndDevicesAreKeptBeside) {
  ASSERT_EQ(walk(0, 1, {}), 0);
  ASSERT_EQ(create(1, "file", kWronly, 0644), 0);
  EXPECT_EQ(set(1, 0x6, 0, 0x01020304, 1000, 0), 0);
  EXPECT_EQ(attributes(1).user, 0x01020304u);
  EXPECT_EQ(attributes(1).group, 1000u);
  struct stat host;
  ASSERT_EQ(stat((shared_ / "file").c_str(), &host), 0);
  EXPECT_EQ(host.st_uid, getuid());
  EXPECT_EQ(host.st_mode, S_IFREG | 0600u);
  char bytes[4];
  ASSERT_EQ(getxattr((shared_ / "file").c_str(), "user.virtfs.uid", bytes, 4), 4);
  EXPECT_EQ(std::string(bytes, 4), "\4\3\2\1");
  EXPECT_EQ(failure(Message(18).u32(0).text("disk").u32(S_IFBLK | 0660).u32(8).u32(3).u32(6)), 0);
  ASSERT_EQ(walk(0, 2, {"disk"}), 0);
  EXPECT_EQ(attributes(2).mode, S_IFBLK | 0660u);
  EXPECT_EQ(attributes(2).device, 0x803u);
  EXPECT_EQ(open(2, kRdonly), ENXIO);
  ASSERT_EQ(stat((shared_ / "disk").c_str(), &host), 0);
  EXPECT_TRUE(S_ISREG(host.st_mode));
  ASSERT_EQ(failure(Message(16).u32(0).text("link").text("target").u32(0)), 0);
  EXPECT_EQ(contents(shared_ / "link"), "target") << "a regular file";
}

TEST_P(MappedTest, FileOfTheHostShowsAsItIs) {
  std::ofstream(shared_ / "file") << "text";
  fs::permissions(shared_ / "file", fs::perms{0604});
  ASSERT_EQ(walk(0, 1, {"file"}), 0);
  EXPECT_EQ(attributes(1).mode, S_IFREG | 0604u);
  EXPECT_EQ(attributes(1).user, getuid());
  // A mode that no file can have there: a folder's.
  const uint8_t mode[4] = {0xed, 0x41, 0, 0};
  ASSERT_EQ(setxattr((shared_ / "file").c_str(), "user.virtfs.mode", mode, 4, 0), 0);
  EXPECT_EQ(attributes(1).mode, S_IFREG | 0755u);
}

// --- The thread

TEST(FolderShare, AnswersInOrderOnTheCallersThread) {
  std::string name = (fs::temp_directory_path() / "penumbra-9p-XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  EventQueue events;
  {
    FolderShare share({.path = name}, 16, events);
    std::vector<size_t> sizes;
    share.submit(Message(100).u32(8192).text("9P2000.L").sized(), 4096,
                 [&](const std::vector<std::byte>& answer) { sizes.push_back(answer.size()); });
    for (unsigned i = 0; i < 50; i++) {
      share.submit(Message(108).u16(i).sized(), 4096,
                   [&](const std::vector<std::byte>& answer) { sizes.push_back(answer.size()); });
    }
    while (sizes.size() < 51) events.drain();
    EXPECT_EQ(sizes[0], 21u);
    EXPECT_EQ(sizes[50], 7u);
    share.reset();
    share.submit(Message(108).u16(1).sized(), 4096,
                 [&](const std::vector<std::byte>& answer) { sizes.push_back(answer.size()); });
    while (sizes.size() < 52) events.drain();
    EXPECT_EQ(sizes[51], 11u) << "the session is over";
    share.submit(Message(108).u16(1).sized(), 4096, [](const auto&) { FAIL() << "after its end"; });
  }
  fs::remove_all(name);
}

TEST(FolderShare, FolderThatCannotBe) {
  EventQueue events;
  EXPECT_THROW(FolderShare({.path = "/nowhere"}, 16, events), std::runtime_error);
  EXPECT_THROW(FolderShare({.path = "/etc/passwd"}, 16, events), std::runtime_error) << "no folder";
  EXPECT_THROW(FolderShare({.path = "/proc", .security = Security::Mapped}, 16, events), std::runtime_error)
      << "no extended attributes";
}

}  // namespace
}  // namespace penumbra
