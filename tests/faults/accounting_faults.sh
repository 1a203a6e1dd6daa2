#!/usr/bin/env bash
# Puts one fault at a time into a copy of the accountants, builds it, and runs their tests: each fault must be caught.
# usage: tests/faults/accounting_faults.sh [FOLDER [TESTS [FIRST [LAST]]]]    prints one line a fault; exit 1 when one is not caught
# TESTS: the accounting_tests of an up-to-date build tree; without it they are built here. FIRST, LAST: only these faults.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"; work="${1:-$(mktemp -d)}"; first="${3:-1}"; last="${4:-999}"
build="$work/source/build/faults"
mkdir -p "$work/source"
tar -C "$root" --exclude=./build --exclude=./.venv --exclude=./.git --exclude='*.so' -cf - . | tar -C "$work/source" -xmf -
cmake -S "$work/source" -B "$build" -G Ninja -DHUSHGRAD_WITH_TORCH=OFF -DHUSHGRAD_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Release -Wno-author > "$work/configure.log"
tests="${2:-$build/tests/accounting_tests}"
ninja -C "$build" hushgrad_accounting $([[ $# -gt 1 ]] || echo accounting_tests) > "$work/build.log"
export LD_LIBRARY_PATH="$(dirname "$(find "$build" -name 'libhushgrad_accounting.so*' | head -1)")"
run() { timeout 600 "$tests" --gtest_fail_fast --gtest_filter="$1" > "$work/test.log" 2>&1; }
all='Directions*:Gaussian*:*GridLoss*:*Composition*:Shares*:Fft*:Rdp*:Gap*:Spending*:LossPair*:PldAccountant*:*EveryAccountant*:*EventContract*'
run "$all" || { echo "the tests fail without a fault, see $work/test.log"; exit 2; }
missed=0; number=0
# fault <name> <file below accounting/accountants> <sed expression>
fault() {
  number=$((number + 1))
  if ((number < first || number > last)); then return; fi
  local file="$work/source/accounting/accountants/$2"
  cp "$file" "$work/original"
  sed -i -E "$3" "$file"
  if cmp -s "$file" "$work/original"; then echo "DOES NOT APPLY  $1"; missed=1; return; fi
  if ! ninja -C "$build" hushgrad_accounting > "$work/build.log" 2>&1; then
    echo "DOES NOT BUILD  $1"; missed=1
  elif run "$all"; then
    echo "NOT CAUGHT      $1"; missed=1
  else
    echo "caught          $1    by $(grep -m1 -oP '^\[  FAILED  \] \K[^, ]+' "$work/test.log" || echo a crash)"
  fi
  cp "$work/original" "$file"
}
fault "losses of direction remove have an end too" pld.cpp 's/if \(direction == Direction::remove \|\| spending/if ((direction == Direction::remove \&\& epsilon < 0) || spending/'
fault "a Gaussian part has losses that end" pld.cpp 's/ \|\| spending\.mu_squared > 0 \|\| !spending\.pairs\.empty\(\)\) return false/) return false/'
fault "the end is that of one step" pld.cpp 's/largest -= step\.count \* std::log1p/largest -= std::log1p/'
fault "remove is never looked at" pld.cpp 's/Bounds bounds = direction_epsilon\(spending, Direction::remove/Bounds bounds = direction_epsilon(spending, Direction::add/'
fault "add is never looked at" pld.cpp 's/if \(bounds\.interval\.upper < kInfinity \&\&$/if (bounds.interval.upper < 0 \&\&/'
fault "delta looks at one direction" pld.cpp 's/std::exp\(std::max\(remove\.upper, add\.upper\)\), kSmallest/std::exp(remove.upper), kSmallest/'
fault "what is apart counts half" composition.cpp 's/const double without = -std::expm1\(log_within_\), excess = /&0.5 * /'
fault "what is apart may always be reduced" composition.cpp 's/const bool all_count = epsilon < .*;/const bool all_count = true;/'
fault "the mass that was left out is dropped" composition.cpp 's/infinite_ \+= count \* grid\.infinite;//'
fault "errors are taken from the upper end" composition.cpp 's/std::log\(std::max\(sum \+ error, 0\.0\)\)/std::log(std::max(sum - error, 0.0))/'
fault "the error of losses points the other way" composition.cpp 's/epsilon \+= bound_ == Bound::upper \? -loss_error_ : loss_error_/epsilon += bound_ == Bound::upper ? 1e6 * loss_error_ : loss_error_/'
fault "lower ends ignore what wraps around" composition.cpp 's/sum - error - below - above/sum + error + 0 * (below + above)/'
fault "a step too few" composition.cpp 's/log_moment_ \+= count \*/log_moment_ += (count - 1e-3) */'
fault "the grid starts one point late" composition.cpp 's/std::floor\(\(epsilon - offset_\) \/ spacing_\) \+ 1;/std::floor((epsilon - offset_) \/ spacing_) + 2;/'
fault "cells give their low share to both ends" cell_grid.cpp 's/masses\[i \+ 1\] \+= cells\[i\]\.high;/masses[i + 1] += cells[i].low;/'
fault "lower curves are not lowered" cell_grid.cpp 's/drop\[i \+ 1\] = cells_\[i\]\.gap_high;/drop[i + 1] = 0;/'
fault "the tail below is lost" loss_grid.cpp 's/grid\.masses\[1\] \+= below \* /grid.masses[1] += 0 * below * /'
fault "what is beyond has no excess" loss_grid.cpp 's/q_ \* normal_between\(\(x_high_ - 1\) \/ s_, x_high_ \/ s_\), loss_/0, loss_/'
fault "pairs are seen from one side" loss_pair.cpp 's/return direction == Direction::remove \? outcomes : swapped/return direction == Direction::remove || parts > 0 ? outcomes : swapped/'
fault "pairs lose what is above" loss_pair.cpp 's/grid\.infinite = outcomes\.high_p;//'
fault "orders are converted with the wrong sign" rdp.cpp 's/const double epsilon = rdp \+ std::log1p\(-1 \/ order\)/const double epsilon = rdp - std::log1p(1 \/ (order - 1)) * order/'
fault "moments are divided by the order" rdp.cpp 's/kSlack \* log_moment \/ \(order - 1\), kSlack/kSlack * log_moment \/ order, kSlack/'
fault "binomial terms start at 3" rdp.cpp 's/for \(int k = 2; k <= order; \+\+k\)/for (int k = 3; k <= order; ++k)/'
fault "the gap is charged once" gap.cpp 's/\(gap\.epsilon \+ 2 \* gap\.lambda\) \* kUp/(gap.epsilon + gap.lambda) * kUp/'
fault "failures are free" gap.cpp 's/const double rare = beta \+ spending\.failure;/const double rare = beta + 0 * spending.failure;/'
fault "the negative epsilon is taken as positive" gap.cpp 's/return \(-std::expm1\(epsilon\) \+ std::exp\(epsilon\) \*/return (std::exp(epsilon) */'
fault "replace-one moves as far as zero-out" spending.cpp 's/Adjacency::replace_one \? 2 : 1\)/Adjacency::replace_one ? 1 : 1)/'
fault "groups are one record" spending.cpp 's/group_ \*= static_cast<double>\(event\.integer\("group_size"\)\);//'
fault "a Gaussian is never sampled twice" spending.cpp 's/product_up\(mu_squared, count\)\)/mu_squared)/'
fault "the crossing of a discrete Gaussian is rounded up" discrete_gaussian.cpp 's/std::floor\(crossing \* \(1 - 4 \* kUlp\)\) \+ 1/std::floor(crossing) + 2/'
fault "half of the first integer is forgotten" discrete_gaussian.cpp 's/integral \+ rise \/ \(2 \* s\) - /integral - /'
fault "allocation divides by one bin too many" random_allocation.cpp 's/std::log\(static_cast<double>\(bins_\)\);$/std::log(static_cast<double>(bins_ + 1));/'
exit "$missed"
