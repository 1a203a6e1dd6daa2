// Hooks that are registered on a graph after it was checked.
#pragma once

#include <cstddef>
#include <vector>

#include "torch_ext/capture/sites.h"

namespace hushgrad {

/// A hook on a tensor may mix samples in the backward pass. Those of the forward pass are there when the model is checked; whatever
/// comes between the check and the backward pass is found here by counting.
class LaterHooks {
 public:
  /// Counts the hooks of a graph that was just checked, and keeps its nodes alive.
  void note(const Walk& walk, const std::vector<Edge>& roots);
  /// @throws Unsupported by the node's name if there are more now.
  void refuse_later() const;
  void clear();

 private:
  struct HooksOf {
    const Node* node;
    bool is_output;
    std::size_t count;
  };
  static std::size_t counted(const Node& node, bool is_output);

  std::vector<HooksOf> hooks_;
  std::vector<Edge> roots_;
};

}  // namespace hushgrad
