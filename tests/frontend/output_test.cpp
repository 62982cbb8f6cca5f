#include "frontend/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "frontend/user_error.h"

namespace penumbra {
namespace {

void put(Output& output, std::string_view text) {
  for (const char character : text) output.put(static_cast<uint8_t>(character));
}

class OutputFile : public testing::Test {
 protected:
  OutputFile() {
    std::string name = (std::filesystem::temp_directory_path() / "output_test.XXXXXX").string();
    folder = mkdtemp(name.data());
    path = (folder / "file").string();
  }
  ~OutputFile() override { std::filesystem::remove_all(folder); }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  std::filesystem::path folder;
  std::string path;
};

TEST_F(OutputFile, LinesAreWrittenAtOnceTheRestWhenFlushed) {
  Output output(path);
  int told = 0;
  output.set_waiting_listener([&] { ++told; });
  put(output, "line\r\npro");
  EXPECT_EQ(content(), "line\r\n");
  put(output, "mpt");
  EXPECT_EQ(told, 2);  // for "l" and for "p"
  output.flush();
  EXPECT_EQ(content(), "line\r\nprompt");
  EXPECT_TRUE(output.empty());
}

TEST_F(OutputFile, NothingIsLostAtTheEnd) {
  {
    Output output(path);
    put(output, "no line end");
  }
  EXPECT_EQ(content(), "no line end");
}

TEST_F(OutputFile, LongLinesAreWrittenInPieces) {
  const std::string line(10'000, 'x');
  Output output(path);
  put(output, line);
  EXPECT_GE(content().size(), 8192u);
  output.flush();
  EXPECT_EQ(content(), line);
}

TEST_F(OutputFile, APathThatCannotBeMadeIsTheUsersError) {
  try {
    Output output(path + "/beneath/a/file");
    FAIL() << "made " << path;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
  }
}

TEST(Output, AClosedPipeIsToldOnceAndTheRestDropped) {
  signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  Output output(ends[1], "pipe");
  std::vector<int> errors;
  output.set_failure_listener([&](const Output& failed, int error) {
    EXPECT_EQ(failed.name(), "pipe");
    errors.push_back(error);
  });
  put(output, "one\ntwo\nthree\n");
  EXPECT_EQ(errors, std::vector<int>{EPIPE});
  close(ends[1]);
}

TEST(Output, ADescriptorThatDoesNotBlockIsWaitedFor) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  std::string sent;
  for (int i = 0; i < 40'000; ++i) sent += "line " + std::to_string(i) + "\n";
  std::string got;
  if (const pid_t child = fork(); child == 0) {
    Output output(ends[1], "pipe");
    put(output, sent);
    _exit(0);
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, 0);
  char buffer[1024];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof(buffer))) > 0;)
    got.append(buffer, static_cast<size_t>(count));
  close(ends[0]);
  EXPECT_EQ(got, sent);
}

}  // namespace
}  // namespace penumbra
