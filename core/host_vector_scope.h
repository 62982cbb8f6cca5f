// While guest code runs, the guest's x87, SSE and AVX state is in the host's registers. Light code leaves
// them alone; whoever calls anything else (devices, the translator, the C library) holds a HostVectorScope,
// which saves the guest's registers first and puts them back at the end. Scopes nest; only the outermost one
// does the work.
#pragma once

#include "core/vcpu_state.h"

namespace penumbra {

class HostVectorScope {
 public:
  explicit HostVectorScope(VcpuState& state);
  ~HostVectorScope();
  HostVectorScope(const HostVectorScope&) = delete;
  HostVectorScope& operator=(const HostVectorScope&) = delete;

 private:
  VcpuState& state_;
  bool outermost_;
};

}  // namespace penumbra
