// While guest code runs, the guest's x87, SSE and AVX state is in the host's registers. Light code leaves
// them alone; whoever calls anything else (devices, the translator, the C library) holds a HostVectorScope,
// which saves the guest's registers first and puts them back at the end. Scopes nest; only the outermost one
// does the work.
#pragma once

#include "core/vcpu_state.h"

namespace penumbra {

// Host registers to VcpuState::guest_vector_state (an XSAVE image in standard format; components whose
// XSTATE_BV bit is clear are in their initial state), then the host's own x87 control word and MXCSR as C++
// expects them. The state must be live, and is not afterwards.
void save_guest_vector_state(VcpuState& state);
// The other way; the state must not be live, and is afterwards.
void load_guest_vector_state(VcpuState& state);

class HostVectorScope {
 public:
  explicit HostVectorScope(VcpuState& state) : state_(state), outermost_(state.vector_state_live) {
    if (outermost_) save_guest_vector_state(state_);
  }
  ~HostVectorScope() {
    if (outermost_) load_guest_vector_state(state_);
  }
  HostVectorScope(const HostVectorScope&) = delete;
  HostVectorScope& operator=(const HostVectorScope&) = delete;

 private:
  VcpuState& state_;
  bool outermost_;
};

// The reverse: the guest's vector state is live inside, for instructions that run on it.
class GuestVectorScope {
 public:
  explicit GuestVectorScope(VcpuState& state) : state_(state), outermost_(!state.vector_state_live) {
    if (outermost_) load_guest_vector_state(state_);
  }
  ~GuestVectorScope() {
    if (outermost_) save_guest_vector_state(state_);
  }
  GuestVectorScope(const GuestVectorScope&) = delete;
  GuestVectorScope& operator=(const GuestVectorScope&) = delete;

 private:
  VcpuState& state_;
  bool outermost_;
};

}  // namespace penumbra
