#include "core/virtual_clock.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace penumbra {
namespace {

class VirtualClockTest : public testing::Test {
 protected:
  Nanoseconds time_ = 1000;
  VirtualClock clock_{[this] { return time_; }};
  void advance_to(Nanoseconds time) {
    time_ = 1000 + time;
    clock_.run_expired();
  }
};

TEST_F(VirtualClockTest, StartsAtZeroAndFollowsItsSource) {
  EXPECT_EQ(clock_.now(), 0u);
  time_ += 5;
  EXPECT_EQ(clock_.now(), 5u);
}

TEST_F(VirtualClockTest, HostClockIsTheDefault) {
  VirtualClock host;
  const Nanoseconds first = host.now();
  EXPECT_LT(first, 1'000'000'000u);
  EXPECT_GE(host.now(), first);
}

TEST_F(VirtualClockTest, ExpiredTimersRunInTheOrderOfTheirDeadlines) {
  std::string order;
  Timer a(clock_, [&] { order += 'a'; }), b(clock_, [&] { order += 'b'; }), c(clock_, [&] { order += 'c'; });
  a.arm(30);
  b.arm(10);
  c.arm(31);
  advance_to(9);
  EXPECT_EQ(order, "");
  advance_to(30);
  EXPECT_EQ(order, "ba");
  EXPECT_FALSE(a.armed());
  EXPECT_TRUE(c.armed());
  advance_to(100);
  EXPECT_EQ(order, "bac");
}

TEST_F(VirtualClockTest, ArmReplacesTheDeadlineAndCancelForgetsIt) {
  int fired = 0;
  Timer timer(clock_, [&] { fired++; });
  timer.arm(10);
  timer.arm(20);
  EXPECT_EQ(clock_.next_deadline(), 20u);
  advance_to(15);
  EXPECT_EQ(fired, 0);
  timer.cancel();
  EXPECT_EQ(clock_.next_deadline(), std::nullopt);
  advance_to(25);
  EXPECT_EQ(fired, 0);
}

TEST_F(VirtualClockTest, TimerThatArmsItselfForThePastExpiresOncePerCall) {
  int fired = 0;
  Timer timer(clock_, [&] {
    fired++;
    timer.arm(0);
  });
  timer.arm(0);
  advance_to(1);
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(clock_.next_deadline(), 0u);
  advance_to(2);
  EXPECT_EQ(fired, 2);
}

TEST_F(VirtualClockTest, CallbackMayArmAndDestroyOtherTimers) {
  std::string order;
  auto victim = std::make_unique<Timer>(clock_, [&] { order += 'v'; });
  Timer late(clock_, [&] { order += 'l'; });
  Timer first(clock_, [&] {
    order += 'f';
    victim.reset();
    late.arm(12);
  });
  first.arm(10);
  victim->arm(11);
  advance_to(20);
  EXPECT_EQ(order, "fl");
}

TEST_F(VirtualClockTest, ListenerHearsOnlyChangesOfTheEarliestDeadline) {
  int calls = 0;
  Timer a(clock_, [] {}), b(clock_, [] {});
  clock_.set_deadline_listener([&] { calls++; });
  a.arm(100);
  EXPECT_EQ(calls, 1);
  b.arm(200);
  EXPECT_EQ(calls, 1);
  b.arm(50);
  EXPECT_EQ(calls, 2);
  b.cancel();
  EXPECT_EQ(calls, 3);
  advance_to(100);
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(clock_.next_deadline(), std::nullopt);
}

TEST_F(VirtualClockTest, FrozenTimeStandsStillAndGoesOnFromThere) {
  advance_to(100);
  clock_.freeze();
  advance_to(500);
  EXPECT_EQ(clock_.now(), 100u);
  clock_.freeze();
  advance_to(600);
  clock_.thaw();
  EXPECT_EQ(clock_.now(), 100u);
  advance_to(650);
  EXPECT_EQ(clock_.now(), 150u);
  clock_.thaw();
  EXPECT_EQ(clock_.now(), 150u);
}

}  // namespace
}  // namespace penumbra
