#include "dpcore/sealed/tensor_index.h"

#include "dpcore/error.h"
#include "dpcore/keys/seal_testing.h"

namespace hushgrad {
namespace {

using namespace seal_testing;

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& begin, const std::string& end) {
  return R"({"begin":)" + begin + R"(,"dtype":")" + dtype + R"(","end":)" + end + R"(,"name":")" + name +
         R"(","shape":)" + shape + "}";
}

std::string build_index(const std::string& meta_json, const std::vector<SealedTensor>& tensors) {
  std::vector<TensorDescription> described;
  for (const SealedTensor& t : tensors) described.push_back({t.name, t.dtype, t.shape, t.bytes.size()});
  return hushgrad::build_index(meta_json, described);
}

std::string index(const std::string& entries, const std::string& meta = R"("{}")") {
  return R"({"meta":)" + meta + R"(,"tensors":[)" + entries + "]}";
}

TEST(TensorIndex, WritesTheFormOfTheFormatPageAndReadsItBack) {
  const Bytes w(16), b(4);
  const std::vector<SealedTensor> tensors{
      {"w", "F32", {2, 2}, w}, {"\xC3\xA4.\"b\"", "BF16", {2}, b}, {"n", "I64", {0, 3}, {}}};
  const std::string text = build_index(R"({"lr": 0.1})", tensors);
  EXPECT_EQ(text, index(entry("w", "F32", "[2,2]", "0", "16") + "," +
                            entry("\xC3\xA4.\\\"b\\\"", "BF16", "[2]", "16", "20") + "," +
                            entry("n", "I64", "[0,3]", "20", "20"),
                        R"("{\"lr\": 0.1}")"));
  const TensorIndex read = parse_index(text, 20);
  EXPECT_EQ(read.meta_json, R"({"lr": 0.1})");
  ASSERT_EQ(read.tensors.size(), 3u);
  EXPECT_EQ(read.tensors[1].name, "\xC3\xA4.\"b\"");
  EXPECT_EQ(read.tensors[1].dtype, "BF16");
  EXPECT_EQ(read.tensors[1].shape, std::vector<std::int64_t>{2});
  EXPECT_EQ(read.tensors[1].begin, 16u);
  EXPECT_EQ(read.tensors[1].end, 20u);
  EXPECT_NO_THROW(parse_index(build_index("null", {}), 0));
}

TEST(TensorIndex, KnowsTheSizeOfEveryDtype) {
  const std::vector<std::pair<std::string, std::size_t>> sizes{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2},
      {"I16", 2},  {"F16", 2}, {"BF16", 2}, {"U32", 4},     {"I32", 4},     {"F32", 4},
      {"U64", 8},  {"I64", 8}, {"F64", 8},  {"C64", 8},     {"C128", 16}};
  for (const auto& [dtype, size] : sizes) {
    const Bytes scalar(size), longer(size + 1);
    EXPECT_NO_THROW(build_index("{}", std::vector<SealedTensor>{{"x", dtype, {}, scalar}})) << dtype;
    EXPECT_THROW(build_index("{}", std::vector<SealedTensor>{{"x", dtype, {}, longer}}), InvalidArgument)
        << dtype;
  }
}

TEST(TensorIndex, RefusesToWriteWhatItWouldNotRead) {
  const Bytes four(4);
  const auto build = [&](const std::string& name, const std::string& dtype,
                         const std::vector<std::int64_t>& shape) {
    build_index("{}", std::vector<SealedTensor>{{name, dtype, shape, four}});
  };
  EXPECT_NO_THROW(build("x", "F32", {1}));
  EXPECT_THROW(build("x", "F32", {2}), InvalidArgument);
  EXPECT_THROW(build("x", "f32", {1}), InvalidArgument);
  EXPECT_THROW(build("x", "", {1}), InvalidArgument);
  EXPECT_THROW(build("x", "F32", {-1, -1}), InvalidArgument);
  EXPECT_THROW(build("x", "F32", {INT64_MAX, INT64_MAX, 0}), InvalidArgument);
  EXPECT_THROW(build("", "F32", {1}), InvalidArgument);
  EXPECT_THROW(build("a\nb", "F32", {1}), InvalidArgument);
  EXPECT_THROW(build("\xFF", "F32", {1}), InvalidArgument);
  EXPECT_NO_THROW(build(std::string(4096, 'n'), "F32", {1}));
  EXPECT_THROW(build(std::string(4097, 'n'), "F32", {1}), InvalidArgument);
  const std::vector<SealedTensor> twice{{"x", "F32", {1}, four}, {"x", "F32", {1}, four}};
  EXPECT_THROW(build_index("{}", twice), InvalidArgument);
  for (const char* meta : {"", "{", "{} {}", "NaN", "\xFF"}) {
    EXPECT_THROW(build_index(meta, {}), InvalidArgument) << meta;
  }
  EXPECT_THROW(build_index("\"" + std::string(kMaxIndexBytes, 'x') + "\"", {}), InvalidArgument);
}

TEST(TensorIndex, RefusesHostileIndexes) {
  const std::string x = entry("x", "F32", "[2]", "0", "8"), y = entry("y", "U8", "[4]", "8", "12");
  ASSERT_NO_THROW(parse_index(index(x + "," + y), 12));
  const std::string max = "18446744073709551615";
  const std::vector<std::pair<std::string, std::string>> faults{
      {"empty", ""},
      {"not JSON", "hello"},
      {"invalid UTF-8", index(entry("\xFF", "U8", "[12]", "0", "12"))},
      {"trailing text", index(x + "," + y) + " "},
      {"blank inside", R"({"meta": "{}","tensors":[]})"},
      {"no object", "[]"},
      {"missing meta", R"({"tensors":[]})"},
      {"unknown field", R"({"extra":1,"meta":"{}","tensors":[]})"},
      {"duplicate field", R"({"meta":"{}","meta":"{}","tensors":[]})"},
      {"fields not sorted", R"({"tensors":[],"meta":"{}"})"},
      {"meta not text", index(x + "," + y, "{}")},
      {"meta not JSON", index(x + "," + y, R"("{")")},
      {"tensors not a list", R"({"meta":"{}","tensors":{}})"},
      {"duplicate name", index(x + "," + entry("x", "U8", "[4]", "8", "12"))},
      {"empty name", index(entry("", "U8", "[12]", "0", "12"))},
      {"NUL in a name", index(entry("a\\u0000b", "U8", "[12]", "0", "12"))},
      {"long name", index(entry(std::string(4097, 'n'), "U8", "[12]", "0", "12"))},
      {"unknown dtype", index(entry("x", "Q8", "[12]", "0", "12"))},
      {"dtype not text", index(R"({"begin":0,"dtype":1,"end":12,"name":"x","shape":[12]})")},
      {"name not text", index(R"({"begin":0,"dtype":"U8","end":12,"name":1,"shape":[12]})")},
      {"unknown entry field", index(R"({"begin":0,"dtype":"U8","end":12,"name":"x","shape":[12],"z":0})")},
      {"missing entry field", index(R"({"begin":0,"dtype":"U8","end":12,"name":"x"})")},
      {"entry not an object", index("7")},
      {"hole before", index(entry("x", "U8", "[11]", "1", "12"))},
      {"hole between", index(x + "," + entry("y", "U8", "[3]", "9", "12"))},
      {"hole after", index(x + "," + entry("y", "U8", "[3]", "8", "11"))},
      {"overlap", index(x + "," + entry("y", "U8", "[5]", "7", "12"))},
      {"out of order", index(y + "," + x)},
      {"past the end", index(x + "," + entry("y", "U8", "[5]", "8", "13"))},
      {"end before begin", index(x + "," + entry("y", "U8", "[4]", "8", "4"))},
      {"length does not fit shape", index(x + "," + entry("y", "U8", "[5]", "8", "12"))},
      {"length does not fit dtype", index(x + "," + entry("y", "I16", "[4]", "8", "12"))},
      {"negative begin", index(entry("x", "U8", "[12]", "-1", "12"))},
      {"fractional end", index(entry("x", "U8", "[12]", "0", "12.0"))},
      {"end as text", index(entry("x", "U8", "[12]", "0", "\"12\""))},
      {"end of 2^64-1", index(entry("x", "U8", "[12]", "0", max))},
      {"end of 2^64", index(entry("x", "U8", "[12]", "0", "18446744073709551616"))},
      {"dimension of 2^64-1", index(entry("x", "U8", "[" + max + "]", "0", "12"))},
      {"dimension of 2^63", index(entry("x", "U8", "[9223372036854775808]", "0", "12"))},
      {"negative dimensions", index(entry("x", "U8", "[-3,-4]", "0", "12"))},
      {"product wraps to 12", index(entry("x", "U8", "[4611686018427387907,4]", "0", "12"))},
      {"dtype times shape wraps to 8", index(entry("x", "F64", "[2305843009213693953]", "0", "8"))},
      {"product beside a zero wraps", index(entry("z", "U8", "[0,4611686018427387904,4]", "0", "0") + "," + x + "," + y)},
      {"dimension is text", index(entry("x", "U8", "[\"12\"]", "0", "12"))},
      {"shape not a list", index(entry("x", "U8", "12", "0", "12"))},
      {"nested shape", index(entry("x", "U8", "[[12]]", "0", "12"))},
      {"deep nesting", std::string(1 << 20, '[') + std::string(1 << 20, ']')},
      {"deep nesting as meta", index(x + "," + y, std::string(1 << 20, '[') + std::string(1 << 20, ']'))},
      {"unclosed nesting", std::string(1 << 20, '[')},
  };
  for (const auto& [name, text] : faults) {
    SCOPED_TRACE(name);
    const std::string said = thrown<SealError>([&, &text = text] { parse_index(text, 12); });
    EXPECT_NE(said.find("index with"), said.npos);
  }
  expect_error<SealError>([&] { parse_index(index(x + "," + y), 13); }, "up to the end");
  expect_error<SealError>([&] { parse_index(index(x + "," + y), 11); }, "follow each other");
}

// Every single-character change of a good index either fails or, where it still says something, reads back as
// it is.
TEST(TensorIndex, NoOneCharacterChangeSlipsThroughUncanonically) {
  const Bytes w(8);
  const std::string good = build_index("{}", std::vector<SealedTensor>{{"w", "F32", {2}, w}});
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string text = good;
      text[at] = static_cast<char>(value);
      if (text == good) continue;
      try {
        const TensorIndex read = parse_index(text, 8);
        std::vector<SealedTensor> again;
        for (const auto& e : read.tensors) again.push_back({e.name, e.dtype, e.shape, w});
        EXPECT_EQ(build_index(read.meta_json, again), text);
      } catch (const SealError&) {
      }
    }
  }
}

}  // namespace
}  // namespace hushgrad
